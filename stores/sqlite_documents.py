"""The index in one SQLite file: `Documents` for the embedded stack."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from stores import sqlite_search
from stores.batches import check_batch
from stores.errors import disk_unavailable, index_unavailable
from stores.ports import (
    BatchResult,
    Document,
    Operation,
    Page,
    Query,
    Scalar,
)
from stores.sqlite_batch import Batch
from stores.sqlite_connection import (
    FILE_NAME,
    LAYOUTS,
    LOCK_NAME,
    READ_CACHE_KIB,
    WriterLock,
    connect,
    open_writer,
)
from stores.sqlite_log import LogFile
from stores.sqlite_search import Search, check_search, is_small
from stores.sqlite_writer import Writer

QUERY_THREADS = 4


class SqliteDocuments:
    """Documents in `index.db` of a folder, shared by all processes that open it."""

    def __init__(
        self,
        folder: Path,
        *,
        survives_power_loss: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens the file, made when missing; nothing stays open when that fails.

        Raises:
            StoreFormatError: The file is of a newer version or not one of ours.
            StoreUnavailable: The disk is full or failed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._clock = clock
        with ExitStack() as opened:
            self._lock = WriterLock(folder / LOCK_NAME)
            opened.callback(self._lock.close)
            connection = open_writer(folder, self._lock)
            opened.callback(connection.close)
            self._flusher = Flusher(folder) if survives_power_loss else None
            self._writer = Writer(folder, connection, self._lock, clock)
            opened.pop_all()
        self._reader = connect(self._path, cache_kib=READ_CACHE_KIB)
        self._readers: list[sqlite3.Connection] = []
        self._of_thread = threading.local()
        self._threads = ThreadPoolExecutor(QUERY_THREADS, "index-query")

    async def read(
        self, container: str, partition_key: str, id: str
    ) -> Document | None:
        """The document, or None; read on the spot, a thread would cost more."""
        layout = LAYOUTS[container]
        try:
            return sqlite_search.read(
                self._reader, layout, partition_key, id, self._clock()
            )
        except sqlite3.Error as error:
            raise index_unavailable(error) from error

    async def batch(
        self, container: str, partition_key: str, operations: Sequence[Operation]
    ) -> BatchResult:
        """Applies all operations or none."""
        encoded = check_batch(partition_key, operations)
        layout = LAYOUTS[container]
        return await self._writer.submit(
            Batch(layout, partition_key, tuple(operations), encoded)
        )

    async def query(
        self,
        container: str,
        query: Query,
        *,
        partition_key: str | None = None,
        limit: int,
        after: Sequence[Scalar] | None = None,
        offset: int = 0,
    ) -> Page:
        """Documents in order, those after the keyset, less the first `offset`."""
        search = Search(
            LAYOUTS[container],
            query,
            partition_key,
            limit,
            None if after is None else tuple(after),
            offset,
        )
        check_search(search)
        loop = asyncio.get_running_loop()
        try:
            if is_small(search):  # a thread would cost more than the look-up
                return sqlite_search.run(self._reader, search, self._clock())
            return await loop.run_in_executor(self._threads, self._run, search)
        except sqlite3.Error as error:
            raise index_unavailable(error) from error

    async def flush(self) -> None:
        """Makes what was committed before the call safe against power loss."""
        if self._flusher is not None:
            await self._flusher.flush()

    async def close(self) -> None:
        """Ends threads and connections after what waits is committed."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, in a thread or where nothing waits."""
        self._writer.close()
        self._threads.shutdown()
        if self._flusher is not None:
            self._flusher.close()
        for connection in (self._reader, *self._readers):
            connection.close()
        self._writer.let_go()
        self._lock.close()

    def _run(self, search: Search) -> Page:
        connection: sqlite3.Connection | None = getattr(
            self._of_thread, "connection", None
        )
        if connection is None:
            connection = connect(self._path, cache_kib=READ_CACHE_KIB)
            self._of_thread.connection = connection
            self._readers.append(connection)
        return sqlite_search.run(connection, search, self._clock())


class Flusher:
    """Syncs the write-ahead log; callers that wait meanwhile share the next sync."""

    def __init__(self, folder: Path) -> None:
        self._log = LogFile(folder)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._thread = ThreadPoolExecutor(1, "index-flush")
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Returns when a sync that started after the call is done.

        Raises:
            StoreUnavailable: The disk failed; the outcome is unknown.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._sync(self._running))
        try:
            await asyncio.shield(self._next)
        except OSError as error:
            raise disk_unavailable(error, outcome_unknown=True) from error

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._log.sync)

    def close(self) -> None:
        """Ends the thread and closes the file."""
        self._thread.shutdown()
        self._log.close()
