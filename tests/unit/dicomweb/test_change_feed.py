"""Parameters and entries of the change feed."""

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.change_feed import (
    Action,
    Entry,
    SequenceWindow,
    State,
    TimeWindow,
    entry_to_json,
    parse_include_metadata,
    parse_instant,
    parse_window,
)
from dicomweb.errors import InvalidRequest


def window(text: str, version: int) -> SequenceWindow | TimeWindow:
    return parse_window(parse_qsl(text, keep_blank_values=True), version=version)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SequenceWindow(0, 10, True)),
        (
            "Offset=9223372036854775807&LIMIT=100&includeMetadata=False",
            SequenceWindow(2**63 - 1, 100, False),
        ),
        ("startTime=nonsense&x=y", SequenceWindow(0, 10, True)),
    ],
)
def test_version_1_reads_by_sequence(text, expected):
    assert window(text, 1) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", TimeWindow(None, None, 0, 100, True)),
        (
            (
                "startTime=2023-05-03T11:00:00Z&endTime=2023-05-03T13:00:00.5%2B01:00"
                "&offset=5&limit=200&includemetadata=true"
            ),
            TimeWindow(
                at(2023, 5, 3, 11), at(2023, 5, 3, 12, 0, 0, 500_000), 5, 200, True
            ),
        ),
    ],
)
def test_version_2_reads_by_time(text, expected):
    assert window(text, 2) == expected


@pytest.mark.parametrize(
    ("text", "version", "part"),
    [
        ("limit=101", 1, "The field Limit must be between 1 and 100."),
        ("limit=0", 1, "'Limit'"),
        ("limit=201", 2, "between 1 and 200"),
        ("offset=-1", 1, "'Offset'"),
        ("offset=9223372036854775808", 1, "'Offset'"),
        ("offset=x", 2, "'Offset'"),
        ("includeMetadata=0", 1, "'IncludeMetadata'"),
        ("includeMetadata=", 2, "'IncludeMetadata'"),
        ("startTime=2023-05-03T11:00:00", 2, "must specify a time zone"),
        ("startTime=2023-05-03", 2, "must specify a time zone"),
        ("endTime=yesterday", 2, "Unable to parse value 'yesterday'"),
        ("endTime=2023-13-03T11:00:00Z", 2, "Unable to parse"),
        ("endTime=2023-02-03T11:00:00+99:00", 2, "Unable to parse"),
        (
            "startTime=2023-05-03T11:00:00Z&endTime=2023-05-03T12:00:00%2B01:00",
            2,
            "must occur strictly before",
        ),
    ],
)
def test_malformed_parameters_are_invalid(text, version, part):
    with pytest.raises(InvalidRequest) as caught:
        window(text, version)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-05-03T11:00:00.1234567Z", at(2023, 5, 3, 11, 0, 0, 123_457)),
        ("2023-05-03T11:00:00.1234560Z", at(2023, 5, 3, 11, 0, 0, 123_456)),
        ("2023-05-03T11:00z", at(2023, 5, 3, 11)),
        ("2023-05-03 11:00:00 02:00", at(2023, 5, 3, 9)),
        ("2023-05-03T11:00:00-0200", at(2023, 5, 3, 13)),
        ("2023-05-03Z", at(2023, 5, 3)),
        ("0001-01-01T00:00:00+05:00", datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59-05:00", datetime.max.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59.9999999Z", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_instants_may_be_written_in_several_ways(text, expected):
    assert parse_instant(text) == expected


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_timestamps_that_were_sent_can_be_asked_for(moment, minutes):
    instant = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    if 1 < instant.year < 9999:
        assert parse_instant(instant.isoformat()) == instant


def test_the_latest_entry_comes_with_metadata_unless_refused():
    assert parse_include_metadata([])
    assert not parse_include_metadata([("INCLUDEMETADATA", "false")])
    with pytest.raises(InvalidRequest):
        parse_include_metadata([("includeMetadata", "no")])


def entry(metadata: dict | None) -> Entry:
    return Entry(
        7,
        "Microsoft.Default",
        "1.1",
        "1.2",
        "1.3",
        Action.UPDATE,
        at(2023, 5, 3, 11, 0, 0, 123_456),
        State.REPLACED,
        metadata,
    )


def test_entries_have_camel_case_names_and_pascal_case_words():
    plain = {
        "sequence": 7,
        "partitionName": "Microsoft.Default",
        "studyInstanceUid": "1.1",
        "seriesInstanceUid": "1.2",
        "sopInstanceUid": "1.3",
        "action": "Update",
        "timestamp": "2023-05-03T11:00:00.123456+00:00",
        "state": "Replaced",
    }
    metadata = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
    assert entry_to_json(entry(None)) == plain
    assert entry_to_json(entry(metadata)) == plain | {"metadata": metadata}
