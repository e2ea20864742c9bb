"""Negotiation of what is sent."""

import pytest

from dicomweb.errors import InvalidRequest, NotAcceptable
from dicomweb.media_types import (
    DICOM,
    JPEG,
    JPEG_2000,
    OCTET_STREAM,
    PNG,
    MediaType,
    Representation,
    Retrieval,
    check_accepts_dicom_json,
    negotiate,
    negotiate_rendered,
    parse_accept,
    parse_image_quality,
    parse_media_type,
)

EXPLICIT = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A/B", MediaType("a/b", {})),
        (" a/b ; Q=0.5 ;c=d", MediaType("a/b", {"q": "0.5", "c": "d"})),
        ('a/b;c="x\\"y,;z"', MediaType("a/b", {"c": 'x"y,;z'})),
        ("a/b;", MediaType("a/b", {})),
        ("a/b; c=1; c=2", MediaType("a/b", {"c": "1"})),
        ("a", None),
        ("", None),
        ("a/b; c", None),
        ("a/b c", None),
        ('a/b; c="x', None),
    ],
)
def test_media_types_are_parsed_with_their_parameters(text, expected):
    assert parse_media_type(text) == expected


def test_an_accept_header_is_cut_at_commas_outside_quotes():
    entries = parse_accept('a/b; t="x,y", c/d;q=0.1,, e/f;q=7')
    assert entries is not None
    assert [(entry.type, entry.quality) for entry in entries] == [
        ("a/b", 1.0),
        ("c/d", 0.1),
        ("e/f", 1.0),
    ]
    assert parse_accept(None) == ()
    assert parse_accept("a/b, broken") is None


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom+json",
        "APPLICATION/DICOM+JSON; charset=utf-8",
        "*/*",
        "application/*",
        "application/json",
        "application/dicom+json, application/json",
        "text/html,application/xhtml+xml,*/*;q=0.8",
    ],
)
def test_dicom_json_is_accepted_under_several_names(accept):
    check_accepts_dicom_json(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "application/dicom",
        "application/data",
        "image/*",
        "broken",
        "application/dicom+json, broken",
        'multipart/related; type="application/dicom+xml"',
    ],
)
def test_who_does_not_accept_dicom_json_gets_406_without_a_text(accept):
    with pytest.raises(NotAcceptable) as caught:
        check_accepts_dicom_json(accept)
    assert str(caught.value) == ""


S, X, F, B = Retrieval.STUDY, Retrieval.INSTANCE, Retrieval.FRAMES, Retrieval.BULK_DATA


