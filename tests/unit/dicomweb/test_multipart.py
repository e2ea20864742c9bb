"""The multipart parser, on bodies as clients really send them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from dicomweb.multipart import (
    Multipart,
    Parser,
    PartBegin,
    PartData,
    PartEnd,
    SinglePart,
    check_part_type,
    closing,
    content_type,
    part_head,
    store_framing,
)

Part = tuple[dict[str, str], bytes]


def parse(*chunks: bytes, boundary: bytes = b"b", **limits: int) -> list[Part]:
    """The parts of a body that comes in these chunks."""
    parser = Parser(boundary, **{"max_part_bytes": 1_000_000, **limits})
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    events += parser.finish()
    parts: list[Part] = []
    is_open = False
    for event in events:
        match event:
            case PartBegin(headers):
                assert not is_open
                is_open = True
                parts.append((headers, b""))
            case PartData(data):
                assert is_open
                assert len(data) > 0
                parts[-1] = (parts[-1][0], parts[-1][1] + bytes(data))
            case PartEnd():
                assert is_open
                is_open = False
    assert not is_open
    return parts


HEADERS = b"Content-Type: application/dicom\r\n"
PARSED = {"content-type": "application/dicom"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"--b\r\n" + HEADERS + b"\r\nabc\r\n--b--\r\n", [(PARSED, b"abc")]),
        (b"\r\n--b\r\n" + HEADERS + b"\r\nabc\r\n--b--", [(PARSED, b"abc")]),
        (b"--b\r\n\r\nabc\r\n--b--", [({}, b"abc")]),
        (b"a MIME text\r\n--b\r\n\r\nabc\r\n--b--epilogue", [({}, b"abc")]),
        (
            b"--b \t\r\n\r\nabc\r\n--b \r\n\r\nd\r\n--b-- \r\n",
            [({}, b"abc"), ({}, b"d")],
        ),
        (b"--b\r\n\r\n\r\n--b--", [({}, b"")]),
        (b"--b\r\n" + HEADERS + b"\r\n--b--", [(PARSED, b"")]),
        (b"--b\r\n\r\n\r\n\r\n--b--", [({}, b"\r\n")]),
        (b"--b--\r\n", []),
        (b"\r\n--b--\r\n", []),
        (
            b"--b\r\nA: 1\r\n 2\r\na:3\r\nContent-Length: 2\r\n\r\nxy\r\n--b--",
            [({"a": "1 2, 3", "content-length": "2"}, b"xy")],
        ),
    ],
)
def test_framing_as_clients_send_it_is_understood(body, expected):
    assert parse(body) == expected
    assert parse(*(body[at : at + 1] for at in range(len(body)))) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n--bx",
        b"x--b\r\n",
        b"\r\n--b-",
        b"\r\n--b \t x\r\n",
        b"\n--b--\r\n",
        b"\r\n--b" + b" " * 200 + b"\r\n",
        b"\r\r\n--",
        b"\r\n--b\r",
        b"\r\n--b \r",
        b"\r\n--\r\n--bb\r\n",
        b"\r",
    ],
)
def test_text_that_only_looks_like_a_delimiter_is_data(data):
    body = b"--b\r\n\r\n" + data + b"\r\n--b--\r\n"
    assert parse(body) == [({}, data)]
    assert parse(*(body[at : at + 1] for at in range(len(body)))) == [({}, data)]


ALPHABET = st.sampled_from([b"\r", b"\n", b"-", b"b", b" ", b"x", b"--b", b"\r\n--b"])
DATA = st.lists(ALPHABET, max_size=12).map(b"".join)


@given(st.lists(DATA, max_size=4), st.lists(st.integers(0, 200), max_size=8))
def test_what_is_parsed_does_not_depend_on_how_the_bytes_are_cut(contents, cuts):
    boundary = "0123456789"
    body = b"".join(
        part_head(boundary, {"X": str(i)}, is_first=i == 0) + data
        for i, data in enumerate(contents)
    )
    body += closing(boundary) if contents else b"--0123456789--"
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in pairwise(edges)]
    expected = [({"x": str(i)}, data) for i, data in enumerate(contents)]
    assert parse(*chunks, boundary=boundary.encode()) == expected


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_refused_or_parsed_alike_whatever_the_cut(noise, cut):
    def outcome(*chunks: bytes) -> list[Part] | str:
        try:
            return parse(*chunks)
        except InvalidRequest as error:
            return str(error)

    body = b"--b\r\n" + noise
    assert outcome(body) == outcome(body[:cut], body[cut:])


def test_data_of_a_chunk_is_passed_on_without_copying():
    parser = Parser(b"b", max_part_bytes=1000)
    parser.feed(b"--b\r\n\r\nstart")
    chunk = b"x" * 100
    (event,) = parser.feed(chunk)
    assert isinstance(event, PartData)
    assert event.data is chunk
    last = b"y" * 10 + b"\r\n--b--"
    data, end = parser.feed(last)
    assert isinstance(data, PartData)
    assert isinstance(data.data, memoryview)
    assert data.data.obj is last
    assert end == PartEnd()


def test_chunks_may_be_views():
    assert parse(memoryview(b"--b\r\n\r\nabc\r\n--b--")) == [({}, b"abc")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        b"--b\r\n",
        b"--b\r\nA: 1\r\n",
        b"--b\r\n\r\nabc",
        b"--b\r\n\r\nabc\r\n--b",
        b"--b\r\nno colon\r\n\r\nabc\r\n--b--",
        b"--b\r\nna me: x\r\n\r\nabc\r\n--b--",
        b"--b\r\nContent-Length: 4\r\n\r\nabc",
    ],
)
def test_damaged_framing_is_an_invalid_request(body):
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.code == "DamagedMultipart"


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"\r\n--b"])
def test_the_last_delimiter_may_lack_when_the_length_is_stated_and_reached(tail):
    body = b"--b\r\nContent-Length: 3\r\n\r\nabc" + tail
    assert parse(body) == [({"content-length": "3"}, b"abc")]


@pytest.mark.parametrize(
    ("body", "limits", "error"),
    [
        (b"--b\r\n\r\nabcd\r\n--b--", {"max_part_bytes": 3}, PayloadTooLarge),
        (b"--b\r\nContent-Length: 4\r\n\r\n", {"max_part_bytes": 3}, PayloadTooLarge),
        (b"--b\r\n\r\n\r\n--b\r\n\r\n\r\n--b--", {"max_parts": 1}, PayloadTooLarge),
        (
            b"--b\r\nA: " + b"x" * 50 + b"\r\n\r\n\r\n--b--",
            {"max_header_bytes": 40},
            InvalidRequest,
        ),
        (b"--b\r\nA: " + b"x" * 50, {"max_header_bytes": 40}, InvalidRequest),
        (b"x" * 50 + b"\r\n--b--", {"max_header_bytes": 40}, InvalidRequest),
    ],
)
def test_limits_hold_however_the_bytes_are_cut(body, limits, error):
    with pytest.raises(error):
        parse(body, **limits)
    with pytest.raises(error):
        parse(*(body[at : at + 1] for at in range(len(body))), **limits)


def test_a_part_of_exactly_the_allowed_length_passes():
    assert parse(b"--b\r\n\r\nabc\r\n--b--", max_part_bytes=3) == [({}, b"abc")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/dicom", SinglePart()),
        ("Application/DICOM", SinglePart()),
        ("multipart/related; boundary=b", Multipart(b"b")),
        (
            'Multipart/Related; type="application/DICOM"; boundary="a b"',
            Multipart(b"a b", "application/dicom"),
        ),
        (
            "multipart/related;type=application/dicom;boundary=" + "x" * 73,
            Multipart(b"x" * 73, "application/dicom"),
        ),
        (
            "multipart/related; boundary=----=_Part:1/2_3.4",
            Multipart(b"----=_Part:1/2_3.4"),
        ),
    ],
)
def test_store_requests_are_one_file_or_multipart_related(header, expected):
    assert store_framing(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "application/dicom; x=y",
        "application/json",
        "multipart/form",
        "multipart/form-data; boundary=b",
        "multipart/related",
        "multipart/related; boundary=",
        'multipart/related; boundary="a\tb"',
        "multipart/related; boundary=" + "x" * 300,
        "multipart/related; boundary=é",
        "nonsense",
    ],
)
def test_other_content_types_are_unsupported(header):
    with pytest.raises(UnsupportedMediaType):
        store_framing(header)


def test_a_start_parameter_is_an_invalid_request():
    with pytest.raises(InvalidRequest):
        store_framing("multipart/related; boundary=b; start=<x>")


@pytest.mark.parametrize(
    ("headers", "part_type", "is_first"),
    [
        ({"content-type": "application/dicom"}, None, False),
        ({"content-type": "APPLICATION/dicom "}, None, True),
        ({}, "application/dicom", True),
    ],
)
def test_parts_are_dicom_files(headers, part_type, is_first):
    check_part_type(headers, Multipart(b"b", part_type), is_first=is_first)


@pytest.mark.parametrize(
    ("headers", "part_type", "is_first"),
    [
        ({"content-type": "application/dicom; x=y"}, "application/dicom", True),
        ({"content-type": "image/jpeg"}, "application/dicom", True),
        ({}, "application/dicom", False),
        ({}, None, True),
        ({}, "application/dicom+json", True),
    ],
)
def test_other_parts_are_unsupported(headers, part_type, is_first):
    with pytest.raises(UnsupportedMediaType):
        check_part_type(headers, Multipart(b"b", part_type), is_first=is_first)


def test_responses_are_framed_as_the_parser_expects():
    body = (
        part_head("B", {"Content-Type": "application/dicom"}, is_first=True)
        + b"one"
        + part_head("B", {"Content-Type": "application/dicom"}, is_first=False)
        + b"two"
        + closing("B")
    )
    assert body.startswith(b"--B\r\n")
    assert body.endswith(b"\r\n--B--\r\n")
    assert parse(body, boundary=b"B") == [(PARSED, b"one"), (PARSED, b"two")]
    assert store_framing(content_type("B", "application/dicom")) == Multipart(
        b"B", "application/dicom"
    )
