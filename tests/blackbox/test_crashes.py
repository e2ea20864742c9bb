"""kill -9 at random moments, and an end of the process at every step of each write.

`FULL=1` makes it 100 kills instead of 8, and a step of every SQL statement.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from blackbox.hosts import ROOT, Running
from blackbox.loads import (
    FULL,
    FeedReader,
    Sent,
    Uids,
    agree,
    healthy,
    store_until_lost,
)
from emulators.processes import AZURITE, both
from scenarios import (
    SCENARIOS,
    TO_STORE,
    Expected,
    Scenario,
    act_until_acknowledged,
    check,
    memory_folder,
    open_runtime,
    prepare,
    smaller_limits,
    uids,
)

KILLS = 100 if FULL else 8
STREAMS = 16
ENOUGH = 4
SEED = 20260101


@pytest.mark.timeout(180 + 15 * KILLS)
async def test_kill_9_under_16_streams_loses_halves_and_doubles_nothing(
    serve: Callable[..., Running], tmp_path: Path
) -> None:
    random, uids = Random(SEED), Uids()
    sent, feed = Sent(), FeedReader()
    everything: list[str] = []
    running = serve(data=tmp_path)
    for kill in range(KILLS):
        studies = [uids.next() for _ in range(4)]
        everything += studies
        async with asyncio.TaskGroup() as streams:
            for _ in range(STREAMS):
                streams.create_task(
                    store_until_lost(running.port, sent, studies, uids, random)
                )
            await until_stored(sent, ENOUGH * kill)
            await asyncio.sleep(random.uniform(0.01, 0.7))
            running.kill()
        running = serve(data=tmp_path)
        await healthy(running.port)
        try:
            await agree(running.port, sent, feed, studies)
        except AssertionError as error:
            error.add_note(f"after kill {kill + 1}\n{running.log()[-2000:]}")
            raise
    print(f"{KILLS} kills, {len(sent.acknowledged)} instances acknowledged")
    assert len(sent.acknowledged) > 2 * KILLS, "too little was stored to matter"
    assert sent.statuses <= {200}
    await agree(running.port, sent, feed, everything)
    running.stop()


async def until_stored(sent: Sent, count: int) -> None:
    """On a busy machine a server may be killed before it has stored anything."""
    deadline = time.monotonic() + 20
    while len(sent.acknowledged) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


SOME = tuple(SCENARIOS) if FULL else ("store", "delete a large study", "update")


@pytest.mark.parametrize("name", SOME)
async def test_a_crash_at_any_write_leaves_a_whole_store(
    name: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process really ends, before and after each write; others open its folder."""
    smaller_limits(monkeypatch)
    await prepare(memory / "template", SCENARIOS[name])
    crashed = await asyncio.to_thread(crash_everywhere, name, memory)
    assert len(crashed) > 12
    await check_all(crashed, name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("store", ()),
        ("store", ("--spooled",)),
        *((name, ()) for name in SCENARIOS if FULL and name != "store"),
    ],
)
@pytest.mark.timeout(1200 if FULL else 400)
async def test_an_end_before_any_step_on_the_disk_leaves_a_whole_store(
    name: str, options: tuple[str, ...], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, but before each system call and at each end of a transaction."""
    smaller_limits(monkeypatch)
    await prepare(memory / "template", SCENARIOS[name])
    crashed = await asyncio.to_thread(
        crash_everywhere, name, memory, "--steps", *options
    )
    met = {folder.name.partition("-")[2] for folder in crashed}
    assert met >= {"rename", "fsync", "fdatasync", "BEGIN", "COMMIT"}
    await check_all(crashed, name)


SHARED = tuple(SCENARIOS) if FULL else ("store",)


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.timeout(900 if FULL else 400)
async def test_others_finish_or_undo_what_a_killed_process_began(
    name: str, emulators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Cosmos DB and Blob Storage, which outlive each of their processes."""
    smaller_limits(monkeypatch)
    kinds = ("before", "after") if FULL else ("after",)
    crashed = await asyncio.to_thread(
        *(crash_everywhere, name, tmp_path, "--emulated", str(emulators)),
        *("--kinds", *kinds),
    )
    assert len(crashed) > 5
    scenario = SCENARIOS[name]
    for folder in crashed:
        expected = acknowledged_before(folder, scenario)
        one, other = open_runtime(folder), open_runtime(folder)
        try:
            if not name.startswith("update"):  # an unfinished one is no whole study yet
                await check(one, expected)
            await act_until_acknowledged(other, scenario, expected)
            await check(one, expected)
            await check(other, expected)
        except BaseException as error:
            error.add_note(f"crashed at call {folder.name}")
            raise
        finally:
            await one.close()
            await other.close()
    print(f"{name}: {len(crashed)} places")


@pytest.fixture(scope="module")
def emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of the settings of running emulators."""
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    place = tmp_path_factory.mktemp("emulators") / "settings.json"
    with both() as running:
        settings = {
            "cosmos_endpoint": running.cosmos.endpoint,
            "cosmos_key": running.cosmos.key,
            "blob_connection": running.blobs.connection,
        }
        place.write_text(json.dumps(settings))
        yield place


async def check_all(crashed: list[Path], name: str) -> None:
    """Other processes find the folders whole, and can go on in them."""
    scenario = SCENARIOS[name]
    for folder in crashed:
        expected = acknowledged_before(folder, scenario)
        runtime = open_runtime(folder)
        try:
            if not name.startswith("update"):  # an unfinished one is no whole study yet
                await check(runtime, expected)
            await act_until_acknowledged(runtime, scenario, expected)
            await check(runtime, expected)
            assert staged_files(folder) == []
        except BaseException as error:
            error.add_note(f"crashed at call {folder.name}")
            raise
        finally:
            await runtime.close()


def staged_files(folder: Path) -> list[Path]:
    """What waits to be renamed, of this process or a dead one."""
    staged = (folder / "blobs" / ".tmp").glob("*/*")
    return [path for path in staged if path.name != "lock"]


def crash_everywhere(name: str, folder: Path, *options: str) -> list[Path]:
    """The folders that crashed processes left behind."""
    template = folder / "template"
    ended = subprocess.run(
        [sys.executable, "tests/crashing.py", name, template, folder, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [folder / name for name in ended.stdout.split()]


def acknowledged_before(folder: Path, scenario: Scenario) -> Expected:
    """What the process had acknowledged when it ended."""
    note = folder.with_suffix(".json")
    if not note.exists():
        return Expected(scenario.untouched())
    files = {uids(content)[2]: content for content in (*scenario.before, *TO_STORE)}
    told = json.loads(note.read_text())
    return Expected({sop: files[sop] for sop in told["files"]}, set(told["gone"]))
