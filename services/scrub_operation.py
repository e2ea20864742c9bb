"""The operation that scrubs: its steps, each of which may be repeated, and its report.

It looks at all instances, then at all blobs, then repairs what it found. Findings wait
in the journal as errors of the operation. Where the index seems not to be the one of
these blobs, nothing is deleted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dicomweb.errors import Conflict
from services import instances, operations, scrub, scrub_repair
from services.operations import OperationStatus, OperationType, Progress
from services.runtime import Runtime
from services.scrub import Finding, Look, Problem
from services.scrub_repair import Outcome, Repairs
from stores import containers
from stores.ports import Create, Delete, JournalRow, Rejected, Replace
from stores.ports import Operation as StoreOperation

INSTANCES, BLOBS, REPAIR, DONE = "instances", "blobs", "repair", "done"
REPAIRS_A_STEP = 50
PREFIXES_A_STEP = 16
TOLERATED = 20
TOLERATED_SHARE = 0.1
"""More than both of what an index or a blob store seems to lack is no accident."""
MANY = 1000
"""So many findings that are no accident are enough: the look ends."""
ACTIVE = "scrub-active"

State = dict[str, Any]
"""Checkpoint of the operation: JSON, kept small; see `first_state`."""

COUNTS: Mapping[str, str] = {
    "instances": "instances looked at",
    "blobs": "blobs that belong to them",
    "bytes": "bytes read and hashed",
    "unhashed": "files without a recorded hash: only their size was compared",
    "lost": "files that are missing",
    "damaged": "files with another size or hash",
    "sideBlobs": "metadata or frame indexes beside files, missing or damaged",
    "listed": "blobs in the store",
    "foreign": "blobs whose names are not the archive's",
    "orphans": "old blobs that nothing refers to",
    "oldLists": "old lists of deleted instances",
    "unindexed": "orphans of instances that the index does not have",
    "ahead": "orphans newer than the index",
    "repaired": "findings that were repaired",
    "removed": "instances removed from the index",
    "deleted": "blobs that were deleted",
    "left": "findings that are left",
}
"""Counters of a report and what they count."""

_COUNTER = {
    Problem.LOST: "lost",
    Problem.DAMAGED: "damaged",
    Problem.SIDE_BLOB: "sideBlobs",
    Problem.ORPHAN: "orphans",
    Problem.OLD_LIST: "oldLists",
}
_OUTCOME_COUNTER = {
    Outcome.REPAIRED: "repaired",
    Outcome.REMOVED: "removed",
    Outcome.DELETED: "deleted",
    Outcome.HELD: "left",
    Outcome.LEFT: "left",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    Attributes:
        dry_run: Only look.
        hashes: Read every file; else sizes are compared only.
        remove_lost: Take instances out of the index whose bytes are lost.
    """

    dry_run: bool = False
    hashes: bool = True
    remove_lost: bool = False

    def to_json(self) -> dict[str, bool]:
        """As the API spells them."""
        return {
            "dryRun": self.dry_run,
            "hashes": self.hashes,
            "removeLost": self.remove_lost,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, bool]) -> "Options":
        """The inverse of `to_json`."""
        return cls(value["dryRun"], value["hashes"], value["removeLost"])


class ScrubActive(Conflict):
    """A scrub is under way.

    Attributes:
        operation_id: Of that one.
    """

    def __init__(self, operation_id: str) -> None:
        super().__init__(
            f"A scrub is under way: operation {operation_id}.", code="ScrubActive"
        )
        self.operation_id = operation_id


# --- one at a time -------------------------------------------------------------------


async def active(runtime: Runtime) -> str | None:
    """Id of the scrub that was started last and has not said that it ended."""
    found = await runtime.documents.read(
        containers.SYSTEM, operations.PARTITION_KEY, ACTIVE
    )
    return None if found is None else found["operation"]


async def take_turn(runtime: Runtime, operation_id: str, after: str | None) -> None:
    """Says that this scrub is the one under way.

    Args:
        runtime: The stores.
        operation_id: Of the new scrub.
        after: What `active` gave, when that one has ended.

    Raises:
        ScrubActive: Another one came first.
    """
    key = operations.PARTITION_KEY
    found = await runtime.documents.read(containers.SYSTEM, key, ACTIVE)
    document = {"id": ACTIVE, "k": ACTIVE, "operation": operation_id}
    operation: StoreOperation = Create(document)
    if found is not None:
        if found["operation"] != after:
            raise ScrubActive(found["operation"])
        operation = Replace(document, if_etag=found["_etag"])
    result = await runtime.documents.batch(containers.SYSTEM, key, [operation])
    if isinstance(result, Rejected):
        raise ScrubActive(await active(runtime) or operation_id)
    await runtime.documents.flush()


