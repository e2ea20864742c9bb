"""Responses: JSON compressed as the client likes it, files by range, multipart streams.

Source: RFC 9110 12.5.3 (Accept-Encoding), 13 (conditions), 14 (ranges); RFC 3230
(Digest).
"""

import base64
import logging
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response, StreamingResponse

from dicomweb import multipart
from dicomweb.dataset_json import as_gzip
from dicomweb.media_types import DICOM_JSON
from functions.call import Call

logger = logging.getLogger(__name__)

JSON = "application/json"
MIN_COMPRESSED_BYTES = 1024
THREAD_BYTES = 512 * 1024
_LEVEL = 1

Chunks = AsyncIterator[bytes | memoryview]


# --- JSON --------------------------------------------------------------------------


async def text_response(
    call: Call,
    body: bytes,
    *,
    media_type: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The text, compressed when the client takes it and it is over 1 KiB."""
    fields = dict(headers or {})
    if len(body) > MIN_COMPRESSED_BYTES:
        fields["Vary"] = "Accept-Encoding"
        coding = preferred_coding(call, ("gzip", "deflate"))
        if coding is not None:
            fields["Content-Encoding"] = coding
            body = await compressed(call, body, coding)
    return Response(body, status, fields, media_type)


async def json_response(
    call: Call,
    value: Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The value as JSON, compressed when the client takes it."""
    return await text_response(
        call, orjson.dumps(value), media_type=JSON, status=status, headers=headers
    )


async def dicom_json_response(
    call: Call,
    value: Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The value as DICOM JSON, compressed when the client takes it."""
    return await text_response(
        call,
        orjson.dumps(value),
        media_type=DICOM_JSON,
        status=status,
        headers=headers,
    )


async def deflated_response(
    call: Call, deflated: bytes, headers: Mapping[str, str]
) -> Response:
    """DICOM JSON that is there as a zlib stream already.

    A client that does not take `deflate`, or may not be able to read it, gets it as
    `gzip` or inflated.
    """
    fields = {"Vary": "Accept-Encoding, User-Agent", **headers}
    coding = preferred_coding(call, _codings(call))
    body = deflated
    if coding == "gzip":
        body = await call.runtime.workers.run(0, as_gzip, deflated)
    elif coding is None:
        body = await call.runtime.workers.run(0, zlib.decompress, deflated)
    if coding is not None:
        fields["Content-Encoding"] = coding
    return Response(body, 200, fields, DICOM_JSON)


# .NET before version 6 takes `deflate` for data without the zlib frame and fails on
# RFC 1950; it says nothing of itself, and what programs say is up to them.
_READS_ZLIB = re.compile(
    r"Mozilla/(?!.*PowerShell)|python-requests/|python-httpx/|Python/.* aiohttp/|curl/"
    r"|node$|undici$|axios/|PostmanRuntime/"
)


def _codings(call: Call) -> tuple[str, str]:
    """What is sent, the first of equals first: `deflate` costs nothing."""
    agent = call.request.headers.get("user-agent", "")
    if _READS_ZLIB.match(agent):
        return "deflate", "gzip"
    return "gzip", "deflate"


def preferred_coding(call: Call, offers: Sequence[str]) -> str | None:
    """The content coding that the client likes best, the first of equals; or None.

    Source: RFC 9110 12.5.3.
    """
    weights: dict[str, float] = {}
    for entry in (call.header("accept-encoding") or "").split(","):
        name, _, parameter = entry.partition(";")
        quality = parameter.strip().lower().removeprefix("q=")
        weights[name.strip().lower()] = _weight(quality)
    ranked = [(weights.get(offer, weights.get("*", 0.0)), offer) for offer in offers]
    weight, best = max(ranked, key=lambda item: item[0])
    return best if weight > 0 else None


def _weight(text: str) -> float:
    try:
        return float(text or "1")
    except ValueError:
        return 0.0


async def compressed(call: Call, body: bytes, coding: str) -> bytes:
    """The body in `gzip` or `deflate`; in a thread where it takes long."""
    if len(body) < THREAD_BYTES:
        return _compress(body, coding)
    return await call.runtime.workers.run(0, _compress, body, coding)


def _compress(body: bytes, coding: str) -> bytes:
    window_bits = 31 if coding == "gzip" else 15
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, window_bits)
    return deflater.compress(body) + deflater.flush()


# --- conditions ----------------------------------------------------------------------


def is_unmodified(call: Call, etag: str) -> bool:
    """Whether the client has this version already (`If-None-Match`).

    Args:
        call: The request.
        etag: Without quotes; both forms match, upper and lower case alike, and `*`
            matches any.

    Source: RFC 9110 13.1.2.
    """
    header = call.header("if-none-match")
    if header is None:
        return False
    if header.strip() == "*":
        return True
    wanted = {etag.lower(), f'"{etag.lower()}"'}
    entries = (entry.strip().lower() for entry in header.split(","))
    return any(entry.removeprefix("w/") in wanted for entry in entries)


def not_modified(headers: Mapping[str, str] | None = None) -> Response:
    """304, without a body."""
    return Response(None, 304, {"Content-Length": "0", **(headers or {})})


# --- bytes by range ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that can be read from anywhere.

    Attributes:
        size_bytes: Of the whole.
        read: Bytes from an offset, of a length.
        etag: Without quotes.
        sha256: Hex digest of the whole, when known.
    """

    media_type: str
    size_bytes: int
    read: Callable[[int, int], Chunks]
    etag: str
    sha256: str | None = None


async def content_response(call: Call, content: Content) -> Response:
    """The content or the range of it that the client asks for."""
    etag = f'"{content.etag}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Vary": "Accept"}
    if is_unmodified(call, content.etag):
        return not_modified(headers)
    size = content.size_bytes
    first, last = 0, size - 1
    status = 200
    wanted = _wanted_range(call, etag, size)
    if wanted == "unsatisfiable":
        return Response(None, 416, {**headers, "Content-Range": f"bytes */{size}"})
    if isinstance(wanted, tuple):
        first, last = wanted
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    elif content.sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(content.sha256)).decode()
        headers["Digest"] = f"sha-256={digest}"
    length = last - first + 1
    headers["Content-Length"] = str(length)
    if call.request.method == "HEAD" or length == 0:
        return Response(b"", status, headers, content.media_type)
    body = await begun(call, content.read(first, length))
    return StreamingResponse(body, status, headers, content.media_type)


_MAX_DIGITS = 18
_RANGE = re.compile(
    r"\s*bytes\s*=\s*(?:([0-9]+)\s*)?-\s*(?:([0-9]+)\s*)?", re.IGNORECASE
)


def _wanted_range(call: Call, etag: str, size: int) -> tuple[int, int] | str | None:
    """First and last byte, `unsatisfiable`, or None for all of it.

    Several ranges at once, or one of another version, get everything; so does HEAD.

    Source: RFC 9110 14.2, 13.1.5.
    """
    if call.request.method != "GET":
        return None
    condition = call.request.headers.get("if-range")
    match = _RANGE.fullmatch(call.request.headers.get("range", ""))
    if match is None or (condition is not None and condition.strip() != etag):
        return None
    start, end = match.groups(default="")
    if not start and not end:
        return None
    if not start:
        first, last = max(size - _bounded(end), 0), size - 1
    else:
        first, last = _bounded(start), min(_bounded(end or str(size)), size - 1)
        if end and _bounded(end) < first:
            return None
    return (first, last) if first <= last else "unsatisfiable"


def _bounded(digits: str) -> int:
    """The number; of any length, as Python reads 4300 digits and no more."""
    return int(digits) if len(digits) <= _MAX_DIGITS else sys.maxsize


async def begun(call: Call, chunks: Chunks) -> Chunks:
    """The same chunks, the first of them read already.

    So what fails at once is an error response; what fails later breaks the connection
    and is logged, and no client takes half a body for a whole one.
    """
    first = await anext(chunks, b"")

    async def rest() -> Chunks:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        except Exception:
            logger.exception("request %s broke while being sent", call.request_id)
            raise

    return rest()


# --- multipart -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart response.

    Attributes:
        size_bytes: Of its bytes, None where not known beforehand.
        read: Its bytes.
    """

    content_type: str
    size_bytes: int | None
    read: Callable[[], Chunks]


async def multipart_response(
    call: Call, part_type: str, parts: Sequence[Part]
) -> Response:
    """The parts in a stream, one after the other.

    Source: PS3.18 8.6.1.2.1.
    """
    boundary = str(UUID(call.runtime.new_id()))
    heads = [
        multipart.part_head(
            boundary, {"Content-Type": part.content_type}, is_first=index == 0
        )
        for index, part in enumerate(parts)
    ]
    closing = multipart.closing(boundary)
    headers = {"Vary": "Accept"}
    sizes = [part.size_bytes for part in parts]
    if all(size is not None for size in sizes):
        framing = sum(map(len, heads)) + len(closing)
        headers["Content-Length"] = str(framing + sum(size or 0 for size in sizes))
    media_type = multipart.content_type(boundary, part_type)
    if call.request.method == "HEAD":
        return _head(headers, media_type)

    async def body() -> Chunks:
        for head, part in zip(heads, parts, strict=True):
            chunks = part.read()
            first = await anext(chunks, b"")
            yield head
            yield first
            async for chunk in chunks:
                yield chunk
        yield closing

    return StreamingResponse(await begun(call, body()), 200, headers, media_type)


def _head(headers: Mapping[str, str], media_type: str) -> Response:
    """The answer to HEAD: a length that is not known beforehand is not 0."""
    response = Response(b"", 200, headers, media_type)
    if "Content-Length" not in headers:
        del response.headers["Content-Length"]
    return response
