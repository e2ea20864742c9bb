"""Records of operations, their errors, requests and cancellation."""

from datetime import UTC, datetime, timedelta

import pytest

from services import operations
from services.operations import Operation, OperationStatus, OperationType, Progress

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


async def record(
    runtime,
    id,
    *,
    type=OperationType.REINDEX,
    status=OperationStatus.SUCCEEDED,
    at=NOON,
    progress=None,
):
    await operations.record(
        runtime, id, type, status, at.isoformat(), progress or Progress(1)
    )


async def ids(runtime, *, type=None, status=None, limit=100, offset=0):
    found = await operations.listed(
        runtime, type=type, status=status, limit=limit, offset=offset
    )
    return [operation.id for operation in found]


async def test_an_operation_has_one_record_however_often_it_is_recorded(runtime):
    await record(runtime, "a", status=OperationStatus.NOT_STARTED)
    progress = Progress(100, ("extendedquerytags/00101010",), {"studyFailed": 1})
    await record(runtime, "a", progress=progress)
    [found] = await operations.listed(
        runtime, type=None, status=None, limit=10, offset=0
    )
    assert found == Operation(
        id="a",
        type=OperationType.REINDEX,
        status=OperationStatus.SUCCEEDED,
        created=NOON,
        updated=found.updated,
        progress=progress,
    )
    assert found.updated > NOON


async def test_they_are_listed_newest_first_by_type_and_status(runtime, monkeypatch):
    monkeypatch.setattr(operations, "_PAGE", 3)
    for n in range(10):
        await record(
            runtime,
            f"op{n}",
            at=NOON + n * DAY,
            type=OperationType.UPDATE if n % 2 else OperationType.REINDEX,
            status=OperationStatus.FAILED if n % 5 == 0 else OperationStatus.RUNNING,
        )
    assert await ids(runtime) == [f"op{n}" for n in range(9, -1, -1)]
    assert await ids(runtime, limit=2, offset=3) == ["op6", "op5"]
    odd = await ids(runtime, type=OperationType.UPDATE)
    assert odd == ["op9", "op7", "op5", "op3", "op1"]
    assert await ids(runtime, status=OperationStatus.FAILED) == ["op5", "op0"]
    both = {"type": OperationType.REINDEX, "status": OperationStatus.FAILED}
    assert await ids(runtime, **both) == ["op0"]
    assert await ids(runtime, offset=10) == []


async def test_old_ones_are_forgotten_with_their_errors(runtime):
    for n in range(5):
        await record(runtime, f"op{n}", at=NOON + n * DAY)
        await operations.add_errors(runtime, f"op{n}", "1.2", [f"error {n}"])
    assert await operations.forget(runtime, NOON + 3 * DAY) == 3
    assert await ids(runtime) == ["op4", "op3"]
    assert await operations.errors(runtime, "op2") == []
    assert await operations.errors(runtime, "op3") == ["error 3"]
    assert await operations.forget(runtime, NOON + 3 * DAY) == 0


async def test_one_that_still_runs_is_not_forgotten(runtime):
    await record(runtime, "runs", status=OperationStatus.RUNNING)
    await record(runtime, "ended", at=NOON + timedelta(hours=1))
    assert await operations.forget(runtime, NOON + DAY) == 1
    assert await ids(runtime) == ["runs"]


async def test_an_error_that_is_met_again_is_told_once(runtime):
    await operations.add_errors(runtime, "op", "b", ["of b", "also of b"])
    await operations.add_errors(runtime, "op", "a", ["of a"])
    await operations.add_errors(runtime, "op", "a", ["of a"])
    assert await operations.errors(runtime, "op") == ["of a", "of b", "also of b"]


async def test_a_request_is_kept_until_it_is_dropped(runtime):
    assert await operations.request_of(runtime, "op") is None
    await operations.keep_request(runtime, "op", {"studies": ["1.2"]})
    found = await operations.request_of(runtime, "op")
    assert found["studies"] == ["1.2"]
    await operations.drop_request(runtime, "op")
    await operations.drop_request(runtime, "op")
    assert await operations.request_of(runtime, "op") is None


async def test_a_cancellation_concerns_one_operation_and_may_be_repeated(runtime):
    await operations.cancel(runtime, "op")
    await operations.cancel(runtime, "op")
    assert await operations.is_canceled(runtime, "op")
    assert not await operations.is_canceled(runtime, "other")


@pytest.mark.parametrize("status", OperationStatus)
def test_an_operation_has_ended_unless_it_waits_or_runs(status):
    assert status.ended is (
        status not in {OperationStatus.NOT_STARTED, OperationStatus.RUNNING}
    )
