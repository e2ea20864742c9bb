"""A header is rewritten: files that are not as they should be."""

import struct

import pytest
from data import data_set, file_of
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomweb import scan
from dicomweb.errors import MalformedInstance
from dicomweb.update import Change, rewrite

CHANGE: Change = {
    "00100020": {"vr": "LO", "Value": ["NEW"]},
    "00100030": None,
    "00100040": {"vr": "CS", "Value": ["M"]},
}


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    return head + value


def file_with(*elements: bytes) -> bytes:
    """An explicit little endian file of just these elements."""
    uid = element(0x00020010, b"UI", ExplicitVRLittleEndian.encode() + b"\0")
    return bytes(128) + b"DICM" + uid + b"".join(elements)


def changed(file: bytes) -> dict[str, dict]:
    """The elements of the changed file."""
    present = scan.scan(file).elements.keys()
    new = rewrite(file, CHANGE, present=present)
    return scan.scan(new.head + file[new.offset :]).elements


MODALITY = element(0x00080060, b"CS", b"CT")
OLD_ID = element(0x00100020, b"LO", b"OLD ")
OLD_BIRTH_DATE = element(0x00100030, b"DA", b"19700101")
SERIES_NUMBER = element(0x00200011, b"IS", b"1 ")
PIXEL_DATA = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2) + b"\1\2"

NEW = {
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00100020": {"vr": "LO", "Value": ["NEW"]},
    "00100040": {"vr": "CS", "Value": ["M"]},
    "00200011": {"vr": "IS", "Value": [1]},
}


def test_elements_that_are_not_in_order_are_replaced_where_they_stand() -> None:
    file = file_with(SERIES_NUMBER, OLD_BIRTH_DATE, OLD_ID, MODALITY)
    assert changed(file) == NEW


def test_of_an_element_that_comes_twice_no_old_value_stays() -> None:
    file = file_with(OLD_ID, MODALITY, OLD_ID, OLD_BIRTH_DATE, SERIES_NUMBER, OLD_ID)
    assert changed(file) == NEW
    new = rewrite(file, CHANGE)
    assert b"OLD" not in new.head + file[new.offset :]


@pytest.mark.parametrize("hidden", [OLD_ID, OLD_BIRTH_DATE])
def test_an_old_value_behind_all_that_may_change_is_never_left_there(
    hidden: bytes,
) -> None:
    with pytest.raises(MalformedInstance, match="order"):
        changed(file_with(MODALITY, SERIES_NUMBER, PIXEL_DATA, hidden))


@pytest.mark.parametrize(
    ("promised", "written"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    ],
)
def test_new_elements_are_encoded_as_the_others_are_whatever_is_promised(
    promised: str, written: str
) -> None:
    def padded(uid: str) -> bytes:
        return element(0x00020010, b"UI", uid.encode() + b"\0" * (len(uid) % 2))

    file = file_of(data_set(PatientSex=None), transfer_syntax=written)
    file = file.replace(padded(written), padded(promised))
    expected = scan.scan(file).elements | {
        "00100020": {"vr": "LO", "Value": ["NEW"]},
        "00100040": {"vr": "CS", "Value": ["M"]},
    }
    del expected["00100030"]
    assert changed(file) == expected
