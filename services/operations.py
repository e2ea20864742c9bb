"""Long-running operations: what they are called, their records, their cancellation.

An operation runs as a durable orchestration of the same id, which says how it stands.
The journal has a record of each for listing; a document in `system` holds what one is
asked to do where that is too large, or too private, for an orchestration's history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from services.runtime import Runtime
from stores import containers
from stores.ports import Create, Delete, Document, JournalRow, Upsert

KIND = "operations"
PARTITION_KEY = "operations"
REQUEST_SECONDS = 30 * 24 * 3600
SCHEMA_VERSION = 1
ERRORS_SHOWN = 1000
LONGEST = timedelta(days=30)
"""An operation that is said to run longer than this is dead."""
_PAGE = 200


class OperationType(Enum):
    """What an operation does; values as the API shows them."""

    REINDEX = "reindex"
    UPDATE = "update"
    EXPORT = "export"
    SCRUB = "scrub"


ORCHESTRATORS: Mapping[OperationType, str] = {
    OperationType.REINDEX: "Reindex",
    OperationType.UPDATE: "BulkUpdate",
    OperationType.EXPORT: "Export",
    OperationType.SCRUB: "Scrub",
}
"""Names of the durable orchestrators; changing one strands what runs under it."""


class OperationStatus(Enum):
    """How an operation stands; values as version 2 of the API shows them."""

    NOT_STARTED = "notStarted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in {OperationStatus.NOT_STARTED, OperationStatus.RUNNING}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation has come.

    Attributes:
        percent: 0 to 100, None where nobody can say.
        resources: What it works on, as paths below `/{version}/`.
        results: What it has done, by type of operation.
    """

    percent: int | None = None
    resources: tuple[str, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For checkpoints, custom statuses and the journal."""
        return {
            "percent": self.percent,
            "resources": list(self.resources),
            "results": self.results,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`; what is missing is unknown."""
        return cls(
            value.get("percent"),
            tuple(value.get("resources") or ()),
            dict(value.get("results") or {}),
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation at one moment."""

    id: str
    type: OperationType
    status: OperationStatus
    created: datetime
    updated: datetime
    progress: Progress


# --- records -------------------------------------------------------------------------


async def record(
    runtime: Runtime,
    operation_id: str,
    type: OperationType,
    status: OperationStatus,
    created: str,
    progress: Progress,
) -> None:
    """Writes or replaces the record of an operation.

    Args:
        runtime: The stores.
        operation_id: 32 hex digits.
        type: What it does.
        status: How it stands.
        created: When it was asked for, ISO 8601; the same at every call.
        progress: How far it has come.
    """
    row = JournalRow(
        at=datetime.fromisoformat(created),
        id=operation_id,
        data={
            "type": type.value,
            "status": status.value,
            "updated": runtime.now().isoformat(),
            **progress.to_json(),
        },
    )
    await runtime.journal.put(KIND, [row])


async def listed(
    runtime: Runtime,
    *,
    type: OperationType | None,
    status: OperationStatus | None,
    limit: int,
    offset: int,
) -> list[Operation]:
    """Recorded operations of the type and status, newest first."""
    found: list[Operation] = []
    position = 0
    while len(found) < offset + limit:
        rows = await runtime.journal.page(KIND, limit=_PAGE, offset=position)
        position += len(rows)
        found += [
            operation
            for operation in map(_decoded, rows)
            if type in {None, operation.type} and status in {None, operation.status}
        ]
        if len(rows) < _PAGE:
            break
    return found[offset : offset + limit]


async def unended(runtime: Runtime, before: datetime) -> list[Operation]:
    """Operations begun before whose record does not say that they ended."""
    found: list[Operation] = []
    position = 0
    while True:
        rows = await runtime.journal.page(
            KIND, limit=_PAGE, offset=position, oldest_first=True
        )
        position += len(rows)
        old = [row for row in rows if row.at < before]
        found += [each for each in map(_decoded, old) if not each.status.ended]
        if len(old) < _PAGE:
            return found


def _decoded(row: JournalRow) -> Operation:
    return Operation(
        id=row.id,
        type=OperationType(row.data["type"]),
        status=OperationStatus(row.data["status"]),
        created=row.at,
        updated=datetime.fromisoformat(row.data["updated"]),
        progress=Progress.from_json(row.data),
    )


async def forget(runtime: Runtime, before: datetime) -> int:
    """Deletes the records, and the errors, of operations begun before; how many.

    Those that still run are kept, unless they began a month before that.
    """
    count = 0
    running: list[JournalRow] = []
    while True:
        rows = await runtime.journal.page(KIND, limit=_PAGE, oldest_first=True)
        old = [row for row in rows if row.at < before]
        if not old:
            break
        kept = [row for row in old if _may_run(row, before)]
        running += kept
        for row in old:
            if row not in kept:
                await runtime.journal.purge(error_kind(row.id))
        end = old[-1].at + timedelta(microseconds=1)
        count += await runtime.journal.purge(KIND, end) - len(kept)
    await runtime.journal.put(KIND, running)
    return count


def _may_run(row: JournalRow, before: datetime) -> bool:
    ended = OperationStatus(row.data["status"]).ended
    return not ended and row.at >= before - LONGEST


# --- errors --------------------------------------------------------------------------


def error_kind(operation_id: str) -> str:
    """Kind of the journal rows that hold an operation's errors."""
    return f"operation-errors-{operation_id}"


async def add_errors(
    runtime: Runtime, operation_id: str, about: str, messages: list[str]
) -> None:
    """Keeps what went wrong with one thing; again changes nothing.

    Args:
        runtime: The stores.
        operation_id: Whose errors.
        about: What they are about, unique in the operation; a part of a key.
        messages: For the client.
    """
    row = JournalRow(at=ERRORS_AT, id=about, data={"messages": messages})
    await runtime.journal.put(error_kind(operation_id), [row])


ERRORS_AT = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
"""One time for all: an error that is met again then replaces itself."""


async def errors(runtime: Runtime, operation_id: str) -> list[str]:
    """What went wrong, in the order of what it is about; the first thousand things."""
    rows = await runtime.journal.page(
        error_kind(operation_id), limit=ERRORS_SHOWN, oldest_first=True
    )
    return [message for row in rows for message in row.data["messages"]]


# --- requests and cancellation -------------------------------------------------------


async def keep_request(
    runtime: Runtime, operation_id: str, request: Mapping[str, Any]
) -> None:
    """Keeps what the operation is asked to do, until `drop_request`."""
    document = {
        "id": _request_id(operation_id),
        "k": "operation-request",
        "ttl": REQUEST_SECONDS,
        **request,
    }
    await runtime.documents.batch(containers.SYSTEM, PARTITION_KEY, [Upsert(document)])
    await runtime.documents.flush()


async def request_of(runtime: Runtime, operation_id: str) -> Document | None:
    """What the operation is asked to do; None after its end."""
    return await runtime.documents.read(
        containers.SYSTEM, PARTITION_KEY, _request_id(operation_id)
    )


async def drop_request(runtime: Runtime, operation_id: str) -> None:
    """Forgets what the operation was asked to do; harmless when there is nothing."""
    await runtime.documents.batch(
        containers.SYSTEM, PARTITION_KEY, [Delete(_request_id(operation_id))]
    )


def _request_id(operation_id: str) -> str:
    return f"request:{operation_id}"


async def cancel(runtime: Runtime, operation_id: str) -> None:
    """Asks the operation to end at its next step; asking again is harmless."""
    document = {
        "id": _cancel_id(operation_id),
        "k": "operation-cancel",
        "ttl": REQUEST_SECONDS,
    }
    await runtime.documents.batch(containers.SYSTEM, PARTITION_KEY, [Create(document)])
    await runtime.documents.flush()


async def is_canceled(runtime: Runtime, operation_id: str) -> bool:
    """Whether the operation was asked to end; every step asks this first."""
    found = await runtime.documents.read(
        containers.SYSTEM, PARTITION_KEY, _cancel_id(operation_id)
    )
    return found is not None


def _cancel_id(operation_id: str) -> str:
    return f"cancel:{operation_id}"


def has_ended(instance: Any) -> bool:
    """Whether the orchestration of this status has ended, or never was.

    Args:
        instance: As the Durable client gives it; false where there is none.
    """
    if not instance:
        return True
    return str(instance.runtime_status.name) not in _UNDER_WAY


_UNDER_WAY = frozenset({"Running", "Pending", "ContinuedAsNew", "Suspended"})
