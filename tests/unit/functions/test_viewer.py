"""The viewer's files."""

import base64
import gzip
import hashlib

import pytest


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "viewer"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<html>viewer</html>")
    (folder / "app-config.js").write_text("window.config = {}")
    (folder / "app-config.js.gz").write_bytes(gzip.compress(b"window.config = {}"))
    (folder / "assets/app.0123456789abcdef0123.js").write_text("bundle")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


PLAIN = {"Accept-Encoding": "identity"}


@pytest.mark.parametrize(
    "path", ["/viewer", "/viewer/", "/viewer/index.html", "/viewer/studies/1.2.3"]
)
async def test_pages_of_the_viewer_get_its_document(server, folder, path):
    response = await server.get(path)
    assert response.text == "<html>viewer</html>"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"


async def test_files_come_as_they_are_or_compressed_beforehand(server, folder):
    plain = await server.get("/viewer/app-config.js", headers=PLAIN)
    packed = await server.get("/viewer/app-config.js")
    assert plain.text == packed.text == "window.config = {}"
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"].startswith("text/javascript")
    again = await server.get(
        "/viewer/app-config.js", headers={"If-None-Match": packed.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_files_with_a_hash_in_their_name_are_kept_for_a_day(server, folder):
    response = await server.get("/viewer/assets/app.0123456789abcdef0123.js")
    assert response.headers["cache-control"] == "max-age=86400"


@pytest.mark.parametrize(
    "path",
    [
        "/viewer/missing.js",
        "/viewer/../secret.txt",
        "/viewer/%2e%2e/secret.txt",
        "/viewer/..%2fsecret.txt",
        "/viewer/a%00.js",
    ],
)
async def test_files_that_are_not_there_or_outside_are_404(server, folder, path):
    response = await server.get(path)
    assert response.status_code == 404
    assert "secret" not in response.text


async def test_the_start_page_leads_to_the_viewer_and_names_the_addresses(
    server, folder
):
    page = (await server.get("/", headers={"Host": "pacs.example:81"})).text
    assert '<a class="main" href="/viewer/">' in page
    assert "<code>http://pacs.example:81/v2</code>" in page
    for path in ("/v2/studies?limit=10", "/v2/changefeed", "/v2/api.yaml"):
        assert f'href="http://pacs.example:81{path}"' in page
        assert (await server.get(path)).status_code in {200, 204}
    assert "Nobody is asked for a password" in page


async def test_the_start_page_says_when_there_is_no_viewer(server):
    page = (await server.get("/")).text
    assert "There is no viewer yet" in page
    assert 'href="/viewer/"' not in page


async def test_a_page_of_ours_loads_nothing_and_runs_nothing(server):
    for path in ("/", "/viewer/"):
        response = await server.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        style = response.text.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        assert "<script" not in response.text
        assert "src=" not in response.text


@pytest.mark.parametrize("path", ["/v2", "/v1/", "/v1.0-prerelease"])
async def test_who_opens_the_address_for_clients_is_told_of_the_start_page(
    server, path
):
    answer = await server.get(path, headers={"Host": "pacs.example"})
    assert answer.status_code == 404
    assert answer.text.endswith("for people: http://pacs.example/")


async def test_a_host_name_is_text_on_the_start_page(server):
    answer = await server.get("/", headers={"Host": 'a"><script>x</script>'})
    assert "<script" not in answer.text


async def test_without_the_viewer_a_page_says_how_to_get_it(server):
    response = await server.get("/viewer/")
    assert response.status_code == 404
    assert "python -m cli viewer" in response.text
