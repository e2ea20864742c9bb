"""Reindex: writes the values of new query tags of instances that are stored already.

Works down from the highest watermark at the time the tags became known: every store
that does not know them yet is below it or is indexed again by its publisher. A value
at study or series level is replaced only by that of a newer instance.

Source: design decision 4.10.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from dicomweb import tag_values
from dicomweb.errors import StoreUnavailable
from dicomweb.query_tags import Level, QueryTag
from dicomweb.validation import ErrorCode
from services import documents as doc
from services import retrieve
from services.runtime import Runtime
from services.study_commits import StudyState, copied, guards, next_revision
from stores import containers
from stores.ports import (
    And,
    BlobMissing,
    Document,
    In,
    Operation,
    Order,
    Prefix,
    Query,
    Range,
    Replace,
    Scalar,
    Upsert,
)

logger = logging.getLogger(__name__)

REINDEX_ACTION = "Reindex"
CHUNK = 40
PAGE = 1000
_TRIES = 100


@dataclass(frozen=True, slots=True)
class TagError:
    """A value that cannot be indexed."""

    tag_key: int
    pk: str
    partition_name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    watermark: int
    code: ErrorCode


@dataclass(slots=True)
class ReindexReport:
    """What a batch did.

    Attributes:
        instances: Looked at.
        lowest: Lowest watermark looked at; None where there was nothing.
    """

    instances: int = 0
    lowest: int | None = None
    errors: list[TagError] = field(default_factory=list)


async def highest_watermark(runtime: Runtime) -> int:
    """Watermark of the newest instance version, 0 in an empty archive."""
    page = await runtime.documents.query(
        containers.DICOM,
        Query(Range(("w",), low=1), (Order(("w",), descending=True),), ("w",)),
        limit=1,
    )
    return int(page.documents[0]["w"]) if page.documents else 0


async def first_watermarks(runtime: Runtime, end: int, *, limit: int) -> list[int]:
    """Watermarks of the first versions of instances, newest first, up to `end`."""
    return [int(row["sk"]) for row in await _newest(runtime, 1, end, limit)]


async def _newest(runtime: Runtime, start: int, end: int, limit: int) -> list[Document]:
    """Instances by the watermark of their first version, newest first.

    That watermark never changes. By the current one a bulk update could lift an
    instance over the ranges that are still to come.
    """
    query = Query(
        And(
            (
                Prefix(("k",), "i|"),
                Range(("sk",), low=doc.sort_key(start), high=doc.sort_key(end)),
            )
        ),
        (Order(("sk",), descending=True),),
        ("pk", "sk"),
    )
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    while len(rows) < limit:
        page = await runtime.documents.query(
            containers.DICOM, query, limit=limit - len(rows), after=after
        )
        rows += page.documents
        if page.after is None:
            break
        after = page.after
    return rows


async def batch(
    runtime: Runtime,
    tags: Sequence[QueryTag],
    end: int,
    *,
    start: int = 1,
    limit: int = PAGE,
) -> ReindexReport:
    """Indexes the newest instances whose first watermark is from start to end.

    Args:
        runtime: The stores.
        tags: To be indexed.
        end: Highest watermark to look at.
        start: Lowest watermark to look at.
        limit: How many instances.
    """
    rows = await _newest(runtime, start, end, limit)
    report = ReindexReport(len(rows))
    studies: dict[str, list[str]] = {}
    for row in rows:
        studies.setdefault(row["pk"], []).append(row["id"])
        report.lowest = int(row["sk"])
    for pk, ids in studies.items():
        for first in range(0, len(ids), CHUNK):
            report.errors += await index_instances(
                runtime, pk, ids[first : first + CHUNK], tags
            )
    return report


async def index_instances(
    runtime: Runtime,
    pk: str,
    ids: Sequence[str],
    tags: Sequence[QueryTag],
    *,
    wait: bool = True,
) -> list[TagError]:
    """Indexes these instances of one study in one commit; errors are returned.

    Instances that are gone meanwhile are left out.

    Args:
        runtime: The stores.
        pk: Logical partition of the study.
        ids: Of the instances, at most CHUNK.
        tags: To be indexed.
        wait: Whether to wait for the catalog.
    """
    for _ in range(_TRIES):
        errors: list[TagError] = []
        rows = await _instances(runtime, pk, ids)
        before = await runtime.commits.load(pk, {f"se:{row['se']}" for row in rows}, ())
        if not rows or not before.live:
            return []
        after, operations = await _changes(runtime, pk, before, rows, tags, errors)
        if after is None or after.study is None:
            return errors
        changed = [
            id for id, row in after.series.items() if row is not before.series.get(id)
        ]
        for id in changed:
            after.series[id]["rev"] = after.study["rev"]
        event = runtime.commits.event(after, REINDEX_ACTION, [])
        done = await runtime.commits.apply(
            pk,
            before,
            after,
            event,
            [
                *guards(event, before.study, after.study),
                *(Upsert(after.series[id]) for id in changed),
                *operations,
            ],
            changed,
        )
        if done:
            if wait:
                await runtime.publisher.settled(pk)
            return errors
    raise StoreUnavailable("Too many writers of one study. Please retry.")


_FIELDS = (
    *("t", "k", "sk", "w", "ow", "se", "u", "ts", "len", "sha", "at", "nf", "a", "f"),
    *("m", "mb", "b", "fx", "fb", "defl", "x", "xw", "words", "next", "first", "uj"),
    *("z", "zn", "_etag"),
)


async def _instances(runtime: Runtime, pk: str, ids: Sequence[str]) -> list[Document]:
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    query = Query(In(("id",), tuple(ids)), fields=_FIELDS)
    while True:
        page = await runtime.documents.query(
            containers.DICOM, query, partition_key=pk, limit=200, after=after
        )
        rows += page.documents
        if page.after is None:
            return rows
        after = page.after


async def _changes(
    runtime: Runtime,
    pk: str,
    before: StudyState,
    rows: Sequence[Document],
    tags: Sequence[QueryTag],
    errors: list[TagError],
) -> tuple[StudyState | None, list[Operation]]:
    """The state with the values and instances to replace; None if nothing is new."""
    assert before.study is not None
    study = copied(before.study)
    series = dict(before.series)
    operations: list[Operation] = []
    changed = False
    for row in sorted(rows, key=lambda row: int(row["w"])):
        values = await _values(runtime, pk, study, row, tags, errors)
        id = f"se:{row['se']}"
        if id not in series:
            continue
        series_row = copied(series[id])
        watermark = row["w"]
        changed |= doc.put_tag_values(study, values, tags, Level.STUDY, watermark)
        if doc.put_tag_values(series_row, values, tags, Level.SERIES, watermark):
            series[id] = series_row
            changed = True
        new = {k: v for k, v in row.items() if k not in {"_etag", "pk"}}
        for name in ("x", "xw", "words"):
            new[name] = dict(new.get(name, {}))
        if doc.put_tag_values(new, values, tags, Level.INSTANCE, watermark):
            operations.append(Replace(new, if_etag=row["_etag"]))
            changed = True
    if not changed:
        return None, []
    study["rev"] = next_revision(before.study, runtime.now())
    return StudyState(study, series, set(), set(before.asked)), operations


async def _values(
    runtime: Runtime,
    pk: str,
    study: Document,
    row: Document,
    tags: Sequence[QueryTag],
    errors: list[TagError],
) -> dict[int, Scalar]:
    """Values of the tags in the current version; what cannot be indexed is an error."""
    try:
        current = doc.version_of(study, row, original=False)
        document = await retrieve.with_metadata(runtime, pk, current)
    except BlobMissing:
        logger.warning("metadata of %s are missing; left to scrub", row["id"])
        return {}
    elements = retrieve.metadata_object(document, "")
    values: dict[int, Scalar] = {}
    study_uid, series_uid, sop_uid = row["u"]
    for tag in tags:
        value = tag_values.value_of(elements, tag)
        if isinstance(value, ErrorCode):
            errors.append(
                TagError(
                    tag_key=tag.key,
                    pk=pk,
                    partition_name=study["p"],
                    study_instance_uid=study_uid,
                    series_instance_uid=series_uid,
                    sop_instance_uid=sop_uid,
                    watermark=row["w"],
                    code=value,
                )
            )
        elif value is not None:
            values[tag.key] = value
    return values
