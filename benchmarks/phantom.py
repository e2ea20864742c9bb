"""Synthetic studies for loads and demonstrations: no patient, no network, no disk.

`Template` holds the bytes of one valid file and the places of the values that differ
between instances, so that an instance costs a few copies, not a run of pydicom. Each
such place has a fixed length: all UIDs have 44 characters, other values are padded with
blanks. numpy, pydicom and the codecs are imported when a template is made.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import cos, pi, sin
from struct import Struct
from typing import Any, Literal

Compression = Literal["none", "rle", "jpeg", "jpeg2000"]

UID_ROOT = "2.25."
UID_LENGTH = 44  # 2.25. and a UUID as a number of 39 digits
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_GREY_BYTE = "1.2.840.10008.5.1.4.1.1.7.2"
MULTI_FRAME_GREY_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
TRANSFER_SYNTAXES: Mapping[Compression, str] = {
    "none": "1.2.840.10008.1.2.1",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
}
_RLE_HEADER = Struct("<16I")
SPACING_MM = 0.75
SLICE_MM = 1.25


def uid(*numbers: int) -> str:
    """A UID of 44 characters, the same for the same numbers.

    Args:
        numbers: Whatever tells it apart: seed, study, series, instance. Each below
            10^9, at most four.

    Source: PS3.5 B.2.
    """
    digits = "1" + "".join(f"{number:09d}" for number in numbers)
    return UID_ROOT + digits.ljust(UID_LENGTH - len(UID_ROOT), "7")


@dataclass(frozen=True, slots=True)
class Template:
    """A file that others are made of.

    Attributes:
        file: A valid Part 10 file.
        places: Offsets and length of each value that may differ, by keyword.
    """

    file: bytes
    places: Mapping[str, tuple[tuple[int, ...], int]]

    def fill(self, **values: str | bytes) -> bytes:
        """The file with other values.

        Args:
            values: Keyword and value; text is padded with blanks.

        Raises:
            ValueError: A value is longer than its place.
        """
        file = bytearray(self.file)
        for keyword, value in values.items():
            offsets, length = self.places[keyword]
            data = value.encode("latin-1") if isinstance(value, str) else value
            if len(data) > length:
                raise ValueError(f"{keyword} takes {length} bytes")
            for offset in offsets:
                file[offset : offset + length] = data.ljust(length)
        return bytes(file)


# What a slot holds before it is filled; found again in the written file. The length
# of each is the most that its value may take.
_SLOTS = {
    "StudyInstanceUID": uid(900000001),
    "SeriesInstanceUID": uid(900000002),
    "SOPInstanceUID": uid(900000003),
    "FrameOfReferenceUID": uid(900000004),
    "PatientID": "SLOT-PATIENT-ID-",
    "PatientName": "SLOT^PATIENT^NAME^IS^HERE",
    "AccessionNumber": "SLOT-ACCESSION--",
    "StudyDate": "19000101",
    "StudyTime": "010203",
    "StudyDescription": "SLOT STUDY DESCRIPTION IS HERE--",
    "InstanceNumber": "900001",
    "SliceLocation": "-90001.25",
    "ImagePositionPatient": "-90003.125\\-90004.125\\-90005.25",
}


def ct_slice_template(
    rows: int = 512, columns: int = 512, *, header_elements: int = 0
) -> Template:
    """A CT slice whose identity, position and pixels can be filled in.

    Args:
        rows: Of the image.
        columns: Of the image.
        header_elements: Elements that the data set has at least, as real CTs have 150
            to 300 of them.
    """
    dataset = _ct_dataset(rows, columns)
    dataset.PixelData = b"\0" * (rows * columns * 2)
    _grow(dataset, header_elements)
    return _template(dataset, TRANSFER_SYNTAXES["none"])


def ct_study(
    slices: int = 120,
    *,
    rows: int = 512,
    columns: int = 512,
    seed: int = 1,
    patient_id: str = "PHANTOM-CT",
) -> Iterator[bytes]:
    """Files of an axial CT series of a body with lungs, a spine and a heart.

    Slices follow each other at equal distances along the patient's axis, so viewers can
    reformat the series (MPR).

    Args:
        slices: At least 1.
        rows: Of each slice.
        columns: Of each slice.
        seed: Other seeds give other UIDs.
        patient_id: At most 16 characters.

    Source: PS3.3 C.7.6.2, C.7.4.1, C.8.2.1.
    """
    template = ct_slice_template(rows, columns)
    for index in range(slices):
        fraction = (index + 0.5) / slices
        z = index * SLICE_MM
        x, y = (-(size - 1) / 2 * SPACING_MM for size in (columns, rows))
        yield template.fill(
            StudyInstanceUID=uid(seed, 1),
            SeriesInstanceUID=uid(seed, 1, 1),
            SOPInstanceUID=uid(seed, 1, 1, index + 1),
            FrameOfReferenceUID=uid(seed, 2),
            PatientID=patient_id,
            PatientName="Phantom^Carl Theodor",
            AccessionNumber=f"ACC{seed:09d}",
            StudyDate="20260102",
            StudyTime="101112",
            StudyDescription="CT phantom for MPR",
            InstanceNumber=str(index + 1),
            SliceLocation=f"{z:.2f}",
            ImagePositionPatient=_position(x, y, z),
            PixelData=_body(rows, columns, fraction, seed * 100_003 + index),
        )


def load_instances(
    template: Template, studies: int, instances: int, *, seed: int = 1
) -> Iterator[bytes]:
    """Instances for a load: all of one study after another, pixels as in the template.

    Args:
        template: From `ct_slice_template`: 188 rows and columns give 70 kB, 512 half a
            megabyte.
        studies: How many.
        instances: Of each study; all in one series.
        seed: Other seeds give other UIDs and patients.
    """
    for study in range(1, studies + 1):
        patient = f"P{seed:03d}{study:08d}"
        for instance in range(1, instances + 1):
            yield template.fill(
                StudyInstanceUID=uid(seed, study),
                SeriesInstanceUID=uid(seed, study, 1),
                SOPInstanceUID=uid(seed, study, 1, instance),
                FrameOfReferenceUID=uid(seed, study, 2),
                PatientID=patient,
                PatientName=f"Load^{_NAMES[study % len(_NAMES)]}^{study}",
                AccessionNumber=f"A{study:08d}",
                StudyDate=f"{2010 + study % 15}{1 + study % 12:02}{1 + study % 28:02}",
                StudyTime=f"{study % 24:02d}{study % 60:02d}00",
                StudyDescription=f"Load study {study}",
                InstanceNumber=str(instance),
                SliceLocation=f"{instance * SLICE_MM:.2f}",
                ImagePositionPatient=_position(0, 0, instance * SLICE_MM),
            )


def _position(x: float, y: float, z: float) -> str:
    """Image Position (Patient) in millimetres; no component exceeds 16 characters."""
    return f"{x:10.3f}\\{y:10.3f}\\{z:9.2f}"


_NAMES = ("Ada", "Berta", "Cem", "Dora", "Emil", "Fatma", "Gustav", "Hana", "Ivo")


def multi_frame(
    compression: Compression,
    frames: int = 100,
    *,
    rows: int = 512,
    columns: int = 512,
    seed: int = 1,
) -> bytes:
    """A multi-frame secondary capture: a slow walk through the phantom.

    Takes seconds for 100 frames of JPEG 2000: keep the result.

    Args:
        compression: JPEG has 8 bits and no signs; the others 16.
        frames: At least 1.
        rows: Of a frame.
        columns: Of a frame.
        seed: Other seeds give other UIDs.

    Source: PS3.3 A.8.3, A.8.4; PS3.5 A.4.
    """
    from pydicom.encaps import encapsulate

    is_byte = compression == "jpeg"
    dataset = _multi_frame_dataset(rows, columns, frames, is_byte=is_byte)
    pictures = [
        _unsigned(_body(rows, columns, (i + 0.5) / frames, seed + i), is_byte=is_byte)
        for i in range(frames)
    ]
    coded = [_encoded(picture, rows, columns, compression) for picture in pictures]
    if compression == "none":
        dataset.PixelData = b"".join(coded)
    else:
        dataset.PixelData = encapsulate(coded)
    if is_byte:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.LossyImageCompressionRatio = "10"
    series = list(TRANSFER_SYNTAXES).index(compression)
    template = _template(dataset, TRANSFER_SYNTAXES[compression])
    return template.fill(
        StudyInstanceUID=uid(seed, 3),
        SeriesInstanceUID=uid(seed, 3, series),
        SOPInstanceUID=uid(seed, 3, series, frames),
        PatientID="PHANTOM-MF",
        PatientName="Phantom^Multi",
        AccessionNumber=f"MF{seed}",
        StudyDate="20260103",
        StudyTime="121314",
        StudyDescription="Multi-frame phantom",
        InstanceNumber="1",
    )


def _body(rows: int, columns: int, fraction: float, seed: int) -> bytes:
    """Hounsfield units of a slice at `fraction` of the body, 16 bits signed."""
    import numpy as np

    y = (np.arange(rows, dtype=np.float32)[:, None] * 2 + 1) / rows - 1
    x = (np.arange(columns, dtype=np.float32)[None, :] * 2 + 1) / columns - 1
    swell = sin(pi * fraction)
    organs = (
        # center x and y, half axes, units
        (0.0, 0.0, 0.8, 0.55 + 0.05 * swell, 40),
        (-0.36, -0.05, 0.1 + 0.2 * swell, 0.15 + 0.2 * swell, -800),
        (0.36, -0.05, 0.1 + 0.2 * swell, 0.15 + 0.2 * swell, -800),
        (0.08, -0.15, 0.18 * swell, 0.16 * swell, 60),
        (0.0, 0.38, 0.1, 0.1, 700),
        (0.0, 0.38, 0.04, 0.04, 20),
        (0.5 * cos(6 * fraction), 0.2, 0.03, 0.03, 300),
    )
    units = np.full((rows, columns), -1000, np.int16)
    for center_x, center_y, half_x, half_y, value in organs:
        inside = ((x - center_x) / (half_x + 1e-6)) ** 2 + (
            (y - center_y) / (half_y + 1e-6)
        ) ** 2 < 1
        units[inside] = value
    noise = np.random.default_rng(seed).integers(-12, 13, units.shape, np.int16)
    return bytes((units + noise).astype("<i2").tobytes())


def _unsigned(units: bytes, *, is_byte: bool) -> Any:
    """Grey levels of 8 or 12 bits of Hounsfield units."""
    import numpy as np

    shifted = np.frombuffer(units, "<i2").astype(np.int32) + 1024
    levels = np.clip(shifted, 0, 4095)
    return (levels >> 4).astype("u1") if is_byte else levels.astype("<u2")


def _encoded(picture: Any, rows: int, columns: int, compression: Compression) -> bytes:
    """One frame of Pixel Data."""
    pixels = picture.reshape(rows, columns)
    if compression == "none":
        return bytes(pixels.tobytes())
    import imagecodecs

    if compression == "rle":
        return _rle_frame(pixels.astype("<u2").view("u1").reshape(rows, columns, 2))
    if compression == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(pixels, level=90))
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="j2k", bitspersample=12, reversible=True
        )
    )


def _rle_frame(cells: Any) -> bytes:
    """An RLE frame of cells of two bytes, each row packed for itself.

    Source: PS3.5 annex G.
    """
    import imagecodecs

    segments = []
    for byte in (1, 0):
        rows = (imagecodecs.packbits_encode(row.tobytes()) for row in cells[:, :, byte])
        segment = b"".join(rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [_RLE_HEADER.size, _RLE_HEADER.size + len(segments[0])]
    return _RLE_HEADER.pack(2, *offsets, *[0] * 13) + b"".join(segments)


def _ct_dataset(rows: int, columns: int) -> Any:
    """The attributes of a CT slice without pixels, slots in the places that differ."""
    dataset = _common_dataset(CT_IMAGE, "CT", rows, columns)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = _SLOTS["FrameOfReferenceUID"]
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.ImagePositionPatient = _SLOTS["ImagePositionPatient"].split("\\")
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [SPACING_MM, SPACING_MM]
    dataset.SliceThickness = SLICE_MM
    dataset.SpacingBetweenSlices = SLICE_MM
    dataset.SliceLocation = _SLOTS["SliceLocation"]
    dataset.AcquisitionNumber = 1
    dataset.KVP = 120
    dataset.BodyPartExamined = "CHEST"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = [40, -600], [400, 1500]
    dataset.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    return dataset


def _multi_frame_dataset(rows: int, columns: int, frames: int, *, is_byte: bool) -> Any:
    """The attributes of a multi-frame secondary capture without pixels."""
    from pydicom.tag import Tag

    sop_class = MULTI_FRAME_GREY_BYTE if is_byte else MULTI_FRAME_GREY_WORD
    dataset = _common_dataset(sop_class, "OT", rows, columns)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ConversionType = "SYN"
    dataset.Laterality = ""
    dataset.NumberOfFrames = frames
    dataset.FrameIncrementPointer = Tag("FrameTime")
    dataset.FrameTime = "40"
    bits = 8 if is_byte else 12
    dataset.BitsAllocated = 8 if is_byte else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter = 67 if is_byte else 1064
    dataset.WindowWidth = 25 if is_byte else 400
    return dataset


def _common_dataset(sop_class: str, modality: str, rows: int, columns: int) -> Any:
    """What every image of ours has."""
    from pydicom import Dataset

    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    for keyword in _SLOTS.keys() - {
        "FrameOfReferenceUID",
        "SliceLocation",
        "ImagePositionPatient",
    }:
        setattr(dataset, keyword, _SLOTS[keyword])
    dataset.Modality = modality
    dataset.Manufacturer = "DICOM Functions"
    dataset.ManufacturerModelName = "Phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "Phantom"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.ContentDate, dataset.ContentTime = "20260102", "101112"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20260102", "101112"
    dataset.PatientOrientation = ["L", "P"]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    return dataset


def _grow(dataset: Any, elements: int) -> None:
    """Adds private elements, in some variety, until there are as many as asked for."""
    block = dataset.private_block(0x0029, "DICOM FUNCTIONS PHANTOM", create=True)
    kinds = (
        ("LO", "a short text of a scanner"),
        ("DS", ["1.5", "-2.25", "0"]),
        ("IS", "42"),
        ("US", [1, 2, 3]),
        ("FD", 0.125),
        ("UN", bytes(range(32))),
    )
    offset = 0
    while len(dataset) < elements:
        vr, value = kinds[offset % len(kinds)]
        block.add_new(offset, vr, value)
        offset += 1


def _template(dataset: Any, transfer_syntax_uid: str) -> Template:
    """The written file and where its slots are."""
    from pydicom import FileMetaDataset, dcmwrite

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    element = dataset["PixelData"]
    element.VR = "OW" if transfer_syntax_uid == TRANSFER_SYNTAXES["none"] else "OB"
    written = BytesIO()
    dcmwrite(written, dataset, enforce_file_format=True)
    file = written.getvalue()
    places = {
        keyword: (_offsets(file, slot.encode()), len(slot) + len(slot) % 2)
        for keyword, slot in _SLOTS.items()
        if keyword in dataset
    }
    if transfer_syntax_uid == TRANSFER_SYNTAXES["none"]:
        length = len(dataset.PixelData)
        places["PixelData"] = ((len(file) - length,), length)
    return Template(file, places)


def _offsets(file: bytes, slot: bytes) -> tuple[int, ...]:
    """Where a slot's value stands: in the data set, a UID perhaps in the meta too."""
    offsets = []
    position = file.find(slot)
    while position >= 0:
        offsets.append(position)
        position = file.find(slot, position + len(slot))
    return tuple(offsets)
