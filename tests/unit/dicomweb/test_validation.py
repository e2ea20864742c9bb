"""The rules of both versions of the API, one row per rule."""

import struct
from typing import Any

import pytest
from data import instance, item
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb import attributes, scan, validation
from dicomweb.query_tags import Level, QueryTag
from dicomweb.validation import ErrorCode, Findings

PREFIX = "DICOM100: "


def findings(version: int, file: Any = None, **options: Any) -> Findings:
    names = ("study_instance_uid", "query_tags", "full_validation")
    arguments = {name: options.pop(name) for name in names if name in options}
    arguments.setdefault("study_instance_uid", None)
    file = file or instance(**options)
    return validation.validate(scan.scan(file), version=version, **arguments)


def query_tag(path: str, vr: str, creator: str | None = None) -> QueryTag:
    return QueryTag(7, path, vr, Level.INSTANCE, private_creator=creator)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("full", [False, True])
def test_a_correct_instance_passes(version: int, full: bool) -> None:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        found = findings(
            version, transfer_syntax=syntax, frames=2, full_validation=full
        )
        assert found == Findings()


# --- required attributes -----------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("value", [None, "", ["1.2", "1.3"]])
@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("SOPClassUID", "0008,0016"),
        ("SOPInstanceUID", "0008,0018"),
        ("StudyInstanceUID", "0020,000d"),
        ("SeriesInstanceUID", "0020,000e"),
    ],
)
def test_each_identifying_uid_must_have_exactly_one_value(
    version: int, value: Any, keyword: str, tag: str
) -> None:
    (refusal,) = findings(version, **{keyword: value}).refusals
    assert refusal.comment.startswith(f"{PREFIX}({tag}) - ")
    assert f"({tag})" in refusal.comment.removeprefix(PREFIX)


def test_the_first_missing_attribute_is_the_only_one_named() -> None:
    found = findings(1, SOPClassUID=None, StudyInstanceUID=None, PatientID=None)
    assert [problem.tag for problem in found.refusals] == ["00080016"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_study_must_be_that_of_the_path(version: int) -> None:
    for path in ("1.2.3", "1.2.3  "):
        assert not findings(
            version, StudyInstanceUID="1.2.3", study_instance_uid=path
        ).refusals
    (refusal,) = findings(
        version, StudyInstanceUID="1.2.3", study_instance_uid="1.2.4"
    ).refusals
    assert refusal.comment.startswith(f"{PREFIX}(0020,000d) - ")


@pytest.mark.parametrize("version", [1, 2])
def test_an_absent_patient_id_is_refused(version: int) -> None:
    (refusal,) = findings(version, PatientID=None).refusals
    assert refusal.comment.startswith(f"{PREFIX}(0010,0020) - ")


@pytest.mark.parametrize("value", ["", "   "])
def test_a_blank_patient_id_is_refused_by_v1_and_warned_of_by_v2(value: str) -> None:
    first, second = (findings(version, PatientID=value) for version in (1, 2))
    assert [p.tag for p in first.refusals] == ["00100020"]
    assert [p.tag for p in second.warnings] == ["00100020"]
    assert not second.refusals


# --- minimum rules ---------------------------------------------------------------

BAD_CORE = [
    ("StudyDate", "20240230", ErrorCode.DATE),
    ("StudyDate", "2024-01-01", ErrorCode.DATE),
    ("StudyDescription", "x" * 65, ErrorCode.TOO_LONG),
    ("StudyDescription", "a\tb", ErrorCode.INVALID_CHARACTERS),
    ("AccessionNumber", "x" * 17, ErrorCode.TOO_LONG),
    ("PatientName", "a=b=c=d", ErrorCode.PERSON_NAME_GROUPS),
    ("PatientName", "x" * 65, ErrorCode.PERSON_NAME_GROUP_LENGTH),
    ("PatientName", "a^b^c^d^e^f", ErrorCode.PERSON_NAME_COMPONENTS),
    ("ReferringPhysicianName", "a\nb", ErrorCode.INVALID_CHARACTERS),
    ("PatientBirthDate", "tomorrow", ErrorCode.DATE),
    ("Modality", "X" * 17, ErrorCode.TOO_LONG),
    ("PerformedProcedureStepStartDate", "20241301", ErrorCode.DATE),
    ("ManufacturerModelName", "x" * 65, ErrorCode.TOO_LONG),
]


@pytest.mark.parametrize(("keyword", "value", "code"), BAD_CORE)
def test_v1_refuses_and_v2_warns_of_a_bad_core_attribute(
    keyword: str, value: str, code: ErrorCode
) -> None:
    first, second = (findings(version, **{keyword: value}) for version in (1, 2))
    assert [problem.code for problem in first.refusals] == [code]
    assert not first.warnings
    assert not second.refusals
    assert [p.tag for p in second.warnings] == [p.tag for p in first.refusals]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PatientID", "x" * 65, ErrorCode.TOO_LONG),
        ("PatientID", "a\rb", ErrorCode.INVALID_CHARACTERS),
        ("StudyInstanceUID", "1.2.a", ErrorCode.UID),
        ("SeriesInstanceUID", "1." + "2" * 63, ErrorCode.UID),
        ("SOPInstanceUID", "../../etc", ErrorCode.UID),
    ],
)
def test_both_versions_refuse_what_identifies_an_instance_wrongly(
    version: int, keyword: str, value: str, code: ErrorCode
) -> None:
    for full in (False, True):
        found = findings(version, full_validation=full, **{keyword: value})
        if full and version == 2 and keyword == "PatientID":
            assert [p.tag for p in found.warnings] == ["00100020"]
            continue
        (refusal,) = found.refusals
        assert refusal.code in (code, None)
        assert value not in refusal.comment


