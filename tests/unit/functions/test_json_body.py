"""JSON of requests: read as generously as clients of the .NET server expect."""

import time
from types import SimpleNamespace

import pytest

from dicomweb.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from functions import json_body as module
from functions.json_body import json_body
from functions.paging import limit_and_offset


def call(body, content_type="application/json", pairs=()):
    async def stream():
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    headers = {} if content_type is None else {"content-type": content_type}
    request = SimpleNamespace(headers=headers, stream=stream)
    return SimpleNamespace(request=request, pairs=list(pairs))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\ufeff{"a": "ä"}', {"a": "ä"}),
        ('{"a": 1, // one\n "b": 2,}', {"a": 1, "b": 2}),
        ("[1, 2, /* three */ ]", [1, 2]),
        ("[1, // end\n /* and */ ]", [1]),
        ('["// no comment", "/* nor */", ",]", "a\\"//b",]', None),
    ],
)
async def test_comments_and_commas_at_the_end_are_left_out(text, value):
    value = value or ["// no comment", "/* nor */", ",]", 'a"//b']
    assert await json_body(call(text.encode())) == value


@pytest.mark.parametrize("content_type", ["text/json", "application/dicom+json", None])
async def test_every_json_type_is_read_and_none_at_all(content_type):
    assert await json_body(call(b"[]", content_type)) == []


async def test_another_type_is_refused():
    with pytest.raises(UnsupportedMediaType):
        await json_body(call(b"[]", "text/xml; charset=utf-8"))


@pytest.mark.parametrize("body", [b"", b"  \n"])
async def test_no_body_is_refused(body):
    with pytest.raises(InvalidRequest, match="missing"):
        await json_body(call(body))


@pytest.mark.parametrize("body", [b"{", b"[1 2]", b"\xff\xfe[]", b"[,]", b"/* [] */"])
async def test_what_is_no_json_is_refused(body):
    with pytest.raises(InvalidRequest, match="syntax"):
        await json_body(call(body))


async def test_a_large_body_is_read_without_comments_only():
    large = b"[" + b" " * module.MAX_COMMENTED_BYTES
    assert await json_body(call(large + b"1]")) == [1]
    with pytest.raises(InvalidRequest, match="syntax"):
        await json_body(call(large + b"1,]"))


async def test_a_large_body_is_refused_before_all_of_it_is_read(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    assert await json_body(call(b"[" + b" " * 18 + b"]")) == []
    with pytest.raises(PayloadTooLarge, match="20 bytes"):
        await json_body(call(b"[" + b" " * 19 + b"]"))


@pytest.mark.parametrize(
    "piece",
    [b"/* ", b"/*", b"/", b",", b",/**/", b"//\n,", b", ", b'"\\', b'\\"', b'"', b"[,"],
)
async def test_no_body_takes_the_square_of_its_length(piece):
    """Each would take minutes where something is looked for from every place in it."""
    body = b"[" + piece * (250_000 // len(piece))

    async def stream():
        yield body

    asked = call(body)
    asked.request.stream = stream
    before = time.process_time()
    with pytest.raises(InvalidRequest):
        await json_body(asked)
    assert time.process_time() - before < 20


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ((), (100, 0)),
        ((("limit", "1"), ("offset", "0")), (1, 0)),
        ((("LIMIT", " 200 "), ("Offset", "2147483647")), (200, 2147483647)),
        ((("other", "x"),), (100, 0)),
    ],
)
def test_limit_and_offset(pairs, expected):
    assert limit_and_offset(call(b"", pairs=pairs)) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", ""),
        ("limit", "1.0"),
        ("limit", "٣"),
        ("offset", "-1"),
        ("offset", "2147483648"),
        ("offset", "1" * 5000),
    ],
)
def test_a_number_out_of_its_range_is_refused_and_named(name, value):
    with pytest.raises(InvalidRequest, match=f"'{name.capitalize()}' is invalid"):
        limit_and_offset(call(b"", pairs=[(name, value)]))
