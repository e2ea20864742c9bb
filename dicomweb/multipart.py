"""multipart/related bodies: a push parser for requests, the framing of responses.

Bytes in, events out; whoever reads the socket feeds the parser. Accepts what DICOMweb
clients really send: a blank line or a text before the first delimiter, boundaries of
any length, quoted or not, white space after a delimiter, no line end after the last
one, lines in the data that only look like a delimiter.

Source: RFC 2046 5.1 (multipart), RFC 2387 (related), PS3.18 8.6.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from dicomweb.errors import (
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    quoted,
)
from dicomweb.media_types import DICOM, parse_media_type

MAX_BOUNDARY_CHARACTERS = 256  # RFC 2046 says 70; Orthanc sends 73
MAX_PADDING_BYTES = 128
MAX_HEADER_BYTES = 16 * 1024
MAX_PARTS = 100_000
MAX_LENGTH_DIGITS = 19

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FOLDED_LINE = re.compile(r"\r\n[ \t]+")
_BOUNDARY = re.compile(r"[\x20-\x7e]*[\x21-\x7e]", re.ASCII)


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts.

    Attributes:
        headers: Names in lower case, values as sent; repeated ones joined by `, `.
    """

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part, never empty; where they are cut means nothing."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Event = PartBegin | PartData | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    DATA = auto()
    EPILOGUE = auto()


