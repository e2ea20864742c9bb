"""QIDO-RS requests."""

from urllib.parse import parse_qsl

import pytest

from dicomweb import attributes
from dicomweb.errors import InvalidRequest
from dicomweb.query import (
    AnyValue,
    Between,
    Exact,
    OneOf,
    Resource,
    SearchQuery,
    Wildcard,
    Words,
    parse,
)
from dicomweb.query_tags import Level, QueryTag, TagStatus

TAGS = (
    QueryTag(1, "00101010", "AS", Level.STUDY, TagStatus.READY),
    QueryTag(2, "00180050", "DS", Level.INSTANCE, TagStatus.READY, error_count=3),
    QueryTag(3, "00080023", "DA", Level.INSTANCE, TagStatus.ADDING),
    QueryTag(4, "00080070", "LO", Level.SERIES, TagStatus.READY, enabled=False),
    QueryTag(5, "12011001", "IS", Level.STUDY, TagStatus.READY, private_creator="X"),
    QueryTag(6, "0008002A", "DT", Level.STUDY, TagStatus.READY),
    QueryTag(7, "00080030", "TM", Level.STUDY, TagStatus.READY),
    QueryTag(8, "00189073", "FD", Level.STUDY, TagStatus.READY),
)


def search(
    text: str, resource: Resource = Resource.ALL_STUDIES, version: int = 2, **path: str
) -> SearchQuery:
    pairs = parse_qsl(text, keep_blank_values=True)
    return parse(resource, pairs, version=version, query_tags=TAGS, **path)


