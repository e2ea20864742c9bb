"""Copies of SQLite files that other processes write to meanwhile."""

import sqlite3
from contextlib import closing
from pathlib import Path

from stores.errors import StoreFormatError


def snapshot(source: Path, target: Path) -> None:
    """Copies the database as it is at one moment.

    The copy is made within one read transaction: writers go on, and nothing of what
    they commit after it began is in it.

    Args:
        source: An existing database.
        target: A file that does not exist; its folder does.

    Raises:
        StoreFormatError: The source is no database.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as from_,
            closing(sqlite3.connect(target)) as to,
        ):
            from_.backup(to, pages=-1)
    except sqlite3.DatabaseError as error:
        raise StoreFormatError(f"{source} cannot be copied: {error}") from error


def problems(path: Path) -> list[str]:
    """What SQLite finds wrong with the file; nothing when it is whole."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        try:
            rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
        except sqlite3.DatabaseError as error:
            return [str(error)]
    return [row[0] for row in rows if row[0] != "ok"]
