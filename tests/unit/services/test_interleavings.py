"""Two processes on one store, step by step: what one does between two steps of another.

Also requests that are given up half way, and servers that come back after long.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from faults import Fault, Faults, FaultyDocuments
from scenarios import (
    CHANGE,
    HERE,
    JOB,
    NEW,
    OLD,
    Expected,
    check,
    file,
    memory_folder,
    open_runtime,
    put,
    uids,
)

from dicomweb import query
from dicomweb.errors import DicomwebError, NotFound, StoreUnavailable
from dicomweb.multipart import PartBegin, PartData
from dicomweb.store_response import FailureReason, Refused
from services import cleanup, delete, retrieve, search, spool, store, update
from services import documents as doc
from services.retrieve import Scope
from services.runtime import Runtime
from stores import containers
from stores.ports import Patch

INSTANCE = Scope(HERE, OLD, f"{OLD}.1", f"{OLD}.1.1")
PATIENT_SEX = "00100040"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as found:
        yield found


@pytest.fixture
async def one(folder: Path) -> AsyncIterator[Runtime]:
    runtime = open_runtime(folder)
    yield runtime
    await runtime.close()


@pytest.fixture
async def other(folder: Path) -> AsyncIterator[Runtime]:
    runtime = open_runtime(folder)
    yield runtime
    await runtime.close()


def once_before(
    target: Any, name: str, deed: Callable[[], Awaitable[Any]]
) -> list[str]:
    """Lets something happen just before the first call of a method; what was called."""
    real, called = getattr(target, name), []

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        called.append(name)
        if len(called) == 1:
            await deed()
        return await real(*arguments, **named)

    setattr(target, name, wrapped)
    return called


async def blob_names(runtime: Runtime) -> list[str]:
    return [blob.name async for blob in runtime.blobs.list("")]


async def listed_as_deleted(runtime: Runtime) -> list[tuple[str, int]]:
    """Id and first watermark of all that a rebuild would leave out."""
    return [
        (row[0], row[1])
        for name in await blob_names(runtime)
        if doc.is_manifest(name)
        for row in orjson.loads(await runtime.blobs.read_range(name, 0, 10_000))
    ]


async def studies(runtime: Runtime) -> list[dict[str, Any]]:
    parsed = query.parse(
        query.Resource.ALL_STUDIES,
        [("includefield", "all")],
        version=2,
        query_tags=(),
    )
    return (await search.search(runtime, HERE, parsed, "http://test/v2")).rows


# --- delete ------------------------------------------------------------------------


async def test_a_delete_names_the_blobs_of_what_was_stored_again_meanwhile(
    one: Runtime, other: Runtime
) -> None:
    """What it had read was of the instance before."""
    content = file(OLD, 1, 1)
    await put(one, [content, file(OLD, 1, 2)])

    async def store_again() -> None:
        await delete.delete(other, INSTANCE)
        await put(other, [content])

    once_before(one.commits, "load", store_again)
    await delete.delete(one, INSTANCE)
    id = doc.instance_id(f"{OLD}.1", f"{OLD}.1.1")
    assert sorted(await listed_as_deleted(one)) == [(id, 1), (id, 3)]
    await _clean_up_later(one)
    left = [name for name in await blob_names(one) if f"{OLD}.1.1_" in name]
    assert left == [], "a deleted instance's file stays"


async def test_a_delete_names_the_blobs_that_an_update_staged_meanwhile(
    one: Runtime, other: Runtime
) -> None:
    await put(one, [file(OLD, 1, 1), file(OLD, 1, 2)])
    job = update.Job(other, HERE, OLD, JOB, CHANGE)
    await update.begin(job)
    once_before(one.commits, "load", lambda: update.stage(job, None))
    await delete.delete(one, INSTANCE)
    await _clean_up_later(one)
    left = [name for name in await blob_names(one) if f"{OLD}.1.1_" in name]
    assert left == []


async def _clean_up_later(runtime: Runtime) -> None:
    await runtime.publisher.close()
    month = timedelta(days=62)
    await cleanup.clean_up(replace(runtime, now=lambda: datetime.now(UTC) + month))


async def test_deleting_the_newest_instance_shows_what_an_update_made_of_the_others(
    one: Runtime,
) -> None:
    """The new versions are current before they are folded into place."""
    await put(one, [file(OLD, 1, n, PatientSex="F") for n in (1, 2)])
    change = {PATIENT_SEX: {"vr": "CS", "Value": ["M"]}}
    job = update.Job(one, HERE, OLD, JOB, change)
    await update.begin(job)
    await update.stage(job, None)
    await update.flip(job)
    await delete.delete(one, Scope(HERE, OLD, f"{OLD}.1", f"{OLD}.1.2"))
    (row,) = await studies(one)
    assert row[PATIENT_SEX]["Value"] == ["M"]
    await update.fold(job, None)
    await update.finish(job)
    (row,) = await studies(one)
    assert row[PATIENT_SEX]["Value"] == ["M"]


@pytest.mark.parametrize("call", range(1, 7))
async def test_an_update_that_is_taken_back_becomes_current_as_a_whole_or_not_at_all(
    one: Runtime, other: Runtime, call: int
) -> None:
    """Its step was taken for dead, and goes on while the update is taken back."""
    await put(one, [file(OLD, 1, n) for n in (1, 2, 3)])
    await one.publisher.close()
    job = update.Job(one, HERE, OLD, JOB, CHANGE)
    await update.begin(job)
    await update.stage(job, None)

    async def flip() -> None:
        with suppress(DicomwebError):
            await update.flip(update.Job(other, HERE, OLD, JOB, CHANGE))

    documents, number = one.documents, 0
    query, batch = documents.query, documents.batch

    def counted(real: Any) -> Any:
        async def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal number
            number += 1
            if number == call:
                await flip()
            return await real(*arguments, **named)

        return wrapped

    documents.query, documents.batch = counted(query), counted(batch)
    await update.abandon(job)
    documents.query, documents.batch = query, batch
    await flip()
    await update.settle(job)
    (row,) = await studies(one)
    found = await retrieve.metadata(one, Scope(HERE, OLD))
    names = {
        str(retrieve.metadata_object(each, "")["00100010"]) for each in found.documents
    }
    assert names == {str(row["00100010"])}, "half of it became current"


async def test_what_an_update_staged_of_a_study_stored_anew_is_taken_back(
    one: Runtime, other: Runtime
) -> None:
    """The study that it had locked is gone, and the new one is not its own."""
    await put(one, [file(OLD, 1, 1)])
    job = update.Job(one, HERE, OLD, JOB, CHANGE)
    await update.begin(job)
    await delete.delete(other, Scope(HERE, OLD))
    await put(other, [file(OLD, 1, 2)])
    await update.stage(job, None)
    with pytest.raises(DicomwebError):
        await update.flip(job)
    await update.abandon(job)
    id = doc.instance_id(f"{OLD}.1", f"{OLD}.1.2")
    row = await one.documents.read(containers.DICOM, INSTANCE.pk, id)
    assert row is not None
    assert "next" not in row
    left = [name for name in await blob_names(one) if f"{OLD}.1.2_" in name]
    assert left == [doc.current_blob_name(INSTANCE.pk, row)]


async def test_a_delete_whose_neighbours_are_deleted_meanwhile_succeeds(
    one: Runtime, other: Runtime
) -> None:
    await put(one, [file(OLD, 1, 1), file(OLD, 1, 2)])
    scope = Scope(HERE, OLD, f"{OLD}.1", f"{OLD}.1.2")
    load = one.commits.load

    async def loaded(*arguments: Any) -> Any:
        state = await load(*arguments)
        one.commits.load = load
        await delete.delete(other, INSTANCE)
        return state

    one.commits.load = loaded
    await delete.delete(one, scope)
    await check(one, Expected(gone={f"{OLD}.1.1", f"{OLD}.1.2"}))


@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.CONFLICT])
async def test_a_delete_that_failed_leaves_no_list_of_deleted_instances(
    one: Runtime, fault: Fault
) -> None:
    """The instance is there still, so a rebuild must bring it back."""
    await put(one, [file(OLD, 1, 1), file(OLD, 1, 2)])
    faults = Faults()
    one.commits._documents = FaultyDocuments(one.documents, faults)
    faults.plan(fault, on="batch")
    if fault is Fault.THROTTLE:
        with pytest.raises(StoreUnavailable):
            await delete.delete(one, INSTANCE)
        assert await listed_as_deleted(one) == []
    else:
        await delete.delete(one, INSTANCE)
        assert len(await listed_as_deleted(one)) == 1


async def test_a_delete_that_is_given_up_by_its_caller_goes_on_to_its_end(
    one: Runtime,
) -> None:
    await put(one, [file(OLD, 1, 1), file(OLD, 1, 2)])
    reached = asyncio.Event()

    async def pause() -> None:
        reached.set()
        await asyncio.sleep(0.05)

    once_before(one.commits, "apply", pause)
    caller = asyncio.create_task(delete.delete(one, INSTANCE))
    await reached.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    for _ in range(200):
        if not await _is_there(one):
            break
        await asyncio.sleep(0.02)
    await check(one, Expected({f"{OLD}.1.2": file(OLD, 1, 2)}, gone={f"{OLD}.1.1"}))


async def _is_there(runtime: Runtime) -> bool:
    id = doc.instance_id(f"{OLD}.1", f"{OLD}.1.1")
    return await runtime.documents.read(containers.DICOM, INSTANCE.pk, id) is not None


async def test_a_delete_of_nothing_left_makes_the_study_gone(one: Runtime) -> None:
    """Even where a count is wrong: no commit follows the other for ever."""
    await put(one, [file(OLD, 1, 1)])
    await one.documents.batch(
        containers.DICOM, INSTANCE.pk, [Patch(doc.STUDY, increments={("ni",): 200})]
    )
    await asyncio.wait_for(delete.delete(one, Scope(HERE, OLD)), 20)
    left = await one.documents.read(containers.DICOM, INSTANCE.pk, doc.STUDY)
    assert left is not None
    assert left["state"] == doc.GONE


# --- what an answer promises ---------------------------------------------------------


async def test_exists_already_is_said_only_of_what_is_on_the_disk(
    one: Runtime, other: Runtime
) -> None:
    """The first client's answer was lost before the sync; the second is content."""
    content = file(OLD, 1, 1)

    async def lost() -> None:
        raise StoreUnavailable("The first process ends here", outcome_unknown=True)

    one.documents.flush = lost
    with pytest.raises(StoreUnavailable):
        await put(one, [content])
    synced = once_before(other.documents, "flush", _nothing)
    (result,) = await put(other, [content])
    assert isinstance(result, Refused)
    assert result.reason is FailureReason.INSTANCE_ALREADY_EXISTS
    assert synced


