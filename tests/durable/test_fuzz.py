"""Random nested orchestrations: right results, whatever order the answers come in."""

import asyncio
import json
from pathlib import Path

import azure.durable_functions as df
import pytest
from durable import programs
from durable.harness import Host, hosting

from localhost.durable.engine import Limits

SEED = 20261122
COUNT = 320


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_random_programs_give_what_they_say(tmp_path: Path) -> None:
    app = df.DFApp()
    programs.register(app)
    made = {
        f"p{number}": programs.Maker(SEED + number).program() for number in range(COUNT)
    }
    limits = Limits(activities=16, orchestrators=4, grace_seconds=0.5)
    async with hosting(app, tmp_path, limits=limits) as host:

        async def send(instance_id: str, name: str, data: str) -> None:
            host.engine.management.raise_event(
                instance_id, name, json.dumps(json.dumps(data))
            )

        programs.SENDER["send"] = send
        gate = asyncio.Semaphore(24)

        async def one(name: str) -> str | None:
            async with gate:
                return await _wrong(host, name, made[name])

        problems = [p for p in await asyncio.gather(*map(one, made)) if p]
        episodes, calls = (
            len(host.recording.episodes),
            sum(host.recording.calls.values()),
        )
    print(f"{COUNT} programs, {episodes} episodes, {calls - episodes} other calls")
    assert not problems, problems[:5]
    assert episodes > 2 * COUNT


async def _wrong(host: Host, name: str, steps: list[programs.Step]) -> str | None:
    given = {"before": [], "steps": steps}
    await host.client.start_new("Program", name, given)
    try:
        ended = await host.end(name, seconds=60)
    except TimeoutError:
        return f"{name} hangs: {steps} {await host.status(name)}"
    problem = (
        programs.judge(steps, ended["output"])
        if ended["runtimeStatus"] == "Completed"
        else ended["output"]
    )
    return f"{name}: {problem}" if problem else None
