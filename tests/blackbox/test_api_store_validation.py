"""Sections 6.2 and 6.3: what an instance must be to be stored, and what earns a warning."""

import pytest
from blackbox.api import (
    ONE_AS_STORED,
    Made,
    comments,
    failed_items,
    first,
    made,
    reason,
    stored_items,
)
from blackbox.rules import covers
from data import item
from pydicom.uid import ImplicitVRLittleEndian

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
V1 = ["v1.0-prerelease", "v1"]
DATE_TEXT = (
    'DICOM100: ({}) - Content "{}" does not validate VR DA: one of the date values does'
    " not match the pattern YYYYMMDD"
)
INDEXED_DATE_TEXT = (
    "DICOM100: (0008,0020) - Dicom element 'StudyDate' failed validation for VR 'DA':"
    " Value cannot be parsed as a valid date."
)
MISMATCH_TEXT = (
    "DICOM100: (0020,000d) - The StudyInstanceUid in the payload does not match the"
    " specified StudyInstanceUid."
)
UID_TEXT = (
    "DICOM100: ({}) - Dicom element '{}' failed validation for VR 'UI': DICOM"
    " Identifier is invalid. Value length should not exceed the maximum length of 64"
    " characters. Value should contain characters in '0'-'9' and '.'. Each component"
    " must start with non-zero number."
)


def store(api, one: Made, version: str):
    return api.store(one.file, path=f"/{version}/studies")


def refusal(api, one: Made, version: str) -> list[str]:
    """The comments of a refusal, which must be one, and nothing stored."""
    answer = store(api, one, version)
    assert answer.status_code == 409, answer.text
    assert reason(answer) == 43264
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).status_code != 200
    return comments(failed_items(answer)[0])


def warnings(api, one: Made) -> list[str]:
    """The comments of version 2 on what it stored, which it must have."""
    answer = store(api, one, "v2")
    assert answer.status_code in {200, 202}, answer.text
    [stored] = stored_items(answer)
    texts = comments(stored)
    assert answer.status_code == (202 if texts else 200)
    assert first(stored.get("00081196")) == (1 if texts else None)
    return texts


def is_accepted(api, one: Made, version: str) -> bool:
    answer = store(api, one, version)
    assert (answer.status_code == 409) == (reason(answer) == 43264)
    return answer.status_code in {200, 202}


def tag_of(comment: str) -> str:
    prefix, _, rest = comment.partition(": (")
    assert prefix == "DICOM100"
    tag, _, text = rest.partition(") - ")
    assert text
    return tag


# --- required attributes -------------------------------------------------------------

REQUIRED = {
    "SOPClassUID": "0008,0016",
    "StudyInstanceUID": "0020,000d",
    "SeriesInstanceUID": "0020,000e",
    "SOPInstanceUID": "0008,0018",
}


@covers("6.2.1", "6.2.2", "3.11")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", [None, "", ["1.2.3", "1.2.4"]])
@pytest.mark.parametrize("keyword", REQUIRED)
def test_each_required_uid_must_have_one_value(api, version, keyword, value):
    answer = store(api, made(**{keyword: value}), version)
    assert answer.status_code == 409
    [failed] = failed_items(answer)
    assert first(failed["00081197"]) == 43264
    tag = REQUIRED[keyword]
    assert comments(failed) == [
        f"DICOM100: ({tag}) - The required tag '({tag})' is missing."
    ]


