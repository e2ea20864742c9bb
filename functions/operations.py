"""Operations: how one stands, the list of them, cancellation."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from starlette.responses import Response

from dicomweb.errors import Conflict, InvalidRequest, NotFound, quoted
from functions.call import Call, Permission
from functions.paging import limit_and_offset
from functions.representations import json_response
from services import (
    export_operation,
    operations,
    query_tags,
    reindex_operation,
    scrub_operation,
    update_operation,
)
from services.operations import (
    ORCHESTRATORS,
    Operation,
    OperationStatus,
    OperationType,
    Progress,
    has_ended,
)
from services.runtime import Runtime

_ID = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
_TYPES = {name: type for type, name in ORCHESTRATORS.items()}
_STATUSES = {
    "Pending": OperationStatus.NOT_STARTED,
    "Running": OperationStatus.RUNNING,
    "ContinuedAsNew": OperationStatus.RUNNING,
    "Suspended": OperationStatus.RUNNING,
    "Failed": OperationStatus.FAILED,
    "Canceled": OperationStatus.CANCELED,
    "Terminated": OperationStatus.CANCELED,
}
_FIRST_PROGRESS = {
    OperationType.REINDEX: reindex_operation.progress,
    OperationType.UPDATE: update_operation.progress,
    OperationType.EXPORT: export_operation.progress,
    OperationType.SCRUB: scrub_operation.progress,
}
_SUCCEEDED_IN_VERSION_1 = "completed"
E = TypeVar("E", bound=Enum)


# --- started by other routes ---------------------------------------------------------


def operation_url(call: Call, operation_id: str) -> str:
    """Where the status of the operation is."""
    return f"{call.version_url}/operations/{operation_id}"


def check_enabled(call: Call) -> None:
    """Refuses to start anything while operations are switched off.

    Raises:
        InvalidRequest: They are.
    """
    if not call.runtime.settings.operations:
        raise InvalidRequest(
            "Asynchronous operations are temporarily disabled. Please try again later.",
            code="OperationsDisabled",
        )


async def start(
    call: Call, type: OperationType, operation_id: str, checkpoint: Mapping[str, Any]
) -> None:
    """Starts the orchestration of an operation; harmless when it has started already.

    Raises:
        Exception: It could not be started, as the Durable client says.
    """
    await start_orchestration(call.client, type, operation_id, checkpoint)


async def start_orchestration(
    client: Any,
    type: OperationType,
    operation_id: str,
    checkpoint: Mapping[str, Any],
) -> None:
    """See `start`."""
    try:
        await client.start_new(ORCHESTRATORS[type], operation_id, dict(checkpoint))
    except Exception:
        # The client library raises the same for everything; an instance that runs
        # already was started by a request, or by the timer, that came first.
        if not await client.get_status(operation_id):
            raise


async def resume_reindex(runtime: Runtime, client: Any) -> None:
    """Starts the reindex that a crash kept from starting; frees tags of an ended one.

    Args:
        runtime: The stores.
        client: Of Durable Functions.
    """
    registry = await runtime.tags.read()
    for operation_id in {t.operation_id for t in registry.tags if t.operation_id}:
        instance = await client.get_status(operation_id)
        if not instance:
            tags = query_tags.brought_in_by(registry, operation_id)
            created = runtime.now().isoformat()
            await start_orchestration(
                client,
                OperationType.REINDEX,
                operation_id,
                await reindex_operation.prepare(runtime, operation_id, tags, created),
            )
        elif has_ended(instance):
            await query_tags.release(runtime, operation_id)


async def settle(runtime: Runtime, client: Any) -> int:
    """Ends in the books what ended without doing so itself; how many.

    What was terminated, or was never started because its server died, would be listed
    as running, and what it was asked to do would be kept.

    Args:
        runtime: The stores.
        client: Of Durable Functions.
    """
    before = runtime.now() - export_operation.UNSTARTED
    count = 0
    for recorded in await operations.unended(runtime, before):
        found = await find(client, recorded.id)
        if found is not None and not found.status.ended:
            continue
        ended = found or replace(recorded, status=OperationStatus.FAILED)
        await operations.record(
            runtime,
            recorded.id,
            recorded.type,
            ended.status,
            recorded.created.isoformat(),
            ended.progress,
        )
        await export_operation.forget(runtime, recorded.id)
        count += 1
    return count


async def accepted(call: Call, operation_id: str, *, located: bool) -> Response:
    """202: the operation runs.

    Args:
        call: The request.
        operation_id: What was started.
        located: Whether the answer has a Location.
    """
    href = operation_url(call, operation_id)
    headers = {"Location": href} if located else {}
    value = {"id": operation_id, "href": href}
    return await json_response(call, value, status=202, headers=headers)


# --- status --------------------------------------------------------------------------


async def read_operation(call: Call) -> Response:
    """How the operation stands: 202 while it runs, 200 afterwards."""
    operation = await _asked_for(call)
    headers = {}
    status = 200
    if not operation.status.ended:
        status = 202
        headers["Location"] = operation_url(call, operation.id)
    value = await _json(call, operation)
    return await json_response(call, value, status=status, headers=headers)


async def _asked_for(call: Call) -> Operation:
    """The operation of the path.

    Raises:
        NotFound: There is none, or the id is none.
    """
    text = call.path("operation") or ""
    if _ID.fullmatch(text):
        found = await find(call.client, text.replace("-", "").lower())
        if found is not None:
            return found
    raise NotFound("", code="OperationNotFound")


async def find(client: Any, operation_id: str) -> Operation | None:
    """The operation as its orchestration says, or None where there is none."""
    instance = await client.get_status(operation_id, show_input=True)
    if not instance or instance.name not in _TYPES:
        return None
    type = _TYPES[instance.name]
    checkpoint = _plain(instance.input_)
    output = _plain(instance.output)
    runtime_status = instance.runtime_status.name
    if runtime_status == "Completed":
        status = OperationStatus(output["status"])
    else:
        status = _STATUSES[runtime_status]
    shown = _plain(instance.custom_status)
    progress = Progress.from_json(shown) if shown else _FIRST_PROGRESS[type](checkpoint)
    return Operation(
        id=operation_id,
        type=type,
        status=status,
        created=datetime.fromisoformat(checkpoint["created"]),
        updated=instance.last_updated_time,
        progress=progress,
    )


def _plain(value: Any) -> Any:
    """The value; texts that hold JSON are decoded, as deep as they were encoded."""
    while isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return value


async def _json(call: Call, operation: Operation) -> dict[str, Any]:
    progress = operation.progress
    status = operation.status.value
    if operation.status is OperationStatus.SUCCEEDED and call.version_number < 2:
        status = _SUCCEEDED_IN_VERSION_1
    value: dict[str, Any] = {
        "operationId": operation.id,
        "type": operation.type.value,
        "createdTime": operation.created.isoformat(),
        "lastUpdatedTime": operation.updated.isoformat(),
        "status": status,
    }
    if progress.percent is not None:
        value["percentComplete"] = progress.percent
    if progress.resources:
        value["resources"] = [
            f"{call.version_url}/{path}" for path in progress.resources
        ]
    if progress.results:
        value["results"] = dict(progress.results)
        is_scrub = operation.type is OperationType.SCRUB
        if is_scrub or progress.results.get("studyFailed"):
            errors = await operations.errors(call.runtime, operation.id)
            value["results"]["errors"] = errors
    return value


# --- beyond the .NET server ----------------------------------------------------------


async def list_operations(call: Call) -> Response:
    """Operations of a type and status, newest first."""
    limit, offset = limit_and_offset(call)
    type = _choice(call, "type", OperationType)
    status = _choice(call, "status", OperationStatus)
    recorded = await operations.listed(
        call.runtime, type=type, status=status, limit=limit, offset=offset
    )
    current = await asyncio.gather(*(_current(call, each) for each in recorded))
    listed = [each for each in current if status in {None, each.status}]
    return await json_response(call, [await _json(call, each) for each in listed])


async def _current(call: Call, operation: Operation) -> Operation:
    """The operation as it stands now; what has ended stays as it was recorded."""
    if operation.status.ended:
        return operation
    return await find(call.client, operation.id) or operation


def _choice(call: Call, name: str, values: type[E]) -> E | None:
    """The value that a query parameter names, in any case.

    Raises:
        InvalidRequest: There is no such value.
    """
    text = next((v for n, v in reversed(call.pairs) if n.lower() == name), None)
    if text is None:
        return None
    wanted = text.strip().lower()
    if values is OperationStatus and wanted == _SUCCEEDED_IN_VERSION_1:
        wanted = OperationStatus.SUCCEEDED.value
    for value in values:
        if value.value.lower() == wanted:
            return value
    names = ", ".join(value.value for value in values)
    raise InvalidRequest(
        f"The query parameter '{name}' is invalid. {quoted(text)} is none of {names}."
    )


_STARTED_WITH = {
    OperationType.REINDEX: Permission.MANAGE_EXTENDED_QUERY_TAGS,
    OperationType.UPDATE: Permission.WRITE,
    OperationType.EXPORT: Permission.EXPORT,
    OperationType.SCRUB: Permission.ALL,
}


async def cancel_operation(call: Call) -> Response:
    """Asks the operation to end at its next step.

    Raises:
        Forbidden: The caller may not start one of its type.
    """
    operation = await _asked_for(call)
    call.require(_STARTED_WITH[operation.type])
    if operation.status.ended:
        raise Conflict("The operation has ended already.", code="OperationEnded")
    await operations.cancel(call.runtime, operation.id)
    return await accepted(call, operation.id, located=True)
