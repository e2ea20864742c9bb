"""What clients send to add and change query tags."""

import pytest

from dicomweb.errors import InvalidRequest
from dicomweb.query_tags import Level, QueryTag, TagStatus
from dicomweb.tag_requests import (
    SUPPORTED_VRS,
    NewTag,
    entry_json,
    parse_patch,
    parse_tags,
    tag_of,
)


def one(path, level="Study", **more):
    [tag] = parse_tags([{"path": path, "level": level, **more}])
    return tag


def refusal(*entries):
    with pytest.raises(InvalidRequest) as refused:
        parse_tags(list(entries))
    return str(refused.value)


def test_a_standard_tag_takes_its_vr_from_the_dictionary():
    assert one("PatientAge") == NewTag("00101010", "AS", Level.STUDY)
    assert one(" 00101010 ", "sErIeS", vr="as").level is Level.SERIES


def test_names_have_no_case_and_empty_values_are_absent():
    entry = {"PATH": "0040A043".replace("A043", "0254"), "Level": "INSTANCE"}
    more = {"VR": "", "PrivateCreator": None}
    assert parse_tags([entry | more]) == (NewTag("00400254", "LO", Level.INSTANCE),)


@pytest.mark.parametrize(
    ("path", "vr", "expected"),
    [
        ("SmallestImagePixelValue", None, "US"),
        ("SmallestImagePixelValue", "SS", "SS"),
        ("00280106", "us", "US"),
    ],
)
def test_where_the_dictionary_leaves_a_choice_the_first_is_the_default(
    path, vr, expected
):
    assert one(path, vr=vr).vr == expected


def test_a_private_tag_needs_creator_and_vr_and_its_creator_element_neither():
    private = one("0099100a", vr="lo", privateCreator="ACME")
    assert private == NewTag("0099100A", "LO", Level.STUDY, "ACME")
    assert one("00990010") == NewTag("00990010", "LO", Level.STUDY)


@pytest.mark.parametrize("vr", sorted(SUPPORTED_VRS))
def test_every_supported_vr_can_be_that_of_a_private_tag(vr):
    assert one("00991001", vr=vr, privateCreator="ACME").vr == vr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "must be a JSON array"),
        ("text", "must be a JSON array"),
        ([], "is missing"),
        ([5], r"'$[0]' in request body"),
        ([{"level": "Study"}], "[0].Path"),
        ([{"path": 5, "level": "Study"}], "[0].Path"),
        ([{"path": "PatientAge", "level": ""}], "[0].Level"),
        ([{"path": "PatientAge", "level": []}], "$[0].Level"),
        (
            [
                {"path": "PatientAge", "level": "Study"},
                {"path": "PatientSize", "level": "x"},
            ],
            "$[1].Level",
        ),
        ([{"path": "PatientAge", "level": "Study", "vr": 5}], "'vr' in request body"),
    ],
)
def test_a_body_of_another_form_is_refused(body, words):
    with pytest.raises(InvalidRequest) as refused:
        parse_tags(body)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"path": "Nothing"}, "cannot be parsed"),
        ({"path": "0008001"}, "cannot be parsed"),
        ({"path": "00181FFF"}, "cannot be parsed"),
        ({"path": "a.b"}, "Sequential"),
        ({"path": "RequestAttributesSequence"}, "Sequential"),
        ({"path": "PatientID"}, "already supported"),
        ({"path": "PatientAge", "privateCreator": "x"}, "standard tag"),
        ({"path": "00990011", "privateCreator": "x"}, "identification code"),
        ({"path": "00991001", "vr": "LO"}, "is missing"),
        ({"path": "00991001", "privateCreator": "x"}, "The vr for tag"),
        (
            {"path": "00991001", "vr": "LO", "privateCreator": "x" * 65},
            "not a valid LO",
        ),
        ({"path": "00991001", "vr": "LO", "privateCreator": "x\\y"}, "not a valid LO"),
        ({"path": "00991001", "vr": "SQ", "privateCreator": "x"}, "Sequential"),
        ({"path": "00991001", "vr": "OB", "privateCreator": "x"}, "not supported"),
        ({"path": "PatientAge", "vr": "1S"}, "is invalid"),
        ({"path": "PatientAge", "vr": "CS"}, "expected VR code for it is 'AS'"),
    ],
)
def test_what_a_tag_may_not_be_is_refused(entry, words):
    assert words in refusal({"level": "Study"} | entry)


def test_a_long_level_is_quoted_in_part():
    assert len(refusal({"path": "PatientAge", "level": "x" * 1000})) < 300


def test_the_same_tag_twice_is_refused_by_whatever_name():
    first = {"path": "PatientAge", "level": "Study"}
    assert "'00101010' has been specified" in refusal(
        first, {"path": "00101010", "level": "Series"}
    )


def test_a_path_in_a_url_is_read_by_the_same_rules():
    assert tag_of("PatientAge") == tag_of("00101010") == "00101010"
    assert tag_of("0099100a") == "0099100A"


@pytest.mark.parametrize(
    ("body", "enabled"),
    [({"queryStatus": "enabled"}, True), ({"QUERYSTATUS": "Disabled"}, False)],
)
def test_queries_are_switched(body, enabled):
    assert parse_patch(body) is enabled


@pytest.mark.parametrize(
    "body", [None, [], {}, {"queryStatus": None}, {"queryStatus": "on"}, {"x": "y"}]
)
def test_a_patch_of_anything_else_is_refused(body):
    with pytest.raises(InvalidRequest):
        parse_patch(body)


def test_an_entry_shows_only_what_there_is():
    plain = QueryTag(1, "00101010", "AS", Level.STUDY, TagStatus.READY)
    assert entry_json(plain, "http://h/v2") == {
        "path": "00101010",
        "vr": "AS",
        "status": "ready",
        "level": "study",
        "queryStatus": "enabled",
    }
    full = QueryTag(
        key=2,
        path="00991001",
        vr="LO",
        level=Level.INSTANCE,
        private_creator="ACME",
        enabled=False,
        error_count=3,
        operation_id="f" * 32,
    )
    assert entry_json(full, "http://h/v2") == {
        "path": "00991001",
        "vr": "LO",
        "status": "adding",
        "level": "instance",
        "queryStatus": "disabled",
        "privateCreator": "ACME",
        "errors": {
            "count": 3,
            "href": "http://h/v2/extendedquerytags/00991001/errors",
        },
        "operation": {"id": "f" * 32, "href": f"http://h/v2/operations/{'f' * 32}"},
    }
