"""kill -9 at random moments, and a crash before and after every write to a store.

`FULL=1` makes it 100 kills instead of 25.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from blackbox.hosts import ROOT, Running
from blackbox.loads import FeedReader, Sent, Uids, agree, healthy, store_until_lost
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

KILLS = 100 if os.environ.get("FULL") == "1" else 25
STREAMS = 16
SEED = 20260101


@pytest.mark.timeout(30 + 6 * KILLS)
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
            await asyncio.sleep(random.uniform(0.01, 0.7))
            running.kill()
        running = serve(data=tmp_path)
        await healthy(running.port)
        try:
            await agree(running.port, sent, feed, studies)
        except AssertionError as error:
            error.add_note(f"after kill {kill + 1}\n{running.log()[-2000:]}")
            raise
    assert len(sent.acknowledged) > 10 * KILLS, "too little was stored to matter"
    assert sent.statuses <= {200}
    await agree(running.port, sent, feed, everything)
    running.stop()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_at_any_write_leaves_a_whole_store(
    name: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process really ends, before and after each write; others open its folder."""
    smaller_limits(monkeypatch)
    scenario = SCENARIOS[name]
    await prepare(memory / "template", scenario)
    crashed = await asyncio.to_thread(crash_everywhere, name, memory)
    assert len(crashed) > 12
    for folder in crashed:
        expected = acknowledged_before(folder, scenario)
        runtime = open_runtime(folder)
        try:
            if name != "update":  # an unfinished one is no whole study yet
                await check(runtime, expected)
            await act_until_acknowledged(runtime, scenario, expected)
            await check(runtime, expected)
        except BaseException as error:
            error.add_note(f"crashed at call {folder.name}")
            raise
        finally:
            await runtime.close()


def crash_everywhere(name: str, folder: Path) -> list[Path]:
    """The folders that crashed processes left behind."""
    ended = subprocess.run(
        [sys.executable, "tests/crashing.py", name, folder / "template", folder],
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
