"""The synthetic studies: valid, consistent and cheap."""

import time
from io import BytesIO
from itertools import pairwise

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from benchmarks.phantom import (
    TRANSFER_SYNTAXES,
    ct_slice_template,
    ct_study,
    load_instances,
    multi_frame,
    uid,
)
from dicomweb.pixels import describe
from dicomweb.transcoding import EXPLICIT_LITTLE, transcode_frame


def read(file: bytes) -> Dataset:
    return dcmread(BytesIO(file))


def test_uids_are_valid_and_differ():
    uids = {uid(1), uid(2), uid(1, 1), uid(1, 1, 1), uid(1, 1, 1, 2), uid(11)}
    assert len(uids) == 6
    for each in uids:
        assert each.startswith("2.25.1")
        assert int(each.removeprefix("2.25.")) < 1 << 128
        assert len(each) == 44


def test_slices_of_the_ct_study_form_one_regular_volume():
    slices = [read(file) for file in ct_study(6, rows=64, columns=96)]
    first = slices[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({each[keyword].value for each in slices}) == 1
    assert len({each.SOPInstanceUID for each in slices}) == 6
    assert [each.InstanceNumber for each in slices] == [1, 2, 3, 4, 5, 6]
    assert first.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert first.ImagePositionPatient == [-35.625, -23.625, 0]
    for one, next_one in pairwise(slices):
        step = np.subtract(next_one.ImagePositionPatient, one.ImagePositionPatient)
        assert step.tolist() == [0, 0, first.SpacingBetweenSlices]
    assert [each.SliceLocation for each in slices] == [
        each.ImagePositionPatient[2] for each in slices
    ]


def test_a_slice_is_a_conformant_file():
    (file,) = ct_study(1, rows=64, columns=64)
    dataset = read(file)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert str(dataset.PatientName) == "Phantom^Carl Theodor"
    assert dataset.pixel_array.shape == (64, 64)
    assert b"SLOT" not in file
    assert b"9000" not in file.replace(dataset.PixelData, b"")
    for element in dataset.iterall():
        if element.VR == "DS":
            raw = str(element.value)
            assert all(len(part) <= 16 for part in raw.strip("[]").split(", "))
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    assert read(written.getvalue()) == dataset


def test_the_phantom_has_air_lung_tissue_and_bone():
    dataset = read(list(ct_study(3, rows=128, columns=128))[1])
    values = dataset.pixel_array
    for low, high in ((-1015, -985), (-815, -785), (25, 75), (685, 715)):
        assert ((values > low) & (values < high)).mean() > 0.005


@pytest.mark.parametrize(("side", "size"), [(188, 70_000), (512, 524_000)])
def test_load_instances_have_the_sizes_of_the_budgets(side, size):
    template = ct_slice_template(side, side)
    (file,) = load_instances(template, 1, 1)
    assert size < len(file) < size * 1.05


def test_a_header_has_as_many_elements_as_asked_for():
    template = ct_slice_template(16, 16, header_elements=262)
    (file,) = load_instances(template, 1, 1)
    dataset = read(file)
    assert len(dataset) == 262
    assert len(dataset.to_json()) > 1000


def test_load_instances_differ_where_they_should():
    template = ct_slice_template(8, 8)
    datasets = [read(file) for file in load_instances(template, 3, 4, seed=5)]
    assert len({each.SOPInstanceUID for each in datasets}) == 12
    assert len({each.StudyInstanceUID for each in datasets}) == 3
    assert len({(each.StudyInstanceUID, each.PatientID) for each in datasets}) == 3
    for each in datasets:
        assert each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID
        assert len(each.StudyDate) == 8
    others = {
        read(file).StudyInstanceUID for file in load_instances(template, 3, 1, seed=6)
    }
    assert others.isdisjoint({each.StudyInstanceUID for each in datasets})


def test_a_thousand_instances_cost_little():
    template = ct_slice_template(188, 188, header_elements=262)
    started = time.process_time()
    count = sum(1 for _ in load_instances(template, 10, 100))
    assert count == 1000
    # 0.1 s on an idle machine.
    assert time.process_time() - started < 1


def test_a_value_that_does_not_fit_is_refused():
    template = ct_slice_template(8, 8)
    with pytest.raises(ValueError, match="PatientID takes 16 bytes"):
        template.fill(PatientID="X" * 17)


@pytest.mark.parametrize("compression", sorted(TRANSFER_SYNTAXES))
def test_multi_frame_objects_decode_frame_by_frame(compression):
    file = multi_frame(compression, 3, rows=64, columns=80)
    dataset = read(file)
    assert dataset.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[compression]
    assert dataset.NumberOfFrames == 3
    assert b"SLOT" not in file
    if compression == "none":
        frames = np.split(np.frombuffer(dataset.PixelData, "u1"), 3)
        frames = [frame.tobytes() for frame in frames]
    else:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
    del dataset.PixelData
    description = describe(dataset.to_json_dict())
    natives = [
        transcode_frame(
            frame, TRANSFER_SYNTAXES[compression], EXPLICIT_LITTLE, description
        )
        for frame in frames
    ]
    assert len(set(natives)) == 3
    if compression in {"rle", "jpeg2000"}:
        plain = read(multi_frame("none", 3, rows=64, columns=80))
        assert b"".join(natives) == plain.PixelData
    if compression == "jpeg":
        assert imagecodecs.jpeg8_decode(frames[0]).shape == (64, 80)
