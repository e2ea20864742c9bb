"""A server with security, attacked from outside over real connections."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from blackbox.api import AS_STORED, Api, made
from blackbox.hosts import Running, refused_start
from blackbox.issuers import MockIssuer, published
from blackbox.secured import SECOND, authorization, caller, settings
from data import new_uid
from issuer import APPLICATION, BAD_TOKENS, Issuer, new_key, public_jwk
from tricks import HEADERS, INTO_SECRET

from functions.routes import http_functions

CANARY = "CANARY-93B1"
VALUES = {
    "version": "v2",
    "document": "api.yaml",
    "ignored": "",
    "partition": "radiology",
    "path": "x",
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with published() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secured")


@pytest.fixture(scope="module")
def secured(serve: Callable[..., Running], issuer: Issuer, folder: Path) -> Running:
    """A server with data partitions that trusts the issuer."""
    more = {"DICOM_DATA_PARTITIONS": "true", "AzureWebJobsDisableHomepage": "true"}
    return serve(**settings(issuer.name, folder, **more))


@pytest.fixture(scope="module")
def secret(secured: Running, issuer: Issuer) -> str:
    """A study in the partition `Secret`."""
    study = new_uid()
    file = made(StudyInstanceUID=study, PatientID=CANARY).file
    with caller(secured.url, issuer, "writer") as writer:
        assert writer.store(file, path="/v2/partitions/Secret/studies").is_success
        own = made(PatientID="own").file
        assert writer.store(own, path="/v2/partitions/radiology/studies").is_success
    return study


def status(url: str, token: str, path: str = "/v2/changefeed") -> int:
    with Api(url) as api:
        return api.get(path, headers=authorization(token)).status_code


# --- tokens --------------------------------------------------------------------------


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_bad_token_is_401(secured, issuer, make):
    assert status(secured.url, issuer.token(roles=["admin"])) == 200
    assert status(secured.url, make(issuer)) == 401


@pytest.mark.parametrize(
    ("roles", "expected"),
    [(["reader"], 200), ([], 403), (["unknown"], 403), (["writer"], 403), (None, 403)],
)
def test_without_the_right_role_it_is_403(secured, issuer, roles, expected):
    assert status(secured.url, issuer.token(roles=roles)) == expected


def test_each_audience_of_the_list_is_taken(secured, issuer):
    for audience in (APPLICATION, f"api://{APPLICATION}", SECOND, ["x", SECOND]):
        assert status(secured.url, issuer.token(aud=audience, roles=["reader"])) == 200


def test_keys_rotate_without_a_restart(serve, issuer, folder):
    kid = next(iter(issuer.private))
    running = serve(**settings(issuer.name, folder))
    before = issuer.token(roles=["reader"])
    assert status(running.url, before) == 200
    old = dict(issuer.private)
    try:
        issuer.rotate("next")
        assert status(running.url, issuer.token(roles=["reader"])) == 200
        # The old key is published no more: what was not seen before is refused.
        late = issuer.token(kid=kid, key=old[kid], oid="late", roles=["reader"])
        assert status(running.url, late) == 401
        issuer.rotate("elliptic", algorithm="ES256")
        assert status(running.url, issuer.token(roles=["reader"])) == 200
    finally:
        issuer.private = old
        running.stop()


def test_an_issuer_that_is_away_is_503_first_and_no_matter_later(serve, issuer, folder):
    running = serve(**settings(issuer.name, folder))
    token = issuer.token(roles=["reader"])
    issuer.broken = True
    with Api(running.url) as api:
        answer = api.get("/v2/changefeed", headers=authorization(token))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert api.get("/health/check").status_code == 200
        issuer.broken = False
        answer = httpx.Response(503)
        for _ in range(100):  # it asks again after a second
            answer = api.get("/v2/changefeed", headers=authorization(token))
            if answer.is_success:
                break
            time.sleep(0.1)
        issuer.broken = True
        other = issuer.token(roles=["reader"], oid="other")
        still = api.get("/v2/changefeed", headers=authorization(other))
        issuer.broken = False
    running.stop()
    assert still.status_code == 200


@pytest.fixture(scope="module")
def mock() -> Iterator[MockIssuer]:
    if not MockIssuer.is_installed():
        pytest.skip("node or oauth2-mock-server is not installed")
    issuer = MockIssuer()
    yield issuer
    issuer.close()


def test_an_issuer_that_is_not_ours_is_understood(serve, mock, folder):
    """As `oauth2-mock-server` makes them, shaped like version 2 of Entra ID."""
    running = serve(**settings(mock.url, folder))
    shape = {"aud": APPLICATION, "ver": "2.0", "tid": "t", "oid": "o", "azp": "a"}
    good = mock.token(**shape, roles=["reader"])
    header, payload, signature = good.split(".")
    other = mock.token(**shape, roles=["admin"]).split(".")[1]
    assert status(running.url, good) == 200
    assert status(running.url, mock.token(**shape)) == 403
    for refused in (
        mock.token(**{**shape, "aud": "other"}),
        mock.token(**{**shape, "iss": "https://other.example"}),
        mock.token(**{**shape, "exp": 1_000_000_000}),
        mock.token(**{**shape, "nbf": 4_000_000_000}),
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.",
    ):
        assert status(running.url, refused) == 401
    mock.rotate()
    assert status(running.url, mock.token(**shape, roles=["reader"])) == 200
    running.stop()


# --- every route ---------------------------------------------------------------------


def path_of(template: str) -> str:
    def filled(segment: str) -> str:
        name = re.match(r"\{\*?([a-z]+)", segment)
        return VALUES.get(name[1], "1.2.3") if name else segment

    return "/" + "/".join(filled(segment) for segment in template.split("/"))


def test_without_a_token_only_health_and_preflight_answer(secured):
    """The host's own page at `/` is off, as in Azure."""
    answered = set()
    with Api(secured.url) as api:
        for function in http_functions():
            for method in function.methods:
                answer = api.request(method, path_of(function.template))
                if answer.status_code != 401:
                    answered.add((method, function.name))
    assert answered == {
        ("GET", "CheckHealth"),
        ("HEAD", "CheckHealth"),
        ("OPTIONS", "Preflight"),
    }


