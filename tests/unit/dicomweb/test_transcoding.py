"""Instances and frames in another transfer syntax, pixels untouched."""

import struct
import time
import zlib
from dataclasses import replace
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileMetaDataset, Sequence, dcmread, dcmwrite
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import pixel_array

from dicomweb import codecs, transcoding
from dicomweb.errors import NotAcceptable
from dicomweb.pixels import PixelDescription
from dicomweb.transcoding import (
    EXPLICIT_LITTLE,
    JPEG_2000_LOSSLESS,
    can_transcode,
    check_image,
    decodes,
    reversed_words,
    transcode_frame,
    transcode_instance,
    word_bytes,
)

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K = "1.2.840.10008.1.2.4.201"
RLE = "1.2.840.10008.1.2.5"
MPEG4 = "1.2.840.10008.1.2.4.102"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
TARGETS = (EXPLICIT_LITTLE, JPEG_2000_LOSSLESS)

RANDOM = np.random.default_rng(7)
GREY = (
    np.add.outer(np.arange(40), np.arange(48)) * 30 + RANDOM.integers(0, 9, (40, 48))
).astype("<u2")
SIGNED = (GREY.astype(int) - 1500).astype("<i2")
RGB = RANDOM.integers(0, 256, (40, 48, 3)).astype("u1")


def description_of(pixels: np.ndarray, **overrides: object) -> PixelDescription:
    bits = pixels.dtype.itemsize * 8
    values = {
        "rows": pixels.shape[0],
        "columns": pixels.shape[1],
        "samples_per_pixel": pixels.shape[2] if pixels.ndim == 3 else 1,
        "bits_allocated": bits,
        "bits_stored": bits,
        "high_bit": bits - 1,
        "signed": pixels.dtype.kind == "i",
        "photometric_interpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        **overrides,
    }
    return PixelDescription(**values)


def rle_frame(pixels: np.ndarray, *, pad: bytes = b"") -> bytes:
    """An RLE frame, high bytes first; `pad` goes behind each segment."""
    planes = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    segments = []
    for plane in planes:
        cells = np.ascontiguousarray(plane).view("u1").reshape(*plane.shape, -1)
        for byte in reversed(range(cells.shape[2])):
            rows = cells[:, :, byte]
            packed = b"".join(imagecodecs.packbits_encode(r.tobytes()) for r in rows)
            segments.append(packed + pad)
    offsets = [64]
    for segment in segments[:-1]:
        offsets.append(offsets[-1] + len(segment))
    header = [len(segments), *offsets, *[0] * (15 - len(offsets))]
    return struct.pack("<16I", *header) + b"".join(segments)


