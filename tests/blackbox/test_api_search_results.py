"""Sections 8.5, 8.6 and 8.9: which attributes a search returns, and whose."""

import itertools
import secrets
from urllib.parse import quote

import pytest
from blackbox.api import first, made
from blackbox.rules import covers
from data import item

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
FIRST_VERSIONS = ["v1.0-prerelease", "v1"]

STUDY_V1 = {
    "00080005",  # SpecificCharacterSet
    "00080020",  # StudyDate
    "00080030",  # StudyTime
    "00080050",  # AccessionNumber
    "00080056",  # InstanceAvailability
    "00080090",  # ReferringPhysicianName
    "00080201",  # TimezoneOffsetFromUTC
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100030",  # PatientBirthDate
    "00100040",  # PatientSex
    "0020000D",  # StudyInstanceUID
    "00200010",  # StudyID
}
STUDY_V2 = {
    "0020000D",  # StudyInstanceUID
    "00080020",  # StudyDate
    "00081030",  # StudyDescription
    "00080050",  # AccessionNumber
    "00080090",  # ReferringPhysicianName
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100030",  # PatientBirthDate
}
STUDY_ALL = STUDY_V1 | {
    "00081030",  # StudyDescription
    "00080063",  # AnatomicRegionsInStudyCodeSequence
    "00081032",  # ProcedureCodeSequence
    "00081060",  # NameOfPhysiciansReadingStudy
    "00081080",  # AdmittingDiagnosesDescription
    "00081110",  # ReferencedStudySequence
    "00101010",  # PatientAge
    "00101020",  # PatientSize
    "00101030",  # PatientWeight
    "00102180",  # Occupation
    "001021B0",  # AdditionalPatientHistory
}
SERIES_V1 = {
    "00080005",  # SpecificCharacterSet
    "00080060",  # Modality
    "00080201",  # TimezoneOffsetFromUTC
    "0008103E",  # SeriesDescription
    "0020000E",  # SeriesInstanceUID
    "00400244",  # PerformedProcedureStepStartDate
    "00400245",  # PerformedProcedureStepStartTime
    "00400275",  # RequestAttributesSequence
}
SERIES_V2 = {
    "0020000E",  # SeriesInstanceUID
    "00080060",  # Modality
    "00400244",  # PerformedProcedureStepStartDate
    "00081090",  # ManufacturerModelName
}
SERIES_ALL = SERIES_V1 | {
    "00200011",  # SeriesNumber
    "00200060",  # Laterality
    "00080021",  # SeriesDate
    "00080031",  # SeriesTime
}
INSTANCE_V1 = {
    "00080005",  # SpecificCharacterSet
    "00080016",  # SOPClassUID
    "00080018",  # SOPInstanceUID
    "00080056",  # InstanceAvailability
    "00080201",  # TimezoneOffsetFromUTC
    "00200013",  # InstanceNumber
    "00280010",  # Rows
    "00280011",  # Columns
    "00280100",  # BitsAllocated
    "00280008",  # NumberOfFrames
}
INSTANCE_V2 = {"00080018"}  # SOPInstanceUID

_run = secrets.token_hex(4).upper()
_count = itertools.count(1)


def token():
    return f"R{_run}{next(_count):X}"


def code(meaning):
    return item(CodeValue="1", CodingSchemeDesignator="99TEST", CodeMeaning=meaning)


def store(api, *files, statuses=(200,), version="v2"):
    answer = api.store(*(one.file for one in files), path=f"/{version}/studies")
    assert answer.status_code in statuses, answer.text


@pytest.fixture(scope="module")
def rich(api):
    """An instance that has every attribute which any search returns."""
    one = made(
        frames=1,
        elements=[
            (0x00090010, "LO", "DICOM FUNCTIONS TEST"),
            (0x00091001, "LO", "private value"),
        ],
        InstanceAvailability="ONLINE",
        TimezoneOffsetFromUTC="+0100",
        AnatomicRegionsInStudyCodeSequence=[code("Chest")],
        ProcedureCodeSequence=[code("CT of chest")],
        NameOfPhysiciansReadingStudy="Reader^Rita",
        AdmittingDiagnosesDescription="Cough",
        ReferencedStudySequence=[
            item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.3")
        ],
        PatientAge="054Y",
        PatientSize="1.7",
        PatientWeight="70",
        Occupation="Baker",
        AdditionalPatientHistory="None",
        PerformedProcedureStepStartTime="101500",
        RequestAttributesSequence=[item(ScheduledProcedureStepID="S1")],
        Laterality="L",
        SeriesDate="20240229",
        SeriesTime="101500",
    )
    store(api, one)
    return one


