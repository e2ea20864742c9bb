"""The frame of a DICOM file: preamble, file meta information, deflation.

Source: PS3.10 7.1; PS3.5 Annex A.
"""

import itertools
import mmap
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicomweb.errors import MalformedInstance
from dicomweb.identifiers import is_valid_uid
from dicomweb.transfer_syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)

MAX_INFLATED_BYTES = 128 * 1024 * 1024
"""Of a file in the deflated transfer syntax once inflated."""
MAX_COMMAND_ELEMENTS = 64
"""Elements of group 0000 that are stepped over; no message has half as many."""

LONG_VRS = {
    vr.encode(): vr
    for vr in (
        *("OB", "OD", "OF", "OL", "OV", "OW", "SQ"),
        *("SV", "UC", "UN", "UR", "UT", "UV"),
    )
}
"""VRs whose length has 4 bytes, after 2 reserved ones (PS3.5 7.1.2)."""

_PREAMBLE_BYTES = 128
_INFLATE_BYTES = 1024 * 1024
_CAPITALS = re.compile(rb"[A-Z]{2}")

Sliceable = bytes | bytearray | mmap.mmap
Buffer = Sliceable | memoryview
Gather = Callable[[Iterator[bytes]], Sliceable]
"""Puts pieces together, in memory or elsewhere."""


@dataclass(frozen=True, slots=True)
class Part10:
    """An opened file.

    Attributes:
        buffer: The file; an inflated copy if its transfer syntax is deflated.
        data_set_offset: Of the first element after the file meta information.
        transfer_syntax_uid: The one found by looking where the file names none.
        deflated: Whether `buffer` is an inflated copy.
    """

    buffer: Sliceable
    data_set_offset: int
    transfer_syntax_uid: str
    deflated: bool


