"""Bulk update of a study with more instances than one event can name.

`UPDATE_INSTANCES=8200` runs it at the size of a large study; a few are the default, in
parts that are as many.
"""

import asyncio
import os

import pytest
from data import instance
from unit_update import run

from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from services import event_parts, retrieve, store, update
from services.feed import FeedEntry
from services.retrieve import Scope
from services.runtime import Runtime

HERE = Partition("Microsoft.Default")
STUDY = "1.2.826.0.1.3680043.10.77"
COUNT = int(os.environ.get("UPDATE_INSTANCES", "150"))
IN_A_REQUEST = 50
CHANGE = {"00100020": {"vr": "LO", "Value": ["NEW-ID"]}}


def file(number: int) -> bytes:
    series = f"{STUDY}.{number % 70}"
    return instance(
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=series,
        SOPInstanceUID=f"{series}.{number}",
        PatientID="OLD-ID",
    )


async def put_all(runtime: Runtime) -> None:
    for start in range(0, COUNT, IN_A_REQUEST):
        numbers = range(start, min(COUNT, start + IN_A_REQUEST))
        await store.store_instances(
            runtime, HERE, events(numbers), study_instance_uid=None, version=2
        )


async def events(numbers: range):
    for number in numbers:
        yield PartBegin({})
        yield PartData(file(number))
        yield PartEnd()


async def patients(runtime: Runtime, *, original: bool = False) -> list[str]:
    """Patient ID of every instance, each from its metadata."""
    scope = Scope(HERE, STUDY)
    answer = await retrieve.metadata(runtime, scope, original=original)
    rows = await retrieve.filled(runtime, scope.pk, answer.documents)
    return [retrieve.metadata_object(row, "")["00100020"]["Value"][0] for row in rows]


async def whole_feed(runtime: Runtime) -> list[FeedEntry]:
    entries: list[FeedEntry] = []
    while True:
        more = await runtime.feed.by_sequence(len(entries), 1000)
        if not more:
            return entries
        entries += more


async def watch(runtime: Runtime, stop: asyncio.Event, seen: list[set[str]]) -> None:
    while not stop.is_set():
        seen.append(set(await patients(runtime)))
        await asyncio.sleep(max(0.1, COUNT / 500))


@pytest.mark.timeout(1200)
async def test_all_instances_become_current_at_once_and_are_told_once(
    runtime, monkeypatch
):
    monkeypatch.setattr(event_parts, "ENTRIES", min(event_parts.ENTRIES, COUNT // 5))
    await put_all(runtime)
    stop, seen = asyncio.Event(), []
    watching = asyncio.create_task(watch(runtime, stop, seen))
    count = await run(update.Job(runtime, HERE, STUDY, "a" * 32, CHANGE))
    stop.set()
    await watching
    assert count == COUNT
    assert {"OLD-ID"} in seen
    assert all(len(each) == 1 for each in seen), "a half updated study"
    assert await patients(runtime) == ["NEW-ID"] * COUNT
    assert await patients(runtime, original=True) == ["OLD-ID"] * COUNT
    await runtime.publisher.close()
    entries = await whole_feed(runtime)
    assert [e.sequence for e in entries] == list(range(1, 2 * COUNT + 1))
    updated = [e.sop_instance_uid for e in entries if e.action == "Update"]
    assert len(updated) == len(set(updated)) == COUNT
