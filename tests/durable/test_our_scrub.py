"""Scrub and PurgeHistory on the local engine with real stores."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from archive import Archive, later, names, opened, small
from durable.ours import running

from functions import timers
from services import operations, scrub, scrub_operation
from services.operations import OperationStatus, OperationType
from services.runtime import Runtime
from services.scrub_operation import Options

ID = "0123456789abcdef0123456789abcdef"
COUNT = 60


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with opened(tmp_path / "dicom") as runtime:
        files = [small("1.2.3", n) for n in range(COUNT)]
        await Archive(runtime).put(*files)
        yield runtime


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAGE", 1)
    values = scrub.look_at_instances.__kwdefaults__ | {"limit": 1}
    monkeypatch.setattr(scrub.look_at_instances, "__kwdefaults__", values)


async def begun(runtime: Runtime) -> dict[str, object]:
    await scrub_operation.take_turn(runtime, ID, None)
    return await scrub_operation.prepare(
        runtime, ID, Options(), runtime.now().isoformat()
    )


async def test_it_looks_at_everything_and_replays_as_it_ran(runtime, tmp_path):
    [lost] = [n for n in await names(runtime) if "1.2.3.9.7_" in n]
    await runtime.blobs.delete(lost)
    checkpoint = await begun(runtime)
    async with running(runtime, tmp_path) as host:
        ended = await host.run("Scrub", checkpoint, ID)
    assert ended["runtimeStatus"] == "Completed"
    assert ended["output"] == {"status": "succeeded"}
    shown = ended["customStatus"]
    assert (shown["percent"], shown["results"]["instances"]) == (100, COUNT)
    assert (shown["results"]["lost"], shown["results"]["left"]) == (1, 1)
    assert host.recording.calls["ScrubStep"] == COUNT + 3, "several generations"
    assert await scrub_operation.active(runtime) is None
    [record] = await operations.listed(
        runtime, type=OperationType.SCRUB, status=None, limit=9, offset=0
    )
    assert record.status is OperationStatus.SUCCEEDED
    assert record.progress.results == shown["results"]


async def test_it_goes_on_where_it_was_when_its_host_ends(
    runtime, tmp_path, monkeypatch
):
    checkpoint = await begun(runtime)
    half = asyncio.Event()
    look = scrub.look_at_instances
    steps = []

    async def slower(runtime, end, **options):
        steps.append(end)
        if len(steps) > COUNT // 2:
            half.set()
        return await look(runtime, end, **options)

    monkeypatch.setattr(scrub, "look_at_instances", slower)
    async with running(runtime, tmp_path) as host:
        await host.client.start_new("Scrub", ID, checkpoint)
        await half.wait()
    async with running(runtime, tmp_path) as host:
        ended = await host.end(ID)
    assert ended["output"] == {"status": "succeeded"}
    assert ended["customStatus"]["results"]["instances"] == COUNT
    assert len(steps) <= COUNT + 4, "all but the last steps count"


async def test_it_ends_at_its_next_step_when_canceled(runtime, tmp_path, monkeypatch):
    checkpoint = await begun(runtime)
    look = scrub.look_at_instances

    async def canceling(runtime, end, **options):
        await operations.cancel(runtime, ID)
        return await look(runtime, end, **options)

    monkeypatch.setattr(scrub, "look_at_instances", canceling)
    async with running(runtime, tmp_path) as host:
        ended = await host.run("Scrub", checkpoint, ID)
    assert ended["output"] == {"status": "canceled"}
    assert ended["customStatus"]["results"]["instances"] == 1
    assert await scrub_operation.active(runtime) is None


async def test_purge_history_forgets_what_ended_long_ago(runtime, tmp_path):
    async with running(runtime, tmp_path) as host:
        await host.run("Scrub", await begun(runtime), ID)
        await timers.purge_history(later(runtime, days=6), host.client)
        assert await host.client.get_status(ID)
        await timers.purge_history(later(runtime, days=8), host.client)
        assert not await host.client.get_status(ID)
    left = await operations.listed(runtime, type=None, status=None, limit=9, offset=0)
    assert left == []
