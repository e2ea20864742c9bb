"""Three servers on one Cosmos DB and one Blob Storage whose calls fail now and then.

`FULL=1` goes on for 7 minutes instead of 12 seconds.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import pytest
from blackbox.hosts import Running
from blackbox.loads import FULL, Uids, connected, healthy
from blackbox.shared_stores import (
    Client,
    History,
    TimeReader,
    Truth,
    agree_with,
    follow_sequence,
)
from emulators.processes import AZURITE, Emulated, both, control, counters
from emulators.proxy import Proxy, counted

from services import documents as doc
from stores import containers
from stores.azure_blobs import AzureBlobs
from stores.cosmos_documents import CosmosDocuments
from stores.ports import Document, Query

SECONDS = 420 if FULL else 12
"""Azurite 3.37 collects garbage 10 minutes after its start and then answers no more."""
HEAL_SECONDS = 60
CLIENTS = 9
BEFORE = {
    "429": 0.015,
    "449": 0.01,
    "408-before": 0.01,
    "503-before": 0.005,
    "cut-before": 0.01,
}
AFTER = {"408-after": 0.01, "503-after": 0.005, "cut-after": 0.005}
SCHEDULES = {
    "DICOM_PUBLISH_SCHEDULE": "*/5 * * * * *",
    "DICOM_CLEANUP_SCHEDULE": "*/3 * * * * *",
    "DICOM_DELETE_DELAY_SECONDS": "2",
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture
def emulated() -> Iterator[Emulated]:
    """Emulators of this test alone."""
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with both() as running:
        yield running


def fail_now_and_then(emulated: Emulated, proxy: Proxy) -> None:
    """5 % of the calls to either service fail before, 2 % after they took effect."""
    for fault, rate in (BEFORE | AFTER).items():
        control(emulated, "faults", {"fault": fault, "rate": rate})
    proxy.strike(before=0.05, after=0.02)


async def test_three_servers_lose_and_double_nothing_while_calls_fail(
    serve: Callable[..., Running], emulated: Emulated
) -> None:
    async with counted(emulated.blobs) as (blobs, proxy):
        settings = replace(emulated, blobs=blobs).environment() | SCHEDULES
        servers = [await asyncio.to_thread(serve, **settings) for _ in range(3)]
        ports = [server.port for server in servers]
        for port in ports:
            await healthy(port)
        fail_now_and_then(emulated, proxy)
        truth, history, reader = Truth(), History(), TimeReader()
        await load(ports, truth, history, reader)
        struck = counters(emulated)["faults"]
        control(emulated, "reset", {})
        proxy.strike(before=0, after=0)
        stored = sum(len(files) for files in truth.files.values())
        print(
            f"{SECONDS} s, {sum(truth.statuses.values())} requests: {stored} instances"
            f" stored, {len(truth.gone)} deleted; faults {struck}, blobs {proxy.struck}"
        )
        print(f"  answers {dict(sorted(truth.statuses.items()))}")
        await everything_agrees(ports, truth, history, reader)
        await stores_agree(emulated, truth)
        for server in servers:
            assert server.process.poll() is None, server.log()
            server.stop()
            assert errors_of(server) == []


def errors_of(server: Running) -> list[str]:
    """What it logged as an error; a timer may fail, its next turn follows."""
    return [
        line
        for line in server.log().splitlines()
        if " ERROR " in line and " localhost.timers: " not in line
    ]


async def load(
    ports: list[int], truth: Truth, history: History, reader: TimeReader
) -> None:
    """Clients that store, delete and read, and two that follow the feed."""
    uids, end = Uids(), time.monotonic() + SECONDS
    shared = uids.next()

    def over() -> bool:
        return time.monotonic() > end

    async def poll() -> None:
        client = Client(ports, truth, Random(99))
        while not over():
            await follow_sequence(client, history)
            await reader.follow(client)
            await asyncio.sleep(0.3)

    async with asyncio.TaskGroup() as group:
        group.create_task(poll())
        for seed in range(CLIENTS):
            client = Client(ports, truth, Random(seed))
            group.create_task(client.work(uids, shared, over))


async def everything_agrees(
    ports: list[int], truth: Truth, history: History, reader: TimeReader
) -> None:
    """On every server, once the timers have healed what the faults left."""
    client = Client(ports, truth, Random(1))
    alive = {sop for files in truth.files.values() for sop in files}
    end = time.monotonic() + HEAL_SECONDS
    while True:
        await follow_sequence(client, history)
        await reader.follow(client)
        if history.alive() == alive == reader.history.alive():
            with contextlib.suppress(AssertionError):
                for port in ports:
                    async with connected(port) as connection:
                        await agree_with(truth, connection)
                break
        assert time.monotonic() < end, (
            f"feed without {len(alive - history.alive())},"
            f" with {len(history.alive() - alive)} too many"
        )
        await asyncio.sleep(1)
    assert reader.history.actions == history.actions
    assert truth.gone & alive == set()
    for sop in truth.gone:
        assert history.actions[sop] == ["create", "delete"]


@dataclass
class Found:
    """What the index says of one study."""

    st: Document
    instances: list[Document]


async def stores_agree(emulated: Emulated, truth: Truth) -> None:
    """Documents, catalog, totals and blobs, read past the servers."""
    documents, blobs = CosmosDocuments(emulated.cosmos), AzureBlobs(emulated.blobs)
    try:
        await _nothing_pending(documents, truth)
        wanted: dict[str, int] = {}
        for study, files in truth.files.items():
            wanted |= await _index_of(documents, study, files)
        named = {blob.name: blob.size_bytes async for blob in blobs.list("")}
        missing = wanted.keys() - named.keys()
        assert not missing, f"instances without a blob: {missing}"
        assert {name: named[name] for name in wanted} == wanted
        waiting = await _waiting(documents)
        orphans = named.keys() - wanted.keys() - waiting
        print(
            f"  {len(wanted)} blobs, {len(waiting)} wait for cleanup, {len(orphans)} orphans"
        )
        refused = truth.statuses["POST 503"] + truth.statuses["POST 202"]
        retried = truth.statuses["POST 409"]
        assert len(orphans) <= 4 * (refused + retried), "blobs that nobody refers to"
    finally:
        await documents.close()
        await blobs.close()


async def _nothing_pending(documents: CosmosDocuments, truth: Truth) -> None:
    """Views may agree before the last event is marked as done; a timer sees to it."""
    from dicomweb.identifiers import Partition

    end = time.monotonic() + HEAL_SECONDS
    for study in truth.files:
        pk = doc.study_pk(Partition("Microsoft.Default"), study)
        while any(
            row.get("pending") for row in await _all(documents, containers.DICOM, pk)
        ):
            assert time.monotonic() < end, "an event stays pending"
            await asyncio.sleep(1)


async def _index_of(
    documents: CosmosDocuments, study: str, files: dict[str, bytes]
) -> dict[str, int]:
    """Sizes of the blobs of the study by name; its counts are right."""
    from dicomweb.identifiers import Partition

    pk = doc.study_pk(Partition("Microsoft.Default"), study)
    rows = await _all(documents, containers.DICOM, pk)
    instances = [row for row in rows if row.get("t") == "i"]
    assert Counter(row["u"][2] for row in instances) == Counter([*files])
    st = next((row for row in rows if row["id"] == doc.STUDY), None)
    if files:
        assert st is not None
        series = [row for row in rows if row.get("t") == "se"]
        assert (st["ni"], st["ns"]) == (len(files), len(series))
        listed = await _all(documents, containers.CATALOG, pk)
        catalog = next(row for row in listed if row["id"] == doc.STUDY)
        assert (catalog["rev"], catalog["ni"]) == (st["rev"], st["ni"])
        assert len(listed) == 1 + len(series)
    else:
        assert st is None or st["state"] == doc.GONE
    return {
        doc.current_blob_name(pk, row): len(files[row["u"][2]]) for row in instances
    }


async def _all(documents: CosmosDocuments, container: str, pk: str) -> list[Document]:
    rows: list[Document] = []
    after = None
    while True:
        page = await documents.query(
            container, Query(None), partition_key=pk, limit=1000, after=after
        )
        rows += page.documents
        if page.after is None:
            return rows
        after = page.after


async def _waiting(documents: CosmosDocuments) -> set[str]:
    """Blobs on the cleanup list."""
    from services.publishing import CLEANUP_BUCKETS

    names: set[str] = set()
    for bucket in range(CLEANUP_BUCKETS):
        for page in await _all(documents, containers.CLEANUP, str(bucket)):
            names.update(page["names"])
    return names
