"""Queries on a SQLite connection: which way to the documents, then page by page."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stores.conditions import (
    Predicate,
    compare_keys,
    order_keys,
    paths,
    predicate,
    sorted_keys,
)
from stores.ports import (
    BINARY_FIELDS,
    And,
    Document,
    Equals,
    Exists,
    In,
    Page,
    Query,
    Scalar,
)
from stores.query_sql import (
    Seek,
    Shape,
    by_id,
    conjuncts,
    count_statement,
    everything,
    partition_statement,
    rows_statement,
    seek_of,
    shape_of,
)
from stores.sqlite_index import Layout

MAX_PAGE_BYTES = 4_000_000
FEW_ROWS = 64
SELECTIVE_ROWS = 8_000
"""Up to so many index rows are sorted without looking for a better way."""
FEW_IDS = 128
MAX_REFUSED_DOCUMENTS = 250
"""So many documents may be read in vain before the indexes are intersected."""
PLAIN_COLUMNS = "d.pk, d.id, d.etag, d.expires, d.body, NULL, NULL"
ALL_COLUMNS = "d.pk, d.id, d.etag, d.expires, d.body, d.z, d.zn"


@dataclass(frozen=True, slots=True)
class Search:
    """A query with all that goes with it."""

    layout: Layout
    query: Query
    partition_key: str | None
    limit: int
    after: tuple[Scalar, ...] | None
    offset: int


class _TooManyRefused(Exception):
    """The scan reads too many documents in vain."""


def check_search(search: Search) -> None:
    """Refuses (ValueError) what Cosmos DB could not answer from its indexes."""
    query = search.query
    if search.limit < 1 or search.offset < 0:
        raise ValueError("A page holds at least 1 document after 0 or more")
    if not query.order:
        raise ValueError("A query has an order")
    if search.after is not None and len(search.after) != len(query.order):
        raise ValueError("The keyset has one value for each key of the order")
    if search.partition_key is None:
        used = [*paths(query.where), *(key.path for key in query.order)]
        for path in used:
            if not search.layout.covers(path):
                raise ValueError(
                    f"{'.'.join(path)} is not indexed in {search.layout.name}"
                )


def is_small(search: Search) -> bool:
    """Whether the query only looks up a few ids."""
    return search.partition_key is not None and any(
        isinstance(part, Equals | In)
        and part.path == ("id",)
        and (isinstance(part, Equals) or len(part.values) <= FEW_IDS)
        for part in conjuncts(search.query.where)
    )


def document_of(row: Sequence[Any]) -> Document:
    """The document of a row of ALL_COLUMNS or PLAIN_COLUMNS."""
    partition_key, _, etag, _, body, z, zn = row
    document: Document = orjson.loads(body)
    document["pk"] = partition_key
    document["_etag"] = etag
    if z is not None:
        document["z"] = z
    if zn is not None:
        document["zn"] = zn
    return document


def read(
    connection: sqlite3.Connection,
    layout: Layout,
    partition_key: str,
    id: str,
    now_seconds: float,
) -> Document | None:
    """The document, or None."""
    row = connection.execute(
        f"SELECT {ALL_COLUMNS} FROM {layout.documents} AS d WHERE pk = ? AND id = ?",  # noqa: S608 - our own names
        (partition_key, id),
    ).fetchone()
    if row is None or (row[3] is not None and row[3] <= now_seconds):
        return None
    return document_of(row)


def run(connection: sqlite3.Connection, search: Search, now_seconds: float) -> Page:
    """The page.

    Raises:
        ValueError: A Range without bounds.
    """
    if search.partition_key is None:
        shape = shape_of(search.layout, search.query, search.after)
        runner = _Run(connection, search, search.query, now_seconds)
        return runner.indexed_page(shape)
    if by_id(search.query.where):
        runner = _Run(connection, search, search.query, now_seconds)
        return runner.partition_page(search.partition_key)
    inside = Equals(("pk",), search.partition_key)
    query = replace(search.query, where=And((inside, *conjuncts(search.query.where))))
    shape = shape_of(search.layout, query, search.after)
    runner = _Run(connection, search, query, now_seconds)
    if not shape.scope_fixed:
        return runner.unscoped_page(shape, search.partition_key)
    if [key.path for key in query.order] == [("id",)]:
        with suppress(_TooManyRefused):
            return runner.partition_page(search.partition_key, MAX_REFUSED_DOCUMENTS)
    return runner.indexed_page(shape)


class _Run:
    """One query under way."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        search: Search,
        query: Query,
        now_seconds: float,
    ) -> None:
        self._connection = connection
        self._search = search
        self._query = query
        self._holds: Predicate = predicate(query.where)
        self._order = query.order
        binary = not query.fields or not BINARY_FIELDS.isdisjoint(query.fields)
        self._columns = ALL_COLUMNS if binary else PLAIN_COLUMNS
        self._now = now_seconds

    # --- ways to the documents --------------------------------------------------

    def rows(
        self, shape: Shape, seek: Seek, also: Sequence[Seek] = ()
    ) -> Iterator[Any]:
        statement, parameters = rows_statement(
            self._search.layout, shape, seek, also, self._columns
        )
        return self._connection.execute(statement, parameters)

    def _all_rows(self) -> Iterator[Any]:
        return self._connection.execute(
            f"SELECT {self._columns} FROM {self._search.layout.documents} AS d"  # noqa: S608 - our own names
        )

    def partition_page(self, partition_key: str, budget: int | None = None) -> Page:
        """A page by a walk along the ids of the partition."""
        statement, parameters = partition_statement(
            self._search.layout, partition_key, self._query, self._columns
        )
        found = self._connection.execute(statement, parameters)
        if [key.path for key in self._order] == [("id",)]:
            return self.page_in_order(found, budget)
        return self.page_sorted(found)

    def unscoped_page(self, shape: Shape, partition_key: str) -> Page:
        """A page of a partition, through rare fields where they are fewer than ids.

        Without a scope only the question whether a field exists is one seek.
        """
        layout = self._search.layout
        seeks = [
            seek
            for part in shape.rest
            if isinstance(part, Exists) and (seek := seek_of(layout, shape, part))
        ]
        best, rows = self._cheapest(seeks)
        if best is not None and rows < SELECTIVE_ROWS:
            (size,) = self._connection.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM {layout.documents}"  # noqa: S608 - our own names
                " WHERE pk = ? LIMIT ?)",
                (partition_key, rows + FEW_ROWS),
            ).fetchone()
            if size == rows + FEW_ROWS:
                return self.page_sorted(self.rows(shape, best))
        return self.partition_page(partition_key)

    def indexed_page(self, shape: Shape) -> Page:
        """A page by whichever way through the index looks cheapest."""
        seeks = [
            seek
            for part in shape.rest
            if (seek := seek_of(self._search.layout, shape, part))
        ]
        best, rows = self._cheapest(seeks)
        whole = everything(shape)
        if not shape.natural:
            if best is None and not shape.scope.where:
                return self.page_sorted(self._all_rows())
            return self.page_sorted(self.rows(shape, best or whole))
        if best is None:
            return self.page_in_order(self.rows(shape, whole))
        others = [seek for seek in seeks if seek is not best]
        if rows < SELECTIVE_ROWS:
            start = best
        else:
            start = next((seek for seek in seeks if seek.ordered), whole)
        few = start is best and (rows <= MAX_REFUSED_DOCUMENTS or not others)
        try:
            return self.page_in_order(
                self.rows(shape, start), None if few else MAX_REFUSED_DOCUMENTS
            )
        except _TooManyRefused:
            return self.page_in_order(self.rows(shape, best, others))

    def _cheapest(self, seeks: Sequence[Seek]) -> tuple[Seek | None, int]:
        best: Seek | None = None
        least = SELECTIVE_ROWS
        for seek in sorted(seeks, key=lambda each: not each.ordered):
            statement = count_statement(self._search.layout, seek)
            parameters = (*seek.parameters, least)
            (count,) = self._connection.execute(statement, parameters).fetchone()
            if best is None or count < least:
                best, least = seek, min(count, least)
            if least <= FEW_ROWS:
                break
        return best, least

    # --- pages ------------------------------------------------------------------

    def _candidates(
        self, found: Iterator[Any], budget: int | None = None
    ) -> Iterator[tuple[tuple[Scalar, ...], Document, int]]:
        """Keys, document and size of what holds and comes after the keyset."""
        after, order = self._search.after, self._order
        refused = 0
        for row in found:
            if row[3] is not None and row[3] <= self._now:
                continue
            document = document_of(row)
            keys = order_keys(order, document)
            if (
                keys is None
                or not self._holds(document)
                or (after is not None and compare_keys(order, keys, after) <= 0)
            ):
                refused += 1
                if budget is not None and refused > budget:
                    raise _TooManyRefused
                continue
            yield keys, document, len(row[4]) + len(row[5] or b"") + len(row[6] or b"")

    def page_in_order(self, found: Iterator[Any], budget: int | None = None) -> Page:
        return self._page(self._candidates(found, budget))

    def page_sorted(self, found: Iterator[Any]) -> Page:
        pairs = [
            (keys, (document, size)) for keys, document, size in self._candidates(found)
        ]
        return self._page(
            (keys, document, size)
            for keys, (document, size) in sorted_keys(self._order, pairs)
        )

    def _page(self, found: Iterator[tuple[tuple[Scalar, ...], Document, int]]) -> Page:
        documents: list[Document] = []
        last: tuple[Scalar, ...] | None = None
        size_bytes, skipped = 0, 0
        for keys, document, size in found:
            if skipped < self._search.offset:
                skipped += 1
                continue
            size_bytes += size
            if len(documents) == self._search.limit or (
                documents and size_bytes > MAX_PAGE_BYTES
            ):
                return Page(tuple(documents), last)
            documents.append(self._projected(document))
            last = keys
        return Page(tuple(documents), None)

    def _projected(self, document: Document) -> Document:
        fields = self._query.fields
        if not fields:
            return document
        return {name: document[name] for name in ("id", *fields) if name in document}
