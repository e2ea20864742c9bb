"""One batch applied on a SQLite connection, within the transaction of the caller.

First the operations are played on the documents they touch, in memory; only when all
of them hold is anything written. So a rejected batch leaves no trace and the batches
that share the transaction need no savepoints.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any, assert_never

import orjson

from stores.batches import Encoded, apply_patch, encode
from stores.conditions import matches
from stores.ports import (
    BINARY_FIELDS,
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


@dataclass(slots=True)
class _Entry:
    """A document that the batch touches.

    Attributes:
        number: Row in the table; None before it is inserted.
        before: JSON as it was stored; None where there was none.
        after: What it will be; None where there is none.
        document: `after` decoded, once a patch needed it.
    """

    number: int | None = None
    before: bytes | None = None
    before_binary: dict[str, bytes] = field(default_factory=dict)
    after: Encoded | None = None
    etag: str | None = None
    document: Document | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked batch that waits for the writer."""

    layout: Layout
    partition_key: str
    operations: Sequence[Operation]
    encoded: Sequence[Encoded | None]


def apply(
    connection: sqlite3.Connection, batch: Batch, now_seconds: float
) -> BatchResult:
    """Applies the batch, or says which operation did not hold and writes nothing.

    Raises:
        ValueError: A patch that does not fit its document; nothing is written.
        sqlite3.Error: The transaction must be rolled back.
    """
    entries = _load(connection, batch, now_seconds)
    etags: list[str | None] = []
    documents: list[Document | None] = []
    for index, operation in enumerate(batch.operations):
        entry = entries[_id(operation)]
        refused = _play(entry, operation, batch.encoded[index])
        if refused is not None:
            return Rejected(index, refused)
        etags.append(entry.etag)
        documents.append(_left_behind(entry, operation))
    for id, entry in entries.items():
        if entry.changed:
            _write(connection, batch, id, entry, now_seconds)
    return Committed(tuple(etags), tuple(documents))


def _id(operation: Operation) -> str:
    match operation:
        case Patch(id) | Delete(id):
            return id
        case Create(document) | Replace(document) | Upsert(document):
            return str(document["id"])
        case _:
            assert_never(operation)


def _load(
    connection: sqlite3.Connection, batch: Batch, now_seconds: float
) -> dict[str, _Entry]:
    entries = {_id(operation): _Entry() for operation in batch.operations}
    marks = ",".join("?" * len(entries))
    found = connection.execute(
        f"SELECT n, id, etag, expires, body, z, zn FROM {batch.layout.documents}"  # noqa: S608 - our own table names
        f" WHERE pk = ? AND id IN ({marks})",
        (batch.partition_key, *entries),
    )
    for number, id, etag, expires, body, z, zn in found:
        binary = {
            name: value for name, value in (("z", z), ("zn", zn)) if value is not None
        }
        entry = entries[id]
        entry.number, entry.before, entry.before_binary = number, body, binary
        if expires is None or expires > now_seconds:
            entry.etag, entry.after = etag, Encoded(body, binary)
    return entries


def _new_etag() -> str:
    return f"{getrandbits(64):016x}"


def _play(
    entry: _Entry, operation: Operation, encoded: Encoded | None
) -> Rejection | None:
    match operation:
        case Create():
            if entry.after is not None:
                return Rejection.EXISTS
        case Upsert():
            pass
        case Replace(_, etag) | Delete(_, etag):
            if entry.after is None:
                return Rejection.MISSING
            if etag is not None and etag != entry.etag:
                return Rejection.CONDITION
        case Patch():
            return _play_patch(entry, operation)
    entry.changed = True
    entry.after, entry.document = encoded, None
    entry.etag = None if encoded is None else _new_etag()
    return None


def _play_patch(entry: _Entry, patch: Patch) -> Rejection | None:
    if entry.after is None:
        return Rejection.MISSING
    document = _decoded(entry)
    if patch.condition is not None and not matches(patch.condition, document):
        return Rejection.CONDITION
    changed = dict(document) | entry.after.binary
    apply_patch(changed, patch)
    entry.after = encode(changed)
    entry.document = {
        name: value for name, value in changed.items() if name not in BINARY_FIELDS
    }
    entry.etag = _new_etag()
    entry.changed = True
    return None


def _decoded(entry: _Entry) -> Document:
    """The document without binary fields, not shared with what was given out."""
    assert entry.after is not None
    document: Document = orjson.loads(entry.after.body)
    return document


def _left_behind(entry: _Entry, operation: Operation) -> Document | None:
    match operation:
        case Delete():
            return None
        case Patch():
            assert entry.document is not None
            return entry.document | {"_etag": entry.etag}
        case _:
            return {"id": operation.document["id"], "_etag": entry.etag}


def _write(
    connection: sqlite3.Connection,
    batch: Batch,
    id: str,
    entry: _Entry,
    now_seconds: float,
) -> None:
    layout, partition_key = batch.layout, batch.partition_key
    old = _rows(layout, partition_key, entry.before)
    new: set[Row] = set()
    if entry.after is None:
        if entry.number is not None:
            _remove(connection, layout, entry.number, old)
        return
    document = entry.document or orjson.loads(entry.after.body)
    new = rows(layout, partition_key, document)
    ttl = document.get("ttl")
    expires = now_seconds + ttl if ttl is not None and ttl > 0 else None
    after = entry.after
    z, zn = after.binary.get("z"), after.binary.get("zn")
    if entry.number is None:
        entry.number = connection.execute(
            f"INSERT INTO {layout.documents} (pk, id, etag, expires, body, z, zn)"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (partition_key, id, entry.etag, expires, after.body, z, zn),
        ).lastrowid
    elif after.binary == entry.before_binary:
        connection.execute(
            f"UPDATE {layout.documents} SET etag = ?, expires = ?, body = ?"  # noqa: S608
            " WHERE n = ?",
            (entry.etag, expires, after.body, entry.number),
        )
    else:
        connection.execute(
            f"UPDATE {layout.documents} SET etag = ?, expires = ?, body = ?, z = ?,"  # noqa: S608
            " zn = ? WHERE n = ?",
            (entry.etag, expires, after.body, z, zn, entry.number),
        )
    assert entry.number is not None
    _remove_rows(connection, layout, entry.number, old - new)
    added = [(*row, entry.number) for row in new - old]
    if added:
        connection.executemany(
            f"INSERT INTO {layout.index} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            added,
        )


def _rows(layout: Layout, partition_key: str, body: bytes | None) -> set[Row]:
    if body is None:
        return set()
    return rows(layout, partition_key, orjson.loads(body))


def _remove(
    connection: sqlite3.Connection, layout: Layout, number: int, old: set[Row]
) -> None:
    connection.execute(
        f"DELETE FROM {layout.documents} WHERE n = ?",  # noqa: S608
        (number,),
    )
    _remove_rows(connection, layout, number, old)


def _remove_rows(
    connection: sqlite3.Connection, layout: Layout, number: int, old: Iterable[Row]
) -> None:
    removed: list[tuple[Any, ...]] = [(*row, number) for row in old]
    if removed:
        connection.executemany(
            f"DELETE FROM {layout.index}"  # noqa: S608
            " WHERE p = ? AND s = ? AND v = ? AND o = ? AND n = ?",
            removed,
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
    for number, partition_key, body in expired:
        _remove(connection, layout, number, _rows(layout, partition_key, body))
    return len(expired)
