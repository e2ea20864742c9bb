"""Chains, fan-outs, timers, sub-orchestrations: what every orchestration is made of."""

from pathlib import Path

import azure.durable_functions as df

from durable.harness import hosting


def app_with_activities() -> df.DFApp:
    app = df.DFApp()

    @app.function_name("Double")
    @app.activity_trigger(input_name="value")
    def double(value: int) -> int:
        return 2 * value

    return app


async def test_a_chain_hands_each_result_on(tmp_path: Path) -> None:
    app = app_with_activities()

    @app.function_name("Chain")
    @app.orchestration_trigger(context_name="context")
    def chain(context: df.DurableOrchestrationContext):
        value = context.get_input()
        for _ in range(5):
            value = yield context.call_activity("Double", value)
        return value

    async with hosting(app, tmp_path) as host:
        assert await host.output("Chain", 3) == 96
        assert host.recording.calls["Double"] == 5
