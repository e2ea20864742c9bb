"""Small images in compressed transfer syntaxes, and what they decode to."""

from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.pixels import get_encoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

RLE = str(RLELossless)
J2K = str(JPEG2000Lossless)
EXPLICIT = str(ExplicitVRLittleEndian)
BIG = str(ExplicitVRBigEndian)
VIDEO = "1.2.840.10008.1.2.4.102"
ROWS, COLUMNS = 16, 24
SHAPE = {"rows": ROWS, "columns": COLUMNS}
_FORM = {
    **SHAPE,
    "samples_per_pixel": 1,
    "photometric_interpretation": "MONOCHROME2",
    "bits_allocated": 16,
    "bits_stored": 16,
    "pixel_representation": 0,
    "number_of_frames": 1,
}


def grey(number: int) -> np.ndarray:
    """A ramp that differs from frame to frame."""
    ramp = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * 7 + number * 1000
    return ramp.astype("<u2")


def native(count: int) -> list[bytes]:
    """The bytes of the first frames, uncompressed little endian."""
    return [grey(number).tobytes() for number in range(1, count + 1)]


def rle(count: int) -> list[bytes]:
    """The first frames in RLE."""
    return [get_encoder(RLELossless).encode(frame, **_FORM) for frame in native(count)]


def long_rle_frame(rows: int, columns: int) -> bytes:
    """A black frame of 16 bits in RLE, 128 pixels in 4 bytes."""
    segment = b"\x81\0" * (rows * columns // 128)
    header = [2, 64, 64 + len(segment), *[0] * 13]
    return b"".join(n.to_bytes(4, "little") for n in header) + segment * 2


def rle_file(count: int = 1, **values: Any) -> dict[str, Any]:
    """What `made` wants for a file of the first frames in RLE."""
    return {"transfer_syntax": RLE, "frames": rle(count), "pixels": SHAPE, **values}


def native_file(count: int = 1, **values: Any) -> dict[str, Any]:
    """What `made` wants for a file of the first frames, uncompressed."""
    return {"frames": native(count), "pixels": SHAPE, **values}


def pixels_of(file: bytes) -> np.ndarray:
    """The pixels of a file as pydicom decodes them."""
    decoded: np.ndarray = dcmread(DicomBytesIO(file)).pixel_array
    return decoded


def syntax_of(file: bytes) -> str:
    return str(dcmread(DicomBytesIO(file)).file_meta.TransferSyntaxUID)