def tags_of(api, path):
    [row] = api.search(path)
    return set(row)


def paths(one):
    """Each resource, asked so that it finds one result without filtering by tag."""
    return {
        "studies": f"studies?StudyInstanceUID={one.study}",
        "series": f"series?SeriesInstanceUID={one.series}",
        "instances": f"instances?SOPInstanceUID={one.sop}",
        "study series": f"{one.study_path[1:]}/series?limit=1",
        "study instances": f"{one.study_path[1:]}/instances?limit=1",
        "series instances": f"{one.series_path[1:]}/instances?limit=1",
    }


# Results with the UIDs of their paths; searches across studies have all levels above.
DEFAULTS_V1 = {
    "studies": STUDY_V1,
    "series": STUDY_V1 | SERIES_V1,
    "instances": STUDY_V1 | SERIES_V1 | INSTANCE_V1,
    "study series": SERIES_V1 | {"0020000D"},
    "study instances": SERIES_V1 | INSTANCE_V1 | {"0020000D"},
    "series instances": INSTANCE_V1 | {"0020000D", "0020000E"},
}
DEFAULTS_V2 = {
    "studies": STUDY_V2,
    "series": STUDY_V2 | SERIES_V2,
    "instances": STUDY_V2 | SERIES_V2 | INSTANCE_V2,
    "study series": SERIES_V2 | {"0020000D"},
    "study instances": SERIES_V2 | INSTANCE_V2 | {"0020000D"},
    "series instances": INSTANCE_V2 | {"0020000D", "0020000E"},
}
ALL = {
    "studies": STUDY_ALL,
    "series": STUDY_ALL | SERIES_ALL,
    "instances": STUDY_ALL | SERIES_ALL | INSTANCE_V1,
    "study series": SERIES_ALL | {"0020000D"},
    "study instances": SERIES_ALL | INSTANCE_V1 | {"0020000D"},
    "series instances": INSTANCE_V1 | {"0020000D", "0020000E"},
}


@covers("8.5.1", "8.5.4", "8.5.7", "8.5.9", "8.5.10")
@pytest.mark.parametrize("version", FIRST_VERSIONS)
@pytest.mark.parametrize("resource", DEFAULTS_V1)
def test_defaults_of_version_1(api, rich, resource, version):
    path = f"/{version}/{paths(rich)[resource]}"
    assert tags_of(api, path) == DEFAULTS_V1[resource]


@covers("8.5.2", "8.5.5", "8.5.8", "8.5.9", "8.5.10")
@pytest.mark.parametrize("resource", DEFAULTS_V2)
def test_defaults_of_version_2(api, rich, resource):
    assert tags_of(api, f"/v2/{paths(rich)[resource]}") == DEFAULTS_V2[resource]


@covers("8.5.3", "8.5.6", "8.5.7", "8.5.11")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", ALL)
def test_all_is_the_same_in_every_version(api, rich, resource, version):
    path = f"/{version}/{paths(rich)[resource]}&includefield=all"
    assert tags_of(api, path) == ALL[resource]


@covers("8.5.9")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_included_or_filtered_by_is_returned_too(api, rich, version):
    path = f"/{version}{rich.study_path}/series"
    plain = tags_of(api, path)
    assert "00081090" in plain or version != "v2"
    more = tags_of(api, f"{path}?ManufacturerModelName=Model%201&includefield=Rows")
    assert more == plain | {"00081090", "00280010"}