def test_leading_zeros_and_double_dots_pass_in_identifying_uids() -> None:
    uids = {"StudyInstanceUID": "1.02.3", "SOPInstanceUID": "1..2"}
    for version in (1, 2):
        assert findings(version, **uids) == Findings()


@pytest.mark.parametrize("padded", ["Jane\0", "Jane\0\0"])
def test_nuls_at_the_end_count_in_v1_and_are_cut_in_v2(padded: str) -> None:
    assert findings(1, PatientID=padded).refusals[0].tag == "00100020"
    assert findings(2, PatientID=padded) == Findings()
    assert findings(1, StudyInstanceUID="1.2.3\0") == Findings()


def test_a_core_attribute_of_another_vr_is_refused() -> None:
    file = instance(PatientID=None, elements=[(0x00100020, "SH", "P-1")])
    for version in (1, 2):
        (refusal,) = findings(version, file).refusals
        assert refusal.code is ErrorCode.UNEXPECTED_VR
    file = instance(Modality=None, elements=[(0x00080060, "SQ", [Dataset()])])
    assert findings(1, file).refusals[0].code is ErrorCode.UNEXPECTED_VR


@pytest.mark.parametrize(
    ("vr", "value", "code"),
    [
        ("AE", "x" * 17, ErrorCode.TOO_LONG),
        ("AS", "12Y", ErrorCode.WRONG_LENGTH),
        ("AS", "", ErrorCode.WRONG_LENGTH),
        ("AS", "012Y", None),
        ("CS", "x" * 16, None),
        ("DA", "", None),
        ("DT", "2024022910+0100", None),
        ("DT", "20240230", ErrorCode.DATE_TIME),
        ("DT", "2024022925", ErrorCode.DATE_TIME),
        ("DS", "1.5", None),
        ("UT", "any\x07thing", None),
        ("FD", 1.5, None),
        ("FL", [1.5, 2.5], None),
        ("IS", "12", None),
        ("IS", "2147483648", ErrorCode.INTEGER_STRING),
        ("IS", "1.5", ErrorCode.INTEGER_STRING),
        ("LO", "x\x1bx", None),
        ("SH", "x" * 17, ErrorCode.TOO_LONG),
        ("SL", -1, None),
        ("TM", "1060", ErrorCode.TIME),
        ("TM", "235960", None),
        ("UI", "1.2.3", None),
        ("UI", "x", ErrorCode.UID),
        ("US", None, ErrorCode.WRONG_LENGTH),
    ],
)
def test_a_query_tag_is_held_to_the_rule_of_its_vr(
    vr: str, value: Any, code: ErrorCode | None
) -> None:
    tag = query_tag("00111001", vr, "ACME")
    file = instance(elements=[(0x00110010, "LO", "ACME"), (0x00111001, vr, value)])
    found = findings(1, file, query_tags=[tag])
    assert [p.code for p in found.refusals] == ([] if code is None else [code])
    assert findings(2, file, query_tags=[tag]).refusals == ()
    problems = validation.minimum_problems(
        scan.scan(file), {"00111001": tag}, lenient=True
    )
    assert [p.code for p in problems.values()] == ([] if code is None else [code])


