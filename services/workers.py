"""Threads for CPU work over 5 ms: codecs, rendering, hashing, recompression.

At most four threads, at most 256 MiB of decoded bytes at a time; who waits longer than
30 seconds is told to come back (design decision 4.12).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import ParamSpec, TypeVar

from dicomweb.errors import StoreUnavailable

MAX_THREADS = 4
DECODED_BYTES = 256 * 1024 * 1024
ALONE = DECODED_BYTES
"""For work of which nobody can say beforehand how much memory it needs."""
WAIT_SECONDS = 30.0

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """A small pool with an allowance of memory."""

    def __init__(self, decoded_bytes: int = DECODED_BYTES) -> None:
        self._threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None
        self._allowance = decoded_bytes
        self._free = decoded_bytes
        self._freed = asyncio.Condition()
        self._turn = asyncio.Lock()

    async def run(
        self,
        decoded_bytes: int,
        work: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """What `work` returns, run in a thread.

        Being cancelled waits for the thread: until then the work has its memory, and
        the caller must not close what the work reads.

        Args:
            decoded_bytes: Memory that the work needs; a larger one than the whole
                allowance runs alone.
            work: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            StoreUnavailable: No room within 30 seconds.
        """
        async with self._room(min(decoded_bytes, self._allowance)):
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
    async def _room(self, wanted: int) -> AsyncIterator[None]:
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
