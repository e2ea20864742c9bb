"""Documents and their index entries in SQLite, for one emulated account.

Nothing here is durable against power loss: it is an emulator. One connection, one
thread; every write happens inside `transaction`.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource(
  kind TEXT, parent TEXT, id TEXT, body TEXT, PRIMARY KEY(kind, parent, id));
CREATE TABLE IF NOT EXISTS document(
  n INTEGER PRIMARY KEY AUTOINCREMENT, container TEXT, pk TEXT, epk TEXT, range TEXT,
  id TEXT, body TEXT, etag TEXT, lsn INTEGER, expires INTEGER,
  UNIQUE(container, pk, id));
CREATE INDEX IF NOT EXISTS document_lsn ON document(container, range, lsn);
CREATE INDEX IF NOT EXISTS document_expires ON document(expires)
  WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS entry(
  name INTEGER, range TEXT, key BLOB, n INTEGER, PRIMARY KEY(name, range, key, n))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS index_name(
  name INTEGER PRIMARY KEY, container TEXT, path TEXT, UNIQUE(container, path));
CREATE TABLE IF NOT EXISTS progress(
  container TEXT, range TEXT, lsn INTEGER, PRIMARY KEY(container, range));
"""

_COLUMNS = "d.n, d.pk, d.epk, d.range, d.id, d.body, d.etag, d.lsn, d.expires"


@dataclass(frozen=True, slots=True)
class Row:
    """A stored document.

    Attributes:
        n: Number of the row, in order of creation.
        body: The JSON text as it is sent.
        lsn: Number of the write within its physical partition.
        expires: Unix time in seconds, or None.
    """

    n: int
    pk: str
    epk: str
    range: str
    id: str
    body: str
    etag: str
    lsn: int
    expires: int | None

    @property
    def document(self) -> dict[str, Any]:
        """The JSON of the document."""
        document: dict[str, Any] = orjson.loads(self.body)
        return document