def file_of(
    pixels: np.ndarray, uid: str = EXPLICIT_LITTLE, value: bytes | None = None, **more
) -> bytes:
    """A small image; `value` replaces the uncompressed Pixel Data."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName = "Müller^Änne"
    described = description_of(pixels)
    dataset.Rows, dataset.Columns = described.rows, described.columns
    dataset.SamplesPerPixel = described.samples_per_pixel
    dataset.PhotometricInterpretation = described.photometric_interpretation
    dataset.BitsAllocated = dataset.BitsStored = described.bits_allocated
    dataset.HighBit = described.high_bit
    dataset.PixelRepresentation = int(described.signed)
    if described.samples_per_pixel > 1:
        dataset.PlanarConfiguration = 0
    for keyword, element in more.items():
        setattr(dataset, keyword, element)
    little = pixels.tobytes() if value is None else value
    dataset.add_new(0x7FE00010, "OB" if value or pixels.itemsize == 1 else "OW", little)
    if uid == EXPLICIT_BIG and value is None:
        dataset["PixelData"].value = pixels.byteswap().tobytes()
    return written(dataset, uid)


def written(dataset: Dataset, uid: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def decoded(file: bytes) -> np.ndarray:
    return pixel_array(dcmread(BytesIO(file)), raw=True)


def test_targets_are_explicit_little_endian_and_lossless_jpeg_2000():
    assert can_transcode(RLE, EXPLICIT_LITTLE)
    assert can_transcode(EXPLICIT_BIG, JPEG_2000_LOSSLESS)
    assert can_transcode(MPEG4, MPEG4)
    assert not can_transcode(MPEG4, EXPLICIT_LITTLE)
    assert not can_transcode(EXPLICIT_LITTLE, RLE)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "uid", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]
)
@pytest.mark.parametrize("pixels", [GREY, SIGNED, RGB], ids=["grey", "signed", "rgb"])
def test_uncompressed_files_keep_their_pixels(pixels, uid, target):
    transcoded = transcode_instance(file_of(pixels, uid), target)
    dataset = dcmread(BytesIO(transcoded))
    assert dataset.file_meta.TransferSyntaxUID == target
    assert dataset.PatientName == "Müller^Änne"
    assert np.array_equal(decoded(transcoded), pixels)


def test_a_file_in_the_target_syntax_is_returned_as_it_is():
    file = file_of(GREY)
    assert transcode_instance(file, EXPLICIT_LITTLE) is file


@pytest.mark.parametrize(
    ("uid", "encode"),
    [
        (
            JPEG_LOSSLESS,
            lambda p: imagecodecs.jpeg8_encode(
                p.view("u2"), lossless=True, predictor=4, bitspersample=16
            ),
        ),
        (
            JPEG_LOSSLESS_SV1,
            lambda p: imagecodecs.jpeg8_encode(
                p.view("u2"), lossless=True, predictor=1, bitspersample=16
            ),
        ),
        (JPEG_LS, lambda p: imagecodecs.jpegls_encode(p.view("u2"))),
        (HTJ2K, lambda p: imagecodecs.htj2k_encode(p, reversible=True)),
        (DEFLATED_FRAMES, lambda p: zlib.compress(p.tobytes(), wbits=-15)),
    ],
    ids=["57", "70", "jpeg-ls", "htj2k", "deflated"],
)
@pytest.mark.parametrize("pixels", [GREY, SIGNED], ids=["grey", "signed"])
def test_lossless_frames_decode_to_what_was_encoded(pixels, uid, encode):
    described = description_of(pixels)
    frame = bytes(encode(pixels))
    assert transcode_frame(frame, uid, EXPLICIT_LITTLE, described) == pixels.tobytes()
    compressed = transcode_frame(frame, uid, JPEG_2000_LOSSLESS, described)
    assert np.array_equal(imagecodecs.jpeg2k_decode(compressed), pixels)


@pytest.mark.parametrize("pad", [b"", b"\0", b"\0\0\0"])
@pytest.mark.parametrize(
    "pixels",
    [GREY, SIGNED, RGB, GREY.astype("<u4")],
    ids=["grey", "signed", "rgb", "32"],
)
def test_rle_frames_decode_to_what_was_encoded(pixels, pad):
    frame = rle_frame(pixels, pad=pad)
    native = transcode_frame(frame, RLE, EXPLICIT_LITTLE, description_of(pixels))
    assert native == pixels.tobytes()
    if pad:
        return
    # Another's decoder agrees that the frame is right; it forgives no padding.
    file = dcmread(BytesIO(file_of(pixels, RLE, encapsulate([frame]))))
    assert np.array_equal(pixel_array(file, raw=True), pixels)


def test_twelve_bit_samples_keep_their_sign():
    pixels = np.clip(SIGNED, -2048, 2047)
    described = description_of(pixels, bits_stored=12, high_bit=11)
    unsigned = pixels.view("u2") & 0xFFF
    frame = bytes(
        imagecodecs.jpeg8_encode(unsigned, lossless=True, predictor=1, bitspersample=12)
    )
    native = transcode_frame(frame, JPEG_LOSSLESS_SV1, EXPLICIT_LITTLE, described)
    assert native == pixels.tobytes()


def test_bits_above_the_stored_ones_survive_compression():
    pixels = (GREY & 0xFFF) | 0x1000
    described = description_of(pixels, bits_stored=12, high_bit=11)
    frame = transcode_frame(
        pixels.tobytes(), EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, described
    )
    assert np.array_equal(imagecodecs.jpeg2k_decode(frame), pixels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (31, 100), (100, 31)])
def test_small_images_are_compressed_too(shape):
    pixels = RANDOM.integers(0, 4096, shape).astype("<u2")
    described = description_of(pixels, bits_stored=12, high_bit=11)
    frame = transcode_frame(
        pixels.tobytes(), EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, described
    )
    assert np.array_equal(imagecodecs.jpeg2k_decode(frame).reshape(shape), pixels)


def test_rgb_becomes_ybr_rct_and_back():
    file = file_of(RGB)
    compressed = transcode_instance(file, JPEG_2000_LOSSLESS)
    assert dcmread(BytesIO(compressed)).PhotometricInterpretation == "YBR_RCT"
    restored = dcmread(BytesIO(transcode_instance(compressed, EXPLICIT_LITTLE)))
    assert restored.PhotometricInterpretation == "RGB"
    assert restored.PixelData == RGB.tobytes()


@pytest.mark.parametrize(
    ("options", "stored", "expected"),
    [
        ({"colorspace": "RGB", "outcolorspace": "YCBCR"}, "YBR_FULL_422", "YBR_FULL"),
        ({"colorspace": "RGB", "outcolorspace": "YCBCR"}, "RGB", "YBR_FULL"),
        ({"colorspace": "RGB", "outcolorspace": "RGB"}, "YBR_FULL_422", "RGB"),
    ],
    ids=["as declared", "JFIF but declared RGB", "Adobe RGB but declared YBR"],
)
def test_jpeg_colour_is_what_the_markers_say(options, stored, expected):
    frame = imagecodecs.jpeg8_encode(RGB, level=95, **options)
    file = file_of(
        RGB, JPEG_BASELINE, encapsulate([frame]), PhotometricInterpretation=stored
    )
    result = dcmread(BytesIO(transcode_instance(file, EXPLICIT_LITTLE)))
    assert result.PhotometricInterpretation == expected
    same = "YCBCR" if expected == "YBR_FULL" else "RGB"
    raw = imagecodecs.jpeg8_decode(frame, colorspace=same, outcolorspace=same)
    assert result.PixelData == raw.tobytes()


def test_jpeg_without_markers_is_what_the_attribute_says():
    frame = imagecodecs.jpeg8_encode(RGB, colorspace="RGB", outcolorspace="YCBCR")
    start = frame.index(b"\xff\xe0")
    length = struct.unpack_from(">H", frame, start + 2)[0]
    bare = frame[:start] + b"\xff" + frame[start + 2 + length :]
    for stored, expected in (("RGB", "RGB"), ("YBR_FULL_422", "YBR_FULL")):
        described = description_of(RGB, photometric_interpretation=stored)
        found = codecs.decode(bare, JPEG_BASELINE, described)
        assert found.photometric_interpretation == expected


def test_ybr_full_422_keeps_its_bytes_uncompressed_and_its_colours_compressed():
    value = RANDOM.integers(0, 256, (4, 48 * 2)).astype("u1")
    pixels = np.zeros((4, 48, 3), "u1")
    described = description_of(pixels, photometric_interpretation="YBR_FULL_422")
    native = value.tobytes()
    assert (
        transcode_frame(native, IMPLICIT_LITTLE, EXPLICIT_LITTLE, described) == native
    )
    frame = transcode_frame(native, EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, described)
    result = imagecodecs.jpeg2k_decode(frame)
    pairs = value.reshape(4, 24, 4)
    assert np.array_equal(result[:, 0::2, 0], pairs[:, :, 0])
    assert np.array_equal(result[:, 1::2, 0], pairs[:, :, 1])
    assert np.array_equal(result[:, 1::2, 1:], pairs[:, :, 2:])
    assert np.array_equal(result[:, 0::2, 1:], pairs[:, :, 2:])


def test_uncompressed_colour_has_the_planar_configuration_that_is_declared():
    planes = RGB.transpose(2, 0, 1)
    frame = bytes(imagecodecs.jpeg2k_encode(RGB, level=0, codecformat="j2k"))
    described = description_of(RGB, planar_configuration=1)
    assert (
        transcode_frame(frame, JPEG_2000, EXPLICIT_LITTLE, described)
        == planes.tobytes()
    )
    again = transcode_frame(
        planes.tobytes(), EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, described
    )
    assert np.array_equal(imagecodecs.jpeg2k_decode(again), RGB)


@pytest.mark.parametrize("extended", [False, True])
def test_all_frames_of_a_multi_frame_file_are_transcoded(extended):
    frames = [GREY, GREY[::-1].copy(), GREY + 1]
    codestreams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in frames]
    more = {"NumberOfFrames": 3}
    if extended:
        value, offsets, lengths = encapsulate_extended(codestreams)
        more |= {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    else:
        value = encapsulate(codestreams)
    file = file_of(GREY, JPEG_LS, value, **more)
    for target in TARGETS:
        result = transcode_instance(file, target)
        assert np.array_equal(decoded(result), np.stack(frames))
        assert "ExtendedOffsetTable" not in dcmread(BytesIO(result))


def test_an_odd_frame_is_padded():
    pixels = RGB[:3, :3]
    result = dcmread(
        BytesIO(
            transcode_instance(
                file_of(
                    pixels,
                    JPEG_LS,
                    encapsulate([bytes(imagecodecs.jpegls_encode(pixels))]),
                ),
                EXPLICIT_LITTLE,
            )
        )
    )
    assert result.PixelData == pixels.tobytes() + b"\0"
    assert result["PixelData"].VR == "OB"


def test_big_endian_values_of_every_kind_are_turned_round():
    item = Dataset()
    item.SelectorUSValue = [1, 0x0203]
    item.SelectorFDValue = 1.5
    dataset_more = {
        "SelectorATValue": 0x00100020,
        "SelectorULValue": 0x01020304,
        "RedPaletteColorLookupTableData": b"\x01\x02\x03\x04",
        "VectorGridData": struct.pack(">2f", 1.0, 2.0),
        "ReferencedStudySequence": Sequence([item]),
    }
    little = {
        **dataset_more,
        "RedPaletteColorLookupTableData": b"\x02\x01\x04\x03",
        "VectorGridData": struct.pack("<2f", 1.0, 2.0),
    }
    result = transcode_instance(
        file_of(GREY, EXPLICIT_BIG, **dataset_more), EXPLICIT_LITTLE
    )
    expected = dcmread(BytesIO(file_of(GREY, EXPLICIT_LITTLE, **little)))
    assert dcmread(BytesIO(result)) == expected


def test_implicit_files_get_the_vr_of_every_element():
    item = Dataset()
    item.SmallestImagePixelValue = -1
    item.PixelRepresentation = 1
    item["SmallestImagePixelValue"].VR = "SS"
    more = {
        "ReferencedStudySequence": Sequence([item]),
        "PixelPaddingValue": 5,
        "LossyImageCompression": "00",
    }
    file = file_of(GREY, EXPLICIT_LITTLE, **more)
    source = dcmread(BytesIO(file))
    source.private_block(0x0029, "UNKNOWN CREATOR", create=True).add_new(1, "UN", b"ab")
    source.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(
        8, "CS", "IMAGE"
    )
    source.add_new(0x00097777, "UN", b"cd")
    source.add_new(0x00087777, "UN", b"ef")
    for element in (source, source.ReferencedStudySequence[0]):
        for each in element:
            assert each.VR
    result = dcmread(
        BytesIO(transcode_instance(written(source, IMPLICIT_LITTLE), EXPLICIT_LITTLE))
    )
    assert [(e.tag, e.VR, e.value) for e in result] == [
        (e.tag, e.VR, e.value) for e in source
    ]


def test_invalid_values_pass_through_untouched():
    file = file_of(GREY, IMPLICIT_LITTLE, InstanceNumber=12, StudyDate="20260101")
    broken = file.replace(b"12", b"1A").replace(b"20260101", b"tomorrow")
    assert broken.count(b"tomorrow") == 1
    result = transcode_instance(broken, EXPLICIT_LITTLE)
    assert b"IS\x02\x001A" in result
    assert b"DA\x08\x00tomorrow" in result


@pytest.mark.parametrize("uid", [IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_invalid_values_of_known_private_creators_pass_through_too(uid):
    source = dcmread(BytesIO(file_of(GREY, EXPLICIT_LITTLE)))
    source.SpecificCharacterSet = "ISO_IR 192"
    block = source.private_block(0x0009, "GEMS_IDEN_01", create=True)
    block.add_new(2, "SH", "DOUBLE")
    block = source.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0B, "DS", "4711")
    broken = written(source, uid).replace(b"DOUBLE", b"\xff\xfe\xe9\xc4 x")
    broken = broken.replace(b"4711", b"four")
    result = transcode_instance(broken, EXPLICIT_LITTLE)
    assert b"SH\x06\0\xff\xfe\xe9\xc4 x" in result
    assert b"DS\x04\0four" in result


def test_a_compressed_icon_is_decompressed_too():
    icon = dcmread(BytesIO(file_of(GREY[:8, :8])))
    codestream = bytes(imagecodecs.jpegls_encode(GREY[:8, :8]))
    icon.PixelData = encapsulate([codestream])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    plain = Dataset()
    del icon.PatientName, icon.SpecificCharacterSet
    plain.update(icon)
    file = file_of(
        GREY,
        JPEG_LS,
        encapsulate([bytes(imagecodecs.jpegls_encode(GREY))]),
        IconImageSequence=Sequence([plain]),
    )
    result = dcmread(BytesIO(transcode_instance(file, EXPLICIT_LITTLE)))
    assert result.IconImageSequence[0].PixelData == GREY[:8, :8].tobytes()
    assert result.PixelData == GREY.tobytes()


def test_a_report_changes_its_encoding_but_is_never_compressed():
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    dataset.SOPInstanceUID = "1.2.3"
    file = written(dataset, IMPLICIT_LITTLE)
    result = dcmread(BytesIO(transcode_instance(file, EXPLICIT_LITTLE)))
    assert result.SOPInstanceUID == "1.2.3"
    with pytest.raises(NotAcceptable):
        transcode_instance(file, JPEG_2000_LOSSLESS)


def test_a_preamble_and_other_meta_information_stay():
    file = b"TIFF" + file_of(GREY, IMPLICIT_LITTLE)[4:]
    result = transcode_instance(file, EXPLICIT_LITTLE)
    assert result[:4] == b"TIFF"
    meta = dcmread(BytesIO(result)).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.FileMetaInformationGroupLength == len(meta_bytes(result))


def meta_bytes(file: bytes) -> bytes:
    """What follows the group length up to the data set."""
    return file[144 : file.index(b"\x08\x00\x05\x00CS")]


def test_a_missing_group_length_is_forgiven():
    file = file_of(GREY, IMPLICIT_LITTLE)
    result = transcode_instance(file[:132] + file[144:], EXPLICIT_LITTLE)
    assert np.array_equal(decoded(result), GREY)


def test_what_cannot_be_transcoded_is_not_acceptable():
    cases = [
        (b"", EXPLICIT_LITTLE),
        (bytes(200), EXPLICIT_LITTLE),
        (file_of(GREY), "1.2.840.10008.1.2.4.100"),
        (file_of(GREY, MPEG4, encapsulate([b"ab"])), EXPLICIT_LITTLE),
        (file_of(GREY, RLE, encapsulate([b"ab"])), EXPLICIT_LITTLE),
        (file_of(GREY, RLE, encapsulate([b"ab"]), NumberOfFrames=2), EXPLICIT_LITTLE),
        (file_of(GREY, JPEG_2000, encapsulate([b"\xff\x4f\xff\x51"])), EXPLICIT_LITTLE),
        (file_of(GREY.astype("<u4")), JPEG_2000_LOSSLESS),
        (file_of(GREY, BitsAllocated=1, BitsStored=1, HighBit=0), JPEG_2000_LOSSLESS),
        (file_of(GREY, BitsAllocated=7), JPEG_2000_LOSSLESS),
        (file_of(GREY, Rows=0), JPEG_2000_LOSSLESS),
    ]
    for file, target in cases:
        with pytest.raises(NotAcceptable):
            transcode_instance(file, target)


def test_a_frame_that_cannot_be_transcoded_is_not_acceptable():
    grey, colour = description_of(GREY), description_of(RGB)
    bits = description_of(GREY, bits_allocated=1, bits_stored=1, high_bit=0)
    partial = description_of(RGB, photometric_interpretation="YBR_PARTIAL_422")
    cases = [
        (b"", MPEG4, EXPLICIT_LITTLE, grey),
        (b"abc", EXPLICIT_BIG, EXPLICIT_LITTLE, grey),
        (b"abc", EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, grey),
        (bytes(240), EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, bits),
        (RGB.tobytes(), EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, partial),
        (b"\xff\xd8\xff\xd9", JPEG_BASELINE, EXPLICIT_LITTLE, colour),
        (b"\xff\xd8" + bytes(30), JPEG_BASELINE, EXPLICIT_LITTLE, colour),
        (b"GIF89a", JPEG_BASELINE, EXPLICIT_LITTLE, colour),
        (struct.pack("<16I", 1, *[64] * 15), RLE, EXPLICIT_LITTLE, grey),
        (
            struct.pack("<16I", 2, 64, 66, *[0] * 13) + bytes(4),
            RLE,
            EXPLICIT_LITTLE,
            grey,
        ),
        (
            struct.pack("<16I", 2, 0, 66, *[0] * 13) + bytes(4),
            RLE,
            EXPLICIT_LITTLE,
            grey,
        ),
        (
            struct.pack("<16I", 2, 64, 99, *[0] * 13) + bytes(4),
            RLE,
            EXPLICIT_LITTLE,
            grey,
        ),
        (imagecodecs.jpegls_encode(GREY), JPEG_LS, EXPLICIT_LITTLE, colour),
        (imagecodecs.jpeg2k_encode(GREY), JPEG_2000, EXPLICIT_LITTLE, colour),
        (
            imagecodecs.jpegls_encode(GREY),
            JPEG_LS,
            EXPLICIT_LITTLE,
            replace(grey, bits_allocated=8, bits_stored=8, high_bit=7),
        ),
        (
            imagecodecs.jpeg2k_encode(GREY),
            JPEG_2000,
            EXPLICIT_LITTLE,
            replace(grey, bits_allocated=8, bits_stored=8, high_bit=7),
        ),
    ]
    for frame, source, target, described in cases:
        with pytest.raises(NotAcceptable):
            transcode_frame(bytes(frame), source, target, described)


def test_a_decoder_that_returns_another_size_is_not_believed(monkeypatch):
    found = codecs.Decoded(GREY[:, :, np.newaxis], "MONOCHROME2")
    monkeypatch.setitem(codecs._DECODERS, JPEG_LS, lambda *_: found)
    with pytest.raises(NotAcceptable):
        codecs.decode(b"", JPEG_LS, description_of(GREY, rows=1))


def test_samples_that_no_encoder_takes_are_not_acceptable():
    floats = codecs.Decoded(np.zeros((40, 48, 1)), "MONOCHROME2")
    with pytest.raises(NotAcceptable):
        codecs.encode_jpeg_2000(floats, description_of(GREY))
    with pytest.raises(NotAcceptable):
        codecs.encode_image(np.zeros((2, 2, 1), "c8"), "image/jpeg", 90)


def test_a_jpeg_2000_file_around_the_codestream_is_forgiven():
    frame = bytes(imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="jp2"))
    assert not frame.startswith(b"\xff\x4f")
    native = transcode_frame(frame, JPEG_2000, EXPLICIT_LITTLE, description_of(GREY))
    assert native == GREY.tobytes()


def test_components_named_rgb_are_rgb():
    frame = bytes(
        imagecodecs.jpeg8_encode(
            RGB, colorspace="RGB", outcolorspace="YCBCR", subsampling="444"
        )
    )
    start = frame.index(b"\xff\xe0")
    length = struct.unpack_from(">H", frame, start + 2)[0]
    bare = bytearray(frame[:start] + frame[start + 2 + length :])
    frame_header, scan_header = bare.index(b"\xff\xc0"), bare.index(b"\xff\xda")
    for i, name in enumerate(b"RGB"):
        bare[frame_header + 10 + 3 * i] = name
        bare[scan_header + 5 + 2 * i] = name
    described = description_of(RGB, photometric_interpretation="YBR_FULL_422")
    found = codecs.decode(bytes(bare), JPEG_BASELINE, described)
    assert found.photometric_interpretation == "RGB"


def test_a_frame_in_the_target_syntax_is_returned_as_it_is():
    frame = b"anything"
    assert transcode_frame(frame, MPEG4, MPEG4, description_of(GREY)) is frame


def test_a_big_endian_frame_is_turned_round():
    described = description_of(GREY)
    swapped = GREY.byteswap().tobytes()
    assert (
        transcode_frame(swapped, EXPLICIT_BIG, EXPLICIT_LITTLE, described)
        == GREY.tobytes()
    )
    bytes_in_words = description_of(RGB, pixel_data_vr="OW")
    assert (
        transcode_frame(b"abcd", EXPLICIT_BIG, EXPLICIT_LITTLE, bytes_in_words)
        == b"badc"
    )
    in_bytes = description_of(RGB, pixel_data_vr="OB")
    assert transcode_frame(b"abc", EXPLICIT_BIG, EXPLICIT_LITTLE, in_bytes) == b"abc"


def test_one_bit_frames_are_packed_again():
    described = description_of(
        np.zeros((3, 5), "u1"), bits_allocated=1, bits_stored=1, high_bit=0
    )
    frame = bytes((0b10101010, 0b01010101))
    deflated = zlib.compress(frame, wbits=-15)
    result = transcode_frame(deflated, DEFLATED_FRAMES, EXPLICIT_LITTLE, described)
    assert result == frame


def test_bombs_are_refused_before_they_go_off():
    started = time.process_time()
    huge = description_of(GREY, rows=65535, columns=65535)
    small = description_of(GREY)
    bomb = file_of(GREY, DEFLATED)
    start = 144 + dcmread(BytesIO(bomb)).file_meta.FileMetaInformationGroupLength
    bomb = bomb[:start] + zlib.compress(bytes(2_000_000), 9, wbits=-15)
    codestream = bytearray(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k"))
    codestream[8:16] = struct.pack(">2I", 60000, 60000)
    sof = bytearray(imagecodecs.jpegls_encode(GREY))
    at = sof.index(b"\xff\xf7")
    sof[at + 5 : at + 9] = struct.pack(">2H", 65535, 65535)
    cases = [
        lambda: transcode_frame(b"", RLE, EXPLICIT_LITTLE, huge),
        lambda: transcode_frame(bytes(codestream), JPEG_2000, EXPLICIT_LITTLE, small),
        lambda: transcode_frame(bytes(sof), JPEG_LS, EXPLICIT_LITTLE, small),
        lambda: transcode_instance(bomb, EXPLICIT_LITTLE, max_bytes=1 << 20),
        lambda: transcode_instance(
            file_of(
                GREY, RLE, encapsulate([b"ab"] * 300), NumberOfFrames=300, Rows=999
            ),
            EXPLICIT_LITTLE,
            max_bytes=1 << 20,
        ),
    ]
    for case in cases:
        with pytest.raises(NotAcceptable):
            case()
    assert time.process_time() - started < 1


def test_a_jpeg_ls_stream_that_stops_early_is_refused_at_once():
    frame = bytes(imagecodecs.jpegls_encode(GREY))
    started = time.process_time()
    with pytest.raises(NotAcceptable):
        transcode_frame(frame[:-200], JPEG_LS, EXPLICIT_LITTLE, description_of(GREY))
    assert time.process_time() - started < 1


ENCODED = {
    RLE: rle_frame(GREY),
    JPEG_LS: bytes(imagecodecs.jpegls_encode(GREY)),
    JPEG_2000: bytes(imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="j2k")),
    HTJ2K: bytes(imagecodecs.htj2k_encode(GREY, reversible=True)),
    JPEG_LOSSLESS: bytes(
        imagecodecs.jpeg8_encode(GREY, lossless=True, predictor=1, bitspersample=16)
    ),
    DEFLATED_FRAMES: zlib.compress(GREY.tobytes(), wbits=-15),
    EXPLICIT_BIG: GREY.tobytes(),
}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    uid=st.sampled_from(sorted(ENCODED)),
    edits=st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6
    ),
    cut=st.integers(0, 4000),
)
def test_mutated_frames_are_decoded_or_refused(uid, edits, cut):
    frame = bytearray(ENCODED[uid])
    for position, byte in edits:
        frame[position % len(frame)] = byte
    frame = frame[: len(frame) - cut % len(frame)] if cut % 3 else frame
    try:
        result = transcode_frame(
            bytes(frame), uid, EXPLICIT_LITTLE, description_of(GREY)
        )
    except NotAcceptable:
        return
    assert isinstance(result, bytes)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=5
    ),
    uid=st.sampled_from([IMPLICIT_LITTLE, EXPLICIT_BIG, JPEG_LS]),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_transcoded_or_refused(edits, uid):
    value = encapsulate([ENCODED[JPEG_LS]]) if uid == JPEG_LS else None
    file = bytearray(file_of(GREY, uid, value))
    for position, byte in edits:
        file[132 + position % (len(file) - 132)] = byte
    try:
        result = transcode_instance(bytes(file), EXPLICIT_LITTLE)
    except NotAcceptable:
        return
    assert isinstance(result, bytes)


def test_a_jpeg_2000_file_holds_an_offset_table_and_one_fragment_a_frame():
    stacked = np.stack([GREY, GREY + 1])
    file = file_of(GREY, value=None, NumberOfFrames=2)
    dataset = dcmread(BytesIO(file))
    dataset.PixelData = stacked.tobytes()
    result = dcmread(
        BytesIO(
            transcode_instance(written(dataset, EXPLICIT_LITTLE), JPEG_2000_LOSSLESS)
        )
    )
    frames = list(generate_frames(result.PixelData, number_of_frames=2))
    assert [imagecodecs.jpeg2k_decode(frame).tobytes() for frame in frames] == [
        page.tobytes() for page in stacked
    ]
    assert result.PixelData[4:8] == struct.pack("<I", 8)


@pytest.mark.parametrize(
    ("tag", "vr", "bits", "expected"),
    [
        ("7FE00010", "OW", 8, 2),
        ("7FE00010", "OW", 16, 2),
        ("7FE00010", "OW", 32, 4),
        ("7FE00010", "OB", 8, 1),
        ("00281201", "OW", 32, 2),
        ("7FE00008", "OF", 32, 4),
        ("7FE00009", "OD", 64, 8),
        ("00420011", "OB", 16, 1),
        ("00091001", "UN", 16, 1),
    ],
)
def test_words_have_the_length_that_byte_order_is_about(tag, vr, bits, expected):
    assert word_bytes(tag, vr, bits) == expected


def test_words_are_reversed_where_they_fill_the_value():
    assert reversed_words(b"abcd", 1) == b"abcd"
    assert reversed_words(b"abcd", 2) == b"badc"
    assert reversed_words(b"abcd", 4) == b"dcba"
    assert reversed_words(b"abc", 2) == b"abc"


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (IMPLICIT_LITTLE, EXPLICIT_LITTLE, False),
        (EXPLICIT_BIG, EXPLICIT_LITTLE, False),
        (EXPLICIT_LITTLE, EXPLICIT_LITTLE, False),
        (JPEG_2000_LOSSLESS, JPEG_2000_LOSSLESS, False),
        (EXPLICIT_LITTLE, JPEG_2000_LOSSLESS, True),
        (RLE, EXPLICIT_LITTLE, True),
        (JPEG_BASELINE, JPEG_2000_LOSSLESS, True),
    ],
)
def test_pixels_are_decoded_only_where_they_must(source, target, expected):
    assert decodes(source, target) is expected


def test_an_image_that_its_description_rules_out_is_refused_beforehand():
    grey = description_of(GREY)
    mask = replace(grey, bits_allocated=1, bits_stored=1, high_bit=0)
    many = replace(grey, number_of_frames=1 << 20)
    for target in TARGETS:
        check_image(grey, target)
        for unsuited in (mask, many):
            with pytest.raises(NotAcceptable):
                check_image(unsuited, target)
        with pytest.raises(NotAcceptable):
            check_image(grey, target, max_bytes=grey.decoded_bytes - 1)
    deep = replace(grey, bits_allocated=32, bits_stored=32, high_bit=31)
    check_image(deep, EXPLICIT_LITTLE)
    with pytest.raises(NotAcceptable, match="24 bits"):
        check_image(deep, JPEG_2000_LOSSLESS)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("uid", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, RLE])
def test_long_values_are_taken_from_the_file_unchanged(monkeypatch, uid, target):
    item = Dataset()
    item.CodeMeaning = "a text of some length"
    more = {
        "VectorGridData": struct.pack(">2f" if uid == EXPLICIT_BIG else "<2f", 1, 2),
        "ReferencedStudySequence": Sequence([item]),
        "DataSetTrailingPadding": b"behind the pixels ",
    }
    value = encapsulate([rle_frame(GREY)]) if uid == RLE else None
    file = file_of(GREY, uid, value, **more)
    expected = transcode_instance(file, target)
    assert b"behind the pixels" in expected
    monkeypatch.setattr(transcoding, "_DEFERRED_BYTES", 4)
    monkeypatch.setattr(transcoding, "_SWAPPED_BYTES", 64)
    assert transcode_instance(file, target) == expected


def test_a_long_private_value_of_undefined_length_is_kept(monkeypatch):
    dataset = dcmread(BytesIO(file_of(GREY)))
    dataset.add_new(0x00091001, "OB", encapsulate([b"abcdefgh" * 9]))
    dataset[0x00091001].is_undefined_length = True
    file = written(dataset, EXPLICIT_LITTLE)
    expected = transcode_instance(file, JPEG_2000_LOSSLESS)
    assert expected.count(b"abcdefgh") == 9
    monkeypatch.setattr(transcoding, "_DEFERRED_BYTES", 4)
    assert transcode_instance(file, JPEG_2000_LOSSLESS) == expected


def test_many_compressed_frames_are_written_one_by_one_without_a_table(monkeypatch):
    pixels = np.concatenate([GREY, GREY[::-1]])
    file = file_of(GREY, EXPLICIT_LITTLE, pixels.tobytes(), NumberOfFrames=2)
    with_table = dcmread(BytesIO(transcode_instance(file, JPEG_2000_LOSSLESS)))
    monkeypatch.setattr(transcoding, "GATHERED_BYTES", 10)
    without = dcmread(BytesIO(transcode_instance(file, JPEG_2000_LOSSLESS)))
    assert np.array_equal(with_table.pixel_array, without.pixel_array)
    assert list(generate_frames(with_table.PixelData, number_of_frames=2)) == list(
        generate_frames(without.PixelData, number_of_frames=2)
    )
    assert without.PixelData.startswith(b"\xfe\xff\0\xe0\0\0\0\0")
