"""The change feed as clients see it: entries with what became of each instance.

An entry is `Deleted` when its instance is not there now, `Current` when the version it
is about is the current one, else `Replaced`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb.identifiers import DEFAULT_PARTITION, Partition
from services import documents as doc
from services import retrieve
from services.feed import FeedEntry
from services.runtime import Runtime
from stores import containers
from stores.ports import Document, In, Order, Query, Scalar

CURRENT, REPLACED, DELETED = "Current", "Replaced", "Deleted"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the feed and the state of its instance now.

    Attributes:
        metadata: Current DICOM JSON, when asked for and the instance is there.
    """

    entry: FeedEntry
    state: str
    metadata: dict[str, Any] | None = None


async def with_states(
    runtime: Runtime,
    entries: Sequence[FeedEntry],
    *,
    include_metadata: bool,
    base_url: str,
) -> list[Change]:
    """The entries with states, in the same order.

    Args:
        runtime: The stores.
        entries: From the feed.
        include_metadata: Whether current metadata come along.
        base_url: Start of BulkDataURIs, `https://host/v2`; the partition is added.
    """
    wanted: dict[str, dict[str, None]] = {}
    for entry in entries:
        pk, id = _key(entry)
        wanted.setdefault(pk, {})[id] = None
    found: dict[tuple[str, str], Document] = {}
    for pk, ids in wanted.items():
        for document in await _read(runtime, pk, list(ids), metadata=include_metadata):
            found[(pk, document["id"])] = document
    decoded: dict[tuple[str, str], dict[str, Any]] = {}
    changes = []
    for entry in entries:
        key = _key(entry)
        document = found.get(key)
        if document is None:
            changes.append(Change(entry, DELETED))
            continue
        state = CURRENT if document["w"] == entry.watermark else REPLACED
        if include_metadata and key not in decoded:
            base = _base_url(runtime, base_url, entry)
            filled = await retrieve.with_metadata(runtime, key[0], document)
            decoded[key] = retrieve.metadata_object(filled, base)
        changes.append(Change(entry, state, decoded.get(key)))
    await runtime.documents.flush()
    return changes


def _key(entry: FeedEntry) -> tuple[str, str]:
    partition = Partition(entry.partition_name)
    return (
        doc.study_pk(partition, entry.study_instance_uid),
        doc.instance_id(entry.series_instance_uid, entry.sop_instance_uid),
    )


def _base_url(runtime: Runtime, base_url: str, entry: FeedEntry) -> str:
    if not runtime.settings.data_partitions:
        return base_url
    return f"{base_url}/partitions/{entry.partition_name or DEFAULT_PARTITION}"


async def _read(
    runtime: Runtime, pk: str, ids: Sequence[str], *, metadata: bool
) -> list[Document]:
    """Current versions of those that are there, of a live study."""
    fields = retrieve.METADATA_FIELDS if metadata else ("t", "w", "ow", "next")
    query = Query(
        In(("id",), (doc.STUDY, *ids)),
        (Order(("id",), descending=True),),
        (*fields, "state", "flipped"),
    )
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    while True:
        page = await runtime.documents.query(
            containers.DICOM, query, partition_key=pk, limit=_PAGE, after=after
        )
        rows += page.documents
        if page.after is None:
            break
        after = page.after
    if not rows or rows[0]["id"] != doc.STUDY or rows[0]["state"] != doc.LIVE:
        return []
    study = rows[0]
    return [doc.version_of(study, row, original=False) for row in rows[1:]]
