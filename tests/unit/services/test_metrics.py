"""What a request costs: CPU of its own steps, in whatever task they run."""

import asyncio
import time
from typing import Any

import pytest

from services.metrics import Metrics, Usage, current_usage, on_account
from stores.usage import charge, count_blob_call

BUSY_SECONDS = 0.03


def busy() -> None:
    until = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < until:
        pass


async def works(steps: int) -> str:
    for _ in range(steps):
        busy()
        await asyncio.sleep(0)
    return "done"


async def waits() -> None:
    await asyncio.sleep(2 * BUSY_SECONDS)


async def test_each_request_pays_for_its_own_steps_only():
    one, two, idle = Usage(), Usage(), Usage()
    results = await asyncio.gather(
        on_account(works(1), one), on_account(works(4), two), on_account(waits(), idle)
    )
    assert results == ["done", "done", None]
    assert one.cpu_nanoseconds >= BUSY_SECONDS * 1e9
    assert two.cpu_nanoseconds >= 4 * BUSY_SECONDS * 1e9
    assert one.cpu_nanoseconds < 3 * BUSY_SECONDS * 1e9
    assert idle.cpu_nanoseconds < BUSY_SECONDS * 1e9


async def fails() -> None:
    busy()
    raise ValueError("x")


async def test_a_failure_is_paid_for_and_comes_through():
    usage = Usage()
    with pytest.raises(ValueError, match="x"):
        await on_account(fails(), usage)
    assert usage.cpu_nanoseconds >= BUSY_SECONDS * 1e9


async def test_a_cancelled_request_is_told_so():
    told: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    task = asyncio.ensure_future(stubborn_on_account(stubborn()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["cancelled"]


async def stubborn_on_account(work: Any) -> None:
    await on_account(work, Usage())


async def test_what_stores_charge_is_on_the_account_of_the_task_that_asked():
    async def request(usage: Usage, calls: int) -> None:
        current_usage(usage)
        for _ in range(calls):
            await asyncio.sleep(0)
            await asyncio.create_task(ask())

    async def ask() -> None:
        charge(2.5)
        count_blob_call()

    one, two = Usage(), Usage()
    await asyncio.gather(
        asyncio.create_task(request(one, 1)), asyncio.create_task(request(two, 3))
    )
    assert (one.request_units, one.index_calls, one.blob_calls) == (2.5, 1, 1)
    assert (two.request_units, two.index_calls, two.blob_calls) == (7.5, 3, 3)


def test_work_of_the_server_itself_is_on_nobodys_account():
    charge(1.0)
    count_blob_call()


def test_a_transaction_adds_its_requests_up():
    metrics = Metrics()
    for status in (200, 404, 503, 206):
        usage = Usage(request_units=1.5, blob_calls=2, bytes_out=10)
        metrics.add("RetrieveStudy", status, 0.5, usage)
    found = metrics.transactions["RetrieveStudy"]
    assert (found.requests, found.refused, found.failed) == (4, 1, 1)
    assert found.seconds == 2.0
    assert found.usage == Usage(request_units=6.0, blob_calls=8, bytes_out=40)
