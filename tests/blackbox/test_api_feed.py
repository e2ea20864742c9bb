"""Section 10: the change feed."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from blackbox.api import Api, first, made
from blackbox.rules import covers

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
FIRST_VERSIONS = ["v1.0-prerelease", "v1"]
MEMBERS = {
    "sequence",
    "partitionName",
    "studyInstanceUid",
    "seriesInstanceUid",
    "sopInstanceUid",
    "action",
    "timestamp",
    "state",
}


LIMIT_TEXT = (
    "The query parameter 'Limit' is invalid. The field Limit must be between 1 and {}."
)


def store(api, *files, path="/v2/studies"):
    answer = api.store(*(one.file for one in files), path=path)
    assert answer.status_code == 200, answer.text


def last(api, version="v2"):
    return api.read(f"/{version}/changefeed/latest").json()


def by_sequence(api, offset, limit=100, more=""):
    answer = api.read(f"/v1/changefeed?offset={offset}&limit={limit}{more}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_time(api, start, end=None, more=""):
    window = f"startTime={quote(start)}"
    window += f"&endTime={quote(end)}" if end else ""
    answer = api.read(f"/v2/changefeed?{window}{more}")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def fresh(serve):
    """A server of its own whose feed nobody else writes to."""
    with Api(serve().url) as client:
        yield client


@pytest.fixture(scope="module")
def twelve(fresh):
    """The first twelve entries of a feed, and the instances that made them."""
    assert fresh.read("/v2/changefeed").json() == []
    ones = [made() for _ in range(12)]
    for one in ones:
        store(fresh, one)
    entries = by_sequence(fresh, 0)
    assert [entry["sequence"] for entry in entries] == list(range(1, 13))
    assert [entry["sopInstanceUid"] for entry in entries] == [one.sop for one in ones]
    return entries


# --- empty ---------------------------------------------------------------------------


@covers("10.8")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_feed_is_an_empty_array_and_has_no_latest_entry(serve, version):
    with Api(_empty(serve).url) as api:
        answer = api.read(f"/{version}/changefeed")
        assert (answer.status_code, answer.json()) == (200, [])
        assert answer.headers["content-type"] == "application/json"
        latest = api.read(f"/{version}/changefeed/latest")
        assert (latest.status_code, latest.content) == (204, b"")


_servers = []


def _empty(serve):
    if not _servers:
        _servers.append(serve())
    return _servers[0]


# --- version 1 -----------------------------------------------------------------------


@covers("10.1", "2.23")
@pytest.mark.parametrize("version", FIRST_VERSIONS)
def test_version_1_has_10_entries_from_the_beginning_by_default(fresh, twelve, version):
    answer = fresh.read(f"/{version}/changefeed")
    assert answer.status_code == 200
    assert [entry["sequence"] for entry in answer.json()] == list(range(1, 11))


@covers("10.1", "10.5", "3.10")
@pytest.mark.parametrize("version", FIRST_VERSIONS)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "", "1.5"])
def test_version_1_has_1_to_100_entries(fresh, limit, version):
    answer = fresh.read(f"/{version}/changefeed?limit={limit}")
    assert (answer.status_code, answer.text) == (
        400,
        LIMIT_TEXT.format(100),
    )


@covers("10.3")
@pytest.mark.parametrize("version", FIRST_VERSIONS)
@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 1, [1]),
        (0, 100, list(range(1, 13))),
        (3, 4, [4, 5, 6, 7]),
        (11, 5, [12]),
        (12, 5, []),
        (2**63 - 1, 100, []),
    ],
)
def test_version_1_goes_by_sequence(fresh, twelve, version, offset, limit, expected):
    answer = fresh.read(f"/{version}/changefeed?offset={offset}&limit={limit}")
    assert [entry["sequence"] for entry in answer.json()] == expected


@covers("10.3", "10.4", "10.13")
def test_windows_cut_through_what_one_request_stored(api):
    store(api, made())
    before = last(api)["sequence"]
    one = made()
    store(api, one, *(made(one, same_series=True) for _ in range(5)))
    entries = by_sequence(api, before)
    assert [each["sequence"] - before for each in entries] == [1, 2, 3, 4, 5, 6]
    for offset in range(7):
        for limit in (1, 2, 6):
            found = by_sequence(api, before + offset, limit)
            assert found == entries[offset : offset + limit]
            paged = by_time(
                api, entries[0]["timestamp"], more=f"&offset={offset}&limit={limit}"
            )
            assert paged == entries[offset : offset + limit]


@covers("10.3", "10.13")
def test_polling_by_the_last_sequence_sees_everything_once(fresh, twelve):
    seen, offset = [], 0
    while entries := by_sequence(fresh, offset, 5):
        seen += entries
        offset = entries[-1]["sequence"]
    assert seen == twelve


# --- version 2 -----------------------------------------------------------------------


@covers("10.2", "10.4")
def test_version_2_has_100_entries_from_the_beginning_by_default(api):
    one = made()
    store(api, one, *(made(one, same_series=True) for _ in range(100)))
    entries = api.read("/v2/changefeed?includeMetadata=false").json()
    assert len(entries) == 100
    assert entries[0]["sequence"] == 1
    assert len(api.read("/v2/changefeed?limit=200&includeMetadata=false").json()) > 100


@covers("10.2", "10.5", "3.10")
@pytest.mark.parametrize("limit", ["0", "201", "-1", "ten", ""])
def test_version_2_has_1_to_200_entries(fresh, limit):
    answer = fresh.read(f"/v2/changefeed?limit={limit}")
    assert (answer.status_code, answer.text) == (
        400,
        LIMIT_TEXT.format(200),
    )


@covers("10.4")
def test_version_2_goes_by_time_from_the_start_before_the_end(fresh, twelve):
    times = [entry["timestamp"] for entry in twelve]
    assert times == sorted(times)
    assert len(set(times)) == 12
    assert by_time(fresh, times[0]) == twelve
    assert by_time(fresh, times[3], times[7]) == twelve[3:7]
    after = (datetime.fromisoformat(times[3]) + timedelta(microseconds=1)).isoformat()
    assert by_time(fresh, after, times[7]) == twelve[4:7]
    assert by_time(fresh, times[11]) == twelve[11:]
    assert by_time(fresh, "1970-01-01T00:00:00Z", times[0]) == []
    assert by_time(fresh, (datetime.now(UTC) + timedelta(days=1)).isoformat()) == []


@covers("10.4")
@pytest.mark.parametrize(
    ("offset", "limit"), [(0, 5), (5, 5), (10, 5), (12, 5), (11, 1)]
)
def test_version_2_leaves_out_offset_entries_of_the_window(
    fresh, twelve, offset, limit
):
    more = f"&offset={offset}&limit={limit}"
    start, end = twelve[0]["timestamp"], "9999-12-31T23:59:59Z"
    assert by_time(fresh, start, end, more) == twelve[offset : offset + limit]
    inside = by_time(fresh, twelve[4]["timestamp"], end, more)
    assert inside == twelve[4 + offset : 4 + offset + limit]


@covers("10.2", "10.6")
@pytest.mark.parametrize(
    "written",
    [
        "2020-01-01T00:00:00Z",
        "2020-01-01T00:00:00.1234567Z",
        "2020-01-01T01:00:00%2B01:00",
        "2019-12-31T23:00:00-01:00",
        "2020-01-01T01:00:00+01:00",
    ],
)
def test_times_are_taken_with_any_zone(fresh, twelve, written):
    answer = fresh.read(f"/v2/changefeed?startTime={written}")
    assert (answer.status_code, answer.json()) == (200, twelve)
    answer = fresh.read(f"/v2/changefeed?endTime={written}")
    assert (answer.status_code, answer.json()) == (200, [])


@covers("10.6")
def test_the_first_and_the_last_instant_of_net_are_taken(fresh, twelve):
    """A .NET client asks for all there is since a time with `MaxValue` as the end."""
    first, last = "0001-01-01T00:00:00.0000000", "9999-12-31T23:59:59.9999999"
    for zone in ("Z", "%2B00:00", "-14:00"):
        answer = fresh.read(
            f"/v2/changefeed?startTime={first}%2B00:00&endTime={last}{zone}"
        )
        assert (answer.status_code, answer.json()) == (200, twelve)


@covers("10.6")
@pytest.mark.parametrize("name", ["startTime", "endTime", "STARTTIME"])
def test_a_time_without_a_zone_is_400(fresh, name):
    answer = fresh.read(f"/v2/changefeed?{name}=2024-01-01T00:00:00")
    assert (answer.status_code, answer.text) == (
        400,
        "Date and time value must specify a time zone.",
    )


@covers("10.5", "10.6")
@pytest.mark.parametrize("value", ["yesterday", "", "2024-13-01T00:00:00Z", "1700000"])
@pytest.mark.parametrize("name", ["startTime", "endTime"])
def test_a_time_that_cannot_be_read_is_400(fresh, name, value):
    answer = fresh.read(f"/v2/changefeed?{name}={value}")
    assert answer.status_code == 400
    assert answer.text.startswith(f"Unable to parse value '{value}' as ")


@covers("10.6")
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00Z", "2024-01-01T01:00:00%2B01:00"),
    ],
)
def test_the_end_comes_after_the_start(fresh, start, end):
    answer = fresh.read(f"/v2/changefeed?startTime={start}&endTime={end}")
    assert answer.status_code == 400
    assert "must occur strictly before the end time" in answer.text


# --- both ----------------------------------------------------------------------------


@covers("10.5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "offset=one",
        "offset=9223372036854775808",
        "includeMetadata=0",
        "includeMetadata=yes",
        "includeMetadata=",
    ],
)
def test_malformed_parameters_are_400(fresh, query, version):
    answer = fresh.read(f"/{version}/changefeed?{query}")
    assert answer.status_code == 400
    name = query.partition("=")[0]
    assert f"'{name[0].upper()}{name[1:]}'" in answer.text


@covers("10.7", "2.24")
@pytest.mark.parametrize("version", VERSIONS)
def test_latest_is_the_newest_entry(api, version):
    one = made()
    store(api, one)
    latest = api.read(f"/{version}/changefeed/latest")
    assert latest.status_code == 200
    assert latest.json()["sopInstanceUid"] == one.sop
    assert first(latest.json()["metadata"]["00080018"]) == one.sop
    short = api.read(f"/{version}/changefeed/latest?includeMetadata=false").json()
    assert short == {k: v for k, v in latest.json().items() if k != "metadata"}
    api.delete(f"/v2{one.path}")
    assert last(api, version)["action"] == "Delete"


@covers("10.7", "10.5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", ["0", "maybe", ""])
def test_latest_checks_include_metadata(api, value, version):
    answer = api.read(f"/{version}/changefeed/latest?includeMetadata={value}")
    assert answer.status_code == 400


@covers("10.9", "10.10", "1.2.1", "1.2.2", "1.2.5")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_entry_has_these_members_and_no_others(api, version):
    one = made()
    before = last(api)["sequence"] if api.read("/v2/changefeed/latest").content else 0
    sent = datetime.now(UTC)
    store(api, one)
    entry = api.read(f"/{version}/changefeed/latest?includeMetadata=false").json()
    assert set(entry) == MEMBERS
    assert entry["sequence"] == before + 1
    assert entry["partitionName"] == "Microsoft.Default"
    assert entry["studyInstanceUid"] == one.study
    assert entry["seriesInstanceUid"] == one.series
    assert entry["sopInstanceUid"] == one.sop
    assert (entry["action"], entry["state"]) == ("Create", "Current")
    moment = datetime.fromisoformat(entry["timestamp"])
    assert moment.utcoffset() == timedelta(0)
    assert abs(moment - sent) < timedelta(seconds=60)
    with_metadata = last(api, version)
    assert set(with_metadata) == MEMBERS | {"metadata"}


@covers("10.11", "10.12", "9.9")
@pytest.mark.parametrize("version", VERSIONS)
def test_states_are_those_of_now(api, version):
    one = made(PatientName="First^One")
    other = made(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        PatientName="Second^One",
    )
    store(api, one)
    begin = last(api)

    def entries():
        answer = (
            by_sequence(api, begin["sequence"] - 1)
            if version != "v2"
            else by_time(api, begin["timestamp"])
        )
        return [
            (
                entry["action"],
                entry["state"],
                first(entry["metadata"]["00100010"]) if "metadata" in entry else None,
            )
            for entry in answer
        ]

    name = {"Alphabetic": "First^One"}
    assert entries() == [("Create", "Current", name)]
    api.delete(f"/v2{one.path}")
    assert entries() == [("Create", "Deleted", None), ("Delete", "Deleted", None)]
    store(api, other)
    name = {"Alphabetic": "Second^One"}
    assert entries() == [
        ("Create", "Replaced", name),
        ("Delete", "Replaced", name),
        ("Create", "Current", name),
    ]
    api.delete(f"/v2{one.study_path}")
    assert [(action, state) for action, state, _ in entries()] == [
        ("Create", "Deleted"),
        ("Delete", "Deleted"),
        ("Create", "Deleted"),
        ("Delete", "Deleted"),
    ]


@covers("10.12")
@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_come_unless_they_are_not_asked_for(api, version):
    one = made(frames=1)
    store(api, one)
    path = f"/{version}/changefeed/latest"
    [metadata] = api.metadata(f"/{version}{one.path}")
    for query in ("", "?includeMetadata=true", "?IncludeMetadata=TRUE"):
        assert api.read(path + query).json()["metadata"] == metadata
    assert "metadata" not in api.read(f"{path}?includemetadata=False").json()


@covers("10.13")
def test_there_is_one_entry_for_each_instance_and_operation(api):
    one = made()
    files = [one, made(one, same_series=True), made(one)]
    store(api, *files)
    after = last(api)["sequence"] - 3
    api.store(one.file)  # is there already
    api.store(b"no DICOM file")
    api.read(f"/v2{one.path}/metadata")
    api.delete(f"/v2{one.series_path}")
    api.delete(f"/v2{one.series_path}")  # is gone already
    entries = by_sequence(api, after)
    assert [(e["sequence"] - after, e["action"]) for e in entries] == [
        (1, "Create"),
        (2, "Create"),
        (3, "Create"),
        (4, "Delete"),
        (5, "Delete"),
    ]
    assert [entry["sopInstanceUid"] for entry in entries[:3]] == [f.sop for f in files]
    deleted = {entry["sopInstanceUid"] for entry in entries[3:]}
    assert deleted == {files[0].sop, files[1].sop}


@covers("10.14")
@pytest.mark.parametrize("path", ["changefeed", "changefeed/latest"])
def test_there_is_no_feed_of_a_partition(api, partitioned, path):
    for server in (api, partitioned):
        answer = server.read(f"/v2/partitions/Microsoft.Default/{path}")
        assert answer.status_code == 404


@covers("10.1", "10.2", "10.3", "1.3.6")
def test_unknown_parameters_do_no_harm(api):
    assert api.read("/v1/changefeed?startTime=nonsense&x=y").status_code == 200
    assert api.read("/v2/changefeed?x=y", "image/png").status_code == 200
