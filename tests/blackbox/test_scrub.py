"""Scrub over HTTP and on the command line; an index made anew from the blobs alone."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blackbox.api import Api, Made, made
from blackbox.churn import ONE, Client, path_of
from blackbox.hosts import Running
from blackbox.loads import Uids, connected
from blackbox.maintenance import everything, lose_index, run
from blackbox.operations import ended
from blackbox.stacks import STACK

NAME = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "New^Name"}]}}
Serve = Callable[..., Running]
on_files = pytest.mark.skipif(STACK != "embedded", reason="changes files of the disk")


@pytest.fixture
def mine(serve: Serve) -> Iterator[tuple[Running, Api]]:
    running = serve(DICOM_DELETE_DELAY_SECONDS="3600")
    with Api(running.url) as client:
        yield running, client
    running.stop()


def blobs(running: Running) -> Path:
    return Path(running.settings["DICOM_DATA"]) / "blobs"


def file_of(running: Running, one: Made) -> Path:
    [found] = blobs(running).rglob(f"{one.sop}_*.dcm")
    return found


def scrub(api: Api, query: str = "") -> dict[str, Any]:
    operation = ended(api, api.post(f"/v2/operations/scrub{query}"))
    assert (operation["type"], operation["status"]) == ("scrub", "succeeded")
    assert operation["percentComplete"] == 100
    results: dict[str, Any] = operation["results"]
    return results


def test_a_whole_archive_is_found_whole(mine):
    _, api = mine
    first = made()
    api.store(first.file, made(of=first).file, made().file)
    results = scrub(api)
    assert results["instances"] == 3
    assert results["bytes"] > 2000
    assert [results[name] for name in ("lost", "damaged", "orphans")] == [0, 0, 0]
    assert results["errors"] == results["warnings"] == []
    [listed] = api.get("/v2/operations?type=scrub").json()
    assert listed["results"]["instances"] == 3


@on_files
def test_removed_flipped_and_forgotten_blobs_are_found_and_repaired(mine, tmp_path):
    running, api = mine
    lost, flipped, good = made(), made(), made()
    assert api.store(lost.file, flipped.file, good.file).status_code == 200
    path = file_of(running, flipped)
    run("backup", tmp_path / "backup", "--copy", settings=running.settings)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    file_of(running, lost).unlink()
    orphan = file_of(running, good).with_name(f"{good.sop}_1.dcm")
    orphan.write_bytes(b"left by a store that died")
    old = time.time() - 8 * 86400
    os.utime(orphan, (old, old))

    results = scrub(api, "?dryRun=true")
    found = [results[name] for name in ("lost", "damaged", "orphans", "deleted")]
    assert found == [1, 1, 1, 0]
    assert orphan.exists()
    results = scrub(api)
    found = [results[n] for n in ("lost", "damaged", "orphans", "deleted", "left")]
    assert found == [1, 1, 1, 1, 2]
    assert not orphan.exists()
    told = " ".join(results["errors"])
    assert lost.sop in told
    assert flipped.sop in told
    assert good.sop in told
    assert "Doe" not in told

    output = run("scrub", "--backup", tmp_path / "backup", settings=running.settings)
    assert "2 findings, 0 of them are left" in output
    for one in (lost, flipped, good):
        answer = api.read(f"/v2{one.path}", "application/dicom; transfer-syntax=*")
        assert answer.content == one.file
    assert "All is well" in run("scrub", settings=running.settings)


@on_files
def test_on_request_clients_see_that_an_instance_is_lost_and_can_store_it_again(mine):
    running, api = mine
    lost, good = made(), made()
    api.store(lost.file, good.file)
    file_of(running, lost).unlink()
    assert scrub(api, "?removeLost=true")["removed"] == 1
    assert api.read(f"/v2{lost.path}/metadata").status_code == 404
    assert len(api.search("/v2/studies")) == 1
    change = api.get("/v2/changefeed/latest").json()
    assert (change["action"], change["sopInstanceUid"]) == ("Delete", lost.sop)
    assert api.store(lost.file).status_code == 200
    assert scrub(api)["lost"] == 0


async def test_what_is_stored_and_deleted_meanwhile_is_no_finding(serve: Serve):
    """Nor is anything touched: every instance is there afterwards, bit by bit."""
    running = serve(
        DICOM_DELETE_DELAY_SECONDS="0", DICOM_CLEANUP_SCHEDULE="* * * * * *"
    )
    uids, stop = Uids(), asyncio.Event()
    clients = [Client(uids, seed) for seed in range(4)]
    with Api(running.url) as api:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(running.port, stop))
            while sum(len(c.stored) - len(c.doomed) for c in clients) < 30:
                await asyncio.sleep(0.1)
            found = [
                await asyncio.to_thread(scrub, api, "?removeLost=true")
                for _ in range(3)
            ]
            stop.set()
    for results in found:
        assert results["instances"] > 10
        assert results["errors"] == results["warnings"] == []
        assert results["listed"] > 10
    async with connected(running.port) as connection:
        for client in clients:
            for key, content in client.stored.items():
                answer = await connection.request("GET", path_of(*key), ONE)
                assert answer.status == (404 if key in client.gone else 200)
                assert key in client.gone or answer.body == content
    running.stop()


def test_parameters_are_checked_and_one_scrub_runs_at_a_time(mine):
    _, api = mine
    answer = api.post("/v2/operations/scrub?dryRun=maybe")
    assert answer.status_code == 400
    assert "DryRun" in answer.text
    answers = [api.post("/v2/operations/scrub") for _ in range(4)]
    begun = [each for each in answers if each.status_code == 202]
    refused = [each for each in answers if each.status_code == 409]
    assert begun
    assert len(begun) + len(refused) == 4
    for each in refused:
        assert each.headers["location"].startswith(running_url(api) + "/v2/operations/")
    for each in begun:
        assert ended(api, each)["status"] == "succeeded"


def running_url(api: Api) -> str:
    return str(api.base_url).rstrip("/")


def test_operations_that_are_switched_off_have_no_scrub(serve):
    running = serve(DICOM_OPERATIONS="false")
    with Api(running.url) as api:
        assert api.post("/v2/operations/scrub").status_code == 400
    running.stop()


# --- the index made anew -------------------------------------------------------------


def fill(api: Api, base: str) -> None:
    """Studies of several series; one updated, an instance and a study deleted."""
    updated, other, gone = made(), made(PatientName="Other^One"), made()
    files = [one.file for one in (updated, other, gone)]
    files += [made(of=updated, Modality="MR").file for _ in range(3)]
    files += [made(of=other, same_series=True).file for _ in range(3)]
    doomed = made(of=other)
    # Text too large for a document and pixels: a side blob, frames, bulk data.
    pixels = {
        "Rows": 64,
        "Columns": 64,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "SamplesPerPixel": 1,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": bytes(range(256)) * 32,
        "SelectorUTValue": "".join(f"{n * 7919 % 99991}" for n in range(9999)),
    }
    large = made(of=updated, **pixels)
    files += [doomed.file, large.file]
    assert api.store(*files, path=f"{base}/studies").status_code == 200
    body = {"studyInstanceUids": [updated.study], "changeDataset": NAME}
    operation = ended(api, api.post(f"{base}/studies/$bulkUpdate", json=body))
    assert operation["status"] == "succeeded"
    assert api.store(made(of=updated).file, path=f"{base}/studies").status_code == 200
    assert api.delete(f"{base}{doomed.path}").status_code == 204
    assert api.delete(f"{base}{gone.study_path}").status_code == 204
    assert api.store(gone.file, path=f"{base}/studies").status_code == 200
    assert api.delete(f"{base}{gone.study_path}").status_code == 204


def test_an_index_lost_entirely_is_made_anew_from_the_blobs_alone(serve: Serve):
    partitions = {"DICOM_DATA_PARTITIONS": "true"}
    running = serve(**partitions)
    places = [f"/v2/partitions/{name}" for name in ("first", "second")]
    with Api(running.url) as api:
        for place in places:
            fill(api, place)
        before = [everything(api, place) for place in places]
        totals = api.get("/statistics").json()["archive"]
        sequence = api.get("/v2/changefeed/latest").json()["sequence"]
    running.stop()
    settings = lose_index(running)
    run(
        "scrub",
        "--rebuild",
        settings=running.settings | settings | no_partitions(),
        status=2,
    )
    output = run("scrub", "--rebuild", settings=running.settings | settings)
    assert "20  instances that came back" in output
    assert "6  files of deleted instances" in output
    assert "extended query tags" in output
    output = run("scrub", "--rebuild", settings=settings, status=2)
    assert "--merge" in output

    again = serve(data=running.data, **settings)
    with Api(again.url) as api:
        assert [rooted(everything(api, p), api) for p in places] == [
            rooted(each, running.url) for each in before
        ]
        assert api.get("/statistics").json()["archive"] == totals
        latest = api.get("/v2/changefeed/latest").json()["sequence"]
        assert sequence < 10**12 <= latest < 10**12 + 20
        names = [each["partitionName"] for each in api.get("/v2/partitions").json()]
        assert names == ["Microsoft.Default", "first", "second"]
        assert scrub(api)["left"] == 0
        one = made()
        assert api.store(one.file, path=f"{places[0]}/studies").status_code == 200
        assert api.delete(f"{places[0]}{one.study_path}").status_code == 204
    again.stop()


def no_partitions() -> dict[str, str]:
    return {"DICOM_DATA_PARTITIONS": "false"}


def rooted(seen: Any, at: Any) -> Any:
    """The same without the address of the server, which stands in BulkDataURIs."""
    url = running_url(at) if isinstance(at, Api) else at
    return repr(seen).replace(url, "http://server")


@on_files
def test_an_index_file_that_is_damaged_can_be_put_aside_and_made_anew(serve: Serve):
    running = serve()
    with Api(running.url) as api:
        one = made()
        api.store(one.file)
    output = run("scrub", "--rebuild", settings=running.settings, status=2)
    assert "stop it first" in output
    assert "All is well" in run("scrub", settings=running.settings)
    assert "--rebuild" in run("scrub", "--merge", settings=running.settings, status=2)
    running.stop()
    index = Path(running.settings["DICOM_DATA"]) / "index"
    for path in index.iterdir():
        path.write_bytes(b"no index")
    output = run("scrub", "--rebuild", settings=running.settings, status=2)
    assert "is not an index" in output
    index.rename(index.with_name("index.damaged"))
    run("scrub", "--rebuild", settings=running.settings)
    with sqlite3.connect(index / "index.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = serve(data=running.data)
    with Api(again.url) as api:
        answer = api.read(f"/v2{one.path}", "application/dicom; transfer-syntax=*")
        assert answer.content == one.file
    again.stop()
