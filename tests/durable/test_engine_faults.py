"""What the engine does when functions, files or orchestrators misbehave."""

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from durable.harness import hosting

from localhost.durable.store import Store
from localhost.errors import HostError


def app_with(names: list[str]) -> df.DFApp:
    """An app whose orchestrator calls these activities in turn; `Hang` hangs."""
    app = df.DFApp()

    @app.function_name("Work")
    @app.activity_trigger(input_name="name")
    async def work(name: str) -> str:
        if name == "hang":
            await asyncio.sleep(3600)
        return name

    @app.function_name("Other")
    @app.activity_trigger(input_name="name")
    async def other(name: str) -> str:
        return name

    @app.function_name("Flow")
    @app.orchestration_trigger(context_name="context")
    def flow(context: df.DurableOrchestrationContext):
        for name in names:
            yield context.call_activity("Other" if name == "other" else "Work", name)
        return names

    return app


async def interrupted(tmp_path: Path) -> str:
    """The id of an instance that was stopped in its second activity, which hangs."""
    async with hosting(app_with(["good", "hang"]), tmp_path) as host:
        started = await host.client.start_new("Flow")
        async with asyncio.timeout(10):
            while host.recording.calls.get("Work") != 2:
                await asyncio.sleep(0.005)
    return started


async def test_an_activity_that_ended_the_process_ten_times_is_not_started_again(
    tmp_path: Path,
) -> None:
    started = await interrupted(tmp_path)
    store = Store(tmp_path / "durable.db")
    (number,) = store.activity_numbers()
    starts = [store.begin_activity(number) for _ in range(10)]
    assert [activity.starts for activity in starts if activity] == list(range(1, 11))
    store.close()
    async with hosting(app_with(["good", "hang"]), tmp_path) as host:
        ended = await host.end(started)
        assert "Work" not in host.recording.calls
    assert ended["runtimeStatus"] == "Failed"
    assert "it was started 10 times and the process ended each time" in ended["output"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["good", "other"],
            "task 1 was TaskScheduled of Work, now it would be TaskScheduled of Other",
        ),
        (["good"], "it no longer asks for task 1, TaskScheduled of Work"),
        ([], "an answer to task 0, which the orchestrator no longer starts"),
    ],
)
async def test_an_orchestrator_that_was_changed_in_flight_fails_with_the_reason(
    tmp_path: Path, names: list[str], text: str
) -> None:
    started = await interrupted(tmp_path)
    async with hosting(app_with(names), tmp_path, deterministic=False) as host:
        await host.client.raise_event(started, "wake", None)
        ended = await host.end(started)
    assert ended["runtimeStatus"] == "Failed"
    assert "Non-deterministic orchestrator" in ended["output"]
    assert text in ended["output"]


async def test_an_instance_whose_orchestrator_left_the_app_fails_with_the_reason(
    tmp_path: Path,
) -> None:
    started = await interrupted(tmp_path)
    app = df.DFApp()

    @app.function_name("Unrelated")
    @app.orchestration_trigger(context_name="context")
    def unrelated(context: df.DurableOrchestrationContext):
        return 1

    async with hosting(app, tmp_path) as host:
        await host.client.raise_event(started, "wake", None)
        ended = await host.end(started)
    assert ended["output"] == (
        "Orchestrator function 'Flow' failed: LookupError: "
        "the app has no orchestrationTrigger 'Flow'"
    )


async def test_call_http_is_refused_with_a_clear_text(tmp_path: Path) -> None:
    app = df.DFApp()

    @app.function_name("Http")
    @app.orchestration_trigger(context_name="context")
    def http(context: df.DurableOrchestrationContext):
        return (yield context.call_http("GET", "http://127.0.0.1/"))

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Http")
    assert ended["output"].endswith("CallHttp is not supported by this host.")


async def test_an_output_that_is_not_json_fails_the_instance(tmp_path: Path) -> None:
    app = df.DFApp()

    @app.function_name("Odd")
    @app.orchestration_trigger(context_name="context")
    def odd(context: df.DurableOrchestrationContext):
        return object()

    async with hosting(app, tmp_path) as host:
        ended = await host.run("Odd")
    assert ended["runtimeStatus"] == "Failed"
    assert "not JSON serializable" in ended["output"]


async def test_a_step_that_the_disk_refuses_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("localhost.durable.lanes._RETRY_SECONDS", 0.01)
    async with hosting(app_with(["good", "better"]), tmp_path) as host:
        append, failures = Store.append, [3]

        def failing(store: Store, *arguments: Any) -> None:
            if failures[0]:
                failures[0] -= 1
                raise sqlite3.OperationalError("database or disk is full")
            append(store, *arguments)

        monkeypatch.setattr(Store, "append", failing)
        with caplog.at_level(logging.CRITICAL):
            assert await host.output("Flow") == ["good", "better"]
        assert failures == [0]
        assert host.recording.calls["Work"] == 2


def test_one_file_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "durable.db")
    with pytest.raises(HostError, match="is another host using it"):
        Store(tmp_path / "durable.db")
    store.close()
    Store(tmp_path / "durable.db").close()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "durable.db").close()
    with sqlite3.connect(tmp_path / "durable.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(HostError, match="newer version"):
        Store(tmp_path / "durable.db")


def test_a_flush_reaches_the_log_of_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "durable.db")
    with store.transaction():
        store.put_entity("@a@b", "1", 0)
    store.flush()
    assert (tmp_path / "durable.db-wal").stat().st_size > 0
    store.close()