@covers("6.2.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_first_missing_one_is_named(api, version):
    texts = refusal(api, made(SOPClassUID=None, PatientID=None), version)
    assert [tag_of(text) for text in texts] == ["0008,0016"]


@covers("6.2.3", "3.11", "6.6.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_of_another_study_than_the_path_is_refused(api, version):
    one, other = made(), made()
    answer = api.store(one.file, other.file, path=f"/{version}{one.study_path}")
    assert answer.status_code == 202
    [failed] = failed_items(answer)
    assert first(failed["00081197"]) == 43264
    assert comments(failed) == [MISMATCH_TEXT]
    assert first(failed["00081155"]) == other.sop
    assert api.read(f"/v2{other.path}", ONE_AS_STORED).status_code == 404


@covers("6.2.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_trailing_spaces_of_the_study_do_not_matter(api, version):
    one = made()
    answer = api.store(one.file, path=f"/{version}{one.study_path}%20%20")
    assert answer.status_code == 200


@covers("6.2.4", "3.11")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_absent_patient_id_refuses(api, version):
    assert refusal(api, made(PatientID=None), version) == [
        "DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing."
    ]


@covers("6.2.5", "3.11")
@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_patient_id_refuses_in_v1_and_warns_in_v2(api, blank):
    text = "DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing."
    one = made(PatientID=blank)
    for version in V1:
        assert refusal(api, one, version) == [text]
    assert warnings(api, one) == [text]
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file


# --- what can refuse -----------------------------------------------------------------

BAD_CORE = {
    "StudyDate": ("0008,0020", "NotADate"),
    "StudyDescription": ("0008,1030", "x" * 65),
    "AccessionNumber": ("0008,0050", "x" * 17),
    "PatientName": ("0010,0010", "a=b=c=d"),
    "ReferringPhysicianName": ("0008,0090", "x" * 65),
    "PatientBirthDate": ("0010,0030", "19700231"),
    "Modality": ("0008,0060", "X" * 17),
    "PerformedProcedureStepStartDate": ("0040,0244", "2024"),
    "ManufacturerModelName": ("0008,1090", "x" * 65),
}
BAD_IDENTIFIERS = {
    "StudyInstanceUID": ("0020,000d", "1.2.not"),
    "SeriesInstanceUID": ("0020,000e", "1" * 65),
    "SOPInstanceUID": ("0008,0018", "1.2."),
    "SOPClassUID": ("0008,0016", "CT"),
    "PatientID": ("0010,0020", "x" * 65),
}


@covers("6.2.6", "6.2.1", "6.3.2", "6.3.6", "3.11")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("keyword", BAD_IDENTIFIERS)
def test_the_five_core_attributes_refuse_in_every_version(api, version, keyword):
    tag, value = BAD_IDENTIFIERS[keyword]
    answer = store(api, made(**{keyword: value}), version)
    assert answer.status_code == 409
    assert reason(answer) == 43264
    [text] = comments(failed_items(answer)[0])
    assert tag_of(text) == tag
    if keyword != "PatientID":
        assert text == UID_TEXT.format(tag, keyword)


@covers("6.2.7", "6.2.8", "6.2.1")
@pytest.mark.parametrize("keyword", BAD_CORE)
def test_the_others_that_are_searchable_refuse_in_v1_and_warn_in_v2(api, keyword):
    tag, value = BAD_CORE[keyword]
    one = made(**{keyword: value})
    for version in V1:
        [text] = refusal(api, one, version)
        assert tag_of(text) == tag
    [text] = warnings(api, one)
    assert tag_of(text) == tag


@covers("6.2.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_broken_rule_of_v1_is_named(api, version):
    one = made(StudyDate="x", AccessionNumber="x" * 17)
    tags = {"0008,0020", "0008,0050"}
    found = warnings(api, one) if version == "v2" else refusal(api, one, version)
    assert {tag_of(text) for text in found} == tags


@covers("6.2.8", "6.2.1", "3.11")
@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({"PatientAge": "old"}, "0010,1010"),
        ({"PatientWeight": "heavy"}, "0010,1030"),
        ({"PatientSex": "female"}, "0010,0040"),
        ({"StudyTime": "noon"}, "0008,0030"),
        ({"PatientSex": ["F", "M"]}, "0010,0040"),
        ({"FrameOfReferenceUID": "1.02"}, "0020,0052"),
        ({"InstanceNumber": "one"}, "0020,0013"),
        ({"RequestAttributesSequence": [item(ScheduledProcedureStepID="x" * 17)]}, ""),
    ],
)
def test_other_attributes_only_warn_and_only_in_v2(api, values, tag):
    for version in V1:
        answer = store(api, made(**values), version)
        assert answer.status_code == 200
        assert "00741048" not in stored_items(answer)[0]
    [text] = warnings(api, made(**values))
    assert tag_of(text) == (tag or "0040,0009")


@covers("6.2.8", "3.11")
def test_dates_are_named_as_clients_know_it(api):
    value = "NotAValidStudyDate"
    assert warnings(api, made(StudyDate=value)) == [
        DATE_TEXT.format("0008,0020", value)
    ]
    for version in V1:
        assert refusal(api, made(StudyDate=value), version) == [INDEXED_DATE_TEXT]


@covers("6.2.1")
def test_a_private_attribute_is_named_with_its_creator(api):
    private = [(0x00090010, "LO", "ACME 1"), (0x00091001, "CS", "lower")]
    [text] = warnings(api, made(elements=private))
    assert tag_of(text) == "0009,xx01:ACME 1"


@covers("6.2.9")
@pytest.mark.parametrize("values", [{"PatientAge": "old"}, {"StudyTime": "noon"}])
def test_full_validation_refuses_in_v1_and_warns_in_v2(special, values):
    for version in V1:
        assert len(refusal(special, made(**values), version)) == 1
    assert len(warnings(special, made(**values))) == 1
    nested = made(RequestAttributesSequence=[item(ScheduledProcedureStepID="x" * 17)])
    assert is_accepted(special, nested, "v1")
    assert warnings(special, made(PatientID="", StudyDate="x")) != []


# --- several values, Implicit VR -----------------------------------------------------

HEADER = (
    '299 127.0.0.1: "One or more indexed Dicom tag(s) have multiple values, only first'
    ' value is indexed."'
)


@covers("6.2.10", "6.6.4", "6.4.3")
@pytest.mark.parametrize("version", V1)
def test_several_values_of_an_indexed_attribute_are_said_in_a_header(api, version):
    one = made(ManufacturerModelName=["One model", "Another model"])
    answer = store(api, one, version)
    assert answer.status_code == 200
    assert answer.headers.get_list("warning") == [HEADER]
    filtered = f"/{version}/series?SeriesInstanceUID={one.series}"
    assert len(api.search(f"{filtered}&ManufacturerModelName=One%20model")) == 1
    assert api.search(f"{filtered}&ManufacturerModelName=Another%20model") == []


@covers("6.2.10", "6.6.4")
def test_v2_says_so_of_its_five_only(api):
    one = made(PatientID=["P-1", "P-2"])
    answer = api.store(one.file, made().file)
    assert answer.headers.get_list("warning") == [HEADER]
    filtered = f"/v2/studies?StudyInstanceUID={one.study}"
    assert len(api.search(f"{filtered}&PatientID=P-1")) == 1
    assert api.search(f"{filtered}&PatientID=P-2") == []
    other = store(api, made(ManufacturerModelName=["One", "Other"]), "v2")
    assert "warning" not in other.headers


@covers("6.2.10")
@pytest.mark.parametrize("version", VERSIONS)
def test_there_is_no_such_header_for_other_attributes_or_refusals(api, version):
    answer = store(api, made(ImageType=["ORIGINAL", "PRIMARY"]), version)
    assert "warning" not in answer.headers
    several = ["One model", "Another model"]
    answer = store(api, made(PatientID=None, ManufacturerModelName=several), version)
    assert (answer.status_code, "warning" in answer.headers) == (409, False)


@covers("6.2.11", "6.6.3", "6.4.3", "6.4.5")
@pytest.mark.parametrize(
    ("version", "status"), [("v1.0-prerelease", 200), ("v1", 200), ("v2", 202)]
)
def test_implicit_vr_earns_the_warning_45063(api, version, status):
    one = made(transfer_syntax=ImplicitVRLittleEndian)
    answer = store(api, one, version)
    assert answer.status_code == status
    [stored] = stored_items(answer)
    assert first(stored["00081196"]) == 45063
    assert comments(stored) == []


@covers("6.6.3", "6.2.11")
def test_45063_goes_before_1_and_the_comments_are_there_all_the_same(api):
    one = made(transfer_syntax=ImplicitVRLittleEndian, StudyDate="x")
    [stored] = stored_items(store(api, one, "v2"))
    assert first(stored["00081196"]) == 45063
    assert comments(stored) == [DATE_TEXT.format("0008,0020", "x")]
    [stored] = stored_items(store(api, made(StudyDate="x"), "v2"))
    assert first(stored["00081196"]) == 1


# --- dropping ------------------------------------------------------------------------


@covers("6.2.12")
def test_there_is_one_comment_per_tag(api):
    inner = item(StudyDate="also bad")
    one = made(StudyDate=["bad", "worse"], ReferencedStudySequence=[inner, inner])
    assert [tag_of(text) for text in warnings(api, one)] == ["0008,0020"]
    texts = warnings(api, made(StudyDate="bad", PatientAge="old"))
    assert sorted(tag_of(text) for text in texts) == ["0008,0020", "0010,1010"]


@covers("6.2.13")
def test_v2_leaves_warned_attributes_out_of_metadata_never_of_files(api):
    one = made(StudyDate="bad", PatientAge="old", PatientID="", StudyTime="101530")
    assert len(warnings(api, one)) == 3
    [metadata] = api.metadata(f"/v2{one.path}")
    assert {"00080020", "00101010", "00100020"}.isdisjoint(metadata)
    assert metadata["00080030"] == {"vr": "TM", "Value": ["101530"]}
    assert api.metadata(f"/v1{one.path}") == [metadata]
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file
    [row] = api.search(f"/v2/studies?StudyInstanceUID={one.study}")
    assert {"00080020", "00100020"}.isdisjoint(row)


@covers("6.2.13")
def test_v2_drops_from_the_root_only_but_there_also_a_good_one_of_the_same_tag(api):
    nested = made(ReferencedStudySequence=[item(PatientAge="old")])
    assert len(warnings(api, nested)) == 1
    [metadata] = api.metadata(f"/v2{nested.path}")
    [inner] = metadata["00081110"]["Value"]
    assert inner["00101010"] == {"vr": "AS", "Value": ["old"]}
    both = made(ReferencedStudySequence=[item(PatientAge="old")], PatientAge="040Y")
    assert len(warnings(api, both)) == 1
    [metadata] = api.metadata(f"/v2{both.path}")
    assert "00101010" not in metadata
    assert "00081110" in metadata


@covers("6.2.13", "6.2.8")
@pytest.mark.parametrize("version", V1)
def test_v1_leaves_nothing_out(api, version):
    one = made(PatientAge="old")
    assert store(api, one, version).status_code == 200
    [metadata] = api.metadata(f"/{version}{one.path}")
    assert metadata["00101010"] == {"vr": "AS", "Value": ["old"]}


@covers("6.2.13", "6.2.8")
def test_a_uid_that_only_warns_stays_in_metadata(api):
    one = made()
    one = made(SeriesInstanceUID=f"{one.series}.01")
    assert [tag_of(text) for text in warnings(api, one)] in ([], ["0020,000e"])
    [metadata] = api.metadata(f"/v2{one.path}")
    assert first(metadata["0020000E"]) == one.series


# --- indexed values ------------------------------------------------------------------


@covers("6.3.1")
@pytest.mark.parametrize(
    ("tag", "vr", "value", "name"),
    [
        (0x00080020, "LO", "20240229", "0008,0020"),
        (0x00100010, "LO", "Doe^Jane", "0010,0010"),
        (0x00080060, "SH", "CT", "0008,0060"),
    ],
)
def test_another_vr_than_the_dictionary_has_refuses_in_v1(api, tag, vr, value, name):
    one = made(elements=[(tag, vr, value)])
    for version in V1:
        assert [tag_of(text) for text in refusal(api, one, version)] == [name]
    assert is_accepted(api, one, "v2")


@covers("6.3.1", "6.2.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_patient_id_of_another_vr_refuses_in_every_version(api, version):
    one = made(elements=[(0x00100020, "SH", "P-1")])
    assert [tag_of(text) for text in refusal(api, one, version)] == ["0010,0020"]


@covers("6.3.2", "6.3.3", "6.3.4", "6.3.5", "6.3.6")
@pytest.mark.parametrize(
    ("keyword", "good", "bad"),
    [
        ("Modality", ["X" * 16, "lower", ""], ["X" * 17]),
        ("AccessionNumber", ["x" * 16, ""], ["x" * 17]),
        ("StudyDescription", ["x" * 64, "", "esc\x1b"], ["x" * 65, "a\nb", "a\x07b"]),
        ("PatientID", ["x" * 64], ["x" * 65, "a\nb"]),
        (
            "StudyDate",
            ["20240229", ""],
            ["20230229", "2024-02-29", "202402", "20241301"],
        ),
        (
            "PatientName",
            ["a^b^c^d^e=f^g=h^i", "x" * 64 + "=" + "y" * 64, "", "esc\x1b"],
            ["a^b^c^d^e^f", "a=b=c=d", "x" * 65, "x=" + "y" * 65, "a\nb"],
        ),
        ("PatientBirthDate", ["19000101", ""], ["19000100", "1900"]),
        ("SeriesInstanceUID", ["1.02.3", "0.1", "1..2"], ["1.2.x", "1.2.", "1-2"]),
    ],
)
@pytest.mark.parametrize("version", V1)
def test_a_searchable_value_must_be_what_its_vr_says(api, version, keyword, good, bad):
    for value in good:
        assert is_accepted(api, made(**{keyword: value}), version), value
    for value in bad:
        assert not is_accepted(api, made(**{keyword: value}), version), value


@covers("6.3.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_v2_cuts_trailing_nuls_before_it_looks(api, version):
    one = made(PatientID="x" * 63 + "\0")
    two = made(PatientID="P-12\0\0")
    if version == "v2":
        assert warnings(api, one) == []
        assert warnings(api, two) == []
        assert len(api.search(f"/v2/studies?StudyInstanceUID={two.study}")) == 1
    else:
        assert [tag_of(t) for t in refusal(api, one, version)] == ["0010,0020"]
        assert [tag_of(t) for t in refusal(api, two, version)] == ["0010,0020"]
