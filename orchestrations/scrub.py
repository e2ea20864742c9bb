"""Scrub: a step after the other, until everything was looked at and repaired."""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df

from orchestrations.retries import STEPS, retry_options
from orchestrations.triggers import activity, orchestrator
from services import scrub_operation
from services.operations import ORCHESTRATORS, OperationStatus, OperationType
from services.runtime import Resolve, Runtime
from services.scrub_operation import DONE, State

ORCHESTRATOR = ORCHESTRATORS[OperationType.SCRUB]
STEP = "ScrubStep"
END = "ScrubEnd"


def scrub_orchestrator(
    context: df.DurableOrchestrationContext,
) -> Generator[Any, Any, Any]:
    """Scrubs the whole archive; one generation after the other."""
    state: State = context.get_input()
    _show(context, state)
    try:
        for _ in range(STEPS):
            if state["phase"] == DONE:
                break
            state = yield _call(context, STEP, state)
            _show(context, state)
    except Exception:
        failed = OperationStatus.FAILED.value
        yield _call(context, END, state | {"status": failed})
        raise
    if state["phase"] != DONE:
        context.continue_as_new(state)
        return None
    status = scrub_operation.status(state).value
    yield _call(context, END, state | {"status": status})
    return {"status": status}


def _call(context: df.DurableOrchestrationContext, name: str, state: State) -> Any:
    payload = state | {"id": context.instance_id}
    return context.call_activity_with_retry(name, retry_options(), payload)


def _show(context: df.DurableOrchestrationContext, state: State) -> None:
    context.set_custom_status(scrub_operation.progress(state).to_json())


# --- activities ----------------------------------------------------------------------


async def _step(runtime: Runtime, payload: State) -> State:
    operation_id, state = _taken_apart(payload)
    await scrub_operation.record(runtime, operation_id, state, OperationStatus.RUNNING)
    return await scrub_operation.step(runtime, operation_id, state)


async def _finish(runtime: Runtime, payload: State) -> None:
    operation_id, state = _taken_apart(payload)
    status = OperationStatus(state.pop("status"))
    await scrub_operation.end(runtime, operation_id, state, status)


def _taken_apart(payload: State) -> tuple[str, State]:
    state = dict(payload)
    return state.pop("id"), state


def register(blueprint: df.Blueprint, resolve: Resolve) -> None:
    """Adds the orchestrator and its activities."""
    orchestrator(blueprint, ORCHESTRATOR, scrub_orchestrator)
    activity(blueprint, resolve, STEP, _step)
    activity(blueprint, resolve, END, _finish)
