"""Section 12: how operations stand; the list of them and their cancellation."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from blackbox.api import made
from blackbox.rules import covers
from blackbox.tags import new_tag

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
SUCCESS = {"v1.0-prerelease": "completed", "v1": "completed", "v2": "succeeded"}
OPERATIONS = "/v2/operations"


@pytest.fixture(scope="module")
def reindex(tags):
    """The id of a reindex that has ended."""
    tags.api.store(made(PatientAge="001Y").file)
    ended = tags.add(new_tag("PatientAge", "study"), new_tag("00180015", "series"))
    return ended["operationId"]


@pytest.fixture(scope="module")
def update(tags):
    """The id of a bulk update that has ended."""
    one = made()
    tags.api.store(one.file)
    answer = tags.api.post(
        "/v2/studies/$bulkUpdate",
        json={
            "studyInstanceUids": [one.study],
            "changeDataset": {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "N"}]}},
        },
    )
    assert answer.status_code == 202, answer.text
    return tags.end_of(answer.json()["id"])["operationId"]


@covers("2.31", "12.2", "12.4", "12.5", "12.6", "12.7", "1.3.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_reindex_that_has_ended(tags, reindex, version):
    answer = tags.api.get(f"/{version}/operations/{reindex}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert "location" not in answer.headers
    found = answer.json()
    created, updated = found.pop("createdTime"), found.pop("lastUpdatedTime")
    base = f"{str(tags.api.base_url).rstrip('/')}/{version}/extendedquerytags"
    assert found == {
        "operationId": reindex,
        "type": "reindex",
        "status": SUCCESS[version],
        "percentComplete": 100,
        "resources": [f"{base}/00101010", f"{base}/00180015"],
    }
    begun, ended = datetime.fromisoformat(created), datetime.fromisoformat(updated)
    assert begun.utcoffset() is not None
    assert timedelta(0) <= ended - begun < timedelta(minutes=5)
    assert abs(datetime.now(UTC) - begun) < timedelta(minutes=30)


@covers("12.4", "12.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_bulk_update_that_has_ended(tags, update, version):
    found = tags.api.get(f"/{version}/operations/{update}").json()
    assert found["type"] == "update"
    assert found["status"] == SUCCESS[version]
    assert found["percentComplete"] == 100
    assert found["results"] == {
        "studyProcessed": 1,
        "studyUpdated": 1,
        "studyFailed": 0,
        "instanceUpdated": 1,
    }


@covers("12.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_id_has_hyphens_and_capitals_or_not(tags, reindex, version):
    hyphens = "-".join(
        (reindex[:8], reindex[8:12], reindex[12:16], reindex[16:20], reindex[20:])
    )
    for id in (hyphens, hyphens.upper(), reindex.upper()):
        answer = tags.api.get(f"/{version}/operations/{id}")
        assert answer.status_code == 200
        assert answer.json()["operationId"] == reindex


@covers("12.3", "D7.2")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("id", ["0" * 32, "1", "x" * 32, "Reindex", "a" * 33])
def test_an_id_that_is_unknown_or_none_is_404_without_a_body(tags, id, version, method):
    answer = tags.api.request(method, f"/{version}/operations/{id}")
    assert (answer.status_code, answer.content) == (404, b"")


@covers("D5.2", "12.2")
def test_head_of_an_operation_has_no_body(tags, reindex):
    answer = tags.api.head(f"{OPERATIONS}/{reindex}")
    assert (answer.status_code, answer.content) == (200, b"")


@covers("D7.1", "12.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_operations_are_listed_newest_first_by_type_and_status(
    tags, reindex, update, version
):
    url = f"/{version}/operations"

    def ids(query: str = "") -> list[str]:
        answer = tags.api.get(f"{url}{query}")
        assert answer.status_code == 200
        return [found["operationId"] for found in answer.json()]

    everything = ids()
    assert {reindex, update} <= set(everything)
    assert everything.index(update) < everything.index(reindex)
    listed = tags.api.get(url).json()
    times = [datetime.fromisoformat(found["createdTime"]) for found in listed]
    assert times == sorted(times, reverse=True)
    assert listed[everything.index(reindex)]["status"] == SUCCESS[version]
    assert (
        listed[everything.index(update)]["results"]
        == tags.api.get(f"{url}/{update}").json()["results"]
    )
    assert update not in ids("?type=reindex")
    assert reindex in ids("?Type=Reindex")
    assert reindex not in ids("?type=update")
    for name in ("succeeded", "completed", "SUCCEEDED"):
        assert {reindex, update} <= set(ids(f"?status={name}"))
    assert ids("?status=failed") == []
    assert ids("?type=export&status=running") == []
    assert ids("?limit=1") == everything[:1]
    assert ids("?limit=1&offset=1") == everything[1:2]
    assert ids("?offset=1000") == []


@covers("D7.1", "1.5.3")
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "Limit"),
        ("limit=201", "Limit"),
        ("offset=-1", "Offset"),
        ("type=everything", "type"),
        ("status=well", "status"),
        ("type=", "type"),
    ],
)
def test_a_bad_parameter_of_the_list_is_400_and_named(tags, query, name):
    answer = tags.api.get(f"{OPERATIONS}?{query}")
    assert answer.status_code == 400
    assert f"The query parameter '{name}' is invalid." in answer.text


@covers("D7.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_has_ended_cannot_be_canceled(tags, reindex, update, version):
    for id in (reindex, update):
        answer = tags.api.delete(f"/{version}/operations/{id}")
        assert answer.status_code == 409
        assert answer.text == "The operation has ended already."
        assert tags.api.get(f"/v2/operations/{id}").json()["status"] == "succeeded"


@covers("12.3")
def test_there_are_no_operations_of_a_partition(partitioned):
    id = uuid4().hex
    assert partitioned.get(f"/v2/partitions/one/operations/{id}").status_code == 404
