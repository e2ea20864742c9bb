"""STOW-RS: receives instances window by window; acknowledged means durable.

Order within a window: known duplicates refused, blobs stored, one commit per study,
catalog and feed published, the index flushed. A crash anywhere leaves either nothing
visible or the whole instance; blobs without a commit are orphans that scrub removes.

Source: PS3.18 10.5.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from dicomweb import instance, part10
from dicomweb.errors import DicomwebError, PayloadTooLarge, StoreUnavailable
from dicomweb.identifiers import Partition
from dicomweb.instance import ReadInstance
from dicomweb.multipart import Event, PartBegin, PartData, PartEnd
from dicomweb.store_response import FailureReason, Refused, Stored
from services import documents as doc
from services import results
from services.runtime import Runtime
from services.spool import SpooledPart
from services.study_commits import NewInstance, StoreResult, json_bytes
from services.tag_registry import Registry
from stores.ports import BytesSource, Document, Source

logger = logging.getLogger(__name__)

WINDOW_INSTANCES = 94
WINDOW_BYTES = 32 * 1024 * 1024
THREAD_BYTES = 1024 * 1024


@dataclass(slots=True)
class StoreOutcome:
    """What became of each part, in the order of the request.

    Attributes:
        multiple_values: An indexed attribute had several values somewhere.
    """

    results: list[Stored | Refused] = field(default_factory=list)
    multiple_values: bool = False


@dataclass(slots=True)
class _Candidate:
    """A readable instance of the window.

    Attributes:
        position: Index among the parts of the request.
    """

    position: int
    part: SpooledPart
    read: ReadInstance
    pk: str
    id: str


@dataclass(slots=True)
class _Request:
    """A STOW request under way."""

    runtime: Runtime
    partition: Partition
    study_instance_uid: str | None
    version: int
    registry: Registry
    results: list[Stored | Refused | None] = field(default_factory=list)
    window: list[_Candidate] = field(default_factory=list)
    window_bytes: int = 0
    seen: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    multiple_values: bool = False
    failure: DicomwebError | None = None
    stored: int = 0
    known: int = 0


async def store_instances(
    runtime: Runtime,
    partition: Partition,
    events: AsyncIterator[Event],
    *,
    study_instance_uid: str | None,
    version: int,
) -> StoreOutcome:
    """Stores every instance of the request that can be stored.

    Args:
        runtime: The stores.
        partition: Where to.
        events: Parts of the body as they arrive.
        study_instance_uid: If given, instances of other studies are refused.
        version: API version, 1 or 2 (validation differs).

    Raises:
        PayloadTooLarge: A part is over the limit.
        StoreUnavailable: Nothing could be stored.
        DicomwebError: What `events` raises; windows before it stay stored.

    Source: PS3.18 10.5.
    """
    registry = await runtime.tags.current()
    request = _Request(runtime, partition, study_instance_uid, version, registry)
    part: SpooledPart | None = None
    try:
        async for event in events:
            match event:
                case PartBegin():
                    part = runtime.spool.part()
                case PartData(data=data):
                    assert part is not None
                    await _append(runtime, part, data)
                case PartEnd():
                    assert part is not None
                    received, part = part, None
                    await _receive(request, received)
        await _commit_window(request)
    finally:
        if part is not None:
            part.discard()
        for candidate in request.window:
            candidate.part.discard()
    return await _finish(request)


async def _append(
    runtime: Runtime, part: SpooledPart, data: bytes | memoryview
) -> None:
    limit = runtime.settings.max_file_bytes
    if part.size_bytes + len(data) > limit:
        raise PayloadTooLarge(f"An instance may have at most {limit} bytes.")
    await part.append(data)


async def _receive(request: _Request, part: SpooledPart) -> None:
    """Reads a complete part and adds it to the window."""
    position = len(request.results)
    request.results.append(None)
    try:
        await part.finish()
        read = await _read(request, part)
    except BaseException:
        part.discard()
        raise
    if isinstance(read, Refused):
        part.discard()
        request.results[position] = read
        return
    if request.runtime.settings.blank_preamble:
        part.blank_preamble()
    candidate = _Candidate(
        position=position,
        part=part,
        read=read,
        pk=doc.study_pk(request.partition, read.study_instance_uid),
        id=doc.instance_id(read.series_instance_uid, read.sop_instance_uid),
    )
    request.window.append(candidate)
    request.window_bytes += part.size_bytes
    full = len(request.window) >= WINDOW_INSTANCES
    if full or request.window_bytes >= WINDOW_BYTES:
        await _commit_window(request)


async def _read(request: _Request, part: SpooledPart) -> ReadInstance | Refused:
    def read() -> ReadInstance | Refused:
        return instance.read(
            part.buffer,
            study_instance_uid=request.study_instance_uid,
            version=request.version,
            query_tags=request.registry.indexed,
            full_validation=request.runtime.settings.full_validation,
            gather=partial(results.gathered, folder=request.runtime.spool.folder),
        )

    if part.size_bytes < THREAD_BYTES and not part10.is_deflated(part.buffer):
        return read()
    return await request.runtime.workers.run_in_turn(read)


# --- a window ----------------------------------------------------------------------


async def _commit_window(request: _Request) -> None:
    """Stores the instances of the window; failures become results."""
    candidates = request.window
    try:
        fresh = _without_doubles(request, candidates)
        fresh = await _without_known(request, fresh)
        if fresh:
            await _store(request, fresh)
    except StoreUnavailable as error:
        logger.warning("a window could not be stored: %s", error)
        request.failure = error
        for candidate in candidates:
            if request.results[candidate.position] is None:
                _refuse(request, candidate, FailureReason.PROCESSING_FAILURE)
    finally:
        request.window = []
        request.window_bytes = 0
        for candidate in candidates:
            candidate.part.discard()


def _without_doubles(
    request: _Request, candidates: Sequence[_Candidate]
) -> list[_Candidate]:
    """Those that no earlier part of the request already is."""
    fresh = []
    for candidate in candidates:
        key = f"{candidate.pk}|{candidate.id}"
        if key in request.seen:
            _refuse(request, candidate, FailureReason.INSTANCE_ALREADY_EXISTS)
        else:
            request.seen.add(key)
            fresh.append(candidate)
    return fresh


async def _without_known(
    request: _Request, candidates: Sequence[_Candidate]
) -> list[_Candidate]:
    """Those that are not stored yet: one query per study."""
    studies: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        studies.setdefault(candidate.pk, []).append(candidate)
    fresh = []
    for pk, members in studies.items():
        state = await request.runtime.commits.load(
            pk,
            [doc.series_id(member.read.series_instance_uid) for member in members],
            [member.id for member in members],
        )
        for member in members:
            if state.live and member.id in state.existing:
                _refuse(request, member, FailureReason.INSTANCE_ALREADY_EXISTS)
            else:
                fresh.append(member)
    return fresh


async def _store(request: _Request, candidates: Sequence[_Candidate]) -> None:
    runtime = request.runtime
    reservation = await runtime.watermarks.reserve(len(candidates))
    news: list[NewInstance] = []
    blobs: list[tuple[str, Source]] = []
    for index, candidate in enumerate(candidates):
        new, own_blobs = _new_instance(
            request, candidate, reservation.first + index, reservation.reserved
        )
        news.append(new)
        blobs += own_blobs
    try:
        await runtime.blobs.put(blobs)
    except StoreUnavailable:
        for candidate, new in zip(candidates, news, strict=True):
            await _delete_own_blobs(runtime, candidate.pk, new.document)
        raise
    outcomes = await asyncio.gather(
        *(
            runtime.commits.store(candidate.pk, new)
            for candidate, new in zip(candidates, news, strict=True)
        ),
        return_exceptions=True,
    )
    for candidate, new, outcome in zip(candidates, news, outcomes, strict=True):
        await _settle(request, candidate, new, outcome)


async def _settle(
    request: _Request,
    candidate: _Candidate,
    new: NewInstance,
    outcome: StoreResult | BaseException,
) -> None:
    """Turns the outcome of a commit into a result of the request."""
    if outcome is StoreResult.COMMITTED:
        _accept(request, candidate)
    elif outcome is StoreResult.EXISTS:
        _refuse(request, candidate, FailureReason.INSTANCE_ALREADY_EXISTS)
        await _delete_own_blobs(request.runtime, candidate.pk, new.document)
    elif isinstance(outcome, DicomwebError):
        logger.warning("an instance could not be stored: %s", outcome)
        request.failure = outcome
        _refuse(request, candidate, FailureReason.PROCESSING_FAILURE)
    else:
        assert isinstance(outcome, BaseException)
        raise outcome


async def _delete_own_blobs(runtime: Runtime, pk: str, document: Document) -> None:
    """Only where no commit can refer to them; what fails here is left to scrub."""
    name = doc.current_blob_name(pk, document)
    try:
        for blob in doc.blobs_of(name, document):
            await runtime.blobs.delete(blob)
    except StoreUnavailable as error:
        logger.warning("a refused blob is left to scrub: %s", error)


def _new_instance(
    request: _Request, candidate: _Candidate, watermark: int, reserved: datetime
) -> tuple[NewInstance, list[tuple[str, Source]]]:
    """The document to commit and the blobs to store before."""
    read, part = candidate.read, candidate.part
    document = doc.instance_document(
        request.partition,
        read,
        watermark,
        size_bytes=part.size_bytes,
        sha256=part.sha256,
        created=reserved.isoformat(),
        query_tags=request.registry.indexed,
    )
    name = doc.current_blob_name(candidate.pk, document)
    blobs: list[tuple[str, Source]] = [(name, part.source())]
    for side_name, data in doc.move_large_fields(name, document):
        blobs.append((side_name, BytesSource(data)))
    new = NewInstance(
        partition=request.partition,
        read=read,
        document=document,
        json_bytes=json_bytes(document),
        reserved=reserved,
        query_tags=request.registry.indexed,
        tags_version=request.registry.version,
    )
    return new, blobs


# --- results -----------------------------------------------------------------------


def _accept(request: _Request, candidate: _Candidate) -> None:
    read = candidate.read
    request.stored += 1
    request.studies.add(candidate.pk)
    request.multiple_values |= read.multiple_values
    request.results[candidate.position] = Stored(
        study_instance_uid=read.study_instance_uid,
        series_instance_uid=read.series_instance_uid,
        sop_class_uid=read.sop_class_uid,
        sop_instance_uid=read.sop_instance_uid,
        warning_reason=read.warning_reason,
        comments=read.comments,
    )


def _refuse(request: _Request, candidate: _Candidate, reason: FailureReason) -> None:
    # "It is there already" promises as much as success does: the client may drop its
    # copy. Whoever stored it may not have come as far as a sync.
    request.known += reason is FailureReason.INSTANCE_ALREADY_EXISTS
    request.results[candidate.position] = Refused(
        reason=reason,
        sop_class_uid=candidate.read.sop_class_uid,
        sop_instance_uid=candidate.read.sop_instance_uid,
    )


async def _finish(request: _Request) -> StoreOutcome:
    """Makes everything durable and published before the answer."""
    if request.stored == 0 and request.failure is not None:
        raise request.failure
    settled = [request.runtime.publisher.settled(pk) for pk in request.studies]
    await asyncio.gather(*settled)
    if request.stored or request.known:
        await request.runtime.documents.flush()
    results = [result for result in request.results if result is not None]
    assert len(results) == len(request.results), "a part without a result"
    return StoreOutcome(results, request.multiple_values)
