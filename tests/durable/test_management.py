"""What a client can do: start, look, raise, terminate, suspend, rewind, purge."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from durable.harness import Host, hosting

State = df.OrchestrationRuntimeStatus
BROKEN = {"now": False}


@pytest.fixture
def app() -> df.DFApp:
    app = df.DFApp()

    @app.function_name("Echo")
    @app.activity_trigger(input_name="value")
    def echo(value: Any) -> Any:
        if BROKEN["now"]:
            raise RuntimeError("broken")
        return value

    @app.function_name("Say")
    @app.orchestration_trigger(context_name="context")
    def say(context: df.DurableOrchestrationContext):
        return (yield context.call_activity("Echo", context.get_input()))

    @app.function_name("Wait")
    @app.orchestration_trigger(context_name="context")
    def wait(context: df.DurableOrchestrationContext):
        context.set_custom_status("waiting")
        said = yield context.wait_for_external_event("go")
        echoed = yield context.call_activity("Echo", json.loads(said))
        return echoed

    @app.function_name("Guard")
    @app.orchestration_trigger(context_name="context")
    def guard(context: df.DurableOrchestrationContext):
        try:
            yield context.call_sub_orchestrator("Wait", None, "guarded")
        except Exception as error:
            return str(error).strip()

    return app


async def waiting(
    host: Host, name: str = "Wait", instance_id: str | None = None
) -> str:
    """An instance of `Wait` (or another) that is waiting."""
    started = await host.client.start_new(name, instance_id)
    await host.until(started, lambda found: found["runtimeStatus"] == "Running")
    return started


async def test_a_running_id_cannot_be_started_again_a_finished_one_can(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        await waiting(host, instance_id="single")
        with pytest.raises(Exception, match="status Running already exists"):
            await host.client.start_new("Say", "single", 1)
        await host.client.raise_event("single", "go", 5)
        assert (await host.end("single"))["output"] == 5
        assert (await host.run("Say", 6, "single"))["output"] == 6


async def test_of_many_simultaneous_starts_of_one_id_exactly_one_succeeds(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        starts = [host.client.start_new("Wait", "single") for _ in range(20)]
        results = await asyncio.gather(*starts, return_exceptions=True)
    assert sum(result == "single" for result in results) == 1
    assert sum("already exists" in str(result) for result in results) == 19


async def test_an_unknown_orchestrator_cannot_be_started(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        with pytest.raises(Exception, match="'Nobody' doesn't exist"):
            await host.client.start_new("Nobody")


async def test_the_status_shows_what_the_client_library_expects(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        started = await waiting(host)
        status = await host.client.get_status(started)
        assert (status.name, status.instance_id) == ("Wait", started)
        assert status.runtime_status is State.Running
        assert status.custom_status == "waiting"
        assert status.output is None
        assert status.created_time <= status.last_updated_time <= datetime.now(UTC)
        await host.client.raise_event(started, "go", {"a": [1]})
        await host.end(started)
        status = await host.client.get_status(
            started, show_history=True, show_history_output=True
        )
        assert status.runtime_status is State.Completed
        assert status.output == {"a": [1]}
        assert [event["EventType"] for event in status.historyEvents] == [
            "ExecutionStarted",
            "EventRaised",
            "TaskCompleted",
            "ExecutionCompleted",
        ]
        task = status.historyEvents[2]
        assert task["FunctionName"] == "Echo"
        assert json.loads(task["Result"]) == {"a": [1]}
        said = await host.run("Say", {"x": 1})
        assert json.loads(said["input"]) == {"x": 1}


async def test_an_unknown_instance_is_falsy_and_cannot_be_changed(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        assert not await host.client.get_status("nobody")
        for change in (
            host.client.terminate,
            host.client.suspend,
            host.client.resume,
            host.client.rewind,
        ):
            with pytest.raises(
                Exception, match=r"No instance with ID '?nobody'? found"
            ):
                await change("nobody", "because")
        with pytest.raises(Exception, match="No instance with ID nobody found"):
            await host.client.raise_event("nobody", "go")
        with pytest.raises(Exception, match="No instance with ID 'nobody' found"):
            await host.client.restart("nobody")
        assert (
            await host.client.purge_instance_history("nobody")
        ).instances_deleted == 0


async def test_terminate_ends_an_instance_for_good(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        started = await waiting(host)
        await host.client.terminate(started, "enough")
        status = await host.status(started)
        assert (status["runtimeStatus"], status["output"]) == ("Terminated", "enough")
        with pytest.raises(Exception, match="is gone"):
            await host.client.raise_event(started, "go")
        await host.client.terminate(started, "again")  # 410 is silent in the library
        assert (await host.status(started))["output"] == "enough"


async def test_a_terminated_child_is_a_failed_task_of_its_parent(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        guard = await host.client.start_new("Guard")
        await host.until(
            "guarded", lambda found: found.get("runtimeStatus") == "Running"
        )
        await host.client.terminate("guarded", "enough")
        assert (await host.end(guard))["output"] == "enough"


async def test_a_terminated_instance_ignores_the_answer_of_a_running_episode(
    app: df.DFApp, tmp_path: Path
) -> None:
    entered, leave = threading.Event(), threading.Event()

    @app.function_name("Stuck")
    @app.orchestration_trigger(context_name="context")
    def stuck(context: df.DurableOrchestrationContext):
        entered.set()
        leave.wait(10)
        return "finished"

    async with hosting(app, tmp_path, deterministic=False) as host:
        started = await host.client.start_new("Stuck")
        await asyncio.to_thread(entered.wait, 10)
        await host.client.terminate(started, "enough")
        assert (await host.end(started))["output"] == "enough"
        leave.set()
        await asyncio.sleep(0.05)
        assert (await host.status(started))["output"] == "enough"


async def test_the_answer_of_a_terminated_execution_is_not_that_of_its_successor(
    app: df.DFApp, tmp_path: Path
) -> None:
    entered, leave = threading.Event(), threading.Event()

    @app.function_name("Stuck")
    @app.orchestration_trigger(context_name="context")
    def stuck(context: df.DurableOrchestrationContext):
        entered.set()
        leave.wait(10)
        return context.get_input()

    async with hosting(app, tmp_path) as host:
        await host.client.start_new("Stuck", "single", 1)
        await asyncio.to_thread(entered.wait, 10)
        await host.client.terminate("single", "enough")
        await host.client.start_new("Stuck", "single", 2)
        leave.set()
        assert (await host.end("single"))["output"] == 2


async def test_a_suspended_instance_does_nothing_until_it_is_resumed(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        started = await waiting(host)
        await host.client.suspend(started, "pause")
        await host.client.suspend(started, "twice")
        await host.client.raise_event(started, "go", 1)
        await host.until(started, lambda found: found["runtimeStatus"] == "Suspended")
        await asyncio.sleep(0.05)
        assert (await host.client.get_status(started)).runtime_status is State.Suspended
        assert "Echo" not in host.recording.calls
    async with hosting(app, tmp_path) as host:
        await host.until(started, lambda found: found["runtimeStatus"] == "Suspended")
        await asyncio.sleep(0.05)
        assert (await host.status(started))["runtimeStatus"] == "Suspended"
        await host.client.resume(started, "on")
        assert (await host.end(started))["output"] == 1


async def test_restart_repeats_the_input_under_a_new_or_the_same_id(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        first = await host.run("Say", "word", "first")
        links: Any = await host.client.restart("first")
        assert links["id"] != "first"
        assert (await host.end(links["id"]))["output"] == first["output"] == "word"
        await host.client.restart("first", restart_with_new_instance_id=False)
        again = await host.end("first")
        assert again["output"] == "word"
        assert again["createdTime"] > first["createdTime"]
        await waiting(host, instance_id="busy")
        with pytest.raises(Exception, match="unexpected status code 500"):
            await host.client.restart("busy", restart_with_new_instance_id=False)


async def test_rewind_runs_only_what_failed_again(
    app: df.DFApp, tmp_path: Path
) -> None:
    runs: list[str] = []
    broken = True

    @app.function_name("Step")
    @app.activity_trigger(input_name="name")
    def step(name: str) -> str:
        runs.append(name)
        if broken and name != "good":
            raise RuntimeError(f"{name} is broken")
        return name

    @app.function_name("Child")
    @app.orchestration_trigger(context_name="context")
    def child(context: df.DurableOrchestrationContext):
        return (yield context.call_activity("Step", "inner"))

    @app.function_name("Parent")
    @app.orchestration_trigger(context_name="context")
    def parent(context: df.DurableOrchestrationContext):
        first = yield context.call_activity("Step", "good")
        options = df.RetryOptions(1, 2)
        rest = yield context.task_all(
            [
                context.call_activity("Step", "plain"),
                context.call_sub_orchestrator("Child", None, "child"),
                context.call_sub_orchestrator("Child"),
            ]
        )
        last = yield context.call_activity_with_retry("Step", options, "again")
        return [first, *rest, last]

    async with hosting(app, tmp_path, deterministic=False) as host:
        ended = await host.run("Parent", None, "parent")
        assert ended["runtimeStatus"] == "Failed"
        assert sorted(runs) == ["good", "inner", "inner", "plain"]
        broken = False
        runs.clear()
        await host.client.rewind("parent", "fixed")
        ended = await host.end("parent")
        assert ended["output"] == ["good", "plain", "inner", "inner", "again"]
        assert sorted(runs) == ["again", "inner", "inner", "plain"]
        with pytest.raises(Exception, match="only supported on failed"):
            await host.client.rewind("parent", "once more")


async def test_rewind_of_a_retry_repeats_its_last_attempt(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Retry")
    @app.orchestration_trigger(context_name="context")
    def retry(context: df.DurableOrchestrationContext):
        options = df.RetryOptions(1, 3)
        first = yield context.call_activity_with_retry("Echo", options, 1)
        return [first, (yield context.call_activity("Echo", 2))]

    BROKEN["now"] = True
    try:
        async with hosting(app, tmp_path, deterministic=False) as host:
            ended = await host.run("Retry", None, "retry")
            assert ended["runtimeStatus"] == "Failed"
            assert host.recording.calls["Echo"] == 3
            BROKEN["now"] = False
            await host.client.rewind("retry", "fixed")
            assert (await host.end("retry"))["output"] == [1, 2]
            assert host.recording.calls["Echo"] == 5
    finally:
        BROKEN["now"] = False


async def test_instances_are_found_by_status_time_and_prefix(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        for number in range(3):
            await host.run("Say", number, f"said-{number}")
        middle = datetime.now(UTC)
        await waiting(host, instance_id="waiting-1")

        async def ids(**wanted: Any) -> list[str]:
            found = await host.client.get_status_by(**wanted)
            return [status.instance_id for status in found]

        said = ["said-0", "said-1", "said-2"]
        assert await ids(runtime_status=[State.Running, State.Pending]) == ["waiting-1"]
        assert await ids(runtime_status=[State.Completed, State.Canceled]) == said
        assert await ids(runtime_status=[State.ContinuedAsNew]) == []
        assert await ids(created_time_to=middle) == said
        assert await ids(created_time_from=middle) == ["waiting-1"]
        assert await ids(instance_id_prefix="said") == said
        assert len(await host.client.get_status_all()) == 4


async def test_a_continuation_token_leads_through_all_instances_once(
    app: df.DFApp, tmp_path: Path
) -> None:
    from localhost.durable.web_api import Request

    async with hosting(app, tmp_path) as host:
        started = {await host.client.start_new("Wait") for _ in range(7)}
        seen, headers = [], {}
        while True:
            request = Request("GET", ["instances"], {"top": "3"}, headers, b"")
            answer = await host.api.answer(request)
            seen += [found["instanceId"] for found in json.loads(answer.text)]
            token = answer.headers.get("x-ms-continuation-token")
            if not token:
                break
            headers = {"x-ms-continuation-token": token}
        assert len(seen) == 7
        assert set(seen) == started
        wrong = Request("GET", ["instances"], {}, {"x-ms-continuation-token": "?"}, b"")
        assert (await host.api.answer(wrong)).status == 400


async def test_purge_deletes_what_has_ended_and_only_that(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        for number in range(4):
            await host.run("Say", number, f"said-{number}")
        busy = await waiting(host)
        deleted = await host.client.purge_instance_history("said-0")
        assert deleted.instances_deleted == 1
        assert not await host.client.get_status("said-0")
        assert (await host.client.purge_instance_history(busy)).instances_deleted == 0
        long_ago = datetime.now(UTC) - timedelta(days=1)
        assert (
            await host.client.purge_instance_history_by(
                long_ago, datetime.now(UTC), [State.Failed, State.Running]
            )
        ).instances_deleted == 0
        deleted = await host.client.purge_instance_history_by(
            long_ago, datetime.now(UTC)
        )
        assert deleted.instances_deleted == 3
        assert [s.instance_id for s in await host.client.get_status_all()] == [busy]
        tables = ("history", "inbox", "activity")
        left = {
            table: host.engine._store._db.execute(
                f"SELECT count(*) FROM {table} WHERE instance<>?", (busy,)
            ).fetchone()[0]
            for table in tables
        }
        assert left == dict.fromkeys(tables, 0)
