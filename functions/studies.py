"""Studies, series and instances: store, search, delete.

Source: PS3.18 10.5, 10.6.
"""

from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from dicomweb import query, store_response
from dicomweb.errors import InvalidRequest
from dicomweb.media_types import check_accepts_dicom_json
from dicomweb.multipart import (
    Event,
    Multipart,
    Parser,
    PartBegin,
    PartData,
    PartEnd,
    SinglePart,
    check_part_type,
    store_framing,
)
from dicomweb.query import Resource, SearchQuery
from dicomweb.store_response import Stored
from functions.call import Call, Handler
from functions.representations import dicom_json_response
from services import delete, search, store
from services.retrieve import Scope


def scope_of(call: Call) -> Scope:
    """The study, series or instance of the path.

    Raises:
        InvalidRequest: One of its UIDs is none.
    """
    study = call.uid("study", "StudyInstanceUID")
    assert study is not None
    return Scope(
        call.partition,
        study,
        call.uid("series", "SeriesInstanceUID"),
        call.uid("instance", "SOPInstanceUID"),
    )


# --- store ---------------------------------------------------------------------------


async def store_instances(call: Call) -> Response:
    """STOW-RS.

    Source: PS3.18 10.5.
    """
    check_accepts_dicom_json(call.accept)
    study_instance_uid = call.uid("study", "StudyInstanceUID")
    framing = store_framing(call.request.headers.get("content-type"))
    outcome = await store.store_instances(
        call.runtime,
        call.partition,
        part_events(call.request, framing, call.runtime.settings.max_file_bytes),
        study_instance_uid=study_instance_uid,
        version=call.version_number,
    )
    stored = sum(isinstance(result, Stored) for result in outcome.results)
    call.usage.instances_stored += stored
    response = store_response.build(
        outcome.results,
        version=call.version_number,
        base_url=call.base_url,
        is_study_in_path=study_instance_uid is not None,
    )
    if response.dataset is None:
        return Response(None, response.status)
    headers = {}
    if outcome.multiple_values:
        host = call.request.url.hostname
        headers["Warning"] = store_response.multiple_values_warning(host)
    return await dicom_json_response(
        call, response.dataset, status=response.status, headers=headers
    )


async def part_events(
    request: Request, framing: SinglePart | Multipart, max_part_bytes: int
) -> AsyncIterator[Event]:
    """The parts of the body as they arrive.

    Raises:
        InvalidRequest: The framing is damaged.
        UnsupportedMediaType: A part is no DICOM file.
        PayloadTooLarge: A part exceeds the limit.
    """
    if isinstance(framing, SinglePart):
        yield PartBegin({})
        async for chunk in request.stream():
            if chunk:
                yield PartData(chunk)
        yield PartEnd()
        return
    parser = Parser(framing.boundary, max_part_bytes=max_part_bytes)
    is_first = True
    async for chunk in request.stream():
        for event in parser.feed(chunk):
            if isinstance(event, PartBegin):
                check_part_type(event.headers, framing, is_first=is_first)
                is_first = False
            yield event
    for event in parser.finish():
        yield event


# --- search --------------------------------------------------------------------------


def search_for(resource: Resource) -> Handler:
    """The handler of a search resource."""

    async def search_handler(call: Call) -> Response:
        check_accepts_dicom_json(call.accept)
        parsed = await _parse(call, resource)
        found = await search.search(call.runtime, call.partition, parsed, call.base_url)
        headers = {}
        if parsed.erroneous_tags:
            headers["erroneous-dicom-attributes"] = ",".join(parsed.erroneous_tags)
        if not found.rows:
            return Response(None, 204, headers)
        if found.next_cursor is not None:
            headers["Link"] = f'<{_next_url(call, found.next_cursor)}>; rel="next"'
        return await dicom_json_response(call, found.rows, headers=headers)

    return search_handler


async def _parse(call: Call, resource: Resource) -> SearchQuery:
    """The query; the registry of query tags is only read where one may be meant.

    It is read as it is now, so that a tag can be searched by as soon as it is ready.

    Raises:
        InvalidRequest: The query breaks a rule.
    """
    parse = partial(
        query.parse,
        resource,
        call.pairs,
        study_instance_uid=call.path("study"),
        series_instance_uid=call.path("series"),
        version=call.version_number,
    )
    try:
        return parse(query_tags=())
    except InvalidRequest:
        registry = await call.runtime.tags.read()
        return parse(query_tags=registry.tags)


def _next_url(call: Call, cursor: str) -> str:
    """The same search from the cursor on."""
    kept = [
        (name, value)
        for name, value in call.pairs
        if name.lower() not in {"cursor", "offset"}
    ]
    return f"{call.resource_url}?{urlencode([*kept, ('cursor', cursor)])}"


# --- delete --------------------------------------------------------------------------


async def delete_scope(call: Call) -> Response:
    """Deletes the study, series or instance of the path.

    Source: PS3.18 10.7 is silent on it; widely implemented as here.
    """
    await delete.delete(call.runtime, scope_of(call))
    return Response(None, 204)
