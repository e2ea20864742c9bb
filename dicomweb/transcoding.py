"""Instances and frames in another transfer syntax.

The targets are Explicit VR Little Endian and lossless JPEG 2000. Pixel values are never
changed. Colour stays as it was stored; where a colour transform belongs to the
compression (JPEG 2000) it is undone or applied, and the Photometric Interpretation says
so. pydicom and the codecs are imported on first use.
PS3.5 8.2, 10; PS3.10 7.1; PS3.18 8.7.3.5.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from dicomweb import frames, part10
from dicomweb.errors import NotAcceptable
from dicomweb.pixels import (
    JPEG_2000_BITS,
    MAX_DECODED_BYTES,
    PixelDescription,
    describe,
)

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
TARGETS = (EXPLICIT_LITTLE, JPEG_2000_LOSSLESS)

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_UNCOMPRESSED_LITTLE = frozenset((_IMPLICIT_LITTLE, EXPLICIT_LITTLE, _DEFLATED_LITTLE))
_SOURCES = frozenset(
    (
        *_UNCOMPRESSED_LITTLE,
        _EXPLICIT_BIG,
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.8.1",
        *(
            f"1.2.840.10008.1.2.4.{kind}"
            for kind in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)
        ),
    )
)
_PIXEL_DATA = 0x7FE00010
_IMAGE_PIXEL_TAGS = (
    *range(0x00280002, 0x00280009, 2),
    0x00280010,
    0x00280011,
    *range(0x00280100, 0x00280104),
)
_WORD_BYTES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_UNDEFINED = 0xFFFFFFFF
_LONG_HEADER = struct.Struct("<HH2s2xI")
_ITEM_HEADER = struct.Struct("<HHI")
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_DEFERRED_BYTES = 1 << 20
"""Values over it are taken from the file's own bytes."""
_SWAPPED_BYTES = 1 << 20
GATHERED_BYTES = 32 << 20
"""Of decoded frames: compressed, they are written with a table of their offsets."""
_REFUSED = "This transcoding is not supported."
_TOO_LARGE = "The transcoded instance would exceed the supported size."


