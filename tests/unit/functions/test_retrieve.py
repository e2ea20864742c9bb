"""Retrieval over HTTP."""

import base64
import hashlib
import io
import re
import time

import pytest
import pytest_asyncio
from data import instance, multipart, new_uid
from pydicom import dcmread

from dicomweb.multipart import Multipart, Parser, PartBegin, PartData, store_framing

JSON = {"Accept": "application/dicom+json"}
ANY = {"Accept": "*/*"}
SINGLE = {"Accept": "application/dicom; transfer-syntax=*"}
EXPLICIT = "1.2.840.10008.1.2.1"


def parts_of(response) -> list[tuple[dict, bytes]]:
    framing = store_framing(response.headers["content-type"])
    assert isinstance(framing, Multipart)
    parser = Parser(framing.boundary, max_part_bytes=1 << 30)
    parts: list[tuple[dict, bytes]] = []
    for event in [*parser.feed(response.content), *parser.finish()]:
        if isinstance(event, PartBegin):
            parts.append((event.headers, b""))
        elif isinstance(event, PartData):
            parts[-1] = (parts[-1][0], parts[-1][1] + bytes(event.data))
    return parts


class Stored:
    """Two instances of one series, the first with two frames of pixels."""

    def __init__(self) -> None:
        self.study, self.series = new_uid(), new_uid()
        self.sops = [new_uid(), new_uid()]
        shared = {"StudyInstanceUID": self.study, "SeriesInstanceUID": self.series}
        self.files = [
            instance(
                rows=8, columns=8, frames=2, SOPInstanceUID=self.sops[0], **shared
            ),
            instance(SOPInstanceUID=self.sops[1], **shared),
        ]
        self.path = f"/v2/studies/{self.study}"
        self.series_path = f"{self.path}/series/{self.series}"
        self.instance_path = f"{self.series_path}/instances/{self.sops[0]}"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(running_server, tmp_path_factory):
    """One server for all tests: they only read."""
    async with running_server(tmp_path_factory.mktemp("retrieve")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(server) -> Stored:
    return await store(server)


async def store(server) -> Stored:
    stored = Stored()
    body, content_type = multipart(stored.files)
    headers = {"Content-Type": content_type, **JSON}
    response = await server.post("/v2/studies", content=body, headers=headers)
    assert response.status_code == 200
    return stored


async def test_studies_and_series_come_bit_exact_in_parts(server, stored):
    for path in (stored.path, stored.series_path):
        response = await server.get(path, headers=ANY)
        assert response.status_code == 200
        assert int(response.headers["content-length"]) == len(response.content)
        parts = parts_of(response)
        assert sorted(data for _, data in parts) == sorted(stored.files)
        for headers, _ in parts:
            expected = f"application/dicom; transfer-syntax={EXPLICIT}"
            assert headers["content-type"] == expected


async def test_an_instance_comes_alone_with_length_etag_and_digest(server, stored):
    response = await server.get(stored.instance_path, headers=SINGLE)
    assert response.content == stored.files[0]
    assert response.headers["content-type"] == (
        f"application/dicom; transfer-syntax={EXPLICIT}"
    )
    assert int(response.headers["content-length"]) == len(stored.files[0])
    digest = base64.b64encode(hashlib.sha256(stored.files[0]).digest()).decode()
    assert response.headers["digest"] == f"sha-256={digest}"
    head = await server.head(stored.instance_path, headers=SINGLE)
    assert head.content == b""
    assert head.headers["content-length"] == response.headers["content-length"]
    etag = response.headers["etag"]
    for condition in (etag, f'"x", {etag}', f"W/{etag}"):
        unchanged = await server.get(
            stored.instance_path, headers={**SINGLE, "If-None-Match": condition}
        )
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == etag


@pytest.mark.parametrize(
    ("wanted", "status", "piece"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=0-99999999", 206, slice(0, None)),
        ("bytes=1-2,4-5", 200, slice(0, None)),
        ("bytes=5-3", 200, slice(0, None)),
        ("bytes=-", 200, slice(0, None)),
        ("lines=1-2", 200, slice(0, None)),
    ],
)
async def test_one_range_of_an_instance_may_be_asked_for(
    server, stored, wanted, status, piece
):
    response = await server.get(
        stored.instance_path, headers={**SINGLE, "Range": wanted}
    )
    assert response.status_code == status
    assert response.content == stored.files[0][piece]
    if status == 206:
        start, stop, _ = piece.indices(len(stored.files[0]))
        assert response.headers["content-range"] == (
            f"bytes {start}-{stop - 1}/{len(stored.files[0])}"
        )


async def test_a_range_beyond_the_end_is_416(server, stored):
    headers = {**SINGLE, "Range": "bytes=99999999-"}
    response = await server.get(stored.instance_path, headers=headers)
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(stored.files[0])}"


async def test_a_range_of_another_version_gets_everything(server, stored):
    headers = {**SINGLE, "Range": "bytes=0-0", "If-Range": '"other"'}
    response = await server.get(stored.instance_path, headers=headers)
    assert (response.status_code, response.content) == (200, stored.files[0])