def test_a_number_of_a_wrong_length_has_the_code_of_its_length() -> None:
    file = instance(InstanceNumber=None) + struct.pack(
        "<HH2sH", 0x7FE1, 0x1001, b"US", 3
    )
    found = validation.minimum_problems(
        scan.scan(file + b"abc"),
        {"7FE11001": query_tag("7FE11001", "US")},
        lenient=True,
    )
    assert found["7FE11001"].code is ErrorCode.WRONG_LENGTH


def test_a_number_of_a_wrong_length_breaks_the_general_rules_too() -> None:
    file = instance() + struct.pack("<HH2sH", 0x7FE1, 0x1001, b"US", 3) + b"abc"
    (warning,) = findings(2, file).warnings
    assert warning.tag == "7FE11001"


def test_implicit_vr_leaves_us_or_ss_to_pixel_representation() -> None:
    file = instance(
        transfer_syntax=ImplicitVRLittleEndian,
        PixelRepresentation=1,
        SmallestImagePixelValue=-5,
    )
    for vr, code in (("SS", None), ("US", ErrorCode.UNEXPECTED_VR)):
        tags = {"00280106": query_tag("00280106", vr)}
        problems = validation.minimum_problems(scan.scan(file), tags, lenient=True)
        assert [p.code for p in problems.values()] == ([code] if code else [])


def test_a_private_query_tag_is_found_in_whatever_block_its_creator_reserved() -> None:
    tag = query_tag("00111001", "LO", "ACME")
    elements = scan.scan(
        instance(
            elements=[
                (0x00110010, "LO", "OTHER"),
                (0x00110042, "LO", "ACME"),
                (0x00114201, "LO", "x"),
            ]
        )
    ).elements
    assert validation.resolve(elements, [tag]) == {"00114201": tag}
    assert validation.resolve({}, [tag]) == {}


def test_the_comment_on_a_private_attribute_names_its_creator() -> None:
    file = instance(elements=[(0x00110010, "LO", "ACME"), (0x00111001, "LO", "x" * 65)])
    (warning,) = findings(2, file).warnings
    assert warning.comment.startswith(f"{PREFIX}(0011,xx01:ACME) - ")


def test_several_values_of_an_indexed_attribute_are_noticed() -> None:
    assert findings(1, Modality=["CT", "MR"]).multiple_values
    assert not findings(2, Modality=["CT", "MR"]).multiple_values
    assert findings(2, PatientID=["A", "B"]).multiple_values
    tag = query_tag("00181020", "LO")
    several = {"SoftwareVersions": ["1", "2"]}
    assert findings(1, query_tags=[tag], **several).multiple_values
    assert not findings(1, **several).multiple_values


# --- the general rules -----------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value", "passes"),
    [
        ("StudyTime", "101530.25", True),
        ("StudyTime", "10:15", False),
        ("SeriesDate", "20240229", True),
        ("SeriesDate", "20240101-20240201", False),
        ("BodyPartExamined", "chest", False),
        ("BodyPartExamined", "CHEST ", True),
        ("BodyPartExamined", "A" * 17, False),
        ("PatientAge", "030Y", True),
        ("PatientAge", "30Y", False),
        ("SliceThickness", "1.25", True),
        ("SliceThickness", "0.12345678901234567", False),
        ("SliceThickness", "-1.5e-3", True),
        ("SliceThickness", "thick", False),
        ("SliceThickness", ["1", "2"], False),
        ("PixelSpacing", ["0.5", "0.5"], True),
        ("PixelSpacing", "0.5", False),
        ("PixelSpacing", "   ", True),
        ("SelectorSTValue", "one text, \\ and all", True),
        ("ContourData", ["1", "2", "3", "4"], False),
        ("ContourData", ["1", "2", "3", "4", "5", "6"], True),
        ("WindowCenter", ["1", "2", "3"], True),
        ("AcquisitionMatrix", [1, 2, 3], False),
        ("AcquisitionMatrix", [1, 2, 3, 4], True),
        ("PatientAge", ["030Y", "031Y"], False),
        ("PixelSpacing", ["0.5", "0.5", "0.5"], False),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0"], True),
        ("SeriesNumber", "1234567890123", False),
        ("SeriesNumber", "2147483647", True),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], True),
        ("ImageType", "ORIGINAL", False),
        ("FrameOfReferenceUID", "1.02.3", False),
        ("FrameOfReferenceUID", "1.2.3", True),
        ("FrameOfReferenceUID", ".".join(["1"] * 32), True),
        ("FrameOfReferenceUID", f"1.{'2' * 62}", True),
        ("FrameOfReferenceUID", f"1.{'2' * 63}", False),
        ("FrameOfReferenceUID", f"1.{'2' * 31}.{'3' * 31}", False),
        ("StationName", "x" * 17, False),
        ("InstitutionName", "Spital\x07", False),
        ("InstitutionName", "Zürich", True),
        ("PatientComments", "two\r\nlines", True),
        ("PatientComments", "bell\x07", False),
        ("PatientComments", "vertical\x0btab", False),
        ("DerivationDescription", "vertical\x0btab", False),
        ("DerivationDescription", "form\x0cfeed", True),
        ("PatientComments", "x" * 10_241, False),
        ("DerivationDescription", "x" * 1_025, False),
        ("OperatorsName", "A^B=C^D=E^F", True),
        ("OperatorsName", "A=B=C=D", False),
        ("AcquisitionDateTime", "20240229101530.5+0100", True),
        ("AcquisitionDateTime", "yesterday", False),
        ("RetrieveAETitle", "ARCHIVE", True),
        ("RetrieveAETitle", "A" * 17, False),
        ("Rows", [1, 2], False),
        ("Rows", 512, True),
        ("StudyDescription", "", True),
        ("TextValue", "any\x07thing", True),
    ],
)
def test_v2_warns_of_a_value_that_breaks_its_vr_or_multiplicity(
    keyword: str, value: Any, passes: bool
) -> None:
    found = findings(2, **{keyword: value})
    assert not found.refusals
    assert [p.comment.split(" - ")[0] for p in found.warnings] == (
        [] if passes else [f"{PREFIX}{_tag(keyword)}"]
    )
    assert findings(1, **{keyword: value}).warnings == ()


