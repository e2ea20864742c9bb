"""The catalog: studies and series as searches see them, kept in step with `dicom`.

Rows of a study are written under the etag of its catalog `st`; a row of an older
revision never replaces a newer one.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicomweb.errors import StoreUnavailable
from services import documents as doc
from services.merging import Merger
from stores import containers
from stores.ports import (
    Committed,
    Create,
    Delete,
    Document,
    Documents,
    In,
    Operation,
    Query,
    Range,
    Replace,
    Upsert,
)

_TRIES = 50
_REMEMBERED = 10_000
_ROWS = 90
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What a commit changed of a study's rows, as documents of `dicom`."""

    pk: str
    study: Document
    series: tuple[Document, ...] = ()
    removed: tuple[str, ...] = ()


class Catalog:
    """Writes the catalog; changes of one study that wait share a write."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._mergers: dict[str, Merger[CatalogChange, None]] = {}
        self._written: OrderedDict[str, tuple[str, int]] = OrderedDict()

    async def put(self, change: CatalogChange) -> None:
        """Brings the study's rows to at least this change's revision.

        Raises:
            StoreUnavailable: The catalog cannot be written.
        """
        merger = self._mergers.get(change.pk)
        if merger is None:
            merger = Merger(self._put_all)
            self._mergers[change.pk] = merger
        try:
            await merger.submit(change)
        finally:
            if merger.idle:
                self._mergers.pop(change.pk, None)

    async def series_ids(self, pk: str) -> list[str]:
        """Ids of the series rows of a study."""
        query = Query(Range(("id",), low="se:", high="se:~"), fields=("id",))
        ids: list[str] = []
        after = None
        while True:
            page = await self._documents.query(
                containers.CATALOG, query, partition_key=pk, limit=_PAGE, after=after
            )
            ids += [row["id"] for row in page.documents]
            if page.after is None:
                return ids
            after = page.after

    async def _put_all(self, changes: Sequence[CatalogChange]) -> list[None]:
        study, series, removed = _merged(changes)
        pk = changes[0].pk
        rows = [doc.catalog_series(study, row) | {"rev": row["rev"]} for row in series]
        pieces = max(1, -(-(len(rows) + len(removed)) // _ROWS))
        for piece in range(pieces):
            await self._put_rows(pk, study, rows[piece::pieces], removed[piece::pieces])
        return [None] * len(changes)

    async def _put_rows(
        self, pk: str, study: Document, rows: Sequence[Document], removed: Sequence[str]
    ) -> None:
        row = _study_row(study)
        for _ in range(_TRIES):
            etag = None if removed else self._etag_of_older(pk, row["rev"])
            if etag is not None:
                operations: list[Operation] = [Replace(row, if_etag=etag)]
                operations += [Upsert(series) for series in rows]
            else:
                operations = await self._checked(pk, row, rows, removed)
            result = await self._documents.batch(containers.CATALOG, pk, operations)
            if isinstance(result, Committed):
                self._remember(pk, result.etags[0], operations)
                return
            self._written.pop(pk, None)
        raise StoreUnavailable("The catalog is busy. Please retry.")

    async def _checked(
        self, pk: str, row: Document, rows: Sequence[Document], removed: Sequence[str]
    ) -> list[Operation]:
        """Operations against what is there now: nothing newer is overwritten."""
        there = await self._present(pk, [row["id"], *(r["id"] for r in rows), *removed])
        current = there.get(doc.STUDY)
        first: Operation
        if current is None:
            first = Create(row)
        elif current["rev"] <= row["rev"]:
            first = Replace(row, if_etag=current["_etag"])
        else:
            kept = {k: v for k, v in current.items() if k not in {"_etag", "pk"}}
            first = Replace(kept, if_etag=current["_etag"])
        newer = current["rev"] if current else 0
        return [
            first,
            *(
                Upsert(series)
                for series in rows
                if _is_newer(series, row["rev"], there.get(series["id"]), current)
            ),
            *(Delete(id) for id in removed if id in there and newer <= row["rev"]),
        ]

    async def _present(self, pk: str, ids: Iterable[str]) -> dict[str, Document]:
        query = Query(In(("id",), tuple(dict.fromkeys(ids))))
        found: dict[str, Document] = {}
        after = None
        while True:
            page = await self._documents.query(
                containers.CATALOG, query, partition_key=pk, limit=200, after=after
            )
            found |= {row["id"]: row for row in page.documents}
            if page.after is None:
                return found
            after = page.after

    def _etag_of_older(self, pk: str, revision: int) -> str | None:
        """Etag of what this process wrote last, unless a row of it may be newer."""
        etag, written = self._written.get(pk, (None, 0))
        return etag if written <= revision else None

    def _remember(
        self, pk: str, etag: str | None, operations: Sequence[Operation]
    ) -> None:
        rows = [
            operation.document
            for operation in operations
            if isinstance(operation, (Create, Replace, Upsert))
        ]
        self._written.pop(pk, None)
        if etag is None or rows[0].get("gone"):
            return
        # The study's row may be one that another process wrote, newer than the change.
        self._written[pk] = (etag, max(row["rev"] for row in rows))
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


def _is_newer(
    series: Document, revision: int, there: Document | None, study: Document | None
) -> bool:
    """Whether a series row of a change to this revision is to be written.

    Args:
        series: The row.
        revision: Of the study in the change.
        there: The row that the catalog has.
        study: The row of the study that the catalog has.
    """
    newest = study["rev"] if study else 0
    if there is None:
        # A newer change would have brought the row along, had the series still been.
        return bool(newest <= revision)
    if study and study.get("gone") and newest > series["rev"]:
        return False
    return bool(there["rev"] <= series["rev"])


def _study_row(study: Document) -> Document:
    if study["state"] == doc.LIVE:
        return doc.catalog_study(study) | {"rev": study["rev"]}
    row: Document = {"id": doc.STUDY, "gone": True, "rev": study["rev"]}
    if study["state"] == doc.GONE:
        row["ttl"] = doc.GONE_SECONDS
    return row


def _merged(
    changes: Sequence[CatalogChange],
) -> tuple[Document, list[Document], list[str]]:
    """The newest state of everything that the changes touch."""
    ordered = sorted(changes, key=lambda change: int(change.study["rev"]))
    series: dict[str, Document] = {}
    removed: dict[str, None] = {}
    for change in ordered:
        for row in change.series:
            series[row["id"]] = row
            removed.pop(row["id"], None)
        for id in change.removed:
            series.pop(id, None)
            removed[id] = None
    return ordered[-1].study, list(series.values()), list(removed)
