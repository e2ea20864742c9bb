"""Orchestrations of every kind, for tests that start and kill a whole host."""

import asyncio
import os
from datetime import timedelta

import azure.durable_functions as df

app = df.DFApp()


@app.function_name("Slow")
@app.activity_trigger(input_name="value")
async def slow(value: int) -> int:
    await asyncio.sleep(0.25)
    return value + 1


@app.function_name("Quick")
@app.activity_trigger(input_name="value")
def quick(value: int) -> int:
    return value * value


@app.function_name("Flaky")
@app.activity_trigger(input_name="step")
def flaky(step: dict) -> str:
    """Fails until the caller's attempt, kept in a file, is the wanted one."""
    path = os.path.join(step["folder"], step["name"])
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < step["succeeds_at"]:
        raise RuntimeError("not yet")
    return step["name"]


@app.function_name("Chain")
@app.orchestration_trigger(context_name="context")
def chain(context: df.DurableOrchestrationContext):
    value = context.get_input()
    for _ in range(8):
        value = yield context.call_activity("Slow", value)
    return value


@app.function_name("FanOut")
@app.orchestration_trigger(context_name="context")
def fan_out(context: df.DurableOrchestrationContext):
    tasks = [context.call_activity("Quick", n) for n in range(context.get_input())]
    return sum((yield context.task_all(tasks)))


@app.function_name("Waiting")
@app.orchestration_trigger(context_name="context")
def waiting(context: df.DurableOrchestrationContext):
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=2))
    return str(context.current_utc_datetime)


@app.function_name("Family")
@app.orchestration_trigger(context_name="context")
def family(context: df.DurableOrchestrationContext):
    children = [
        context.call_sub_orchestrator("Chain", n, f"{context.instance_id}-{n}")
        for n in range(context.get_input())
    ]
    return (yield context.task_all(children))


@app.function_name("Generations")
@app.orchestration_trigger(context_name="context")
def generations(context: df.DurableOrchestrationContext):
    left, total = context.get_input()
    total += yield context.call_activity("Quick", left)
    entity = df.EntityId("Tally", context.instance_id)
    context.signal_entity(entity, "add", left)
    if left:
        context.continue_as_new([left - 1, total])
        return None
    return [total, (yield context.call_entity(entity, "get"))]


@app.function_name("Persistent")
@app.orchestration_trigger(context_name="context")
def persistent(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(100, 20)
    step = context.get_input()
    return (yield context.call_activity_with_retry("Flaky", options, step))


@app.function_name("Listener")
@app.orchestration_trigger(context_name="context")
def listener(context: df.DurableOrchestrationContext):
    first = context.wait_for_external_event("first")
    second = context.wait_for_external_event("second")
    return (yield context.task_all([first, second]))


@app.function_name("Tally")
@app.entity_trigger(context_name="context", entity_name="Tally")
def tally(context: df.DurableEntityContext) -> None:
    total = context.get_state(lambda: 0)
    if context.operation_name == "add":
        total += context.get_input()
        context.set_state(total)
    context.set_result(total)


@app.function_name("StartTwo")
@app.activity_trigger(input_name="ids")
@app.durable_client_input(client_name="client")
async def start_two(ids: list, client: df.DurableOrchestrationClient) -> list:
    """The client over real HTTP, from inside the app; the second start must fail."""
    started = [await client.start_new("Waiting", ids[0], None)]
    try:
        await client.start_new("Waiting", ids[0], None)
    except Exception as error:
        started.append(str(error))
    status = await client.get_status(ids[0])
    return [*started, status.runtime_status.value]


@app.function_name("ClientInside")
@app.orchestration_trigger(context_name="context")
def client_inside(context: df.DurableOrchestrationContext):
    return (yield context.call_activity("StartTwo", context.get_input()))
