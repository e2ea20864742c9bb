"""Instances and frames in another transfer syntax.

The targets are Explicit VR Little Endian and lossless JPEG 2000. Pixel values are never
changed. Colour stays as it was stored; where a colour transform belongs to the
compression (JPEG 2000) it is undone or applied, and the Photometric Interpretation says
so. pydicom and the codecs are imported on first use.
PS3.5 8.2, 10; PS3.10 7.1; PS3.18 8.7.3.5.
"""

from collections.abc import Iterator
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
    """A Part 10 file in the target transfer syntax; the same bytes if it is in it.

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
        return _transcode(file_bytes, target_uid, max_bytes)
    except NotAcceptable:
        raise
    except Exception as error:
        # pydicom raises whatever a damaged element happens to provoke.
        raise NotAcceptable("The instance cannot be transcoded.") from error


def _transcode(file_bytes: bytes, target_uid: str, max_bytes: int) -> bytes:
    """As `transcode_instance`, with pydicom's errors."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import UID

    meta, position = _file_meta(file_bytes)
    source_uid = str(meta.TransferSyntaxUID)
    if not can_transcode(source_uid, target_uid):
        raise NotAcceptable(_REFUSED)
    if source_uid == target_uid:
        return file_bytes
    source = BytesIO(file_bytes)
    source.seek(position)
    if source_uid == _DEFLATED_LITTLE:
        is_plain = target_uid == EXPLICIT_LITTLE
        head = _head(file_bytes, meta, target_uid) if is_plain else b""
        inflated = part10.inflate(file_bytes, position, head=head, max_bytes=max_bytes)
        if is_plain:
            return bytes(inflated)
        source = BytesIO(inflated)
    is_big = source_uid == _EXPLICIT_BIG
    dataset = read_dataset(
        source,
        is_implicit_VR=source_uid == _IMPLICIT_LITTLE,
        is_little_endian=not is_big,
    )
    _make_explicit_little(dataset, is_big=is_big)
    is_native = is_big or source_uid in _UNCOMPRESSED_LITTLE
    _transcode_images(
        dataset, EXPLICIT_LITTLE if is_native else source_uid, target_uid, max_bytes
    )
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.TransferSyntaxUID = UID(target_uid)
    dataset.preamble = file_bytes[:128]
    written = BytesIO()
    dcmwrite(written, dataset)
    return written.getvalue()


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


def _transcode_images(
    dataset: Any, source_uid: str, target_uid: str, max_bytes: int
) -> None:
    """Replaces Pixel Data, also of an icon, where the target asks for it."""
    is_native = source_uid == EXPLICIT_LITTLE
    if not is_native:
        for icon in dataset.get("IconImageSequence") or ():
            if "PixelData" in icon and icon["PixelData"].is_undefined_length:
                _transcode_pixels(icon, source_uid, EXPLICIT_LITTLE, max_bytes)
    if is_native and target_uid == EXPLICIT_LITTLE:
        return
    if "PixelData" in dataset:
        _transcode_pixels(dataset, source_uid, target_uid, max_bytes)
    elif target_uid != EXPLICIT_LITTLE:
        raise NotAcceptable("Only images can be compressed.")


def _transcode_pixels(
    dataset: Any, source_uid: str, target_uid: str, max_bytes: int
) -> None:
    """Replaces Pixel Data and the attributes that say how it is stored."""
    from pydicom.encaps import encapsulate

    from dicomweb import codecs

    description = _described(dataset)
    check_image(description, target_uid, max_bytes=max_bytes)
    is_native = target_uid == EXPLICIT_LITTLE
    transcoded, meaning = [], description.photometric_interpretation
    for frame in _frames(dataset, source_uid, description):
        decoded = codecs.decode(frame, source_uid, description, max_bytes=max_bytes)
        meaning = decoded.photometric_interpretation
        transcoded.append(
            codecs.to_native(decoded.samples, description)
            if is_native
            else codecs.encode_jpeg_2000(decoded, description)
        )
    vr = "OW" if is_native and description.bits_allocated > 8 else "OB"
    value = b"".join(transcoded) if is_native else encapsulate(transcoded)
    dataset.add_new(_PIXEL_DATA, vr, value + b"\0" * (len(value) % 2))
    dataset[_PIXEL_DATA].is_undefined_length = not is_native
    if description.samples_per_pixel > 1:
        is_transformed = meaning == "RGB" and not is_native
        dataset.PhotometricInterpretation = "YBR_RCT" if is_transformed else meaning
        if not is_native:
            dataset.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]


def _frames(
    dataset: Any, source_uid: str, description: PixelDescription
) -> Iterator[bytes]:
    """Each frame of Pixel Data, in order."""
    value = dataset.PixelData
    tables = (
        dataset.get("ExtendedOffsetTable", b""),
        dataset.get("ExtendedOffsetTableLengths", b""),
    )
    offsets, lengths = (list(memoryview(table).cast("Q")) for table in tables)
    index = frames.build(
        value,
        transfer_syntax_uid=source_uid,
        pixel_data=frames.Position(0, len(value)),
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
    view = memoryview(value)
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
