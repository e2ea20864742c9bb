"""Integrity: every instance document has its blobs, every old blob its document.

Two looks, each in bounded steps: `look_at_instances` goes through the index and reads
the blobs, `look_at_blobs` goes through the blobs and reads the index. They only find;
what is done about a finding is `services.scrub_repair`'s to decide.

Source: design decision 4.1.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from enum import Enum
from itertools import groupby
from typing import Any

import orjson

from dicomweb import dataset_json, frames
from dicomweb.errors import MalformedInstance
from services import documents as doc
from services import instances, stored_files, stored_names
from services.publishing import cleanup_bucket
from services.runtime import Runtime
from services.stored_names import MANIFEST, VERSION_FIELDS, StoredName, Version, parsed
from services.watermarks import DOCUMENT_ID, PARTITION_KEY
from stores import containers
from stores.ports import (
    BlobMissing,
    BlobProperties,
    Blobs,
    Condition,
    Document,
    Documents,
    Equals,
    Patch,
    Prefix,
    Query,
    Scalar,
)

ORPHAN_AGE = timedelta(days=7)
STEP_INSTANCES = 500
STEP_BYTES = 1 << 29
PAGE = 250
PARALLEL = 8
LISTED = 5000
DEEPEST = 3
"""Digits of a prefix below which blobs are listed without a limit."""


class Problem(Enum):
    """What is wrong; the order is that of the repairs."""

    LOST = "1-lost"
    DAMAGED = "2-damaged"
    SIDE_BLOB = "3-side-blob"
    ORPHAN = "4-orphan"
    OLD_LIST = "5-old-list"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one blob.

    Attributes:
        pk: Logical partition of the study.
        id: Of the instance document; empty where the name says none.
        name: Of the blob.
        size_bytes: What the document says; 0 for an orphan.
        sha256: What the document says.
        watermark: Of the version that the blob belongs to.
        is_unindexed: An orphan's instance is not in the index, and no list of deleted
            instances has it.
        is_ahead: An orphan is newer than the index knows: the index is an old one.
    """

    problem: Problem
    pk: str
    id: str
    name: str
    size_bytes: int = 0
    sha256: str | None = None
    watermark: int = 0
    is_unindexed: bool = False
    is_ahead: bool = False

    @property
    def key(self) -> str:
        """Unique among findings; sorts as they are repaired."""
        digest = hashlib.sha256(self.name.encode()).hexdigest()
        return f"{self.problem.value}-{digest[:32]}"

    @property
    def text(self) -> str:
        """For people."""
        return f"{_TEXTS[self.problem]}: {self.name}"

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self) | {"problem": self.problem.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Finding":
        """The inverse of `to_json`."""
        return cls(**{**value, "problem": Problem(value["problem"])})


_TEXTS = {
    Problem.LOST: "A stored file is missing",
    Problem.DAMAGED: "A stored file has another size or hash than recorded",
    Problem.SIDE_BLOB: "Metadata or a frame index beside a file is missing or damaged",
    Problem.ORPHAN: "No instance refers to a blob",
    Problem.OLD_LIST: "A list of deleted instances outlived their files",
}


@dataclass(slots=True)
class Look:
    """What a step looked at and found.

    Attributes:
        following: Where to go on; None at the end.
        blobs: Looked at.
        size_bytes: Read to take hashes.
        foreign: Blobs whose names are not the archive's.
        unhashed: Files whose document records no hash, only a size.
    """

    following: Any = None
    instances: int = 0
    blobs: int = 0
    size_bytes: int = 0
    foreign: int = 0
    unhashed: int = 0
    findings: list[Finding] = field(default_factory=list)


# --- from the index to the blobs -----------------------------------------------------


async def look_at_instances(
    runtime: Runtime,
    end: int,
    *,
    hashes: bool,
    record_hashes: bool,
    limit: int = STEP_INSTANCES,
) -> Look:
    """Checks the blobs of some instances, from the newest down.

    Args:
        runtime: The stores.
        end: Highest watermark (of first versions) to look at.
        hashes: Read every file; else only its size is compared.
        record_hashes: Write the hash of files that have none recorded.
        limit: How many, or fewer where they are large.

    Returns:
        `following` is the next `end`.
    """
    look = Look(following=end)
    while look.instances < limit and look.size_bytes < STEP_BYTES:
        rows = await newest_instances(runtime.documents, look.following)
        for start in range(0, len(rows), PARALLEL):
            checks = (
                _check(runtime, row, look, hashes, record_hashes)
                for row in rows[start : start + PARALLEL]
            )
            await asyncio.gather(*checks)
        look.instances += len(rows)
        if len(rows) < PAGE:
            look.following = None
            break
        look.following = int(rows[-1]["sk"]) - 1
    return look


async def newest_instances(documents: Documents, end: int) -> list[Document]:
    """The instances to check next, at most PAGE; fewer only at the end."""
    fields = ("pk", "sk", "nf", *VERSION_FIELDS)
    return await instances.newest_first(documents, end, limit=PAGE, fields=fields)


async def _check(
    runtime: Runtime, row: Document, look: Look, hashes: bool, record_hashes: bool
) -> None:
    for version in stored_names.versions(row["pk"], row):
        async for problem, name in _problems(runtime.blobs, version, look, hashes):
            if await refers(runtime, row["pk"], row["id"], name):
                look.findings.append(
                    Finding(
                        problem,
                        row["pk"],
                        row["id"],
                        name,
                        version.size_bytes,
                        version.sha256,
                        version.watermark,
                    )
                )
        if version.sha256 is None:
            look.unhashed += 1
            if record_hashes and hashes and version.is_current:
                await _record_hash(runtime, row, version)


async def _problems(
    blobs: Blobs, version: Version, look: Look, hashes: bool
) -> AsyncIterator[tuple[Problem, str]]:
    look.blobs += len(version.names)
    name = version.name
    if hashes and version.sha256 is not None:
        try:
            found = await stored_files.digest(blobs, name)
            look.size_bytes += found[0]
            if found != (version.size_bytes, version.sha256):
                yield Problem.DAMAGED, name
        except BlobMissing:
            yield Problem.LOST, name
    else:
        there = await blobs.properties(name)
        if there is None:
            yield Problem.LOST, name
        elif there.size_bytes != version.size_bytes:
            yield Problem.DAMAGED, name
    for side in version.names[1:]:
        if not await side_blob_is_whole(blobs, side, content=hashes):
            yield Problem.SIDE_BLOB, side


async def side_blob_is_whole(blobs: Blobs, name: str, *, content: bool) -> bool:
    """Whether the side blob is there and, if `content` is to be read, can be read."""
    if not content:
        return await blobs.properties(name) is not None
    try:
        data = b"".join([bytes(chunk) async for chunk in blobs.read(name)])
        if name.endswith(".frames"):
            frames.from_json(orjson.loads(data))
            return True
        described = doc.put_back_metadata({}, data)
        return dataset_json.is_whole(doc.metadata_of(described))
    except (BlobMissing, MalformedInstance, ValueError, TypeError, LookupError):
        return False


async def _record_hash(runtime: Runtime, row: Document, version: Version) -> None:
    """From now on a change of the file is noticed; an update has taken no hash."""
    try:
        size_bytes, sha256 = await stored_files.digest(runtime.blobs, version.name)
    except BlobMissing:
        return
    if size_bytes == version.size_bytes:
        patch = Patch(
            row["id"],
            sets={("sha",): sha256},
            condition=Equals(("w",), version.watermark),
        )
        await runtime.documents.batch(containers.DICOM, row["pk"], [patch])


async def refers(runtime: Runtime, pk: str, id: str, name: str) -> bool:
    """Whether the live instance refers to the blob of this name, read just now."""
    study = await runtime.documents.read(containers.DICOM, pk, doc.STUDY)
    if study is None or study["state"] != doc.LIVE:
        return False
    row = await runtime.documents.read(containers.DICOM, pk, id)
    return row is not None and name in stored_names.referenced(pk, row)


# --- from the blobs to the index -----------------------------------------------------


async def look_at_blobs(runtime: Runtime, prefix: str) -> Look:
    """Looks for blobs of this prefix that nothing refers to.

    Where there are too many for a step nothing is looked at yet; `following` is then
    the first of the prefixes that are one digit longer.

    Args:
        runtime: The stores.
        prefix: Hexadecimal digits; empty at first.
    """
    limit = LISTED if len(prefix) < DEEPEST else None
    found: list[BlobProperties] = []
    async for each in runtime.blobs.list(prefix):
        if limit is not None and len(found) >= limit:
            return Look(following=f"{prefix}0")
        found.append(each)
    look = Look(following=_next(prefix), blobs=len(found))
    oldest = runtime.now() - ORPHAN_AGE
    named = [(parsed(each.name), each.modified < oldest) for each in found]
    look.foreign = sum(name is None for name, _ in named)
    ours = [(name, is_old) for name, is_old in named if name is not None]
    for _, members in groupby(ours, key=lambda member: member[0].pk):
        await _look_at_study(runtime, list(members), look)
    return look


def _next(prefix: str) -> str | None:
    """The prefix that comes after this one and all longer ones."""
    kept = prefix.rstrip("f")
    return f"{kept[:-1]}{int(kept[-1], 16) + 1:x}" if kept else None


async def _look_at_study(
    runtime: Runtime, members: Sequence[tuple[StoredName, bool]], look: Look
) -> None:
    old = [name for name, is_old in members if is_old]
    if not old:
        return
    pk = old[0].pk
    rows = await _rows(runtime, pk)
    kept = {name for row in rows.values() for name in stored_names.referenced(pk, row)}
    orphans = [name for name in old if name.name not in kept]
    if not orphans:
        return
    doomed = await waiting_for_cleanup(runtime, pk)
    orphans = [name for name in orphans if name.name not in doomed]
    listed = await _deleted(runtime, [name for name, _ in members])
    newest = await _newest_watermark(runtime)
    for name in orphans:
        is_list = name.kind == MANIFEST
        unknown = not is_list and name.instance_id not in rows
        look.findings.append(
            Finding(
                Problem.OLD_LIST if is_list else Problem.ORPHAN,
                pk,
                name.instance_id,
                name.name,
                watermark=name.watermark,
                is_unindexed=unknown
                and (name.instance_id, name.original) not in listed,
                is_ahead=name.watermark > newest,
            )
        )


async def _rows(runtime: Runtime, pk: str) -> dict[str, Document]:
    """Instances of the study by id, also while it is being deleted."""
    rows = await _all(
        runtime, containers.DICOM, pk, Equals(("t",), "i"), VERSION_FIELDS
    )
    return {row["id"]: row for row in rows}


async def waiting_for_cleanup(runtime: Runtime, pk: str) -> set[str]:
    """Names of blobs that a delete handed, or is about to hand, to the cleanup."""
    names: set[str] = set()
    # Events first: one that is published meanwhile is found among the pages.
    for event in await _all(
        runtime, containers.DICOM, pk, Equals(("t",), "ev"), ("blobs",)
    ):
        names.update(event.get("blobs", ()))
    pages = await _all(
        runtime,
        containers.CLEANUP,
        cleanup_bucket(pk),
        Prefix(("id",), f"{pk}|"),
        ("names",),
    )
    for page in pages:
        names.update(page["names"])
    return names


async def _deleted(
    runtime: Runtime, names: Sequence[StoredName]
) -> set[tuple[str, int]]:
    """Id and first watermark of what the study's lists say was deleted."""
    deleted: set[tuple[str, int]] = set()
    for name in names:
        if name.kind == MANIFEST:
            deleted |= await deleted_by(runtime, name.name)
    return deleted


async def deleted_by(runtime: Runtime, manifest: str) -> set[tuple[str, int]]:
    """Id and first watermark of the instances that the list of this name has.

    A list that is gone meanwhile, or cannot be read, has none.
    """
    try:
        body = b"".join([bytes(c) async for c in runtime.blobs.read(manifest)])
        return {(str(row[0]), int(row[1])) for row in orjson.loads(body)}
    except (BlobMissing, ValueError, TypeError, LookupError):
        return set()


async def _newest_watermark(runtime: Runtime) -> int:
    counter = await runtime.documents.read(
        containers.SYSTEM, PARTITION_KEY, DOCUMENT_ID
    )
    return counter["value"] if counter else 0


async def _all(
    runtime: Runtime,
    container: str,
    pk: str,
    where: Condition,
    fields: tuple[str, ...],
) -> list[Document]:
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    query = Query(where, fields=fields)
    while True:
        page = await runtime.documents.query(
            container, query, partition_key=pk, limit=1000, after=after
        )
        rows += page.documents
        if page.after is None:
            return rows
        after = page.after
