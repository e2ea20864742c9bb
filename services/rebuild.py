"""Makes a lost index anew from the blobs alone.

Names say which versions of which instances there are, lists of deleted instances which
of them must not come back, the files all the rest. Instances are committed as a store
commits them, so catalog and change feed come about as usual. What no blob tells is in
`NOT_RESTORED`.

A run that was interrupted is repeated: instances that are in the index are left alone.

Source: design decision 4.4.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomweb.errors import Conflict
from dicomweb.identifiers import DEFAULT_PARTITION, Partition, partition_key, uid_key
from dicomweb.instance import ReadInstance
from dicomweb.store_response import Refused
from services import documents as doc
from services import instances, scrub, stored_files
from services.runtime import Runtime
from services.stored_names import FILE, MANIFEST, StoredName, parsed
from services.study_commits import NewInstance, json_bytes
from services.tag_registry import Registry
from stores import containers
from stores.ports import BlobMissing, BytesSource, Document, In, Query, Upsert

FEED_START = 10**12
MARKER = "rebuild"
STUDIES_AT_ONCE = 4
AT_ONCE = 32
PARALLEL = 4
TOLD_EVERY = 10_000

NOT_RESTORED = (
    "extended query tags: add them again, they are indexed anew",
    "worklist entries",
    "the history of the change feed: it goes on with a Create of every instance",
    "numbers and spelling of data partitions: they are in lower case, counted by age",
    "what only deleted instances gave their study: attributes, its place in the order",
    "metadata that break the standard's rules: left out, as version 2 of the API does",
    "bulk updates under way: an instance takes its newest version, current or staged",
    "instances whose delete was under way when a server died: they count as deleted",
)
"""What the blobs do not tell, a phrase each."""


@dataclass(slots=True)
class Report:
    """What came back, and what did not.

    Attributes:
        instances: Restored.
        updated: Of these, those with an updated version.
        known: Were in the index already.
        deleted: Files of instances that are listed as deleted.
        others: Files of further uploads of an instance; scrub removes them in time.
        revived: Studies and instances of the index that are listed as deleted.
        rivals: Files of further uploads that are not what came back, by name.
        behind: Files of updates newer than the version that the index has.
        foreign: Blobs whose names are not the archive's.
        problems: Files that cannot be restored, a sentence each, without patient data.
    """

    studies: int = 0
    instances: int = 0
    updated: int = 0
    known: int = 0
    deleted: int = 0
    others: int = 0
    foreign: int = 0
    partitions: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Survey:
    """What the names of all blobs say.

    Attributes:
        newest: Highest watermark.
        partitions: Lowest watermark by key of a partition.
    """

    newest: int = 0
    partitions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """The file of an instance as first stored, and of its newest update."""

    first: StoredName
    newest: StoredName


Tell = Callable[[str], None]


async def rebuild(runtime: Runtime, tell: Tell, *, merge: bool = False) -> Report:
    """Brings every stored instance that the index lacks into it.

    Nobody else may use the stores meanwhile.

    Args:
        runtime: The stores.
        tell: Is told of progress, a line at a time.
        merge: Allow an index that has instances.

    Raises:
        Conflict: The index has instances, or the settings do not fit the blobs.
        StoreUnavailable: A repetition goes on.
    """
    tell("Reading the names of all blobs")
    survey = await _survey(runtime)
    await _begin(runtime, survey, merge=merge)
    report = Report()
    for name in await _make_partitions(runtime, survey):
        report.partitions.append(name)
    registry = await runtime.tags.read()
    running: set[asyncio.Task[None]] = set()
    shown = 0
    try:
        async for members in _studies(runtime, report):
            study = _Study(runtime, registry, members, report)
            running.add(asyncio.create_task(study.restore()))
            if len(running) >= STUDIES_AT_ONCE:
                running = await _one_less(running)
            if report.instances >= shown + TOLD_EVERY:
                shown = report.instances
                tell(f"{report.studies:,} studies, {report.instances:,} instances")
        while running:
            running = await _one_less(running)
    finally:
        await _end(running)
    await _mark(runtime, done=True)
    await runtime.documents.flush()
    return report


async def _one_less(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """The studies that are under way after one or more ended; raises what they did."""
    done, rest = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return rest


async def _end(running: set[asyncio.Task[None]]) -> None:
    """Waits for those under way when another one failed."""
    await asyncio.gather(*running, return_exceptions=True)


# --- before --------------------------------------------------------------------------


async def _survey(runtime: Runtime) -> _Survey:
    survey = _Survey()
    async for each in runtime.blobs.list(""):
        name = parsed(each.name)
        if name is None or name.kind == MANIFEST:
            continue
        survey.newest = max(survey.newest, name.watermark)
        oldest = survey.partitions.get(name.partition_key, name.original)
        survey.partitions[name.partition_key] = min(oldest, name.original)
    return survey


async def _begin(runtime: Runtime, survey: _Survey, *, merge: bool) -> None:
    """Checks that this is what is wanted, and moves watermarks and feed onwards."""
    others = set(survey.partitions) - {partition_key(DEFAULT_PARTITION)}
    if others and not runtime.partitions.enabled:
        raise Conflict(
            "The blobs are of several data partitions; set DICOM_DATA_PARTITIONS=true."
        )
    marker = await _marker(runtime)
    goes_on = marker is not None and not marker["done"]
    newest = await instances.highest_first_watermark(runtime.documents)
    if newest and not goes_on and not merge:
        raise Conflict(
            "The index has instances. Rebuilding is for an index that is lost: put it"
            " aside first, or say --merge to add what it lacks."
        )
    if marker is not None and goes_on:
        start = marker["feed"]
    else:
        sequence = (await runtime.feed.totals()).sequence
        start = (sequence // FEED_START + 1) * FEED_START
        await _mark(runtime, done=False, feed=start)
    await runtime.feed.restart_at(start)  # again too: the marker may have come alone
    await runtime.watermarks.raise_to(survey.newest)
    await runtime.documents.flush()


async def _marker(runtime: Runtime) -> Document | None:
    return await runtime.documents.read(containers.SYSTEM, MARKER, MARKER)


async def _mark(runtime: Runtime, *, done: bool, **values: Any) -> None:
    before = await _marker(runtime) or {}
    kept = {name: v for name, v in before.items() if name not in {"_etag", "pk"}}
    document = kept | {"id": MARKER, "k": MARKER, "done": done} | values
    await runtime.documents.batch(containers.SYSTEM, MARKER, [Upsert(document)])


async def _make_partitions(runtime: Runtime, survey: _Survey) -> list[str]:
    """Names of the partitions that were found, in the order of their first files."""
    names = []
    for key in sorted(survey.partitions, key=survey.partitions.__getitem__):
        name = _partition_name(key)
        names.append(name)
        if runtime.partitions.enabled:
            await runtime.partitions.resolve(name, create=True)
    return names


def _partition_name(key: str) -> str:
    if key == partition_key(DEFAULT_PARTITION):
        return DEFAULT_PARTITION
    return key.removesuffix("~")


async def _studies(runtime: Runtime, report: Report) -> AsyncIterator[list[StoredName]]:
    """The names of each study's blobs; the list is in order, so they are together."""
    members: list[StoredName] = []
    async for each in runtime.blobs.list(""):
        name = parsed(each.name)
        if name is None:
            report.foreign += 1
            continue
        if members and members[0].pk != name.pk:
            yield members
            members = []
        members.append(name)
    if members:
        yield members


