"""Runs a scenario in child processes that end in the midst of it.

    python tests/crashing.py SCENARIO TEMPLATE FOLDER

For each call that writes to a store and each kind of crash a child is forked from this
process, which has imported everything and opened nothing. The child works on a copy of
the template, `FOLDER/{call}-{before|after}`, writes what was acknowledged to `.json`
beside it and ends by `os._exit`. Prints the names of the copies.
"""

import asyncio
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from faults import CRASH_STATUS, Fault, Faults
from scenarios import SCENARIOS, Expected, Scenario, open_runtime

from dicomweb.errors import DicomwebError
from services import delete, publishing

KINDS = {"before": Fault.CRASH_BEFORE, "after": Fault.CRASH_AFTER}
READS = {"read", "query", "open", "read_range", "list", "properties"}
COUNTED = "counted"


def main() -> None:
    scenario = SCENARIOS[sys.argv[1]]
    template, folder = Path(sys.argv[2]), Path(sys.argv[3])
    delete.MAX_OPERATIONS = 7
    publishing.FINISH_DELAY_SECONDS = 0

    def run(name: str, *plan: tuple[int, Fault]) -> int:
        shutil.copytree(template, folder / name)
        child = os.fork()
        if child == 0:
            asyncio.run(_work(scenario, folder / name, *plan))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert run(COUNTED) == 0
    methods = json.loads((folder / COUNTED).with_suffix(".json").read_text())["calls"]
    for call, method in enumerate(methods, 1):
        for kind, fault in KINDS.items() if method not in READS else ():
            name = f"{call}-{method}-{kind}"
            assert run(name, (call, fault)) in {0, CRASH_STATUS}
            print(name)


async def _work(scenario: Scenario, folder: Path, *plan: tuple[int, Fault]) -> None:
    expected = Expected(scenario.stored())
    faults = Faults()
    for call, fault in plan:
        faults.plan(fault, at=call)
    runtime = open_runtime(folder, faults)
    with suppress(DicomwebError):
        await scenario.act(runtime, expected)
    note = {"files": list(expected.files), "gone": list(expected.gone)}
    folder.with_suffix(".json").write_text(json.dumps(note))
    await runtime.publisher.close()
    note["calls"] = [method for method, _ in faults.points]
    folder.with_suffix(".json").write_text(json.dumps(note))


if __name__ == "__main__":
    main()
