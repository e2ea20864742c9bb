"""Writes THIRD-PARTY-NOTICES.txt: whose software the packages hold, and its licences.

    python infra/release/notices.py FOLDER [--viewer viewer] > THIRD-PARTY-NOTICES.txt

FOLDER is where pip put the packages (`pip install --target`). A package without any
word on its licence is an error: nobody may ship what he does not know the terms of.
"""

import argparse
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

LICENCE_FILES = ("licen", "copying", "notice", "authors")
RULE = "=" * 78


def licence(package: Distribution) -> str:
    """The licence's name as the package says it; empty where it says none."""
    fields = package.metadata
    named = fields.get("License-Expression") or ""
    classified = [
        each.rpartition(" :: ")[2]
        for each in fields.get_all("Classifier") or []
        if each.startswith("License :: ")
    ]
    said = (fields.get("License") or "").strip().splitlines()
    return named or ", ".join(classified) or (said[0] if said else "")


def texts(package: Distribution) -> list[str]:
    """The texts of the licence files that came with the package."""
    found = []
    for path in package.files or []:
        if "dist-info" in str(path) and path.name.lower().startswith(LICENCE_FILES):
            content = Path(str(path.locate())).read_text("utf-8", "replace").strip()
            if content not in found:
                found.append(content)
    return found


def notices(folder: Path) -> tuple[str, list[str]]:
    """The text, and the names of packages that say nothing about their licence."""
    parts, silent = [], []
    found = sorted(
        distributions(path=[str(folder)]), key=lambda each: each.name.lower()
    )
    for package in found:
        name, files = licence(package), texts(package)
        if not name and not files:
            silent.append(package.name)
        head = f"{package.name} {package.version}\n{name or 'see below'}"
        parts.append("\n\n".join([f"{RULE}\n{head}\n{RULE}", *files]))
    return "\n\n".join(parts) + "\n", silent


def main(words: list[str]) -> int:
    """Writes the notices to standard output; 1 where a licence is unknown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--viewer", type=Path, help="folder of the OHIF viewer")
    options = parser.parse_args(words)
    text, silent = notices(options.folder)
    sys.stdout.write("DICOM Functions contains the following software.\n\n" + text)
    if options.viewer and options.viewer.is_dir():
        for path in sorted(options.viewer.rglob("*LICENSE*")):
            if path.suffix in {"", ".txt", ".md"}:
                sys.stdout.write(f"\n{RULE}\nOHIF viewer: {path.name}\n{RULE}\n\n")
                sys.stdout.write(path.read_text("utf-8", "replace"))
    for name in silent:
        sys.stderr.write(f"{name}: no licence is named\n")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
