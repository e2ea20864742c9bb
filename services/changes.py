"""The change feed as clients see it: entries with what became of each instance.

An entry is `Deleted` when its instance is not there now, `Current` when the version it
is about is the current one, else `Replaced`.
"""

from collections.abc import Sequence
from typing import Any

from dicomweb.change_feed import Action, Entry, State
from dicomweb.identifiers import Partition
from services import documents as doc
from services import retrieve
from services.feed import FeedEntry
from services.runtime import Runtime
from stores import containers
from stores.ports import Document, In, Order, Query, Scalar

_PAGE = 500


async def with_states(
    runtime: Runtime,
    entries: Sequence[FeedEntry],
    *,
    include_metadata: bool,
    base_url: str,
) -> list[Entry]:
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
    metadata: dict[tuple[str, str], dict[str, Any]] = {}
    if include_metadata:
        for key, document in found.items():
            filled = await retrieve.with_metadata(runtime, key[0], document)
            base = _base_url(runtime, base_url, document["p"])
            metadata[key] = retrieve.metadata_object(filled, base)
    await runtime.documents.flush()
    return [
        _changed(entry, found.get(_key(entry)), metadata.get(_key(entry)))
        for entry in entries
    ]


def _changed(
    entry: FeedEntry, current: Document | None, metadata: dict[str, Any] | None
) -> Entry:
    if current is None:
        state = State.DELETED
    elif current["w"] == entry.watermark:
        state = State.CURRENT
    else:
        state = State.REPLACED
    return Entry(
        sequence=entry.sequence,
        partition_name=entry.partition_name,
        study_instance_uid=entry.study_instance_uid,
        series_instance_uid=entry.series_instance_uid,
        sop_instance_uid=entry.sop_instance_uid,
        action=Action(entry.action),
        timestamp=entry.timestamp,
        state=state,
        metadata=metadata,
    )


def _key(entry: FeedEntry) -> tuple[str, str]:
    partition = Partition(entry.partition_name)
    return (
        doc.study_pk(partition, entry.study_instance_uid),
        doc.instance_id(entry.series_instance_uid, entry.sop_instance_uid),
    )


def _base_url(runtime: Runtime, base_url: str, partition_name: str) -> str:
    if not runtime.settings.data_partitions:
        return base_url
    return f"{base_url}/partitions/{partition_name}"


async def _read(
    runtime: Runtime, pk: str, ids: Sequence[str], *, metadata: bool
) -> list[Document]:
    """Current versions of those that are there, of a live study."""
    fields = retrieve.METADATA_FIELDS if metadata else ("t", "w", "ow", "next")
    query = Query(
        In(("id",), (doc.STUDY, *ids)),
        (Order(("id",), descending=True),),
        (*fields, "state", "flipped", "p"),
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
    return [
        doc.version_of(study, row, original=False) | {"p": study["p"]}
        for row in rows[1:]
    ]