@pytest.mark.parametrize(
    "path",
    [
        "/runtime/webhooks/durabletask/instances",
        "/runtime/webhooks/durabletask/instances/x",
        "/runtime/webhooks/durabletask/orchestrators/ReindexOperation",
        "/runtime/webhooks/durabletask/entities",
        "/RUNTIME/webhooks/durabletask/instances",
        "/runtime/webhooks/durabletask/../durabletask/instances",
        "/admin/functions",
        "/admin/host/keys",
        "/admin/functions/StoreInstances",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_belongs_to_the_host_is_closed_to_callers(secured, issuer, method, path):
    with caller(secured.url, issuer, "admin") as admin:
        answer = admin.request(method, path)
    assert answer.status_code in {401, 404, 405}
    assert "code=" not in answer.text


def test_what_a_dry_run_shows_needs_the_right_to_read(secured, issuer, secret):
    body = {
        "studyInstanceUids": [secret],
        "changeDataset": {"00100020": {"vr": "LO", "Value": ["x"]}},
    }
    path = "/v2/partitions/Secret/studies/$bulkUpdate?dryRun=true"
    for roles, expected in (
        (("writer",), 403),
        (("reader",), 403),
        (("reader", "writer"), 200),
        (("radiologyReader", "writer"), 403),
    ):
        with caller(secured.url, issuer, *roles) as api:
            answer = api.post(path, json=body)
        assert answer.status_code == expected, roles
        assert (CANARY in answer.text) is (expected == 200)


# --- tricks --------------------------------------------------------------------------


def raw(api: Api, method: str, target: str, **headers: str) -> httpx.Response:
    """Sends the target as it is: nothing between here and the server tidies it up."""
    request = api.build_request(method, "/", headers={"Accept": "*/*", **headers})
    request.extensions["target"] = target.encode("latin-1")
    return api.send(request)


@pytest.mark.parametrize("headers", HEADERS, ids=lambda each: next(iter(each), "none"))
def test_no_trick_reaches_another_partition(secured, issuer, secret, headers):
    with caller(secured.url, issuer, "radiologyReader") as api:
        for path in [*INTO_SECRET, "http://x/v2/partitions/secret/studies"]:
            target = path.format(study=secret)
            answer = raw(api, "GET", target, **headers)
            assert CANARY not in answer.text, target
            assert answer.status_code in {200, 204, 400, 403, 404}, target
            if answer.status_code == 200:
                assert "own" in answer.text
                assert secret not in answer.text
    with caller(secured.url, issuer, "reader") as api:
        assert CANARY in raw(api, "GET", "/v2/partitions/secret/studies").text


@pytest.mark.parametrize(
    "target",
    [
        "/v2/partitions/secret/studies",
        "/v2/partitions/SECRET/studies",
        "/v2/partitions/%73ecret/studies",
        "/v2/partitions/radiology%2F..%2Fsecret/studies",
        "/v2/partitions/radiology/../secret/studies",
        "/v2/partitions/other/studies",
        "/v2/studies",
    ],
)
def test_no_trick_stores_into_another_partition(secured, issuer, secret, target):
    file = made(PatientID="intruder")
    with caller(secured.url, issuer, "radiologyWriter") as api:
        headers = {"Content-Type": "application/dicom", "Accept": "*/*"}
        request = api.build_request("POST", "/", content=file.file, headers=headers)
        request.extensions["target"] = target.encode()
        assert api.send(request).status_code in {400, 403, 404}
    with caller(secured.url, issuer, "reader") as api:
        names = [each["partitionName"] for each in api.get("/v2/partitions").json()]
        assert set(names) == {"Microsoft.Default", "Secret", "radiology"}
        for name in names:
            found = api.read(f"/v2/partitions/{name}/studies?PatientID=intruder")
            assert found.status_code == 204


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "delete", "DELETE"])
def test_the_method_cannot_be_overridden(secured, issuer, secret, method):
    path = f"/v2/partitions/secret/studies/{secret}"
    with caller(secured.url, issuer, "reader") as api:
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            raw(api, method, f"{path}?_method=DELETE", **{name: "DELETE"})
        assert api.read(path, AS_STORED).status_code == 200


