"""Pixel values from the bytes of one frame, and compressed frames from pixel values.

Knows transfer syntaxes and codec libraries, chosen because they let other threads run
meanwhile (pylibjpeg-openjpeg does not). Import it only where pixels are needed, as it
brings numpy in. Knows nothing of datasets, windows or files. The dimensions that a
codestream declares are compared with the description before anything is decoded, so a
small frame cannot ask for much memory. PS3.5 section 8, annexes A and G.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomweb.errors import NotAcceptable
from dicomweb.pixels import JPEG_2000_BITS, MAX_DECODED_BYTES, PixelDescription

Samples = NDArray[Any]

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

CODEC_ERRORS = (
    AttributeError,
    IndexError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What codec libraries raise for data that they cannot read."""

_RESOLUTIONS = 6
_TILE_SIDE = 1024
_UNTILED_PIXELS = 4 << 20

_END_OF_IMAGE = b"\xff\xd9"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_IMAGE_AND_TILE_SIZE = struct.Struct(">8x8IH")
_BIG_ENDIAN_WORD = struct.Struct(">H")
_RLE_PADDING_BYTES = 64
_RLE_HEADER = struct.Struct("<16I")


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded frame.

    Attributes:
        samples: Shape (rows, columns, samples per pixel); the integer type of Bits
            Allocated and Pixel Representation, one byte for 1-bit samples.
        photometric_interpretation: What the samples mean; `RGB` and `YBR_FULL` where
            the file says how they were compressed.
    """

    samples: Samples
    photometric_interpretation: str


def decode(
    frame: bytes,
    transfer_syntax_uid: str,
    description: PixelDescription,
    *,
    max_bytes: int = MAX_DECODED_BYTES,
) -> Decoded:
    """The pixels of one frame as they were before compression.

    Colour is left as it was stored (YCbCr stays YCbCr), but JPEG 2000's own colour
    transform is undone.

    Args:
        frame: The frame without item headers; a native 1-bit frame starts in bit 0.
        transfer_syntax_uid: Of the frame.
        description: Of the image.
        max_bytes: The most that the decoded frame may take.

    Raises:
        NotAcceptable: The syntax has no decoder here, the frame is damaged or not what
            the description says, or it is too large.

    Source: PS3.5 8.2.
    """
    decoder = _DECODERS.get(transfer_syntax_uid)
    if decoder is None:
        raise NotAcceptable("The image's transfer syntax cannot be decoded here.")
    if description.decoded_bytes > max_bytes:
        raise NotAcceptable("The decoded frame would exceed the supported size.")
    try:
        decoded = decoder(frame, description)
    except CODEC_ERRORS as error:
        raise NotAcceptable("The frame cannot be decoded.") from error
    expected = description.rows, description.columns, description.samples_per_pixel
    if decoded.samples.shape != expected:
        raise NotAcceptable("The frame is not of the size that the image declares.")
    return decoded


def swap_bytes(pixel_data: bytes, description: PixelDescription) -> bytes:
    """Pixel data of a big endian file in little endian order, or the other way.

    Samples of one byte are swapped in pairs if the VR is OW.

    Raises:
        NotAcceptable: The data do not end with a whole word.

    Source: PS3.5 7.3, 8.1.1.
    """
    return _swapped(pixel_data, description).tobytes()


def _swapped(pixel_data: bytes, description: PixelDescription) -> Samples:
    """As `swap_bytes`, words of unsigned numbers."""
    width = description.cell_bytes
    if width == 1:
        width = 2 if description.pixel_data_vr == "OW" else 1
    if len(pixel_data) % width:
        raise NotAcceptable("The frame does not end with a whole word.")
    return np.frombuffer(pixel_data, f"<u{width}").byteswap()


def to_native(samples: Samples, description: PixelDescription) -> bytes:
    """Samples as an uncompressed little endian frame, planar if the image is.

    1-bit samples are packed, the frame's first in bit 0.

    Source: PS3.5 8.1.1; PS3.3 C.7.6.3.1.3.
    """
    if description.bits_allocated == 1:
        return np.packbits(samples.reshape(-1), bitorder="little").tobytes()
    if description.planar_configuration and samples.shape[2] > 1:
        samples = samples.transpose(2, 0, 1)
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def encode_jpeg_2000(decoded: Decoded, description: PixelDescription) -> bytes:
    """The frame as a lossless JPEG 2000 codestream.

    The precision is Bits Stored, or Bits Allocated if values use higher bits (overlays
    of old files), so that every bit survives.

    Raises:
        NotAcceptable: Samples of 1 bit or more than 24 bits, or the encoder failed.

    Source: PS3.5 A.4.4.
    """
    if description.bits_allocated == 1 or description.bits_stored > JPEG_2000_BITS:
        raise NotAcceptable("JPEG 2000 takes samples of 2 to 24 bits.")
    if decoded.photometric_interpretation == "YBR_PARTIAL":
        raise NotAcceptable("JPEG 2000 has no partial range of colours.")
    try:
        return _jpeg_2000_codestream(
            _encodable(decoded.samples),
            _precision(decoded.samples, description),
            is_rgb=decoded.photometric_interpretation == "RGB",
        )
    except CODEC_ERRORS as error:
        raise NotAcceptable("The frame cannot be compressed as JPEG 2000.") from error


def _jpeg_2000_codestream(samples: Samples, precision: int, *, is_rgb: bool) -> bytes:
    """Reversible 5-3 wavelet; the colour transform for RGB only.

    Large frames are cut into tiles: the encoder needs 4 more bytes for each sample of
    the tile that it works on.
    """
    import imagecodecs

    rows, columns = samples.shape[:2]
    is_large = rows * columns > _UNTILED_PIXELS
    tile = (min(_TILE_SIDE, rows), min(_TILE_SIDE, columns)) if is_large else None
    # Each resolution halves the image, so its shorter side bounds their number.
    halvings = min(tile or (rows, columns)).bit_length() - 1
    return bytes(
        imagecodecs.jpeg2k_encode(
            samples,
            level=0,
            codecformat="j2k",
            tile=tile,
            bitspersample=precision,
            resolutions=min(_RESOLUTIONS, halvings + 1),
            reversible=True,
            mct=is_rgb,
            numthreads=1,
        )
    )


def encode_image(samples: Samples, media_type: str, quality: int) -> bytes:
    """8-bit grey or RGB samples as a JPEG or PNG file.

    Args:
        samples: Shape (rows, columns, 1 or 3), one byte each.
        media_type: `image/jpeg` or `image/png`.
        quality: 1 to 100, of JPEG.

    Raises:
        NotAcceptable: Another media type, or the encoder failed.
    """
    import imagecodecs

    pixels = _encodable(samples)
    try:
        if media_type == "image/jpeg":
            return bytes(imagecodecs.jpeg8_encode(pixels, level=quality))
        if media_type == "image/png":
            return bytes(imagecodecs.png_encode(pixels, level=1))
    except CODEC_ERRORS as error:
        raise NotAcceptable("The image cannot be encoded.") from error
    raise NotAcceptable("Images are rendered as image/jpeg or image/png.")


def _encodable(samples: Samples) -> Samples:
    """Contiguous; of two dimensions if grey."""
    is_grey = samples.shape[2] == 1
    return np.ascontiguousarray(samples.squeeze(2) if is_grey else samples)


def _precision(samples: Samples, description: PixelDescription) -> int:
    """Bits that hold every value."""
    bits = description.bits_stored
    low, high = (
        (-(1 << bits - 1), 1 << bits - 1) if description.signed else (0, 1 << bits)
    )
    if low <= int(samples.min()) and int(samples.max()) < high:
        return bits
    return description.bits_allocated


def _dtype(description: PixelDescription) -> np.dtype[Any]:
    """The little endian type of a sample."""
    if description.floating:
        return np.dtype(f"<f{description.cell_bytes}")
    kind = "i" if description.signed and description.bits_allocated > 1 else "u"
    return np.dtype(f"<{kind}{description.cell_bytes}")


def _native(frame: bytes | memoryview, description: PixelDescription) -> Decoded:
    """An uncompressed little endian frame; bytes after its end are ignored."""
    rows, columns = description.rows, description.columns
    count = rows * columns * description.samples_per_pixel
    meaning = description.photometric_interpretation
    if description.bits_allocated == 1:
        bits = np.frombuffer(frame, "u1")[: (count + 7) // 8]
        samples = np.unpackbits(bits, bitorder="little")[:count]
        return Decoded(_pixels(samples, description), meaning)
    samples = np.frombuffer(
        frame, _dtype(description), len(frame) // description.cell_bytes
    )
    if meaning in {"YBR_FULL_422", "YBR_PARTIAL_422"} and samples.size < count:
        return Decoded(_upsampled(samples, description), meaning.removesuffix("_422"))
    return Decoded(_pixels(samples[:count], description), meaning.removesuffix("_422"))


def _native_big(frame: bytes, description: PixelDescription) -> Decoded:
    """An uncompressed big endian frame."""
    swapped = _swapped(frame, description)
    return _native(swapped.view(np.uint8).data, description)


def _deflated(frame: bytes, description: PixelDescription) -> Decoded:
    """A frame of Deflated Image Frame Compression, inflated no further than needed."""
    return _native(
        zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            frame, description.decoded_bytes
        ),
        description,
    )


def _pixels(samples: Samples, description: PixelDescription) -> Samples:
    """Shape (rows, columns, samples per pixel), whatever the planar configuration."""
    rows, columns = description.rows, description.columns
    if description.planar_configuration and description.samples_per_pixel > 1:
        planes = samples.reshape(description.samples_per_pixel, rows, columns)
        return planes.transpose(1, 2, 0)
    return samples.reshape(rows, columns, description.samples_per_pixel)


def _upsampled(samples: Samples, description: PixelDescription) -> Samples:
    """Full chroma for a frame stored as Y Y Cb Cr.

    Source: PS3.3 C.7.6.3.1.2.
    """
    rows, columns = description.rows, description.columns
    pairs = samples[: rows * columns * 2].reshape(rows, columns // 2, 4)
    pixels = np.empty((rows, columns, 3), samples.dtype)
    pixels[:, :, 0] = pairs[:, :, :2].reshape(rows, columns)
    pixels[:, :, 1:] = np.repeat(pairs[:, :, 2:], 2, axis=1)
    return pixels


def _rle(frame: bytes, description: PixelDescription) -> Decoded:
    """An RLE frame: a segment for each byte of each sample, high bytes first.

    Source: PS3.5 annex G.
    """
    import imagecodecs

    samples, width = description.samples_per_pixel, description.cell_bytes
    segments, *offsets = _RLE_HEADER.unpack_from(frame)
    if segments != samples * width:
        raise ValueError("the segments do not match the samples")
    size = description.rows * description.columns
    planes = np.empty((samples, size, width), np.uint8)
    ends = [*offsets[1:segments], len(frame)]
    for i, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        if not _RLE_HEADER.size <= start < end <= len(frame):
            raise ValueError("a segment lies outside the frame")
        # Padding behind a segment looks like a few more bytes; more is an error.
        plane = imagecodecs.packbits_decode(
            frame[start:end], out=size + _RLE_PADDING_BYTES
        )
        if len(plane) < size:
            raise ValueError("a segment is too short")
        byte = width - 1 - i % width
        planes[i // width, :, byte] = np.frombuffer(plane, np.uint8, size)
        del plane  # before the next one is there
    cells = planes.view(_dtype(description)).reshape(
        samples, description.rows, description.columns
    )
    meaning = description.photometric_interpretation.removesuffix("_422")
    return Decoded(cells.transpose(1, 2, 0), meaning)


@dataclass(frozen=True, slots=True)
class _JpegHeader:
    """What a JPEG or JPEG-LS codestream says about itself."""

    rows: int
    columns: int
    precision: int
    component_ids: bytes
    has_jfif: bool
    adobe_transform: int | None


def _jpeg_header(frame: bytes, description: PixelDescription) -> _JpegHeader:
    """The header, once it is known to agree with the description.

    Raises:
        ValueError: It is damaged, or declares another size.

    Source: ISO/IEC 10918-1 annex B; ISO/IEC 10918-6 6.5.3.
    """
    position, has_jfif, adobe = 2, False, None
    if frame[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    while frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = _BIG_ENDIAN_WORD.unpack_from(frame, position + 2)[0]
        body = frame[position + 4 : position + 2 + length]
        if marker == 0xF7 or (
            0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}
        ):
            rows, columns = _BIG_ENDIAN_WORD.iter_unpack(body[1:5])
            ids = body[6 : 6 + 3 * body[5] : 3]
            header = _JpegHeader(rows[0], columns[0], body[0], ids, has_jfif, adobe)
            _check_jpeg(header, description)
            return header
        if marker == 0xE0 and body.startswith(b"JFIF"):
            has_jfif = True
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) > 11:
            adobe = body[11]
        position += 2 + length
    raise ValueError("no start of frame")


def _check_jpeg(header: _JpegHeader, description: PixelDescription) -> None:
    """Refuses a codestream that is not what the image declares."""
    declared = header.rows, header.columns, len(header.component_ids)
    if declared != (
        description.rows,
        description.columns,
        description.samples_per_pixel,
    ):
        raise ValueError("the codestream is of another size")
    if not 2 <= header.precision <= description.bits_allocated:
        raise ValueError("the codestream has more bits than a sample")


def _jpeg(frame: bytes, description: PixelDescription) -> Decoded:
    """A JPEG frame (lossy or lossless) without any colour conversion."""
    import imagecodecs

    header = _jpeg_header(frame, description)
    is_colour = description.samples_per_pixel == 3
    # The same colour space on both sides keeps libjpeg from converting.
    space = "YCBCR" if is_colour else None
    samples = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace=space)
    return Decoded(
        _fitted(samples, header.precision, description),
        _jpeg_colour(header, description),
    )


def _jpeg_colour(header: _JpegHeader, description: PixelDescription) -> str:
    """What the components mean: markers first, as encoders get the attribute wrong."""
    meaning = description.photometric_interpretation
    if description.samples_per_pixel == 1:
        return meaning
    if header.adobe_transform is not None:
        return "YBR_FULL" if header.adobe_transform == 1 else "RGB"
    if header.component_ids.upper() == b"RGB":
        return "RGB"
    return "RGB" if meaning == "RGB" and not header.has_jfif else "YBR_FULL"


def _jpeg_ls(frame: bytes, description: PixelDescription) -> Decoded:
    """A JPEG-LS frame."""
    import imagecodecs

    header = _jpeg_header(frame, description)
    # CharLS 2.4 takes seconds to notice that a stream stops without this marker.
    samples = imagecodecs.jpegls_decode(frame + _END_OF_IMAGE)
    meaning = description.photometric_interpretation.removesuffix("_422")
    return Decoded(_fitted(samples, header.precision, description), meaning)


def _jpeg_2000_precision(codestream: bytes, description: PixelDescription) -> int:
    """Bits of a sample, once the header is known to agree with the description.

    Raises:
        ValueError: It is damaged, or declares another size.

    Source: ISO/IEC 15444-1 A.5.1.
    """
    right, bottom, left, top, *_, components = _IMAGE_AND_TILE_SIZE.unpack_from(
        codestream
    )
    if (bottom - top, right - left, components) != (
        description.rows,
        description.columns,
        description.samples_per_pixel,
    ):
        raise ValueError("the codestream is of another size")
    depths = codestream[_IMAGE_AND_TILE_SIZE.size :: 3][:components]
    precision = max(depth & 0x7F for depth in depths) + 1
    if precision > description.bits_allocated:
        raise ValueError("the codestream has more bits than a sample")
    return precision


def _jpeg_2000(frame: bytes, description: PixelDescription) -> Decoded:
    """A JPEG 2000 or HTJ2K frame; the colour transform is undone by the decoder."""
    import imagecodecs

    # Some files wrap the codestream in a JP2 file, against PS3.5 A.4.4.
    codestream = frame[frame.index(_JPEG_2000_START) :]
    precision = _jpeg_2000_precision(codestream, description)
    samples = imagecodecs.jpeg2k_decode(codestream, numthreads=1)
    meaning = description.photometric_interpretation.removesuffix("_422")
    if meaning in {"YBR_RCT", "YBR_ICT"}:
        meaning = "RGB"
    return Decoded(_fitted(samples, precision, description), meaning)


def _fitted(samples: Samples, precision: int, description: PixelDescription) -> Samples:
    """Samples in the type of the image, the codestream's sign bit taken as the image's.

    JPEG and JPEG-LS know no negative values, and JPEG 2000 encoders forget to say that
    values are signed: the highest of `precision` bits is then the sign.
    """
    target = _dtype(description)
    if samples.ndim == 2:
        samples = samples[:, :, np.newaxis]
    is_signed = samples.dtype.kind == "i"
    samples = samples.astype(target, copy=False)
    unused = target.itemsize * 8 - precision
    if unused and is_signed != (target.kind == "i"):
        samples <<= unused
        samples >>= unused
    return samples


_DECODERS: dict[str, Callable[[bytes, PixelDescription], Decoded]] = {
    IMPLICIT_LITTLE: _native,
    EXPLICIT_LITTLE: _native,
    DEFLATED_LITTLE: _native,
    EXPLICIT_BIG: _native_big,
    DEFLATED_FRAMES: _deflated,
    RLE_LOSSLESS: _rle,
    **dict.fromkeys(
        (
            "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.57",
            "1.2.840.10008.1.2.4.70",
        ),
        _jpeg,
    ),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), _jpeg_ls),
    **dict.fromkeys(
        (
            JPEG_2000_LOSSLESS,
            "1.2.840.10008.1.2.4.91",
            "1.2.840.10008.1.2.4.201",
            "1.2.840.10008.1.2.4.202",
            "1.2.840.10008.1.2.4.203",
        ),
        _jpeg_2000,
    ),
}
