"""Store, search and delete over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from data import instance, multipart, new_uid, series
from starlette.requests import ClientDisconnect

from dicomweb.query_tags import Level, QueryTag, TagStatus

JSON = {"Accept": "application/dicom+json"}
DICOM = {"Content-Type": "application/dicom", **JSON}


async def store(server, *files: bytes, path: str = "/v2/studies"):
    body, content_type = multipart(files)
    return await server.post(
        path, content=body, headers={"Content-Type": content_type, **JSON}
    )


async def test_a_file_in_a_single_part_is_stored(server):
    study = new_uid()
    response = await server.post(
        "/v2/studies", content=instance(StudyInstanceUID=study), headers=DICOM
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    [item] = response.json()["00081199"]["Value"]
    [url] = item["00081190"]["Value"]
    assert url.startswith(f"http://host:8080/v2/studies/{study}/series/")
    assert (await server.get(url, headers={"Accept": "*/*"})).status_code == 200


async def test_what_is_there_already_conflicts(server):
    file = instance()
    assert (await store(server, file)).status_code == 200
    again = await store(server, file)
    assert again.status_code == 409
    [item] = again.json()["00081198"]["Value"]
    assert item["00081197"]["Value"] == [45070]
    both = await store(server, file, instance())
    assert both.status_code == 202
    assert set(both.json()) == {"00081198", "00081199"}


async def test_instances_of_another_study_than_the_path_says_are_refused(server):
    study = new_uid()
    response = await store(
        server,
        instance(StudyInstanceUID=study),
        instance(),
        path=f"/v2/studies/{study}",
    )
    assert response.status_code == 202
    dataset = response.json()
    assert dataset["00081190"]["Value"] == [f"http://host:8080/v2/studies/{study}"]
    assert dataset["00081198"]["Value"][0]["00081197"]["Value"] == [43264]


async def test_a_body_without_parts_is_204(server):
    response = await server.post(
        "/v2/studies",
        content=b"--b--\r\n",
        headers={"Content-Type": "multipart/related; boundary=b", **JSON},
    )
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=b", b"--b--", 415),
        ("multipart/related", b"--b--", 415),
        ("multipart/related; boundary=b", b"--b\r\n\r\nx\r\n--b--", 415),
        ("multipart/related; boundary=b; start=x", b"--b--", 400),
        ("multipart/related; boundary=b", b"nonsense", 400),
        ("application/dicom", b"no DICOM", 409),
    ],
)
async def test_bodies_that_are_not_files_are_refused(
    server, content_type, body, status
):
    response = await server.post(
        "/v2/studies", content=body, headers={"Content-Type": content_type, **JSON}
    )
    assert response.status_code == status


async def test_bodies_may_come_in_chunks(server):
    body, content_type = multipart([instance(), instance()])

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    response = await server.post(
        "/v2/studies",
        content=chunks(),
        headers={"Content-Type": content_type, **JSON},
    )
    assert response.status_code == 200
    assert len(response.json()["00081199"]["Value"]) == 2


@pytest.mark.parametrize("accept", ["application/dicom", "image/*", "", "nonsense"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/studies"),
        ("GET", "/v2/studies"),
        ("GET", "/v2/studies/not-a-uid/metadata"),
    ],
)
async def test_who_does_not_take_dicom_json_gets_406_before_all_else(
    server, method, path, accept
):
    response = await server.request(method, path, headers={"Accept": accept})
    assert (response.status_code, response.content) == (406, b"")


async def test_several_values_of_an_indexed_attribute_are_warned_of(server):
    response = await store(server, instance(PatientID=["A", "B"]))
    assert response.headers["warning"].startswith("299 host: ")


async def test_version_1_tells_nothing_of_warnings(server):
    response = await store(server, instance(), path="/v1/studies")
    assert response.status_code == 200
    assert "00741048" not in response.json()["00081199"]["Value"][0]


async def test_results_come_newest_first_page_by_page(server):
    studies = [new_uid() for _ in range(5)]
    for study in studies:
        await store(server, instance(StudyInstanceUID=study))
    url = "/v2/studies?limit=2&includefield=all&PatientID=P-0001"
    found = []
    while url:
        response = await server.get(url, headers=JSON)
        assert response.status_code == 200
        found += [row["0020000D"]["Value"][0] for row in response.json()]
        url = response.links.get("next", {}).get("url")
    assert found == studies[::-1]
    by_offset = await server.get("/v2/studies?limit=2&offset=3", headers=JSON)
    assert [row["0020000D"]["Value"][0] for row in by_offset.json()] == studies[1::-1]


async def test_every_search_resource_answers(server):
    study, one = new_uid(), new_uid()
    await store(server, *series(2, StudyInstanceUID=study, SeriesInstanceUID=one))
    for path, count in (
        ("studies", 1),
        ("series", 1),
        ("instances", 2),
        (f"studies/{study}/series", 1),
        (f"studies/{study}/instances", 2),
        (f"studies/{study}/series/{one}/instances", 2),
    ):
        for version in ("v1.0-prerelease", "v1", "v2"):
            response = await server.get(f"/{version}/{path}", headers=JSON)
            assert len(response.json()) == count


async def test_without_results_it_is_204(server):
    response = await server.get("/v2/studies?PatientID=nobody", headers=JSON)
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize(
    "query", ["limit=0", "nonsense=1", "PatientID=1&00100020=1", "cursor=nonsense"]
)
async def test_a_query_that_breaks_a_rule_is_400(server, query):
    response = await server.get(f"/v2/studies?{query}", headers=JSON)
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("text/plain")


async def test_large_results_are_compressed_as_the_client_likes_it(server):
    await store(server, *[instance() for _ in range(5)])
    sizes = {}
    for coding in ("identity", "gzip", "deflate", "br;q=1, gzip;q=0.5"):
        response = await server.get(
            "/v2/studies", headers={**JSON, "Accept-Encoding": coding}
        )
        assert len(response.json()) == 5
        sizes[coding] = response.headers.get("content-encoding")
        assert response.headers["vary"] == "Accept-Encoding"
    assert list(sizes.values()) == [None, "gzip", "deflate", "gzip"]


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_what_is_deleted_is_gone_at_once(server, depth):
    study, one, sop = new_uid(), new_uid(), new_uid()
    await store(
        server,
        instance(StudyInstanceUID=study, SeriesInstanceUID=one, SOPInstanceUID=sop),
    )
    parts = [("studies", study), ("series", one), ("instances", sop)][:depth]
    path = "/v2/" + "/".join(f"{kind}/{uid}" for kind, uid in parts)
    response = await server.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    assert (await server.delete(path)).status_code == 404
    assert (await server.get("/v2/studies", headers=JSON)).status_code == 204


async def test_malformed_uids_are_400_and_trailing_blanks_are_no_part_of_them(server):
    study = new_uid()
    await store(server, instance(StudyInstanceUID=study))
    assert (await server.delete("/v2/studies/1-2")).status_code == 400
    assert (await server.delete(f"/v2/studies/{study}%20")).status_code == 204


async def test_links_to_the_next_page_keep_the_path_and_the_query(
    running_server, tmp_path
):
    settings = {"data_partitions": True, "public_url": "https://pacs.example/dicom"}
    study = new_uid()
    async with running_server(tmp_path, **settings) as server:
        body, content_type = multipart(series(2, StudyInstanceUID=study))
        stored = await server.post(
            "/v2/partitions/P/studies",
            content=body,
            headers={"Content-Type": content_type, **JSON},
        )
        assert stored.status_code == 200
        path = f"/partitions/P/studies/{study}%20/instances"
        found = await server.get(
            f"/v2{path}?limit=1&offset=0&includefield=all", headers=JSON
        )
    start = f"https://pacs.example/dicom/v2{path}?limit=1&includefield=all&cursor="
    assert found.links["next"]["url"].startswith(start)


@pytest.mark.parametrize("in_parts", [True, False])
async def test_a_file_over_the_limit_is_413_and_leaves_nothing(
    running_server, tmp_path, in_parts
):
    async with running_server(tmp_path, max_file_bytes=2000) as server:
        if in_parts:
            response = await store(server, instance(frames=20))
        else:
            response = await server.post(
                "/v2/studies", content=instance(frames=20), headers=DICOM
            )
        assert response.status_code == 413
        assert (await server.get("/v2/studies", headers=JSON)).status_code == 204
    left = [path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file()]
    assert left == []


async def test_a_client_that_goes_away_leaves_nothing(running_server, tmp_path):
    body, content_type = multipart([instance(frames=20)])

    async def broken() -> AsyncIterator[bytes]:
        yield body[:3000]
        raise ClientDisconnect

    async with running_server(tmp_path) as server:
        request = server.build_request(
            "POST",
            "/v2/studies",
            content=broken(),
            headers={"Content-Type": content_type, **JSON},
        )
        assert (await server.send(request)).status_code == 400
        assert (await server.get("/v2/studies", headers=JSON)).status_code == 204
    left = [path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file()]
    assert left == []


async def test_an_extended_attribute_can_be_searched_by_and_its_gaps_are_told(server):
    await store(server, instance(SliceThickness="1.5"))
    tag = QueryTag(1, "00180050", "DS", Level.INSTANCE, TagStatus.READY, error_count=2)
    search = "/v2/instances?SliceThickness=1.5"
    assert (await server.get(search, headers=JSON)).status_code == 400
    await server.runtime.tags.change(lambda old: replace(old, tags=(tag,), next_key=2))
    response = await server.get(search, headers=JSON)
    assert response.status_code == 204  # stored before the tag was added
    assert response.headers["erroneous-dicom-attributes"] == "SliceThickness"
    await server.runtime.tags.read()
    await store(server, instance(SliceThickness="1.50"))
    found = await server.get(search, headers=JSON)
    assert [row["00180050"]["Value"] for row in found.json()] == [[1.5]]
