"""The committed dictionary against pydicom's, and how it is asked."""

import generate_dictionary
import pytest
from pydicom._dicom_dict import DicomDictionary

from dicomweb import dictionary
from dicomweb.dictionary import Entry


def test_the_committed_table_is_the_generated_one() -> None:
    assert generate_dictionary.table() == dictionary._TABLE.removesuffix("\n")


def test_every_attribute_of_pydicom_is_found_with_vr_multiplicity_and_keyword() -> None:
    for number, (vr, multiplicity, _, _, keyword) in DicomDictionary.items():
        tag = f"{number:08X}"
        if tag.endswith("0000"):
            assert dictionary.entry(tag) is None
            continue
        expected = generate_dictionary.AMBIGUOUS.get(vr, vr)
        assert dictionary.entry(tag) == Entry(expected, multiplicity, keyword)
        if keyword:
            assert dictionary.tag_of_keyword(keyword) == tag


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        ("60003000", Entry("ox", "1", "OverlayData")),
        ("60FE3000", Entry("ox", "1", "OverlayData")),
        ("50040010", Entry("US", "1", "NumberOfPoints")),
        ("60013000", None),  # odd group: private
        ("00091001", None),
        ("00080000", None),
        ("12345678", None),
    ],
)
def test_repeating_groups_share_an_entry_and_private_tags_have_none(
    tag: str, entry: Entry | None
) -> None:
    assert dictionary.entry(tag) == entry


@pytest.mark.parametrize(
    ("tag", "private", "creator"),
    [
        ("00090010", True, True),
        ("000900FF", True, True),
        ("00090001", True, False),
        ("00091001", True, False),
        ("00080010", False, False),
        ("001F00AA", True, True),
    ],
)
def test_private_tags_and_creators_are_told_apart(
    tag: str, private: bool, creator: bool
) -> None:
    assert dictionary.is_private(tag) is private
    assert dictionary.is_private_creator(tag) is creator


def test_tags_that_need_several_values_are_known() -> None:
    several = dictionary.tags_of_several_values()
    assert {"00280030", "00200032", "00209309"} <= several
    assert several.isdisjoint({"00080008", "00100010", "00080005"} - {"00080008"})


def test_an_unknown_or_misspelled_keyword_has_no_tag() -> None:
    assert dictionary.tag_of_keyword("PatientID") == "00100020"
    assert dictionary.tag_of_keyword("patientid") is None
    assert dictionary.tag_of_keyword("") is None
    assert dictionary.tag_of_keyword("1") is None
