"""Runs a scenario in child processes that end in the midst of it.

    python tests/crashing.py SCENARIO TEMPLATE FOLDER [--steps] [--spooled]

For each call that writes to a store and each kind of crash a child is forked from this
process, which has imported everything and opened nothing. The child works on a copy of
the template, `FOLDER/{call}-{before|after}`, writes what was acknowledged to `.json`
beside it and ends by `os._exit`. Prints the names of the copies.

`--emulated` takes a JSON file of settings of emulators: each case gets a database and a
blob container of its own there, and the template is not used.

`--steps` goes deeper: the child ends before each system call and each begin and end of a
transaction. `--spooled` lets every part of a request wait in a file.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from faults import CRASH_STATUS, Fault, Faults
from scenarios import SCENARIOS, SETTINGS, Expected, Scenario, open_runtime, prepare

from dicomweb.errors import DicomwebError
from services import delete, publishing, spool
from services.runtime import Runtime
from stores import provision
from stores.azure_blobs import BlobAddress
from stores.cosmos_account import CosmosAddress

KINDS = {"before": Fault.CRASH_BEFORE, "after": Fault.CRASH_AFTER}
READS = {"read", "query", "open", "read_range", "list", "properties"}
COUNTED = "counted"
SYSTEM_CALLS = (
    *("write", "writev", "fsync", "fdatasync", "rename", "replace"),
    *("makedirs", "mkdir", "unlink", "rmdir", "copy_file_range"),
)
SQL = {"BEGIN", "COMMIT", "ROLLBACK"}
if os.environ.get("FULL") == "1":  # within a transaction each place is like the other
    SQL |= {"INSERT", "REPLACE", "UPDATE", "DELETE"}


class Steps:
    """What this process does to its disk, counted; it ends before one of these steps.

    Attributes:
        seen: The steps so far.
    """

    def __init__(self, last: int | None) -> None:
        self.seen: list[str] = []
        self._last = last
        self._lock = threading.Lock()

    def watch(self, runtime: Runtime) -> None:
        """From now on every step counts."""
        for name in SYSTEM_CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        stores: Any = runtime.documents
        stores._writer._connection.set_trace_callback(self._statement)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._step(name)
            return call(*arguments, **options)

        return counted

    def _statement(self, sql: str) -> None:
        verb = sql.split(maxsplit=1)[0].upper()
        if verb in SQL:
            self._step(verb)

    def _step(self, name: str) -> None:
        with self._lock:
            self.seen.append(name)
            if len(self.seen) == self._last:
                os._exit(CRASH_STATUS)


def main() -> None:
    options = _options()
    scenario = SCENARIOS[options.scenario]
    delete.MAX_OPERATIONS = 7
    publishing.FINISH_DELAY_SECONDS = 0
    if options.spooled:
        spool.PART_MEMORY_BYTES = 0

    def run(name: str, work: Callable[[Path], Any]) -> int:
        if options.emulated:
            asyncio.run(
                _emulated(
                    scenario, options.folder / name, options.emulated, options.scenario
                )
            )
        else:
            shutil.copytree(options.template, options.folder / name)
        child = os.fork()
        if child == 0:
            asyncio.run(work(options.folder / name))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def told(name: str) -> list[str]:
        note = json.loads((options.folder / name).with_suffix(".json").read_text())
        calls: list[str] = note["calls"]
        return calls

    if options.steps:
        assert run(COUNTED, lambda folder: _step(scenario, folder, None)) == 0
        for number, step in enumerate(told(COUNTED), 1):
            name = f"{number}-{step}"
            ended = run(name, lambda folder, n=number: _step(scenario, folder, n))
            assert ended in {0, CRASH_STATUS}
            print(name)
        return
    assert run(COUNTED, lambda folder: _work(scenario, folder)) == 0
    for call, method in enumerate(told(COUNTED), 1):
        for kind in options.kinds if method not in READS else ():
            name = f"{call}-{method}-{kind}"
            plan = (call, KINDS[kind])
            ended = run(name, lambda folder, plan=plan: _work(scenario, folder, plan))
            assert ended in {0, CRASH_STATUS}
            print(name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("template", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--spooled", action="store_true")
    parser.add_argument("--emulated", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    return parser.parse_args()


async def _emulated(
    scenario: Scenario, folder: Path, emulators: Path, name: str
) -> None:
    """Gives the folder stores of its own on the emulators, and what is there before."""
    folder.mkdir()
    settings = json.loads(emulators.read_text())
    own = re.sub("[ _]", "-", f"{name}-{folder.name}")
    await provision.provision(
        CosmosAddress(settings["cosmos_endpoint"], own, settings["cosmos_key"]),
        BlobAddress(connection=settings["blob_connection"], container=own),
        provision.Throughput(0, 0),
    )
    settings |= {"store": "azure", "cosmos_database": own, "blob_container": own}
    (folder / SETTINGS).write_text(json.dumps(settings))
    await prepare(folder, scenario)


async def _work(scenario: Scenario, folder: Path, *plan: tuple[int, Fault]) -> None:
    faults = Faults()
    for call, fault in plan:
        faults.plan(fault, at=call)
    runtime = open_runtime(folder, faults)
    note = await _act(scenario, runtime, folder)
    note["calls"] = [method for method, _ in faults.points]
    _tell(folder, note)


async def _step(scenario: Scenario, folder: Path, last: int | None) -> None:
    steps = Steps(last)
    runtime = open_runtime(folder, durability="power-loss")
    steps.watch(runtime)
    note = await _act(scenario, runtime, folder)
    note["calls"] = steps.seen
    _tell(folder, note)


async def _act(scenario: Scenario, runtime: Runtime, folder: Path) -> dict[str, Any]:
    """What is acknowledged, noted before the process may end."""
    expected = Expected(scenario.stored())
    with suppress(DicomwebError):
        await scenario.act(runtime, expected)
    note: dict[str, Any] = {
        "files": list(expected.files),
        "gone": list(expected.gone),
    }
    _tell(folder, note)
    await runtime.publisher.close()
    return note


def _tell(folder: Path, note: dict[str, Any]) -> None:
    folder.with_suffix(".json").write_text(json.dumps(note))


if __name__ == "__main__":
    main()
