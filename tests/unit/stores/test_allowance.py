"""The memory that uploads share."""

import asyncio

from stores.allowance import Allowance


async def test_never_more_is_taken_than_there_is_and_everybody_has_a_turn() -> None:
    allowance, held, peak, turns = Allowance(10), 0, 0, []

    async def work(number: int, count: int) -> None:
        nonlocal held, peak
        async with allowance.taken(count):
            turns.append(number)
            held += min(count, 10)
            peak = max(peak, held)
            await asyncio.sleep(0)
            held -= min(count, 10)

    await asyncio.gather(*(work(n, 1 + n * 7 % 12) for n in range(50)))
    assert peak <= 10
    assert turns == list(range(50))


async def test_who_gives_up_waiting_takes_nothing_along() -> None:
    allowance = Allowance(10)
    await allowance.take(10)
    waiting = [asyncio.create_task(allowance.take(n)) for n in (6, 10, 4)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    allowance.give_back(10)
    waiting[0].cancel()  # its turn has come, but it does not know yet
    await asyncio.gather(*waiting, return_exceptions=True)
    allowance.give_back(4)
    await asyncio.wait_for(allowance.take(10), 1)
