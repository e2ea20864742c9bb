"""WADO-RS: files, metadata, frames, bulk data and rendered images.

Source: PS3.18 10.4.
"""

import re
from functools import partial

from starlette.responses import Response, StreamingResponse

from dicomweb.errors import InvalidRequest, quoted
from dicomweb.media_types import (
    DICOM,
    OCTET_STREAM,
    Representation,
    Retrieval,
    check_accepts_dicom_json,
    negotiate,
    negotiate_rendered,
    parse_image_quality,
)
from dicomweb.parameters import first_values
from dicomweb.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN
from functions.call import Call, Handler
from functions.representations import (
    Chunks,
    Content,
    Part,
    content_response,
    deflated_response,
    is_unmodified,
    multipart_response,
    not_modified,
)
from functions.studies import scope_of
from services import bulk_data, retrieve
from services.results import Result
from services.retrieve import FrameData, StoredFile

ORIGINAL_HEADER = "msdicom-request-original"


def wants_original(call: Call) -> bool:
    """Whether the version before updates is asked for."""
    value: str = call.request.headers.get(ORIGINAL_HEADER, "")
    return value.strip().lower() == "true"


# --- files ---------------------------------------------------------------------------


def retrieve_files(retrieval: Retrieval) -> Handler:
    """The handler that sends the files of a study, a series or an instance."""

    async def retrieve_handler(call: Call) -> Response:
        representation = negotiate(retrieval, call.accept)
        syntax = representation.transfer_syntax
        files = await retrieve.files(
            call.runtime, scope_of(call), syntax, original=wants_original(call)
        )
        call.usage.instances_retrieved += len(files)
        if representation.multipart:
            parts = [_file_part(call, file, syntax) for file in files]
            response = await multipart_response(call, DICOM, parts)
        else:
            response = await _single_file(call, files[0], syntax)
        response.headers.add_vary_header(ORIGINAL_HEADER)
        return response

    return retrieve_handler


def _file_type(file: StoredFile, syntax: str) -> str:
    return f"{DICOM}; transfer-syntax={retrieve.sent_syntax(file, syntax)}"


async def _single_file(call: Call, file: StoredFile, syntax: str) -> Response:
    if retrieve.is_as_stored(file, syntax):
        content = Content(
            media_type=_file_type(file, syntax),
            size_bytes=file.size_bytes,
            read=lambda offset, length: retrieve.read_file(
                call.runtime, file, offset=offset, length=length
            ),
            etag=str(file.watermark),
            sha256=file.sha256,
        )
        return await content_response(call, content)
    result = await retrieve.transcoded_file(call.runtime, file, syntax)
    return await content_response(
        call, content_of(result, _file_type(file, syntax), f"{file.watermark}-{syntax}")
    )


def _file_part(call: Call, file: StoredFile, syntax: str) -> Part:
    if retrieve.is_as_stored(file, syntax):
        return Part(
            _file_type(file, syntax),
            file.size_bytes,
            partial(retrieve.read_file, call.runtime, file),
        )

    async def transcoded() -> Chunks:
        result = await retrieve.transcoded_file(call.runtime, file, syntax)
        async for chunk in result.chunks():
            yield chunk

    return Part(_file_type(file, syntax), None, transcoded)


def content_of(result: Result, media_type: str, etag: str) -> Content:
    """The result as something that can be sent."""
    return Content(media_type, result.size_bytes, result.read, etag)


# --- metadata ------------------------------------------------------------------------


async def retrieve_metadata(call: Call) -> Response:
    """The DICOM JSON of all instances of the scope.

    Source: PS3.18 10.4.1.1.2.
    """
    check_accepts_dicom_json(call.accept)
    scope = scope_of(call)
    answer = await retrieve.metadata(call.runtime, scope, original=wants_original(call))
    if is_unmodified(call, answer.etag):
        return not_modified({"Vary": f"Accept-Encoding, User-Agent, {ORIGINAL_HEADER}"})
    call.usage.instances_retrieved += len(answer.documents)
    documents = await retrieve.filled(call.runtime, scope.pk, answer.documents)
    deflated = retrieve.metadata_array(documents, call.base_url)
    # Without quotes: clients of the .NET server compare it so.
    response = await deflated_response(call, deflated, {"ETag": answer.etag})
    response.headers.add_vary_header(ORIGINAL_HEADER)
    return response


