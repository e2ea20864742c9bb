"""Section 7.5: metadata; bulk data; what happens when stored bytes are lost."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox.api import DICOM_JSON, ONE_AS_STORED, Api, first, made, parts
from blackbox.images import SHAPE, native, native_file, rle, rle_file
from blackbox.rules import covers
from blackbox.stacks import STACK, lose_file
from data import data_set
from pydicom.uid import RLELossless

LEVELS = ["study_path", "series_path", "path"]
OCTETS = "application/octet-stream"
SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
]


@pytest.fixture(scope="module")
def stored(place):
    one = made(**native_file())
    assert place.store(one.file).status_code == 200
    return one


# --- metadata ------------------------------------------------------------------------


@covers("2.6", "2.11", "2.15", "7.5.1")
def test_each_instance_has_one_data_set(place):
    one = made(InstanceNumber=1)
    two = made(one, same_series=True, InstanceNumber=2)
    three = made(one, InstanceNumber=3)
    other = made()
    files = [each.file for each in (one, two, three, other)]
    assert place.store(*files).status_code == 200
    for path, expected in (
        (one.study_path, {one.sop, two.sop, three.sop}),
        (one.series_path, {one.sop, two.sop}),
        (one.path, {one.sop}),
    ):
        answer = place.read(f"{path}/metadata")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == DICOM_JSON
        found = [first(each["00080018"]) for each in answer.json()]
        assert len(found) == len(expected)
        assert set(found) == expected
    [metadata] = place.metadata(three.path)
    assert metadata["00200013"] == {"vr": "IS", "Value": [3]}


@covers("7.5.1")
@pytest.mark.parametrize("coding", ["deflate", "gzip", "br, gzip;q=0.1", "identity"])
def test_they_are_the_same_in_every_content_coding(place, stored, coding):
    plain = place.read(f"{stored.path}/metadata")
    packed = place.read(f"{stored.path}/metadata", accept_encoding=coding)
    assert packed.json() == plain.json()
    expected = {"deflate": "deflate", "identity": None}.get(coding, "gzip")
    assert packed.headers.get("content-encoding") == expected


@covers("7.5.1", "D5.4")
@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (None, "gzip"),
        ("MyPacs/1.0", "gzip"),
        ("Mozilla/5.0 (Windows NT 10.0; en-US) PowerShell/7.0.3", "gzip"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0", "deflate"),
        ("python-requests/2.34.0", "deflate"),
        ("curl/8.14.1", "deflate"),
        ("node", "deflate"),
    ],
)
def test_deflate_goes_to_clients_that_are_known_to_read_it(
    place, stored, agent, expected
):
    """.NET before version 6 takes it for data without the frame of zlib."""
    path = f"{stored.path}/metadata"
    plain = place.read(path)
    more = {} if agent is None else {"user_agent": agent}
    packed = place.read(path, accept_encoding="gzip, deflate, br", **more)
    assert packed.headers["content-encoding"] == expected
    assert packed.json() == plain.json()


@covers("7.5.2")
def test_the_etag_is_watermark_and_count(place):
    one = made()
    two, three = made(one, same_series=True), made(one)
    for each in (one, two, three):
        assert place.store(each.file).status_code == 200

    def etag(path: str) -> str:
        return place.read(f"{path}/metadata").headers["etag"]

    marks = [int(etag(each.path)) for each in (one, two, three)]
    assert marks == sorted(set(marks))
    assert etag(one.study_path) == f"{marks[2]}-3"
    assert etag(one.series_path) == f"{marks[1]}-2"
    assert etag(three.series_path) == f"{marks[2]}-1"
    assert place.api.delete(place.root + two.path).status_code == 204
    assert etag(one.study_path) == f"{marks[2]}-2"
    assert etag(one.series_path) == f"{marks[0]}-1"


@covers("7.5.3")
@pytest.mark.parametrize("level", LEVELS)
def test_who_has_it_already_gets_304_without_an_etag(place, level):
    one = made()
    assert place.store(one.file).status_code == 200
    path = f"{getattr(one, level)}/metadata"
    etag = place.read(path).headers["etag"]
    assert not etag.startswith('"')
    answer = place.read(path, if_none_match=etag)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["content-length"] == "0"
    assert "etag" not in answer.headers
    for other in ("0", "x", f"{etag}1"):
        assert place.read(path, if_none_match=other).status_code == 200
    assert place.store(made(one, same_series=True).file).status_code == 200
    expected = 304 if level == "path" else 200
    assert place.read(path, if_none_match=etag).status_code == expected


@covers("7.5.5", "3.1", "3.2", "3.3", "3.4")
def test_errors_are_those_of_files(place):
    missing = made()
    for level in LEVELS:
        path = f"{getattr(missing, level)}/metadata"
        answer = place.read(path)
        assert answer.status_code == 404
        name = {"study_path": "study", "series_path": "series", "path": "instance"}
        assert answer.text == f"The specified {name[level]} cannot be found."
        answer = place.read(path, "image/png")
        assert (answer.status_code, answer.content) == (406, b"")
    for path in (
        "/studies/x",
        "/studies/1/series/1.",
        "/studies/1/series/2/instances/a",
    ):
        assert place.read(f"{path}/metadata").status_code == 400


# --- bulk data -----------------------------------------------------------------------


def fetched(api: Api, element: dict) -> bytes:
    answer = api.read(element["BulkDataURI"], "*/*")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == OCTETS
    return answer.content


@covers("D6.6", "6.7.1")
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_binary_values_are_fetched_where_the_metadata_say(place, syntax):
    inner = data_set()
    inner.add_new(0x00091001, "UN", b"inner 1")
    outer = data_set()
    outer.ReferencedStudySequence = [data_set(), inner]
    one = made(
        transfer_syntax=syntax,
        elements=[(0x00110010, "LO", "ACME"), (0x00111001, "UN", b"root value")],
        ReferencedStudySequence=[outer],
        EncapsulatedDocument=b"%PDF-1.7 ",
    )
    assert place.store(one.file).status_code in {200, 202}
    [metadata] = place.metadata(one.path)
    nested = metadata["00081110"]["Value"][0]["00081110"]["Value"][1]["00091001"]
    base = f"{place.base}{one.path}/bulkdata"
    assert nested == {
        "vr": "UN",
        "BulkDataURI": f"{base}/00081110/0/00081110/1/00091001",
    }
    assert metadata["00420011"] == {"vr": "OB", "BulkDataURI": f"{base}/00420011"}
    assert fetched(place.api, nested).rstrip(b"\0") == b"inner 1"
    assert fetched(place.api, metadata["00111001"]) == b"root value"
    assert fetched(place.api, metadata["00420011"]).startswith(b"%PDF-1.7 ")


@covers("D6.6")
def test_pixel_data_is_bulk_data_as_it_stands_in_the_file(place):
    plain = made(**native_file(2))
    compressed = made(**rle_file(2))
    assert place.store(plain.file, compressed.file).status_code == 200
    [metadata] = place.metadata(plain.path)
    assert metadata["7FE00010"]["vr"] == "OW"
    assert fetched(place.api, metadata["7FE00010"]) == b"".join(native(2))
    [metadata] = place.metadata(compressed.path)
    value = fetched(place.api, metadata["7FE00010"])
    assert value in compressed.file
    assert value.startswith(b"\xfe\xff\x00\xe0")
    assert all(frame in value for frame in rle(2))


@covers("D6.6", "D5.5")
def test_bulk_data_come_by_range_alone_and_in_multipart(place, stored):
    [metadata] = place.metadata(stored.path)
    url = metadata["7FE00010"]["BulkDataURI"]
    whole = b"".join(native(1))
    answer = place.api.read(url, OCTETS)
    assert answer.content == whole
    part = place.api.read(url, OCTETS, range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    answer = place.api.read(url, OCTETS, if_none_match=answer.headers["etag"])
    assert (answer.status_code, answer.content) == (304, b"")
    for kind in (OCTETS, "*/*"):
        answer = place.api.read(url, f'multipart/related; type="{kind}"')
        assert parts(answer) == [(OCTETS, whole)]
    assert place.api.get(url).content == whole
    assert place.api.read(url, "image/png").status_code == 406


@covers("D6.6", "3.3")
@pytest.mark.parametrize(
    "path", ["00100010", "7FE00011", "x", "00081110/0/00091001", ""]
)
def test_bulk_data_that_is_not_there_is_404(place, stored, path):
    answer = place.read(f"{stored.path}/bulkdata/{path}", "*/*")
    assert answer.status_code == 404


BIG = "1.2.840.10008.1.2.2"


@covers("D6.6")
def test_words_of_a_big_endian_file_come_in_little_endian_unless_as_stored(place):
    """Octets have no byte order of their own: PS3.18 8.7.3.3.1."""
    table = [0x0102, 0x0304, 0x0506, 0x0708]
    one = made(
        transfer_syntax=BIG,
        elements=[
            (0x00281201, "OW", b"".join(v.to_bytes(2, "big") for v in table)),
            (0x00660016, "OF", b"\x3f\x80\0\0\x40\0\0\0"),
            (0x00420011, "OB", b"\1\2\3\4"),
        ],
    )
    assert place.store(one.file).status_code in {200, 202}
    little = b"".join(v.to_bytes(2, "little") for v in table)
    big = b"".join(v.to_bytes(2, "big") for v in table)
    path = f"{one.path}/bulkdata/00281201"
    for accept in ("*/*", OCTETS, f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.1"):
        assert place.read(path, accept).content == little
        for first_byte, last in ((0, 7), (1, 1), (1, 4), (3, 7), (6, 6)):
            part = place.read(path, accept, range=f"bytes={first_byte}-{last}")
            assert part.content == little[first_byte : last + 1]
    assert place.get(path).content == little
    stored = place.read(path, f"{OCTETS}; transfer-syntax=*")
    assert stored.content == big
    assert stored.headers["content-type"] == f"{OCTETS}; transfer-syntax={BIG}"
    assert stored.headers["etag"] != place.read(path, OCTETS).headers["etag"]
    many = place.read(path, f'multipart/related; type="{OCTETS}"; transfer-syntax=*')
    assert parts(many) == [(f"{OCTETS}; transfer-syntax={BIG}", big)]
    floats = place.read(f"{one.path}/bulkdata/00660016", OCTETS).content
    assert floats == b"\0\0\x80\x3f\0\0\0\x40"
    octets = place.read(f"{one.path}/bulkdata/00420011", OCTETS).content
    assert octets == b"\1\2\3\4"


@covers("D6.6")
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_pixel_data_of_a_big_endian_file_are_those_of_its_twin(api, bits):
    form = {"rows": 4, "columns": 4, "bits_allocated": bits}
    values = [n * 0x01010203 % (1 << bits) for n in range(16)]

    def pixels(order: str) -> bytes:
        return b"".join(v.to_bytes(bits // 8, order) for v in values)

    big = made(transfer_syntax=BIG, frames=[pixels("big")], pixels=form)
    little = made(frames=[pixels("little")], pixels=form)
    assert api.store(big.file, little.file).status_code == 200
    for one in (big, little):
        answer = api.read(f"/v2{one.path}/bulkdata/7FE00010", OCTETS)
        assert answer.content == pixels("little")


@covers("D6.6")
def test_a_text_over_a_mebibyte_is_bulk_data_too(api):
    text = "word " * 300_000
    one = made(TextValue=text)
    assert api.store(one.file).status_code == 200
    [metadata] = api.metadata(f"/v2{one.path}")
    assert metadata["0040A160"]["vr"] == "UT"
    assert fetched(api, metadata["0040A160"]) == text.encode()


# --- what is lost --------------------------------------------------------------------

INTERNAL = (
    "The server encountered an internal error. Please retry the request. If the issue"
    " persists, please contact support."
)


@pytest.fixture
def own(serve) -> Iterator[tuple[Api, Path]]:
    """A server that may be broken, and the folder of its data."""
    if STACK != "embedded":
        pytest.skip("only the embedded stack keeps its blobs in files")
    running = serve()
    with Api(running.url) as api:
        yield api, running.data / "dicom"
    running.stop()


@covers("3.9", "3.1")
def test_an_indexed_file_whose_bytes_are_missing_is_500(api, server):
    one = made(**rle_file())
    assert api.store(one.file).status_code == 200
    lose_file(server.settings, one.sop)
    for path, accept in (
        (one.path, ONE_AS_STORED),
        (one.path, "application/dicom"),
        (one.study_path, "*/*"),
        (f"{one.path}/frames/1", "*/*"),
        (f"{one.path}/rendered", "image/png"),
        (f"{one.path}/bulkdata/7FE00010", "*/*"),
    ):
        answer = api.read(f"/v2{path}", accept)
        assert (answer.status_code, answer.text) == (500, INTERNAL)
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-ms-request-id"])
    assert api.read(f"/v2{one.path}/metadata").status_code == 200


@contextlib.contextmanager
def out_of_order(folder: Path) -> Iterator[None]:
    """A file stands where the folder was."""
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    folder.touch()
    yield
    folder.unlink()
    hidden.rename(folder)


@covers("3.8", "3.1", "6.4.7")
def test_a_store_that_does_not_answer_is_503_and_nothing_is_lost(own):
    api, folder = own
    one, two = made(), made()
    assert api.store(one.file).status_code == 200
    blob = next(iter(folder.rglob("*.dcm")))
    with out_of_order(folder / blob.relative_to(folder).parts[0]):
        for version in ("v1", "v2"):
            answer = api.store(two.file, path=f"/{version}/studies")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["content-type"].startswith("text/plain")
        assert api.read(f"/v2{two.path}", ONE_AS_STORED).status_code == 404
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file
    assert api.store(two.file).status_code == 200
    assert api.read(f"/v2{two.path}", ONE_AS_STORED).content == two.file


@covers("D6.6", "7.5.1")
def test_an_extended_offset_table_is_bulk_data(api):
    stored = rle(2)
    one = made(
        transfer_syntax=str(RLELossless),
        frames=stored,
        pixels={**SHAPE, "extended_offset_table": True},
    )
    assert api.store(one.file).status_code == 200
    [metadata] = api.metadata(f"/v2{one.path}")
    lengths = fetched(api, metadata["7FE00002"])
    assert [
        int.from_bytes(lengths[n : n + 8], "little") for n in range(0, len(lengths), 8)
    ] == [len(frame) for frame in stored]
