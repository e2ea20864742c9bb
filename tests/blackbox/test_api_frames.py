"""Section 7.4: frames."""

import imagecodecs
import numpy as np
import pytest
from blackbox.api import made, parts
from blackbox.images import (
    EXPLICIT,
    J2K,
    RLE,
    SHAPE,
    grey,
    native,
    native_file,
    rle,
    rle_file,
)
from blackbox.rules import covers
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

OCTETS = "application/octet-stream"
MANY = 'multipart/related; type="application/octet-stream"'
STORED = f"{MANY}; transfer-syntax=*"
JP2 = 'multipart/related; type="image/jp2"'
NO_FRAME = "The specified frame cannot be found."


@pytest.fixture(scope="module")
def plain(place):
    """Three uncompressed frames."""
    one = made(**native_file(3))
    assert place.store(one.file).status_code == 200
    return one


@pytest.fixture(scope="module")
def compressed(place):
    """The same in RLE."""
    one = made(**rle_file(3))
    assert place.store(one.file).status_code == 200
    return one


def frames(answer) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [content for _, content in parts(answer)]


# --- negotiation ---------------------------------------------------------------------


@covers("2.17", "7.1.1", "7.1.4", "7.1.6", "7.4.8")
@pytest.mark.parametrize(
    ("accept", "form", "content_type"),
    [
        (OCTETS, "single", f"{OCTETS}; transfer-syntax={EXPLICIT}"),
        (f"{OCTETS}; transfer-syntax=*", "single", f"{OCTETS}; transfer-syntax={RLE}"),
        (MANY, "multipart", f"{OCTETS}; transfer-syntax={EXPLICIT}"),
        (STORED, "multipart", f"{OCTETS}; transfer-syntax={RLE}"),
        (
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            "multipart",
            f"{OCTETS}; transfer-syntax={RLE}",
        ),
        (JP2, "multipart", f"image/jp2; transfer-syntax={J2K}"),
        (
            f"{JP2}; transfer-syntax={J2K}",
            "multipart",
            f"image/jp2; transfer-syntax={J2K}",
        ),
        ("*/*", "multipart", f"{OCTETS}; transfer-syntax={RLE}"),
        (
            'multipart/related; type="*/*"',
            "multipart",
            f"{OCTETS}; transfer-syntax={RLE}",
        ),
        (
            f'multipart/related; type="*/*"; transfer-syntax={EXPLICIT}',
            "multipart",
            f"{OCTETS}; transfer-syntax={EXPLICIT}",
        ),
    ],
)
def test_frames_come_as_octets_or_jpeg_2000(
    place, compressed, accept, form, content_type
):
    answer = place.read(f"{compressed.path}/frames/2", accept)
    assert answer.status_code == 200, answer.text
    if form == "single":
        assert answer.headers["content-type"] == content_type
    else:
        assert [kind for kind, _ in parts(answer)] == [content_type]


@covers("7.1.4", "7.1.7", "7.1.8", "3.4")
@pytest.mark.parametrize(
    "accept",
    [
        "image/jp2",
        "image/jpeg",
        "application/dicom",
        'multipart/related; type="application/dicom"',
        f"{OCTETS}; transfer-syntax={J2K}",
        f"{MANY}; transfer-syntax={RLE}",
        f"{MANY}; transfer-syntax=1.2.840.10008.1.2",
        f"{JP2}; transfer-syntax={EXPLICIT}",
        f"{JP2}; transfer-syntax=*",
        f'multipart/related; type="*/*"; transfer-syntax={J2K}',
    ],
)
def test_anything_else_is_406_before_404(place, compressed, accept):
    for one in (compressed, made()):
        assert place.read(f"{one.path}/frames/1", accept).status_code == 406


@covers("D6.11", "7.4.8", "7.3.2")
@pytest.mark.parametrize(
    ("accept", "kind"), [(STORED, OCTETS), (MANY, OCTETS), (JP2, "image/jp2")]
)
def test_multipart_names_the_media_type_of_its_parts(place, compressed, accept, kind):
    answer = place.read(f"{compressed.path}/frames/1,2", accept)
    assert answer.headers["content-type"].startswith(
        f'multipart/related; type="{kind}"; boundary='
    )
    assert len(parts(answer)) == 2


# --- the list ------------------------------------------------------------------------


@covers("2.17", "7.4.1", "7.4.6")
@pytest.mark.parametrize("numbers", [[1], [3, 1], [2, 2, 1, 3, 2]])
def test_order_and_repetitions_are_kept(place, plain, compressed, numbers):
    path = ",".join(map(str, numbers))
    for one, stored in ((plain, native(3)), (compressed, rle(3))):
        answer = place.read(f"{one.path}/frames/{path}", STORED)
        assert frames(answer) == [stored[number - 1] for number in numbers]


@covers("7.4.2", "7.4.3", "3.2")
@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1,a",
        "1.5",
        "1,,2",
        ",1",
        "1,",
        "-1",
        "0",
        "1,0",
        "%20",
        "1;2",
        "1-2",
        "1_0",
        "1%0A",
    ],
)
def test_what_is_no_list_of_numbers_from_1_is_400(place, plain, text):
    answer = place.read(f"{plain.path}/frames/{text}", STORED)
    assert answer.status_code == 400
    assert "frame" in answer.text


@covers("7.4.4")
def test_several_frames_in_a_single_part_are_400(place, plain):
    for accept in (OCTETS, f"{OCTETS}; transfer-syntax=*"):
        answer = place.read(f"{plain.path}/frames/1,2", accept)
        assert answer.status_code == 400
        assert "multipart" in answer.text
        assert place.read(f"{plain.path}/frames/2", accept).content == native(2)[1]


