"""The steps of a bulk update of many studies; each may be repeated.

A few studies are under way at once, one in each lane. A step takes its lane as far as
a few hundred instances of work go: lock, stage, flip, fold, unlock. The steps say what
became of a study; `advance` keeps count and gives free lanes the next study.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dicomweb.errors import Conflict
from dicomweb.identifiers import Partition, uid_key
from dicomweb.update import UpdateRequest
from services import documents as doc
from services import operations, retrieve, update
from services.operations import OperationStatus, OperationType, Progress
from services.runtime import Runtime
from stores import containers

LANES = 4
PAGES_A_STEP = 8
DETAILS = 5
PREVIEWS_AT_ONCE = 8
TRIES = 5
PATIENT_TRIES = 20

BEGIN, STAGE, FLIP, FOLD, FINISH = "begin", "stage", "flip", "fold", "finish"
ABANDON = "abandon"
UPDATED, UNKNOWN, FAILED, CANCELED = "updated", "unknown", "failed", "canceled"

State = dict[str, Any]
"""Checkpoint of the operation: JSON, kept small; see `first_state`."""

IsEnded = Callable[[str], Awaitable[bool]]
"""Whether the operation of this id has ended, or never was."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A study under way.

    Attributes:
        study: Index in the request.
        phase: Of BEGIN … ABANDON, what is to be done next.
        after: Where staging or folding goes on.
        count: Instances that changed.
        tries: Steps in a row that came to nothing.
        details: What is wrong with its instances, the first few.
        more: Whether there are more such.
        outcome: What became of it; None while it is under way.
        waiting: Whether another update has the study.
    """

    study: int
    phase: str = BEGIN
    after: str | None = None
    count: int = 0
    tries: int = 0
    details: tuple[str, ...] = ()
    more: bool = False
    outcome: str | None = None
    waiting: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Lane":
        """The inverse of `asdict`."""
        return cls(**{**value, "details": tuple(value["details"])})


# --- the request ---------------------------------------------------------------------


async def prepare(
    runtime: Runtime,
    operation_id: str,
    partition: Partition,
    request: UpdateRequest,
    created: str,
) -> State:
    """The first checkpoint; request and record are kept under the operation's id."""
    studies = list({uid_key(uid): uid for uid in request.study_instance_uids}.values())
    await operations.keep_request(
        runtime, operation_id, {"studies": studies, "change": request.change}
    )
    state = first_state(partition, len(studies), created)
    await operations.record(
        runtime,
        operation_id,
        OperationType.UPDATE,
        OperationStatus.NOT_STARTED,
        created,
        progress(state),
    )
    return state


def first_state(partition: Partition, total: int, created: str) -> State:
    """The checkpoint of an operation that has done nothing yet."""
    lanes = [asdict(Lane(study)) for study in range(min(LANES, total))]
    return {
        "schema_version": operations.SCHEMA_VERSION,
        "created": created,
        "partition": partition.name,
        "total": total,
        "next": len(lanes),
        "lanes": lanes,
        "processed": 0,
        "updated": 0,
        "failed": 0,
        "instances": 0,
        "canceled": False,
    }


def progress(state: State) -> Progress:
    """Of a checkpoint."""
    return Progress(
        percent=state["processed"] * 100 // state["total"],
        results={
            "studyProcessed": state["processed"],
            "studyUpdated": state["updated"],
            "studyFailed": state["failed"],
            "instanceUpdated": state["instances"],
        },
    )


def status(state: State) -> OperationStatus:
    """How an operation has ended that has no lane left."""
    if state["canceled"]:
        return OperationStatus.CANCELED
    if state["failed"]:
        return OperationStatus.FAILED
    return OperationStatus.SUCCEEDED


async def preview(
    runtime: Runtime, partition: Partition, request: UpdateRequest
) -> list[dict[str, Any]]:
    """What the update would change, study by study; nothing is written.

    The current values are those of the study's newest instance.
    """
    gate = asyncio.Semaphore(PREVIEWS_AT_ONCE)

    async def one(uid: str) -> dict[str, Any]:
        async with gate:
            return await _preview(runtime, partition, uid, request.change)

    studies = {uid_key(uid): uid for uid in request.study_instance_uids}
    return list(await asyncio.gather(*map(one, studies.values())))