def match(text: str):
    (condition,) = search(text).filters
    return condition.match


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PatientID=Ab1 ", Exact("ab1")),
        ("00100020=x", Exact("x")),
        ("0020000d=1.2.3", Exact("1.2.3")),
        ("StudyInstanceUID=1.2,1.3", OneOf(("1.2", "1.3"))),
        ("StudyInstanceUID=1.2%5C1.3%5C1.2,", OneOf(("1.2", "1.3"))),
        ("StudyInstanceUID=1.2,", Exact("1.2")),
        ("StudyInstanceUID=,", AnyValue()),
        ("StudyInstanceUID=1.*", Exact("1.*")),
        ("ModalitiesInStudy=CT", Exact("ct")),
        ("ModalitiesInStudy=CT%5CMR", OneOf(("ct", "mr"))),
        ("ModalitiesInStudy=C*", Wildcard("c*")),
        ("AccessionNumber=A,B", Exact("a,b")),
        ("StudyDescription=*Thorax?", Wildcard("*thorax?")),
        ("StudyDescription=**", AnyValue()),
        ("StudyDescription=", AnyValue()),
        ("StudyDescription=%20%00", AnyValue()),
        ("PatientName=D%C3%B6e%5EJ", Exact("doe^j")),
        ("PatientName=D%C3%B6*", Wildcard("do*")),
        ("PatientName=D%C3%B6e%20J&fuzzymatching=true", Words(("doe", "j"))),
        ("PatientName=doe%5Ej*&fuzzymatching=TRUE", Words(("doe", "j"))),
        ("PatientName=*doe*&fuzzymatching=true", Wildcard("*doe*")),
        ("PatientName=*&fuzzymatching=true", AnyValue()),
        ("PatientName=%5E&fuzzymatching=true", AnyValue()),
        ("PatientID=Ab&fuzzymatching=true", Exact("ab")),
        ("StudyDate=20200131", Exact("20200131")),
        ("StudyDate=20200131%20-%2020200201", Between("20200131", "20200201")),
        ("StudyDate=20200131-", Between("20200131", None)),
        ("StudyDate=-20200131", Between(None, "20200131")),
        ("12011001=0003", Exact(3)),
        ("PatientAge=034Y", Exact("034y")),
        ("AcquisitionDuration=1.50", Exact(1.5)),
        ("AcquisitionDateTime=2020", Exact("20200101000000.000000")),
        (
            "AcquisitionDateTime=2020-202102",
            Between("20200101000000.000000", "20210201000000.000000"),
        ),
        ("StudyTime=01-0200", Between(3_600_000_000, 7_200_000_000)),
    ],
)
def test_values_are_matched_by_the_rules_of_their_representation(text, expected):
    assert match(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("PatientID=1&PatientID=2", "more than once"),
        ("PatientID=1&00100020=1", "twice"),
        ("limit=1&Limit=1", "more than once"),
        ("patientid=1", "unknown query parameter 'patientid'"),
        ("nonsense=1", "unknown query parameter"),
        ("0010,0020=1", "unknown query parameter"),
        ("Modality=CT", "AttributeId Modality is not queryable.  If the parameter"),
        ("99999999=CT", "AttributeId 99999999 is not queryable.  "),
        ("StudyDescription.x=1", "sequences"),
        ("SliceThickness=1", "not queryable"),
        ("ContentDate=20200101", "not queryable"),
        ("includefield=Nonsense", "unknown attribute 'Nonsense'"),
        ("includefield=00400275.00080020", "unknown attribute"),
        (
            "StudyDate=2020",
            (
                "Invalid query: specified Date value '2020' is invalid for attribute"
                " 'StudyDate'. Date should be valid and formatted as yyyyMMdd."
            ),
        ),
        ("00080020=20201301", "for attribute 'StudyDate'"),
        ("StudyDate=20200102-20200101", "ends before it starts"),
        ("StudyDate=-", "needs one end"),
        ("StudyDate=2020-01-01", "Date value '2020' is invalid"),
        ("AcquisitionDateTime=2020%2B0100", "without offset"),
        ("AcquisitionDateTime=x", "specified DateTime value 'x' is invalid"),
        ("StudyTime=25", "specified Time value '25' is invalid for parameter"),
        ("12011001=x", "not a valid value"),
        ("12011001=99999999999999999999", "not a valid value"),
        ("AcquisitionDuration=x", "not a valid value"),
        ("ModalitiesInStudy=C*,MR", "wildcards"),
        ('PatientName="x&fuzzymatching=true', "unsupported character"),
        (
            "limit=0",
            (
                "The query parameter 'Limit' is invalid. The field Limit must be"
                " between 1 and 200."
            ),
        ),
        ("limit=201", "'Limit'"),
        ("limit=x", "'Limit'"),
        ("limit=", "'Limit'"),
        ("limit=-1", "'Limit'"),
        ("offset=-1", "'Offset'"),
        ("offset=10001", "between 0 and 10000"),
        ("fuzzymatching=1", "'FuzzyMatching'"),
        ("cursor=", "cursor"),
        ("cursor=5&offset=1", "cursor"),
    ],
)
def test_a_query_that_breaks_a_rule_is_refused_with_a_reason(text, part):
    with pytest.raises(InvalidRequest) as caught:
        search(text)
    assert part in str(caught.value)


def test_a_disabled_query_tag_cannot_be_searched_by():
    with pytest.raises(
        InvalidRequest, match="Query is disabled on specified attribute 'Manufacturer'"
    ):
        search("Manufacturer=x", Resource.ALL_SERIES)


@pytest.mark.parametrize(
    ("resource", "text", "allowed"),
    [
        (Resource.ALL_STUDIES, "SeriesInstanceUID=1", False),
        (Resource.ALL_SERIES, "PatientID=1&Modality=CT", True),
        (Resource.ALL_SERIES, "SOPInstanceUID=1", False),
        (Resource.ALL_INSTANCES, "PatientID=1&Modality=CT&SOPInstanceUID=1", True),
        (Resource.STUDY_SERIES, "Modality=CT", True),
        (Resource.STUDY_SERIES, "PatientID=1", False),
        (Resource.STUDY_SERIES, "StudyInstanceUID=1", False),
        (Resource.STUDY_INSTANCES, "Modality=CT&SOPInstanceUID=1", True),
        (Resource.STUDY_INSTANCES, "PatientID=1", False),
        (Resource.STUDY_SERIES_INSTANCES, "SOPInstanceUID=1", True),
        (Resource.STUDY_SERIES_INSTANCES, "SOPClassUID=1.2", True),
        (Resource.STUDY_SERIES, "SOPClassUID=1.2", False),
        (Resource.STUDY_SERIES_INSTANCES, "Modality=CT", False),
    ],
)
def test_each_resource_is_searched_by_attributes_of_its_levels(resource, text, allowed):
    if allowed:
        assert len(search(text, resource).filters) == text.count("=")
    else:
        with pytest.raises(InvalidRequest, match="not queryable"):
            search(text, resource)