def word_bytes(tag: str, vr: str, bits_allocated: int) -> int:
    """Bytes of the words of a value, which byte order is about; 1 if it has none.

    Args:
        tag: 8 upper-case hex digits, of an element of the root.
        vr: Of the element.
        bits_allocated: Of the image, where the element is its Pixel Data.

    Source: PS3.5 7.3.
    """
    if tag == f"{_PIXEL_DATA:08X}" and vr == "OW":
        return max(2, bits_allocated // 8)
    return _WORD_BYTES.get(vr, 1)


def reversed_words(value: bytes, word_bytes: int) -> bytes:
    """The value with each word's bytes reversed; as it is if it ends within a word."""
    if word_bytes == 1 or len(value) % word_bytes:
        return value
    swapped = bytearray(len(value))
    for i in range(word_bytes):
        swapped[i::word_bytes] = value[word_bytes - 1 - i :: word_bytes]
    return bytes(swapped)


def can_transcode(source_uid: str, target_uid: str) -> bool:
    """Whether images of one transfer syntax can be given in the other.

    A single image may still refuse: damaged, or of a depth that the target lacks.
    """
    return source_uid == target_uid or (
        source_uid in _SOURCES and target_uid in TARGETS
    )


def check_image(
    description: PixelDescription,
    target_uid: str,
    *,
    max_bytes: int = MAX_DECODED_BYTES,
) -> None:
    """Checks what its description says against the transcoding of an image.

    Raises:
        NotAcceptable: The decoded frames would be too large, or the target does not
            take samples of that depth.
    """
    if description.decoded_bytes * description.number_of_frames > max_bytes:
        raise NotAcceptable(_TOO_LARGE)
    if description.bits_allocated == 1:
        raise NotAcceptable("Images of 1-bit samples are not transcoded.")
    deepest = JPEG_2000_BITS if target_uid == JPEG_2000_LOSSLESS else 64
    if description.bits_stored > deepest:
        raise NotAcceptable(f"JPEG 2000 takes samples of 2 to {deepest} bits.")


def decodes(source_uid: str, target_uid: str) -> bool:
    """Whether pixels must be decoded to get an image into the target."""
    is_native = source_uid in _UNCOMPRESSED_LITTLE or source_uid == _EXPLICIT_BIG
    return source_uid != target_uid and not (
        is_native and target_uid == EXPLICIT_LITTLE
    )


def transcode_frame(
    frame: bytes, source_uid: str, target_uid: str, description: PixelDescription
) -> bytes:
    """One frame in the target transfer syntax.

    An uncompressed frame has the Planar Configuration that the image declares.

    Args:
        frame: Without item headers; a native 1-bit frame starts in bit 0.
        source_uid: Transfer syntax of `frame`.
        target_uid: `EXPLICIT_LITTLE` or `JPEG_2000_LOSSLESS`.
        description: Of the image that the frame belongs to.

    Raises:
        NotAcceptable: No such transcoding, or the frame cannot be decoded.

    Source: PS3.18 8.7.3.5.
    """
    if not can_transcode(source_uid, target_uid):
        raise NotAcceptable(_REFUSED)
    if source_uid == target_uid:
        return frame
    if target_uid == EXPLICIT_LITTLE and source_uid in _UNCOMPRESSED_LITTLE:
        return frame
    from dicomweb import codecs

    if target_uid == EXPLICIT_LITTLE and source_uid == _EXPLICIT_BIG:
        return codecs.swap_bytes(frame, description)
    decoded = codecs.decode(frame, source_uid, description)
    if target_uid == EXPLICIT_LITTLE:
        return codecs.to_native(decoded.samples, description)
    return codecs.encode_jpeg_2000(decoded, description)


def transcode_instance(
    file_bytes: bytes,
    target_uid: str,
    *,
    max_bytes: int = MAX_DECODED_BYTES,
) -> bytes:
    """All of `transcoded_pieces`, with the same arguments and errors."""
    return b"".join(transcoded_pieces(file_bytes, target_uid, max_bytes=max_bytes))


def transcoded_pieces(
    file_bytes: bytes,
    target_uid: str,
    *,
    max_bytes: int = MAX_DECODED_BYTES,
) -> Iterator[bytes | memoryview]:
    """A Part 10 file in the target transfer syntax; the same bytes if it is in it.

    Frames of an uncompressed target are decoded one by one as they are asked for;
    those of a compressed one are all there before the first piece, as a table of their
    places stands in front.

    Args:
        file_bytes: A whole Part 10 file.
        target_uid: `EXPLICIT_LITTLE` or `JPEG_2000_LOSSLESS`.
        max_bytes: The most that the inflated data set and the decoded pixels may take.

    Raises:
        NotAcceptable: No such transcoding, the file or its pixel data are damaged, or
            the result would be too large.

    Source: PS3.10 7.1; PS3.5 10.
    """
    try:
        yield from _transcoded(file_bytes, target_uid, max_bytes)
    except NotAcceptable:
        raise
    except Exception as error:
        # pydicom raises whatever a damaged element happens to provoke.
        raise NotAcceptable("The instance cannot be transcoded.") from error


def _transcoded(
    file_bytes: bytes, target_uid: str, max_bytes: int
) -> Iterator[bytes | memoryview]:
    """As `transcoded_pieces`, with pydicom's errors."""
    meta, position = _file_meta(file_bytes)
    source_uid = str(meta.TransferSyntaxUID)
    if not can_transcode(source_uid, target_uid):
        raise NotAcceptable(_REFUSED)
    if source_uid == target_uid:
        yield file_bytes
        return
    source: bytes | bytearray = file_bytes
    if source_uid == _DEFLATED_LITTLE:
        is_plain = target_uid == EXPLICIT_LITTLE
        head = _head(file_bytes, meta, target_uid) if is_plain else b""
        source = part10.inflate(file_bytes, position, head=head, max_bytes=max_bytes)
        if is_plain:
            yield memoryview(source)
            return
        position = 0
    dataset, pixel = _read(source, position, source_uid)
    if pixel is None and target_uid != EXPLICIT_LITTLE:
        raise NotAcceptable("Only images can be compressed.")
    if pixel is None or pixel.source_uid != EXPLICIT_LITTLE:
        _transcode_icons(dataset, source_uid, max_bytes)
    written = _written(dataset, pixel, target_uid, max_bytes) if pixel else None
    yield from _file(file_bytes[:128], meta, target_uid, dataset, written)


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Pixel Data of the root as they stand in the file.

    Attributes:
        buffer: What holds them.
        offset: Of the value.
        length: Of the value; None if it is encapsulated.
        source_uid: Transfer syntax of the frames.
        word_bytes: Of words that are to be reversed first; 1 if none is.
    """

    buffer: bytes | bytearray
    offset: int
    length: int | None
    source_uid: str
    word_bytes: int = 1


@dataclass(frozen=True, slots=True)
class _Written:
    """Pixel Data as they will be written.

    Attributes:
        length: Of the value, even; None if it is encapsulated.
        pieces: Of the value.
    """

    vr: str
    length: int | None
    pieces: Iterator[bytes | memoryview]


def _read(
    source: bytes | bytearray, position: int, source_uid: str
) -> tuple[Any, _Pixels | None]:
    """The data set, made explicit little endian, and its Pixel Data, left in place."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_dataset

    is_big = source_uid == _EXPLICIT_BIG
    file = BytesIO(source)
    file.seek(position)
    dataset = read_dataset(
        file,
        is_implicit_VR=source_uid == _IMPLICIT_LITTLE,
        is_little_endian=not is_big,
        defer_size=_DEFERRED_BYTES,
    )
    found: Any = None
    for tag, element in list[Any](dataset.items()):
        if tag == _PIXEL_DATA:
            found = element
            dataset[tag] = element._replace(value=b"", length=0)
        elif isinstance(element, RawDataElement) and _is_deferred(element):
            dataset[tag] = element._replace(value=_value(file, element))
    _make_explicit_little(dataset, is_big=is_big)
    if found is None:
        return dataset, None
    is_native = is_big or source_uid in _UNCOMPRESSED_LITTLE
    start, length = found.value_tell, None
    if found.length != _UNDEFINED:
        length = min(found.length, len(source) - start)
    words = 1
    if is_big:
        bits = int(dataset.get("BitsAllocated", 16))
        vr = dataset.get_item(_PIXEL_DATA).VR
        words = word_bytes(f"{_PIXEL_DATA:08X}", vr, bits)
    uid = EXPLICIT_LITTLE if is_native else source_uid
    return dataset, _Pixels(source, start, length, uid, words)


def _is_deferred(element: Any) -> bool:
    return element.value is None and bool(element.length)


def _value(file: BytesIO, element: Any) -> bytes:
    """A long value that was stepped over."""
    from pydicom.fileutil import read_undefined_length_value
    from pydicom.tag import SequenceDelimiterTag

    file.seek(element.value_tell)
    if element.length != _UNDEFINED:
        return file.read(element.length)
    is_little = element.is_little_endian
    value = read_undefined_length_value(file, is_little, SequenceDelimiterTag)
    return bytes(value or b"")


def _file(
    preamble: bytes, meta: Any, target_uid: str, dataset: Any, pixels: _Written | None
) -> Iterator[bytes | memoryview]:
    """The file, Pixel Data piece by piece."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import dcmwrite, write_dataset
    from pydicom.uid import UID

    after = Dataset()
    for tag in [tag for tag in dataset.keys() if tag >= _PIXEL_DATA]:  # noqa: SIM118
        if tag > _PIXEL_DATA:
            after[tag] = dataset.get_item(tag)
        if tag > _PIXEL_DATA or pixels is not None:
            del dataset[tag]
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.TransferSyntaxUID = UID(target_uid)
    dataset.preamble = preamble
    written = BytesIO()
    dcmwrite(written, dataset)
    yield written.getvalue()
    if pixels is not None:
        length = _UNDEFINED if pixels.length is None else pixels.length
        yield _LONG_HEADER.pack(0x7FE0, 0x0010, pixels.vr.encode(), length)
        yield from pixels.pieces
        if pixels.length is None:
            yield _SEQUENCE_END
    rest = DicomBytesIO()
    rest.is_little_endian, rest.is_implicit_VR = True, False
    after.set_original_encoding(
        is_implicit_vr=False,
        is_little_endian=True,
        character_encoding=dataset._character_set,  # noqa: SLF001 - as dcmread does
    )
    write_dataset(rest, after)
    yield rest.getvalue()


def _head(file_bytes: bytes, meta: Any, target_uid: str) -> bytes:
    """Preamble and file meta information of a file in the target syntax."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UID

    written = DicomBytesIO()
    changed = FileMetaDataset(meta)
    changed.TransferSyntaxUID = UID(target_uid)
    write_file_meta_info(written, changed, enforce_standard=False)
    return file_bytes[:128] + b"DICM" + written.getvalue()


def _file_meta(file_bytes: bytes) -> tuple[Any, int]:
    """The file meta information, and where the data set starts.

    Source: PS3.10 7.1.
    """
    from pydicom.filereader import read_dataset

    if file_bytes[128:132] != b"DICM":
        raise NotAcceptable("The instance is not a DICOM file.")
    source = BytesIO(file_bytes)
    source.seek(132)
    meta = read_dataset(
        source,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag.group != 2,
    )
    length = meta.get("FileMetaInformationGroupLength")
    return meta, source.tell() if length is None else 144 + int(length)


def _make_explicit_little(dataset: Any, *, is_big: bool) -> None:
    """Gives each element its VR and little endian bytes, values untouched otherwise.

    Values stay raw: what an invalid one says is nobody's business here, and texts keep
    their bytes.

    Source: PS3.5 6.2, 7.1, 7.3.
    """
    from pydicom.dataelem import RawDataElement

    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            vr = element.VR or _vr(dataset, element)
            if vr == "SQ" and (element.VR is None or is_big):
                element = dataset[tag]
            else:
                value = element.value or b""
                if is_big:
                    bits = int(dataset.get("BitsAllocated", 16))
                    words = word_bytes(f"{tag:08X}", vr, bits)
                    value = reversed_words(value, words)
                # Put in as pydicom's reader does: set as an item, an element of a known
                # private creator would be decoded.
                dataset._dict[tag] = element._replace(  # noqa: SLF001
                    VR=vr,
                    value=value,
                    is_implicit_VR=False,
                    is_little_endian=True,
                )
        if element.VR == "SQ" and not isinstance(element, RawDataElement):
            for item in element.value:
                _make_explicit_little(item, is_big=is_big)
    dataset.set_original_encoding(
        is_implicit_vr=False,
        is_little_endian=True,
        character_encoding=dataset._character_set,  # noqa: SLF001 - as dcmread does
    )


def _vr(dataset: Any, element: Any) -> str:
    """The VR of an element of an implicit VR file.

    Source: PS3.5 6.2.2, A.1.
    """
    from pydicom.datadict import dictionary_VR, private_dictionary_VR
    from pydicom.filewriter import correct_ambiguous_vr_element

    tag = element.tag
    try:
        if tag.is_private_creator:
            return "LO"
        if tag.is_private:
            creator = dataset.private_creators(tag.group)
            block = dataset.get((tag.group, tag.element >> 8))
            vr = private_dictionary_VR(tag, block.value) if creator and block else "UN"
        else:
            vr = str(dictionary_VR(tag))
    except KeyError:
        return "UN"
    if " or " in vr:
        vr = str(correct_ambiguous_vr_element(dataset[tag], dataset, True).VR)
    return "OW" if " or " in vr else vr


def _transcode_icons(dataset: Any, source_uid: str, max_bytes: int) -> None:
    """Decodes compressed icons: what is in a sequence is never compressed then.

    Source: PS3.5 A.4.
    """
    for icon in dataset.get("IconImageSequence") or ():
        if "PixelData" in icon and icon["PixelData"].is_undefined_length:
            value = icon.PixelData
            pixels = _Pixels(value, 0, len(value), source_uid)
            written = _written(icon, pixels, EXPLICIT_LITTLE, max_bytes)
            icon.add_new(_PIXEL_DATA, written.vr, b"".join(written.pieces))
            icon[_PIXEL_DATA].is_undefined_length = False


def _written(
    dataset: Any, pixels: _Pixels, target_uid: str, max_bytes: int
) -> _Written:
    """Pixel Data in the target; the attributes then say how they are stored."""
    if target_uid == pixels.source_uid:
        if pixels.length is None:
            raise NotAcceptable("The uncompressed pixel data have no length.")
        vr = dataset.get_item(_PIXEL_DATA).VR
        return _Written(vr, pixels.length + pixels.length % 2, _copied(pixels))
    description = _described(dataset)
    check_image(description, target_uid, max_bytes=max_bytes)
    decoded = _decoded(dataset, pixels, description, max_bytes)
    first = next(decoded)
    meaning = first.photometric_interpretation
    is_native = target_uid == EXPLICIT_LITTLE
    if description.samples_per_pixel > 1:
        is_transformed = meaning == "RGB" and not is_native
        dataset.PhotometricInterpretation = "YBR_RCT" if is_transformed else meaning
        if not is_native:
            dataset.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    every = itertools.chain((first,), _alike(decoded, meaning))
    del first
    if not is_native:
        return _Written("OB", None, _compressed(every, description))
    size = description.decoded_bytes * description.number_of_frames
    vr = "OW" if description.bits_allocated > 8 else "OB"
    return _Written(vr, size + size % 2, _uncompressed(every, description, size))


def _copied(pixels: _Pixels) -> Iterator[bytes | memoryview]:
    """The value, its words turned around where they must be."""
    assert pixels.length is not None
    view = memoryview(pixels.buffer)[pixels.offset : pixels.offset + pixels.length]
    words = pixels.word_bytes
    if words == 1 or pixels.length % words:
        yield view
    else:
        for start in range(0, pixels.length, _SWAPPED_BYTES):
            yield reversed_words(bytes(view[start : start + _SWAPPED_BYTES]), words)
    yield b"\0" * (pixels.length % 2)


def _decoded(
    dataset: Any, pixels: _Pixels, description: PixelDescription, max_bytes: int
) -> Iterator[Any]:
    """Each frame decoded, one at a time."""
    from dicomweb import codecs

    if pixels.word_bytes > 1:
        value = b"".join(_copied(pixels))
        pixels = _Pixels(value, 0, len(value), pixels.source_uid)
    for frame in _frames(dataset, pixels, description):
        yield codecs.decode(frame, pixels.source_uid, description, max_bytes=max_bytes)


def _alike(decoded: Iterator[Any], meaning: str) -> Iterator[Any]:
    """The other frames, whose colours must mean the same as those of the first."""
    for frame in decoded:
        if frame.photometric_interpretation != meaning:
            raise NotAcceptable("The frames differ in their colour space.")
        yield frame


def _uncompressed(
    decoded: Iterator[Any], description: PixelDescription, size: int
) -> Iterator[bytes]:
    from dicomweb import codecs

    for frame in decoded:
        yield codecs.to_native(frame.samples, description)
    yield b"\0" * (size % 2)


def _compressed(
    decoded: Iterator[Any], description: PixelDescription
) -> Iterator[bytes]:
    """Items; with a table of their offsets where they may be gathered in memory.

    Source: PS3.5 A.4.
    """
    from pydicom.encaps import encapsulate

    from dicomweb import codecs

    encoded = (codecs.encode_jpeg_2000(frame, description) for frame in decoded)
    if description.decoded_bytes * description.number_of_frames <= GATHERED_BYTES:
        yield encapsulate(list(encoded))
        return
    yield _ITEM_HEADER.pack(0xFFFE, 0xE000, 0)
    for frame in encoded:
        yield _ITEM_HEADER.pack(0xFFFE, 0xE000, len(frame) + len(frame) % 2)
        yield frame + b"\0" * (len(frame) % 2)


def _frames(
    dataset: Any, pixels: _Pixels, description: PixelDescription
) -> Iterator[bytes]:
    """Each frame of Pixel Data, in order."""
    tables = (
        dataset.get("ExtendedOffsetTable", b""),
        dataset.get("ExtendedOffsetTableLengths", b""),
    )
    offsets, lengths = (list(memoryview(table).cast("Q")) for table in tables)
    index = frames.build(
        pixels.buffer,
        transfer_syntax_uid=pixels.source_uid,
        pixel_data=frames.Position(pixels.offset, pixels.length),
        rows=description.rows,
        columns=description.columns,
        samples_per_pixel=description.samples_per_pixel,
        bits_allocated=description.bits_allocated,
        number_of_frames=description.number_of_frames,
        extended_offsets=offsets,
        extended_lengths=lengths,
    )
    if index is None or index.number_of_frames != description.number_of_frames:
        raise NotAcceptable("The frames of the image cannot be told apart.")
    view = memoryview(pixels.buffer)
    for frame_index in range(index.number_of_frames):
        offset, length = index.cover(frame_index)
        yield index.extract(frame_index, view[offset : offset + length])


def _described(dataset: Any) -> PixelDescription:
    """The pixel attributes of a data set."""
    values = {
        f"{tag:08X}": {"Value": [dataset[tag].value]}
        for tag in _IMAGE_PIXEL_TAGS
        if tag in dataset
    }
    return describe(values)
