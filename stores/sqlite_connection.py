"""Opening the SQLite file: pragmas, tables, format version, lock of the writers."""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from stores.containers import CONTAINERS, DATA_FORMAT, ContainerSpec
from stores.errors import StoreFormatError, index_unavailable
from stores.sqlite_index import ROWS_VERSION, Layout, layout_of, rows

APPLICATION_ID = 0x44434D46
PAGE_BYTES = 4096
READ_CACHE_KIB = 4_096
WRITE_CACHE_KIB = 32_768
MAPPED_BYTES = 256 << 20
LOG_BYTES = 64 << 20
FILE_NAME = "index.db"
LOCK_NAME = "index.lock"
CHECKPOINT_LOCK_NAME = "checkpoint.lock"

LAYOUTS = {spec.name: layout_of(spec) for spec in CONTAINERS}


def connect(path: Path, *, cache_kib: int) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by one thread at a time.

    Raises:
        DatabaseError: The file is none of SQLite, or cannot be read; it is closed.
    """
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        timeout=10,
    )
    try:
        for pragma in (
            "synchronous=NORMAL",
            "wal_autocheckpoint=0",
            "temp_store=MEMORY",
            f"journal_size_limit={LOG_BYTES}",
            f"cache_size=-{cache_kib}",
            f"mmap_size={MAPPED_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


class WriterLock:
    """The lock that the writers of all processes take one after the other.

    SQLite's own way of waiting is to poll, which starves some writers for seconds.
    A lock on a file queues them. The second lock, of the place before the door, is
    there because a process that has just released the lock would get it again before
    those who sleep on it wake up.
    """

    def __init__(self, path: Path) -> None:
        self._door = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._place = os.open(
            path.with_suffix(".queue"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Waits until the lock is ours, and releases it at the end."""
        fcntl.flock(self._place, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._place, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    @contextmanager
    def held_if_free(self) -> Iterator[bool]:
        """Yields whether the lock was free; it is ours until the end then.

        Whoever waits holds the place before the door, so this never overtakes.
        """
        if not _locked_at_once(self._place):
            yield False
            return
        try:
            free = _locked_at_once(self._door)
        finally:
            fcntl.flock(self._place, fcntl.LOCK_UN)
        try:
            yield free
        finally:
            if free:
                fcntl.flock(self._door, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the lock's files."""
        os.close(self._door)
        os.close(self._place)


def _locked_at_once(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_writer(folder: Path, lock: WriterLock) -> sqlite3.Connection:
    """The writing connection, on a file that has all tables.

    Raises:
        StoreFormatError: The file is of a newer version or not one of ours.
        StoreUnavailable: The disk is full or failed.
    """
    path = folder / FILE_NAME
    connection = None
    try:
        connection = connect(path, cache_kib=WRITE_CACHE_KIB)
        with lock.held():
            _prepare(connection)
    except (sqlite3.DatabaseError, StoreFormatError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, StoreFormatError):
            raise
        if isinstance(error, sqlite3.OperationalError):
            raise index_unavailable(error) from error
        raise StoreFormatError(f"{path} is not an index") from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    version, application = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("user_version", "application_id")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreFormatError("The index file belongs to another program")
    if version > DATA_FORMAT:
        raise StoreFormatError(
            f"The index is of format {version}; this version reads {DATA_FORMAT}"
        )
    if _is_current(connection, version, application):
        return  # a start must be possible on a full disk
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={DATA_FORMAT}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS layouts"
            "(name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID"
        )
        for spec in CONTAINERS:
            _prepare_container(connection, spec)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _is_current(connection: sqlite3.Connection, version: int, application: int) -> bool:
    """Whether a start of this version has nothing to write."""
    if (version, application) != (DATA_FORMAT, APPLICATION_ID):
        return False
    known = dict(connection.execute("SELECT name, digest FROM layouts"))
    return all(known.get(spec.name) == _digest(spec) for spec in CONTAINERS)


def _digest(spec: ContainerSpec) -> str:
    """Says what the index rows of the container mean."""
    layout = LAYOUTS[spec.name]
    meaning = repr((ROWS_VERSION, layout.scope, layout.order, layout.fields))
    return hashlib.sha256(meaning.encode()).hexdigest()


def _prepare_container(connection: sqlite3.Connection, spec: ContainerSpec) -> None:
    layout = LAYOUTS[spec.name]
    documents, index = layout.documents, layout.index
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {documents}"
        "(n INTEGER PRIMARY KEY, pk TEXT NOT NULL, id TEXT NOT NULL,"
        " etag TEXT NOT NULL, expires REAL, body BLOB NOT NULL, z BLOB, zn BLOB)"
    )
    connection.execute(
        f"CREATE UNIQUE INDEX IF NOT EXISTS {documents}_id ON {documents}(pk, id)"
    )
    connection.execute(
        f"CREATE INDEX IF NOT EXISTS {documents}_expires ON {documents}(expires)"
        " WHERE expires IS NOT NULL"
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {index}"
        "(p TEXT NOT NULL, s NOT NULL, v NOT NULL, o NOT NULL, n INTEGER NOT NULL,"
        " PRIMARY KEY (p, s, v, o, n)) WITHOUT ROWID"
    )
    digest = _digest(spec)
    known = connection.execute(
        "SELECT digest FROM layouts WHERE name = ?", (spec.name,)
    ).fetchone()
    if known is None or known[0] != digest:
        _index_again(connection, layout)
        connection.execute(
            "INSERT OR REPLACE INTO layouts VALUES (?, ?)", (spec.name, digest)
        )


def _index_again(connection: sqlite3.Connection, layout: Layout) -> None:
    """Makes all index rows anew: another version indexed other paths."""
    connection.execute(f"DELETE FROM {layout.index}")  # noqa: S608 - our own table names
    for n, pk, body in connection.execute(
        f"SELECT n, pk, body FROM {layout.documents}"  # noqa: S608
    ):
        connection.executemany(
            f"INSERT INTO {layout.index} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            [(*row, n) for row in rows(layout, pk, orjson.loads(body))],
        )
