"""The searchable and the returned attributes against the dictionary."""

import subprocess
import sys
from pathlib import Path

import pytest

from dicomweb import attributes, dictionary
from dicomweb.query_tags import Level

SETS = {
    name: getattr(attributes, name)
    for name in dir(attributes)
    if name.startswith(("STUDY_", "SERIES_", "INSTANCE_"))
}


def test_the_core_attributes_agree_with_the_dictionary() -> None:
    assert len(attributes.CORE) == 15
    for attribute in attributes.CORE:
        entry = dictionary.entry(attribute.tag)
        assert entry is not None
        assert (entry.keyword, entry.vr) == (attribute.keyword, attribute.vr)


def test_only_modalities_in_study_is_computed() -> None:
    computed = [a.keyword for a in attributes.CORE if a.computed]
    assert computed == ["ModalitiesInStudy"]


def test_each_level_has_its_core_attributes() -> None:
    counts = {level: sum(a.level is level for a in attributes.CORE) for level in Level}
    assert counts == {Level.STUDY: 9, Level.SERIES: 4, Level.INSTANCE: 2}


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_return_set_holds_distinct_known_tags_all_of_which_are_kept(
    name: str,
) -> None:
    tags = SETS[name]
    assert len(set(tags)) == len(tags)
    for tag in tags:
        assert attributes.keyword_of(tag), tag
    assert set(tags) <= attributes.RETURNED


def test_the_return_sets_are_those_of_the_api() -> None:
    keywords = {
        name: {attributes.keyword_of(tag) for tag in tags}
        for name, tags in SETS.items()
    }
    assert keywords["STUDY_V2"] == {
        "StudyInstanceUID",
        "StudyDate",
        "StudyDescription",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
    }
    assert keywords["STUDY_ALL"] - keywords["STUDY_V1"] == {
        "StudyDescription",
        "AnatomicRegionsInStudyCodeSequence",
        "ProcedureCodeSequence",
        "NameOfPhysiciansReadingStudy",
        "AdmittingDiagnosesDescription",
        "ReferencedStudySequence",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "Occupation",
        "AdditionalPatientHistory",
    }
    assert keywords["STUDY_V1"] - keywords["STUDY_V2"] == {
        "SpecificCharacterSet",
        "StudyTime",
        "InstanceAvailability",
        "TimezoneOffsetFromUTC",
        "PatientSex",
        "StudyID",
    }
    assert keywords["SERIES_V1"] == {
        "SpecificCharacterSet",
        "Modality",
        "TimezoneOffsetFromUTC",
        "SeriesDescription",
        "SeriesInstanceUID",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "RequestAttributesSequence",
    }
    assert keywords["SERIES_ALL"] - keywords["SERIES_V1"] == {
        "SeriesNumber",
        "Laterality",
        "SeriesDate",
        "SeriesTime",
    }
    assert keywords["SERIES_V2"] == {
        "SeriesInstanceUID",
        "Modality",
        "PerformedProcedureStepStartDate",
        "ManufacturerModelName",
    }
    assert keywords["INSTANCE_V1"] == {
        "SpecificCharacterSet",
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceAvailability",
        "TimezoneOffsetFromUTC",
        "InstanceNumber",
        "Rows",
        "Columns",
        "BitsAllocated",
        "NumberOfFrames",
    }
    assert keywords["INSTANCE_V2"] == {"SOPInstanceUID"}


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("PatientID", "00100020"),
        ("0020000d", "0020000D"),
        ("00091001", "00091001"),
        ("patientID", None),
        ("0020000", None),
        ("0020000G", None),
        ("", None),
    ],
)
def test_a_tag_is_found_by_keyword_or_hex_digits(text: str, tag: str | None) -> None:
    assert attributes.tag_of(text) == tag


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        ("00100010", "PN"),
        ("00280106", "US"),  # US or SS
        ("7FE00010", "OB"),  # OB or OW
        ("FFFEE000", None),
        ("00091001", None),
    ],
)
def test_the_vr_is_the_dictionarys_first(tag: str, vr: str | None) -> None:
    assert attributes.vr_of(tag) == vr


def test_importing_the_core_does_not_import_pydicom_or_numpy() -> None:
    code = (
        "import sys, dicomweb.instance, dicomweb.attributes;"
        "sys.exit(bool({'pydicom', 'numpy'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
