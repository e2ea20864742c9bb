"""Merges calls that wait at the same time into one.

A call starts at once when nothing is under way; those that arrive meanwhile share the
next one. The work runs in a task of its own, so a caller that goes away (a client that
hangs up) neither stops it nor leaves the others waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Merger(Generic[T, R]):
    """Queues items and hands them to `work` in lists, one list at a time.

    `work` returns one result per item, in order; a result that is an exception is
    raised for that item's caller only.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        take: Callable[[Sequence[T]], int] = len,
    ) -> None:
        """`take` says how many of the waiting items the next call may have."""
        self._work = work
        self._take = take
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self._task is None

    def post(self, item: T) -> "asyncio.Future[R]":
        """Queues the item; the future is its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return future

    async def submit(self, item: T) -> R:
        """The item's result; being cancelled does not undo the work."""
        return await asyncio.shield(self.post(item))

    async def drain(self) -> None:
        """Returns once nothing waits or runs."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = max(1, self._take([item for item, _ in self._waiting]))
                batch = self._waiting[:count]
                del self._waiting[:count]
                await self._run_batch(batch)
        finally:
            self._task = None

    async def _run_batch(self, batch: "list[tuple[T, asyncio.Future[R]]]") -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to every waiting caller
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
                # A caller that went away never asks; without this asyncio would log
                # "exception was never retrieved" although the others were told.
                future.exception()
            else:
                future.set_result(result)
