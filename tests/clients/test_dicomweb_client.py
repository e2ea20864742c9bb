"""PyPI dicomweb-client: every transaction that it knows."""

import io

import numpy as np
import pytest
from blackbox.hosts import Running
from data import data_set, file_of, instance, new_uid
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless
from requests import HTTPError

pytestmark = [
    pytest.mark.client,
    pytest.mark.allow_hosts(["127.0.0.1"]),
]

ROWS = 8


@pytest.fixture(scope="module")
def client(server: Running) -> DICOMwebClient:
    return DICOMwebClient(f"{server.url}/v2")


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    study, series = new_uid(), new_uid()
    return [
        dcmread(
            io.BytesIO(
                instance(
                    PatientID="DWC",
                    PatientName="Client^Pyth",
                    StudyInstanceUID=study,
                    SeriesInstanceUID=series,
                    InstanceNumber=number,
                    frames=2,
                )
            )
        )
        for number in range(1, 4)
    ]


@pytest.fixture(scope="module")
def stored(client: DICOMwebClient, images: list[Dataset]) -> list[Dataset]:
    answer = client.store_instances(images)
    assert len(answer.ReferencedSOPSequence) == len(images)
    assert "FailedSOPSequence" not in answer
    return images


def uids(image: Dataset) -> tuple[str, str, str]:
    return image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID


def test_it_searches_at_every_level(client, stored):
    study, series, _ = uids(stored[0])
    found = client.search_for_studies(search_filters={"PatientID": "DWC"})
    assert [each["0020000D"]["Value"] for each in found] == [[study]]
    found = client.search_for_studies(
        search_filters={"PatientName": "pyth"}, fuzzymatching=True
    )
    assert [each["0020000D"]["Value"] for each in found] == [[study]]
    found = client.search_for_series(study, fields=["SeriesDescription", "00200011"])
    assert [each["0020000E"]["Value"] for each in found] == [[series]]
    assert found[0]["00200011"]["Value"] == [1]
    found = client.search_for_instances(study, series, limit=2, get_remaining=True)
    assert sorted(each["00080018"]["Value"][0] for each in found) == sorted(
        image.SOPInstanceUID for image in stored
    )


def test_it_retrieves_studies_series_and_instances_as_stored(client, stored):
    study, series, one = uids(stored[0])
    for found in (client.retrieve_study(study), client.retrieve_series(study, series)):
        assert {each.SOPInstanceUID: each for each in found} == {
            each.SOPInstanceUID: each for each in stored
        }
    assert client.retrieve_instance(study, series, one) == stored[0]
    iterated = client.iter_series(study, series)
    assert len(list(iterated)) == len(stored)


def test_it_retrieves_metadata_and_the_binary_values_that_they_name(client, stored):
    study, series, one = uids(stored[0])
    assert len(client.retrieve_study_metadata(study)) == len(stored)
    assert len(client.retrieve_series_metadata(study, series)) == len(stored)
    metadata = client.retrieve_instance_metadata(study, series, one)
    assert metadata["00100020"]["Value"] == ["DWC"]
    (pixels,) = client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])
    assert pixels == stored[0].PixelData


def test_it_retrieves_frames_in_the_syntaxes_it_asks_for(client, stored):
    where = uids(stored[0])
    frames = client.retrieve_instance_frames(*where, frame_numbers=[2, 1])
    whole = stored[0].PixelData
    half = len(whole) // 2
    assert frames == [whole[half:], whole[:half]]
    (compressed,) = client.retrieve_instance_frames(
        *where, frame_numbers=[1], media_types=(("image/jp2", JPEG2000Lossless),)
    )
    assert compressed.startswith(b"\xff\x4f\xff\x51")


def test_it_retrieves_an_instance_in_another_transfer_syntax(client, stored):
    where = uids(stored[0])
    compressed = client.retrieve_instance(
        *where, media_types=(("application/dicom", JPEG2000Lossless),)
    )
    assert compressed.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert np.array_equal(compressed.pixel_array, stored[0].pixel_array)


def test_it_retrieves_rendered_images(client, stored):
    where = uids(stored[0])
    jpeg = client.retrieve_instance_rendered(*where, media_types=("image/jpeg",))
    assert jpeg.startswith(b"\xff\xd8\xff")
    png = client.retrieve_instance_frames_rendered(
        *where, frame_numbers=[2], media_types=("image/png",)
    )
    assert png.startswith(b"\x89PNG")


def test_it_is_told_what_was_refused(client, stored):
    with pytest.raises(HTTPError, match="409"):
        client.store_instances([stored[0]])


def test_it_deletes_instances_series_and_studies(client):
    study = new_uid()
    series = [new_uid(), new_uid(), new_uid()]
    images = [
        dcmread(
            io.BytesIO(
                file_of(data_set(StudyInstanceUID=study, SeriesInstanceUID=each))
            )
        )
        for each in series
    ]
    client.store_instances(images, study_instance_uid=study)
    client.delete_instance(*uids(images[0]))
    client.delete_series(study, series[1])
    assert [
        each["0020000E"]["Value"][0] for each in client.search_for_series(study)
    ] == [series[2]]
    client.delete_study(study)
    assert client.search_for_studies(search_filters={"StudyInstanceUID": study}) == []
    with pytest.raises(HTTPError, match="404"):
        client.retrieve_study(study)