async def test_not_found_is_said_of_a_deleted_study_only_once_that_is_on_the_disk(
    one: Runtime, other: Runtime
) -> None:
    await put(one, [file(OLD, 1, 1)])
    await delete.delete(one, INSTANCE)
    synced = once_before(other.documents, "flush", _nothing)
    with pytest.raises(NotFound):
        await delete.delete(other, INSTANCE)
    assert synced


async def _nothing() -> None:
    return None


async def test_a_delete_that_was_never_published_is_so_a_month_later(
    one: Runtime, folder: Path
) -> None:
    """The machine went off right after the commit and was brought back after long."""
    await put(one, [file(OLD, 1, 1)])
    await one.publisher.close()
    one.publisher.publish = lambda commit: None
    await delete.delete(one, Scope(HERE, OLD))
    assert len(await studies(one)) == 1
    month = timedelta(days=31)
    one.documents._clock = one.documents._writer._clock = lambda: (
        datetime.now(UTC) + month
    ).timestamp()
    later = open_runtime(folder)
    later.documents._clock = later.documents._writer._clock = one.documents._clock
    await later.publisher.heal(minimum_age_seconds=-1)
    assert await studies(later) == []
    feed = await later.feed.by_sequence(0, 10)
    assert [entry.action for entry in feed] == ["Create", "Delete"]
    await _clean_up_later(later)
    assert await blob_names(later) == []
    await later.close()


