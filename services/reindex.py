"""Reindex: writes the values of new query tags of instances that are stored already.

Works down from the highest watermark at the time the tags became known: every store
that does not know them yet is below it or is indexed again by its publisher. A value
at study or series level is replaced only by that of a newer instance.

Source: design decision 4.10.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dicomweb import tag_values
from dicomweb.errors import StoreUnavailable
from dicomweb.query_tags import Level, QueryTag
from dicomweb.validation import ErrorCode
from services import documents as doc
from services import instances, retrieve
from services.runtime import Runtime
from services.study_commits import (
    MAX_OPERATIONS,
    StudyState,
    copied,
    guards,
    next_revision,
)
from stores import containers
from stores.ports import (
    BlobMissing,
    Document,
    Equals,
    In,
    Operation,
    Patch,
    Query,
    Scalar,
    Upsert,
)

logger = logging.getLogger(__name__)

REINDEX_ACTION = "Reindex"
STUDIES_AT_ONCE = 5
PAGE = 1000
_TRIES = 100


@dataclass(frozen=True, slots=True)
class TagError:
    """A value that cannot be indexed.

    Attributes:
        watermark: Of the instance's first version.
    """

    tag_key: int
    pk: str
    partition_name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    watermark: int
    code: ErrorCode

    @property
    def instance_document_id(self) -> str:
        """Where the instance is, in its logical partition."""
        return doc.instance_id(self.series_instance_uid, self.sop_instance_uid)


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
    """First watermark of the newest instance, 0 in an empty archive."""
    return await instances.highest_first_watermark(runtime.documents)


async def first_watermarks(runtime: Runtime, end: int, *, limit: int) -> list[int]:
    """Watermarks of the first versions of instances, newest first, up to `end`."""
    rows = await instances.newest_first(runtime.documents, end, limit=limit)
    return [int(row["sk"]) for row in rows]


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
    rows = await instances.newest_first(
        runtime.documents, end, start=start, limit=limit
    )
    report = ReindexReport(len(rows))
    studies: dict[str, list[str]] = {}
    for row in rows:
        studies.setdefault(row["pk"], []).append(row["id"])
        report.lowest = int(row["sk"])
    at_once = asyncio.Semaphore(STUDIES_AT_ONCE)

    async def index(pk: str, ids: Sequence[str]) -> None:
        async with at_once:
            for piece in pieces(ids):
                report.errors += await index_instances(runtime, pk, piece, tags)

    await asyncio.gather(*(index(pk, ids) for pk, ids in studies.items()))
    return report


def pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The instances of a study, so many at a time as one commit may change."""
    start = 0
    series: set[str] = set()
    for position, id in enumerate(ids):
        series.add(_series_of(id))
        if 2 + len(series) + position + 1 - start > MAX_OPERATIONS:
            yield ids[start:position]
            start = position
            series = {_series_of(id)}
    if start < len(ids):
        yield ids[start:]


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
        ids: Of the instances, as many as `pieces` allows.
        tags: To be indexed.
        wait: Whether to wait for the catalog.
    """
    series = {_series_of(id) for id in ids}
    for _ in range(_TRIES):
        # The study before its instances: the commit is refused unless they are still
        # those of this very study, and not of one deleted and stored again since.
        before = await runtime.commits.load(pk, series, ())
        if not before.live:
            return []
        rows = await _instances(runtime, pk, ids)
        errors: list[TagError] = []
        after, operations = await _changes(runtime, pk, before, rows, tags, errors)
        if after is None or after.study is None:
            return errors
        if await _commit(runtime, pk, before, after, operations):
            if wait:
                await runtime.publisher.settled(pk)
            return errors
    raise StoreUnavailable("Too many writers of one study. Please retry.")


async def _commit(
    runtime: Runtime,
    pk: str,
    before: StudyState,
    after: StudyState,
    operations: Sequence[Operation],
) -> bool:
    assert after.study is not None
    changed = [
        id for id, row in after.series.items() if row is not before.series.get(id)
    ]
    for id in changed:
        after.series[id]["rev"] = after.study["rev"]
    event = runtime.commits.event(after, REINDEX_ACTION, [])
    return await runtime.commits.apply(
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


_FIELDS = (
    *("t", "w", "ow", "se", "u", "m", "mb", "b", "x", "xw", "words", "next", "z"),
    "zn",
)


def _series_of(id: str) -> str:
    """Id of the series document of an instance document."""
    return f"se:{id.split(':')[1]}"


async def _instances(runtime: Runtime, pk: str, ids: Sequence[str]) -> list[Document]:
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    query = Query(In(("id",), tuple(ids)), fields=("id", *_FIELDS))
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
    """The state with the values, and changes of instances; None if nothing is new."""
    assert before.study is not None
    study = copied(before.study)
    series = dict(before.series)
    operations: list[Operation] = []
    changed = False
    for row in sorted(rows, key=lambda row: int(row["w"])):
        id = _series_of(row["id"])
        if id not in series:
            continue
        values = await _values(runtime, pk, study, row, tags, errors)
        series_row = copied(series[id])
        watermark = doc.version_of(study, row, original=False)["w"]
        changed |= doc.put_tag_values(study, values, tags, Level.STUDY, watermark)
        if doc.put_tag_values(series_row, values, tags, Level.SERIES, watermark):
            series[id] = series_row
            changed = True
        indexed = {name: dict(row.get(name, {})) for name in _INDEXED}
        if doc.put_tag_values(indexed, values, tags, Level.INSTANCE, watermark):
            operations.append(
                Patch(
                    row["id"],
                    sets={(name,): indexed[name] for name in _INDEXED},
                    condition=Equals(("w",), row["w"]),
                )
            )
            changed = True
    if not changed:
        return None, []
    study["rev"] = next_revision(before.study, runtime.now())
    return StudyState(study, series, set(), set(before.asked)), operations


_INDEXED = ("x", "xw", "words")


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
                    watermark=row["ow"],
                    code=value,
                )
            )
        elif value is not None:
            values[tag.key] = value
    return values
