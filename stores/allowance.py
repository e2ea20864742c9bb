"""Bytes of memory that requests share, first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Allowance:
    """So many bytes; who finds too few left waits for its turn."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._free = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, count: int) -> AsyncIterator[None]:
        """`count` bytes are the block's until it ends."""
        await self.take(count)
        try:
            yield
        finally:
            self.give_back(count)

    async def take(self, count: int) -> None:
        """Returns when `count` bytes are ours; more than there are means all."""
        wanted = min(count, self._size)
        if not self._waiting and wanted <= self._free:
            self._free -= wanted
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(count)
            raise

    def give_back(self, count: int) -> None:
        """Returns what `take` gave for the same count."""
        self._free += min(count, self._size)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done():
                if wanted > self._free:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()
