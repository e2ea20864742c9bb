"""The steps of an export of many identifiers; each may be repeated.

A few pieces of the list are under way at once, one in each lane. A step copies about a
hundred files, says how many, and where its lane goes on; its errors are in the journal
by then. Only the steps that were answered are counted, and a file that is copied again
replaces itself, so a repetition changes nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dicomweb.errors import StoreUnavailable
from dicomweb.export import ExportRequest, Identifier, log_name, log_of
from dicomweb.export_destination import BlobContainer, Destination, Folder
from dicomweb.identifiers import Partition
from services import export, operations
from services.export import ExportError, ExportJob
from services.operations import OperationStatus, OperationType, Progress
from services.runtime import Runtime
from stores import containers
from stores.ports import Delete, DestinationRefused, JournalRow, Upsert

LANES = 4
PIECE = 100
"""Identifiers of a lane."""
FILES_A_STEP = 100
FILES_A_PAGE = 20
BYTES_A_STEP = 256 * 1024 * 1024
PAGE = 1000
"""Identifiers of a document; a multiple of PIECE."""
TRIES = 8
REFUSALS = 3
UNSTARTED = timedelta(minutes=15)
_LOG_PAGE = 1000

State = dict[str, Any]
"""Checkpoint of the operation: JSON, kept small; see `first_state`."""

IsEnded = Callable[[str], Awaitable[bool]]
"""Whether the operation of this id has ended."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A piece of the identifiers under way.

    Attributes:
        at: Index of the identifier that is next.
        stop: Index after the last one of the piece.
        after: Where that identifier's files go on.
        exported: Files that the step has copied.
        skipped: Files and identifiers that it could not.
        tries: Steps in a row that came to nothing.
        refusals: Steps in a row that the destination refused.
        refusal: What it said.
        canceled: Whether the operation was asked to end.
    """

    at: int
    stop: int
    after: str | None = None
    exported: int = 0
    skipped: int = 0
    tries: int = 0
    refusals: int = 0
    refusal: str = ""
    canceled: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing of the piece is left."""
        return self.at >= self.stop


# --- the request ---------------------------------------------------------------------


async def prepare(
    runtime: Runtime,
    operation_id: str,
    partition: Partition,
    request: ExportRequest,
    destination: Destination,
) -> State:
    """The first checkpoint, once the destination was tried and everything is kept.

    Raises:
        InvalidRequest: The destination takes nothing.
    """
    await export.try_destination(runtime, operation_id, destination)
    created = runtime.now().isoformat()
    state = first_state(
        partition, len(request.identifiers), error_href(operation_id, destination)
    )
    state["created"] = created
    await _keep_identifiers(runtime, operation_id, request.identifiers)
    # Before the secret: whoever finds the secret then knows how old it is.
    await operations.keep_request(
        runtime,
        operation_id,
        {"created": created, "total": state["total"], **_encoded(destination)},
    )
    if isinstance(destination, BlobContainer) and destination.secret:
        await runtime.secrets.put(operation_id, destination.secret)
    await _record(runtime, operation_id, OperationStatus.NOT_STARTED, state)
    return state


def first_state(partition: Partition, total: int, href: str) -> State:
    """The checkpoint of an operation that has done nothing yet."""
    state = {
        "schema_version": operations.SCHEMA_VERSION,
        "partition": partition.name,
        "total": total,
        "next": 0,
        "lanes": [],
        "exported": 0,
        "skipped": 0,
        "logged": 0,
        "canceled": False,
        "failure": None,
        "href": href,
    }
    return _with_lanes(state, [])


def error_href(operation_id: str, destination: Destination) -> str:
    """Where the error log is: a URL without any secret, or a path below the folder."""
    name = log_name(operation_id)
    if isinstance(destination, BlobContainer):
        return f"{destination.url}/{name}"
    return f"{destination.path}/{name}" if destination.path else name


def _encoded(destination: Destination) -> dict[str, Any]:
    """The destination as it may be kept: without its secret."""
    if isinstance(destination, Folder):
        return {"folder": asdict(destination)}
    public = asdict(destination.public())
    return {"container": public, "secret": bool(destination.secret)}


async def _destination(
    runtime: Runtime, operation_id: str, request: Mapping[str, Any]
) -> Destination:
    """The destination with its secret.

    Raises:
        DestinationRefused: The secret is gone.
    """
    if "folder" in request:
        return Folder(**request["folder"])
    container = BlobContainer(**request["container"])
    if not request["secret"]:
        return container
    secret = await runtime.secrets.get(operation_id)
    if secret is None:
        raise DestinationRefused("The credentials of the destination are gone.")
    return container.opened_by(secret)