# --- frames --------------------------------------------------------------------------


_FRAME_NUMBER = re.compile(r" *[+-]?[0-9]{1,10} *", re.ASCII)


def frame_numbers(text: str) -> list[int]:
    """The 1-based numbers of a comma list, in order, repetitions kept.

    Raises:
        InvalidRequest: An item is no whole number.
    """
    items = text.split(",")
    if not all(map(_FRAME_NUMBER.fullmatch, items)):
        raise _invalid_frames(text)
    return [int(item) for item in items]


def _invalid_frames(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"The frames {quoted(text)} are not valid: whole numbers from 1, separated by"
        " commas."
    )


async def retrieve_frames(call: Call) -> Response:
    """Frames as stored or transcoded, one part each.

    Source: PS3.18 10.4.1.1.6.
    """
    representation = negotiate(Retrieval.FRAMES, call.accept)
    numbers = frame_numbers(call.path("frames") or "")
    if not representation.multipart and len(numbers) > 1:
        raise InvalidRequest(
            "A single part holds one frame only; use multipart/related for several."
        )
    found = await retrieve.frames(
        call.runtime,
        scope_of(call),
        numbers,
        media_type=representation.media_type,
        transfer_syntax=representation.transfer_syntax,
    )
    media_type = (
        f"{representation.media_type}; transfer-syntax={found.transfer_syntax_uid}"
    )
    if not representation.multipart:
        frame = await anext(found.frames)
        return await content_response(call, content_of(frame, media_type, found.etag))
    parts = [_frame_part(found, media_type, size) for size in found.sizes_bytes]
    return await multipart_response(call, representation.media_type, parts)


def _frame_part(found: FrameData, media_type: str, size_bytes: int | None) -> Part:
    async def next_frame() -> Chunks:
        frame = await anext(found.frames)
        async for chunk in frame.chunks():
            yield chunk

    return Part(media_type, size_bytes, next_frame)


# --- bulk data -----------------------------------------------------------------------


async def retrieve_bulk_data(call: Call) -> Response:
    """The value of one binary element.

    Source: PS3.18 10.4.1.1.5.
    """
    representation = Representation(
        OCTET_STREAM, EXPLICIT_LITTLE_ENDIAN, multipart=False
    )
    if call.accept is not None:
        representation = negotiate(Retrieval.BULK_DATA, call.accept)
    syntax = representation.transfer_syntax
    path = (call.path("path") or "").strip("/")
    bulk = await bulk_data.find(call.runtime, scope_of(call), path, syntax)
    read = partial(bulk_data.read, call.runtime, bulk)
    media_type = OCTET_STREAM
    if syntax == "*" and bulk.file.transfer_syntax_uid == EXPLICIT_BIG_ENDIAN:
        media_type += f"; transfer-syntax={EXPLICIT_BIG_ENDIAN}"
    if representation.multipart:
        part = Part(media_type, bulk.size_bytes, partial(read, 0, bulk.size_bytes))
        return await multipart_response(call, OCTET_STREAM, [part])
    return await content_response(
        call, Content(media_type, bulk.size_bytes, read, bulk.etag)
    )


# --- rendered ------------------------------------------------------------------------


async def retrieve_rendered(call: Call) -> Response:
    """One frame, of an instance the first, as JPEG or PNG.

    Source: PS3.18 10.4.1.1.3.
    """
    media_type = negotiate_rendered(call.accept)
    values = first_values(call.pairs)
    quality = parse_image_quality([values["quality"]] if "quality" in values else [])
    number = 1
    frame = call.path("frame")
    if frame is not None:
        number = frame_numbers(frame)[0] if "," not in frame else 0
        if number < 1:
            raise _invalid_frames(frame)
    image = await retrieve.rendered(
        call.runtime, scope_of(call), number, media_type=media_type, quality=quality
    )
    headers = {"Vary": "Accept", "Content-Length": str(image.size_bytes)}
    if call.request.method == "HEAD":
        return Response(b"", 200, headers, media_type)
    return StreamingResponse(image.chunks(), 200, headers, media_type)
