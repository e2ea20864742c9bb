"""Chains, fan-outs, retries, timers, children, generations."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import azure.durable_functions as df
import pytest
from durable.harness import hosting


@pytest.fixture
def app() -> df.DFApp:
    app = df.DFApp()

    @app.function_name("Double")
    @app.activity_trigger(input_name="value")
    def double(value: int) -> int:
        return 2 * value

    @app.function_name("Sleep")
    @app.activity_trigger(input_name="seconds")
    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @app.function_name("Refuse")
    @app.activity_trigger(input_name="text")
    def refuse(text: str) -> None:
        raise ValueError(text)

    return app


async def test_a_chain_hands_each_result_on(app: df.DFApp, tmp_path: Path) -> None:
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


async def test_a_fan_out_gives_results_in_the_order_of_its_tasks(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("FanOut")
    @app.orchestration_trigger(context_name="context")
    def fan_out(context: df.DurableOrchestrationContext):
        waits = context.get_input()
        return (
            yield context.task_all([context.call_activity("Sleep", w) for w in waits])
        )

    async with hosting(app, tmp_path) as host:
        assert await host.output("FanOut", [0.05, 0.0, 0.02]) == [0.05, 0.0, 0.02]


async def test_no_more_activities_run_at_once_than_allowed(tmp_path: Path) -> None:
    from localhost.durable.engine import Limits

    app, running, most = df.DFApp(), 0, 0

    @app.function_name("Busy")
    @app.activity_trigger(input_name="value")
    async def busy(value: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    @app.function_name("Many")
    @app.orchestration_trigger(context_name="context")
    def many(context: df.DurableOrchestrationContext):
        yield context.task_all([context.call_activity("Busy", n) for n in range(20)])

    async with hosting(app, tmp_path, limits=Limits(activities=3)) as host:
        await host.output("Many")
    assert most == 3


async def test_a_failed_activity_can_be_caught_with_its_text(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Careful")
    @app.orchestration_trigger(context_name="context")
    def careful(context: df.DurableOrchestrationContext):
        try:
            yield context.call_activity("Refuse", "too wet")
        except Exception as error:
            return str(error).splitlines()[0]

    async with hosting(app, tmp_path) as host:
        text = await host.output("Careful")
    assert text == "Activity function 'Refuse' failed:  ValueError: too wet "


async def test_an_uncaught_failure_fails_the_instance_with_reason_and_stack(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Careless")
    @app.orchestration_trigger(context_name="context")
    def careless(context: df.DurableOrchestrationContext):
        yield context.call_activity("Refuse", "too wet")

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Careless")
    assert ended["runtimeStatus"] == "Failed"
    assert ended["output"].startswith(
        "Orchestrator function 'Careless' failed: Activity function 'Refuse' failed:  "
        "ValueError: too wet"
    )
    assert "Traceback" in ended["output"]


async def test_an_error_of_the_orchestrator_itself_fails_the_instance(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Broken")
    @app.orchestration_trigger(context_name="context")
    def broken(context: df.DurableOrchestrationContext):
        yield context.call_activity("Double", 1)
        raise KeyError("gone")

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Broken")
    assert ended["runtimeStatus"] == "Failed"
    assert ended["output"] == "Orchestrator function 'Broken' failed: 'gone'"


async def test_an_orchestrator_without_yields_may_return_or_raise(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Plain")
    @app.orchestration_trigger(context_name="context")
    def plain(context: df.DurableOrchestrationContext):
        return 10 // context.get_input()

    async with hosting(app, tmp_path) as host:
        assert await host.output("Plain", 5) == 2
        ended = await host.run("Plain", 0)
    assert ended["runtimeStatus"] == "Failed"
    assert "ZeroDivisionError" in ended["output"]


async def test_an_unknown_activity_is_a_failure_of_that_task(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Lost")
    @app.orchestration_trigger(context_name="context")
    def lost(context: df.DurableOrchestrationContext):
        yield context.call_activity("Nowhere", 1)

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Lost")
    assert "the app has no activityTrigger 'Nowhere'" in ended["output"]


async def test_a_retry_waits_between_attempts_and_stops_at_success(
    tmp_path: Path,
) -> None:
    app, times = df.DFApp(), []

    @app.function_name("Flaky")
    @app.activity_trigger(input_name="value")
    async def flaky(value: int) -> int:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            raise RuntimeError("not yet")
        return value

    @app.function_name("Persistent")
    @app.orchestration_trigger(context_name="context")
    def persistent(context: df.DurableOrchestrationContext):
        options = df.RetryOptions(60, 5)
        return (yield context.call_activity_with_retry("Flaky", options, 7))

    async with hosting(app, tmp_path) as host:
        assert await host.output("Persistent") == 7
    assert len(times) == 3
    assert times[1] - times[0] >= 0.06
    assert times[2] - times[1] >= 0.06


async def test_a_retry_gives_up_after_its_last_attempt(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Stubborn")
    @app.orchestration_trigger(context_name="context")
    def stubborn(context: df.DurableOrchestrationContext):
        options = df.RetryOptions(5, 3)
        try:
            yield context.call_activity_with_retry("Refuse", options, "no")
        except Exception:
            return (yield context.call_activity("Double", 4))

    async with hosting(app, tmp_path) as host:
        assert await host.output("Stubborn") == 8
        assert host.recording.calls["Refuse"] == 3


async def test_a_timer_fires_not_before_its_time_and_moves_the_clock(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Timer")
    @app.orchestration_trigger(context_name="context")
    def timer(context: df.DurableOrchestrationContext):
        began = context.current_utc_datetime
        yield context.create_timer(began + timedelta(milliseconds=120))
        return [began.isoformat(), context.current_utc_datetime.isoformat()]

    async with hosting(app, tmp_path) as host:
        began, fired = map(datetime.fromisoformat, await host.output("Timer"))
    assert timedelta(milliseconds=120) <= fired - began < timedelta(seconds=2)


async def test_a_timer_longer_than_six_days_is_made_of_shorter_ones(
    app: df.DFApp, tmp_path: Path
) -> None:
    from localhost.durable.engine import wall_clock

    skipped = 0

    def clock() -> int:
        return wall_clock() + skipped

    @app.function_name("Month")
    @app.orchestration_trigger(context_name="context")
    def month(context: df.DurableOrchestrationContext):
        began = context.current_utc_datetime
        yield context.create_timer(began + timedelta(days=8))
        return (context.current_utc_datetime - began).days

    async with hosting(app, tmp_path, clock=clock) as host:
        started = await host.client.start_new("Month")
        for _ in range(4):
            await asyncio.sleep(0.05)
            skipped += 3 * 24 * 3600 * 1_000_000
            host.engine._timer_set.set()
        ended = await host.end(started)
    assert ended["output"] in {8, 9}


async def test_children_get_their_input_and_give_their_result(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Child")
    @app.orchestration_trigger(context_name="context")
    def child(context: df.DurableOrchestrationContext):
        doubled = yield context.call_activity("Double", context.get_input())
        return {"value": doubled, "parent": context.parent_instance_id}

    @app.function_name("Parent")
    @app.orchestration_trigger(context_name="context")
    def parent(context: df.DurableOrchestrationContext):
        named = context.call_sub_orchestrator("Child", 1, "child-by-name")
        nameless = context.call_sub_orchestrator("Child", 2)
        return (yield context.task_all([named, nameless]))

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Parent", None, "the-parent")
        assert ended["output"] == [
            {"value": 2, "parent": "the-parent"},
            {"value": 4, "parent": "the-parent"},
        ]
        assert (await host.status("child-by-name"))["output"] == ended["output"][0]


async def test_a_failed_or_impossible_child_is_a_failed_task(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Child")
    @app.orchestration_trigger(context_name="context")
    def child(context: df.DurableOrchestrationContext):
        raise RuntimeError("child says no")
        yield

    @app.function_name("Parent")
    @app.orchestration_trigger(context_name="context")
    def parent(context: df.DurableOrchestrationContext):
        texts = []
        for name, instance_id in [
            ("Child", None),
            ("Nobody", None),
            ("Child", "the-parent"),
        ]:
            try:
                yield context.call_sub_orchestrator(name, 1, instance_id)
            except Exception as error:
                texts.append(str(error).strip())
        return texts

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Parent", None, "the-parent")
    assert ended["output"] == [
        "Orchestrator function 'Child' failed: child says no",
        "The app has no orchestrator 'Nobody'.",
        "An Orchestration instance with the status Running already exists.",
    ]


async def test_continue_as_new_starts_over_with_an_empty_history(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Generations")
    @app.orchestration_trigger(context_name="context")
    def generations(context: df.DurableOrchestrationContext):
        left, total = context.get_input()
        context.set_custom_status({"left": left})
        total += yield context.call_activity("Double", left)
        if left:
            context.continue_as_new([left - 1, total])
            return None
        return total

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Generations", [12, 0])
        assert ended["output"] == 156
        assert ended["customStatus"] == {"left": 0}
        assert max(len(body["history"]) for _, body, _ in host.recording.episodes) < 9


async def test_answers_to_an_earlier_generation_are_dropped(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Restless")
    @app.orchestration_trigger(context_name="context")
    def restless(context: df.DurableOrchestrationContext):
        if context.get_input() == 0:
            slow = context.call_activity("Sleep", 0.06)
            quick = context.call_activity("Double", 1)
            yield context.task_any([slow, quick])
            context.continue_as_new(1)
            return None
        return (yield context.call_activity("Sleep", 0.15))

    async with hosting(app, tmp_path) as host:
        assert await host.output("Restless", 0) == 0.15


async def test_ids_made_by_an_orchestrator_are_the_same_at_every_replay(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Ids")
    @app.orchestration_trigger(context_name="context")
    def ids(context: df.DurableOrchestrationContext):
        made = [context.new_uuid()]
        yield context.call_activity("Double", 1)
        made.append(context.new_uuid())
        echoed = yield context.call_activity(
            "Refuse" if len(set(made)) < 2 else "Double", 1
        )
        return [*made, echoed]

    async with hosting(app, tmp_path) as host:
        first, second, _ = await host.output("Ids")
    assert first != second


async def test_an_orchestration_survives_a_stop_in_the_middle(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Long")
    @app.orchestration_trigger(context_name="context")
    def long(context: df.DurableOrchestrationContext):
        first = yield context.call_activity("Double", 1)
        second = yield context.call_activity("Sleep", 0.7)
        return [first, second, (yield context.call_activity("Double", 4))]

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Long")
        while host.recording.calls.get("Sleep") is None:
            await asyncio.sleep(0.005)
    assert host.recording.calls == {"Long": 2, "Double": 1, "Sleep": 1}
    async with hosting(app, tmp_path) as host:
        assert (await host.end(started))["output"] == [2, 0.7, 8]
        assert host.recording.calls["Sleep"] == 1