async def _preview(
    runtime: Runtime,
    partition: Partition,
    study_instance_uid: str,
    change: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, Any]:
    pk = doc.study_pk(partition, study_instance_uid)
    study = await runtime.documents.read(containers.DICOM, pk, doc.STUDY)
    shown: dict[str, Any] = {"studyInstanceUid": study_instance_uid}
    if study is None or study["state"] != doc.LIVE:
        return shown | {"instances": 0, "changes": {}}
    newest = await runtime.documents.read(containers.DICOM, pk, study["nid"])
    current: dict[str, Any] = {}
    if newest is not None:
        version = doc.version_of(study, newest, original=False)
        version = await retrieve.with_metadata(runtime, pk, version)
        current = retrieve.metadata_object(version, "")
    changes = {
        tag: {"current": current.get(tag), "new": element}
        for tag, element in sorted(change.items())
        if current.get(tag) != element
    }
    return shown | {"instances": study["ni"], "changes": changes}


# --- a step --------------------------------------------------------------------------


async def step(
    runtime: Runtime,
    operation_id: str,
    partition: Partition,
    lane: Lane,
    is_ended: IsEnded,
) -> Lane:
    """The lane after a few hundred instances' worth of work.

    Raises:
        Conflict: An instance was changed meanwhile; a repetition goes on.
        StoreUnavailable: A repetition goes on.
    """
    request = await operations.request_of(runtime, operation_id)
    if request is None:
        return replace(lane, outcome=lane.outcome or CANCELED)
    job = update.Job(
        runtime,
        partition,
        request["studies"][lane.study],
        operation_id,
        request["change"],
    )
    lane = replace(lane, tries=0, waiting=False)
    if await operations.is_canceled(runtime, operation_id):
        lane = await _canceled(job, lane)
    pages = PAGES_A_STEP
    while lane.outcome is None and not lane.waiting and pages > 0:
        pages -= lane.phase in {STAGE, FOLD}
        lane = await _PHASES[lane.phase](job, lane, is_ended)
        if lane.phase in {FINISH, ABANDON}:
            # A step of its own: a step that is repeated because its answer was lost
            # must not find the study unlocked, and updated by somebody else since.
            break
    return lane


async def _canceled(job: update.Job, lane: Lane) -> Lane:
    """What has become current is finished; the rest is taken back."""
    if lane.phase in {FOLD, FINISH} or await update.is_flipped(job):
        return lane
    await update.abandon(job)
    if await update.is_flipped(job):  # meanwhile, by a step that was taken for dead
        return lane
    return replace(lane, outcome=CANCELED)


async def _begin(job: update.Job, lane: Lane, is_ended: IsEnded) -> Lane:
    try:
        found = await update.begin(job)
    except update.StudyLocked as locked:
        if not await is_ended(locked.job_id):
            return replace(lane, waiting=True)
        await update.settle(replace(job, id=locked.job_id))
        return lane
    except Conflict as error:
        return replace(lane, phase=ABANDON, details=(str(error),))
    return replace(lane, phase=STAGE) if found else replace(lane, outcome=UNKNOWN)


async def _stage(job: update.Job, lane: Lane, _: IsEnded) -> Lane:
    staged = await update.stage(job, lane.after)
    if staged.errors:
        details = [_detail(job, error) for error in staged.errors]
        return replace(
            lane,
            phase=ABANDON,
            after=None,
            details=tuple(details[:DETAILS]),
            more=len(details) > DETAILS,
        )
    phase = STAGE if staged.after is not None else FLIP
    return replace(lane, phase=phase, after=staged.after)


def _detail(job: update.Job, error: str) -> str:
    place, _, message = error.partition(": ")
    series, _, sop = place.partition("/")
    return (
        f"{message} PartitionKey: {job.partition.number}, StudyInstanceUID:"
        f" {job.study_instance_uid}, SeriesInstanceUID: {series}, SOPInstanceUID: {sop}"
    )


