"""CPU of the engine, the SDK and the functions together; bounds with room to spare."""

import time
from pathlib import Path

import azure.durable_functions as df
import pytest
from durable.harness import Host, hosting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def app() -> df.DFApp:
    app = df.DFApp()

    @app.function_name("Add")
    @app.activity_trigger(input_name="value")
    def add(value: int) -> int:
        return value + 1

    @app.function_name("Chain")
    @app.orchestration_trigger(context_name="context")
    def chain(context: df.DurableOrchestrationContext):
        value = 0
        for _ in range(context.get_input()):
            value = yield context.call_activity("Add", value)
        return value

    @app.function_name("FanOut")
    @app.orchestration_trigger(context_name="context")
    def fan_out(context: df.DurableOrchestrationContext):
        numbers = range(context.get_input())
        return sum(
            (yield context.task_all([context.call_activity("Add", n) for n in numbers]))
        )

    return app


async def milliseconds(host: Host, name: str, count: int) -> float:
    """CPU of this process for one orchestration."""
    began = time.process_time()
    started = await host.client.start_new(name, None, count)
    await host.until(started, lambda found: found["runtimeStatus"] == "Completed", 120)
    return (time.process_time() - began) * 1000


async def test_a_fan_out_costs_at_most_3_ms_an_activity(tmp_path: Path) -> None:
    async with hosting(app(), tmp_path, deterministic=False) as host:
        await milliseconds(host, "FanOut", 10)
        for count in (500, 2000):
            host.recording.episodes.clear()
            took = await milliseconds(host, "FanOut", count)
            episodes = len(host.recording.episodes)
            print(
                f"fan-out {count}: {took / count:.2f} ms an activity, {episodes} episodes"
            )
            assert took / count <= 3


async def test_a_chain_of_200_costs_at_most_6_times_ten_chains_of_20(
    tmp_path: Path,
) -> None:
    async with hosting(app(), tmp_path, deterministic=False) as host:
        await milliseconds(host, "Chain", 5)
        short = sum([await milliseconds(host, "Chain", 20) for _ in range(10)])
        long = await milliseconds(host, "Chain", 200)
    print(
        f"chain of 20: {short / 200:.2f} ms a step, of 200: {long / 200:.2f} ms a step"
    )
    assert long <= 6 * short
