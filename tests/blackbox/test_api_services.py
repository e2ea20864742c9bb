"""Sections 3 and 5, decisions on every answer: errors, CORS, health, OpenAPI, URLs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml
from blackbox.api import (
    AS_STORED,
    DICOM_JSON,
    FILE_LIMIT,
    ONE_AS_STORED,
    ORIGIN,
    PUBLIC_URL,
    Api,
    comments,
    failed_items,
    first,
    made,
    reason,
)
from blackbox.hosts import Running
from blackbox.rules import covers
from blackbox.stacks import STACK

VERSIONS = ["v1.0-prerelease", "v1", "v2"]


@pytest.fixture(scope="module")
def settled(serve, tmp_path_factory) -> Iterator[Api]:
    """A server behind a proxy, for every origin, with a viewer."""
    viewer = tmp_path_factory.mktemp("viewer")
    (viewer / "index.html").write_text("<html>a viewer</html>")
    running = serve(
        DICOM_CORS_ORIGINS="*",
        DICOM_TRUST_FORWARDED="true",
        DICOM_VIEWER=str(viewer),
    )
    with Api(running.url) as api:
        yield api
    running.stop()


# --- errors --------------------------------------------------------------------------


@covers("3.1", "3.2", "3.3", "3.4", "3.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_is_one_sentence_of_plain_text(api, version):
    one = made().file
    for answer, status in (
        (api.read(f"/{version}/studies?limit=0"), 400),
        (api.read(f"/{version}/studies/1.2.404", "*/*"), 404),
        (api.read(f"/{version}/studies/1.2.404", "text/html"), 406),
        (api.post_body(f"/{version}/studies", one, "text/plain"), 415),
        (api.read(f"/{version}/partitions"), 400),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.strip()
        assert not re.search(r"[<{]|Traceback|\n", answer.text)


@covers("3.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_there_is_404_and_named(api, version):
    one = made(frames=1)
    api.store(one.file)
    base = f"/{version}/studies"
    for path, name in (
        ("1.2.404", "study"),
        (f"{one.study}/series/1.2.404", "series"),
        (f"{one.study}/series/{one.series}/instances/1.2.404", "instance"),
        (f"{one.study}/series/{one.series}/instances/{one.sop}/frames/2", "frame"),
    ):
        answer = api.read(f"{base}/{path}", "*/*")
        expected = (404, f"The specified {name} cannot be found.")
        assert (answer.status_code, answer.text) == expected


@covers("3.5", "6.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_that_is_there_already_is_409(api, version):
    one = made()
    assert api.store(one.file, path=f"/{version}/studies").status_code == 200
    again = api.store(one.file, path=f"/{version}/studies")
    assert (again.status_code, reason(again)) == (409, 45070)


@covers("3.6", "6.1.8")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_that_is_too_large_is_413_and_says_the_limit(special, version):
    body = bytes(FILE_LIMIT + 1)
    answer = special.post_body(f"/{version}/studies", body, "application/dicom")
    assert answer.status_code == 413
    assert f" {FILE_LIMIT} bytes" in answer.text


@covers("3.7", "6.1.5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image/jpeg"])
def test_a_wrong_content_type_is_415_and_named(api, kind, version):
    answer = api.post_body(f"/{version}/studies", made().file, kind)
    assert answer.status_code == 415
    assert f"'{kind}'" in answer.text


BAD_DATE = (
    "DICOM100: (0008,0020) - Dicom element 'StudyDate' failed validation for VR 'DA':"
    " Value cannot be parsed as a valid date."
)


@covers("3.11", "6.2.1")
@pytest.mark.parametrize(
    ("version", "values", "comment"),
    [
        (
            "v1",
            {"PatientID": None},
            "DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing.",
        ),
        (
            "v2",
            {"PatientID": None},
            "DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing.",
        ),
        (
            "v1",
            {"StudyDate": "NotADate"},
            BAD_DATE,
        ),
    ],
)
def test_comments_are_word_for_word(api, version, values, comment):
    answer = api.store(made(**values).file, path=f"/{version}/studies")
    assert answer.status_code == 409
    [item] = failed_items(answer)
    assert comments(item) == [comment]


# --- CORS ----------------------------------------------------------------------------


@covers("5.4.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_pages_of_a_listed_origin_may_read_answers(special, version):
    one = made()
    special.store(one.file)
    for path in (f"/{version}{one.path}/metadata", f"/{version}/studies?limit=0"):
        answer = special.read(path, origin=ORIGIN)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "Warning", "Link"} <= set(exposed)
        assert "Origin" in answer.headers["vary"]
        for other in ("https://evil.example.org", ORIGIN + ".evil", "null"):
            answer = special.read(path, origin=other)
            assert "access-control-allow-origin" not in answer.headers


@covers("5.4.1")
def test_no_page_may_read_answers_unless_origins_are_listed(api, settled):
    for answer in (
        api.read("/v2/studies?limit=1", origin=ORIGIN),
        api.request("OPTIONS", "/v2/studies", headers=ASKING),
    ):
        assert answer.is_success
        assert "access-control-allow-origin" not in answer.headers
    answer = settled.read("/v2/studies?limit=1", origin="https://any.example.org")
    assert answer.headers["access-control-allow-origin"] == "*"


ASKING = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


@covers("5.4.2")
@pytest.mark.parametrize(
    "path",
    [
        "/v1/studies",
        "/v2/studies/1.2/series/1.3/instances/1.4/frames/1",
        "/v2/partitions/a/studies",
        "/v2/changefeed",
        "/health/check",
        "/nothing/here",
    ],
)
def test_a_preflight_request_is_answered_on_every_path(special, path):
    answer = special.request("OPTIONS", path, headers=ASKING)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    allowed = answer.headers["access-control-allow-methods"].split(", ")
    assert {"GET", "POST", "DELETE"} <= set(allowed)
    headers = answer.headers["access-control-allow-headers"].lower()
    assert headers == "authorization, content-type"
    assert int(answer.headers["access-control-max-age"]) > 0


# --- health --------------------------------------------------------------------------


@covers("5.5.1", "2.39")
def test_a_healthy_server_has_one_row_for_each_check(api):
    answer = api.get("/health/check")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"overallStatus", "details"}
    assert body["overallStatus"] == "Healthy"
    assert len(body["details"]) >= 2
    for row in body["details"]:
        assert set(row) == {"name", "status", "description"}
        assert row["status"] == "Healthy"
    head = api.head("/health/check")
    assert (head.status_code, head.content) == (200, b"")


@contextmanager
def without_instances(running: Running) -> Iterator[None]:
    """The files cannot be reached: their folder is gone, or their container."""
    if STACK == "embedded":
        folder = running.data / "dicom" / "blobs"
        hidden = folder.with_name("hidden")
        folder.rename(hidden)
        yield
        hidden.rename(folder)
        return
    from azure.storage.blob import BlobServiceClient

    connection = running.settings["DICOM_BLOB_CONNECTION"]
    with BlobServiceClient.from_connection_string(connection) as service:
        service.delete_container(running.settings["DICOM_BLOB_CONTAINER"])
        yield
        service.create_container(running.settings["DICOM_BLOB_CONTAINER"])


@covers("5.5.2")
def test_an_unhealthy_server_is_503_and_says_why(serve):
    running = serve()
    with Api(running.url) as api:
        assert api.get("/health/check").status_code == 200
        with without_instances(running):
            answer = api.get("/health/check")
        assert answer.status_code == 503
        assert answer.json()["overallStatus"] == "Unhealthy"
        states = {row["name"]: row["status"] for row in answer.json()["details"]}
        assert states == {"Index": "Healthy", "Instances": "Unhealthy"}
        assert api.get("/health/check").status_code == 200
    running.stop()


# --- OpenAPI -------------------------------------------------------------------------


@covers("5.6.1", "2.40")
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_described_the_same_in_yaml_and_json(api, version):
    as_yaml = api.get(f"/{version}/api.yaml")
    as_json = api.get(f"/{version}/api.json")
    assert (as_yaml.status_code, as_json.status_code) == (200, 200)
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert as_json.headers["content-type"] == "application/json"
    document = as_json.json()
    assert yaml.safe_load(as_yaml.text) == document
    assert document["openapi"] == "3.1.0"
    assert all(path.startswith(f"/{version}/") for path in document["paths"])
    for path in ("studies", "studies/{study}/metadata", "changefeed/latest"):
        assert "get" in document["paths"][f"/{version}/{path}"]
    updates = f"/{version}/studies/$bulkUpdate" in document["paths"]
    assert updates == (version == "v2")


@covers("5.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_description_has_title_licence_and_the_servers_url(api, special, version):
    for server, root in ((api, str(api.base_url).rstrip("/")), (special, PUBLIC_URL)):
        document = server.get(f"/{version}/api.json").json()
        assert document["info"]["title"]
        assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
        assert document["info"]["version"] == version.removeprefix("v")
        assert document["servers"] == [{"url": root}]


@covers("5.6.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_documents_its_errors(api, version):
    document = api.get(f"/{version}/api.json").json()
    operations = [
        operation
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(operations) > 20
    for operation in operations:
        reference = operation["responses"]["default"]["$ref"]
        assert reference == "#/components/responses/Error"
        assert any(status < "400" for status in operation["responses"])
    error = document["components"]["responses"]["Error"]
    assert list(error["content"]) == ["text/plain"]


FORMS = (
    'multipart/related; type="*/*"',
    "*/*",
    ONE_AS_STORED,
    AS_STORED,
    "application/octet-stream",
    DICOM_JSON,
    "image/jpeg",
    "image/png",
)
CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"Range": "bytes=0-1"},
    {"Range": "bytes=99999999-"},
    {"If-None-Match": "*"},
)


@covers("5.6.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_retrieving_answers_what_is_described_and_all_of_it(api, version):
    """Statuses, media types and headers of every form of every such route."""
    one = made(frames=2)
    assert api.store(one.file).status_code == 200
    values = {
        "{study}": one.study,
        "{series}": one.series,
        "{instance}": one.sop,
        "{frames}": "2",
        "{frame}": "1",
        "{path}": "7FE00010",
    }
    paths = api.get(f"/{version}/api.json").json()["paths"]
    described = {
        path: methods["get"]["responses"]
        for path, methods in paths.items()
        if methods.get("get", {}).get("operationId", "").startswith("Retrieve")
    }
    assert len(described) == 10
    for template, responses in described.items():
        path = template
        for name, value in values.items():
            path = path.replace(name, value)
        seen: dict[str, set[str]] = {}
        names = {n for r in responses.values() for n in r.get("headers", ())}
        for accept in FORMS:
            for condition in CONDITIONS:
                answer = api.get(path, headers={"Accept": accept, **condition})
                kinds = seen.setdefault(str(answer.status_code), set())
                if answer.content:
                    kinds.add(answer.headers["content-type"].partition(";")[0])
                names -= {name for name in names if name in answer.headers}
        assert "406" in seen
        del seen["406"]
        assert (template, names) == (template, set())
        assert (template, seen) == (
            template,
            {
                status: set(response.get("content", ()))
                for status, response in responses.items()
                if status not in {"default", "406"}
            },
        )


@covers("5.6.1", "4.1")
def test_a_description_names_partitions_where_they_are_on(partitioned):
    paths = partitioned.get("/v2/api.json").json()["paths"]
    assert "/v2/partitions/{partition}/studies" in paths
    assert "/v2/studies" not in paths
    assert "/v2/changefeed" in paths


# --- the viewer ----------------------------------------------------------------------


@covers("2.41")
def test_the_root_leads_to_the_viewer(api, settled):
    for server in (api, settled):
        answer = server.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
    assert 'href="/viewer/"' in settled.get("/").text
    for path in ("/viewer", "/viewer/", "/viewer/index.html", "/viewer/any/page"):
        answer = settled.get(path)
        assert (answer.status_code, answer.text) == (200, "<html>a viewer</html>")
        assert answer.headers["content-type"].startswith("text/html")
    assert settled.get("/viewer/missing.js").status_code == 404
    assert settled.get("/viewer/..%2f..%2fetc%2fpasswd").status_code != 500
    assert "root:" not in settled.get("/viewer/..%2f..%2f..%2fetc%2fpasswd").text


@covers("2.41")
def test_without_a_viewer_the_page_says_how_to_get_it(special, serve, tmp_path):
    running = serve(DICOM_VIEWER=str(tmp_path))
    with Api(running.url) as api:
        answer = api.get("/viewer/")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "python -m cli viewer" in answer.text
    running.stop()


# --- every answer --------------------------------------------------------------------


@covers("D5.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({}, "http://pacs.example.org"),
        (
            {
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "front.example.org:8443",
            },
            "https://front.example.org:8443",
        ),
        (
            {
                "X-Forwarded-Proto": "https, http",
                "X-Forwarded-Host": "front.example.org, inner",
            },
            "https://front.example.org",
        ),
    ],
)
def test_urls_start_with_the_forwarded_host_where_that_is_trusted(
    api, settled, headers, root, version
):
    for server, expected in ((settled, root), (api, "http://pacs.example.org")):
        one = made(frames=1)
        answer = server.post(
            f"/{version}{one.study_path}",
            content=one.file,
            headers={
                "Content-Type": "application/dicom",
                "Accept": DICOM_JSON,
                "Host": "pacs.example.org",
                **headers,
            },
        )
        url = f"{expected}/{version}{one.study_path}"
        assert first(answer.json()["00081190"]) == url
        metadata = server.get(
            f"/{version}{one.path}/metadata",
            headers={"Accept": DICOM_JSON, "Host": "pacs.example.org", **headers},
        )
        bulk = metadata.json()[0]["7FE00010"]["BulkDataURI"]
        assert bulk.startswith(f"{expected}/{version}{one.path}/bulkdata/")


@covers("D5.2")
def test_head_tells_what_get_would_send(api):
    one = made(frames=2)
    api.store(one.file)
    jpeg_2000 = 'multipart/related; type="image/jp2"'
    lossless = "transfer-syntax=1.2.840.10008.1.2.4.90"
    compressed = f'multipart/related; type="application/dicom"; {lossless}'
    for path, accept in (
        (one.path, ONE_AS_STORED),
        (one.study_path, "*/*"),
        (one.study_path, compressed),
        (f"{one.path}/frames/1,2,1", "*/*"),
        (f"{one.path}/frames/1,2", jpeg_2000),
        (f"{one.path}/rendered", "image/png"),
        (f"{one.path}/metadata", DICOM_JSON),
        (f"{one.path}/frames/1", "application/octet-stream"),
        ("/studies?limit=1", DICOM_JSON),
        ("/changefeed/latest", "*/*"),
    ):
        got = api.read(f"/v2{path}", accept)
        head = api.head(f"/v2{path}", headers={"Accept": accept})
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-length", "digest", "vary"):
            assert (path, name, head.headers.get(name)) == (
                path,
                name,
                got.headers.get(name),
            )
        kinds = [each.headers["content-type"] for each in (head, got)]
        assert len({kind.partition("; boundary=")[0] for kind in kinds}) == 1
    assert api.head("/v2/studies/1.2.404", headers={"Accept": "*/*"}).content == b""


@covers("D5.3")
def test_every_answer_has_a_request_id_of_its_own(api):
    seen = [
        api.request(method, path).headers["x-ms-request-id"]
        for method, path in (
            ("GET", "/v2/studies/1.a"),
            ("GET", "/health/check"),
            ("DELETE", "/v2/studies/1.2.404"),
            ("POST", "/v2/studies"),
            ("OPTIONS", "/v2/studies"),
            ("PUT", "/v2/studies"),
            ("GET", "/nothing"),
            ("GET", "/"),
        )
    ]
    assert len(set(seen)) == len(seen)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in seen)


@covers("D5.4")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", "br", "gzip;q=0"])
def test_short_json_and_unknown_codings_come_plain(api, coding):
    one = made()
    api.store(one.file)
    short = api.read(
        "/v2/changefeed/latest?includeMetadata=false", accept_encoding=coding
    )
    assert "content-encoding" not in short.headers
    long = api.read("/v2/api.json", accept_encoding=coding)
    expected = coding if coding in {"gzip", "deflate"} else None
    assert long.headers.get("content-encoding") == expected
