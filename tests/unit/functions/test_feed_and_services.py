"""Change feed, partitions, health, timers and the root over HTTP."""

from dataclasses import replace

import pytest
from data import instance, new_uid

from functions.timers import publish_pending
from services.settings import Settings
from stores.connect import connect

JSON = {"Accept": "application/dicom+json"}
DICOM = {"Content-Type": "application/dicom", **JSON}


async def store(server, root: str = "/v2", **overrides) -> str:
    study = new_uid()
    file = instance(StudyInstanceUID=study, **overrides)
    response = await server.post(f"{root}/studies", content=file, headers=DICOM)
    assert response.status_code == 200
    return study


async def test_the_feed_is_read_by_sequence_or_by_time(server):
    first, second = await store(server), await store(server)
    await server.delete(f"/v2/studies/{first}")
    entries = (await server.get("/v1/changefeed")).json()
    assert [
        (e["sequence"], e["studyInstanceUid"], e["action"], e["state"]) for e in entries
    ] == [
        (1, first, "Create", "Deleted"),
        (2, second, "Create", "Current"),
        (3, first, "Delete", "Deleted"),
    ]
    assert "metadata" not in entries[0]
    assert entries[1]["metadata"]["0020000D"]["Value"] == [second]
    window = await server.get("/v1/changefeed?offset=1&limit=1&includeMetadata=false")
    assert [e["sequence"] for e in window.json()] == [2]
    assert "metadata" not in window.json()[0]
    time = {"startTime": entries[1]["timestamp"], "endTime": entries[2]["timestamp"]}
    by_time = await server.get("/v2/changefeed", params=time)
    assert [e["sequence"] for e in by_time.json()] == [2]
    everything = await server.get("/v2/changefeed")
    assert [e["sequence"] for e in everything.json()] == [1, 2, 3]
    latest = (await server.get("/v2/changefeed/latest")).json()
    assert latest["sequence"] == 3


async def test_an_empty_feed_is_an_empty_array_without_a_latest_entry(server):
    for version in ("v1", "v2"):
        response = await server.get(f"/{version}/changefeed")
        assert (response.status_code, response.json()) == (200, [])
        latest = await server.get(f"/{version}/changefeed/latest")
        assert (latest.status_code, latest.content) == (204, b"")


@pytest.mark.parametrize(
    "path", ["changefeed?limit=0", "changefeed/latest?includeMetadata=0"]
)
async def test_malformed_parameters_of_the_feed_are_400(server, path):
    assert (await server.get(f"/v2/{path}")).status_code == 400


async def test_without_partitions_routes_must_not_name_one(server):
    for path in ("/v2/partitions/p/studies", "/v2/partitions"):
        response = await server.get(path, headers=JSON)
        assert response.status_code == 400


async def test_with_partitions_every_data_route_names_one(running_server, tmp_path):
    async with running_server(tmp_path, data_partitions=True) as server:
        assert (await server.get("/v2/studies", headers=JSON)).status_code == 400
        unknown = await server.get("/v2/partitions/p/studies", headers=JSON)
        assert unknown.status_code == 400
        malformed = await server.get("/v2/partitions/p!/studies", headers=JSON)
        assert malformed.status_code == 400
        study = await store(server, "/v2/partitions/P")
        url = f"/v2/partitions/p/studies/{study}"
        assert (await server.get(url, headers={"Accept": "*/*"})).status_code == 200
        other = f"/v2/partitions/Microsoft.Default/studies/{study}"
        assert (await server.get(other, headers={"Accept": "*/*"})).status_code == 404
        listed = (await server.get("/v2/partitions")).json()
        assert [(p["partitionKey"], p["partitionName"]) for p in listed] == [
            (1, "Microsoft.Default"),
            (2, "P"),
        ]


async def test_urls_of_stored_instances_name_their_partition(running_server, tmp_path):
    async with running_server(tmp_path, data_partitions=True) as server:
        response = await server.post(
            "/v1/partitions/a/studies", content=instance(), headers=DICOM
        )
        [item] = response.json()["00081199"]["Value"]
        [url] = item["00081190"]["Value"]
        assert url.startswith("http://host:8080/v1/partitions/a/studies/")


async def test_health_is_told_without_a_version(server):
    response = await server.get("/health/check")
    assert response.status_code == 200
    assert response.json()["overallStatus"] == "Healthy"
    assert {each["name"] for each in response.json()["details"]} == {
        "Index",
        "Instances",
    }


async def test_a_store_that_does_not_answer_makes_the_server_unhealthy(
    server, tmp_path
):
    broken = connect(Settings(data=tmp_path / "broken"))
    await broken.close()
    server.runtime = replace(server.runtime, documents=broken.documents)
    response = await server.get("/health/check")
    assert response.status_code == 503
    assert response.json()["overallStatus"] == "Unhealthy"
    states = {each["name"]: each["status"] for each in response.json()["details"]}
    assert states == {"Index": "Unhealthy", "Instances": "Healthy"}


async def test_what_a_crash_left_unpublished_is_published_by_the_timer(
    server, monkeypatch
):
    publisher = server.runtime.publisher
    monkeypatch.setattr(publisher, "publish", lambda commit: None)
    await store(server)
    assert (await server.get("/v1/changefeed")).json() == []
    monkeypatch.undo()
    await publisher.heal(minimum_age_seconds=-1)
    assert len((await server.get("/v1/changefeed")).json()) == 1
    await publish_pending(server.runtime)
