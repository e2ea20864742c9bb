"""DICOM files and multipart bodies built in code.

`instance()` returns a complete Part 10 file; every call makes fresh UIDs unless they
are given. `file_of(dataset)` writes any pydicom data set in any transfer syntax.
"""

import io
import itertools
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from pydicom import config, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

NATIVE = frozenset(
    (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
)
_uid_base = f"2.25.{os.getpid()}{secrets.randbits(48)}"
_uid_counter = itertools.count(1)


def new_uid() -> str:
    """A UID that no other call of this run returns."""
    return f"{_uid_base}.{next(_uid_counter)}"


def data_set(**overrides: Any) -> Dataset:
    """A small CT data set without pixels; DICOM keywords override, None removes."""
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": new_uid(),
        "StudyDate": "20240229",
        "StudyTime": "101530.250000",
        "AccessionNumber": "A-4711",
        "Modality": "CT",
        "Manufacturer": "Made in code",
        "ReferringPhysicianName": "Reyes^Ana",
        "StudyDescription": "Chest",
        "SeriesDescription": "Lung window",
        "ManufacturerModelName": "Model 1",
        "PatientName": "Doe^Jane",
        "PatientID": "P-0001",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyInstanceUID": new_uid(),
        "SeriesInstanceUID": new_uid(),
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PerformedProcedureStepStartDate": "20240229",
    }
    return item(**(values | overrides))


def item(**values: Any) -> Dataset:
    """A data set of just these attributes; their values may be invalid."""
    made = Dataset()
    with config.disable_value_validation():
        for keyword, value in values.items():
            if value is None:
                continue
            try:
                setattr(made, keyword, value)
            except ValueError:  # a DS or IS that is no number
                tag, raw = Tag(keyword), str(value).encode()
                raw += b" " * (len(raw) % 2)
                vr = dictionary_VR(tag)
                made[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    return made


def file_of(
    dataset: Dataset,
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    preamble: bytes = b"\0" * 128,
) -> bytes:
    """The data set as a Part 10 file."""
    meta = FileMetaDataset()
    written = io.BytesIO()
    with config.disable_value_validation():
        meta.MediaStorageSOPClassUID = _one_uid(dataset, "SOPClassUID")
        meta.MediaStorageSOPInstanceUID = _one_uid(dataset, "SOPInstanceUID")
        meta.TransferSyntaxUID = UID(transfer_syntax)
        holder = FileDataset("", dataset, file_meta=meta, preamble=preamble)
        dcmwrite(
            written,
            holder,
            implicit_vr=transfer_syntax == ImplicitVRLittleEndian,
            little_endian=transfer_syntax != ExplicitVRBigEndian,
            enforce_file_format=True,
        )
    return written.getvalue()


def _one_uid(dataset: Dataset, keyword: str) -> UID:
    value = dataset.get(keyword)
    return UID(value if value and isinstance(value, str) else new_uid())


def add_pixels(
    dataset: Dataset,
    frames: int | Sequence[bytes],
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    rows: int = 16,
    columns: int = 16,
    bits_allocated: int = 16,
    samples_per_pixel: int = 1,
    photometric_interpretation: str = "",
    fragments_per_frame: int = 1,
    basic_offset_table: bool = True,
    extended_offset_table: bool = False,
) -> None:
    """Put Pixel Data and what describes it into the data set.

    Args:
        frames: The frames' own bytes, or how many to invent (each is filled with its
            frame number).
    """
    frame_bytes = (rows * columns * samples_per_pixel * bits_allocated + 7) // 8
    if isinstance(frames, int):
        frames = [bytes([n % 255 + 1]) * frame_bytes for n in range(frames)]
    dataset.SamplesPerPixel = samples_per_pixel
    dataset.PhotometricInterpretation = photometric_interpretation or (
        "RGB" if samples_per_pixel == 3 else "MONOCHROME2"
    )
    if samples_per_pixel > 1:
        dataset.PlanarConfiguration = 0
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = bits_allocated
    dataset.HighBit = bits_allocated - 1
    dataset.PixelRepresentation = 0
    if transfer_syntax in NATIVE:
        joined = b"".join(frames)
        dataset.PixelData = joined + b"\0" * (len(joined) % 2)
        vr = "OW" if bits_allocated > 8 else "OB"
    elif extended_offset_table:
        dataset.PixelData, offsets, lengths = encapsulate_extended(list(frames))
        dataset.ExtendedOffsetTable = offsets
        dataset.ExtendedOffsetTableLengths = lengths
        vr = "OB"
    else:
        dataset.PixelData = encapsulate(
            list(frames),
            fragments_per_frame=fragments_per_frame,
            has_bot=basic_offset_table,
        )
        vr = "OB"
    dataset["PixelData"].VR = vr
    dataset["PixelData"].is_undefined_length = transfer_syntax not in NATIVE


def instance(
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    frames: int | Sequence[bytes] = 0,
    pixels: dict[str, Any] | None = None,
    elements: Iterable[tuple[int, str, Any]] = (),
    preamble: bytes = b"\0" * 128,
    **overrides: Any,
) -> bytes:
    """A complete Part 10 file.

    Args:
        frames: As in `add_pixels`; 0 for a file without Pixel Data.
        pixels: Further arguments of `add_pixels` (rows, columns, ...).
        elements: (tag, VR, value) of what has no keyword, private elements above all.
        overrides: DICOM keyword → value, also an invalid one; None leaves it out.
    """
    dataset = data_set(**overrides)
    with config.disable_value_validation():
        for tag, vr, value in elements:
            dataset[Tag(tag)] = DataElement(Tag(tag), vr, value)
        if frames:
            add_pixels(
                dataset, frames, transfer_syntax=transfer_syntax, **(pixels or {})
            )
    return file_of(dataset, transfer_syntax=transfer_syntax, preamble=preamble)


def series(n: int, **overrides: Any) -> list[bytes]:
    """N files of one series, Instance Number from 1; arguments as `instance`."""
    shared = {
        "StudyInstanceUID": new_uid(),
        "SeriesInstanceUID": new_uid(),
    } | overrides
    return [instance(**(shared | {"InstanceNumber": k + 1})) for k in range(n)]


def multipart(
    parts: Iterable[bytes], *, part_type: str = "application/dicom"
) -> tuple[bytes, str]:
    """A multipart/related body of these parts and its Content-Type."""
    boundary = f"part-{secrets.token_hex(12)}"
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    return (
        body + f"--{boundary}--\r\n".encode(),
        f'multipart/related; type="{part_type}"; boundary={boundary}',
    )