async def _end_turn(runtime: Runtime, operation_id: str) -> None:
    key = operations.PARTITION_KEY
    found = await runtime.documents.read(containers.SYSTEM, key, ACTIVE)
    if found is not None and found["operation"] == operation_id:
        await runtime.documents.batch(
            containers.SYSTEM, key, [Delete(ACTIVE, if_etag=found["_etag"])]
        )


# --- checkpoints ---------------------------------------------------------------------


async def prepare(
    runtime: Runtime, operation_id: str, options: Options, created: str
) -> State:
    """The first checkpoint; the operation is recorded."""
    newest = await instances.highest_first_watermark(runtime.documents)
    state = first_state(options, created, newest)
    await record(runtime, operation_id, state, OperationStatus.NOT_STARTED)
    return state


def first_state(options: Options, created: str, end: int) -> State:
    """The checkpoint of a scrub that has looked at nothing yet.

    Args:
        options: What is asked for.
        created: When, ISO 8601.
        end: Highest watermark there is.
    """
    return {
        "schema_version": operations.SCHEMA_VERSION,
        "created": created,
        "options": options.to_json(),
        "phase": INSTANCES,
        "end": end,
        "position": end,
        "counts": dict.fromkeys(COUNTS, 0),
        "canceled": False,
    }


def progress(state: State) -> Progress:
    """Of a checkpoint."""
    return Progress(
        percent=_percent(state),
        results={**state["counts"], **state["options"], "warnings": warnings(state)},
    )


def _percent(state: State) -> int:
    position = state["position"]
    match state["phase"]:
        case "instances":
            share = 1 - position / state["end"] if state["end"] else 1
            return int(80 * share)
        case "blobs":
            return 80 + int(18 * int((position or "0").ljust(4, "0"), 16) / 0x10000)
        case "repair":
            return 98
    return 100


def status(state: State) -> OperationStatus:
    """How an operation whose phase is DONE has ended."""
    if state["canceled"]:
        return OperationStatus.CANCELED
    return OperationStatus.SUCCEEDED


def warnings(state: State) -> list[str]:
    """What an administrator must know before anything else."""
    counts = state["counts"]
    found = []
    if counts["ahead"]:
        found.append(
            "Blobs are newer than the index: it was restored from an older state."
            " Nothing was deleted. Bring the instances back with"
            " ./dev scrub --rebuild --merge."
        )
    elif _too_many(counts["unindexed"], counts["instances"]):
        found.append(
            "The index lacks many of the stored instances: it may not be the index of"
            " these blobs. Nothing was deleted."
        )
    if _too_many(counts["lost"], counts["instances"]):
        found.append(
            "Many files are missing: the blob store may not be the one of this index."
            " No instance was removed."
        )
    return found


def _too_many(count: int, of: int) -> bool:
    return count > TOLERATED and count > TOLERATED_SHARE * of


def allowed_repairs(state: State) -> Repairs:
    """What may be done about the findings, given all that was found."""
    counts = state["counts"]
    return Repairs(
        delete_orphans=not counts["ahead"]
        and not _too_many(counts["unindexed"], counts["instances"]),
        remove_lost=state["options"]["removeLost"]
        and not _too_many(counts["lost"], counts["instances"]),
    )


# --- a step --------------------------------------------------------------------------


async def step(
    runtime: Runtime,
    operation_id: str,
    state: State,
    *,
    repairs: Repairs | None = None,
) -> State:
    """The checkpoint after some seconds of work.

    Args:
        runtime: The stores.
        operation_id: Whose findings and cancellation.
        state: Before; it is left as it is.
        repairs: Where copies may come from, if not only from the store.

    Raises:
        StoreUnavailable: A repetition goes on.
    """
    after = {**state, "counts": dict(state["counts"])}
    if await operations.is_canceled(runtime, operation_id):
        return after | {"canceled": True, "phase": DONE}
    match state["phase"]:
        case "instances":
            await _look_at_instances(runtime, operation_id, after)
        case "blobs":
            await _look_at_blobs(runtime, operation_id, after)
        case "repair":
            await _repair(runtime, operation_id, after, repairs)
    return after