class Parser:
    """Turns the bytes of one multipart body into events, however they are cut."""

    def __init__(
        self,
        boundary: bytes,
        *,
        max_part_bytes: int,
        max_parts: int = MAX_PARTS,
        max_header_bytes: int = MAX_HEADER_BYTES,
    ) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._max_part_bytes = max_part_bytes
        self._max_parts = max_parts
        self._max_header_bytes = max_header_bytes
        self._state = _State.PREAMBLE
        # A body may start with its delimiter: the line end in front is then implied.
        self._held = b"\r\n"
        self._preamble_bytes = 0
        self._preamble_is_text = False
        self._parts = 0
        self._part_bytes = 0
        self._declared_bytes: int | None = None
        # An empty part's delimiter may begin with the line end that closes its headers,
        # so content is searched from there, but these two bytes are no content.
        self._skip_bytes = 0

    def feed(self, chunk: bytes | memoryview) -> list[Event]:
        """Events of the next bytes of the body.

        `PartData` refers to the chunk without copying it, whenever it was `bytes`.

        Raises:
            InvalidRequest: The framing is damaged, or a part's headers are too long.
            PayloadTooLarge: A part exceeds `max_part_bytes`, or there are too many.
        """
        data = chunk if isinstance(chunk, bytes) else bytes(chunk)
        if self._held:
            data = self._held + data
            self._held = b""
        events: list[Event] = []
        at: int | None = 0
        while at is not None and at < len(data):
            match self._state:
                case _State.PREAMBLE | _State.DATA:
                    at = self._content(data, at, events)
                case _State.HEADERS:
                    at = self._headers(data, at, events)
                case _State.EPILOGUE:
                    break
        return events

    def finish(self) -> list[Event]:
        """Events at the end of the body.

        A last delimiter may be missing only where the part said its Content-Length
        and all of it is there.

        Raises:
            InvalidRequest: The body ends too early.
        """
        events: list[Event] = []
        if self._state is _State.DATA:
            missing = (self._declared_bytes or -1) - self._part_bytes
            if 0 <= missing <= len(self._held) - self._skip_bytes:
                self._take(self._held, 0, self._skip_bytes + missing, events)
                events.append(PartEnd())
                self._state = _State.EPILOGUE
        if self._state is not _State.EPILOGUE:
            raise _damaged("it ends before its last boundary")
        return events

    def _content(self, data: bytes, at: int, events: list[Event]) -> int | None:
        """Consumes up to and with the next delimiter; None when all is consumed."""
        found = data.find(self._delimiter, at)
        while found >= 0:
            after = found + len(self._delimiter)
            line_end = self._line_end(data, after)
            if line_end is None:
                break
            if line_end >= 0:
                self._take(data, at, found, events)
                return self._delimited(data, line_end, events)
            found = data.find(self._delimiter, after)
        if found < 0:
            found = self._possible_start(data, at)
        self._take(data, at, found, events)
        self._held = data[found:]
        return None

    def _line_end(self, data: bytes, after: int) -> int | None:
        """Where a delimiter's line ends: position of its `--` or line end.

        Returns:
            -1 when the line goes on, so that it is data; None when more bytes must
            come before that can be told.
        """
        if data.startswith((b"--", b"\r\n"), after):
            return after
        at = after
        limit = min(len(data), after + MAX_PADDING_BYTES)
        while at < limit and data[at] in b" \t":
            at += 1
        if at - after >= MAX_PADDING_BYTES:
            return -1
        if at == len(data) or (at == len(data) - 1 and data[at] == 0x0D):
            return None
        if at == after and at == len(data) - 1 and data[at] == 0x2D:
            return None
        return at if data.startswith(b"\r\n", at) else -1

    def _delimited(self, data: bytes, at: int, events: list[Event]) -> int | None:
        if self._state is _State.DATA:
            events.append(PartEnd())
        if data.startswith(b"--", at):
            if self._preamble_is_text and not self._parts:
                raise _damaged("there is something in it, but no part")
            self._state = _State.EPILOGUE
            return None
        self._parts += 1
        if self._parts > self._max_parts:
            raise PayloadTooLarge(
                f"The request has more than {self._max_parts} parts.",
                code="TooManyParts",
            )
        self._state = _State.HEADERS
        return at

    def _possible_start(self, data: bytes, at: int) -> int:
        """Where the bytes from the end may be the start of a delimiter, else the end.

        A delimiter has one CR only, its first byte, so only the last CR can be it.
        """
        earliest = max(at, len(data) - len(self._delimiter) + 1)
        start = data.rfind(b"\r", earliest)
        if start >= 0 and self._delimiter.startswith(data[start:]):
            return start
        return len(data)

    def _take(self, data: bytes, start: int, end: int, events: list[Event]) -> None:
        """Passes on a run of content."""
        length = end - start
        if length <= 0:
            return
        if self._state is _State.PREAMBLE:
            self._preamble_bytes += length
            if self._preamble_bytes > self._max_header_bytes:
                raise _damaged("it does not start with its boundary")
            if data[start:end].strip():
                self._preamble_is_text = True
            return
        skipped = min(self._skip_bytes, length)
        self._skip_bytes -= skipped
        start += skipped
        if start == end:
            return
        self._part_bytes += end - start
        self._check_part_bytes(self._part_bytes)
        whole = end - start == len(data)
        events.append(PartData(data if whole else memoryview(data)[start:end]))

    def _headers(self, data: bytes, at: int, events: list[Event]) -> int | None:
        """Consumes a part's headers, `at` being the line end of its delimiter."""
        end = data.find(b"\r\n\r\n", at, at + self._max_header_bytes + 4)
        if end < 0:
            if len(data) - at >= self._max_header_bytes + 4:
                raise _damaged("the headers of a part are too long")
            self._held = data[at:]
            return None
        headers = parse_headers(data[at + 2 : end])
        self._part_bytes = 0
        self._declared_bytes = _content_length(headers)
        if self._declared_bytes is not None:
            self._check_part_bytes(self._declared_bytes)
        events.append(PartBegin(headers))
        self._state = _State.DATA
        self._skip_bytes = 2
        return end + 2

    def _check_part_bytes(self, length: int) -> None:
        if length > self._max_part_bytes:
            raise PayloadTooLarge(
                f"The request exceeded the allowed limit of {self._max_part_bytes}"
                " bytes.",
            )


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a part.

    Args:
        block: Lines between which CR LF stand; none after the last.

    Returns:
        Names in lower case, values without surrounding blanks, in order; repeated
        headers joined by `, `.

    Raises:
        InvalidRequest: A line is not a header.
    """
    headers: dict[str, str] = {}
    text = _FOLDED_LINE.sub(" ", block.decode("latin-1"))
    for line in text.split("\r\n") if text else ():
        name, colon, value = line.partition(":")
        if not colon or _NAME.fullmatch(name) is None:
            raise _damaged("a part has a malformed header")
        key, value = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _content_length(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length", "")
    if not (value.isascii() and value.isdigit()):
        return None
    if len(value) > MAX_LENGTH_DIGITS:
        raise _damaged("the Content-Length of a part is too long")
    return int(value)


def _damaged(detail: str) -> InvalidRequest:
    return InvalidRequest(
        f"The multipart body cannot be read: {detail}.", code="DamagedMultipart"
    )


@dataclass(frozen=True, slots=True)
class SinglePart:
    """The body is one DICOM file."""


@dataclass(frozen=True, slots=True)
class Multipart:
    """The body is multipart/related.

    Attributes:
        boundary: Without the dashes in front.
        part_type: The envelope's `type`, lower case; None where absent.
    """

    boundary: bytes
    part_type: str | None = None


def store_framing(content_type: str | None) -> SinglePart | Multipart:
    """How the body of a STOW-RS request is framed.

    Raises:
        UnsupportedMediaType: Neither `application/dicom` without parameters nor
            `multipart/related` with a boundary.
        InvalidRequest: There is a `start` parameter, which is not supported.

    Source: PS3.18 10.5.1.
    """
    media = parse_media_type(content_type or "")
    if media is not None and media.type == DICOM and not media.parameters:
        return SinglePart()
    if media is None or media.type != "multipart/related":
        raise UnsupportedMediaType(
            f"The content type {quoted(content_type or '')} is not supported."
        )
    boundary = media.parameters.get("boundary", "")
    usable = len(boundary) <= MAX_BOUNDARY_CHARACTERS and _BOUNDARY.fullmatch(boundary)
    if not usable:
        raise UnsupportedMediaType(
            f"The content type {quoted(content_type)} has no usable boundary."
        )
    if "start" in media.parameters:
        raise InvalidRequest(
            "The start parameter of multipart/related is not supported."
        )
    part_type = media.parameters.get("type")
    return Multipart(boundary.encode(), part_type.lower() if part_type else None)


def check_part_type(
    headers: Mapping[str, str], envelope: Multipart, *, is_first: bool
) -> None:
    """Checks that a part of a STOW-RS request is a DICOM file.

    Only the first part may leave out its Content-Type; the envelope's counts then.

    Raises:
        UnsupportedMediaType: The part is something else.

    Source: RFC 2387 3.1, PS3.18 10.5.1.
    """
    stated = headers.get("content-type")
    if stated is None and is_first:
        stated = envelope.part_type
    if stated is None or stated.strip().lower() != DICOM:
        raise UnsupportedMediaType(
            f"The content type {quoted(stated or '')} of a part is not supported."
        )


# --- responses -------------------------------------------------------------------


def content_type(boundary: str, part_type: str) -> str:
    """The Content-Type header of a multipart response."""
    return f'multipart/related; type="{part_type}"; boundary={boundary}'


def part_head(boundary: str, headers: Mapping[str, str], *, is_first: bool) -> bytes:
    """Delimiter and headers of a part; its bytes follow at once."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = "" if is_first else "\r\n"
    return f"{start}--{boundary}\r\n{lines}\r\n".encode("latin-1")


def closing(boundary: str) -> bytes:
    """The last delimiter."""
    return f"\r\n--{boundary}--\r\n".encode("latin-1")
