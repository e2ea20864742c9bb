"""Real files: frames, transcoding and rendering against pydicom and Pillow.

The files are those that the wheels of pydicom and pydicom-data bring along.
"""

import logging
import warnings
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from corpus import files
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from dicomweb.errors import NotAcceptable
from dicomweb.frames import EncapsulatedFrames, FrameIndex, Position, build, from_json
from dicomweb.rendering import PixelDescription, describe, render
from dicomweb.transcoding import (
    EXPLICIT_LITTLE,
    JPEG_2000_LOSSLESS,
    transcode_frame,
    transcode_instance,
)

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DOCUMENTED_SOURCES = {
    "1.2.840.10008.1.2",
    EXPLICIT_LITTLE,
    EXPLICIT_BIG,
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    JPEG_2000_LOSSLESS,
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
}
"""Those of the nine that the corpus has; .57 is in test_transcoding."""

LARGE_BYTES = 1 << 20
"""Larger files and frames cost seconds and show nothing more."""
NO_IMAGE = {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm", "badVR.dcm"}
TRUNCATED = {"MR_truncated.dcm"}
UNDECODABLE = {"JPEG2000-embedded-sequence-delimiter.dcm"}
ODD_WORDS = {"SC_rgb_small_odd_big_endian.dcm"}
"""One frame of 27 bytes in OW: its last byte lies behind the padding."""
UNUSED_BITS = {"mlut_18.dcm"}
"""pydicom extends the sign of 12-bit values even when asked for raw ones."""


@dataclass(frozen=True)
class Sample:
    name: str
    file: bytes
    dataset: Dataset
    transfer_syntax_uid: str
    pixel_data: bytes
    json: dict
    description: PixelDescription
    index: FrameIndex | None

    def frame(self, frame_index: int) -> bytes:
        offset, length = self.index.cover(frame_index)
        return self.index.extract(
            frame_index, self.pixel_data[offset : offset + length]
        )


@cache
def corpus() -> tuple[Sample, ...]:
    """Every file with Pixel Data that pydicom reads."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    samples = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files():
            if path.name not in NO_IMAGE:
                sample = read(path)
                if sample is not None:
                    samples.append(sample)
    return tuple(samples)


def read(path: Path) -> Sample | None:
    file = path.read_bytes()
    try:
        dataset = dcmread(BytesIO(file))
    except Exception:
        return None
    if "PixelData" not in dataset:
        return None
    pixel_data, vr = dataset.PixelData, dataset["PixelData"].VR
    del dataset.PixelData
    json = dataset.to_json_dict() | {"7FE00010": {"vr": vr}}
    dataset.add_new(0x7FE00010, vr, pixel_data)
    uid = str(dataset.file_meta.TransferSyntaxUID)
    description = describe(json)
    dataset[
        "PixelData"
    ].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_compressed
    index = build(
        pixel_data,
        transfer_syntax_uid=uid,
        pixel_data=Position(0, len(pixel_data)),
        rows=description.rows,
        columns=description.columns,
        samples_per_pixel=description.samples_per_pixel,
        bits_allocated=description.bits_allocated,
        number_of_frames=description.number_of_frames,
    )
    return Sample(path.name, file, dataset, uid, pixel_data, json, description, index)


def palette_of(sample: Sample, description: PixelDescription) -> list[bytes] | None:
    """The tables that `render` wants, where the image has a palette."""
    tags = description.palette_tags
    return [sample.dataset[int(tag, 16)].value for tag in tags] or None


def expected_pixels(sample: Sample) -> np.ndarray | None:
    """What pydicom decodes, frames first; None if it cannot."""
    try:
        pixels = pixel_array(sample.dataset, raw=True)
    except Exception:
        return None
    return pixels if sample.description.number_of_frames > 1 else pixels[np.newaxis]


def test_the_corpus_is_complete():
    samples = corpus()
    assert len(samples) > 150
    assert {sample.transfer_syntax_uid for sample in samples} >= DOCUMENTED_SOURCES
    assert sum(sample.description.number_of_frames > 1 for sample in samples) > 15


def test_every_frame_is_where_pydicom_finds_it():
    for sample in corpus():
        index = sample.index
        if index is None:
            assert sample.name in TRUNCATED
            continue
        count = sample.description.number_of_frames
        assert index.number_of_frames == count, sample.name
        assert from_json(index.to_json()) == index
        if isinstance(index, EncapsulatedFrames):
            expected = list(generate_frames(sample.pixel_data, number_of_frames=count))
            found = [sample.frame(i) for i in range(count)]
            assert found == expected, sample.name


def native_frames(sample: Sample) -> np.ndarray:
    """All native frames by our index, as pydicom shapes them."""
    description = sample.description
    order = ">" if sample.transfer_syntax_uid == EXPLICIT_BIG else "<"
    kind = "i" if description.signed else "u"
    shape = (description.rows, description.columns)
    pages = []
    for i in range(description.number_of_frames):
        frame = sample.frame(i)
        if description.bits_allocated == 1:
            bits = np.unpackbits(np.frombuffer(frame, "u1"), bitorder="little")
            pages.append(bits[: shape[0] * shape[1]].reshape(shape))
        else:
            cell = np.dtype(f"{order}{kind}{description.bits_allocated // 8}")
            pages.append(np.frombuffer(frame, cell).reshape(shape))
    return np.stack(pages)


def test_every_native_grey_frame_holds_the_pixels_that_pydicom_sees():
    compared = 0
    for sample in corpus():
        if isinstance(sample.index, EncapsulatedFrames) or sample.index is None:
            continue
        if sample.description.samples_per_pixel != 1 or sample.name in UNUSED_BITS:
            continue
        is_big = sample.transfer_syntax_uid == EXPLICIT_BIG
        if is_big and sample.description.bits_allocated <= 8:
            continue  # swapped in words: compared when transcoded, below
        expected = expected_pixels(sample)
        assert np.array_equal(native_frames(sample), expected), sample.name
        compared += 1
    assert compared > 60


def test_frames_decode_to_the_pixels_that_pydicom_sees():
    compared = set()
    for sample in corpus():
        if sample.index is None or sample.name in UNDECODABLE | UNUSED_BITS | ODD_WORDS:
            continue
        description = sample.description
        if description.bits_allocated == 1 or description.number_of_frames > 20:
            continue
        is_native = not isinstance(sample.index, EncapsulatedFrames)
        if is_native and "422" in description.photometric_interpretation:
            continue  # stays subsampled
        expected = expected_pixels(sample)
        for i in range(description.number_of_frames):
            native = transcode_frame(
                sample.frame(i),
                sample.transfer_syntax_uid,
                EXPLICIT_LITTLE,
                description,
            )
            if expected is None:
                break
            page = expected[i]
            if description.planar_configuration and page.ndim == 3:
                page = page.transpose(2, 0, 1)
            little = page.astype(page.dtype.newbyteorder("<")).tobytes()
            assert native[: len(little)] == little, sample.name
            compared.add(sample.transfer_syntax_uid)
    assert compared >= DOCUMENTED_SOURCES - {"1.2.840.10008.1.2.4.70"}


def test_lossless_jpeg_decodes_to_the_same_pixels_as_its_uncompressed_twin():
    by_name = {sample.name: sample for sample in corpus()}
    lossless = by_name["SC_rgb_jpeg_gdcm.dcm"]
    twin = by_name["SC_rgb.dcm"]
    native = transcode_frame(
        lossless.frame(0),
        lossless.transfer_syntax_uid,
        EXPLICIT_LITTLE,
        lossless.description,
    )
    assert native == twin.frame(0)


def transcoded_pixels(file: bytes) -> np.ndarray:
    """Raw pixels; by imagecodecs where pydicom has no decoder for deep colour."""
    dataset = dcmread(BytesIO(file))
    try:
        return pixel_array(dataset, raw=True)
    except RuntimeError:
        count = int(dataset.get("NumberOfFrames", 1))
        frames = generate_frames(dataset.PixelData, number_of_frames=count)
        pages = [imagecodecs.jpeg2k_decode(frame) for frame in frames]
        return np.stack(pages) if count > 1 else pages[0]


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, JPEG_2000_LOSSLESS])
def test_transcoded_files_keep_their_pixels(target):
    sources = set()
    for sample in corpus():
        if len(sample.file) > LARGE_BYTES or sample.name in UNDECODABLE | UNUSED_BITS:
            continue
        try:
            file = transcode_instance(sample.file, target)
        except NotAcceptable:
            assert target == JPEG_2000_LOSSLESS, sample.name
            deep = sample.description.bits_stored in {1, 32}
            assert deep or sample.name in TRUNCATED, sample.name
            continue
        result = dcmread(BytesIO(file))
        assert result.file_meta.TransferSyntaxUID == target
        assert others(result) == others(sample.dataset), sample.name
        expected = expected_pixels(sample)
        if expected is None or sample.transfer_syntax_uid == target:
            continue
        pixels = transcoded_pixels(file).reshape(expected.shape)
        assert np.array_equal(pixels, expected), sample.name
        sources.add(sample.transfer_syntax_uid)
    wanted = DOCUMENTED_SOURCES - {target, "1.2.840.10008.1.2.4.70"}
    assert sources >= wanted


def others(dataset: Dataset) -> list:
    """Elements that transcoding must not touch: all but pixels and bulk words."""
    changed = {0x7FE00010, 0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002}
    return [
        (element.tag, str(element.value))
        for element in dataset
        if element.tag not in changed
        and element.tag.element
        and element.VR not in {"OB", "OW", "OF", "SQ"}
    ]


def test_every_decodable_file_is_rendered_in_its_size():
    rendered = set()
    for sample in corpus():
        if sample.index is None or sample.name in UNDECODABLE | ODD_WORDS:
            continue
        description = sample.description
        if description.decoded_bytes > LARGE_BYTES:
            continue
        last = description.number_of_frames - 1
        is_grey = description.photometric_interpretation.startswith("MONO")
        for media_type, form, i in (
            ("image/jpeg", "JPEG", 0),
            ("image/png", "PNG", last),
        ):
            file = render(
                sample.frame(i),
                sample.transfer_syntax_uid,
                describe(sample.json, i),
                media_type=media_type,
                palette=palette_of(sample, description),
            )
            with Image.open(BytesIO(file)) as image:
                image.load()
                assert image.format == form
                assert image.size == (description.columns, description.rows)
                assert image.mode == ("L" if is_grey else "RGB"), sample.name
        rendered.add(sample.transfer_syntax_uid)
    assert rendered >= DOCUMENTED_SOURCES


def test_colours_are_the_same_however_they_are_stored():
    expected = None
    compared = 0
    for sample in corpus():
        is_test_card = sample.name.startswith(("SC_rgb", "SC_ybr"))
        if not is_test_card or sample.description.rows != 100:
            continue
        file = render(
            sample.frame(0),
            sample.transfer_syntax_uid,
            sample.description,
            media_type="image/png",
        )
        pixels = np.array(Image.open(BytesIO(file))).astype(int)
        # Middles of the bars: lossy codecs blur the edges.
        colours = pixels[5::10, 50]
        if expected is None:
            expected = colours
        assert np.abs(colours - expected).max() <= 8, sample.name
        compared += 1
    assert compared > 25
