"""Reindex on the local engine with real stores; the harness checks every replay."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from data import instance
from durable.ours import running
from scenarios import open_runtime

from dicomweb.errors import StoreUnavailable
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query import Resource, parse
from dicomweb.query_tags import Level, TagStatus
from dicomweb.tag_requests import NewTag
from functions.operations import resume_reindex
from orchestrations import reindex as reindex_orchestration
from orchestrations import retries
from services import operations, query_tags, reindex_operation, search, store
from services.operations import OperationStatus
from services.runtime import Runtime

HERE = Partition("Microsoft.Default")
NUMBER = NewTag("00200013", "IS", Level.INSTANCE)
ID = "0123456789abcdef0123456789abcdef"
BEGUN = "2026-01-01T00:00:00+00:00"
COUNT = 60


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    opened = open_runtime(tmp_path / "dicom")

    async def events() -> AsyncIterator[Any]:
        for n in range(COUNT):
            yield PartBegin({})
            yield PartData(instance(InstanceNumber=n))
            yield PartEnd()

    await store.store_instances(
        opened, HERE, events(), study_instance_uid=None, version=2
    )
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex_operation, "BATCH", 7)


async def added(runtime: Runtime) -> dict[str, Any]:
    """The checkpoint of a reindex that is to be started."""
    tags = await query_tags.add(runtime, [NUMBER], ID)
    return await reindex_operation.prepare(runtime, ID, tags, BEGUN)


async def found(runtime: Runtime) -> set[str]:
    registered = await runtime.tags.read()
    hits = set()
    for n in range(COUNT):
        query = parse(
            Resource.ALL_INSTANCES,
            [("InstanceNumber", str(n))],
            version=2,
            query_tags=registered.tags,
        )
        rows = (await search.search(runtime, HERE, query, "")).rows
        hits |= {row["00080018"]["Value"][0] for row in rows}
    return hits


async def test_it_brings_in_every_instance_and_replays_as_it_ran(runtime, tmp_path):
    checkpoint = await added(runtime)
    async with running(runtime, tmp_path) as host:
        ended = await host.run("Reindex", checkpoint, ID)
    assert ended["runtimeStatus"] == "Completed"
    assert ended["output"] == {"status": "succeeded"}
    assert ended["customStatus"]["percent"] == 100
    assert host.recording.calls["ReindexBatch"] == 9
    tag = await query_tags.find(runtime, NUMBER.path)
    assert (tag.status, tag.operation_id) == (TagStatus.READY, None)
    assert len(await found(runtime)) == COUNT


async def test_it_goes_on_where_it_was_when_its_host_ends(
    runtime, tmp_path, monkeypatch
):
    checkpoint = await added(runtime)
    slow = asyncio.Event()
    index = reindex_operation.index

    async def slower(*arguments):
        slow.set()
        await asyncio.sleep(0.05)
        return await index(*arguments)

    monkeypatch.setattr(reindex_operation, "index", slower)
    async with running(runtime, tmp_path) as host:
        await host.client.start_new("Reindex", ID, checkpoint)
        await slow.wait()
    async with running(runtime, tmp_path) as host:
        ended = await host.end(ID)
    assert ended["output"] == {"status": "succeeded"}
    assert len(await found(runtime)) == COUNT


async def test_what_a_crash_kept_from_starting_is_started_later(runtime, tmp_path):
    await query_tags.add(runtime, [NUMBER], ID)
    async with running(runtime, tmp_path) as host:
        await resume_reindex(runtime, host.client)
        await resume_reindex(runtime, host.client)
        ended = await host.end(ID)
    assert ended["output"] == {"status": "succeeded"}
    assert len(await found(runtime)) == COUNT


async def test_tags_of_an_operation_that_was_ended_from_outside_are_let_go(
    runtime, tmp_path
):
    checkpoint = await added(runtime)
    async with running(runtime, tmp_path) as host:
        await host.client.start_new("Reindex", ID, checkpoint)
        await host.client.terminate(ID, "by hand")
        await host.end(ID)
        await resume_reindex(runtime, host.client)
        tag = await query_tags.find(runtime, NUMBER.path)
        assert tag.operation_id is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts as short as can be, and fewer attempts."""
    monkeypatch.setattr(retries, "FIRST_RETRY_MILLISECONDS", 10)
    monkeypatch.setattr(retries, "MAX_ATTEMPTS", 4)
    monkeypatch.setattr(reindex_orchestration, "BACK_OFF_SECONDS", (0.01, 0.02, 0.03))


def failing(times: int, body: Any) -> Any:
    """The same, but it fails so often before."""
    left = [times]

    async def run(*arguments: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise StoreUnavailable("The store does not answer.")
        return await body(*arguments)

    return run


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_does_not_answer_for_a_while_only_takes_time(
    runtime, tmp_path, monkeypatch
):
    checkpoint = await added(runtime)
    for name in ("ranges", "index", "end"):
        body = failing(3, getattr(reindex_operation, name))
        monkeypatch.setattr(reindex_operation, name, body)
    async with running(runtime, tmp_path) as host:
        ended = await host.run("Reindex", checkpoint, ID)
    assert ended["output"] == {"status": "succeeded"}
    assert len(await found(runtime)) == COUNT


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["ranges", "index"])
async def test_a_store_that_never_answers_fails_the_operation_and_frees_its_tags(
    runtime, tmp_path, monkeypatch, name
):
    checkpoint = await added(runtime)
    body = failing(10_000, getattr(reindex_operation, name))
    monkeypatch.setattr(reindex_operation, name, body)
    async with running(runtime, tmp_path) as host:
        ended = await host.run("Reindex", checkpoint, ID)
    assert ended["runtimeStatus"] == "Failed"
    tag = await query_tags.find(runtime, NUMBER.path)
    assert (tag.status, tag.operation_id) == (TagStatus.ADDING, None)
    [recorded] = await operations.listed(
        runtime, type=None, status=OperationStatus.FAILED, limit=10, offset=0
    )
    assert recorded.id == ID