def _tag(keyword: str) -> str:
    tag = attributes.tag_of(keyword)
    assert tag is not None
    return f"({tag[:4]},{tag[4:]})".lower()


@pytest.mark.parametrize(
    ("version", "attributes", "comment"),
    [
        (
            1,
            {"PatientID": ""},
            "(0010,0020) - The required tag '(0010,0020)' is missing.",
        ),
        (
            1,
            {"StudyDate": "NotAValidStudyDate"},
            (
                "(0008,0020) - Dicom element 'StudyDate' failed validation for VR 'DA':"
                " Value cannot be parsed as a valid date."
            ),
        ),
        (
            2,
            {"StudyDate": "NotAValidStudyDate"},
            (
                '(0008,0020) - Content "NotAValidStudyDate" does not validate VR DA: one of'
                " the date values does not match the pattern YYYYMMDD"
            ),
        ),
        (
            2,
            {"StudyInstanceUID": "1.a"},
            (
                "(0020,000d) - Dicom element 'StudyInstanceUID' failed validation for VR"
                " 'UI': DICOM Identifier is invalid. Value length should not exceed the"
                " maximum length of 64 characters. Value should contain characters in"
                " '0'-'9' and '.'. Each component must start with non-zero number."
            ),
        ),
    ],
)
def test_comments_that_clients_know_are_word_for_word(
    version: int, attributes: dict[str, str], comment: str
) -> None:
    found = findings(version, **attributes)
    (problem,) = found.refusals + found.warnings
    assert problem.comment == PREFIX + comment


def test_a_comment_never_quotes_a_value_of_the_patient() -> None:
    found = findings(2, PatientBirthDate="canary", SliceThickness="canary")
    assert len(found.warnings) == 2
    assert not any("canary" in problem.comment for problem in found.warnings)


def test_items_are_validated_and_each_tag_is_named_once() -> None:
    first, second = item(CodeValue="x" * 17), item(CodeValue="y" * 17)
    found = findings(2, ProcedureCodeSequence=Sequence([first, second]))
    assert [problem.tag for problem in found.warnings] == ["00080100"]


def test_characters_are_counted_not_bytes() -> None:
    assert findings(2, StudyDescription="ü" * 64) == Findings()
    assert findings(1, StudyDescription="ü" * 64) == Findings()
    assert findings(2, StudyDescription="ü" * 65).warnings


def test_full_validation_refuses_in_v1_and_only_warns_in_v2() -> None:
    options: dict[str, Any] = {"SliceThickness": "thick", "full_validation": True}
    assert [p.tag for p in findings(1, **options).refusals] == ["00180050"]
    assert [p.tag for p in findings(2, **options).warnings] == ["00180050"]
    bad = item(CodeValue="x" * 17)
    nested = {"ProcedureCodeSequence": Sequence([bad]), "full_validation": True}
    assert findings(1, **nested) == findings(2, **nested) == Findings()
