"""Where frames lie: native, with tables, without tables, and damaged."""

import json
import mmap
import struct
import tempfile
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, generate_fragmented_frames

from dicomweb.frames import (
    EncapsulatedFrames,
    FrameIndex,
    NativeFrames,
    Position,
    build,
    from_json,
)

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
MPEG4 = "1.2.840.10008.1.2.4.102"
HEAD = b"\xaa" * 13


def item(value: bytes, tag: int = 0xE000) -> bytes:
    return struct.pack("<HHI", 0xFFFE, tag, len(value)) + value


def encapsulated(fragments: list[bytes], table: bytes = b"") -> bytes:
    return item(table) + b"".join(map(item, fragments)) + item(b"", 0xE0DD)


def index_of(
    value: bytes,
    transfer_syntax_uid: str = JPEG_BASELINE,
    number_of_frames: int = 1,
    *,
    length: int | None = None,
    **overrides: object,
) -> FrameIndex | None:
    arguments = {
        "rows": 2,
        "columns": 3,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        **overrides,
    }
    return build(
        HEAD + value,
        transfer_syntax_uid=transfer_syntax_uid,
        pixel_data=Position(len(HEAD), length),
        number_of_frames=number_of_frames,
        **arguments,
    )


def native(value: bytes, number_of_frames: int = 1, **overrides: object):
    return index_of(
        value, EXPLICIT_LITTLE, number_of_frames, length=len(value), **overrides
    )


def contents(index: FrameIndex, value: bytes) -> list[bytes]:
    """Every frame: by its covering range, which must agree with its fragments."""
    file = HEAD + value
    frames = []
    for i in range(index.number_of_frames):
        offset, length = index.cover(i)
        frames.append(index.extract(i, file[offset : offset + length]))
        joined = b"".join(file[o : o + n] for o, n in index.ranges(i))
        if isinstance(index, EncapsulatedFrames):
            assert joined == frames[-1]
    return frames


def test_native_frames_follow_each_other():
    value = bytes(range(12))
    index = native(value, 2)
    assert index == NativeFrames(len(HEAD), 48, 2)
    assert contents(index, value) == [value[:6], value[6:]]


def test_the_byte_that_pads_an_odd_value_belongs_to_no_frame():
    value = bytes(range(10))
    index = native(value, 3, rows=1, columns=3)
    assert contents(index, value) == [value[:3], value[3:6], value[6:9]]


def test_ybr_full_422_stores_two_samples_of_three():
    value = bytes(range(16))
    index = native(value, 2, rows=2, columns=2, samples_per_pixel=3)
    assert contents(index, value) == [value[:8], value[8:]]


def test_a_native_value_that_is_too_short_has_no_index():
    assert native(bytes(11), 2) is None


def test_a_native_value_longer_than_the_file_has_no_index():
    assert index_of(bytes(6), EXPLICIT_LITTLE, length=7) is None


def test_an_image_without_pixels_has_no_index():
    assert native(bytes(6), rows=0) is None
    assert native(bytes(6), bits_allocated=0) is None
    assert native(bytes(6), 0) is None