@pytest.mark.parametrize(
    ("resource", "level", "version", "text", "expected"),
    [
        (Resource.ALL_STUDIES, Level.STUDY, 1, "", attributes.STUDY_V1),
        (Resource.ALL_STUDIES, Level.STUDY, 2, "", attributes.STUDY_V2),
        (
            Resource.ALL_STUDIES,
            Level.STUDY,
            2,
            "includefield=ALL",
            attributes.STUDY_ALL,
        ),
        (
            Resource.STUDY_SERIES,
            Level.SERIES,
            1,
            "includefield=all",
            attributes.SERIES_ALL,
        ),
        (
            Resource.STUDY_SERIES_INSTANCES,
            Level.INSTANCE,
            2,
            "",
            attributes.INSTANCE_V2,
        ),
        (
            Resource.ALL_SERIES,
            Level.SERIES,
            2,
            "",
            attributes.STUDY_V2 + attributes.SERIES_V2,
        ),
    ],
)
def test_what_comes_back_depends_on_resource_and_version(
    resource, level, version, text, expected
):
    query = search(text, resource, version)
    assert query.resource.level is level
    assert query.return_tags == tuple(dict.fromkeys(expected))


def test_included_searched_and_path_attributes_come_back_too():
    query = search(
        "includefield=Modality,00081030&IncludeField=12345678&includefield=&"
        "SOPInstanceUID=1.2",
        Resource.STUDY_SERIES_INSTANCES,
        study_instance_uid="1.2 ",
        series_instance_uid="1.3",
    )
    assert query.return_tags == (
        "00080018",
        "00080060",
        "00081030",
        "12345678",
        "0020000D",
        "0020000E",
    )
    assert query.study_instance_uid == "1.2 "
    assert query.series_instance_uid == "1.3"


def test_all_fields_may_be_mixed_with_named_ones():
    query = search("includefield=all,ModalitiesInStudy")
    assert query.return_tags == (*attributes.STUDY_ALL, "00080061")


@pytest.mark.parametrize(
    "path",
    [
        {"study_instance_uid": "x"},
        {"study_instance_uid": "1", "series_instance_uid": "1-2"},
    ],
)
def test_uids_of_the_path_must_be_valid(path):
    with pytest.raises(InvalidRequest, match="not a valid UID"):
        search("", Resource.STUDY_SERIES_INSTANCES, **path)


def test_pages_are_told_by_limit_offset_and_cursor():
    query = search("")
    assert (query.limit, query.offset, query.cursor) == (100, 0, None)
    query = search("Limit=200&offset=10000")
    assert (query.limit, query.offset, query.cursor) == (200, 10_000, None)
    query = search("cursor=abc&offset=0&limit=+5")
    assert (query.limit, query.offset, query.cursor) == (5, 0, "abc")


def test_attributes_with_an_incomplete_index_are_named_as_typed():
    assert search("SliceThickness=1", Resource.ALL_INSTANCES).erroneous_tags == (
        "SliceThickness",
    )
    assert search("PatientAge=034Y").erroneous_tags == ()


@pytest.mark.parametrize(
    "text",
    [
        (
            "limit=101&offset=0&fuzzymatching=false"
            "&includefield=00081030%2C00080060%2C00080090%2C00100030"
        ),
        "limit=25&offset=0&includefield=00081030%2C00080060&StudyDate=19521125-20210507",
        "PatientName=Comp%2A",
        "includefield=StudyDate&includefield=PatientID",
    ],
)
def test_what_viewers_and_servers_really_ask_is_understood(text):
    assert search(text).limit > 0
