"""Bulk update: a step of every lane at once, until no lane is left."""

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import azure.durable_functions as df

from orchestrations.retries import STEPS, after, retry_options
from orchestrations.triggers import (
    activity,
    activity_with_client,
    orchestrator,
    settled,
)
from services import audit_log, update_operation
from services.audit_log import UPDATE_OPERATION, ActionType
from services.operations import (
    ORCHESTRATORS,
    OperationStatus,
    OperationType,
    has_ended,
    record,
)
from services.runtime import Resolve, Runtime
from services.update_operation import Lane, State

ORCHESTRATOR = ORCHESTRATORS[OperationType.UPDATE]
STEP = "UpdateStep"
RECORD = "UpdateRecord"
END = "UpdateEnd"


def update_orchestrator(
    context: df.DurableOrchestrationContext,
) -> Generator[Any, Any, Any]:
    """Updates all studies; one generation after the other."""
    state: State = context.get_input()
    _show(context, state)
    # A journal that does not answer is no reason to stop half way.
    yield context.call_activity(RECORD, state | {"id": context.instance_id})
    for _ in range(STEPS):
        if not state["lanes"]:
            return (yield from _end(context, state))
        results = yield context.task_all(
            [
                context.call_activity(
                    STEP, [context.instance_id, state["partition"], lane]
                )
                for lane in state["lanes"]
            ]
        )
        state = update_operation.advance(
            state, [{"ok": each["ok"], "lane": each.get("value")} for each in results]
        )
        _show(context, state)
        pause = update_operation.pause_seconds(state)
        if pause:
            yield after(context, pause)
    context.continue_as_new(state)
    return None


def _end(
    context: df.DurableOrchestrationContext, state: State
) -> Generator[Any, Any, dict[str, str]]:
    payload = state | {"id": context.instance_id}
    yield context.call_activity_with_retry(END, retry_options(), payload)
    status = update_operation.status(state)
    if status is OperationStatus.FAILED:
        raise RuntimeError("Some studies were not updated.")
    return {"status": status.value}


def _show(context: df.DurableOrchestrationContext, state: State) -> None:
    context.set_custom_status(update_operation.progress(state).to_json())


# --- activities ----------------------------------------------------------------------


async def _step(runtime: Runtime, payload: list[Any], client: Any) -> dict[str, Any]:
    operation_id, partition_name, lane = payload
    partition = await runtime.partitions.resolve(
        partition_name if runtime.partitions.enabled else None, create=False
    )

    async def is_ended(id: str) -> bool:
        return has_ended(await client.get_status(id))

    done = await update_operation.step(
        runtime, operation_id, partition, Lane.from_json(lane), is_ended
    )
    return asdict(done)


def _audit(
    runtime: Runtime, action_type: ActionType, state: State, **details: int
) -> None:
    audit_log.write(
        runtime.settings, action_type, UPDATE_OPERATION, state["id"], details
    )


async def _record(runtime: Runtime, state: State) -> None:
    if not state["processed"]:
        _audit(runtime, ActionType.EXECUTING, state)
    await record(
        runtime,
        state["id"],
        OperationType.UPDATE,
        OperationStatus.RUNNING,
        state["created"],
        update_operation.progress(state),
    )


async def _finish(runtime: Runtime, state: State) -> None:
    await update_operation.end(runtime, state["id"], state)
    is_good = update_operation.status(state) is OperationStatus.SUCCEEDED
    _audit(runtime, ActionType.EXECUTED, state, StatusCode=200 if is_good else 400)


def register(blueprint: df.Blueprint, resolve: Resolve) -> None:
    """Adds the orchestrator and its activities."""
    orchestrator(blueprint, ORCHESTRATOR, update_orchestrator)
    activity_with_client(blueprint, resolve, STEP, settled(_step))
    activity(blueprint, resolve, RECORD, settled(_record))
    activity(blueprint, resolve, END, _finish)
