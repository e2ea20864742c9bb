"""Random files: the scanner against pydicom, changed headers against the scanner.

`RANDOM_FILES` says how many; each is told by its number.
"""

import io
import math
import os
from typing import Any

import pydicom
import pytest
from corpus import as_we_write_it, element_at
from pydicom import config, datadict
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from random_files import NUMBERS, UPDATABLE, RandomFile

from dicomweb import attributes, scan, update
from dicomweb.errors import InvalidRequest, MalformedInstance
from dicomweb.instance import ReadInstance, read
from dicomweb.store_response import Refused

pytestmark = pytest.mark.filterwarnings("ignore")

COUNT = int(os.environ.get("RANDOM_FILES", "600"))
UNREADABLE = (
    *(ArithmeticError, AttributeError, BytesLengthException, LookupError),
    *(TypeError, ValueError),
)
"""What pydicom raises for values that it cannot read."""
NEW_VALUES: dict[str, Any] = {
    "AS": "010Y", "CS": "M", "DA": "20200101", "PN": {"Alphabetic": "New^Name"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_private_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datadict, "private_dictionaries", {})
    monkeypatch.setattr(config, "convert_wrong_length_to_UN", True)


def pydicom_elements(dataset: Dataset) -> dict[str, Any]:
    """pydicom's JSON, element by element: one that it cannot read has no VR."""
    elements = {}
    for tag in list(dataset._dict):  # iterating would read all of them
        key = f"{int(tag):08X}"
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                items = [pydicom_elements(item) for item in element.value]
                elements[key] = {"vr": "SQ", "Value": items}
            else:
                elements[key] = element.to_json_dict(lambda _: "bulk", 0)
        except UNREADABLE:
            elements[key] = {"vr": "unread"}
    return elements


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple]:
    """Elements that differ, but for what pydicom itself gets wrong."""
    found = []
    for tag in sorted(ours.keys() | theirs.keys()):
        own, other = ours.get(tag, {}), theirs.get(tag, {})
        if own.get("vr") == other.get("vr") == "SQ":
            items = own.get("Value", []), other.get("Value", [])
            if len(items[0]) == len(items[1]):
                for pair in zip(*items, strict=True):
                    found += differences(*pair)
                continue
        if not is_excused(own, other) and comparable(own) != comparable(other):
            found.append((tag, own, other))
    return found


def is_excused(own: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether pydicom says less than the file, or what no JSON can hold."""
    values = other.get("Value", ())
    return (
        other.get("vr") == "unread"
        # A damaged sequence in UN, or numbers of the wrong length: kept as bytes.
        or (own.get("vr") == "UN" and other.get("vr") in {"AT", "SQ", *NUMBERS})
        # Empty private sequences of undefined length.
        or (own == {"vr": "SQ"} and other == {"vr": "UN"})
        # Code extensions that do not end with a value as PS3.5 6.1.2.5.3 wants it.
        or (own.get("vr") in {"LO", "SH", "UC"} and len(values) > 1)
        # Escape sequences that are left in the text.
        or "\\x1b" in repr(values)
        or (own.get("vr") in {"DS", "IS"} and any(type(v) is str for v in values))
        or any(isinstance(v, float) and not math.isfinite(v) for v in values)
    )


def comparable(element: dict[str, Any]) -> dict[str, Any]:
    values = element.get("Value")
    if values is None or not any(value is not None for value in values):
        return {k: v for k, v in element.items() if k != "Value"}
    if element["vr"] == "IS":
        values = [int(v) if isinstance(v, float) else v for v in values]
    if element["vr"] == "DS":
        values = [float(v) if isinstance(v, int) else v for v in values]
    return element | {"Value": values}


def pydicom_value(dataset: Dataset, path: str) -> bytes | None:
    """The value of a binary element; None where its neighbours keep pydicom off."""
    try:
        value = element_at(dataset, path).value
    except UNREADABLE:
        return None
    return value if isinstance(value, bytes) else None


def test_a_random_file_has_the_json_and_the_bulk_data_that_pydicom_finds() -> None:
    compared = read_bytes = 0
    for seed in range(COUNT):
        file = RandomFile(seed).written()
        found = scan.scan(file)
        dataset = pydicom.dcmread(io.BytesIO(file))
        theirs = as_we_write_it(pydicom_elements(dataset))
        assert differences(found.elements, theirs) == [], seed
        for bulk in found.bulk:
            value = found.buffer[bulk.offset : bulk.offset + bulk.length]
            expected = pydicom_value(dataset, bulk.path)
            assert expected is None or value == expected, (seed, bulk)
            read_bytes += expected is not None
        compared += len(found.elements)
    assert compared > 3 * COUNT
    assert read_bytes > COUNT


def test_a_random_file_is_read_or_refused_by_both_versions() -> None:
    for seed in range(COUNT // 3):
        file = RandomFile(seed).written()
        for version in (1, 2):
            outcome = read(file, study_instance_uid=None, version=version)
            assert isinstance(outcome, ReadInstance | Refused)


def change_of(number: int) -> dict[str, Any]:
    """A change of three attributes, one of them removed."""
    tags = [f"{tag:08X}" for tag in (UPDATABLE * 2)[number : number + 3]]
    vrs = [attributes.vr_of(tag) or "" for tag in tags]
    wanted = {
        tag: {"vr": vr, "Value": [NEW_VALUES.get(vr, "NEW")]}
        for tag, vr in zip(tags, vrs, strict=True)
    }
    body = {"studyInstanceUids": ["1.2"], "changeDataset": wanted | {tags[2]: None}}
    return dict(update.parse(body).change)


def test_a_changed_header_says_what_was_asked_for_and_all_else_as_before() -> None:
    changed = 0
    for seed in range(COUNT):
        file = RandomFile(seed).written()
        change = change_of(seed % len(UPDATABLE))
        before = scan.scan(file)
        expected = before.elements | change
        for tag in [tag for tag, element in change.items() if element is None]:
            del expected[tag]
        try:
            new = update.rewrite(file, change, present=before.elements.keys())
        except (InvalidRequest, MalformedInstance):
            assert not RandomFile(seed).is_tidy, seed
            continue
        after = scan.scan(new.head + file[new.offset :])
        hidden = not RandomFile(seed).is_tidy and after.elements != expected
        assert after.elements == expected or hidden, seed
        changed += not hidden
    assert changed > COUNT * 0.9
