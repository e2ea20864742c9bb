"""Security, audit log, rate and statistics as their users see them."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blackbox.api import AS_STORED, Api, made
from blackbox.hosts import ROOT, Running, refused_start
from blackbox.issuers import published
from blackbox.rules import covers
from blackbox.secured import CLAIMS, SECOND, authorization, caller, settings
from blackbox.stacks import STACK
from data import new_uid
from issuer import APPLICATION, Issuer

PREFIX = "X-MS-AZUREDICOM-AUDIT-"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with published() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secured")


@pytest.fixture(scope="module")
def secured(serve: Callable[..., Running], issuer: Issuer, folder: Path) -> Running:
    return serve(**settings(issuer.name, folder))


# --- authentication ------------------------------------------------------------------


@covers("5.1.1")
def test_without_security_nobody_needs_a_token(api):
    assert api.store(made().file).status_code == 200
    assert api.get("/v2/changefeed").status_code == 200
    assert api.get("/v2/changefeed", headers=authorization("x")).status_code == 200
    assert api.get("/statistics").status_code == 200


@covers("5.1.2")
def test_a_token_must_be_valid_and_for_one_of_the_audiences(secured, issuer):
    with Api(secured.url) as api:
        assert api.get("/v2/changefeed").status_code == 401
        for claims, status in (
            ({"aud": APPLICATION}, 200),
            ({"aud": SECOND}, 200),
            ({"aud": "another"}, 401),
            ({"iss": "https://another.example"}, 401),
            ({"exp": time.time() - 3600}, 401),
        ):
            token = issuer.token(roles=["reader"], **claims)
            answer = api.get("/v2/changefeed", headers=authorization(token))
            assert answer.status_code == status


@covers("5.1.3")
def test_the_challenge_leads_to_a_token(secured, issuer):
    expected = (
        f'Bearer authorization_uri="{issuer.name}", resource_id="{APPLICATION}",'
        f' realm="{APPLICATION}"'
    )
    with Api(secured.url) as api:
        answer = api.get("/v2/changefeed")
        assert answer.headers["www-authenticate"] == expected
        assert answer.text == "A bearer token is needed."
        answer = api.get("/v2/changefeed", headers=authorization("x"))
        refused = f'{expected}, error="invalid_token"'
        assert answer.headers["www-authenticate"] == refused


@covers("5.1.4")
def test_the_roles_may_stand_in_another_claim(serve, secured, issuer, folder):
    with caller(secured.url, issuer, role="reader") as api:
        assert api.get("/v2/changefeed").status_code == 403
    other = serve(**settings(issuer.name, folder, DICOM_ROLES_CLAIM="role"))
    with caller(other.url, issuer, role="reader") as api:
        assert api.get("/v2/changefeed").status_code == 200
    with caller(other.url, issuer, "reader") as api:
        assert api.get("/v2/changefeed").status_code == 403
    other.stop()


@covers("5.1.5")
def test_health_needs_no_token(secured):
    with Api(secured.url) as api:
        assert api.get("/health/check").json()["overallStatus"] == "Healthy"


# --- authorisation -------------------------------------------------------------------


@covers("5.2.1", "5.2.2")
def test_each_action_needs_a_role_that_allows_it(secured, issuer):
    """Every route and every role: tests/unit/functions/test_auth.py."""
    file = made()
    tags = [{"path": "ManufacturerModelName", "level": "Series"}]
    asks: tuple[tuple[str, set[str], Callable[[Api], Any]], ...] = (
        ("read", {"reader"}, lambda api: api.read("/v2/studies")),
        ("write", {"writer"}, lambda api: api.store(file.file)),
        ("tags", set(), lambda api: api.post("/v2/extendedquerytags", json=tags)),
        ("all", set(), lambda api: api.get("/statistics")),
        ("delete", set(), lambda api: api.delete(f"/v2{file.study_path}")),
    )
    for name in ("reader", "writer", "keeper", "admin"):
        for action, allowed, ask in asks:
            may = name in allowed or name == "admin"
            may = may or (name == "keeper" and action not in {"all", "delete"})
            with caller(secured.url, issuer, name) as api:
                answer = ask(api)
            assert (answer.status_code != 403) is may, (name, action)
            if not may:
                assert answer.text == "Authorization failed."
    both = ("keeper", "reader")
    with caller(secured.url, issuer, *both) as api:
        assert api.read("/v2/studies").status_code in {200, 204}
        assert api.delete(f"/v2{file.study_path}").status_code == 403


@covers("5.2.3")
def test_the_sample_file_has_a_reader_and_an_administrator(serve, issuer, folder):
    env = settings(issuer.name, folder)
    env["DICOM_ROLES_FILE"] = str(ROOT / "roles.sample.json")
    running = serve(**env)
    file = made()
    with caller(running.url, issuer, "globalAdmin") as admin:
        assert admin.store(file.file).status_code == 200
        assert admin.get("/statistics").status_code == 200
    with caller(running.url, issuer, "globalReader") as reader:
        assert reader.read(f"/v2{file.study_path}", AS_STORED).status_code == 200
        assert reader.store(made().file).status_code == 403
        assert reader.delete(f"/v2{file.study_path}").status_code == 403
    running.stop()


@covers("5.2.4")
def test_mistakes_in_the_roles_file_stop_the_start(tmp_path):
    env = settings("https://issuer.example", tmp_path)
    good = {"name": "a", "dataActions": ["read"], "scopes": ["/"]}
    bad = {"name": "A", "dataActions": ["raed"], "scopes": ["/"]}
    (tmp_path / "roles.json").write_text(json.dumps({"roles": [good, bad]}))
    said = refused_start(tmp_path, **env)
    assert "there are 2 roles with the name 'a'" in said
    assert "\"dataActions\" has 'raed'" in said


@covers("D5.6")
def test_a_role_may_be_good_for_one_partition(serve, issuer, folder):
    running = serve(**settings(issuer.name, folder, DICOM_DATA_PARTITIONS="true"))
    url = running.url
    file = made()
    with caller(url, issuer, "radiologyWriter") as api:
        assert api.store(file.file, path="/v2/partitions/Radiology/studies").is_success
        assert api.store(file.file, path="/v2/partitions/b/studies").status_code == 403
    with caller(url, issuer, "radiologyReader") as api:
        [found] = api.search("/v2/partitions/radiology/studies")
        assert found["0020000D"]["Value"] == [file.study]
        assert api.read("/v2/partitions/b/studies").status_code == 403
        # What all partitions share is not for those who have one.
        for shared in ("/v2/changefeed", "/v2/partitions", "/v2/extendedquerytags"):
            assert api.get(shared).status_code == 403
    running.stop()


# --- audit ---------------------------------------------------------------------------


def entries(running: Running) -> list[dict[str, Any]]:
    """The audit log so far."""
    lines = running.log().splitlines()
    texts = [line.split(" dicom.audit: ")[1] for line in lines if "dicom.audit" in line]
    return [json.loads(text) for text in texts]


def audited(running: Running, ask: Callable[[], Any]) -> list[dict[str, Any]]:
    """The entries that a request has left."""
    before = len(entries(running))
    ask()
    return entries(running)[before:]


@covers("5.3.1", "5.3.2")
def test_two_entries_say_who_did_what(secured, issuer):
    file = made()
    with caller(secured.url, issuer, "writer") as api:
        url = f"{secured.url}/v2/studies"
        first, second = audited(secured, lambda: api.store(file.file))
        assert len(first.pop("CorrelationId")) == 32
        assert first == {
            "ActionType": "Executing",
            "EventType": "AuditEvent",
            "Audience": f"{APPLICATION},{SECOND}",
            "Authority": issuer.name,
            "Action": "store",
            "RequestUri": url,
            "Method": "POST",
            "CallerIPAddress": "127.0.0.1",
            "Claims": CLAIMS,
            "CustomHeaders": {},
        }
        del second["CorrelationId"]
        assert second == first | {"ActionType": "Executed", "StatusCode": 200}
        refused = audited(secured, lambda: api.read(f"/v2{file.path}", AS_STORED))
    assert [each.get("StatusCode") for each in refused] == [None, 403]
    assert refused[1]["Action"] == "retrieve"
    assert refused[1]["RequestUri"] == f"{secured.url}/v2{file.path}"
    assert refused[0]["CorrelationId"] == refused[1]["CorrelationId"]
    with Api(secured.url) as api:
        unknown = audited(secured, lambda: api.delete(f"/v2{file.study_path}"))
    assert [each.get("StatusCode") for each in unknown] == [None, 401]
    assert [each["Claims"] for each in unknown] == [{}, {}]
    assert [each["CallerIPAddress"] for each in unknown] == ["127.0.0.1"] * 2


@covers("5.3.1")
def test_health_and_the_description_are_not_audited(secured, issuer):
    with caller(secured.url, issuer, "reader") as api:
        for path in ("/health/check", "/v2/api.json"):
            assert audited(secured, lambda path=path: api.get(path)) == []


@covers("5.3.2")
def test_the_claims_that_are_recorded_are_a_setting(serve, issuer, folder):
    env = settings(issuer.name, folder, DICOM_AUDIT_CLAIMS="oid,roles,none")
    running = serve(**env)
    with caller(running.url, issuer, "reader") as api:
        found = audited(running, lambda: api.get("/v2/changefeed"))
    assert [each["Claims"] for each in found] == [
        {"oid": "caller", "roles": ["reader"]}
    ] * 2
    running.stop()


@covers("D5.10")
def test_an_entry_has_no_query_string_and_no_odd_path(secured, issuer):
    with caller(secured.url, issuer, "reader") as api:
        found = audited(
            secured, lambda: api.read("/v2/studies?PatientName=Canary&PatientID=77-1")
        )
        assert [each["RequestUri"] for each in found] == [
            f"{secured.url}/v2/studies"
        ] * 2
        found = audited(secured, lambda: api.read("/v2/studies/Canary%20Jane/metadata"))
        assert [each["RequestUri"] for each in found] == [
            f"{secured.url}/v2/studies/…/metadata"
        ] * 2
    assert "Canary" not in secured.log()


@covers("5.3.3")
def test_headers_for_the_audit_log_are_copied(secured, issuer):
    headers = {f"{PREFIX}Purpose": "care", f"{PREFIX}Case": "4711", "X-Other": "x"}
    with caller(secured.url, issuer, "reader") as api:
        found = audited(secured, lambda: api.get("/v2/changefeed", headers=headers))
    copied = {f"{PREFIX}purpose".lower(): "care", f"{PREFIX}case".lower(): "4711"}
    assert [each["CustomHeaders"] for each in found] == [copied] * 2


@covers("5.3.4")
def test_headers_for_the_audit_log_have_limits(secured, issuer):
    def status(count: int, length: int) -> int:
        headers = {f"{PREFIX}{number}": "x" * length for number in range(count)}
        return api.get("/v2/changefeed", headers=headers).status_code

    with caller(secured.url, issuer, "reader") as api:
        assert status(10, 2048) == 200
        assert status(11, 1) == 400
        assert status(1, 2049) == 400
        found = audited(secured, lambda: status(11, 1))
        assert [each.get("StatusCode") for each in found] == [None, 400]
        assert found[1]["Claims"] == CLAIMS


@covers("5.3.5")
def test_a_bulk_update_has_entries_of_its_own(serve):
    """One that fails: tests/unit/orchestrations/test_update_audit.py."""
    running = serve(DICOM_AUDIT="true")
    known, unknown = made(), new_uid()
    with Api(running.url) as api:
        assert api.store(known.file).is_success
        for study, status in ((known.study, 200), (unknown, 400)):
            answer = api.post(
                "/v2/studies/$bulkUpdate",
                json={
                    "studyInstanceUids": [study],
                    "changeDataset": {
                        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}
                    },
                },
            )
            assert answer.status_code == 202, answer.text
            id = answer.json()["id"]
            found = wait_for_entries(running, id)
            assert [each["ActionType"] for each in found] == ["Executing", "Executed"]
            assert [each["Action"] for each in found] == ["update-study-operation"] * 2
            assert found[1]["StatusCode"] == 200
    assert "A^B" not in running.log()
    running.stop()


def wait_for_entries(running: Running, id: str) -> list[dict[str, Any]]:
    """Both entries of an operation."""
    deadline = time.monotonic() + 60
    found: list[dict[str, Any]] = []
    while len(found) < 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
        found = [each for each in entries(running) if each["CorrelationId"] == id]
    return found


# --- rate, headers, statistics -------------------------------------------------------


@covers("D5.7")
def test_a_caller_over_its_rate_is_told_to_wait(serve, issuer, folder):
    running = serve(**settings(issuer.name, folder, DICOM_RATE_LIMIT="3"))
    with caller(running.url, issuer, "reader") as api:
        statuses = [api.get("/v2/changefeed").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert 1 <= int(api.get("/v2/changefeed").headers["retry-after"]) <= 20
        assert api.get("/health/check").status_code == 200
    with caller(running.url, issuer, "reader", oid="somebody else") as api:
        assert api.get("/v2/changefeed").status_code == 200
    running.stop()


@covers("D5.8")
def test_browsers_guess_nothing_and_frame_nothing(api, special):
    for client in (api, special):
        headers = client.get("/v2/changefeed").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers
    assert "strict-transport-security" not in api.get("/health/check").headers
    assert "strict-transport-security" in special.get("/health/check").headers


def statistics_at_rest(api: Api) -> dict[str, Any]:
    """The statistics when every commit is known to be in the feed."""
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = api.get("/statistics").json()
        if not found["changeFeed"]["unpublished"]:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@covers("D5.9")
def test_statistics_say_what_there_is_and_what_waits(serve):
    running = serve()
    one, two = made(), made()
    three = made(of=two)
    with Api(running.url) as api:
        for file in (one, two, three):
            assert api.store(file.file).is_success
        assert api.delete(f"/v2{one.study_path}").status_code == 204
        api.read("/v2/studies?PatientID=x'; --")
        found = statistics_at_rest(api)
        assert found["archive"] == {
            "studies": 1,
            "instances": 2,
            "bytes": len(two.file) + len(three.file),
        }
        feed = found["changeFeed"]
        latest = api.get("/v2/changefeed/latest").json()["sequence"]
        assert feed == {
            "latestSequence": latest,
            "unpublished": 0,
            "lagSeconds": 0.0,
        }
        assert found["cleanup"]["waiting"] == 1
        assert found["cleanup"]["due"] == 0
        stored = found["process"]["transactions"]["StoreInstances"]
        assert (stored["requests"], stored["instancesStored"]) == (3, 3)
        assert stored["cpuSeconds"] > 0
        assert stored["bytesIn"] > sum(len(each.file) for each in (one, two, three))
        on_azure = STACK == "emulated"
        for cost in ("requestUnits", "indexCalls", "blobCalls"):
            assert (stored[cost] > 0) is on_azure
    running.stop()
