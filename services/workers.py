"""Threads for CPU work over 5 ms: codecs, rendering, hashing, recompression.

At most four threads, and one allowance of memory for all that is decoded or held for
it; who waits longer than 30 seconds is told to come back (design decision 4.12).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import ParamSpec, TypeVar

from dicomweb.errors import StoreUnavailable

MAX_THREADS = 4
MEMORY_BYTES = 125 * 1024 * 1024
MIN_MEMORY_BYTES = 32 * 1024 * 1024
ALONE = 1 << 62
"""For work of which nobody can say beforehand how much memory it needs."""
WAIT_SECONDS = 30.0

P = ParamSpec("P")
R = TypeVar("R")


def memory_bytes(max_transcode_bytes: int) -> int:
    """The allowance that goes with the largest image to be transcoded or rendered."""
    return max(MIN_MEMORY_BYTES, max_transcode_bytes * 5 // 4)


class Workers:
    """A small pool with an allowance of memory."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None
        self.memory_bytes = memory_bytes
        self._free = memory_bytes
        self._freed = asyncio.Condition()
        self._turn = asyncio.Lock()

    async def run(
        self,
        memory_bytes: int,
        work: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """What `work` returns, run in a thread.

        Being cancelled waits for the thread: until then the work has its memory, and
        the caller must not close what the work reads.

        Args:
            memory_bytes: What the work needs at its peak; work that needs more than
                the whole allowance runs alone. 0 inside `room`.
            work: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            StoreUnavailable: No room within 30 seconds.
        """
        async with self.room(memory_bytes):
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "worker")
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))
            try:
                return await asyncio.shield(job)
            except asyncio.CancelledError:
                await _ended(job)
                raise

    @asynccontextmanager
    async def room(self, memory_bytes: int) -> AsyncIterator[None]:
        """Memory for the block; nothing in it may ask for more.

        Raises:
            StoreUnavailable: No room within 30 seconds.
        """
        wanted = min(memory_bytes, self.memory_bytes)
        if not wanted:
            yield
            return
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._freed:
                await self._freed.wait_for(lambda: self._free >= wanted)
                self._free -= wanted
        except TimeoutError:
            raise StoreUnavailable(
                "The server is busy decoding images. Please retry.",
                retry_after_seconds=5,
            ) from None
        try:
            yield
        finally:
            async with self._freed:
                self._free += wanted
                self._freed.notify_all()

    async def run_in_turn(self, work: Callable[[], R]) -> R:
        """What `work` returns, run in a thread, one such work at a time.

        For headers that are long to read: two at once would not be faster, because
        they hold the interpreter, and would need twice the memory.
        """
        async with self._turn:
            return await self.run(0, work)

    def close(self) -> None:
        """Ends the threads once they are idle."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


async def _ended(job: asyncio.Future[R]) -> None:
    """Returns when the thread is done, however often the caller is cancelled."""
    while not job.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([job])
