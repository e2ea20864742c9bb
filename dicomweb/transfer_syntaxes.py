"""UIDs of the transfer syntaxes that are treated apart from others.

Source: PS3.5 Annex A; PS3.6 A.
"""

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

LITTLE_ENDIAN = frozenset(
    (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN)
)
"""Uncompressed pixels in little endian: the same frames in each."""

UNCOMPRESSED = LITTLE_ENDIAN | {EXPLICIT_BIG_ENDIAN}


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether Pixel Data are one stream: MPEG2, MPEG-4, HEVC (1.2.4.100 to .108)."""
    return transfer_syntax_uid.startswith("1.2.840.10008.1.2.4.10")