async def test_instances_are_transcoded_when_asked_for(server, stored):
    j2k = "1.2.840.10008.1.2.4.90"
    accept = {"Accept": f"application/dicom; transfer-syntax={j2k}"}
    response = await server.get(stored.instance_path, headers=accept)
    assert response.status_code == 200
    dataset = dcmread(io.BytesIO(response.content))
    assert dataset.file_meta.TransferSyntaxUID == j2k
    assert (
        dataset.pixel_array == dcmread(io.BytesIO(stored.files[0])).pixel_array
    ).all()


@pytest.mark.parametrize(
    ("coding", "used"),
    [("identity", None), ("gzip", "gzip"), ("gzip, deflate, br", "deflate")],
)
async def test_metadata_of_all_instances_in_any_coding(server, stored, coding, used):
    for path in (stored.path, stored.series_path):
        response = await server.get(
            f"{path}/metadata", headers={**JSON, "Accept-Encoding": coding}
        )
        assert response.headers.get("content-encoding") == used
        found = {data["00080018"]["Value"][0]: data for data in response.json()}
        assert set(found) == set(stored.sops)
        assert found[stored.sops[0]]["7FE00010"]["BulkDataURI"] == (
            f"http://host:8080{stored.instance_path}/bulkdata/7FE00010"
        )


async def test_metadata_the_client_has_are_not_sent_again(server, stored):
    for path, shape in ((stored.path, r"\d+-2"), (stored.instance_path, r"\d+")):
        first = await server.get(f"{path}/metadata", headers=JSON)
        etag = first.headers["etag"]
        assert re.fullmatch(shape, etag)
        again = await server.get(
            f"{path}/metadata", headers={**JSON, "If-None-Match": etag}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-length"] == "0"
        assert "etag" not in again.headers


async def test_frames_come_in_parts_or_one_alone(server, stored):
    pixels = dcmread(io.BytesIO(stored.files[0])).PixelData
    size = len(pixels) // 2
    frames = [pixels[:size], pixels[size:]]
    response = await server.get(f"{stored.instance_path}/frames/2,1,2", headers=ANY)
    parts = parts_of(response)
    assert [data for _, data in parts] == [frames[1], frames[0], frames[1]]
    single = {"Accept": "application/octet-stream"}
    response = await server.get(f"{stored.instance_path}/frames/2", headers=single)
    assert response.content == frames[1]
    assert response.headers["content-type"] == (
        f"application/octet-stream; transfer-syntax={EXPLICIT}"
    )
    ranged = await server.get(
        f"{stored.instance_path}/frames/2", headers={**single, "Range": "bytes=2-3"}
    )
    assert (ranged.status_code, ranged.content) == (206, frames[1][2:4])


@pytest.mark.parametrize(
    ("frames", "accept", "status"),
    [
        ("0", "*/*", 400),
        ("-1", "*/*", 400),
        ("x", "*/*", 400),
        ("1,", "*/*", 400),
        ("1" * 30, "*/*", 400),
        ("1,2", "application/octet-stream", 400),
        ("3", "*/*", 404),
        ("1", "application/dicom", 406),
    ],
)
async def test_frames_that_cannot_be_had(server, stored, frames, accept, status):
    response = await server.get(
        f"{stored.instance_path}/frames/{frames}", headers={"Accept": accept}
    )
    assert response.status_code == status


async def test_bulk_data_are_the_bytes_of_the_element(server, stored):
    pixels = dcmread(io.BytesIO(stored.files[0])).PixelData
    path = f"{stored.instance_path}/bulkdata/7FE00010"
    response = await server.get(path, headers=ANY)
    assert response.content == pixels
    assert response.headers["content-type"] == "application/octet-stream"
    wanted = {**ANY, "Range": "bytes=1-3"}
    assert (await server.get(path, headers=wanted)).content == pixels[1:4]
    headers = {"Accept": 'multipart/related; type="*/*"'}
    [(_, data)] = parts_of(await server.get(path, headers=headers))
    assert data == pixels
    missing = await server.get(f"{stored.instance_path}/bulkdata/00091001", headers=ANY)
    assert missing.status_code == 404


@pytest.mark.parametrize("path", ["rendered", "frames/2/rendered"])
@pytest.mark.parametrize(
    ("accept", "media_type", "magic"),
    [("image/jpeg", "image/jpeg", b"\xff\xd8"), ("image/png", "image/png", b"\x89PNG")],
)
async def test_images_are_rendered(server, stored, path, accept, media_type, magic):
    response = await server.get(
        f"{stored.instance_path}/{path}?quality=80", headers={"Accept": accept}
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.content.startswith(magic)


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("rendered?quality=0", "image/jpeg", 400),
        ("rendered?quality=x", "image/jpeg", 400),
        ("rendered", "image/jpeg, image/png", 406),
        ("rendered", "image/gif", 406),
        ("frames/0/rendered", "image/jpeg", 400),
        ("frames/1,2/rendered", "image/jpeg", 400),
        ("frames/3/rendered", "image/jpeg", 404),
    ],
)
async def test_images_that_cannot_be_had(server, stored, path, accept, status):
    response = await server.get(
        f"{stored.instance_path}/{path}", headers={"Accept": accept}
    )
    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/studies/1.2", 404, "The specified study cannot be found."),
        ("/v2/studies/1.2/series/1", 404, "The specified series cannot be found."),
        (
            "/v2/studies/1.2/series/1/instances/2",
            404,
            "The specified instance cannot be found.",
        ),
        ("/v2/studies/a.b", 400, None),
        ("/v2/studies/1.2/series/x", 400, None),
    ],
)
async def test_what_is_not_there_is_named(server, path, status, text):
    for suffix in ("", "/metadata"):
        response = await server.get(path + suffix, headers=ANY)
        assert response.status_code == status
        assert text in {None, response.text}