async def _flip(job: update.Job, lane: Lane, _: IsEnded) -> Lane:
    try:
        count = await update.flip(job)
    except Conflict as error:
        return replace(lane, phase=ABANDON, details=(str(error),))
    if count == 0:
        gone = "The study was deleted while it was updated."
        return replace(lane, phase=ABANDON, details=(gone,))
    return replace(lane, phase=FOLD, after=None, count=count)


async def _fold(job: update.Job, lane: Lane, _: IsEnded) -> Lane:
    after = await update.fold(job, lane.after)
    phase = FOLD if after is not None else FINISH
    return replace(lane, phase=phase, after=after)


async def _finish(job: update.Job, lane: Lane, _: IsEnded) -> Lane:
    await update.finish(job)
    return replace(lane, outcome=UPDATED)


async def _abandon(job: update.Job, lane: Lane, _: IsEnded) -> Lane:
    if await update.is_flipped(job):  # by a step whose answer was lost
        return replace(lane, phase=FLIP, details=(), more=False)
    messages = [
        f"Failed to update instances for study {job.study_instance_uid}",
        *lane.details,
    ]
    if lane.more:
        messages.append("More instances of the study failed than are listed here.")
    await operations.add_errors(job.runtime, job.id, f"{lane.study:06d}", messages)
    await update.abandon(job)
    if await update.is_flipped(job):
        return replace(lane, phase=FLIP, details=(), more=False)
    return replace(lane, outcome=FAILED)


_PHASES: Mapping[str, Callable[[update.Job, Lane, IsEnded], Awaitable[Lane]]] = {
    BEGIN: _begin,
    STAGE: _stage,
    FLIP: _flip,
    FOLD: _fold,
    FINISH: _finish,
    ABANDON: _abandon,
}


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
        if not result["ok"]:
            lane = _tried(Lane.from_json(before))
        else:
            lane = Lane.from_json(result["lane"])
        if lane.outcome is None:
            lanes.append(lane)
        else:
            _count(after, lane)
    while len(lanes) < LANES and after["next"] < after["total"]:
        if after["canceled"]:
            break
        lanes.append(Lane(after["next"]))
        after["next"] += 1
    after["lanes"] = [asdict(lane) for lane in lanes]
    return after


def _tried(lane: Lane) -> Lane:
    """The lane after a step that failed: tried again, then given up."""
    lane = replace(lane, tries=lane.tries + 1)
    if lane.phase in {BEGIN, STAGE, FLIP} and lane.tries >= TRIES:
        return Lane(
            lane.study,
            phase=ABANDON,
            details=("The stores could not be used for too long.",),
        )
    if lane.tries >= PATIENT_TRIES:
        # Folding changes nothing visible; the next update of the study ends it.
        outcome = FAILED if lane.phase == ABANDON else UPDATED
        return replace(lane, outcome=outcome)
    return lane


def _count(state: State, lane: Lane) -> None:
    if lane.outcome == CANCELED:
        state["canceled"] = True
        return
    state["processed"] += 1
    if lane.outcome == UPDATED:
        state["updated"] += 1
        state["instances"] += lane.count
    elif lane.outcome == FAILED:
        state["failed"] += 1


def pause_seconds(state: State) -> int:
    """How long to wait before the next steps, 0 where a lane gets on."""
    lanes = [Lane.from_json(lane) for lane in state["lanes"]]
    if not lanes or any(not lane.waiting and not lane.tries for lane in lanes):
        return 0
    tries = max(lane.tries for lane in lanes)
    return min(60, 2 * 2**tries) if tries else 5


async def end(runtime: Runtime, operation_id: str, state: State) -> None:
    """Records how the operation ended and forgets the request."""
    await operations.record(
        runtime,
        operation_id,
        OperationType.UPDATE,
        status(state),
        state["created"],
        progress(state),
    )
    await operations.drop_request(runtime, operation_id)
