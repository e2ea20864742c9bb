"""Work by key: several keys at once, one key never twice at once."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_RETRY_SECONDS = 1.0


class Lane(Generic[Key]):
    """Runs `work(key)` for added keys, at most `width` at a time, first come first."""

    def __init__(self, width: int, work: Callable[[Key], Awaitable[object]]) -> None:
        """Nothing runs before the first `add`; `add` needs a running event loop."""
        self._width = width
        self._work = work
        self._queue: deque[Key] = deque()
        self._wanted: set[Key] = set()
        self._running: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def add(self, key: Key) -> None:
        """Have the key worked on; if it is just being worked on, once more after."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._running:
            self._queue.append(key)
            self._start()

    async def close(self, grace_seconds: float) -> None:
        """Start nothing more, wait for what runs, cancel it after the grace period."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        while self._queue and len(self._running) < self._width and not self._closed:
            key = self._queue.popleft()
            self._wanted.discard(key)
            self._running.add(key)
            task = asyncio.get_running_loop().create_task(self._run(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, key: Key) -> None:
        try:
            await self._work(key)
        except Exception:
            logger.exception("durable: %s failed, trying again", key)
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.add, key)
        finally:
            self._running.discard(key)
            if key in self._wanted:
                self._queue.append(key)
            self._start()
