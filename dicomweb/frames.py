"""Where each frame of Pixel Data lies in a file.

Knows native layouts (also frames that do not start on a byte) and encapsulated
ones: Basic Offset Table, Extended Offset Table, or neither. Reads item headers only;
never copies pixel data, never decodes it. What it cannot tell for certain it does not
guess: a wrong frame is worse than none. PS3.5 section 8, annex A.4; PS3.3 C.7.6.3.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from mmap import mmap
from struct import Struct
from typing import Any

from dicomweb import transfer_syntaxes

Buffer = bytes | bytearray | memoryview | mmap
Range = tuple[int, int]

ITEM_HEADER_BYTES = 8
MAX_FRAGMENTS = 1_000_000
"""Fragments of one instance; more is refused, as the index would not stay small."""

_ITEM = 0xE000FFFE  # (FFFE,E000) read as one little endian number
_SEQUENCE_DELIMITATION = 0xE0DDFFFE
_HEADER = Struct("<II")
_END_OF_IMAGE = b"\xff\xd9"
_END_OF_IMAGE_WINDOW = 10  # fillers and padding may follow the marker


@dataclass(frozen=True, slots=True)
class Position:
    """Where a value lies.

    Attributes:
        offset: Its first byte, from the start of the file.
        length: Bytes; None if undefined (encapsulated).
    """

    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class NativeFrames:
    """Frames of equal size, one after another.

    Attributes:
        offset: First byte of the first frame, from the start of the file.
        frame_bits: Bits of one frame; frames are not padded to bytes.
        number_of_frames: How many there are, at least 1.
    """

    offset: int
    frame_bits: int
    number_of_frames: int

    def cover(self, frame_index: int) -> Range:
        """Offset and length in bytes of the bytes that hold the frame.

        Args:
            frame_index: From 0.

        Raises:
            IndexError: There is no such frame.
        """
        _check(frame_index, self.number_of_frames)
        first_bit = self.frame_bits * frame_index
        end = (first_bit + self.frame_bits + 7) // 8
        return self.offset + first_bit // 8, end - first_bit // 8

    def ranges(self, frame_index: int) -> tuple[Range, ...]:
        """As `cover`, in a tuple of one; `bit_shift` says where the frame starts."""
        return (self.cover(frame_index),)

    def bit_shift(self, frame_index: int) -> int:
        """Bits of the first byte that belong to the frame before, 0 to 7."""
        return self.frame_bits * frame_index % 8

    def extract(self, frame_index: int, covering: bytes | memoryview) -> bytes:
        """The frame, from the bytes at `cover(frame_index)`, its first bit in bit 0.

        Bits after the last one of the frame are 0.

        Source: PS3.5 8.1.1.
        """
        shift = self.bit_shift(frame_index)
        if not shift and not self.frame_bits % 8:
            return bytes(covering)
        value = int.from_bytes(covering, "little") >> shift
        value &= (1 << self.frame_bits) - 1
        return value.to_bytes((self.frame_bits + 7) // 8, "little")

    def to_json(self) -> list[Any]:
        """`[offset, bits of a frame, number of frames]`."""
        return [self.offset, self.frame_bits, self.number_of_frames]


@dataclass(frozen=True, slots=True)
class EncapsulatedFrames:
    """Frames made of fragments.

    Attributes:
        offsets: First byte of each fragment's value, from the start of the file.
        lengths: Bytes of each fragment's value.
        starts: Index of the first fragment of each frame and, last, the number of
            fragments; None if each frame is one fragment.
    """

    offsets: Sequence[int]
    lengths: Sequence[int]
    starts: Sequence[int] | None = None

    @property
    def number_of_frames(self) -> int:
        """Frames that can be told apart, which may be fewer than declared (video)."""
        return len(self.offsets) if self.starts is None else len(self.starts) - 1

    def ranges(self, frame_index: int) -> tuple[Range, ...]:
        """Offset and length of each fragment, from the start of the file.

        Args:
            frame_index: From 0.

        Raises:
            IndexError: There is no such frame.
        """
        _check(frame_index, self.number_of_frames)
        if self.starts is None:
            return ((self.offsets[frame_index], self.lengths[frame_index]),)
        fragments = range(self.starts[frame_index], self.starts[frame_index + 1])
        return tuple((self.offsets[f], self.lengths[f]) for f in fragments)

    def bit_shift(self, frame_index: int) -> int:
        """0: an encapsulated frame starts on a byte."""
        _check(frame_index, self.number_of_frames)
        return 0

    def cover(self, frame_index: int) -> Range:
        """Offset and length of one read that holds all fragments of the frame."""
        ranges = self.ranges(frame_index)
        start = min(offset for offset, _ in ranges)
        return start, max(offset + length for offset, length in ranges) - start

    def extract(self, frame_index: int, covering: bytes | memoryview) -> bytes:
        """The frame without item headers, from the bytes at `cover(frame_index)`."""
        start, _ = self.cover(frame_index)
        ranges = self.ranges(frame_index)
        if len(ranges) == 1:
            return bytes(covering)
        view = memoryview(covering)
        return b"".join(view[o - start : o - start + n] for o, n in ranges)

    def to_json(self) -> list[Any]:
        """`[first offset, lengths, fragments per frame or 0, gaps or 0]`.

        Gaps are the bytes between the end of a fragment and the start of the next;
        0 says that each is an item header.
        """
        offsets, lengths = self.offsets, self.lengths
        gaps: list[int] | int = [
            b - a - n
            for (a, b), n in zip(pairwise(offsets), lengths, strict=False)
            if b - a - n != ITEM_HEADER_BYTES
        ]
        if gaps:
            gaps = [
                b - a - n for (a, b), n in zip(pairwise(offsets), lengths, strict=False)
            ]
        starts = self.starts
        counts = 0 if starts is None else [b - a for a, b in pairwise(starts)]
        value: list[Any] = [offsets[0], list(lengths), counts, gaps or 0]
        while value[-1] == 0:
            value.pop()
        return value


FrameIndex = NativeFrames | EncapsulatedFrames


def from_json(value: Sequence[Any]) -> FrameIndex:
    """The index that `to_json` wrote."""
    first, second, *rest = value
    if isinstance(second, int):
        return NativeFrames(first, second, rest[0])
    counts: Sequence[int] = (rest and rest[0]) or ()
    gaps = rest[1] if len(rest) > 1 else [ITEM_HEADER_BYTES] * (len(second) - 1)
    steps: list[int] = [n + gap for n, gap in zip(second, gaps, strict=False)]
    offsets = array("q", accumulate([int(first), *steps]))
    starts = array("q", accumulate(counts, initial=0)) if counts else None
    return EncapsulatedFrames(offsets, array("q", second), starts)


def build(  # noqa: PLR0913 - one for each attribute that decides the layout
    buffer: Buffer,
    *,
    transfer_syntax_uid: str,
    pixel_data: Position,
    rows: int,
    columns: int,
    samples_per_pixel: int,
    bits_allocated: int,
    number_of_frames: int,
    extended_offsets: Sequence[int] | None = None,
    extended_lengths: Sequence[int] | None = None,
) -> FrameIndex | None:
    """Where each frame of Pixel Data lies.

    Video streams are one frame, whatever Number of Frames says: their pictures cannot
    be told apart without decoding.

    Args:
        buffer: The file; the inflated file if its transfer syntax is deflated.
        transfer_syntax_uid: Of the file.
        pixel_data: The value of (7FE0,0010) in `buffer`.
        rows: (0028,0010).
        columns: (0028,0011).
        samples_per_pixel: (0028,0002).
        bits_allocated: (0028,0100).
        number_of_frames: (0028,0008), 1 if absent.
        extended_offsets: (7FE0,0001): from the first item after the Basic Offset Table
            to each frame's item.
        extended_lengths: (7FE0,0002): bytes of each frame.

    Returns:
        The index; None if the frames cannot be told apart, or bytes are missing.

    Source: PS3.5 8.1.1, A.4; PS3.3 C.7.6.3.1.8.
    """
    end = len(buffer)
    if pixel_data.length is not None:
        end = min(end, pixel_data.offset + pixel_data.length)
    if number_of_frames < 1 or not 0 <= pixel_data.offset < end:
        return None
    if transfer_syntax_uid in transfer_syntaxes.UNCOMPRESSED:
        encapsulated = False
    else:
        encapsulated = pixel_data.length is None or _is_item(
            buffer, pixel_data.offset, end
        )
    if encapsulated:
        return _encapsulated(
            _Items(buffer, pixel_data.offset, end),
            transfer_syntax_uid,
            number_of_frames,
            (extended_offsets, extended_lengths),
        )
    if pixel_data.length is None or pixel_data.offset + pixel_data.length > end:
        return None
    frame_bits = rows * columns * samples_per_pixel * bits_allocated
    return _native(pixel_data.offset, pixel_data.length, frame_bits, number_of_frames)


def _native(
    offset: int, length: int, frame_bits: int, number_of_frames: int
) -> NativeFrames | None:
    """Frames one after another, if the value is long enough for all of them."""
    if frame_bits < 1:
        return None
    needed = (frame_bits * number_of_frames + 7) // 8
    if length >= needed:
        return NativeFrames(offset, frame_bits, number_of_frames)
    # YBR_FULL_422 stores two of three samples; only this tells it from a cut file.
    halved = frame_bits // 3 * 2
    if not frame_bits % 24 and needed // 3 * 2 <= length <= needed // 3 * 2 + 1:
        return NativeFrames(offset, halved, number_of_frames)
    return None


@dataclass(frozen=True, slots=True)
class _Items:
    """The items of encapsulated Pixel Data."""

    buffer: Buffer
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class _Fragments:
    """The items after the Basic Offset Table."""

    buffer: Buffer
    table: tuple[int, ...]
    offsets: Sequence[int]
    lengths: Sequence[int]


def _encapsulated(
    items: _Items,
    transfer_syntax_uid: str,
    number_of_frames: int,
    extended: tuple[Sequence[int] | None, Sequence[int] | None],
) -> EncapsulatedFrames | None:
    """The most trustworthy account of frame boundaries that the file supports."""
    if extended[0] and extended[1]:
        found = _by_extended_table(items, number_of_frames, extended[0], extended[1])
        if found:
            return found
    fragments = _walk(items)
    if fragments is None:
        return None
    if transfer_syntaxes.is_video(transfer_syntax_uid):
        number_of_frames = 1
    starts = _starts(
        fragments,
        number_of_frames,
        transfer_syntax_uid != transfer_syntaxes.RLE_LOSSLESS,
    )
    return None if starts is None else _grouped(fragments, starts)


def _starts(
    fragments: _Fragments, number_of_frames: int, ends_with_marker: bool
) -> Sequence[int] | None:
    """First fragment of each frame, and the end; None if that cannot be told."""
    count = len(fragments.offsets)
    if number_of_frames == 1:
        return (0, count)
    by_table = _starts_by_table(fragments)
    if by_table and len(by_table) == number_of_frames + 1:
        return by_table
    if count == number_of_frames:
        return range(count + 1)
    if count > number_of_frames and ends_with_marker:
        by_marker = [0, *_image_ends(fragments)]
        return by_marker if len(by_marker) == number_of_frames + 1 else None
    return None


def _by_extended_table(
    items: _Items,
    number_of_frames: int,
    offsets: Sequence[int],
    lengths: Sequence[int],
) -> EncapsulatedFrames | None:
    """Frames as the Extended Offset Table gives them; None if it is not true."""
    header = _header(items.buffer, items.offset, items.end)
    if header is None or not len(offsets) == len(lengths) == number_of_frames:
        return None
    base = items.offset + ITEM_HEADER_BYTES + header[1]
    starts = array("q")
    for offset, length in zip(offsets, lengths, strict=True):
        header = _header(items.buffer, base + offset, items.end)
        # The item may be one byte longer: fragments are padded to even length.
        if header is None or header[0] != _ITEM or length > header[1]:
            return None
        starts.append(base + offset + ITEM_HEADER_BYTES)
    return EncapsulatedFrames(starts, array("q", lengths))


def _walk(items: _Items) -> _Fragments | None:
    """All fragments; None if the items are damaged, none, or too many."""
    buffer, end = items.buffer, items.end
    header = _header(buffer, items.offset, end)
    if header is None or header[0] != _ITEM:
        return None
    position = items.offset + ITEM_HEADER_BYTES
    table = _table(buffer, position, header[1])
    position += header[1]
    offsets, lengths = array("q"), array("q")
    unpack = _HEADER.unpack_from
    while position + ITEM_HEADER_BYTES <= end:
        tag, length = unpack(buffer, position)
        if tag == _SEQUENCE_DELIMITATION:
            break
        position += ITEM_HEADER_BYTES
        if tag != _ITEM or position + length > end or len(offsets) == MAX_FRAGMENTS:
            return None
        offsets.append(position)
        lengths.append(length)
        position += length
    return _Fragments(buffer, table, offsets, lengths) if offsets else None


def _table(buffer: Buffer, offset: int, length: int) -> tuple[int, ...]:
    """The Basic Offset Table; empty if it is empty, damaged or too long to be one.

    Source: PS3.5 A.4.
    """
    if length % 4 or length > 4 * MAX_FRAGMENTS or offset + length > len(buffer):
        return ()
    return Struct(f"<{length // 4}I").unpack_from(buffer, offset)


def _starts_by_table(fragments: _Fragments) -> list[int] | None:
    """First fragment of each frame and the end, if every table entry is a fragment."""
    base = fragments.offsets[0]
    index_of = {offset - base: i for i, offset in enumerate(fragments.offsets)}
    starts = [index_of.get(offset, -1) for offset in fragments.table]
    if not starts or starts[0] != 0:
        return None
    starts.append(len(fragments.offsets))
    ascending = all(a < b for a, b in pairwise(starts))
    return starts if ascending else None


def _image_ends(fragments: _Fragments) -> Iterator[int]:
    """Index after each fragment that ends with an image's end marker, and the last."""
    last = len(fragments.offsets) - 1
    for i, (offset, length) in enumerate(
        zip(fragments.offsets, fragments.lengths, strict=True)
    ):
        end = offset + length
        tail = bytes(fragments.buffer[max(offset, end - _END_OF_IMAGE_WINDOW) : end])
        if i == last or _END_OF_IMAGE in tail:
            yield i + 1


def _grouped(fragments: _Fragments, starts: Sequence[int]) -> EncapsulatedFrames:
    """Frames of the given fragments, in the shorter form where it suffices."""
    if len(starts) == len(fragments.offsets) + 1:
        return EncapsulatedFrames(fragments.offsets, fragments.lengths)
    return EncapsulatedFrames(fragments.offsets, fragments.lengths, array("q", starts))


def _header(buffer: Buffer, offset: int, end: int) -> tuple[int, int] | None:
    """Tag and length of the item at `offset`; None if it does not fit."""
    if not 0 <= offset <= end - ITEM_HEADER_BYTES:
        return None
    tag, length = _HEADER.unpack_from(buffer, offset)
    return None if offset + ITEM_HEADER_BYTES + length > end else (tag, length)


def _is_item(buffer: Buffer, offset: int, end: int) -> bool:
    """Whether an item starts at `offset`."""
    header = _header(buffer, offset, end)
    return header is not None and header[0] == _ITEM


def _check(frame_index: int, number_of_frames: int) -> None:
    """Refuses frames that do not exist, also negative ones."""
    if not 0 <= frame_index < number_of_frames:
        raise IndexError(f"frame index {frame_index} of {number_of_frames} frames")
