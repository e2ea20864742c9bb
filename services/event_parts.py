"""Entries of an event that are too many for one document.

They stand in documents of their own beside the event, written before its commit, so
one small commit makes them all count. Feed and index read them piece by piece. Parts
that no event names were left by a commit that did not come to be.

Fields of a part: `token` of all parts of one event, `job` that wrote them, `entries`.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from stores import containers
from stores.ports import (
    And,
    Create,
    Delete,
    Document,
    Documents,
    Equals,
    Query,
    Range,
)

logger = logging.getLogger(__name__)

ENTRIES = 2000
"""Of one document at most."""
_KIND = "en"
_PAGE = 100

Entries = Sequence[list[Any]]


def _part_id(token: str, number: int) -> str:
    return f"{_KIND}:{token}:{number:06d}"


def ids(event: Document) -> list[str]:
    """Of the parts of the event; none where it has its entries itself."""
    parts = event.get("parts")
    if parts is None:
        return []
    return [_part_id(parts["token"], number) for number in range(parts["count"])]


async def write(
    documents: Documents, pk: str, job_id: str, token: str, entries: Entries
) -> Document:
    """Stores the entries; what their event is to say of them.

    Args:
        documents: The index.
        pk: Logical partition of the study.
        job_id: Whose they are, for `drop_unused`.
        token: New for each call.
        entries: `[series, sop, watermark]`.
    """
    starts = range(0, len(entries), ENTRIES)
    for number, start in enumerate(starts):
        part = {
            "id": _part_id(token, number),
            "t": _KIND,
            "token": token,
            "job": job_id,
            "entries": list(entries[start : start + ENTRIES]),
        }
        await documents.batch(containers.DICOM, pk, [Create(part)])
    return {"token": token, "count": len(starts)}


async def pieces(
    documents: Documents, pk: str, event: Document
) -> AsyncIterator[Document]:
    """The event itself, or one like it for each of its parts, in order."""
    if "parts" not in event:
        yield event
        return
    for number, id in enumerate(ids(event)):
        part = await documents.read(containers.DICOM, pk, id)
        if part is None:
            logger.error("a part of %s is lost: %s", event["id"], id)
            continue
        yield event | {"part": number, "entries": part["entries"], "n": (0, 0, 0)}


async def drop_unused(documents: Documents, pk: str, job_id: str) -> None:
    """Deletes what the job wrote for commits that did not come to be."""
    written = await _all(documents, pk, Equals(("t",), _KIND), ("job", "token"))
    mine = [row for row in written if row["job"] == job_id]
    if not mine:
        return
    waiting = And((Equals(("t",), "ev"), Range(("pending",), low="0")))
    named = {
        row["parts"]["token"]
        for row in await _all(documents, pk, waiting, ("parts",))
        if row.get("parts")
    }
    unused = [Delete(row["id"]) for row in mine if row["token"] not in named]
    for start in range(0, len(unused), _PAGE):
        piece = unused[start : start + _PAGE]
        await documents.batch(containers.DICOM, pk, piece)


async def _all(
    documents: Documents, pk: str, where: Equals | And, fields: tuple[str, ...]
) -> list[Document]:
    query = Query(where, fields=fields)
    rows: list[Document] = []
    after = None
    while True:
        page = await documents.query(
            containers.DICOM, query, partition_key=pk, limit=_PAGE, after=after
        )
        rows += page.documents
        if page.after is None:
            return rows
        after = page.after
