"""Random clients of three processes on one store, each call at a random moment.

`SCHEDULES=1000` makes it so many instead of a few; the seed of one that fails is in
its name.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import scenarios
from faults import Fault, Faults
from scenarios import (
    CHANGE,
    HERE,
    NEW,
    OLD,
    Expected,
    check,
    file,
    memory_folder,
    open_runtime,
    put,
    smaller_limits,
)

from dicomweb.errors import DicomwebError
from services import delete, stored_names, update
from services import documents as doc
from services.retrieve import Scope
from services.runtime import Runtime
from stores import containers
from stores.ports import Range

SCHEDULES = int(os.environ.get("SCHEDULES", "4"))
CLIENTS = 6
DEEDS = 6
PASSING = (Fault.THROTTLE, Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER)


class Slow:
    """A store whose calls take a random time before and after they happen."""

    def __init__(self, store: Any, random: Random) -> None:
        self._store = store
        self._random = random

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name in {"list", "read"} and hasattr(self._store, "splice"):
            return real

        async def called(*arguments: Any, **named: Any) -> Any:
            await self._pause()
            result = await real(*arguments, **named)
            await self._pause()
            return result

        return called

    async def _pause(self) -> None:
        if self._random.random() < 0.5:
            await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.004)))


def slowed(folder: Path, random: Random, faults: Faults) -> Runtime:
    runtime = open_runtime(folder, faults)
    for owner in (runtime, runtime.commits, runtime.publisher, runtime.feed):
        _slow_down(owner, random)
    _slow_down(runtime.publisher._catalog, random)
    return runtime


def _slow_down(owner: Any, random: Random) -> None:
    for name in ("documents", "_documents", "blobs"):
        if hasattr(owner, name):
            object.__setattr__(owner, name, Slow(getattr(owner, name), random))


class Client:
    """Does one thing after the other, whatever comes of it."""

    def __init__(self, runtimes: list[Runtime], random: Random, name: str) -> None:
        self._runtimes = runtimes
        self._random = random
        self._name = name
        self.jobs: list[update.Job] = []

    async def run(self) -> None:
        deeds: list[Callable[[Runtime], Awaitable[None]]] = [
            *(3 * [self._store]),
            self._delete_instance,
            self._delete_series,
            self._delete_study,
            self._update,
        ]
        for _ in range(DEEDS):
            runtime = self._random.choice(self._runtimes)
            with suppress(DicomwebError):
                await self._random.choice(deeds)(runtime)

    def _study(self) -> str:
        return self._random.choice((OLD, OLD, NEW))

    def _instance(self) -> tuple[str, int, int]:
        return self._study(), self._random.randint(1, 2), self._random.randint(1, 4)

    async def _store(self, runtime: Runtime) -> None:
        count = self._random.randint(1, 4)
        await put(runtime, [file(*self._instance()) for _ in range(count)])

    async def _delete_instance(self, runtime: Runtime) -> None:
        study, series, number = self._instance()
        uid = f"{study}.{series}"
        await delete.delete(runtime, Scope(HERE, study, uid, f"{uid}.{number}"))

    async def _delete_series(self, runtime: Runtime) -> None:
        study, series, _ = self._instance()
        await delete.delete(runtime, Scope(HERE, study, f"{study}.{series}"))

    async def _delete_study(self, runtime: Runtime) -> None:
        await delete.delete(runtime, Scope(HERE, self._study()))

    async def _update(self, runtime: Runtime) -> None:
        id = f"{self._name}{len(self.jobs):031d}"
        job = update.Job(runtime, HERE, self._study(), id, CHANGE)
        self.jobs.append(job)
        if await update.begin(job):
            await update.stage(job, None)
            await update.flip(job)
            await update.fold(job, None)
            await update.finish(job)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    with memory_folder(tmp_path) as found:
        yield found


@pytest.mark.parametrize("share", [0, 0.03])
@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_any_schedule_leaves_index_catalog_feed_and_blobs_in_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, share: float
) -> None:
    smaller_limits(monkeypatch)
    monkeypatch.setattr(scenarios, "_check_update", _any_names)
    monkeypatch.setattr(scenarios, "_check_cleanup", _check_cleanup)
    random, faults = Random(seed), Faults()
    runtimes = [slowed(folder, random, faults) for _ in range(3)]
    faults.random(seed=seed, share=share, kinds=PASSING)
    clients = [Client(runtimes, random, f"{n:x}") for n in range(CLIENTS)]
    await asyncio.gather(*(client.run() for client in clients))
    for runtime in runtimes:
        await runtime.publisher.close()
    faults.stop()
    for client in clients:
        for job in client.jobs:
            await update.settle(job)
    for runtime in runtimes:
        await check(runtime, Expected())
        await runtime.close()


async def _any_names(*_: object) -> None:
    """Stores go on during updates, so a study may have both names."""


async def _check_cleanup(runtime: Runtime, studies: Sequence[scenarios._Study]) -> None:
    """What was deleted waits to be removed, nothing that is in use does."""
    after = Range(("after",), low="0")
    pages = await scenarios._all(runtime, containers.CLEANUP, None, after)
    waiting = {name for page in pages for name in page["names"]}
    for study in studies:
        for row in study.instances.values():
            assert not waiting & stored_names.referenced(study.pk, row)
        for event in study.events:
            if event["action"] == doc.DELETE_ACTION:
                assert waiting.issuperset(event["blobs"])
