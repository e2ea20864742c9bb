"""The steps of the operation that brings in new query tags; each may be repeated."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dicomweb.query_tags import QueryTag
from services import operations, query_tags, reindex
from services.operations import OperationStatus, OperationType, Progress
from services.runtime import Runtime

BATCH = 250
BATCHES = 4


async def prepare(
    runtime: Runtime, operation_id: str, tags: Iterable[QueryTag], created: str
) -> dict[str, Any]:
    """The first checkpoint; the operation is recorded."""
    state = {
        "schema_version": operations.SCHEMA_VERSION,
        "created": created,
        "paths": [tag.path for tag in tags],
    }
    await operations.record(
        runtime,
        operation_id,
        OperationType.REINDEX,
        OperationStatus.NOT_STARTED,
        created,
        progress(state),
    )
    return state


@dataclass(frozen=True, slots=True)
class Ranges:
    """Instances to index next, a batch each.

    Attributes:
        ranges: Lowest and highest watermark (of first versions) of each batch, from
            the newest down; empty when all is done.
        canceled: Whether the operation is to end.
    """

    ranges: tuple[tuple[int, int], ...]
    canceled: bool = False


async def ranges(runtime: Runtime, operation_id: str, end: int) -> Ranges:
    """The batches below a watermark, the highest one included."""
    if await operations.is_canceled(runtime, operation_id):
        return Ranges((), canceled=True)
    tags = await _with_errors_counted(runtime, operation_id)
    if not tags:
        return Ranges(())  # all were deleted meanwhile
    watermarks = await reindex.first_watermarks(runtime, end, limit=BATCH * BATCHES)
    batches = [
        watermarks[start : start + BATCH] for start in range(0, len(watermarks), BATCH)
    ]
    return Ranges(tuple((batch[-1], batch[0]) for batch in batches))


async def _with_errors_counted(
    runtime: Runtime, operation_id: str
) -> tuple[QueryTag, ...]:
    """The tags that are being brought in, their errors counted exactly."""
    registry = await runtime.tags.read()
    tags = query_tags.brought_in_by(registry, operation_id)
    for tag in tags:
        if tag.error_count:
            await query_tags.count_errors(runtime, tag)
    return tags


async def index(runtime: Runtime, operation_id: str, low: int, high: int) -> int:
    """Indexes the instances of one batch; how many were looked at."""
    registry = await runtime.tags.read()
    tags = query_tags.brought_in_by(registry, operation_id)
    if not tags:
        return 0
    report = await reindex.batch(runtime, tags, high, start=low)
    await query_tags.record_errors(runtime, report.errors)
    return report.instances


async def end(
    runtime: Runtime,
    operation_id: str,
    status: OperationStatus,
    created: str,
    progress: Progress,
) -> None:
    """Makes the tags ready, or lets go of them where the operation did not succeed."""
    await _with_errors_counted(runtime, operation_id)
    if status is OperationStatus.SUCCEEDED:
        await query_tags.complete(runtime, operation_id)
    else:
        await query_tags.release(runtime, operation_id)
    await operations.record(
        runtime, operation_id, OperationType.REINDEX, status, created, progress
    )


def progress(state: dict[str, Any], *, done: bool = False) -> Progress:
    """Of a checkpoint.

    Args:
        state: `end`, the highest watermark at the start, None before it is known;
            `next`, where to go on; `paths` of the tags.
        done: Whether everything is indexed.
    """
    end, following = state.get("end"), state.get("next")
    percent = 0
    if done:
        percent = 100
    elif end and following is not None:
        percent = (end - following) * 100 // end
    resources = tuple(f"extendedquerytags/{path}" for path in state["paths"])
    return Progress(percent, resources)
