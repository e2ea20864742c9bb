"""Export: files of identifiers, copied to a destination.

What cannot be copied is an error of the export; a destination that takes nothing, or a
store that does not answer, ends the step, which is repeated.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicomweb.errors import InvalidRequest, StoreUnavailable
from dicomweb.export import Identifier, file_name, log_name
from dicomweb.export_destination import Destination
from dicomweb.identifiers import Partition
from services import retrieve
from services.retrieve import Scope, StoredFile
from services.runtime import Runtime
from stores.ports import BlobMissing, DestinationRefused, ExportSink

FILES_AT_ONCE = 5
_TRIES = 3


class DamagedFile(Exception):
    """A stored file has not the bytes that were stored."""


@dataclass(frozen=True, slots=True)
class ExportJob:
    """An export at work.

    Attributes:
        partition: What it reads.
        sink: Where its files go.
    """

    runtime: Runtime
    partition: Partition
    operation_id: str
    sink: ExportSink


@dataclass(frozen=True, slots=True)
class ExportError:
    """Something that was not exported.

    Attributes:
        identifier: As the log shows it.
        message: For the client.
    """

    identifier: str
    message: str


@dataclass(slots=True)
class Copied:
    """What became of a page of files.

    Attributes:
        exported: How many were copied.
        size_bytes: Of these.
        after: Where the next page of the identifier starts; None at its end.
    """

    exported: int = 0
    size_bytes: int = 0
    after: str | None = None
    errors: list[ExportError] = field(default_factory=list)


async def try_destination(
    runtime: Runtime, operation_id: str, destination: Destination
) -> None:
    """Makes the error log in the destination, which shows that it can be written to.

    Raises:
        InvalidRequest: It cannot.
    """
    try:
        sink = runtime.open_sink(destination)
        try:
            await sink.write_log(log_name(operation_id), b"")
        finally:
            await sink.close()
    except DestinationRefused as error:
        raise InvalidRequest(str(error), code="DestinationRefused") from error
    except StoreUnavailable as error:
        raise InvalidRequest(
            "Cannot connect to the destination of the export.",
            code="DestinationRefused",
        ) from error


async def copy_page(
    job: ExportJob, identifier: Identifier, *, after: str | None, limit: int
) -> Copied:
    """Copies a page of an identifier's files.

    Args:
        job: The export.
        identifier: Of one that is covered nothing is copied.
        after: From the call before; None at first.
        limit: How many files.

    Raises:
        DestinationRefused: The destination takes nothing.
        StoreUnavailable: The destination or a store does not answer.
    """
    scope = Scope(job.partition, *identifier.uids)
    limit = 1 if identifier.covered else limit
    found, following = await retrieve.files_after(
        job.runtime, scope, after, limit=limit
    )
    if not found and after is None:
        error = ExportError(identifier.text, str(scope.not_found()))
        return Copied(errors=[error])
    if identifier.covered:
        return Copied()
    results = await _copy_all(job, found)
    copied = [f for f, error in zip(found, results, strict=True) if error is None]
    return Copied(
        exported=len(copied),
        size_bytes=sum(file.size_bytes for file in copied),
        after=following,
        errors=[error for error in results if error is not None],
    )


async def _copy_all(
    job: ExportJob, files: Sequence[StoredFile]
) -> list[ExportError | None]:
    """What went wrong with each file; the first that cannot go on ends the others."""
    gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def one(file: StoredFile) -> ExportError | None:
        async with gate:
            return await _copy(job, file)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(file)) for file in files]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def _copy(job: ExportJob, file: StoredFile) -> ExportError | None:
    """None, or why the file was not copied."""
    uids = (file.study_instance_uid, file.series_instance_uid, file.sop_instance_uid)
    scope = Scope(job.partition, *uids)
    name = file_name(job.operation_id, *uids)
    identifier = "/".join(uid.rstrip(" \0") for uid in uids)
    for _ in range(_TRIES):
        try:
            await job.sink.put(name, _Checked(job.runtime, file))
        except DamagedFile:
            return ExportError(identifier, "The stored file is damaged.")
        except BlobMissing:
            # An update or a delete may have taken this version away meanwhile.
            again, _ = await retrieve.files_after(job.runtime, scope, None, limit=1)
            if not again:
                return ExportError(identifier, str(scope.not_found()))
            if again[0].name == file.name:
                return ExportError(identifier, "The stored file is missing.")
            file = again[0]
        else:
            return None
    return ExportError(identifier, "The stored file is being updated.")


class _Checked:
    """A stored file as a source that ends with an error where bytes are not its own."""

    movable_path: Path | None = None

    def __init__(self, runtime: Runtime, file: StoredFile) -> None:
        self._runtime = runtime
        self._file = file
        self.size_bytes = file.size_bytes

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes from the start.

        Raises:
            DamagedFile: At the end: their number or digest is not what was stored.
        """
        digest = hashlib.sha256()
        count = 0
        async for chunk in retrieve.read_file(self._runtime, self._file):
            digest.update(chunk)
            count += len(chunk)
            yield chunk
        # A large updated file has no digest: it was spliced without being read.
        expected = self._file.sha256 or digest.hexdigest()
        if count != self._file.size_bytes or digest.hexdigest() != expected:
            raise DamagedFile