class Storage:
    """The tables of one account."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-200000;"
        )
        self._db.executescript(_SCHEMA)
        self._names: dict[tuple[str, str], int] = {
            (container, path): name
            for name, container, path in self._db.execute("SELECT * FROM index_name")
        }

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept, or none when an exception leaves it."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- resources

    def resource(self, kind: str, parent: str, id: str) -> dict[str, Any] | None:
        """A database or container, or None."""
        found = self._db.execute(
            "SELECT body FROM resource WHERE kind=? AND parent=? AND id=?",
            (kind, parent, id),
        ).fetchone()
        return json.loads(found[0]) if found else None

    def resources(self, kind: str, parent: str) -> list[dict[str, Any]]:
        """All of a kind below a parent, by id."""
        rows = self._db.execute(
            "SELECT body FROM resource WHERE kind=? AND parent=? ORDER BY id",
            (kind, parent),
        )
        return [json.loads(body) for (body,) in rows]

    def keep_resource(self, kind: str, parent: str, body: dict[str, Any]) -> None:
        """Creates or replaces a database or container."""
        self._db.execute(
            "INSERT OR REPLACE INTO resource VALUES(?,?,?,?)",
            (kind, parent, body["id"], json.dumps(body)),
        )

    def drop_resource(self, kind: str, parent: str, id: str) -> None:
        """Removes a database or container (its documents: `drop_container`)."""
        self._db.execute(
            "DELETE FROM resource WHERE kind=? AND parent=? AND id=?",
            (kind, parent, id),
        )

    def drop_container(self, container: str) -> None:
        """Removes all documents of a container."""
        self._db.execute(
            "DELETE FROM entry WHERE name IN"
            " (SELECT name FROM index_name WHERE container=?)",
            (container,),
        )
        for table in ("document", "progress"):
            self._db.execute(f"DELETE FROM {table} WHERE container=?", (container,))

    # --- documents

    def document(self, container: str, pk: str, id: str, now: int) -> Row | None:
        """The live document, or None."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE container=? AND pk=? AND id=?"
            " AND (expires IS NULL OR expires>?)",
            (container, pk, id, now),
        ).fetchone()
        return Row(*row) if row else None

    def insert(self, container: str, row: Row) -> int:
        """Adds a document; its number."""
        cursor = self._db.execute(
            "INSERT INTO document(container, pk, epk, range, id, body, etag, lsn,"
            " expires) VALUES(?,?,?,?,?,?,?,?,?)",
            (
                container,
                row.pk,
                row.epk,
                row.range,
                row.id,
                row.body,
                row.etag,
                row.lsn,
                row.expires,
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def update(self, row: Row) -> None:
        """Replaces a document's content."""
        self._db.execute(
            "UPDATE document SET body=?, etag=?, lsn=?, expires=? WHERE n=?",
            (row.body, row.etag, row.lsn, row.expires, row.n),
        )

    def delete(self, n: int) -> None:
        """Removes a document (its index entries: `unindex`)."""
        self._db.execute("DELETE FROM document WHERE n=?", (n,))

    def expired(self, now: int) -> list[tuple[str, Row]]:
        """Container and row of every document whose time is over."""
        rows = self._db.execute(
            f"SELECT container, {_COLUMNS} FROM document d WHERE expires<=?", (now,)
        )
        return [(row[0], Row(*row[1:])) for row in rows.fetchall()]

    def next_lsn(self, container: str, range: str) -> int:
        """Counts up the physical partition's write number."""
        found = self._db.execute(
            "INSERT INTO progress VALUES(?,?,1) ON CONFLICT DO UPDATE SET lsn=lsn+1"
            " RETURNING lsn",
            (container, range),
        ).fetchone()
        return int(found[0])

    def start_lsn(self, container: str, range: str, lsn: int) -> None:
        """Lets a new physical partition count on from its parent's number."""
        self._db.execute("INSERT INTO progress VALUES(?,?,?)", (container, range, lsn))

    def lsn(self, container: str, range: str) -> int:
        """The number of the last write in the physical partition."""
        found = self._db.execute(
            "SELECT lsn FROM progress WHERE container=? AND range=?", (container, range)
        ).fetchone()
        return int(found[0]) if found else 0

    def move(self, container: str, row: Row, range: str) -> None:
        """Puts a document and its entries into another physical partition."""
        self._db.execute("UPDATE document SET range=? WHERE n=?", (range, row.n))
        self._db.execute(
            "UPDATE entry SET range=? WHERE n=? AND name IN"
            " (SELECT name FROM index_name WHERE container=?)",
            (range, row.n, container),
        )

    # --- reading many

    def partition(
        self, container: str, pk: str, now: int, low: str = "", high: str | None = None
    ) -> Iterator[Row]:
        """Documents of a logical partition by id, from `low` to `high` (included)."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE container=? AND pk=? AND id>=?"
            " AND (? IS NULL OR id<=?) AND (expires IS NULL OR expires>?) ORDER BY id",
            (container, pk, low, high, high, now),
        )
        return (Row(*row) for row in rows)

    def partition_size(self, container: str, pk: str, most: int) -> int:
        """Documents of a logical partition, counted up to `most`."""
        found = self._db.execute(
            "SELECT COUNT(*) FROM (SELECT 1 FROM document WHERE container=? AND pk=?"
            " LIMIT ?)",
            (container, pk, most),
        ).fetchone()
        return int(found[0])

    def physical(self, container: str, range: str, now: int) -> Iterator[Row]:
        """Documents of a physical partition in order of creation."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE container=? AND range=?"
            " AND (expires IS NULL OR expires>?) ORDER BY n",
            (container, range, now),
        )
        return (Row(*row) for row in rows)

    def changes(
        self, container: str, range: str, after: int, pk: str | None, limit: int
    ) -> list[Row]:
        """Documents written after an lsn, in order of their last write."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE container=? AND range=? AND lsn>?"
            " AND (? IS NULL OR pk=?) ORDER BY lsn, n LIMIT ?",
            (container, range, after, pk, pk, limit),
        )
        return [Row(*row) for row in rows]

    # --- index

    def _name(self, container: str, path: str) -> int:
        name = self._names.get((container, path))
        if name is None:
            cursor = self._db.execute(
                "INSERT INTO index_name(container, path) VALUES(?,?)"
                " ON CONFLICT DO UPDATE SET path=path RETURNING name",
                (container, path),
            )
            name = int(cursor.fetchone()[0])
            self._names[container, path] = name
        return name

    def _known(self, container: str, path: str) -> int | None:
        """The index's number if any document ever had an entry in it."""
        name = self._names.get((container, path))
        if name is None:
            found = self._db.execute(
                "SELECT name FROM index_name WHERE container=? AND path=?",
                (container, path),
            ).fetchone()
            if found is not None:
                name = self._names[container, path] = int(found[0])
        return name

    def forget_names(self) -> None:
        """Drops the cache of index names, after a rollback may have undone some."""
        self._names.clear()

    def index(
        self, container: str, range: str, n: int, entries: Sequence[tuple[str, bytes]]
    ) -> None:
        """Adds a document's entries."""
        self._db.executemany(
            "INSERT OR IGNORE INTO entry VALUES(?,?,?,?)",
            [(self._name(container, path), range, key, n) for path, key in entries],
        )

    def unindex(
        self, container: str, range: str, n: int, entries: Sequence[tuple[str, bytes]]
    ) -> None:
        """Removes a document's entries."""
        self._db.executemany(
            "DELETE FROM entry WHERE name=? AND range=? AND key=? AND n=?",
            [(self._name(container, path), range, key, n) for path, key in entries],
        )

    def count(
        self,
        container: str,
        path: str,
        range: str,
        bounds: tuple[bytes, bytes],
        most: int,
    ) -> int:
        """Entries with low <= key < high, counted up to `most`."""
        name = self._known(container, path)
        if name is None:
            return 0
        found = self._db.execute(
            "SELECT COUNT(*) FROM (SELECT 1 FROM entry WHERE name=? AND range=?"
            " AND key>=? AND key<? LIMIT ?)",
            (name, range, *bounds, most),
        ).fetchone()
        return int(found[0])

    def walk(
        self,
        container: str,
        path: str,
        range: str,
        bounds: tuple[bytes, bytes],
        now: int,
        *,
        backwards: bool = False,
    ) -> Iterator[Row]:
        """Documents with low <= key < high in order of the key, read as needed."""
        name = self._known(container, path)
        if name is None:
            return iter(())
        direction = "DESC" if backwards else "ASC"
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM entry e CROSS JOIN document d ON d.n=e.n"
            " WHERE e.name=? AND e.range=? AND e.key>=? AND e.key<?"
            " AND (d.expires IS NULL OR d.expires>?)"
            f" ORDER BY e.key {direction}, e.n {direction}",
            (name, range, *bounds, now),
        )
        return (Row(*row) for row in rows)