def test_undefined_length_is_no_layout_of_an_uncompressed_syntax():
    assert index_of(encapsulated([b"abcdef"]), EXPLICIT_LITTLE) is None


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 9),
    pictures=st.integers(1, 6),
    bits=st.sampled_from([1, 12, 16]),
    data=st.data(),
)
def test_a_native_frame_of_any_depth_is_its_own_bits(
    rows, columns, pictures, bits, data
):
    size = rows * columns * bits
    numbers = data.draw(
        st.lists(st.integers(0, (1 << size) - 1), min_size=pictures, max_size=pictures)
    )
    packed = sum(number << i * size for i, number in enumerate(numbers))
    value = packed.to_bytes((size * pictures + 7) // 8, "little")
    index = native(value, pictures, rows=rows, columns=columns, bits_allocated=bits)
    expected = [number.to_bytes((size + 7) // 8, "little") for number in numbers]
    assert contents(index, value) == expected
    assert [index.bit_shift(i) for i in range(pictures)] == [
        i * size % 8 for i in range(pictures)
    ]


def test_one_fragment_for_each_frame_needs_no_table():
    value = encapsulated([b"aa", b"bbbb", b"cc"])
    index = index_of(value, number_of_frames=3)
    assert contents(index, value) == [b"aa", b"bbbb", b"cc"]
    assert index.starts is None


def test_one_frame_takes_all_fragments():
    value = encapsulated([b"aa", b"bbbb", b"cc"])
    assert contents(index_of(value), value) == [b"aabbbbcc"]


def test_the_basic_offset_table_groups_fragments():
    fragments = [b"aa", b"bbbb", b"cc", b"dd"]
    value = encapsulated(fragments, struct.pack("<2I", 0, 32))
    index = index_of(value, number_of_frames=2)
    assert contents(index, value) == [b"aabbbbcc"[:6] + b"cc", b"dd"]


def test_a_table_that_points_between_fragments_is_not_believed():
    value = encapsulated([b"aa", b"bbbb"], struct.pack("<2I", 0, 9))
    assert contents(index_of(value, number_of_frames=2), value) == [b"aa", b"bbbb"]


def test_a_table_that_starts_late_or_descends_is_not_believed():
    fragments = [b"aa", b"bb", b"cc"]
    for table in [(10, 20), (0, 0)]:
        value = encapsulated(fragments, struct.pack("<2I", *table))
        assert index_of(value, number_of_frames=2) is None


def test_a_table_of_broken_length_is_as_good_as_none():
    value = encapsulated([b"aa", b"bb"], b"\0" * 6)
    assert contents(index_of(value, number_of_frames=2), value) == [b"aa", b"bb"]


def test_end_of_image_markers_tell_frames_apart():
    fragments = [b"a1", b"a2\xff\xd9", b"b1\xff\xd9\0\0", b"c1", b"c2", b"c3\xff\xd9"]
    value = encapsulated(fragments)
    assert contents(index_of(value, number_of_frames=3), value) == [
        b"a1a2\xff\xd9",
        b"b1\xff\xd9\0\0",
        b"c1c2c3\xff\xd9",
    ]


def test_markers_that_do_not_add_up_give_no_index():
    value = encapsulated([b"a\xff\xd9", b"b\xff\xd9", b"c\xff\xd9"])
    assert index_of(value, number_of_frames=2) is None


def test_rle_has_no_markers():
    value = encapsulated([b"aa", b"b\xff\xd9", b"cc"])
    assert index_of(value, RLE, 2) is None


def test_fewer_fragments_than_frames_give_no_index():
    assert index_of(encapsulated([b"aa"]), number_of_frames=2) is None


def test_video_is_one_frame_whatever_it_declares():
    value = encapsulated([b"stream", b"goes on."])
    assert contents(index_of(value, MPEG4, 300), value) == [b"streamgoes on."]


def test_the_extended_offset_table_gives_unpadded_lengths():
    frames = [b"abc", b"de", b"fghij"]
    value, offsets, _ = encapsulate_extended(frames)
    index = index_of(
        value,
        number_of_frames=3,
        extended_offsets=struct.unpack("<3Q", offsets),
        extended_lengths=(3, 2, 5),
    )
    assert contents(index, value) == frames
    assert from_json(index.to_json()) == index


@pytest.mark.parametrize(
    ("offsets", "lengths"),
    [
        ((0, 5), (2, 2)),
        ((0, 10), (2, 3)),
        ((0, 1 << 40), (2, 2)),
        ((-1, 10), (2, 2)),
        ((0,), (2,)),
        ((0, 10), (2,)),
    ],
)
def test_an_extended_offset_table_that_is_not_true_is_not_believed(offsets, lengths):
    value = encapsulated([b"aa", b"bb"])
    index = index_of(
        value, number_of_frames=2, extended_offsets=offsets, extended_lengths=lengths
    )
    assert contents(index, value) == [b"aa", b"bb"]


def test_an_extended_offset_table_without_items_gives_no_index():
    index = index_of(b"\1" * 7, extended_offsets=(0,), extended_lengths=(2,))
    assert index is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xfe\xff\x00\xe0",
        item(b""),
        item(b"") + item(b"", 0xE0DD),
        item(b"") + b"\xfe\xff\x00\xe0\x10\0\0\0abc",
        item(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"a" * 20,
        item(b"") + item(b"aa") + b"garbage.",
        b"garbage." * 3,
    ],
)
def test_damaged_items_give_no_index(value):
    assert index_of(value) is None


def test_a_missing_delimiter_is_forgiven():
    value = item(b"") + item(b"aa") + item(b"bb")
    assert contents(index_of(value, number_of_frames=2), value) == [b"aa", b"bb"]


def test_a_compressed_syntax_may_give_a_length():
    value = encapsulated([b"aa"])
    index = index_of(value, length=len(value))
    assert contents(index, value) == [b"aa"]


def test_an_unknown_syntax_without_items_is_native():
    value = bytes(range(6))
    index = index_of(value, "1.2.3.4", length=6)
    assert contents(index, value) == [value]


def test_too_many_fragments_give_no_index(monkeypatch):
    monkeypatch.setattr("dicomweb.frames.MAX_FRAGMENTS", 3)
    assert index_of(encapsulated([b"aa"] * 3)) is not None
    assert index_of(encapsulated([b"aa"] * 4)) is None


@pytest.mark.parametrize("frame_index", [-1, 2])
def test_a_frame_that_does_not_exist_is_an_index_error(frame_index):
    for index in (
        native(bytes(12), 2),
        index_of(encapsulated([b"aa", b"bb"]), number_of_frames=2),
    ):
        with pytest.raises(IndexError):
            index.ranges(frame_index)
        with pytest.raises(IndexError):
            index.cover(frame_index)
    with pytest.raises(IndexError):
        index.bit_shift(frame_index)


def test_an_encapsulated_frame_starts_on_a_byte():
    assert index_of(encapsulated([b"aa"])).bit_shift(0) == 0


def test_the_index_of_a_hundred_frames_is_small():
    value = encapsulate([b"\xff" * 250_000] * 100, has_bot=False)
    index = index_of(value, JPEG_2000, 100)
    assert len(json.dumps(index.to_json())) < 1024


def test_any_buffer_will_do():
    value = encapsulated([b"a1", b"a2\xff\xd9", b"b\xff\xd9."])
    expected = index_of(value, number_of_frames=2)
    arguments = {
        "transfer_syntax_uid": JPEG_BASELINE,
        "pixel_data": Position(len(HEAD), None),
        "rows": 2,
        "columns": 3,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "number_of_frames": 2,
    }
    file = HEAD + value
    assert build(bytearray(file), **arguments) == expected
    assert build(memoryview(file), **arguments) == expected
    with tempfile.TemporaryFile() as temporary:
        temporary.write(file)
        temporary.flush()
        with mmap.mmap(temporary.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert build(mapped, **arguments) == expected


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


FRAGMENT = st.binary(min_size=1, max_size=12).map(even)


@settings(deadline=None)
@given(
    frames=st.lists(st.lists(FRAGMENT, min_size=1, max_size=3), min_size=1, max_size=5),
    with_table=st.booleans(),
)
def test_frames_equal_those_of_pydicom(frames, with_table):
    offsets, position = [], 0
    for frame in frames:
        offsets.append(position)
        position += sum(8 + len(fragment) for fragment in frame)
    table = struct.pack(f"<{len(offsets)}I", *offsets) if with_table else b""
    value = encapsulated([fragment for frame in frames for fragment in frame], table)
    index = index_of(value, number_of_frames=len(frames))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = list(generate_fragmented_frames(value, number_of_frames=len(frames)))
    if index is None:
        assert len(expected) != len(frames)
        return
    file = HEAD + value
    found = [
        tuple(file[o : o + n] for o, n in index.ranges(i))
        for i in range(index.number_of_frames)
    ]
    assert found == expected
    assert from_json(json.loads(json.dumps(index.to_json()))) == index
    contents(index, value)


@settings(deadline=None)
@given(
    frame_bits=st.integers(1, 1 << 40),
    offset=st.integers(0, 1 << 40),
    count=st.integers(1, 1 << 31),
)
def test_a_native_index_survives_json(frame_bits, offset, count):
    index = NativeFrames(offset, frame_bits, count)
    assert from_json(json.loads(json.dumps(index.to_json()))) == index


@settings(deadline=None)
@given(
    value=st.one_of(
        st.binary(max_size=64),
        st.lists(
            st.sampled_from([item(b""), item(b"ab"), item(b"", 0xE0DD), b"\xff"])
        ).map(b"".join),
    ),
    number_of_frames=st.integers(-1, 5),
    uid=st.sampled_from([EXPLICIT_LITTLE, JPEG_BASELINE, RLE, MPEG4, "1.2.3"]),
    length=st.one_of(st.none(), st.integers(0, 80)),
    tables=st.tuples(
        st.lists(st.integers(-10, 80), max_size=3),
        st.lists(st.integers(-10, 80), max_size=3),
    ),
)
def test_whatever_the_bytes_the_frames_are_inside_the_file(
    value, number_of_frames, uid, length, tables
):
    index = index_of(
        value,
        uid,
        number_of_frames,
        length=length,
        extended_offsets=tables[0],
        extended_lengths=tables[1],
    )
    if index is None:
        return
    for i in range(index.number_of_frames):
        for offset, size in index.ranges(i):
            assert len(HEAD) <= offset <= offset + size <= len(HEAD) + len(value)
