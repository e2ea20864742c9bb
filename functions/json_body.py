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
MAX_COMMENTED_BYTES = 256 * 1024
"""Larger bodies have no comments: nobody writes those by hand."""
_JSON_TYPE = re.compile(r"(application|text)/(json|[a-z0-9.+-]+\+json)", re.IGNORECASE)
# A text is one match, so that nothing inside it is taken for a comment or a comma. What
# is never closed is one match too: looking for its end again and again would take the
# square of its length.
_TEXT = r'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)'
_COMMENTS = re.compile(rf"{_TEXT}|//[^\n]*+|/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMMAS = re.compile(rf"{_TEXT}|(,)(?=\s*[\]}}])|[^\s,\"]++|,", re.DOTALL)


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


_NO_JSON = "The syntax of the request body is invalid."


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if len(body) > MAX_COMMENTED_BYTES:
            raise InvalidRequest(_NO_JSON) from error
    try:
        text = body.decode("utf-8-sig")
        return orjson.loads(_without_extras(text))
    except ValueError as error:
        raise InvalidRequest(_NO_JSON) from error


def _without_extras(text: str) -> str:
    """The JSON without comments and without commas at the end of lists and objects."""
    before = ","

    def comment(match: re.Match[str]) -> str:
        found = match[0]
        is_block = len(found) >= 4 and found[:2] == "/*" and found[-2:] == "*/"
        return " " if is_block or found[:2] == "//" else found

    def comma(match: re.Match[str]) -> str:
        nonlocal before
        last, before = before, match[0][-1]
        return " " if match[1] and last not in ",[{:" else match[0]

    return _COMMAS.sub(comma, _COMMENTS.sub(comment, text))
