"""The journal in one SQLite file of its own: `Journal` for the embedded stack.

Rows are few and writers seldom meet; each write is safe against power loss when it
returns, unless the store is told that a crash of the process is all it must survive.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from dicomweb.errors import StoreUnavailable
from stores.errors import StoreFormatError
from stores.ports import JournalRow
from stores.sqlite_connection import WriterLock

FILE_NAME: Final = "journal.db"
LOCK_NAME: Final = "journal.lock"
APPLICATION_ID: Final = 0x44434A4C
JOURNAL_FORMAT: Final = 1
BUSY_SECONDS: Final = 10.0
_NOT_AVAILABLE: Final = "The journal is not available now"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
T = TypeVar("T")


class SqliteJournal:
    """Rows by kind and time in one file."""

    def __init__(self, folder: Path, *, survives_power_loss: bool = True) -> None:
        """Opens the file, made when missing.

        Raises:
            StoreFormatError: It is of a newer version or not a journal.
            StoreUnavailable: The disk is full or failed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        # SQLite checkpoints as it commits; see `sqlite_writer.Checkpointer` for what
        # may happen when two processes do so at once.
        self._turn = WriterLock(folder / LOCK_NAME)
        path = folder / FILE_NAME
        try:
            with self._turn.held():
                self._connection = _open(path, survives_power_loss=survives_power_loss)
        except sqlite3.OperationalError as error:
            self._turn.close()
            raise StoreUnavailable(_NOT_AVAILABLE, retry_after_seconds=2) from error
        except StoreFormatError:
            self._turn.close()
            raise

    async def put(self, kind: str, rows: Sequence[JournalRow]) -> None:
        """Writes the rows in one transaction."""
        values = [
            (kind, _microseconds(row.at), row.id, orjson.dumps(row.data))
            for row in rows
        ]

        statement = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)"
        await self._run(lambda c: _in_transaction(c, statement, values))

    async def page(
        self, kind: str, *, limit: int, offset: int = 0, oldest_first: bool = False
    ) -> list[JournalRow]:
        """Rows of the kind, newest first or oldest first."""
        order = "ASC" if oldest_first else "DESC"

        def read(connection: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
            return connection.execute(
                "SELECT at, id, data FROM rows WHERE kind = ?"  # noqa: S608 - our words
                f" ORDER BY at {order}, id {order} LIMIT ? OFFSET ?",
                (kind, limit, offset),
            ).fetchall()

        return [
            JournalRow(_EPOCH + at * _MICROSECOND, id, orjson.loads(data))
            for at, id, data in await self._run(read)
        ]

    async def count(self, kind: str) -> int:
        """How many rows the kind has."""

        def read(connection: sqlite3.Connection) -> int:
            (count,) = connection.execute(
                "SELECT count(*) FROM rows WHERE kind = ?", (kind,)
            ).fetchone()
            return int(count)

        return await self._run(read)

    async def purge(self, kind: str, before: datetime | None = None) -> int:
        """Deletes the rows older than `before`, all when None; how many."""
        limit = 1 << 62 if before is None else _microseconds(before)

        def delete(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM rows WHERE kind = ? AND at < ?", (kind, limit)
            ).rowcount

        return await self._run(delete)

    async def delete(self, kind: str, keys: Sequence[tuple[datetime, str]]) -> int:
        """Deletes the rows in one transaction; how many of them there were."""
        values = [(kind, _microseconds(at), id) for at, id in keys]
        statement = "DELETE FROM rows WHERE kind = ? AND at = ? AND id = ?"
        return await self._run(lambda c: _in_transaction(c, statement, values))

    async def close(self) -> None:
        """Closes the file."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, in a thread or where nothing waits."""
        with self._lock:
            self._connection.close()
            self._turn.close()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the work gives; it has the connection for itself, in a thread."""

        def locked() -> T:
            with self._lock, self._turn.held():
                return work(self._connection)

        try:
            return await asyncio.to_thread(locked)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(_NOT_AVAILABLE, retry_after_seconds=2) from error


def _in_transaction(
    connection: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]]
) -> int:
    """Executes the statement with each of the values; how many rows it changed."""
    if not values:
        return 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        changed = connection.executemany(statement, values).rowcount
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return changed


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _open(path: Path, *, survives_power_loss: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )
    try:
        _prepare(connection)
        level = "FULL" if survives_power_loss else "NORMAL"
        connection.execute(f"PRAGMA synchronous={level}")
    except (sqlite3.DatabaseError, StoreFormatError) as error:
        connection.close()
        if isinstance(error, StoreFormatError | sqlite3.OperationalError):
            raise
        raise StoreFormatError(f"{path} is not a journal") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    version, application = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("user_version", "application_id")
    )
    if version > JOURNAL_FORMAT:
        raise StoreFormatError(
            f"The journal is of format {version}; this version reads {JOURNAL_FORMAT}"
        )
    if application not in {0, APPLICATION_ID}:
        raise StoreFormatError("The journal file belongs to another program")
    if (version, application) == (JOURNAL_FORMAT, APPLICATION_ID):
        return  # a start must be possible on a full disk
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS rows"
        "(kind TEXT NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL,"
        " data BLOB NOT NULL, PRIMARY KEY (kind, at, id)) WITHOUT ROWID"
    )
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={JOURNAL_FORMAT}")
