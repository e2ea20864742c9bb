"""A CT series that nobody was irradiated for: a drawn torso, the same bytes every time.

Enough of the CT Image module for a viewer's multi-planar reconstruction, enough detail
(body, lungs, heart, ribs, spine, one nodule) to see that it is the right way up.
"""

import datetime as dt
import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

AIR, LUNG, FAT, SOFT, BLOOD, BONE = -1000, -850, -90, 40, 55, 600  # Hounsfield units
INTERCEPT = -1024
TAKEN = dt.datetime(2026, 1, 15, 9, 30, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Phantom:
    """What is drawn.

    Attributes:
        slices: Number of images.
        size: Rows and columns of each.
        pixel_mm: Width and height of a pixel.
        slice_mm: From one slice to the next.
        name: Names the study: another name gives other UIDs.
    """

    slices: int = 64
    size: int = 256
    pixel_mm: float = 1.5
    slice_mm: float = 4.0
    name: str = "phantom"

    def uid(self, what: str) -> str:
        """A UID for one thing of this phantom, the same every time.

        Source: PS3.5 B.2.
        """
        seed = f"dicom-functions/{self.name}/{self.slices}x{self.size}/{what}"
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, seed).int}"


def instances(phantom: Phantom) -> Iterator[bytes]:
    """The series as DICOM files, from the feet up, Explicit VR Little Endian."""
    noise = np.random.default_rng(2026)
    for index in range(phantom.slices):
        hounsfield = slice_of(phantom, index)
        hounsfield += noise.normal(0, 12, hounsfield.shape)
        yield file_of(phantom, index, hounsfield)


def slice_of(phantom: Phantom, index: int) -> NDArray[np.float64]:
    """One slice in Hounsfield units; first row anterior, first column right."""
    half = phantom.size * phantom.pixel_mm / 2
    axis = (np.arange(phantom.size) + 0.5) * phantom.pixel_mm - half
    x, y = np.meshgrid(axis, axis)
    z = (index / max(phantom.slices - 1, 1) - 0.5) * 2  # -1 feet, 1 head

    def ellipse(
        cx: float, cy: float, rx: float, ry: float
    ) -> NDArray[np.bool_]:  # millimetres
        inside: NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        return inside

    image = np.full(x.shape, float(AIR))
    shrink = 1 - 0.15 * z * z
    image[ellipse(0, 0, 170 * shrink, 115 * shrink)] = FAT
    image[ellipse(0, 0, 158 * shrink, 103 * shrink)] = SOFT
    draw_ribs(image, x, y, z, shrink)
    lung = 1 - z * z * 0.9
    for side in (-1, 1):
        image[ellipse(side * 75, -8, 52 * lung, 78 * lung)] = LUNG
    if (heart := 1 - (z + 0.25) ** 2 / 0.3) > 0:
        image[ellipse(22, -30, 48 * heart**0.5, 40 * heart**0.5)] = BLOOD
    if (nodule := 1 - (z - 0.2) ** 2 / 0.006) > 0:
        image[ellipse(-85, -20, 9 * nodule**0.5, 9 * nodule**0.5)] = SOFT
    image[ellipse(0, 72, 22, 18)] = BONE
    image[ellipse(0, 90, 9, 8)] = SOFT
    image[ellipse(-14, 52, 12, 12)] = BLOOD
    return image


def draw_ribs(
    image: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: float,
    shrink: float,
) -> None:
    """Draws where the slice cuts the ribs: spots that move along the chest wall."""
    wall = (x / (148 * shrink)) ** 2 + (y / (93 * shrink)) ** 2
    angle = np.arctan2(y, np.abs(x))
    spots = np.cos(6 * angle - 9 * z) > 0.72
    image[(np.abs(wall - 1) < 0.09) & spots] = BONE


def file_of(phantom: Phantom, index: int, hounsfield: NDArray[np.float64]) -> bytes:
    """One slice as a DICOM file.

    Source: PS3.3 A.3.
    """
    stored = np.clip(np.rint(hounsfield) - INTERCEPT, 0, 4095).astype("<u2")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    sop_instance_uid = UID(phantom.uid(f"instance {index}"))
    dataset.file_meta.MediaStorageSOPInstanceUID = sop_instance_uid
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    describe_study(dataset, phantom)
    describe_image(dataset, phantom, index)
    dataset.PixelData = stored.tobytes()
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def describe_study(dataset: Dataset, phantom: Phantom) -> None:
    """Adds what all slices have in common."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID = phantom.uid("study")
    dataset.SeriesInstanceUID = phantom.uid("series")
    dataset.FrameOfReferenceUID = phantom.uid("frame of reference")
    dataset.PatientName = "Sample^Phantom"
    dataset.PatientID = f"SAMPLE-{phantom.name.upper()}"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.StudyDescription = "Drawn torso"
    dataset.SeriesDescription = f"{phantom.slices} slices"
    dataset.AccessionNumber = f"SAMPLE-{phantom.slices}"
    dataset.ReferringPhysicianName = ""
    for keyword in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{keyword}Date", TAKEN.strftime("%Y%m%d"))
        setattr(dataset, f"{keyword}Time", TAKEN.strftime("%H%M%S"))
    dataset.Modality = "CT"
    dataset.Manufacturer = "DICOM Functions"
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    dataset.PatientPosition = "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.KVP = 120


def describe_image(dataset: Dataset, phantom: Phantom, index: int) -> None:
    """Adds what one slice is and where it lies."""
    corner = -(phantom.size - 1) * phantom.pixel_mm / 2
    z = index * phantom.slice_mm
    dataset.SOPInstanceUID = phantom.uid(f"instance {index}")
    dataset.InstanceNumber = index + 1
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.ImagePositionPatient = [corner, corner, z]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = z
    dataset.SliceThickness = phantom.slice_mm
    dataset.SpacingBetweenSlices = phantom.slice_mm
    dataset.PixelSpacing = [phantom.pixel_mm, phantom.pixel_mm]
    dataset.Rows = dataset.Columns = phantom.size
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope = INTERCEPT, 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
