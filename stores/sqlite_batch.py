"""One batch applied on a SQLite connection, within the transaction of the caller.

First the operations are played on the documents they touch, in memory; only when all
of them hold is anything written. So a rejected batch leaves no trace and the batches
that share the transaction need no savepoints.
"""

import itertools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import orjson

from stores.batches import Encoded, apply_patch, encode
from stores.conditions import matches
from stores.ports import (
    BatchResult,
    Committed,
    Create,
    Delete,
    Document,
    Operation,
    Patch,
    Rejected,
    Rejection,
    Replace,
    Upsert,
)
from stores.sqlite_index import Layout, Row, rows

MAX_EXPIRED_AT_ONCE = 200

_etag_prefix = token_hex(6)
_etag_numbers = itertools.count()


@dataclass(slots=True)
class _Entry:
    """A document that the batch touches.

    Attributes:
        number: Row in the table; None before it is inserted.
        before: As it was stored; None where there was none.
        after: What it will be; None where there is none.
        document: `after` decoded, where that was needed.
        rows_before: Index rows of `before`; None until needed.
        indexed: Whether index rows may have changed.
    """

    number: int | None = None
    before: Encoded | None = None
    after: Encoded | None = None
    etag: str | None = None
    document: Document | None = None
    rows_before: set[Row] | None = None
    changed: bool = False
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked batch that waits for the writer."""

    layout: Layout
    partition_key: str
    operations: Sequence[Operation]
    encoded: Sequence[Encoded | None]


@dataclass(slots=True)
class _Changes:
    """Index rows to be taken away and added, of all documents of a batch."""

    removed: list[tuple[Any, ...]]
    added: list[tuple[Any, ...]]


def apply(
    connection: sqlite3.Connection, batch: Batch, now_seconds: float
) -> BatchResult:
    """Applies the batch, or says which operation did not hold and writes nothing.

    Raises:
        ValueError: A patch that does not fit its document; nothing is written.
        sqlite3.Error: The transaction must be rolled back.
    """
    ids = [_id(operation) for operation in batch.operations]
    entries = _load(connection, batch, ids, now_seconds)
    etags: list[str | None] = []
    documents: list[Document | None] = []
    for index, operation in enumerate(batch.operations):
        entry = entries[ids[index]]
        if isinstance(operation, Patch):
            refused = _play_patch(entry, operation, batch)
        else:
            refused = _play(entry, operation, batch.encoded[index])
        if refused is not None:
            return Rejected(index, refused)
        etags.append(entry.etag)
        documents.append(_left_behind(entry, ids[index]))
    changes = _Changes([], [])
    for id, entry in entries.items():
        if entry.changed:
            _write(connection, batch, id, entry, now_seconds)
            _index(batch, entry, changes)
    _write_index(connection, batch.layout, changes)
    return Committed(tuple(etags), tuple(documents))


def _id(operation: Operation) -> str:
    if isinstance(operation, Patch | Delete):
        return operation.id
    return str(operation.document["id"])


def _load(
    connection: sqlite3.Connection,
    batch: Batch,
    ids: Sequence[str],
    now_seconds: float,
) -> dict[str, _Entry]:
    entries = {id: _Entry() for id in ids}
    marks = ",".join("?" * len(entries))
    found = connection.execute(
        f"SELECT n, id, etag, expires, body, z, zn FROM {batch.layout.documents}"  # noqa: S608 - our own table names
        f" WHERE pk = ? AND id IN ({marks})",
        (batch.partition_key, *entries),
    )
    for number, id, etag, expires, body, z, zn in found:
        binary: dict[str, bytes] = {}
        if z is not None:
            binary["z"] = z
        if zn is not None:
            binary["zn"] = zn
        entry = entries[id]
        entry.number, entry.before = number, Encoded(body, binary)
        if expires is None or expires > now_seconds:
            entry.etag, entry.after = etag, entry.before
    return entries


def _new_etag() -> str:
    return f"{_etag_prefix}{next(_etag_numbers):x}"


def _play(
    entry: _Entry,
    operation: Create | Replace | Upsert | Delete,
    encoded: Encoded | None,
) -> Rejection | None:
    if isinstance(operation, Create):
        if entry.after is not None:
            return Rejection.EXISTS
    elif isinstance(operation, Replace | Delete):
        if entry.after is None:
            return Rejection.MISSING
        if operation.if_etag is not None and operation.if_etag != entry.etag:
            return Rejection.CONDITION
    entry.changed = entry.indexed = True
    entry.after, entry.document = encoded, None
    entry.etag = None if encoded is None else _new_etag()
    return None


def _play_patch(entry: _Entry, patch: Patch, batch: Batch) -> Rejection | None:
    if entry.after is None:
        return Rejection.MISSING
    document: Document = orjson.loads(entry.after.body)
    if patch.condition is not None and not matches(patch.condition, document):
        return Rejection.CONDITION
    changes = (*patch.increments, *patch.sets, *patch.removes)
    if any(path[0] in batch.layout.names for path in changes):
        entry.indexed = True
        if entry.after is entry.before:
            entry.rows_before = rows(batch.layout, batch.partition_key, document)
    document |= entry.after.binary
    apply_patch(document, patch)
    entry.after = encode(document)
    for name in entry.after.binary:
        del document[name]
    entry.document = document
    entry.etag = _new_etag()
    entry.changed = True
    return None


def _left_behind(entry: _Entry, id: str) -> Document | None:
    """What the result says of a document, not shared with what is written."""
    if entry.after is None:
        return None
    if entry.document is None:
        return {"id": id, "_etag": entry.etag}
    return entry.document | {"_etag": entry.etag}


def _write(
    connection: sqlite3.Connection,
    batch: Batch,
    id: str,
    entry: _Entry,
    now_seconds: float,
) -> None:
    table, after = batch.layout.documents, entry.after
    if after is None:
        if entry.number is not None:
            connection.execute(f"DELETE FROM {table} WHERE n = ?", (entry.number,))  # noqa: S608
        return
    if entry.document is None:
        entry.document = orjson.loads(after.body)
    ttl = entry.document.get("ttl")
    expires = now_seconds + ttl if ttl is not None and ttl > 0 else None
    z, zn = after.binary.get("z"), after.binary.get("zn")
    if entry.number is None:
        entry.number = connection.execute(
            f"INSERT INTO {table} (pk, id, etag, expires, body, z, zn)"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (batch.partition_key, id, entry.etag, expires, after.body, z, zn),
        ).lastrowid
    elif entry.before is not None and after.binary == entry.before.binary:
        connection.execute(
            f"UPDATE {table} SET etag = ?, expires = ?, body = ? WHERE n = ?",  # noqa: S608
            (entry.etag, expires, after.body, entry.number),
        )
    else:
        connection.execute(
            f"UPDATE {table} SET etag = ?, expires = ?, body = ?, z = ?, zn = ?"  # noqa: S608
            " WHERE n = ?",
            (entry.etag, expires, after.body, z, zn, entry.number),
        )


def _index(batch: Batch, entry: _Entry, changes: _Changes) -> None:
    if not entry.indexed or entry.number is None:
        return
    old, number = entry.rows_before, entry.number
    if old is None:
        old = _rows_of(batch.layout, batch.partition_key, entry.before)
    new: set[Row] = set()
    if entry.after is not None and entry.document is not None:
        new = rows(batch.layout, batch.partition_key, entry.document)
    changes.removed += [(*row, number) for row in old - new]
    changes.added += [(*row, number) for row in new - old]


def _rows_of(layout: Layout, partition_key: str, encoded: Encoded | None) -> set[Row]:
    if encoded is None:
        return set()
    return rows(layout, partition_key, orjson.loads(encoded.body))


def _write_index(
    connection: sqlite3.Connection, layout: Layout, changes: _Changes
) -> None:
    if changes.removed:
        connection.executemany(
            f"DELETE FROM {layout.index}"  # noqa: S608
            " WHERE p = ? AND s = ? AND v = ? AND o = ? AND n = ?",
            changes.removed,
        )
    if changes.added:
        connection.executemany(
            f"INSERT INTO {layout.index} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            changes.added,
        )


def purge_expired(
    connection: sqlite3.Connection, layout: Layout, now_seconds: float
) -> int:
    """Removes some documents whose time is over; how many were removed."""
    expired = connection.execute(
        f"SELECT n, pk, body FROM {layout.documents}"  # noqa: S608
        " WHERE expires IS NOT NULL AND expires <= ? LIMIT ?",
        (now_seconds, MAX_EXPIRED_AT_ONCE),
    ).fetchall()
    changes = _Changes([], [])
    for number, partition_key, body in expired:
        old = rows(layout, partition_key, orjson.loads(body))
        changes.removed += [(*row, number) for row in old]
        connection.execute(
            f"DELETE FROM {layout.documents} WHERE n = ?",  # noqa: S608
            (number,),
        )
    _write_index(connection, layout, changes)
    return len(expired)