@covers("8.5.1", "8.5.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_attributes_that_an_instance_has_not_are_missing(api, version):
    one = made(AccessionNumber=None, StudyDate=None, StudyID=None, StudyDescription="")
    store(api, one)
    [row] = api.search(f"/{version}/studies?StudyInstanceUID={one.study}")
    assert not {"00080050", "00080020", "00200010"} & set(row)
    assert row.get("00081030", {"vr": "LO"}) == {"vr": "LO"}


COMPUTED = {
    "ModalitiesInStudy": ("00080061", {"vr": "CS", "Value": ["CT"]}),
    "NumberOfStudyRelatedInstances": ("00201208", {"vr": "IS", "Value": [1]}),
    "NumberOfSeriesRelatedInstances": ("00201209", {"vr": "IS", "Value": [1]}),
}


@covers("8.5.11", "8.6.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("resource", "keyword"),
    [
        ("studies", "ModalitiesInStudy"),
        ("studies", "NumberOfStudyRelatedInstances"),
        ("series", "NumberOfSeriesRelatedInstances"),
        ("study series", "NumberOfSeriesRelatedInstances"),
    ],
)
def test_computed_attributes_come_by_name(api, rich, resource, keyword, version):
    tag, element = COMPUTED[keyword]
    path = f"/{version}/{paths(rich)[resource]}"
    for name in (keyword, tag):
        for also in ("", ",StudyID", ",all", ",Manufacturer"):
            [row] = api.search(f"{path}&includefield={name}{also}")
            assert (name, also, row[tag]) == (name, also, element)
    assert tag not in tags_of(api, path)


@covers("8.6.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_counts_and_modalities_follow_stores_and_deletes(api, version):
    one = made(Modality="CT")
    beside = made(one, same_series=True, Modality="CT")
    other = made(one, Modality="SR")
    fields = "includefield=ModalitiesInStudy,00201208"
    path = f"/{version}/studies?StudyInstanceUID={one.study}&{fields}"

    def seen():
        [row] = api.search(path)
        return sorted(row["00080061"]["Value"]), first(row["00201208"])

    store(api, one)
    assert seen() == (["CT"], 1)
    store(api, beside, other)
    assert seen() == (["CT", "SR"], 3)
    api.delete(f"/v2{other.path}")
    assert seen() == (["CT"], 2)
    [series] = api.search(
        f"/{version}{one.study_path}/series?includefield=NumberOfSeriesRelatedInstances"
    )
    assert first(series["00201209"]) == 2


@covers("8.5.12")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", ALL)
def test_any_tag_may_be_included_private_ones_too(api, rich, resource, version):
    path = f"/{version}/{paths(rich)[resource]}"
    fields = "00091001,PixelRepresentation,ImageType,00111001"
    [row] = api.search(f"{path}&includefield={fields}")
    assert row["00091001"] == {"vr": "LO", "Value": ["private value"]}
    assert row["00280103"] == {"vr": "US", "Value": [0]}
    assert row["00080008"]["Value"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert "00111001" not in row


# --- whose values ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def disagreeing(api):
    """Two instances of a study, the newer one without a name, with another age."""
    old = made(
        PatientName="Old^Name",
        PatientAge="050Y",
        StudyDescription="Old",
        ManufacturerModelName="Old",
        SeriesDescription="Old",
    )
    new = made(
        old,
        same_series=True,
        PatientName=None,
        PatientAge="051Y",
        StudyDescription="New",
        ManufacturerModelName=None,
        SeriesDescription="New",
    )
    store(api, old)
    store(api, new)
    return old, new


@covers("8.6.1", "8.9.1")
def test_version_2_has_the_values_of_the_study_and_series_as_a_whole(api, disagreeing):
    old, _ = disagreeing
    [study] = api.search(f"/v2/studies?StudyInstanceUID={old.study}")
    assert first(study["00100010"]) == {"Alphabetic": "Old^Name"}
    assert first(study["00081030"]) == "New"
    [series] = api.search(f"/v2{old.study_path}/series")
    assert first(series["00081090"]) == "Old"


@covers("8.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_other_attributes_are_those_of_the_newest_instance(api, disagreeing, version):
    old, _ = disagreeing
    path = f"/{version}/studies?StudyInstanceUID={old.study}&includefield=PatientAge"
    [study] = api.search(path)
    assert first(study["00101010"]) == "051Y"
    assert "00100010" not in study
    [series] = api.search(
        f"/{version}{old.study_path}/series?includefield=SeriesDescription"
    )
    assert first(series["0008103E"]) == "New"


@covers("8.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_instances_have_their_own_values(api, disagreeing, version):
    old, new = disagreeing
    found = api.search(
        f"/{version}{old.series_path}/instances?includefield=PatientAge,PatientName"
    )
    assert [first(row["00080018"]) for row in found] == [new.sop, old.sop]
    assert [first(row["00101010"]) for row in found] == ["051Y", "050Y"]
    assert "00100010" not in found[0]
    assert first(found[1]["00100010"]) == {"Alphabetic": "Old^Name"}


@covers("8.6.2")
def test_when_the_newest_instance_goes_the_next_one_counts(api):
    old = made(PatientAge="050Y")
    new = made(old, PatientAge="051Y")
    store(api, old, new)
    path = f"/v2/studies?StudyInstanceUID={old.study}&includefield=PatientAge"
    assert first(api.search(path)[0]["00101010"]) == "051Y"
    api.delete(f"/v2{new.path}")
    assert first(api.search(path)[0]["00101010"]) == "050Y"


# --- instances that disagree ---------------------------------------------------------


@covers("8.9.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nothing", [None, "", " "])
def test_the_last_value_wins_and_an_absent_one_erases_nothing(api, version, nothing):
    text = token()
    one = made(PatientID=f"{text}a", AccessionNumber=f"{text}1")
    changed = made(one, PatientID=f"{text}b", AccessionNumber=f"{text}2")
    absent = made(one, PatientID=f"{text}b", AccessionNumber=nothing)

    def found(keyword, value):
        rows = api.search(f"/{version}/studies?{keyword}={value}")
        return [first(row["0020000D"]) for row in rows]

    store(api, one, version=version)
    assert found("AccessionNumber", f"{text}1") == [one.study]
    store(api, changed, version=version)
    assert found("PatientID", f"{text}a") == []
    assert found("PatientID", f"{text}b") == [one.study]
    assert found("AccessionNumber", f"{text}1") == []
    store(api, absent, version=version)
    assert found("AccessionNumber", f"{text}2") == [one.study]
    [row] = api.search(f"/v2/studies?StudyInstanceUID={one.study}")
    assert first(row["00080050"]) == f"{text}2"


@covers("8.9.1")
def test_an_empty_patient_id_does_not_replace_one(api):
    text = token()
    one = made(PatientID=text)
    store(api, one)
    store(api, made(one, PatientID=""), statuses=(202,))
    assert len(api.search(f"/v2/studies?PatientID={text}")) == 1


@covers("8.9.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_value_stays_when_the_instance_that_gave_it_is_deleted(api, version):
    text = token()
    giver = made(PatientID=text, StudyDescription=f"{text} x")
    other = made(giver, PatientID=text, StudyDescription=None)
    store(api, giver)
    store(api, other)
    assert api.delete(f"/{version}{giver.path}").status_code == 204
    found = api.search(f"/{version}/studies?StudyDescription={quote(text + ' x')}")
    assert [first(row["0020000D"]) for row in found] == [giver.study]
    api.delete(f"/{version}{other.path}")
    assert api.search(f"/{version}/studies?PatientID={text}") == []


@covers("8.9.3")
def test_version_2_does_not_index_an_invalid_value_but_finds_the_study(api):
    text = token()
    one = made(
        PatientID=text, StudyDate="NotAValidDate", AccessionNumber=f"{text}-too-long"
    )
    store(api, one, statuses=(202,))
    path = f"/v2/studies?PatientID={text}"
    [row] = api.search(path)
    assert "00080020" not in row
    assert api.search(f"{path}&StudyDate=19000101-") == []
    assert api.read(f"{path}&StudyDate=NotAValidDate").status_code == 400
    assert api.search(f"/v2/studies?AccessionNumber={text}-too-long") == []
    store(api, made(one, PatientID=text, StudyDate="20240301"))
    [row] = api.search(f"{path}&StudyDate=20240301")
    assert first(row["00080020"]) == "20240301"
