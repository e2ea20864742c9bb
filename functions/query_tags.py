"""Extended query tags: add, list, get, switch queries, delete, errors."""

from starlette.responses import PlainTextResponse, Response

from dicomweb.query_tags import QueryTag
from dicomweb.tag_requests import (
    entry_json,
    parse_entries,
    parse_patch,
    shaped,
    tag_of,
)
from functions.call import Call
from functions.json_body import json_body
from functions.operations import (
    accepted,
    check_enabled,
    operation_url,
    resume_reindex,
    start,
)
from functions.paging import limit_and_offset
from functions.representations import json_response
from services import query_tags, reindex_operation
from services.operations import OperationType


async def add_tags(call: Call) -> Response:
    """Adds the tags and starts to bring them in."""
    check_enabled(call)
    entries = shaped(await json_body(call))
    runtime = call.runtime
    operation_id = runtime.new_id()
    created = runtime.now().isoformat()
    try:
        await _check_idle(call)
        tags = await query_tags.add(runtime, parse_entries(entries), operation_id)
    except query_tags.ReindexActive as active:
        location = operation_url(call, active.operation_id)
        return PlainTextResponse(str(active), 409, {"Location": location})
    checkpoint = await reindex_operation.prepare(runtime, operation_id, tags, created)
    await start(call, OperationType.REINDEX, operation_id, checkpoint)
    return await accepted(call, operation_id, located=True)


async def _check_idle(call: Call) -> None:
    """Makes sure that no tags are being brought in, by an operation that lives.

    Raises:
        ReindexActive: They are.
    """
    try:
        await query_tags.check_idle(call.runtime)
    except query_tags.ReindexActive:
        await resume_reindex(call.runtime, call.client)
        await query_tags.check_idle(call.runtime)


async def list_tags(call: Call) -> Response:
    """All tags in the order in which they were added."""
    limit, offset = limit_and_offset(call)
    registry = await call.runtime.tags.read()
    page = registry.tags[offset : offset + limit]
    return await json_response(
        call, [entry_json(tag, call.version_url) for tag in page]
    )


def _path(call: Call) -> str:
    return tag_of(call.path("tag") or "")


async def _entry(call: Call, tag: QueryTag) -> Response:
    return await json_response(call, entry_json(tag, call.version_url))


async def get_tag(call: Call) -> Response:
    """One tag."""
    return await _entry(call, await query_tags.find(call.runtime, _path(call)))


async def update_tag(call: Call) -> Response:
    """Switches queries on the tag on or off."""
    path = _path(call)
    enabled = parse_patch(await json_body(call))
    tag = await query_tags.set_enabled(call.runtime, path, enabled=enabled)
    return await _entry(call, tag)


async def delete_tag(call: Call) -> Response:
    """Removes the tag."""
    await query_tags.delete(call.runtime, _path(call))
    return Response(None, 204)


async def list_tag_errors(call: Call) -> Response:
    """What could not be indexed, oldest first."""
    limit, offset = limit_and_offset(call)
    found = await query_tags.errors(
        call.runtime, _path(call), limit=limit, offset=offset
    )
    return await json_response(
        call,
        [
            {
                "partitionName": error.partition_name,
                "studyInstanceUid": error.study_instance_uid,
                "seriesInstanceUid": error.series_instance_uid,
                "sopInstanceUid": error.sop_instance_uid,
                "createdTime": error.created.isoformat(),
                "errorMessage": error.message,
            }
            for error in found
        ],
    )
