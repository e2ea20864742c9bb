"""Section 7.6: rendered images."""

import io

import numpy as np
import pytest
from blackbox.api import TRANSCODE_LIMIT, made
from blackbox.images import COLUMNS, J2K, ROWS, native_file, rle_file
from blackbox.rules import covers
from PIL import Image

NO_FRAME = "The specified frame cannot be found."


@pytest.fixture(scope="module")
def stored(place):
    """Three frames in RLE, shown by a window."""
    one = made(**rle_file(3, WindowCenter="5000", WindowWidth="10000"))
    assert place.store(one.file).status_code == 200
    return one


def image_of(answer) -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == f"image/{image.format.lower()}"
    image.load()
    return image


def shown(number: int) -> np.ndarray:
    """The frame through its window, 0 to 10,000 to 0 to 255."""
    ramp = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * 7 + number * 1000
    return ramp * 255 / 10000


def is_close(image: Image.Image, number: int, by: int) -> bool:
    pixels = np.asarray(image).astype(int)
    return bool(np.abs(pixels - shown(number)).max() <= by)


# --- media types ---------------------------------------------------------------------


@covers("2.16", "2.18", "7.6.2", "7.6.7")
@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("image/jpeg", "JPEG"),
        ("IMAGE/JPEG", "JPEG"),
        ("image/png", "PNG"),
        ("image/png; q=0.5", "PNG"),
    ],
)
def test_an_image_is_jpeg_or_png(place, stored, accept, form):
    for path in (f"{stored.path}/rendered", f"{stored.path}/frames/2/rendered"):
        image = image_of(place.read(path, accept))
        assert (image.format, image.size) == (form, (COLUMNS, ROWS))


@covers("D6.9", "1.3.5")
def test_any_image_is_a_jpeg_and_so_is_none(place, stored):
    path = f"{stored.path}/rendered"
    answers = [place.read(path, accept) for accept in ("*/*", "image/*", "")]
    for answer in [*answers, place.get(path)]:
        assert image_of(answer).format == "JPEG"


@covers("7.6.3", "3.4")
@pytest.mark.parametrize(
    "accept",
    [
        "image/jpeg, image/png",
        "image/png;q=0.5, */*;q=0.1",
        "image/gif",
        "image/jp2",
        "application/dicom",
        "application/octet-stream",
        "video/mp4",
        'multipart/related; type="image/jpeg"',
        "nonsense",
    ],
)
def test_several_media_types_or_another_one_are_406(place, stored, accept):
    for one in (stored, made()):
        for path in (f"{one.path}/rendered", f"{one.path}/frames/1/rendered"):
            answer = place.read(path, accept)
            assert answer.status_code == 406
            assert answer.text


# --- quality -------------------------------------------------------------------------


@covers("7.6.1")
def test_quality_is_for_jpeg_and_100_by_default(place, stored):
    path = f"{stored.path}/rendered"
    sizes = [
        len(place.read(f"{path}?quality={quality}", "image/jpeg").content)
        for quality in (1, 50, 100)
    ]
    assert sizes == sorted(set(sizes))
    default = place.read(path, "image/jpeg").content
    assert default == place.read(f"{path}?Quality=100", "image/jpeg").content
    pngs = {
        place.read(f"{path}{query}", "image/png").content
        for query in ("", "?quality=1", "?quality=100")
    }
    assert len(pngs) == 1


@covers("7.6.1", "3.2")
@pytest.mark.parametrize("quality", ["0", "101", "00501", "-1", "best", "1.5", ""])
def test_any_other_quality_is_400(place, stored, quality):
    for path in (f"{stored.path}/rendered", f"{stored.path}/frames/1/rendered"):
        for accept in ("image/jpeg", "image/png"):
            answer = place.read(f"{path}?quality={quality}", accept)
            assert answer.status_code == 400
            assert "quality" in answer.text.lower()


# --- frames --------------------------------------------------------------------------


@covers("2.16", "2.18", "7.6.4", "7.6.7")
def test_an_instance_is_its_first_frame_and_frames_count_from_1(place, stored):
    assert is_close(image_of(place.read(f"{stored.path}/rendered", "image/png")), 1, 1)
    for number in (1, 2, 3):
        path = f"{stored.path}/frames/{number}/rendered"
        assert is_close(image_of(place.read(path, "image/png")), number, 1)
        assert is_close(image_of(place.read(path, "image/jpeg")), number, 6)


@covers("7.6.4", "3.2", "3.3")
@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("0", 400),
        ("-1", 400),
        ("a", 400),
        ("1,2", 400),
        ("0_1", 400),
        ("4", 404),
        ("99999", 404),
    ],
)
def test_a_frame_that_is_not_there_is_400_or_404(place, stored, number, status):
    answer = place.read(f"{stored.path}/frames/{number}/rendered", "image/png")
    assert answer.status_code == status
    if status == 404:
        assert answer.text == NO_FRAME


@covers("7.6.4", "7.2.2", "3.3")
def test_without_pixel_data_there_is_no_image(place):
    one = made()
    assert place.store(one.file).status_code == 200
    for path in (f"{one.path}/rendered", f"{one.path}/frames/1/rendered"):
        answer = place.read(path, "image/png")
        assert (answer.status_code, answer.text) == (404, NO_FRAME)
    answer = place.read(f"{made().path}/rendered", "image/png")
    assert answer.status_code == 404
    assert answer.text == "The specified instance cannot be found."
    path = "/studies/1/series/2/instances/x/rendered"
    assert place.read(path, "image/png").status_code == 400


# --- what cannot be shown ------------------------------------------------------------


@covers("7.6.5", "3.4")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_too_large_is_406(special, version):
    form = {"rows": TRANSCODE_LIMIT // 400 + 1, "columns": 200}
    one = made(frames=1, pixels=form)
    assert special.store(one.file).status_code == 200
    answer = special.read(f"/{version}{one.path}/rendered", "image/png")
    assert answer.status_code == 406
    assert "large" in answer.text


@covers("7.6.6", "3.4")
def test_what_cannot_be_decoded_is_406(place):
    one = made(transfer_syntax=J2K, frames=[b"\xff\x4f\xff\x51 no codestream"])
    assert place.store(one.file).status_code == 200
    answer = place.read(f"{one.path}/rendered", "image/png")
    assert answer.status_code == 406
    assert answer.text


@covers("7.6.7")
def test_the_window_of_the_data_set_decides(api):
    one = made(**native_file(1, WindowCenter="2000", WindowWidth="100"))
    assert api.store(one.file).status_code == 200
    pixels = np.asarray(image_of(api.read(f"/v2{one.path}/rendered", "image/png")))
    assert pixels[0, 0] == 0
    assert pixels[-1, -1] == 255
    assert np.all(np.diff(pixels.astype(int).ravel()) >= 0)


@covers("7.6.7")
def test_without_a_window_the_frame_s_own_values_decide(api):
    one = made(**native_file(1))
    assert api.store(one.file).status_code == 200
    pixels = np.asarray(image_of(api.read(f"/v2{one.path}/rendered", "image/png")))
    assert (pixels.min(), pixels.max()) == (0, 255)


@covers("7.6.7")
def test_colour_stays_colour(api):
    red = b"\xff\0\0" * 256
    one = made(frames=[red], pixels={"samples_per_pixel": 3, "bits_allocated": 8})
    assert api.store(one.file).status_code == 200
    image = image_of(api.read(f"/v2{one.path}/rendered", "image/png"))
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == (255, 0, 0)