def open_file(file: Buffer, *, gather: Gather | None = None) -> Part10:
    """The file's data set, inflated if need be, and its transfer syntax.

    `bytes`, `bytearray` and `mmap` are read in place; a memoryview of a part of an
    object is copied first.

    Args:
        file: The whole of it.
        gather: What keeps an inflated file; in memory by default.

    Raises:
        MalformedInstance: There is no DICM prefix, the file meta information is
            damaged, or the data set inflates to more than `MAX_INFLATED_BYTES`.

    Source: PS3.10 7.1.
    """
    buffer = _sliceable(file)
    if buffer[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        raise MalformedInstance("The file has no DICM prefix after 128 bytes.")
    try:
        start, syntax = _file_meta(buffer)
    except struct.error as error:
        raise _cut() from error
    if syntax and not is_valid_uid(syntax):
        raise MalformedInstance("The Transfer Syntax UID is not a UID.")
    deflated = syntax == DEFLATED_LITTLE_ENDIAN
    if deflated:
        if gather is None:
            buffer = inflate(buffer, start, head=bytes(buffer[:start]))
        else:
            buffer = gather(inflated_pieces(buffer))
    start = _skip_command_set(buffer, start)
    return Part10(buffer, start, syntax or _guess_syntax(buffer, start), deflated)


def is_deflated(file: Sliceable) -> bool:
    """Whether reading the file means to inflate its data set; False if damaged.

    Source: PS3.10 7.1.
    """
    try:
        return _file_meta(file)[1] == DEFLATED_LITTLE_ENDIAN
    except (MalformedInstance, struct.error):
        return False


def _sliceable(file: Buffer) -> Sliceable:
    """The object itself: slices of a memoryview have no text methods."""
    if not isinstance(file, memoryview):
        return file
    whole = file.obj
    if (
        isinstance(whole, bytes | bytearray | mmap.mmap)
        and file.c_contiguous
        and file.nbytes == len(whole)
    ):
        return whole
    return bytes(file)


def _file_meta(buffer: Sliceable) -> tuple[int, str]:
    """Offset of the data set and the Transfer Syntax UID, empty where missing.

    Source: PS3.10 7.1.
    """
    position, syntax = _PREAMBLE_BYTES + 4, ""
    while position + 8 <= len(buffer):
        group, element, vr, length = struct.unpack_from("<HH2sH", buffer, position)
        if group != 2:
            break
        position += 8
        if vr in LONG_VRS:
            (length,) = struct.unpack_from("<I", buffer, position)
            position += 4
        elif not _CAPITALS.fullmatch(vr):  # written in implicit VR
            (length,) = struct.unpack_from("<I", buffer, position - 4)
        if position + length > len(buffer):
            raise _cut()
        if element == 0x0010:
            value = bytes(buffer[position : position + length])
            syntax = value.decode("latin-1").rstrip(" \0")
        position += length
    return position, syntax


def _skip_command_set(buffer: Sliceable, start: int) -> int:
    """Past elements of group 0000, which a file should not have (PS3.7 6.3.1)."""
    for _ in range(MAX_COMMAND_ELEMENTS):
        if start + 8 > len(buffer):
            break
        group, _, length = struct.unpack_from("<HHI", buffer, start)
        if group != 0 or start + 8 + length > len(buffer):
            break
        start += 8 + length
    return start


def has_vr(buffer: Sliceable, position: int, *, expected: bool) -> bool:
    """Whether the element at the position has a VR, whatever was promised.

    A length that reads as two capital letters would be over 16 kB in the very first
    element, which no real file has.

    Args:
        buffer: With the data set.
        position: Of its first element.
        expected: The answer where there is no element.

    Source: PS3.5 7.1.
    """
    header = buffer[position : position + 6]
    if len(header) < 6:
        return expected
    return _CAPITALS.fullmatch(header, 4) is not None


def _guess_syntax(buffer: Sliceable, start: int) -> str:
    if not has_vr(buffer, start, expected=False):
        return IMPLICIT_LITTLE_ENDIAN
    return EXPLICIT_BIG_ENDIAN if buffer[start] == 0 else EXPLICIT_LITTLE_ENDIAN


def inflate(
    file: Sliceable, start: int, *, head: bytes = b"", max_bytes: int = 0
) -> bytearray:
    """`head`, then what is deflated from `start` to the end of the file.

    It is inflated twice, first only to count: so a bomb takes no memory, and what fits
    is never held in more memory than it needs.

    Args:
        file: With a raw deflate stream at its end.
        start: Of the stream.
        head: What stands in front of it.
        max_bytes: Of the inflated data; `MAX_INFLATED_BYTES` when 0.

    Raises:
        MalformedInstance: The data are damaged or too large once inflated.

    Source: PS3.5 A.5.
    """
    deflated = bytes(file[start:])
    limit = max_bytes or MAX_INFLATED_BYTES
    size_bytes = sum(len(chunk) for chunk in _inflated_chunks(deflated, limit))
    inflated = bytearray(len(head) + size_bytes)
    inflated[: len(head)] = head
    at = len(head)
    for chunk in _inflated_chunks(deflated, limit):
        inflated[at : at + len(chunk)] = chunk
        at += len(chunk)
    return inflated


def inflated_pieces(file: Sliceable) -> Iterator[bytes]:
    """A deflated file with its data set inflated, at most 1 MiB at a time.

    Raises:
        MalformedInstance: The data are damaged or too large once inflated.

    Source: PS3.5 A.5.
    """
    start, _ = _file_meta(file)
    chunks = _inflated_chunks(bytes(file[start:]), MAX_INFLATED_BYTES)
    return itertools.chain((bytes(file[:start]),), chunks)


def _inflated_chunks(deflated: bytes, max_bytes: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    waiting, left = deflated, max_bytes
    try:
        while not inflater.eof:
            chunk = inflater.decompress(waiting, _INFLATE_BYTES)
            waiting = inflater.unconsumed_tail
            if not chunk and not waiting and not inflater.eof:
                raise MalformedInstance("The deflated data set ends too early.")
            left -= len(chunk)
            if left < 0:
                raise MalformedInstance(
                    f"The data set inflates to more than {max_bytes} bytes."
                )
            yield chunk
    except zlib.error as error:
        raise MalformedInstance("The deflated data set is damaged.") from error


def _cut() -> MalformedInstance:
    return MalformedInstance("The file ends inside its meta information.")
