"""Every call to a store fails once, in every way: nothing is lost, halved or doubled.

The calls are counted by a run without faults, so new ones are covered by themselves.
Crashes at the same points are in tests/blackbox/test_crashes.py.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from faults import SURVIVABLE, Fault, Faults, FaultyDocuments
from scenarios import (
    HERE,
    NEW,
    OLD,
    SCENARIOS,
    Expected,
    Scenario,
    act_until_acknowledged,
    check,
    file,
    memory_folder,
    open_runtime,
    prepare,
    put,
    smaller_limits,
    uids,
)

from dicomweb.errors import DicomwebError
from services import delete
from services.retrieve import Scope


@pytest.fixture(autouse=True)
def _smaller_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller_limits(monkeypatch)


READING = {"read", "query", "open", "read_range", "list", "properties"}


async def count_calls(
    folder: Path, scenario: Scenario, expected: Expected
) -> Counter[str]:
    """How often the scenario calls each method of the stores."""
    faults = Faults()
    runtime = open_runtime(folder, faults)
    await scenario.act(runtime, expected)
    await runtime.publisher.close()
    calls = Counter(method for method, _ in faults.points)
    await check(runtime, expected)
    await runtime.close()
    return calls


def has_effect(fault: Fault, method: str) -> bool:
    """Whether the fault is one at this call, and not the same as another one."""
    if fault is Fault.CONFLICT:
        return method == "batch"
    # A lost answer of a read is a lost read: TIMEOUT_BEFORE.
    return fault is not Fault.TIMEOUT_AFTER or method not in READING


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("fault", SURVIVABLE)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_fault_at_any_call_leaves_a_whole_store(
    memory: Path, name: str, fault: Fault
) -> None:
    scenario = SCENARIOS[name]
    template = memory / "template"
    before = await prepare(template, scenario)
    shutil.copytree(template, memory / "count")
    calls = await count_calls(memory / "count", scenario, copy_of(before))
    assert calls.total() > 8
    points = [
        (method, call)
        for method, count in calls.items()
        if has_effect(fault, method)
        for call in range(1, count + 1)
    ]
    assert points
    for method, call in points:
        folder = memory / f"{method}{call}"
        shutil.copytree(template, folder)
        expected, faults = copy_of(before), Faults()
        runtime = open_runtime(folder, faults)
        faults.plan(fault, at=call, on=method)
        try:
            with suppress(DicomwebError):
                await scenario.act(runtime, expected)
            await runtime.publisher.close()
            faults.stop()
            if not name.startswith("update"):  # an unfinished one is no whole study yet
                await check(runtime, expected)
            await act_until_acknowledged(runtime, scenario, expected)
            await check(runtime, expected)
        except BaseException as error:
            happened = [faults.points[point] for point, _ in faults.happened]
            error.add_note(f"{fault} at {method} {call}: {happened}")
            raise
        finally:
            faults.stop()
            await runtime.close()
        shutil.rmtree(folder)


def copy_of(expected: Expected) -> Expected:
    return Expected(dict(expected.files), set(expected.gone), expected.updated)


async def test_what_a_dead_process_left_is_published_by_the_next_commit(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit takes over the other's events, so also its series rows."""
    dead, alive = open_runtime(memory), open_runtime(memory)
    monkeypatch.setattr(dead.publisher, "publish", lambda commit: None)
    first, second = file(NEW, 1, 1), file(NEW, 2, 2)
    await put(dead, [first])
    await put(alive, [second])
    await alive.publisher.close()
    assert await alive.publisher.heal(minimum_age_seconds=-1) == 0
    await check(alive, Expected({uids(each)[2]: each for each in (first, second)}))
    await dead.close()
    await alive.close()


async def test_two_deletes_at_once_keep_the_manifest_of_the_one_that_won(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_runtime(memory), open_runtime(memory)
    await put(one, [file(OLD, 1, n) for n in (1, 2, 3)])
    both_ready = asyncio.Barrier(2)
    for runtime in (one, other):
        runtime.commits.apply = _after(both_ready, runtime.commits.apply)
    await asyncio.gather(
        delete.delete(one, Scope(HERE, OLD, f"{OLD}.1", f"{OLD}.1.1")),
        delete.delete(other, Scope(HERE, OLD, f"{OLD}.1", f"{OLD}.1.2")),
    )
    listed = [
        blob.name async for blob in one.blobs.list("") if "/deleted/" in blob.name
    ]
    told = [
        orjson.loads(await one.blobs.read_range(name, 0, 10_000)) for name in listed
    ]
    assert sorted(row[0][0] for row in told) == [
        f"i:{OLD}.1:{OLD}.1.1",
        f"i:{OLD}.1:{OLD}.1.2",
    ]
    await check(one, Expected(gone={f"{OLD}.1.1", f"{OLD}.1.2"}))
    await one.close()
    await other.close()


def _after(barrier: asyncio.Barrier, call: Any) -> Any:
    waited = False

    async def apply(*arguments: Any) -> Any:
        nonlocal waited
        if not waited:
            waited = True
            await barrier.wait()
        return await call(*arguments)

    return apply


@pytest.mark.parametrize("fault", [Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER])
async def test_a_lost_answer_of_the_feed_delays_nothing(
    memory: Path, fault: Fault
) -> None:
    """A page is named by its event, so the batch may be sent again at once."""
    runtime, faults = open_runtime(memory), Faults()
    runtime.feed._documents = FaultyDocuments(runtime.documents, faults)
    await put(runtime, [file(NEW, 1, 1)])
    faults.plan(fault, on="batch")
    await put(runtime, [file(NEW, 1, 2), file(OLD, 1, 1)])
    assert [found for _, found in faults.happened] == [fault]
    entries = await runtime.feed.by_sequence(0, 10)
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    stored = (file(NEW, 1, 1), file(NEW, 1, 2), file(OLD, 1, 1))
    await check(runtime, Expected({uids(each)[2]: each for each in stored}))
    await runtime.close()