def _page_id(operation_id: str, page: int) -> str:
    return f"identifiers:{operation_id}:{page}"


async def _keep_identifiers(
    runtime: Runtime, operation_id: str, identifiers: Sequence[Identifier]
) -> None:
    for start in range(0, len(identifiers), PAGE):
        document = {
            "id": _page_id(operation_id, start // PAGE),
            "k": "operation-identifiers",
            "ttl": operations.REQUEST_SECONDS,
            "values": [
                [list(each.uids), each.covered]
                for each in identifiers[start : start + PAGE]
            ],
        }
        await runtime.documents.batch(
            containers.SYSTEM, operations.PARTITION_KEY, [Upsert(document)]
        )


async def _identifiers(
    runtime: Runtime, operation_id: str, lane: Lane
) -> list[Identifier]:
    """What is left of the lane's piece, in order."""
    page = await runtime.documents.read(
        containers.SYSTEM,
        operations.PARTITION_KEY,
        _page_id(operation_id, lane.at // PAGE),
    )
    assert page is not None
    start, stop = lane.at % PAGE, (lane.stop - 1) % PAGE + 1
    return [
        Identifier(tuple(uids), covered=covered)
        for uids, covered in page["values"][start:stop]
    ]


async def forget(runtime: Runtime, operation_id: str) -> None:
    """Forgets the secret first, then what was asked; harmless when all is gone."""
    await runtime.secrets.delete(operation_id)
    request = await operations.request_of(runtime, operation_id)
    if request is None:
        return
    for page in range(-(-int(request.get("total", 0)) // PAGE)):
        await runtime.documents.batch(
            containers.SYSTEM,
            operations.PARTITION_KEY,
            [Delete(_page_id(operation_id, page))],
        )
    await operations.drop_request(runtime, operation_id)


async def forget_secrets(
    runtime: Runtime, has_started: IsEnded, has_ended: IsEnded
) -> int:
    """Forgets the secrets of exports that no longer run; how many.

    An export forgets its own at its end. This finds what a killed process left: of an
    export that was terminated, or that was never started.
    """
    count = 0
    for operation_id in await runtime.secrets.operations():
        if await has_started(operation_id):
            over = await has_ended(operation_id)
        else:
            over = await _is_old(runtime, operation_id)
        if over:
            await forget(runtime, operation_id)
            count += 1
    return count


async def _is_old(runtime: Runtime, operation_id: str) -> bool:
    """Whether a request that was never started is too old to be just coming."""
    request = await operations.request_of(runtime, operation_id)
    if request is None:
        return True
    created = datetime.fromisoformat(request["created"])
    return runtime.now() - created > UNSTARTED


# --- a step --------------------------------------------------------------------------


async def step(
    runtime: Runtime, operation_id: str, partition: Partition, lane: Lane
) -> Lane:
    """The lane after about a hundred files.

    Raises:
        StoreUnavailable: A repetition goes on.
    """
    request = await operations.request_of(runtime, operation_id)
    if request is None or await operations.is_canceled(runtime, operation_id):
        return replace(lane, canceled=True)
    try:
        destination = await _destination(runtime, operation_id, request)
        sink = runtime.open_sink(destination)
        try:
            job = ExportJob(runtime, partition, operation_id, sink)
            return await _copied(job, replace(lane, tries=0))
        finally:
            await sink.close()
    except DestinationRefused as error:
        return replace(
            lane,
            exported=0,
            skipped=0,
            refusals=lane.refusals + 1,
            refusal=str(error),
        )


async def _copied(job: ExportJob, lane: Lane) -> Lane:
    identifiers = await _identifiers(job.runtime, job.operation_id, lane)
    exported, size_bytes = 0, 0
    errors: list[JournalRow] = []
    at, after = lane.at, lane.after
    while (
        at < lane.stop
        and exported + len(errors) < FILES_A_STEP
        and size_bytes < BYTES_A_STEP
    ):
        identifier = identifiers[at - lane.at]
        copied = await export.copy_page(
            job, identifier, after=after, limit=FILES_A_PAGE
        )
        exported += copied.exported
        size_bytes += copied.size_bytes
        errors += [_row(job.runtime, at, error) for error in copied.errors]
        after = copied.after
        at += after is None
    if errors:
        kind = operations.error_kind(job.operation_id)
        await job.runtime.journal.put(kind, errors)
    return Lane(at, lane.stop, after, exported=exported, skipped=len(errors))


def _row(runtime: Runtime, index: int, error: ExportError) -> JournalRow:
    """The journal's row of an error; one time and id for it however often it is met."""
    name = error.identifier.replace("/", "|")
    return JournalRow(
        at=operations.ERRORS_AT,
        id=f"{index:08d}|{name}",
        data={
            "timestamp": runtime.now().isoformat(),
            "identifier": error.identifier,
            "error": error.message,
        },
    )


# --- between steps -------------------------------------------------------------------


def advance(state: State, results: Sequence[Mapping[str, Any]]) -> State:
    """The checkpoint after a step of every lane.

    Args:
        state: Before.
        results: A lane's answer each: `{"ok": True, "lane": …}` or `{"ok": False}`.
    """
    after = dict(state)
    lanes: list[Lane] = []
    for before, result in zip(state["lanes"], results, strict=True):
        if result["ok"]:
            lane = Lane(**result["lane"])
            after["exported"] += lane.exported
            after["skipped"] += lane.skipped
        else:
            lane = Lane(**before)
            lane = replace(lane, tries=lane.tries + 1)
        lanes.append(replace(lane, exported=0, skipped=0))
    after["canceled"] = state["canceled"] or any(lane.canceled for lane in lanes)
    after["failure"] = state["failure"] or _failure(lanes)
    if after["canceled"] or after["failure"]:
        after["lanes"] = []
        return after
    return _with_lanes(after, [lane for lane in lanes if not lane.done])


def _with_lanes(state: State, lanes: list[Lane]) -> State:
    """The state with these lanes, free ones given the next pieces."""
    while len(lanes) < LANES and state["next"] < state["total"]:
        start = state["next"]
        stop = min(start - start % PIECE + PIECE, state["total"])
        lanes.append(Lane(start, stop))
        state["next"] = stop
    return state | {"lanes": [asdict(lane) for lane in lanes]}


def _failure(lanes: Sequence[Lane]) -> str | None:
    """Why the operation cannot go on, if so."""
    for lane in lanes:
        if lane.refusals >= REFUSALS:
            return lane.refusal
        if lane.tries >= TRIES:
            return "The destination or the stores did not answer for too long."
    return None


def pause_seconds(state: State) -> int:
    """How long to wait before the next steps, 0 where all lanes get on."""
    tries = [lane["tries"] + lane["refusals"] for lane in state["lanes"]]
    worst = max(tries, default=0)
    return min(60, 2**worst) if worst else 0


def progress(state: State) -> Progress:
    """Of a checkpoint."""
    results: dict[str, Any] = {
        "exported": state["exported"],
        "skipped": state["skipped"],
        "errorHref": state["href"],
    }
    if state["failure"]:
        results["error"] = state["failure"]
    return Progress(results=results)


def status(state: State) -> OperationStatus:
    """How an operation has ended that has no lane left."""
    if state["failure"]:
        return OperationStatus.FAILED
    return OperationStatus.CANCELED if state["canceled"] else OperationStatus.SUCCEEDED


async def checkpoint(runtime: Runtime, operation_id: str, state: State) -> int:
    """Records a running operation and brings its error log up to date.

    Returns:
        How many errors the log has.
    """
    await _record(runtime, operation_id, OperationStatus.RUNNING, state)
    if state["skipped"] > state["logged"]:
        await _write_log(runtime, operation_id)
    return int(state["skipped"])


async def end(runtime: Runtime, operation_id: str, state: State) -> None:
    """Writes the error log, records how the operation ended, forgets the rest."""
    if await operations.request_of(runtime, operation_id) is not None:
        try:
            await _write_log(runtime, operation_id)
        except (DestinationRefused, StoreUnavailable):
            # Of an export that failed the secret has to go all the same.
            if status(state) is not OperationStatus.FAILED:
                raise
        await forget(runtime, operation_id)
    await _record(runtime, operation_id, status(state), state)


async def _write_log(runtime: Runtime, operation_id: str) -> None:
    request = await operations.request_of(runtime, operation_id)
    if request is None:
        return
    kind = operations.error_kind(operation_id)
    rows: list[JournalRow] = []
    while True:
        page = await runtime.journal.page(
            kind, limit=_LOG_PAGE, offset=len(rows), oldest_first=True
        )
        rows += page
        if len(page) < _LOG_PAGE:
            break
    sink = runtime.open_sink(await _destination(runtime, operation_id, request))
    try:
        await sink.write_log(log_name(operation_id), log_of(row.data for row in rows))
    finally:
        await sink.close()


async def _record(
    runtime: Runtime, operation_id: str, status: OperationStatus, state: State
) -> None:
    await operations.record(
        runtime,
        operation_id,
        OperationType.EXPORT,
        status,
        state["created"],
        progress(state),
    )
