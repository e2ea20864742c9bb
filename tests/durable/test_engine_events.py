"""External events and races: who is served, who wins, and who waits for whom."""

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path

import azure.durable_functions as df
import pytest
from durable.harness import hosting

from localhost.durable.engine import wall_clock


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


async def test_events_are_kept_until_somebody_waits_for_them(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Listener")
    @app.orchestration_trigger(context_name="context")
    def listener(context: df.DurableOrchestrationContext):
        late = yield context.wait_for_external_event("late")
        early = yield context.wait_for_external_event("early")
        return [json.loads(early), json.loads(late)]

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Listener")
        await host.client.raise_event(started, "early", {"n": 1})
        await host.client.raise_event(started, "unwanted", {"n": 0})
        await host.until(started, lambda found: found["runtimeStatus"] == "Running")
        await asyncio.sleep(0.05)
        assert (await host.status(started))["runtimeStatus"] == "Running"
        await host.client.raise_event(started, "late", {"n": 2})
        ended = await host.end(started)
    assert ended["output"] == [{"n": 1}, {"n": 2}]


async def test_every_generation_hears_the_event_that_comes_in_its_time(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Eternal")
    @app.orchestration_trigger(context_name="context")
    def eternal(context: df.DurableOrchestrationContext):
        heard = context.get_input()
        heard.append((yield context.wait_for_external_event("word")))
        if len(heard) < 3:
            context.continue_as_new(heard)
            return None
        return heard

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Eternal", None, [])
        for word in ("a", "b", "c"):
            await host.until(
                started, lambda s, n=word: ord(n) - 97 == len(json.loads(s["input"]))
            )
            await host.client.raise_event(started, "word", word)
        ended = await host.end(started)
    assert ended["output"] == ['"a"', '"b"', '"c"']


async def test_an_event_raised_while_a_generation_ends_reaches_the_next(
    app: df.DFApp, tmp_path: Path
) -> None:
    entered, leave = threading.Event(), threading.Event()

    @app.function_name("Eternal")
    @app.orchestration_trigger(context_name="context")
    def eternal(context: df.DurableOrchestrationContext):
        if context.get_input() == 0:
            entered.set()
            leave.wait(10)
            context.continue_as_new(1)
            return None
        return [context.get_input(), (yield context.wait_for_external_event("word"))]

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Eternal", None, 0)
        await asyncio.to_thread(entered.wait, 10)
        await host.client.raise_event(started, "word", "a")
        leave.set()
        assert (await host.end(started))["output"] == [1, '"a"']
        _, body, _ = host.recording.episodes[-1]
        assert [event["EventType"] for event in body["history"]] == [12, 0, 15]


async def test_the_first_of_a_race_wins_and_a_canceled_timer_is_forgotten(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Race")
    @app.orchestration_trigger(context_name="context")
    def race(context: df.DurableOrchestrationContext):
        limit = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        event = context.wait_for_external_event("go")
        winner = yield context.task_any([limit, event])
        limit.cancel()
        after = yield context.call_activity("Double", 21)
        context.set_custom_status("decided")
        yield context.wait_for_external_event("end")
        return [winner == event, after]

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Race")
        await host.until(started, lambda s: s["runtimeStatus"] == "Running")
        assert host.engine._store.next_due(0) is not None
        await host.client.raise_event(started, "go")
        await host.until(started, lambda s: s["customStatus"] == "decided")
        assert host.engine._store.next_due(0) is None
        await host.client.raise_event(started, "end")
        assert (await host.end(started))["output"] == [True, 42]


async def test_an_instance_ends_only_when_all_it_awaited_has_ended(
    app: df.DFApp, tmp_path: Path
) -> None:
    """The SDK goes on at the first failure of a fan-out, the framework waits for all."""
    done = []

    @app.function_name("Slow")
    @app.activity_trigger(input_name="value")
    async def slow(value: int) -> None:
        await asyncio.sleep(0.1)
        done.append(value)

    @app.function_name("Hasty")
    @app.orchestration_trigger(context_name="context")
    def hasty(context: df.DurableOrchestrationContext):
        tasks = [
            context.call_activity("Refuse", "no"),
            context.call_activity("Slow", 1),
        ]
        try:
            yield context.task_all(tasks)
        except Exception:
            return "caught"

    async with hosting(app, tmp_path) as host:
        assert await host.output("Hasty") == "caught"
        assert done == [1]


async def test_the_loser_of_a_race_can_be_awaited_later(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Race")
    @app.orchestration_trigger(context_name="context")
    def race(context: df.DurableOrchestrationContext):
        slow, quick = (
            context.call_activity("Sleep", 0.1),
            context.call_activity("Sleep", 0),
        )
        winner = yield context.task_any([slow, quick])
        return [winner.result, (yield slow)]

    async with hosting(app, tmp_path) as host:
        assert await host.output("Race") == [0, 0.1]


async def test_events_that_waited_together_are_served_in_their_order(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Twice")
    @app.orchestration_trigger(context_name="context")
    def twice(context: df.DurableOrchestrationContext):
        first = yield context.wait_for_external_event("word")
        return [first, (yield context.wait_for_external_event("word"))]

    async with hosting(app, tmp_path) as host:
        started = await host.client.start_new("Twice")
        await host.until(started, lambda s: s["runtimeStatus"] == "Running")
        await host.client.suspend(started, "collect")
        await host.client.raise_event(started, "word", "a")
        await host.client.raise_event(started, "word", "b")
        await host.client.resume(started, "go")
        assert (await host.end(started))["output"] == ['"a"', '"b"']


async def test_a_result_beats_a_timer_if_both_are_late(
    app: df.DFApp, tmp_path: Path
) -> None:
    """After a standstill no time limit strikes that the work has kept."""
    skipped = 0

    def clock() -> int:
        return wall_clock() + skipped

    @app.function_name("Race")
    @app.orchestration_trigger(context_name="context")
    def race(context: df.DurableOrchestrationContext):
        due = context.current_utc_datetime + timedelta(hours=1)
        limit = context.create_timer(due)
        event = context.wait_for_external_event("go")
        return (yield context.task_any([limit, event])) == event

    async with hosting(app, tmp_path, clock=clock) as host:
        started = await host.client.start_new("Race")
        await host.until(started, lambda s: s["runtimeStatus"] == "Running")
        await host.client.suspend(started, "standstill")
        skipped = 2 * 3600 * 1_000_000
        await host.client.raise_event(started, "go")
        await host.client.resume(started, "go on")
        assert (await host.end(started))["output"] is True
