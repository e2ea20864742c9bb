"""Bulk update of a study: new versions are staged, become current at once, are folded.

`begin` locks the study for a job. `stage` writes new blobs and `next` beside the
current version of each instance, which changes nothing visible. `flip` makes all of
them current in one commit. `fold` moves them into place and drops intermediate
versions; the original stays. `abandon` undoes what was staged. Every step may be
repeated.

Source: design decision 4.7; api rules of $bulkUpdate.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from dicomweb.errors import (
    Conflict,
    InvalidRequest,
    MalformedInstance,
    StoreUnavailable,
)
from dicomweb.identifiers import Partition
from dicomweb.query_tags import Level, QueryTag
from services import documents as doc
from services import event_parts
from services.cleanup import remove_later
from services.new_versions import with_new_version
from services.runtime import Runtime
from services.study_commits import StudyState, copied, guards, next_revision
from services.tag_registry import Registry
from stores import containers
from stores.ports import (
    BINARY_FIELDS,
    BlobMissing,
    BytesSource,
    Document,
    Equals,
    Operation,
    Order,
    Query,
    Range,
    Replace,
    Scalar,
    Upsert,
)

PAGE = 25
MAX_INSTANCES = 100_000
MAX_SERIES = 60
STAGED_AT_ONCE = 5
COMMIT_BYTES = 1_000_000
STRICT_TRIES = 20
REPLACED_DELAY = timedelta(minutes=10)
"""How long a replaced version outlives its replacement; no request takes that long."""
_TRIES = 100
_FIELDS = (
    *("t", "k", "sk", "w", "ow", "se", "u", "ts", "len", "sha", "at", "nf", "a", "f"),
    *("m", "mb", "b", "fx", "fb", "defl", "x", "xw", "words", "next", "first", "uj"),
    *("z", "zn", "_etag"),
)


class StudyLocked(Conflict):
    """Another job is at work on the study.

    Attributes:
        job_id: Of that job.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__("Another update of the study is under way.")
        self.job_id = job_id


