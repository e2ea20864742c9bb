"""Leases: one holder at a time; a dead one's ends by itself."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services import leases
from services.leases import held, lease

MINUTE = timedelta(minutes=1)


async def test_a_lease_is_one_hosts_until_the_end_of_its_block(runtime):
    async with lease(runtime, "work", MINUTE) as mine:
        async with lease(runtime, "work", MINUTE) as yours:
            assert (mine, yours) == (True, False)
        async with lease(runtime, "other work", MINUTE) as other:
            assert other
    async with lease(runtime, "work", MINUTE) as mine:
        assert mine


async def test_of_many_that_come_at_once_one_gets_it(runtime):
    all_came = asyncio.Barrier(8)

    async def take() -> bool:
        async with lease(runtime, "work", MINUTE) as mine:
            await all_came.wait()
            return mine

    assert sum(await asyncio.gather(*(take() for _ in range(8)))) == 1


async def test_a_lease_that_nobody_gave_back_ends_by_itself(runtime):
    later = replace(runtime, now=lambda: runtime.now() + 2 * MINUTE)
    async with lease(runtime, "work", MINUTE) as dead:
        assert dead
        async with lease(later, "work", MINUTE) as next_one:
            assert next_one
            # Its end does not take the lease from who has it now.
        async with lease(later, "work", MINUTE) as again:
            assert again
    async with lease(runtime, "work", MINUTE) as mine:
        assert mine


async def test_the_end_of_a_lost_lease_leaves_the_new_holders(runtime):
    later = replace(runtime, now=lambda: runtime.now() + 2 * MINUTE)
    lost = lease(runtime, "work", MINUTE)
    assert await lost.__aenter__()
    async with lease(later, "work", MINUTE) as new:
        assert new
        await lost.__aexit__(None, None, None)
        async with lease(later, "work", MINUTE) as third:
            assert not third


@pytest.mark.slow
async def test_a_held_lease_is_waited_for_and_outlasts_its_duration(
    runtime, monkeypatch
):
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with held(runtime, "work", timedelta(seconds=1.2)):
            order.append(f"{name} begins")
            await asyncio.sleep(1.8)
            order.append(f"{name} ends")

    await asyncio.gather(hold("one"), hold("two"))
    first, second = order[0].split()[0], order[2].split()[0]
    assert order == [
        f"{first} begins",
        f"{first} ends",
        f"{second} begins",
        f"{second} ends",
    ]
