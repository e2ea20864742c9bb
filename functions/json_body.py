"""JSON that clients send, read as generously as the .NET server reads it."""

import re
from typing import Any

import orjson

from dicomweb.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    quoted,
)
from functions.call import Call

MAX_BYTES = 4 * 1024 * 1024
_JSON_TYPE = re.compile(r"(application|text)/(json|[a-z0-9.+-]+\+json)", re.IGNORECASE)
# A text is one match, so that nothing inside it is taken for a comment or a comma.
_EXTRAS = re.compile(
    r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[\]}])',
    re.DOTALL,
)


async def json_body(call: Call) -> Any:
    """The decoded body; comments and trailing commas are allowed.

    Raises:
        InvalidRequest: There is none, or it is no JSON.
        PayloadTooLarge: It has more than 4 MiB.
        UnsupportedMediaType: Its type is another.
    """
    content_type = call.request.headers.get("content-type")
    if content_type is not None:
        media_type = content_type.partition(";")[0].strip()
        if not _JSON_TYPE.fullmatch(media_type):
            raise UnsupportedMediaType(
                f"The specified content type {quoted(media_type)} is not supported."
            )
    body = bytearray()
    async for chunk in call.request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise PayloadTooLarge(
                f"The request exceeded the allowed limit of {MAX_BYTES} bytes."
            )
    if not body.strip():
        raise InvalidRequest("The request body is missing.")
    return _decoded(bytes(body))


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = body.decode("utf-8-sig")
        return orjson.loads(_EXTRAS.sub(lambda match: match[1] or " ", text))
    except ValueError as error:
        raise InvalidRequest("The syntax of the request body is invalid.") from error
