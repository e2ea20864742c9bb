"""PyPI wsidicom: a whole slide image read tile by tile."""

import io

import numpy as np
import pytest
from blackbox.hosts import Running
from data import data_set, file_of, item, new_uid
from dicomweb_client import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    VLWholeSlideMicroscopyImageStorage,
)
from wsidicom import WsiDicom, WsiDicomWebClient

pytestmark = [
    pytest.mark.client,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    # wsidicom gives pydicom no handler for the pixels' BulkDataURI; it needs none.
    pytest.mark.filterwarnings("ignore:No bulk data URI handler"),
]

TILE = 32
ACROSS, DOWN = 5, 4


def slide(transfer_syntax: str) -> tuple[Dataset, np.ndarray]:
    """A slide of 5 x 4 tiles and its pixels, (rows, columns, 3)."""
    random = np.random.default_rng(7)
    small = random.integers(0, 255, (DOWN * 4, ACROSS * 4, 3), np.uint8)
    pixels = np.kron(small, np.ones((TILE // 4, TILE // 4, 1), np.uint8))
    tiles = [
        pixels[y : y + TILE, x : x + TILE]
        for y in range(0, DOWN * TILE, TILE)
        for x in range(0, ACROSS * TILE, TILE)
    ]
    if transfer_syntax == JPEG2000Lossless:
        data = encapsulate([jpeg_2000(tile) for tile in tiles])
    else:
        data = b"".join(tile.tobytes() for tile in tiles)
    frame_of_reference = new_uid()
    made = data_set(
        SOPClassUID=VLWholeSlideMicroscopyImageStorage,
        Modality="SM",
        PatientID="WSI",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        FrameOfReferenceUID=frame_of_reference,
        PositionReferenceIndicator="SLIDE_CORNER",
        ContainerIdentifier="S-1",
        ContainerTypeCodeSequence=[],
        IssuerOfTheContainerIdentifierSequence=[],
        AcquisitionContextSequence=[],
        SpecimenDescriptionSequence=[],
        VolumetricProperties="VOLUME",
        ImagedVolumeWidth=ACROSS * TILE * 0.0005,
        ImagedVolumeHeight=DOWN * TILE * 0.0005,
        ImagedVolumeDepth=1.0,
        SpecimenLabelInImage="NO",
        BurnedInAnnotation="NO",
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
        LossyImageCompression="00",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        Rows=TILE,
        Columns=TILE,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        NumberOfFrames=len(tiles),
        TotalPixelMatrixColumns=ACROSS * TILE,
        TotalPixelMatrixRows=DOWN * TILE,
        TotalPixelMatrixFocalPlanes=1,
        NumberOfOpticalPaths=1,
        DimensionOrganizationType="TILED_FULL",
        ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        TotalPixelMatrixOriginSequence=[
            item(XOffsetInSlideCoordinateSystem=20, YOffsetInSlideCoordinateSystem=40)
        ],
        OpticalPathSequence=[
            item(
                OpticalPathIdentifier="1",
                IlluminationTypeCodeSequence=[
                    item(
                        CodeValue="111744",
                        CodingSchemeDesignator="DCM",
                        CodeMeaning="Brightfield illumination",
                    )
                ],
                IlluminationColorCodeSequence=[
                    item(
                        CodeValue="414298005",
                        CodingSchemeDesignator="SCT",
                        CodeMeaning="Full Spectrum",
                    )
                ],
            )
        ],
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[
                    item(PixelSpacing=[0.0005, 0.0005], SliceThickness=1.0)
                ]
            )
        ],
        PixelData=data,
    )
    if transfer_syntax == JPEG2000Lossless:
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
    return dcmread(io.BytesIO(file_of(made, transfer_syntax=transfer_syntax))), pixels


def jpeg_2000(tile: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(tile).save(
        written, "JPEG2000", irreversible=False, mct=0, no_jp2=True
    )
    return written.getvalue()


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_a_region_across_tiles_has_the_pixels_of_the_slide(
    server: Running, transfer_syntax: str
):
    image, pixels = slide(transfer_syntax)
    base = f"{server.url}/v2"
    DICOMwebClient(base).store_instances([image])
    client = WsiDicomWebClient.create_client(base)
    with WsiDicom.open_web(
        client, image.StudyInstanceUID, image.SeriesInstanceUID
    ) as opened:
        region = np.asarray(opened.read_region((20, 10), 0, (70, 50)))
        assert np.array_equal(region, pixels[10:60, 20:90])
        assert np.array_equal(
            np.asarray(opened.read_tile(0, (3, 2))),
            pixels[2 * TILE : 3 * TILE, 3 * TILE : 4 * TILE],
        )