@covers("7.4.5", "3.3", "3.1")
@pytest.mark.parametrize("accept", [STORED, MANY, JP2, "*/*"])
def test_a_frame_beyond_the_last_is_404_before_any_byte(
    place, plain, compressed, accept
):
    for one in (plain, compressed):
        for numbers in ("4", "1,2,3,4", "1,99999999"):
            answer = place.read(f"{one.path}/frames/{numbers}", accept)
            assert (answer.status_code, answer.text) == (404, NO_FRAME)


@covers("7.4.5", "3.3")
def test_without_pixel_data_or_what_describes_it_there_are_no_frames(place):
    without = made()
    undescribed = made(Rows=16, Columns=16, PixelData=b"\0" * 512)
    assert place.store(without.file, undescribed.file).status_code in {200, 202}
    for one in (without, undescribed):
        for accept in (STORED, OCTETS, "*/*"):
            answer = place.read(f"{one.path}/frames/1", accept)
            assert (answer.status_code, answer.text) == (404, NO_FRAME)


@covers("7.2.2", "3.3")
def test_frames_of_an_instance_that_is_not_there_are_404(place):
    answer = place.read(f"{made().path}/frames/1", STORED)
    assert answer.status_code == 404
    assert answer.text == "The specified instance cannot be found."


@covers("7.2.1")
def test_a_malformed_uid_is_400(place):
    path = "/studies/1.2/series/1.3/instances/x/frames/1"
    assert place.read(path, STORED).status_code == 400


# --- bytes ---------------------------------------------------------------------------


@covers("7.4.6")
@pytest.mark.parametrize(
    "pixels",
    [
        {},
        {"fragments_per_frame": 2},
        {"basic_offset_table": False},
        {"extended_offset_table": True},
    ],
)
def test_as_stored_is_the_frame_s_own_bytes_however_it_is_cut(api, pixels):
    stored = rle(3)
    one = made(transfer_syntax=RLE, frames=stored, pixels={**SHAPE, **pixels})
    assert api.store(one.file).status_code == 200
    found = frames(api.read(f"/v2{one.path}/frames/1,2,3", STORED))
    assert found == stored


@covers("7.4.6", "7.4.7")
def test_frames_of_one_bit_start_in_their_own_byte(api):
    """Three frames of 9 bits: frame 2 starts in bit 1 of the second byte."""
    bits = 0b101010101 | 0b110011001 << 9 | 0b000111000 << 18
    form = {"rows": 3, "columns": 3, "bits_allocated": 1}
    one = made(frames=[b"\0\0"] * 3, pixels=form)
    start = one.file.rindex(b"OB") + 8
    file = one.file[:start] + bits.to_bytes(4, "little") + one.file[start + 6 :]
    file = file[: start - 4] + b"\4\0\0\0" + file[start:]
    assert api.store(file).status_code in {200, 202}
    for accept in (STORED, MANY):
        found = frames(api.read(f"/v2{one.path}/frames/1,2,3", accept))
        assert [int.from_bytes(frame, "little") for frame in found] == [
            0b101010101,
            0b110011001,
            0b000111000,
        ]


@covers("7.4.7")
def test_another_transfer_syntax_is_transcoded(place, plain, compressed):
    for one in (plain, compressed):
        found = frames(place.read(f"{one.path}/frames/3,1", MANY))
        assert found == [native(3)[2], native(3)[0]]
        found = frames(place.read(f"{one.path}/frames/2,3", JP2))
        for number, frame in zip((2, 3), found, strict=True):
            assert np.array_equal(imagecodecs.jpeg2k_decode(frame), grey(number))


@covers("7.4.7", "7.4.8")
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_frames_come_in_little_endian(api, syntax):
    one = made(transfer_syntax=syntax, **native_file(2))
    assert api.store(one.file).status_code in {200, 202}
    [(content_type, frame)] = parts(api.read(f"/v2{one.path}/frames/2", MANY))
    assert content_type == f"{OCTETS}; transfer-syntax={EXPLICIT}"
    expected = grey(2)
    if syntax == ExplicitVRBigEndian:
        expected = np.frombuffer(native(2)[1], ">u2").astype("<u2")
    assert frame == expected.tobytes()


@covers("7.4.7", "7.2.5", "3.4")
def test_a_frame_that_cannot_be_decoded_is_406_but_comes_as_stored(place):
    frame = b"\xff\x4f\xff\x51 no codestream"
    one = made(transfer_syntax=J2K, frames=[frame])
    assert place.store(one.file).status_code == 200
    answer = place.read(f"{one.path}/frames/1", MANY)
    assert answer.status_code == 406
    assert answer.text
    [found] = frames(place.read(f"{one.path}/frames/1", STORED))
    assert found.rstrip(b"\0") == frame


@covers("D5.5", "7.4.6")
def test_one_frame_alone_has_an_etag_and_ranges(place, compressed):
    path, accept = f"{compressed.path}/frames/2", f"{OCTETS}; transfer-syntax=*"
    answer = place.read(path, accept)
    assert answer.content == rle(2)[1]
    part = place.read(path, accept, range="bytes=4-7")
    assert (part.status_code, part.content) == (206, rle(2)[1][4:8])
    again = place.read(path, accept, if_none_match=answer.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    other = place.read(f"{compressed.path}/frames/1", accept)
    assert other.headers["etag"] != answer.headers["etag"]
