"""Reindex: ranges of instances from the newest down, a few batches of them at once."""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df

from orchestrations.retries import BACK_OFF_SECONDS, STEPS, after, retry_options
from orchestrations.triggers import activity, orchestrator, settled
from services import reindex, reindex_operation
from services.operations import ORCHESTRATORS, OperationStatus, OperationType
from services.operations import record as record_operation
from services.runtime import Resolve, Runtime

ORCHESTRATOR = ORCHESTRATORS[OperationType.REINDEX]
HIGHEST = "ReindexHighest"
RANGES = "ReindexRanges"
BATCH = "ReindexBatch"
END = "ReindexEnd"

State = dict[str, Any]
"""`schema_version`, `created`, `paths`; `end` and `next` as soon as they are known."""


def reindex_orchestrator(
    context: df.DurableOrchestrationContext,
) -> Generator[Any, Any, Any]:
    """Indexes all instances; one generation after the other."""
    state: State = context.get_input()
    try:
        status = yield from _generation(context, state)
    except Exception:
        yield from _end(context, state, OperationStatus.FAILED)
        raise
    if status is None:
        context.continue_as_new(state)
        return None
    yield from _end(context, state, status)
    return {"status": status.value}


def _generation(
    context: df.DurableOrchestrationContext, state: State
) -> Generator[Any, Any, OperationStatus | None]:
    """How the operation ended; None where more is to do."""
    _show(context, state)
    if state.get("end") is None:
        highest = yield _call(context, HIGHEST, state)
        state |= {"end": highest, "next": highest}
    for _ in range(STEPS // 2):
        found = yield _call(context, RANGES, state)
        if found["canceled"]:
            return OperationStatus.CANCELED
        if not found["ranges"]:
            return OperationStatus.SUCCEEDED
        yield from _index(context, found["ranges"])
        state["next"] = found["ranges"][-1][0] - 1
        _show(context, state)
    return None


def _index(
    context: df.DurableOrchestrationContext, ranges: list[list[int]]
) -> Generator[Any, Any, None]:
    for pause in (*BACK_OFF_SECONDS, None):
        results = yield context.task_all(
            [
                context.call_activity(BATCH, [context.instance_id, *bounds])
                for bounds in ranges
            ]
        )
        ranges = [
            bounds
            for bounds, result in zip(ranges, results, strict=True)
            if not result["ok"]
        ]
        if not ranges:
            return
        if pause is not None:
            yield after(context, pause)
    raise RuntimeError("Instances could not be indexed after several attempts.")


def _end(
    context: df.DurableOrchestrationContext, state: State, status: OperationStatus
) -> Generator[Any, Any, None]:
    _show(context, state, done=status is OperationStatus.SUCCEEDED)
    yield _call(context, END, state | {"status": status.value})


def _call(context: df.DurableOrchestrationContext, name: str, state: State) -> Any:
    payload = state | {"id": context.instance_id}
    return context.call_activity_with_retry(name, retry_options(), payload)


def _show(
    context: df.DurableOrchestrationContext, state: State, *, done: bool = False
) -> None:
    progress = reindex_operation.progress(state, done=done)
    context.set_custom_status(progress.to_json())


# --- activities ----------------------------------------------------------------------


async def _ranges(runtime: Runtime, state: State) -> dict[str, Any]:
    await record_operation(
        runtime,
        state["id"],
        OperationType.REINDEX,
        OperationStatus.RUNNING,
        state["created"],
        reindex_operation.progress(state),
    )
    found = await reindex_operation.ranges(runtime, state["id"], state["next"])
    return {"ranges": [list(each) for each in found.ranges], "canceled": found.canceled}


async def _batch(runtime: Runtime, payload: list[Any]) -> int:
    operation_id, low, high = payload
    return await reindex_operation.index(runtime, operation_id, low, high)


async def _finish(runtime: Runtime, state: State) -> None:
    status = OperationStatus(state["status"])
    await reindex_operation.end(
        runtime,
        state["id"],
        status,
        state["created"],
        reindex_operation.progress(state, done=status is OperationStatus.SUCCEEDED),
    )


def register(blueprint: df.Blueprint, resolve: Resolve) -> None:
    """Adds the orchestrator and its activities."""
    orchestrator(blueprint, ORCHESTRATOR, reindex_orchestrator)

    async def highest(runtime: Runtime, _: State) -> int:
        return await reindex.highest_watermark(runtime)

    activity(blueprint, resolve, HIGHEST, highest)
    activity(blueprint, resolve, RANGES, _ranges)
    activity(blueprint, resolve, END, _finish)
    activity(blueprint, resolve, BATCH, settled(_batch))