# --- a study -------------------------------------------------------------------------


class _Study:
    """One study on its way back."""

    def __init__(
        self,
        runtime: Runtime,
        registry: Registry,
        members: Sequence[StoredName],
        report: Report,
    ) -> None:
        self._runtime = runtime
        self._registry = registry
        self._members = members
        self._report = report
        self._pk = members[0].pk
        self._rivals: dict[str, list[str]] = {}
        self._partition_name = _partition_name(members[0].partition_key)

    async def restore(self) -> None:
        """Commits what the index lacks, oldest first, as the study once grew."""
        runtime = self._runtime
        study = await runtime.documents.read(containers.DICOM, self._pk, doc.STUDY)
        if study is not None and study["state"] == doc.DELETING:
            await runtime.publisher.finish_delete(self._pk)
        deleted = await self._deleted()
        known = await self._known()
        chosen = [c for id, c in self._chosen(deleted).items() if id not in known]
        self._look_at_known(known, deleted)
        chosen.sort(key=lambda candidate: candidate.first.watermark)
        restored = 0
        for start in range(0, len(chosen), AT_ONCE):
            restored += await self._commit(chosen[start : start + AT_ONCE])
        await runtime.publisher.settled(self._pk)
        self._report.studies += restored > 0

    async def _deleted(self) -> set[tuple[str, int]]:
        deleted: set[tuple[str, int]] = set()
        for name in self._members:
            if name.kind == MANIFEST:
                deleted |= await scrub.deleted_by(self._runtime, name.name)
        return deleted

    def _look_at_known(
        self, known: Mapping[str, Document], deleted: set[tuple[str, int]]
    ) -> None:
        """What the index has already, as far as it seems to be an older one."""
        self._report.known += len(known)
        for id, row in known.items():
            if (id, row["ow"]) in deleted:
                self._report.revived.append(f"{self._pk} {id}")
        for name in self._members:
            row = known.get(name.instance_id, {})
            newest = max(row.get("w", 0), row.get("next", {}).get("w", 0))
            is_update = name.kind == FILE and name.original == row.get("ow")
            if is_update and name.watermark > newest:
                self._report.behind.append(name.name)

    async def _known(self) -> dict[str, Document]:
        """The instances that the index has, by id, with their watermarks."""
        ids = list({name.instance_id for name in self._members if name.kind == FILE})
        known: dict[str, Document] = {}
        for start in range(0, len(ids), 200):
            page = await self._runtime.documents.query(
                containers.DICOM,
                Query(
                    In(("id",), tuple(ids[start : start + 200])),
                    fields=("w", "ow", "next"),
                ),
                partition_key=self._pk,
                limit=200,
            )
            known |= {row["id"]: row for row in page.documents}
        return known

    def _chosen(self, deleted: set[tuple[str, int]]) -> dict[str, _Candidate]:
        """By instance the upload that was committed, as far as names tell.

        Only what was committed was ever updated. Else it is the newest: had one before
        been committed, the newest would have been refused before it was stored, or
        deleted. Those before are of processes that died, or of answers that were lost,
        and the client sent the instance again.
        """
        uploads: dict[str, dict[int, list[StoredName]]] = {}
        for name in self._members:
            if name.kind != FILE:
                continue
            if (name.instance_id, name.original) in deleted:
                self._report.deleted += 1
                continue
            versions = uploads.setdefault(name.instance_id, {})
            versions.setdefault(name.original, []).append(name)
        return {
            id: candidate
            for id, versions in uploads.items()
            if (candidate := self._best(versions)) is not None
        }

    def _best(self, uploads: Mapping[int, list[StoredName]]) -> _Candidate | None:
        candidates = []
        for original, names in uploads.items():
            first = next((n for n in names if n.watermark == original), None)
            newest = max(names, key=lambda name: name.watermark)
            if first is None:
                self._report.problems.append(
                    f"The original of an updated instance is missing: {newest.name}"
                )
            else:
                candidates.append(_Candidate(first, newest))
        if not candidates:
            return None
        self._report.others += len(candidates) - 1
        updated = [c for c in candidates if c.newest != c.first]
        best = max(updated or candidates, key=lambda each: each.first.watermark)
        self._rivals[best.first.instance_id] = [
            each.first.name for each in candidates if each is not best
        ]
        return best

    async def _compare(self, id: str, document: Document) -> None:
        """Names the other uploads of the instance that are not the same file."""
        first = document.get("first", document)
        for name in self._rivals.get(id, ()):
            try:
                found = await stored_files.digest(self._runtime.blobs, name)
            except BlobMissing:
                continue
            if found != (first["len"], first["sha"]):
                self._report.rivals.append(name)

    async def _commit(self, candidates: Sequence[_Candidate]) -> int:
        """How many of them came back."""
        gate = asyncio.Semaphore(PARALLEL)

        async def one(candidate: _Candidate) -> NewInstance | None:
            async with gate:
                try:
                    new = await self._read(candidate)
                except _Unreadable as error:
                    self._report.problems.append(str(error))
                    return None
                await self._compare(candidate.first.instance_id, new.document)
                return new

        read = await asyncio.gather(*(one(candidate) for candidate in candidates))
        news = [new for new in read if new is not None]
        commits = self._runtime.commits
        outcomes = await asyncio.gather(
            *(commits.store(self._pk, new) for new in news), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        self._report.instances += len(news)
        self._report.updated += sum("first" in new.document for new in news)
        return len(news)

    # --- an instance

    async def _read(self, candidate: _Candidate) -> NewInstance:
        """The instance as it would be committed; side blobs that it needs are stored.

        Raises:
            _Unreadable: A file cannot be read, or is another instance's.
        """
        first = await self._read_file(candidate.first)
        if candidate.newest == candidate.first:
            return await self._new(candidate, first, first.document)
        current = await self._read_file(candidate.newest)
        document = current.document
        for name in ("fx", "nf", "defl"):
            document.pop(name, None)
            if name in first.document:
                document[name] = first.document[name]
        document |= {
            "sk": first.document["sk"],
            "ow": candidate.first.watermark,
            "at": first.document["at"],
            "first": {
                "len": first.document["len"],
                "sha": first.document["sha"],
                "a": first.document["a"],
                "mb": True,
            },
        }
        side = doc.metadata_blob_name(candidate.first.name)
        metadata = stored_files.metadata_blob(first.read)
        await self._runtime.blobs.put([(side, BytesSource(metadata))])
        return await self._new(candidate, current, document)

    async def _read_file(self, name: StoredName) -> "_File":
        try:
            there = await self._runtime.blobs.properties(name.name)
            async with stored_files.spooled(self._runtime, name.name) as part:
                read = await stored_files.read(
                    self._runtime, part, self._registry.indexed
                )
                size_bytes, sha256 = part.size_bytes, part.sha256
        except BlobMissing as error:
            raise _Unreadable(f"A file went away meanwhile: {name.name}") from error
        if isinstance(read, Refused):
            raise _Unreadable(f"A file is no valid instance: {name.name}")
        id = doc.instance_id(read.series_instance_uid, read.sop_instance_uid)
        if (id, uid_key(read.study_instance_uid)) != (name.instance_id, name.study_key):
            raise _Unreadable(f"A file is of another instance: {name.name}")
        document = doc.instance_document(
            Partition(self._partition_name),
            read,
            name.watermark,
            size_bytes=size_bytes,
            sha256=sha256,
            created=(there.modified if there else self._runtime.now()).isoformat(),
            query_tags=self._registry.indexed,
        )
        return _File(read, document)

    async def _new(
        self, candidate: _Candidate, file: "_File", document: Document
    ) -> NewInstance:
        blobs = self._runtime.blobs
        for name, data in doc.move_large_fields(candidate.newest.name, document):
            is_index = name == doc.frames_blob_name(candidate.newest.name)
            side = doc.frames_blob_name(candidate.first.name) if is_index else name
            await blobs.put([(side, BytesSource(data))])
        return NewInstance(
            partition=Partition(self._partition_name),
            read=file.read,
            document=document,
            json_bytes=json_bytes(document),
            reserved=self._runtime.now(),
            query_tags=self._registry.indexed,
            tags_version=self._registry.version,
        )


@dataclass(frozen=True, slots=True)
class _File:
    read: ReadInstance
    document: Document


class _Unreadable(Exception):
    """A file that cannot be brought back; the message is for the report."""