async def _look_at_instances(runtime: Runtime, operation_id: str, state: State) -> None:
    options = Options.from_json(state["options"])
    look = await scrub.look_at_instances(
        runtime,
        state["position"],
        hashes=options.hashes,
        record_hashes=not options.dry_run,
    )
    await _keep(runtime, operation_id, look.findings)
    _count(state, look)
    counts = state["counts"]
    counts["blobs"] += look.blobs
    state["position"] = look.following
    if look.following is None:
        state |= {"phase": BLOBS, "position": ""}
    if counts["lost"] > MANY and _too_many(counts["lost"], counts["instances"]):
        state |= {"phase": DONE, "position": 0}


async def _look_at_blobs(runtime: Runtime, operation_id: str, state: State) -> None:
    for _ in range(PREFIXES_A_STEP):
        look = await scrub.look_at_blobs(runtime, state["position"])
        await _keep(runtime, operation_id, look.findings)
        _count(state, look)
        state["counts"]["listed"] += look.blobs
        state["position"] = look.following
        counts = state["counts"]
        enough = counts["ahead"] > MANY or (
            counts["unindexed"] > MANY
            and _too_many(counts["unindexed"], counts["instances"])
        )
        if look.following is None or enough:
            phase = DONE if state["options"]["dryRun"] else REPAIR
            state |= {"phase": phase, "position": 0}
            return


def _count(state: State, look: Look) -> None:
    counts = state["counts"]
    counts["instances"] += look.instances
    counts["bytes"] += look.size_bytes
    counts["foreign"] += look.foreign
    counts["unhashed"] += look.unhashed
    for finding in look.findings:
        counts[_COUNTER[finding.problem]] += 1
        counts["unindexed"] += finding.is_unindexed
        counts["ahead"] += finding.is_ahead


async def _repair(
    runtime: Runtime, operation_id: str, state: State, repairs: Repairs | None
) -> None:
    allowed = allowed_repairs(state)
    if repairs is not None:
        allowed = replace(allowed, backup=repairs.backup)
    rows = await runtime.journal.page(
        operations.error_kind(operation_id),
        limit=REPAIRS_A_STEP,
        offset=state["position"],
        oldest_first=True,
    )
    for row in rows:
        finding = Finding.from_json(row.data["finding"])
        outcome = await _outcome(runtime, row, finding, allowed)
        counter = _OUTCOME_COUNTER.get(outcome)
        if counter is not None:
            state["counts"][counter] += 1
        await _keep(runtime, operation_id, [finding], outcome)
    state["position"] += len(rows)
    if len(rows) < REPAIRS_A_STEP:
        state["phase"] = DONE


async def _outcome(
    runtime: Runtime, row: JournalRow, finding: Finding, allowed: Repairs
) -> Outcome:
    """What a repetition of the step was told before, or what is done now."""
    known = row.data.get("outcome")
    if known is not None:
        return Outcome[known]
    return await scrub_repair.repair(runtime, finding, allowed)


async def _keep(
    runtime: Runtime,
    operation_id: str,
    findings: Sequence[Finding],
    outcome: Outcome | None = None,
) -> None:
    """Writes the findings to the journal; again changes nothing."""
    rows = []
    for finding in findings:
        text = f"{finding.text} ({outcome.value})." if outcome else f"{finding.text}."
        data: dict[str, Any] = {"messages": [text], "finding": finding.to_json()}
        if outcome is not None:
            data["outcome"] = outcome.name
        rows.append(JournalRow(at=operations.ERRORS_AT, id=finding.key, data=data))
    if rows:
        await runtime.journal.put(operations.error_kind(operation_id), rows)


# --- records -------------------------------------------------------------------------


async def record(
    runtime: Runtime, operation_id: str, state: State, status: OperationStatus
) -> None:
    """Writes the record of the operation, which is also its report."""
    await operations.record(
        runtime,
        operation_id,
        OperationType.SCRUB,
        status,
        state["created"],
        progress(state),
    )


async def end(
    runtime: Runtime, operation_id: str, state: State, status: OperationStatus
) -> None:
    """Records how the operation ended and lets the next one start."""
    await record(runtime, operation_id, state, status)
    await _end_turn(runtime, operation_id)