async def test_what_is_left_of_a_deleted_study_goes_a_week_after_its_publication(
    one: Runtime,
) -> None:
    await put(one, [file(OLD, 1, 1)])
    await delete.delete(one, Scope(HERE, OLD))
    await one.publisher.close()
    left = await one.documents.read(containers.DICOM, INSTANCE.pk, doc.STUDY)
    assert left is not None
    assert left["ttl"] == doc.GONE_SECONDS
    await put(one, [file(OLD, 1, 1)])
    await one.publisher.close()
    again = await one.documents.read(containers.DICOM, INSTANCE.pk, doc.STUDY)
    assert again is not None
    assert "ttl" not in again


async def test_a_study_that_cannot_be_published_holds_up_no_other(
    one: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.publisher, "publish", lambda commit: None)
    await put(one, [file(OLD, 1, 1)])
    await put(one, [file(NEW, 1, 1)])
    real = one.publisher._catalog.put

    async def refusing(change: Any) -> None:
        if change.pk == INSTANCE.pk:
            raise ValueError("what no repetition mends")
        await real(change)

    monkeypatch.setattr(one.publisher._catalog, "put", refusing)
    assert await one.publisher.heal(minimum_age_seconds=-1) == 1
    assert len(await studies(one)) == 1
    monkeypatch.undo()
    assert await one.publisher.heal(minimum_age_seconds=-1) == 1
    assert len(await studies(one)) == 2