# --- the start -----------------------------------------------------------------------


def test_a_bad_roles_file_stops_the_start_and_every_mistake_is_listed(tmp_path):
    env = settings("https://issuer.example", tmp_path)
    bad = '{"roles": [{"name": "a", "dataActions": ["x"], "scopes": ["y"]}, 7]}'
    (tmp_path / "roles.json").write_text(bad)
    said = refused_start(tmp_path, **env)
    for mistake in ("\"dataActions\" has 'x'", "scope 'y' is", "role 2 must be an"):
        assert mistake in said


def test_security_without_issuer_or_audience_does_not_start(tmp_path):
    said = refused_start(tmp_path, DICOM_SECURITY="true")
    assert "DICOM_AUTHORITY" in said
    assert "DICOM_AUDIENCES" in said


def test_on_azure_it_does_not_start_open_by_accident(tmp_path, serve):
    """Which variables tell of Azure: tests/unit/services/test_settings.py."""
    said = refused_start(tmp_path, WEBSITE_INSTANCE_ID="1")
    assert "DICOM_SECURITY: must be true on Azure" in said
    meant = serve(
        WEBSITE_INSTANCE_ID="1",
        DICOM_ALLOW_ANONYMOUS="true",
        DICOM_EXPORT="false",
    )
    assert httpx.get(f"{meant.url}/health/check").status_code == 200
    meant.stop()


def test_keys_of_an_issuer_that_are_no_signing_keys_are_of_no_use(
    serve, issuer, folder, monkeypatch
):
    """A key that is published for encryption, or is too short, verifies nothing."""
    key = new_key()
    published_keys = {"keys": [{**public_jwk(key, "enc"), "use": "enc"}]}
    monkeypatch.setattr(issuer, "published", lambda: published_keys)
    running = serve(**settings(issuer.name, folder))
    assert status(running.url, issuer.token(kid="enc", key=key)) == 401
    running.stop()