@pytest.mark.parametrize(
    ("retrieval", "accept", "expected"),
    [
        (S, 'multipart/related; type="application/dicom"', (DICOM, EXPLICIT, True)),
        (
            S,
            "multipart/related; type=application/dicom; transfer-syntax=*",
            (DICOM, "*", True),
        ),
        (
            S,
            f'multipart/related; type="application/dicom"; transfer-syntax={J2K}',
            (DICOM, J2K, True),
        ),
        (S, "*/*", (DICOM, "*", True)),
        (S, "application/*", (DICOM, "*", True)),
        (S, 'multipart/related; type="*/*"', (DICOM, "*", True)),
        (X, "application/dicom", (DICOM, EXPLICIT, False)),
        (X, "application/dicom; transfer-syntax=*", (DICOM, "*", False)),
        (X, "*/*", (DICOM, "*", True)),
        (
            X,
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            (DICOM, "*", True),
        ),
        (F, "application/octet-stream", (OCTET_STREAM, EXPLICIT, False)),
        (
            F,
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            (OCTET_STREAM, "*", True),
        ),
        (F, 'multipart/related; type="*/*"', (OCTET_STREAM, "*", True)),
        (F, 'multipart/related; type="image/jp2"', (JPEG_2000, J2K, True)),
        (F, 'multipart/related; type="image/*"', (JPEG_2000, J2K, True)),
        (F, "*/*", (OCTET_STREAM, "*", True)),
        (B, "application/octet-stream", (OCTET_STREAM, EXPLICIT, False)),
        (B, "*/*", (OCTET_STREAM, EXPLICIT, False)),
        (B, 'multipart/related; type="*/*"', (OCTET_STREAM, EXPLICIT, True)),
        (
            B,
            "application/octet-stream; transfer-syntax=*",
            (OCTET_STREAM, "*", False),
        ),
        # the highest weight, then the first, then whatever asks for "as stored"
        (
            X,
            "application/dicom; q=0.5, multipart/related; type=application/dicom",
            (DICOM, EXPLICIT, True),
        ),
        (
            X,
            "application/dicom, multipart/related; type=application/dicom",
            (DICOM, EXPLICIT, False),
        ),
        (
            X,
            (
                "application/dicom,"
                " multipart/related; type=application/dicom; transfer-syntax=*"
            ),
            (DICOM, "*", True),
        ),
        (
            X,
            (
                "application/dicom,"
                " multipart/related; type=application/dicom; transfer-syntax=*; q=0.9"
            ),
            (DICOM, EXPLICIT, False),
        ),
        (X, "image/png, application/dicom;q=0.1", (DICOM, EXPLICIT, False)),
        (
            X,
            (
                f"application/dicom; transfer-syntax=1.2.3, application/dicom;"
                f" transfer-syntax={J2K}"
            ),
            (DICOM, J2K, False),
        ),
    ],
)
def test_the_preferred_acceptable_representation_is_chosen(retrieval, accept, expected):
    assert negotiate(retrieval, accept) == Representation(*expected)


@pytest.mark.parametrize(
    ("retrieval", "accept"),
    [
        (S, None),
        (S, ""),
        (S, "application/dicom"),
        (S, "application/dicom; transfer-syntax=*"),
        (S, "multipart/related"),
        (S, 'multipart/related; type="application/octet-stream"'),
        (
            X,
            "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.100",
        ),
        (X, "application/data"),
        (X, "application/dicom;q=0"),
        (F, "application/dicom"),
        (F, "image/jp2"),
        (F, f"application/octet-stream; transfer-syntax={J2K}"),
        (F, f'multipart/related; type="image/jp2"; transfer-syntax={EXPLICIT}'),
        (F, 'multipart/related; type="image/jpeg"'),
        (B, "image/jpeg"),
    ],
)
def test_without_an_acceptable_representation_it_is_406(retrieval, accept):
    with pytest.raises(NotAcceptable):
        negotiate(retrieval, accept)


def test_series_are_negotiated_as_studies():
    for accept in ("*/*", 'multipart/related; type="application/dicom"'):
        assert negotiate(Retrieval.SERIES, accept) == negotiate(S, accept)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JPEG),
        ("", JPEG),
        ("image/jpeg", JPEG),
        ("Image/PNG;q=1", PNG),
        ("*/*", JPEG),
        ("image/*; q=0.5", JPEG),
    ],
)
def test_rendered_images_are_jpeg_unless_png_is_asked_for(accept, expected):
    assert negotiate_rendered(accept) == expected


@pytest.mark.parametrize(
    "accept", ["image/jpeg, image/png", "*/*, image/png", "image/gif", "broken"]
)
def test_other_or_several_image_types_are_406(accept):
    with pytest.raises(NotAcceptable):
        negotiate_rendered(accept)


@pytest.mark.parametrize(
    ("values", "expected"), [([], 100), (["1"], 1), (["100"], 100), ([" 50 "], 50)]
)
def test_image_quality_is_1_to_100(values, expected):
    assert parse_image_quality(values) == expected


@pytest.mark.parametrize("value", ["0", "101", "-1", "x", "", "1.5", "9" * 5000, "٥"])
def test_other_image_qualities_are_invalid(value):
    with pytest.raises(InvalidRequest):
        parse_image_quality([value])