async def test_what_cannot_be_negotiated_is_406_even_if_it_is_not_there(server):
    for accept in ("application/dicom", "image/png"):
        response = await server.get("/v2/studies/1.2", headers={"Accept": accept})
        assert response.status_code == 406


async def test_a_blob_that_is_missing_is_500_before_any_byte(server):
    stored = await store(server)
    async for blob in server.runtime.blobs.list(""):
        if stored.sops[0] in blob.name:
            await server.runtime.blobs.delete(blob.name)
    for headers in (SINGLE, ANY):
        response = await server.get(stored.instance_path, headers=headers)
        assert response.status_code == 500


async def test_a_study_is_transcoded_part_by_part(server):
    j2k = "1.2.840.10008.1.2.4.90"
    stored = Stored()
    body, content_type = multipart(stored.files[:1])
    headers = {"Content-Type": content_type, **JSON}
    await server.post("/v2/studies", content=body, headers=headers)
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={j2k}'
    response = await server.get(stored.path, headers={"Accept": accept})
    [(headers, data)] = parts_of(response)
    assert headers["content-type"] == f"application/dicom; transfer-syntax={j2k}"
    assert dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == j2k


async def test_head_of_a_study_tells_its_length(server, stored):
    head = await server.head(stored.path, headers=ANY)
    whole = await server.get(stored.path, headers=ANY)
    assert head.content == b""
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_what_fails_while_being_sent_is_logged_and_never_looks_whole(
    server, caplog
):
    stored = await store(server)
    blobs = [blob.name async for blob in server.runtime.blobs.list("")]
    for sop in sorted(stored.sops)[:1]:  # parts come by id descending: the last one
        [name] = [name for name in blobs if sop in name]
        await server.runtime.blobs.delete(name)
    with pytest.raises(Exception, match=name.rsplit("/", 1)[1]):
        await server.get(stored.path, headers=ANY)
    assert "broke while being sent" in caplog.text


@pytest.mark.parametrize(
    ("accepted", "used"),
    [
        ("gzip;q=x", None),
        ("*", "deflate"),
        ("*;q=0.5, deflate;q=0", "gzip"),
        ("gzip;q=0.5, deflate;q=0.1", "gzip"),
    ],
)
async def test_the_coding_with_the_highest_weight_is_used(
    server, stored, accepted, used
):
    response = await server.get(
        f"{stored.path}/metadata", headers={**JSON, "Accept-Encoding": accepted}
    )
    assert response.headers.get("content-encoding") == used
    assert len(response.json()) == 2


@pytest.mark.parametrize("name", ["Range", "If-Range", "If-None-Match"])
async def test_long_headers_that_mean_nothing_cost_no_time(server, stored, name):
    length, since = 10_000, time.process_time()
    for text in (
        f"bytes={' ' * 4 * length}x",
        f"bytes=1{' ' * 4 * length}x",
        f'{" " * length}"',
        f'x{" " * length}x, "{" " * length}',
        "x" * length + '"',
        '"' * length,
        "," * length,
        "W/" * length,
    ):
        headers = {"Accept": "application/dicom; transfer-syntax=*", name: text}
        response = await server.get(stored.instance_path, headers=headers)
        assert (response.status_code, response.content) == (200, stored.files[0])
    assert time.process_time() - since < 1


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ('"{}"', 304),
        ("{}", 304),
        ('W/"{}"', 304),
        ('"x", "{}"', 304),
        ('"x" ,{} , "y"', 304),
        ("*", 304),
        ('"x,{}"', 200),
        ('"{},x"', 200),
        ('"{}', 200),
        ("x{}", 200),
        ('""{}""', 200),
        ("", 200),
    ],
)
async def test_only_a_whole_entity_tag_counts(server, stored, tags, status):
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    first = await server.get(stored.instance_path, headers=accept)
    etag = first.headers["etag"].strip('"')
    headers = {**accept, "If-None-Match": tags.format(etag)}
    response = await server.get(stored.instance_path, headers=headers)
    assert response.status_code == status
