"""How much memory work on one frame takes at its peak, told before it begins.

Measured with noise, the worst there is, for each codec; a few percent are added. What
the work leaves behind (the frame as stored, the result) is counted too. Knows numbers
only, no codec.
"""

from dicomweb.pixels import PixelDescription

EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
_NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"))
_DEFLATED_FILE = "1.2.840.10008.1.2.1.99"
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = frozenset(
    f"1.2.840.10008.1.2.4.{kind}" for kind in (90, 91, 201, 202, 203)
)
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{kind}" for kind in (80, 81))
_OPENJPEG_BYTES = 4
"""Of a sample, whatever its depth."""
_OPENJPEG_OWN_BYTES = 3_000_000
"""While it decodes, whatever the frame."""
_STRIP_BYTES = 20_000_000
"""While values become bytes to show, see `display`."""
_STRIP_FACTOR = 80


def transcoding(
    image: PixelDescription, source_uid: str, target_uid: str, frame_bytes: int
) -> int:
    """Bytes for a frame in another transfer syntax.

    Args:
        image: What the frame belongs to.
        source_uid: Transfer syntax of the frame.
        target_uid: The one asked for.
        frame_bytes: Length of the frame as stored.
    """
    held, decoded = _held(image, source_uid), image.decoded_bytes
    if target_uid == JPEG_2000_LOSSLESS:
        work = held + 2 * _OPENJPEG_BYTES * _samples(image) + 3 * decoded
    elif source_uid in _JPEG_LS:
        work = held + decoded + frame_bytes
    elif source_uid in {_RLE, _DEFLATED_FRAMES}:
        work = held + 2 * decoded
    else:
        work = held + decoded
    return frame_bytes + max(_decoding(image, source_uid, frame_bytes), work)


def rendering(
    image: PixelDescription, source_uid: str, frame_bytes: int, *, as_png: bool
) -> int:
    """Bytes for a frame as JPEG or PNG; arguments as `transcoding`."""
    held = _held(image, source_uid)
    pixels = image.rows * image.columns
    is_colour = image.samples_per_pixel == 3 or bool(image.palette_tags)
    shown = pixels * (3 if is_colour else 1)
    in_place = held and image.cell_bytes == 1 and not image.palette_tags
    canvas = 0 if in_place and source_uid not in {_RLE, _DEFLATED_FRAMES} else shown
    encoded = 2 * shown if as_png or not is_colour else shown
    return frame_bytes + max(
        _decoding(image, source_uid, frame_bytes),
        held + canvas + min(_STRIP_BYTES, _STRIP_FACTOR * pixels),
        shown + encoded,
    )


def _samples(image: PixelDescription) -> int:
    return image.rows * image.columns * image.samples_per_pixel


def _held(image: PixelDescription, source_uid: str) -> int:
    """Bytes of the decoded frame; none where it is a view of the frame as stored."""
    is_view = image.bits_allocated > 1 and "_422" not in _meaning(image)
    is_native = source_uid in _NATIVE or source_uid == _DEFLATED_FILE
    return 0 if is_native and is_view else image.decoded_bytes


def _meaning(image: PixelDescription) -> str:
    return image.photometric_interpretation


def _decoding(image: PixelDescription, source_uid: str, frame_bytes: int) -> int:
    """Bytes while the frame is decoded, with the decoded frame."""
    decoded = image.decoded_bytes
    if source_uid in _JPEG_2000:
        samples = _samples(image)
        work = samples * _OPENJPEG_BYTES + samples // 4 + _OPENJPEG_OWN_BYTES
        return decoded + frame_bytes + work
    if source_uid == _RLE:
        return decoded + frame_bytes // 2 + 2 * image.rows * image.columns
    if source_uid == _DEFLATED_FRAMES or "_422" in _meaning(image):
        return 2 * decoded
    if source_uid in _NATIVE or source_uid == _DEFLATED_FILE:
        return _held(image, source_uid)
    return decoded + frame_bytes + decoded // 16
