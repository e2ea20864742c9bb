"""Export: a step of every lane at once, until no lane is left."""

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import azure.durable_functions as df

from orchestrations.retries import STEPS, after, retry_options
from orchestrations.triggers import activity, orchestrator, settled
from services import export_operation
from services.export_operation import Lane, State
from services.operations import ORCHESTRATORS, OperationStatus, OperationType
from services.runtime import Resolve, Runtime

ORCHESTRATOR = ORCHESTRATORS[OperationType.EXPORT]
CHECKPOINT = "ExportCheckpoint"
STEP = "ExportStep"
END = "ExportEnd"


def export_orchestrator(
    context: df.DurableOrchestrationContext,
) -> Generator[Any, Any, Any]:
    """Exports all identifiers; one generation after the other."""
    state: State = context.get_input()
    try:
        is_done = yield from _generation(context, state)
        if is_done:
            yield _end(context, state)
    except Exception:
        state["failure"] = state["failure"] or "The export could not be finished."
        _show(context, state)
        yield _end(context, state)
        raise
    if not is_done:
        context.continue_as_new(state)
        return None
    status = export_operation.status(state)
    if status is OperationStatus.FAILED:
        raise RuntimeError("The export failed.")
    return {"status": status.value}


def _generation(
    context: df.DurableOrchestrationContext, state: State
) -> Generator[Any, Any, bool]:
    """Whether nothing is left to do; `state` is brought up to date."""
    _show(context, state)
    # A destination that does not answer is for the steps to find out.
    payload = state | {"id": context.instance_id}
    written = yield context.call_activity(CHECKPOINT, payload)
    if written["ok"]:
        state["logged"] = written["value"]
    for _ in range(STEPS):
        if not state["lanes"]:
            return True
        results = yield context.task_all(
            [
                context.call_activity(
                    STEP, [context.instance_id, state["partition"], lane]
                )
                for lane in state["lanes"]
            ]
        )
        state |= export_operation.advance(
            state, [{"ok": each["ok"], "lane": each.get("value")} for each in results]
        )
        _show(context, state)
        pause = export_operation.pause_seconds(state)
        if pause:
            yield after(context, pause)
    return False


def _end(context: df.DurableOrchestrationContext, state: State) -> Any:
    payload = state | {"id": context.instance_id}
    return context.call_activity_with_retry(END, retry_options(), payload)


def _show(context: df.DurableOrchestrationContext, state: State) -> None:
    context.set_custom_status(export_operation.progress(state).to_json())


# --- activities ----------------------------------------------------------------------


async def _checkpoint(runtime: Runtime, state: State) -> int:
    return await export_operation.checkpoint(runtime, state["id"], state)


async def _step(runtime: Runtime, payload: list[Any]) -> dict[str, Any]:
    operation_id, partition_name, lane = payload
    partition = await runtime.partitions.resolve(
        partition_name if runtime.partitions.enabled else None, create=False
    )
    done = await export_operation.step(runtime, operation_id, partition, Lane(**lane))
    return asdict(done)


async def _finish(runtime: Runtime, state: State) -> None:
    await export_operation.end(runtime, state["id"], state)


def register(blueprint: df.Blueprint, resolve: Resolve) -> None:
    """Adds the orchestrator and its activities."""
    orchestrator(blueprint, ORCHESTRATOR, export_orchestrator)
    activity(blueprint, resolve, CHECKPOINT, settled(_checkpoint))
    activity(blueprint, resolve, STEP, settled(_step))
    activity(blueprint, resolve, END, _finish)