@dataclass(slots=True)
class Entries:
    """Those of the Update event: `[series, sop, watermark]` of each instance.

    Attributes:
        inline: What the event holds itself.
        parts: Where the others stand, as the event has it.
    """

    all: list[list[Any]]
    inline: list[list[Any]] = field(default_factory=list)
    parts: Document | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A bulk update of one study."""

    runtime: Runtime
    partition: Partition
    study_instance_uid: str
    id: str
    change: Mapping[str, Mapping[str, Any] | None]

    @property
    def pk(self) -> str:
        """Logical partition of the study."""
        return doc.study_pk(self.partition, self.study_instance_uid)


@dataclass(slots=True)
class Staged:
    """What a call of `stage` did.

    Attributes:
        after: Where to go on; None at the end.
        errors: `{series}/{sop}: message`.
    """

    count: int = 0
    after: str | None = None
    errors: list[str] = field(default_factory=list)


# --- commits -----------------------------------------------------------------------


async def _commit(
    job: Job,
    change: Callable[[Document, StudyState], list[Operation] | None],
    *,
    series: Sequence[str] = (),
    entries: Entries | None = None,
    tags_version: int = 0,
) -> bool:
    """One commit that changes `st`; False when `change` returns None.

    Args:
        job: Whose.
        change: Gets `st` to change and the state; returns further operations.
        series: Ids of series to load; those it changes it upserts itself.
        entries: Of the Update event.
        tags_version: Of the query tags that were indexed.

    Raises:
        StoreUnavailable: Too many other writers.
    """
    commits = job.runtime.commits
    for _ in range(_TRIES):
        before = await commits.load(job.pk, series, ())
        if before.study is None or before.study["state"] != doc.LIVE:
            return False
        study = copied(before.study)
        after = StudyState(study, dict(before.series), set(), set(before.asked))
        operations = change(study, after)
        if operations is None:
            return False
        study["rev"] = next_revision(before.study, job.runtime.now())
        changed = [
            id for id in after.series if after.series[id] is not before.series[id]
        ]
        for id in changed:
            after.series[id]["rev"] = study["rev"]
        event = commits.event(
            after,
            doc.UPDATE_ACTION,
            entries.inline if entries else [],
            tags_version=tags_version,
        )
        if entries and entries.parts:
            event["parts"] = entries.parts
        done = await commits.apply(
            job.pk,
            before,
            after,
            event,
            [
                *guards(event, before.study, study),
                *operations,
                *(Upsert(after.series[id]) for id in changed),
            ],
            changed,
        )
        if done:
            return True
    raise StoreUnavailable("Too many writers of one study. Please retry.")


async def begin(job: Job) -> bool:
    """Locks the study for the job; False when there is no such study.

    Raises:
        StudyLocked: Another job is at work on it.
        Conflict: It is too large.
    """

    def lock(study: Document, _: StudyState) -> list[Operation] | None:
        if study.get("job") == job.id:
            return None
        if study.get("job") is not None:
            raise StudyLocked(study["job"])
        if study["ni"] > MAX_INSTANCES:
            raise _too_large()
        study["job"] = job.id
        return []

    await _commit(job, lock)
    study = await job.runtime.documents.read(containers.DICOM, job.pk, doc.STUDY)
    return study is not None and study["state"] == doc.LIVE


def _too_large() -> Conflict:
    return Conflict(f"A study of more than {MAX_INSTANCES} instances is not updated.")


# --- staging -----------------------------------------------------------------------


async def _page(job: Job, after: str | None) -> tuple[list[Document], str | None]:
    """Instances by id, as stored (not as seen), and where the next page starts."""
    low = f"{after}!" if after else "i:"
    page = await job.runtime.documents.query(
        containers.DICOM,
        Query(Range(("id",), low=low, high="i:~"), (Order(("id",)),), _FIELDS),
        partition_key=job.pk,
        limit=PAGE,
    )
    rows = [row for row in page.documents if row["id"] != after]
    return rows, rows[-1]["id"] if page.after is not None and rows else None


async def stage(job: Job, after: str | None) -> Staged:
    """Stages a page of the study's instances.

    Args:
        job: Which has begun.
        after: From the call before; None at first.
    """
    rows, following = await _page(job, after)
    fresh = [
        row
        for row in rows
        if row.get("uj") != job.id and row.get("next", {}).get("job") != job.id
    ]
    result = Staged(count=len(rows) - len(fresh), after=following)
    if not fresh:
        return result
    reservation = await job.runtime.watermarks.reserve(len(fresh))
    gate = asyncio.Semaphore(STAGED_AT_ONCE)

    async def one(index: int, row: Document) -> Operation | str:
        async with gate:
            try:
                staged = await with_new_version(
                    job.runtime,
                    job.pk,
                    row,
                    reservation.first + index,
                    job.id,
                    job.change,
                )
            except BlobMissing:
                return f"{row['u'][1]}/{row['u'][2]}: The stored file is missing."
            except (InvalidRequest, MalformedInstance) as error:
                return f"{row['u'][1]}/{row['u'][2]}: {error}"
            return Replace(staged, if_etag=row["_etag"])

    found = await asyncio.gather(*(one(i, row) for i, row in enumerate(fresh)))
    result.errors = [each for each in found if isinstance(each, str)]
    operations = [each for each in found if not isinstance(each, str)]
    result.count += len(operations)
    await _write_staged(job, operations)
    return result


async def _write_staged(job: Job, operations: list[Operation]) -> None:
    """Commits the staged documents, fewer at a time where they are large."""
    for piece in _pieces(operations):
        result = await job.runtime.documents.batch(containers.DICOM, job.pk, piece)
        if not hasattr(result, "etags"):
            raise Conflict("An instance was changed while it was staged.")


def _pieces(operations: list[Operation]) -> list[list[Operation]]:
    pieces: list[list[Operation]] = []
    size = 0
    for operation in operations:
        assert isinstance(operation, Replace)
        length = _size_of(operation.document)
        if not pieces or size + length > COMMIT_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(operation)
        size += length
    return pieces


def _size_of(document: Document) -> int:
    """About as many bytes as Cosmos DB counts; binary fields are base64 there."""
    binary = sum(len(document.get(name, b"")) for name in BINARY_FIELDS)
    plain = {k: v for k, v in document.items() if k not in BINARY_FIELDS}
    return len(orjson.dumps(plain)) + binary * 4 // 3


# --- making it current ---------------------------------------------------------------


async def flip(job: Job) -> int:
    """Makes the staged versions current in one commit; how many instances changed.

    Raises:
        Conflict: The study was deleted meanwhile, or is too large.
        StoreUnavailable: Too many other writers.
    """
    registry = await job.runtime.tags.read()
    entries = Entries([])
    for attempt in range(_TRIES):
        study = await job.runtime.documents.read(containers.DICOM, job.pk, doc.STUDY)
        if study is None or study.get("job") != job.id:
            raise Conflict("The study was deleted while it was updated.")
        if study.get("withdrawn") == job.id:
            raise Conflict("The update was taken back.")
        staged, folded = await _staged_entries(job)
        if len(staged) > MAX_INSTANCES:
            raise _too_large()
        if not staged:
            return folded
        flipped = study.get("flipped") == job.id
        if not flipped and staged != entries.all:
            entries = await _kept(job, staged)
        revision = study["rev"] if attempt < STRICT_TRIES else None
        turn = _Turn(
            job, registry, entries if not flipped else Entries(staged), revision
        )
        if flipped or await turn.make():
            await turn.finish_series()
            await job.runtime.publisher.settled(job.pk)
            await job.runtime.documents.flush()
            return len(staged) + folded
    raise StoreUnavailable("Too many writers of one study. Please retry.")


async def _kept(job: Job, staged: list[list[Any]]) -> Entries:
    """The entries where the event will find them, since it can hold only so many."""
    if len(staged) <= event_parts.ENTRIES:
        return Entries(staged, staged)
    runtime = job.runtime
    parts = await event_parts.write(
        runtime.documents, job.pk, job.id, runtime.new_id(), staged
    )
    return Entries(staged, parts=parts)


class _Turn:
    """The moment at which staged versions become current."""

    def __init__(
        self,
        job: Job,
        registry: Registry,
        entries: Entries,
        revision: int | None,
    ) -> None:
        """What is to become current.

        Args:
            job: Whose.
            registry: Of the query tags.
            entries: Of the event.
            revision: Of the study at which these are all that is staged; None to take
                any, under a stream of stores. An instance that is deleted at the same
                moment then has an entry in the change feed, which says that it is gone.
        """
        self._job = job
        self._registry = registry
        self._entries = entries
        self._revision = revision
        self._series = sorted({doc.series_id(entry[0]) for entry in entries.all})
        self._newest = max(entry[2] for entry in entries.all)

    async def make(self) -> bool:
        """Makes the one commit; False where the study has changed since."""
        ids = self._series[:MAX_SERIES]

        def change(study: Document, state: StudyState) -> list[Operation] | None:
            if self._revision not in {None, study["rev"]}:
                return None
            if study.get("job") != self._job.id:
                return None
            if self._job.id in {study.get("flipped"), study.get("withdrawn")}:
                return None  # by this step, run twice at once, or by `abandon`
            study["flipped"] = study["updated"] = self._job.id
            study["w"] = max(study["w"], self._newest)
            self._apply(study, Level.STUDY)
            study["a"] = dict(study["a"])
            for tag in doc.STUDY_CORE_TAGS:
                if tag in self._job.change:
                    _set_element(study["a"], tag, self._job.change[tag])
            self._apply_to_series(state, ids)
            return []

        return await _commit(
            self._job,
            change,
            series=ids,
            entries=self._entries,
            tags_version=self._registry.version,
        )

    async def finish_series(self) -> None:
        """Changes the series that had no room in that commit; again is harmless."""
        for start in range(MAX_SERIES, len(self._series), MAX_SERIES):
            ids = self._series[start : start + MAX_SERIES]

            def change(
                study: Document, state: StudyState, ids: list[str] = ids
            ) -> list[Operation] | None:
                if study.get("job") != self._job.id:
                    return None
                self._apply_to_series(state, ids)
                return []

            await _commit(self._job, change, series=ids)

    def _apply_to_series(self, state: StudyState, ids: Sequence[str]) -> None:
        for id in ids:
            if id in state.series:
                row = copied(state.series[id])
                row["w"] = max(row["w"], self._newest)
                self._apply(row, Level.SERIES)
                state.series[id] = row

    def _apply(self, row: Document, level: Level) -> None:
        row["n"] = dict(row["n"])
        for tag, element in self._job.change.items():
            if tag in doc.STUDY_RETURNED:
                _set_element(row["n"], tag, element)
        tags = self._registry.indexed
        _apply_to_tags(row, self._job.change, tags, level, self._newest)


def _apply_to_tags(
    row: Document,
    change: Mapping[str, Mapping[str, Any] | None],
    tags: Sequence[QueryTag],
    level: Level,
    watermark: int,
) -> None:
    """Query tags of the level whose attribute changes take its new value."""
    for tag in tags:
        if tag.level is level and tag.path in change:
            value = doc.tag_value(tag.vr, change[tag.path])
            doc.replace_tag_value(row, tag, value, watermark)


async def is_flipped(job: Job) -> bool:
    """Whether the staged versions are current and wait to be folded."""
    study = await job.runtime.documents.read(containers.DICOM, job.pk, doc.STUDY)
    return study is not None and study.get("flipped") == job.id


async def _staged_entries(job: Job) -> tuple[list[list[Any]], int]:
    """Entries of the event for what is staged, and how many are folded already."""
    query = Query(Equals(("t",), "i"), (Order(("id",)),), ("t", "u", "next", "w", "uj"))
    entries: list[list[Any]] = []
    folded = 0
    after: tuple[Scalar, ...] | None = None
    while True:
        page = await job.runtime.documents.query(
            containers.DICOM, query, partition_key=job.pk, limit=1000, after=after
        )
        for row in page.documents:
            staged = row.get("next", {})
            if staged.get("job") == job.id:
                entries.append([row["u"][1], row["u"][2], staged["w"]])
            elif row.get("uj") == job.id:
                folded += 1
        if page.after is None:
            return entries, folded
        after = page.after


def _set_element(
    elements: dict[str, Any], tag: str, element: Mapping[str, Any] | None
) -> None:
    if element is None:
        elements.pop(tag, None)
    else:
        elements[tag] = dict(element)


# --- folding -------------------------------------------------------------------------


async def fold(job: Job, after: str | None) -> str | None:
    """Moves a page of staged versions into place; where the next page starts.

    The blobs of an intermediate version (neither original nor current) are deleted
    some minutes later: a reader may be at them.
    """
    rows, following = await _page(job, after)
    tags = (await job.runtime.tags.current()).indexed
    operations: list[Operation] = []
    dropped: list[str] = []
    for row in rows:
        if row.get("next", {}).get("job") == job.id:
            folded = await _folded(job, row)
            _apply_to_tags(folded, job.change, tags, Level.INSTANCE, folded["w"])
            operations.append(Replace(folded, if_etag=row["_etag"]))
            if row["w"] != row["ow"]:
                dropped += doc.blobs_of(doc.current_blob_name(job.pk, row), row)
    await _write_staged(job, operations)
    if dropped:
        key = f"{job.id}|{rows[0]['id']}"
        await remove_later(job.runtime, job.pk, key, dropped, REPLACED_DELAY)
    return following


async def _folded(job: Job, row: Document) -> Document:
    """The document with the staged version in place and the original described."""
    staged = row["next"]
    document = {
        k: v for k, v in row.items() if k not in {"_etag", "pk", "next", "z", "zn"}
    }
    if row["w"] == row["ow"]:
        document["first"] = await _describe_original(job, row)
    document |= {k: v for k, v in staged.items() if k != "job"}
    document["uj"] = job.id
    if not staged["mb"]:
        document["z"] = row["zn"]
    return document


async def _describe_original(job: Job, row: Document) -> Document:
    """What a reader of the original needs; its metadata go to a side blob."""
    if not row.get("mb"):
        name = doc.metadata_blob_name(doc.original_blob_name(job.pk, row))
        await job.runtime.blobs.put([(name, BytesSource(doc.metadata_blob(row)))])
    await job.runtime.blobs.set_tier(doc.original_blob_name(job.pk, row), "Cold")
    return {"len": row["len"], "sha": row["sha"], "a": row["a"], "mb": True}


async def finish(job: Job) -> None:
    """Unlocks the study once everything is folded."""
    await event_parts.drop_unused(job.runtime.documents, job.pk, job.id)

    def unlock(study: Document, _: StudyState) -> list[Operation] | None:
        if study.get("job") != job.id:
            return None
        study.pop("job")
        study.pop("flipped", None)
        study.pop("withdrawn", None)
        return []

    await _commit(job, unlock)
    await job.runtime.publisher.settled(job.pk)
    await job.runtime.documents.flush()


async def abandon(job: Job) -> None:
    """Takes back what was staged, if it has not become current, and unlocks.

    First it is made sure that nothing becomes current any more, also by a step that
    everybody takes for dead.
    """

    def withdraw(study: Document, _: StudyState) -> list[Operation] | None:
        if study.get("job") != job.id or study.get("flipped") == job.id:
            return None
        study["withdrawn"] = job.id
        return []

    await _commit(job, withdraw)
    study = await job.runtime.documents.read(containers.DICOM, job.pk, doc.STUDY)
    if study is None or study.get("flipped") == job.id:
        return
    after: str | None = None
    while True:
        rows, after = await _page(job, after)
        operations: list[Operation] = []
        dropped: list[str] = []
        for row in rows:
            staged = row.get("next", {})
            if staged.get("job") == job.id:
                kept = {
                    k: v
                    for k, v in row.items()
                    if k not in {"_etag", "pk", "next", "zn"}
                }
                operations.append(Replace(kept, if_etag=row["_etag"]))
                name = doc.blob_name(job.pk, row["id"], staged["w"], row["ow"])
                dropped += doc.blobs_of(name, staged)
        await _write_staged(job, operations)
        for name in dropped:
            await job.runtime.blobs.delete(name)
        if after is None:
            break
    await finish(job)


async def settle(job: Job) -> None:
    """Ends what a job left behind that nobody goes on with.

    What has become current is folded, anything else is taken back.
    """
    if not await is_flipped(job):
        await abandon(job)
        return
    after = await fold(job, None)
    while after is not None:
        after = await fold(job, after)
    await finish(job)
