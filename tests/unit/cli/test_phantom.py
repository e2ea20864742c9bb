import io

import pytest
from pydicom import dcmread

from cli.phantom import BONE, LUNG, Phantom, instances, slice_of

SMALL = Phantom(slices=5, size=32, pixel_mm=12.0)


@pytest.fixture(scope="module")
def series():
    return [dcmread(io.BytesIO(file)) for file in instances(SMALL)]


def test_the_same_bytes_come_every_time():
    assert list(instances(SMALL)) == list(instances(SMALL))


def test_another_name_gives_another_study():
    other = Phantom(slices=5, size=32, name="other")
    assert other.uid("study") != SMALL.uid("study")


def test_the_slices_are_one_evenly_spaced_series(series):
    assert len({image.SeriesInstanceUID for image in series}) == 1
    assert len({image.SOPInstanceUID for image in series}) == 5
    heights = [float(image.ImagePositionPatient[2]) for image in series]
    assert heights == [0.0, 4.0, 8.0, 12.0, 16.0]
    assert all(image.SpacingBetweenSlices == 4.0 for image in series)


def test_uids_are_valid_and_unique_per_instance(series):
    for image in series:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            assert image[keyword].value.is_valid


def test_stored_values_are_hounsfield_units_after_rescale(series):
    middle = series[2].pixel_array * 1.0 + float(series[2].RescaleIntercept)
    drawn = slice_of(SMALL, 2)
    assert drawn.min() == -1000
    assert (drawn == LUNG).any()
    assert (drawn == BONE).any()
    assert abs(middle - drawn).mean() < 15


def test_the_heart_lies_on_the_patients_left():
    # Columns run from right to left of a patient who lies head first on the back.
    drawn = slice_of(Phantom(slices=5, size=64, pixel_mm=6.0), 2)
    lung = drawn == LUNG
    assert lung[:, :32].sum() > lung[:, 32:].sum()
