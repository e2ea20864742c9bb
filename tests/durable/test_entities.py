"""Entities: state by name and key, operations in order, one at a time."""

import asyncio
from pathlib import Path

import azure.durable_functions as df
import pytest
from durable.harness import Host, hosting


@pytest.fixture
def app() -> df.DFApp:
    app = df.DFApp()

    @app.function_name("Counter")
    @app.entity_trigger(context_name="context", entity_name="Counter")
    def counter(context: df.DurableEntityContext) -> None:
        total = context.get_state(lambda: 0)
        match context.operation_name:
            case "add":
                total += context.get_input()
            case "fail":
                raise ValueError("not today")
            case "end":
                context.destruct_on_exit()
                return
        context.set_state(total)
        context.set_result(total)

    @app.function_name("Use")
    @app.orchestration_trigger(context_name="context")
    def use(context: df.DurableOrchestrationContext):
        entity = df.EntityId("Counter", context.get_input())
        context.signal_entity(entity, "add", 5)
        total = yield context.call_entity(entity, "add", 2)
        try:
            yield context.call_entity(entity, "fail")
        except Exception as error:
            return [total, str(error)]

    return app


async def state(host: Host, key: str) -> object:
    found = await host.client.read_entity_state(df.EntityId("Counter", key))
    return found.entity_state if found.entity_exists else None


async def until(host: Host, key: str, wanted: object) -> None:
    async with asyncio.timeout(10):
        while await state(host, key) != wanted:
            await asyncio.sleep(0.005)


async def test_calls_are_answered_signals_are_not_and_order_is_kept(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        assert await host.output("Use", "a@b") == [7, "not today"]
        assert await state(host, "a@b") == 7


async def test_clients_signal_read_and_delete_entities(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        entity = df.EntityId("Counter", "one")
        assert await state(host, "one") is None
        for number in range(1, 11):
            await host.client.signal_entity(entity, "add", number)
        await until(host, "one", 55)
        assert await state(host, "other") is None
        await host.client.signal_entity(entity, "end")
        await until(host, "one", None)
        await host.client.signal_entity(entity, "add", 1)
        await until(host, "one", 1)
        purged = await host.client.purge_instance_history("@counter@one")
        assert purged.instances_deleted == 1
        assert await state(host, "one") is None


async def test_an_unknown_entity_function_cannot_be_signaled(
    app: df.DFApp, tmp_path: Path
) -> None:
    async with hosting(app, tmp_path) as host:
        with pytest.raises(Exception, match="unexpected status code 404"):
            await host.client.signal_entity(df.EntityId("Nothing", "x"), "add", 1)


async def test_calling_an_entity_the_app_does_not_have_fails_the_task(
    app: df.DFApp, tmp_path: Path
) -> None:
    @app.function_name("Wrong")
    @app.orchestration_trigger(context_name="context")
    def wrong(context: df.DurableOrchestrationContext):
        try:
            yield context.call_entity(df.EntityId("Nothing", "x"), "get")
        except Exception as error:
            return str(error)

    async with hosting(app, tmp_path) as host:
        assert "the app has no entityTrigger 'nothing'" in await host.output("Wrong")


async def test_operations_that_wait_survive_a_stop(
    app: df.DFApp, tmp_path: Path
) -> None:
    from localhost.durable.store import Store

    async with hosting(app, tmp_path) as host:
        await host.client.signal_entity(df.EntityId("Counter", "one"), "add", 1)
        await until(host, "one", 1)
    store = Store(tmp_path / "durable.db")
    with store.transaction():
        store.queue_operation("@counter@one", "add", '"41"')
    store.close()
    async with hosting(app, tmp_path) as host:
        await until(host, "one", 42)