# --- requests that are given up ------------------------------------------------------


async def test_a_part_that_is_given_up_while_it_is_written_reaches_no_other_file(
    one: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def late(target: Any, data: bytes) -> None:
        number = target.fileno()  # as the system call has it
        begun.set()
        assert go_on.wait(10)
        os.write(number, data)

    monkeypatch.setattr(spool, "_write_all", late)

    async def events() -> AsyncIterator[Any]:
        yield PartBegin({})
        for _ in range(6):
            yield PartData(b"p" * (1 << 20))

    request = asyncio.create_task(
        store.store_instances(one, HERE, events(), study_instance_uid=None, version=2)
    )
    await asyncio.to_thread(begun.wait, 10)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    others = [(tmp_path / str(n)).open("wb") for n in range(20)]
    go_on.set()
    await asyncio.sleep(0.1)
    for each in others:
        each.close()
    for n in range(20):
        assert (tmp_path / str(n)).read_bytes() == b""
    assert one.spool._free == spool.MEMORY_BYTES
    assert list(one.spool.folder.glob("part-*")) == []


async def test_a_part_that_is_given_up_while_it_is_read_leaves_nothing(
    one: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def late(buffer: Any, **_: Any) -> Refused:
        view = memoryview(buffer)
        begun.set()
        assert go_on.wait(10)
        assert bytes(view[:1]) == b"p"
        return Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)

    monkeypatch.setattr(store.instance, "read", late)

    async def events() -> AsyncIterator[Any]:
        yield PartBegin({})
        for _ in range(6):
            yield PartData(b"p" * (1 << 20))
        yield store.PartEnd()

    request = asyncio.create_task(
        store.store_instances(one, HERE, events(), study_instance_uid=None, version=2)
    )
    await asyncio.to_thread(begun.wait, 10)
    request.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert list(one.spool.folder.glob("part-*")) == []


async def test_who_is_cancelled_takes_no_other_writer_of_the_study_along(
    one: Runtime,
) -> None:
    """They share a commit; each may hang up at any moment."""
    contents = [file(OLD, 1, n) for n in range(1, 13)]
    for wait in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
        requests = [asyncio.create_task(put(one, [each])) for each in contents]
        await asyncio.sleep(wait)
        for request in requests[::2]:
            request.cancel()
        results = await asyncio.gather(*requests, return_exceptions=True)
        for result in results[1::2]:
            assert not isinstance(result, BaseException | DicomwebError), result
    kept = {uids(each)[2]: each for each in contents}
    for content in contents:
        await put(one, [content])
    await check(one, Expected(kept))
