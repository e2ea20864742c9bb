"""The writer of a process, on its event loop or in a thread, and the checkpoints.

Batches that are submitted in one turn of the event loop share a transaction. It runs
on the spot when no process writes just then: handing 0.3 ms of work to a thread and
back costs as much again. Else it goes to the writer's thread, which may wait for the
lock of the other processes; batches that arrive meanwhile share the next. A batch that
fails by an error of the database is tried again alone, so that it alone bears it.
Checkpoints run beside the writers; only the last few pages are copied while they wait.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stores.errors import disk_unavailable, index_unavailable
from stores.ports import BatchResult
from stores.sqlite_batch import Batch, apply, purge_expired
from stores.sqlite_connection import (
    CHECKPOINT_LOCK_NAME,
    FILE_NAME,
    LAYOUTS,
    LOCK_NAME,
    READ_CACHE_KIB,
    WriterLock,
    connect,
)
from stores.sqlite_log import LogFile

logger = logging.getLogger(__name__)

MAX_BATCHES_PER_TRANSACTION = 64
MAX_BATCHES_ON_THE_SPOT = 8
CHECKPOINT_PAGES = 2_000
FINISH_PAGES = 300
URGENT_PAGES = 8_000
CHECKPOINT_ROUNDS = 3
PURGE_INTERVAL_SECONDS = 60.0
WAL_INDEX_LAST_FRAME = 16
WAL_INDEX_COPIED_FRAMES = 96
"""Offsets in the -shm file (SQLite's file format document, section WAL-index)."""

Outcome = BatchResult | Exception


@dataclass(slots=True)
class _Job:
    batch: Batch
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[BatchResult]
    outcome: Outcome | None = None


class Writer:
    """Takes batches from any event loop and commits them in its own thread."""

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        lock: WriterLock,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._turns: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        self._in_use = threading.Lock()
        self._checkpointer = Checkpointer(folder)
        self._next_purge = 0.0
        self._thread = threading.Thread(
            target=self._run, name="index-writer", daemon=True
        )
        self._thread.start()

    async def submit(self, batch: Batch) -> BatchResult:
        """What came of the batch, once it is committed or refused."""
        loop = asyncio.get_running_loop()
        job = _Job(batch, loop, loop.create_future())
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = []
            loop.call_soon(self._end_turn, loop)
        turn.append(job)
        return await job.future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commits what this turn of the loop submitted, here or in the thread."""
        jobs = self._turns.pop(loop)
        if len(jobs) <= MAX_BATCHES_ON_THE_SPOT:
            with _told(jobs):
                self._commit_now(jobs)
            if jobs[0].outcome is not None:
                _settle(jobs)
                self._checkpointer.look()
                return
        for job in jobs:
            self._jobs.put(job)

    def _commit_now(self, jobs: Sequence[_Job]) -> None:
        """Commits the jobs if nobody else is writing."""
        if not self._in_use.acquire(blocking=False):
            return
        try:
            with self._lock.held_if_free() as free:
                if free:
                    self._commit_each(jobs)
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Ends the threads after what waits is committed."""
        self._jobs.put(None)
        self._thread.join()
        self._checkpointer.close()
        self._connection.close()

    def let_go(self) -> None:
        """To be called when no connection of this process is open any more."""
        self._checkpointer.let_go()

    def _run(self) -> None:
        ended = False
        while not ended:
            waiting = [self._jobs.get()]
            while len(waiting) < MAX_BATCHES_PER_TRANSACTION:
                try:
                    waiting.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            ended = None in waiting
            jobs = [job for job in waiting if job is not None]
            if jobs:
                with _told(jobs), self._in_use, self._lock.held():
                    self._commit_each(jobs)
                _deliver(jobs)
                self._checkpointer.look()

    def _commit_each(self, jobs: Sequence[_Job]) -> None:
        """Commits the jobs together; where that fails, each alone."""
        try:
            self._commit(jobs)
        except Exception as error:  # noqa: BLE001 - every waiting caller must hear of it
            if len(jobs) == 1:
                jobs[0].outcome = (
                    index_unavailable(error)
                    if isinstance(error, sqlite3.Error)
                    else error
                )
                return
            for job in jobs:
                self._commit_each([job])

    def _commit(self, jobs: Sequence[_Job]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            now_seconds = self._clock()
            for job in jobs:
                try:
                    job.outcome = apply(connection, job.batch, now_seconds)
                except ValueError as error:
                    job.outcome = error
            self._purge(now_seconds)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _purge(self, now_seconds: float) -> None:
        if now_seconds < self._next_purge:
            return
        self._next_purge = now_seconds + PURGE_INTERVAL_SECONDS
        for layout in LAYOUTS.values():
            purge_expired(self._connection, layout, now_seconds)


@contextmanager
def _told(jobs: Sequence[_Job]) -> Iterator[None]:
    """Those who wait hear of a lock that fails, and the thread goes on.

    Where the lock fails as it is released the jobs have their outcome already.
    """
    try:
        yield
    except OSError as error:
        logger.exception("The lock of the index failed")
        for job in jobs:
            job.outcome = job.outcome or disk_unavailable(error)


def _deliver(jobs: Sequence[_Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, mine in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, mine)


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, Exception):
            job.future.set_exception(job.outcome)
        elif job.outcome is not None:
            job.future.set_result(job.outcome)


class Checkpointer:
    """Moves the write-ahead log into the database before it grows large.

    SQLite before 3.51.3 loses pages when a checkpoint starts where the one before had
    left nothing to copy, and at that moment a commit begins the log anew (the WAL-reset
    bug, https://sqlite.org/wal.html). So checkpoints of all processes take turns, and
    one that does not keep the writers out starts only while there is something to copy:
    then nobody can begin the log anew until it is done.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = WriterLock(folder / LOCK_NAME)  # of its own: locks are per file
        self._turn = WriterLock(folder / CHECKPOINT_LOCK_NAME)
        self._connection = connect(folder / FILE_NAME, cache_kib=READ_CACHE_KIB)
        self._connection.execute("SELECT count(*) FROM layouts").fetchone()
        self._wal_index = os.open(
            folder / f"{FILE_NAME}-shm", os.O_RDONLY | os.O_CLOEXEC
        )
        self._log = LogFile(folder)
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(
            target=self._run, name="index-checkpoint", daemon=True
        )
        self._thread.start()

    def look(self) -> None:
        """Starts a checkpoint when there is enough to copy."""
        if self._pages_to_copy() > CHECKPOINT_PAGES:
            self._wake.set()

    def close(self) -> None:
        """Ends the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._log.close()
        self._lock.close()
        self._turn.close()
        self._connection.close()

    def let_go(self) -> None:
        """Closes the -shm file, and with it all locks of this process on it (POSIX)."""
        os.close(self._wal_index)

    def _pages_to_copy(self) -> int:
        header = os.pread(self._wal_index, WAL_INDEX_COPIED_FRAMES + 4, 0)
        if len(header) < WAL_INDEX_COPIED_FRAMES + 4:
            return 0
        (last,) = struct.unpack_from("=I", header, WAL_INDEX_LAST_FRAME)
        (copied,) = struct.unpack_from("=I", header, WAL_INDEX_COPIED_FRAMES)
        return int(last) - int(copied)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            try:
                self._checkpoint()
            except (sqlite3.Error, OSError):
                logger.exception("A checkpoint of the index failed")
                self._log.doubt()
                time.sleep(1)

    def _checkpoint(self) -> None:
        if self._log.is_doubtful:
            self._log.sync()
        with self._turn.held_if_free() as free:
            if not free:
                return  # another process is at it
            for _ in range(CHECKPOINT_ROUNDS):
                if self._pages_to_copy() <= FINISH_PAGES:
                    break
                self._copy()
                if self._pages_to_copy() >= URGENT_PAGES:
                    break
            with self._lock.held():
                self._copy()

    def _copy(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
