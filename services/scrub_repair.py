"""What scrub does about its findings; good data are never deleted.

* A missing or damaged file is replaced by a copy that has the recorded size and hash:
  from a backup, or from another upload of the same instance. Without one it stays as it
  is, and in the report.
* Where a file is lost for good its instance may be taken out of the index, if asked
  for: clients then see the truth and can store it again.
* A side blob is made anew from its file.
* A blob that nothing refers to is deleted, after a last look.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import Enum

from dicomweb.store_response import Refused
from services import delete, scrub, stored_files, stored_names
from services import documents as doc
from services.runtime import Runtime
from services.scrub import Finding, Problem
from services.stored_names import VERSION_FIELDS, Version
from stores import containers
from stores.ports import BlobMissing, Blobs, BytesSource, Document


class Outcome(Enum):
    """What became of a finding; the value ends its sentence in the report."""

    REPAIRED = "repaired"
    REMOVED = "the instance was removed from the index"
    DELETED = "deleted"
    STALE = "no longer so"
    HELD = "kept, see the report"
    LEFT = "cannot be repaired from what is there"


@dataclass(frozen=True, slots=True)
class Repairs:
    """What may be done.

    Attributes:
        delete_orphans: False where the index may be the wrong one.
        remove_lost: Take instances out of the index whose bytes are lost.
        backup: Blobs of a backup, under the same names.
    """

    delete_orphans: bool = True
    remove_lost: bool = False
    backup: Blobs | None = None


async def repair(runtime: Runtime, finding: Finding, allowed: Repairs) -> Outcome:
    """Does what can be done; may be repeated."""
    match finding.problem:
        case Problem.ORPHAN | Problem.OLD_LIST:
            if not allowed.delete_orphans:
                return Outcome.HELD
            return await _delete_orphan(runtime, finding)
        case Problem.SIDE_BLOB:
            return await _make_side_blob(runtime, finding)
        case Problem.LOST | Problem.DAMAGED:
            return await _restore_file(runtime, finding, allowed)


# --- orphans -------------------------------------------------------------------------


async def _delete_orphan(runtime: Runtime, finding: Finding) -> Outcome:
    """Deletes the blob unless something refers to it by now."""
    there = await runtime.blobs.properties(finding.name)
    if there is None or there.modified > runtime.now() - scrub.ORPHAN_AGE:
        return Outcome.STALE
    if finding.name in await scrub.waiting_for_cleanup(runtime, finding.pk):
        return Outcome.STALE
    if finding.id:
        row = await runtime.documents.read(containers.DICOM, finding.pk, finding.id)
        if row is not None and finding.name in stored_names.referenced(finding.pk, row):
            return Outcome.STALE
    await runtime.blobs.delete(finding.name)
    return Outcome.DELETED


# --- side blobs ----------------------------------------------------------------------


async def _make_side_blob(runtime: Runtime, finding: Finding) -> Outcome:
    """Makes the side blob anew from its file, if that is whole."""
    version = await _version(runtime, finding)
    if version is None:
        return Outcome.STALE
    try:
        async with stored_files.spooled(runtime, version.name) as part:
            is_whole = part.size_bytes == version.size_bytes and version.sha256 in {
                None,
                part.sha256,
            }
            read = await stored_files.read(runtime, part) if is_whole else None
    except BlobMissing:
        read = None
    if read is None or isinstance(read, Refused):
        return Outcome.LEFT
    for name, data in stored_files.side_blobs(
        read, version.name, metadata=version.has_metadata, frames=version.has_frames
    ):
        if name == finding.name:
            await runtime.blobs.put([(name, BytesSource(data))])
            return Outcome.REPAIRED
    return Outcome.LEFT


async def _version(runtime: Runtime, finding: Finding) -> Version | None:
    """The version that the blob belongs to, as the index has it now."""
    if not await scrub.refers(runtime, finding.pk, finding.id, finding.name):
        return None
    row = await runtime.documents.read(containers.DICOM, finding.pk, finding.id)
    versions = stored_names.versions(finding.pk, row) if row else []
    return next((v for v in versions if finding.name in v.names), None)


# --- files ---------------------------------------------------------------------------


async def _restore_file(
    runtime: Runtime, finding: Finding, allowed: Repairs
) -> Outcome:
    version = await _version(runtime, finding)
    if version is None or await _is_whole(runtime.blobs, version.name, version):
        return Outcome.STALE
    async for blobs, name in _copies(runtime, version, allowed.backup):
        async with stored_files.spooled(runtime, name, blobs) as part:
            await runtime.blobs.put([(version.name, part.source())])
        if await _is_whole(runtime.blobs, version.name, version):
            return Outcome.REPAIRED
    if finding.problem is Problem.LOST and allowed.remove_lost:
        return await _remove(runtime, finding)
    return Outcome.LEFT


async def _copies(
    runtime: Runtime, version: Version, backup: Blobs | None
) -> AsyncIterator[tuple[Blobs, str]]:
    """Blobs that have what the version should have."""
    if backup is not None and await _is_whole(backup, version.name, version):
        yield backup, version.name
    if version.sha256 is None:
        return
    folder, _, file = version.name.rpartition("/")
    start = f"{folder}/{file.partition('_')[0]}_"
    others = [
        each.name
        async for each in runtime.blobs.list(start)
        if each.name != version.name and each.size_bytes == version.size_bytes
    ]
    for name in others:
        if await _is_whole(runtime.blobs, name, version):
            yield runtime.blobs, name


async def _is_whole(blobs: Blobs, name: str, version: Version) -> bool:
    """Whether the blob has the size and the hash that the version should have."""
    try:
        size_bytes, sha256 = await stored_files.digest(blobs, name)
    except BlobMissing:
        return False
    return size_bytes == version.size_bytes and version.sha256 in {None, sha256}


async def _remove(runtime: Runtime, finding: Finding) -> Outcome:
    """Deletes the instance as a client would, if no version of it has its file."""
    pk = finding.pk
    study = await runtime.documents.read(containers.DICOM, pk, doc.STUDY)
    row = await runtime.documents.read(containers.DICOM, pk, finding.id)
    if study is None or row is None:
        return Outcome.STALE
    if await _any_file(runtime, stored_names.versions(pk, row)):
        return Outcome.LEFT
    try:
        done = await delete.delete_as_read(runtime, pk, study, _fields(row))
    except BlobMissing:  # the metadata of the newest of those that stay
        return Outcome.LEFT
    if not done:
        return Outcome.LEFT  # the study changed just now; the next scrub finds it
    await runtime.publisher.settled(pk)
    await runtime.documents.flush()
    return Outcome.REMOVED


async def _any_file(runtime: Runtime, versions: Iterable[Version]) -> bool:
    for version in versions:
        if await runtime.blobs.properties(version.name) is not None:
            return True
    return False


def _fields(row: Document) -> Document:
    wanted = {"id", "u", "se", "_etag", *VERSION_FIELDS}
    return {name: value for name, value in row.items() if name in wanted}
