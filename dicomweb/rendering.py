"""JPEG and PNG of one frame, as a viewer would first show it.

Decodes exactly one frame. Presentation states, overlays, annotations and ICC profiles
are left out. The heavy imports wait for the first call. PS3.18 8.7.4, 9.5.
"""

from collections.abc import Sequence
from typing import Literal

from dicomweb.errors import NotAcceptable
from dicomweb.pixels import (
    MAX_DECODED_BYTES,
    PixelDescription,
    describe,
    tables_elsewhere,
)

__all__ = [
    "MAX_DECODED_BYTES",
    "PixelDescription",
    "describe",
    "render",
    "tables_elsewhere",
]

MediaType = Literal["image/jpeg", "image/png"]


def render(
    frame: bytes,
    transfer_syntax_uid: str,
    description: PixelDescription,
    *,
    media_type: MediaType,
    quality: int = 100,
    palette: Sequence[bytes] | None = None,
) -> bytes:
    """The frame as an image file, of the frame's own size.

    Grey values go through the modality rescale and the first window, VOI LUT or, with
    neither, the range of the frame's values.

    Args:
        frame: One frame, without item headers; 1-bit frames start in bit 0.
        transfer_syntax_uid: Of `frame`.
        description: From `describe`, for the same frame.
        media_type: Of the answer.
        quality: 1 to 100; PNG has none.
        palette: Values of `description.palette_tags`, if the image is PALETTE COLOR.

    Raises:
        NotAcceptable: The frame cannot be decoded or shown.

    Source: PS3.18 9.5; PS3.4 N.2.
    """
    from dicomweb import codecs, display

    try:
        # Nothing here keeps the decoded values: their memory is free for the encoder.
        pixels = display.display_values(
            codecs.decode(frame, transfer_syntax_uid, description),
            description,
            palette,
            big_endian=transfer_syntax_uid == codecs.EXPLICIT_BIG,
        )
    except codecs.CODEC_ERRORS as error:
        raise NotAcceptable("The frame cannot be rendered.") from error
    return codecs.encode_image(pixels, media_type, quality)
