"""Writes dicomweb/dictionary.py's table from pydicom's copy of PS3.6.

    python tests/generate_dictionary.py

The committed table must equal `table()`: tests/unit/dicomweb/test_dictionary.py.
"""

import re
from pathlib import Path

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

TARGET = Path(__file__).parent.parent / "dicomweb" / "dictionary.py"
AMBIGUOUS = {
    "OB or OW": "ox",
    "US or SS": "xs",
    "US or OW": "xw",
    "US or SS or OW": "xw",
    "NONE": "na",
}


def table() -> str:
    """One line per attribute: tag, VR, VM, keyword; repeating tags with `x`."""
    entries = {f"{tag:08X}": entry for tag, entry in DicomDictionary.items()}
    entries |= {
        mask.upper().replace("X", "x"): entry
        for mask, entry in RepeatersDictionary.items()
    }
    return "\n".join(
        f"{tag} {AMBIGUOUS.get(entry[0], entry[0])} {entry[1]} {entry[4]}".rstrip()
        for tag, entry in sorted(entries.items())
        if tag[4:] != "0000"
    )


def main() -> None:
    """Replace the table in place."""
    source = TARGET.read_text(encoding="utf-8")
    replaced = re.sub(
        r'(_TABLE = """\\\n).*?(\n""")',
        lambda found: found.group(1) + table() + found.group(2),
        source,
        flags=re.DOTALL,
    )
    TARGET.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
