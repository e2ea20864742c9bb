"""Section 13: export to a blob container or a folder."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from blackbox.api import ONE_AS_STORED, Api, made
from blackbox.destinations import (
    CREATED,
    Azurite,
    FakeBlobs,
    is_log,
    running_azurite,
)
from blackbox.hosts import Running
from blackbox.operations import ended, ended_at
from blackbox.rules import covers
from blackbox.stacks import STACK

CANARY = "CANARYofTheSharedAccessSignature"
_names = (f"exports-{n}" for n in itertools.count())


@dataclass(frozen=True, slots=True)
class Exporting:
    """A server that may export to the emulator and to the fake service.

    Attributes:
        folder: DICOM_EXPORT_ROOT.
        fake: Takes everything unless a test says otherwise.
    """

    api: Api
    running: Running
    azurite: Azurite
    fake: FakeBlobs
    folder: Path

    def fake_uri(self, name: str = "exports") -> str:
        return f"{self.fake.origin}/account/{name}?sv=2023-11-03&sig={CANARY}"


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as running:
        yield running


@pytest.fixture(scope="module")
def exporting(
    serve: Callable[..., Running],
    azurite: Azurite,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Exporting]:
    folder = tmp_path_factory.mktemp("exports")
    with FakeBlobs().serving() as fake:
        running = serve(
            DICOM_EXPORT_HOSTS=f".blob.core.windows.net,{azurite.origin},{fake.origin}",
            DICOM_EXPORT_ROOT=str(folder),
            DICOM_CLEANUP_SCHEDULE="*/2 * * * * *",
        )
        with Api(running.url) as api:
            yield Exporting(api, running, azurite, fake, folder)
        running.stop()


@pytest.fixture
def site(exporting: Exporting) -> Iterator[Exporting]:
    """The same, the fake service as it was at first."""
    exporting.fake.answer = lambda *_: CREATED
    exporting.fake.requests.clear()
    yield exporting
    exporting.fake.answer = lambda *_: CREATED


def export(
    api: Api,
    *values: object,
    at: str = "/v2/export",
    type: str = "azureBlob",
    **settings: object,
) -> httpx.Response:
    body = {
        "source": {"type": "identifiers", "settings": {"values": list(values)}},
        "destination": {"type": type, "settings": settings},
    }
    return api.post(at, json=body)


def blobs_of(container: Any) -> dict[str, bytes]:
    return {
        blob.name: container.download_blob(blob.name).readall()
        for blob in container.list_blobs()
    }


def expected(operation: str, *files: Any) -> dict[str, bytes]:
    return {
        f"{operation}/results/{one.study}/{one.series}/{one.sop}.dcm": one.file
        for one in files
    }


def log_lines(log: bytes) -> list[dict[str, str]]:
    assert log == b"" or log.endswith(b"\n")
    return [json.loads(line) for line in log.splitlines()]


# --- what it does ----------------------------------------------------------------------


@covers("2.22", "13.9", "13.10", "13.11", "13.12", "13.4")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_files_of_studies_series_and_instances_are_copied(site, version):
    name = next(_names)
    container = site.azurite.container(name)
    study = [made(frames=1)]
    study += [made(study[0], same_series=True), made(study[0])]
    other = [made(), made()]
    third = made()
    fourth = made(third)
    files = [*study, *other, third, fourth]
    site.api.store(*(one.file for one in files))
    answer = export(
        site.api,
        study[0].study,
        f"{other[0].study}/{other[0].series}",
        f"{third.study}/{third.series}/{third.sop}",
        "1.2.404",
        f"{third.study}/1.2.404",
        f"{third.study}/{third.series}/1.2.404",
        at=f"/{version}/export",
        blobContainerUri=site.azurite.uri(name),
    )
    assert answer.status_code == 202
    assert answer.json().keys() == {"id", "href"}
    assert answer.headers["location"] == answer.json()["href"]
    assert answer.json()["href"].endswith(
        f"/{version}/operations/{answer.json()['id']}"
    )
    operation = ended(site.api, answer)
    id = answer.json()["id"]
    done = "succeeded" if version == "v2" else "completed"
    assert (operation["type"], operation["status"]) == ("export", done)
    assert "percentComplete" not in operation
    href = f"{site.azurite.origin}/devstoreaccount1/{name}/{id}/errors.log"
    assert operation["results"] == {"exported": 5, "skipped": 3, "errorHref": href}
    found = blobs_of(container)
    log = log_lines(found.pop(f"{id}/errors.log"))
    assert found == expected(id, *study, other[0], third)
    assert [(row["identifier"], row["error"]) for row in log] == [
        ("1.2.404", "The specified study cannot be found."),
        (f"{third.study}/1.2.404", "The specified series cannot be found."),
        (
            f"{third.study}/{third.series}/1.2.404",
            "The specified instance cannot be found.",
        ),
    ]
    assert all(row.keys() == {"timestamp", "identifier", "error"} for row in log)
    assert all(datetime.fromisoformat(row["timestamp"]).utcoffset() is not None
               for row in log)  # fmt: skip


@covers("13.10")
def test_the_current_version_is_exported(site):
    name = next(_names)
    container = site.azurite.container(name)
    one = made()
    site.api.store(one.file)
    change = {"00100020": {"vr": "LO", "Value": ["NEW-ID"]}}
    body = {"studyInstanceUids": [one.study], "changeDataset": change}
    ended(site.api, site.api.post("/v2/studies/$bulkUpdate", json=body))
    uri = site.azurite.uri(name)
    answer = export(site.api, one.study, blobContainerUri=uri)
    ended(site.api, answer)
    current = site.api.read(f"/v2{one.path}", ONE_AS_STORED).content
    assert current != one.file
    id = answer.json()["id"]
    [file] = expected(id, one)
    assert blobs_of(container)[file] == current


@covers("13.4", "13.5")
@pytest.mark.parametrize("kind", ["sas", "key"])
def test_a_container_by_connection_string(site, kind):
    name = next(_names)
    container = site.azurite.container(name)
    one = made()
    site.api.store(one.file)
    connection = site.azurite.connection
    if kind == "sas":
        connection = (
            f"BlobEndpoint={site.azurite.origin}/devstoreaccount1;"
            f"SharedAccessSignature={site.azurite.sas(name)}"
        )
    answer = export(
        site.api, one.study, connectionString=connection, blobContainerName=name
    )
    assert ended(site.api, answer)["results"]["exported"] == 1
    assert expected(answer.json()["id"], one).items() <= blobs_of(container).items()


@covers("13.14", "4.10")
def test_an_export_reads_its_partition_only(serve, azurite):
    name = next(_names)
    container = azurite.container(name)
    running = serve(DICOM_DATA_PARTITIONS="true", DICOM_EXPORT_HOSTS=azurite.origin)
    with Api(running.url) as api:
        one, two = made(), made()
        api.store(one.file, path="/v2/partitions/export-a/studies")
        api.store(two.file, path="/v2/partitions/export-b/studies")
        settings = {"blobContainerUri": azurite.uri(name)}
        path = "/v2/partitions/export-a/export"
        answer = export(api, one.study, two.study, at=path, **settings)
        results = ended(api, answer)["results"]
        assert (results["exported"], results["skipped"]) == (1, 1)
        found = blobs_of(container)
        log = log_lines(found.pop(f"{answer.json()['id']}/errors.log"))
        assert found == expected(answer.json()["id"], one)
        assert [row["identifier"] for row in log] == [two.study]
        unknown = export(api, one.study, at="/v2/partitions/no/export", **settings)
        assert unknown.status_code == 400
        assert export(api, one.study, **settings).status_code == 400
    running.stop()


@covers("13.14", "4.4")
def test_without_partitions_a_partition_in_the_path_is_400(site):
    path = "/v2/partitions/Microsoft.Default/export"
    answer = export(site.api, "1.2", at=path, blobContainerUri=site.fake_uri())
    assert answer.status_code == 400
    assert site.fake.requests == []


@covers("13.15")
def test_several_exports_run_at_once(site):
    name = next(_names)
    container = site.azurite.container(name)
    files = [made() for _ in range(5)]
    site.api.store(*(one.file for one in files))
    uri = site.azurite.uri(name)
    answers = [
        export(site.api, *(f.study for f in files), blobContainerUri=uri)
        for _ in range(3)
    ]
    for answer in answers:
        assert ended(site.api, answer)["results"]["exported"] == 5
    found = blobs_of(container)
    for answer in answers:
        id = answer.json()["id"]
        assert found.pop(f"{id}/errors.log") == b""
        assert expected(id, *files).items() <= found.items()


@covers("D13.4", "13.12")
def test_what_several_identifiers_name_is_exported_once(site):
    name = next(_names)
    container = site.azurite.container(name)
    one = made()
    two = made(one)
    site.api.store(one.file, two.file)
    answer = export(
        site.api,
        one.study,
        f"{one.study}/{one.series}",
        f"{one.study}/{two.series}/{two.sop}",
        one.study,
        f"{one.study}/1.2.404",
        blobContainerUri=site.azurite.uri(name),
    )
    results = ended(site.api, answer)["results"]
    assert (results["exported"], results["skipped"]) == (2, 1)
    found = blobs_of(container)
    log = log_lines(found.pop(f"{answer.json()['id']}/errors.log"))
    assert found == expected(answer.json()["id"], one, two)
    assert [row["identifier"] for row in log] == [f"{one.study}/1.2.404"]


# --- the request -----------------------------------------------------------------------


@covers("13.1")
@pytest.mark.parametrize("switch", ["DICOM_EXPORT", "DICOM_OPERATIONS"])
def test_switched_off_it_is_404(serve, switch):
    running = serve(**{switch: "false"})
    with Api(running.url) as api:
        answer = export(api, "1.2", blobContainerUri="https://a.example.org/container")
    running.stop()
    assert (answer.status_code, answer.content) == (404, b"")


@covers("13.1", "1.1.3")
def test_the_prerelease_has_no_export(site):
    path = "/v1.0-prerelease/export"
    answer = export(site.api, "1.2", at=path, blobContainerUri=site.fake_uri())
    assert answer.status_code == 404
    assert site.fake.requests == []


@covers("13.2", "3.2")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"source": {"type": "identifiers", "settings": {"values": ["1.2"]}}}',
        b'{"destination": {"type": "azureBlob", "settings": {"blobContainerUri": "x"}}}',
        b'{"source": {"type": "all", "settings": {}}, "destination": {}}',
        (
            b'{"source": {"type": "identifiers", "settings": {"values": ["1.2"]}},'
            b' "destination": {"type": "ftp", "settings": {}}}'
        ),
        (
            b'{"source": {"type": "identifiers", "settings": {"values": ["1.2"]}},'
            b' "destination": {"type": "azureBlob", "settings": {}}}'
        ),
        (
            b'{"source": {"type": "identifiers", "settings": {"values": ["1.2"]}},'
            b' "destination": {"type": "azureBlob"}}'
        ),
    ],
)
def test_a_body_that_is_not_what_it_must_be_is_400(site, body):
    answer = site.api.post_body("/v2/export", body, "application/json")
    assert answer.status_code == 400
    assert answer.text


@covers("13.2")
def test_the_body_is_read_generously(site):
    body = (
        b'{/* from */ "SOURCE": {"Type": "IDENTIFIERS", "settings": {"Values": ["1.2",]}'
        b'}, "Destination": {"type": "AZUREBLOB", "settings": {"BlobContainerURI": "%s"'
        b",}, }, }" % site.fake_uri().encode()
    )
    answer = site.api.post_body("/v2/export", body, "application/json")
    assert ended(site.api, answer)["results"]["skipped"] == 1


@covers("13.3")
@pytest.mark.parametrize(
    "values", [[], [""], ["x"], ["1.2/3/4/5"], ["1.2", "1.2//3"], [None], [12]]
)
def test_every_identifier_is_checked(site, values):
    answer = export(site.api, *values, blobContainerUri=site.fake_uri())
    assert answer.status_code == 400
    assert site.fake.requests == []


@covers("13.4")
@pytest.mark.parametrize(
    "settings",
    [
        {"connectionString": "AccountName=account;SharedAccessSignature=sig=x"},
        {"blobContainerName": "exports"},
        {"blobContainerUri": "URI", "connectionString": "UseDevelopmentStorage=true"},
        {"blobContainerUri": "URI", "blobContainerName": "exports"},
    ],
)
def test_a_container_is_named_in_one_way(site, settings):
    named = settings | (
        {"blobContainerUri": site.fake_uri()} if "blobContainerUri" in settings else {}
    )
    answer = export(site.api, "1.2", **named)
    assert answer.status_code == 400
    assert site.fake.requests == []


@covers("13.5")
def test_an_account_key_is_refused(site):
    answer = export(
        site.api,
        "1.2",
        connectionString="AccountName=account;AccountKey=a2V5",
        blobContainerName="exports",
    )
    assert (answer.status_code, answer.text) == (
        400,
        "Account key authentication is not supported.",
    )


@covers("13.6", "13.7")
def test_the_identity_is_not_mixed_and_has_to_be_there(site):
    settings = {"useManagedIdentity": True}
    uri = "https://account.blob.core.windows.net/exports"
    alone = export(site.api, "1.2", blobContainerUri=uri, **settings)
    assert (alone.status_code, alone.text) == (400, "No identity has been configured.")
    for mixed in (
        {"blobContainerUri": f"{uri}?sig=x"},
        {
            "connectionString": "AccountName=account;SharedAccessSignature=sig=x",
            "blobContainerName": "exports",
        },
    ):
        answer = export(site.api, "1.2", **mixed, **settings)
        assert answer.status_code == 400
        assert "anaged" in answer.text


@covers("13.8")
def test_the_destination_is_tried_before_the_answer(site, unused_tcp_port):
    name = next(_names)
    site.azurite.container(name)
    one = made()
    site.api.store(one.file)
    readable = site.azurite.uri(name, permission="rl")
    wrong = site.azurite.uri(name).replace("sig=", "sig=AAAA")
    for uri, text in (
        (site.azurite.uri("not-there"), "does not exist"),
        (readable, "authenticate"),
        (wrong, "authenticate"),
        (f"{site.azurite.origin}/devstoreaccount1/{name}", "authenticate"),
    ):
        answer = export(site.api, one.study, blobContainerUri=uri)
        assert answer.status_code == 400, uri
        assert text in answer.text
        assert "sig=" not in answer.text
    site.fake.answer = lambda *_: (412, {})
    refused = export(site.api, one.study, blobContainerUri=site.fake_uri())
    assert refused.status_code == 400
    assert "Failed to write" in refused.text
    assert secrets_of(site.running) == {}
    listed = site.api.get("/v2/operations?type=export&limit=200").json()
    assert all(row["status"] in {"succeeded", "completed"} for row in listed)


@covers("13.8")
def test_a_destination_that_does_not_answer_is_400(serve, unused_tcp_port):
    running = serve(DICOM_EXPORT_HOSTS=f"http://127.0.0.1:{unused_tcp_port}")
    with Api(running.url) as api:
        uri = f"http://127.0.0.1:{unused_tcp_port}/account/exports?sig={CANARY}"
        answer = export(api, "1.2", blobContainerUri=uri)
    assert answer.status_code == 400
    assert "Cannot connect" in answer.text
    assert CANARY not in answer.text
    running.stop()


# --- where it may go -------------------------------------------------------------------


@covers("D13.1")
@pytest.mark.parametrize(
    "uri",
    [
        "http://account.blob.core.windows.net/exports",
        "https://account.blob.core.windows.net:8443/exports",
        "https://127.0.0.1/exports",
        "https://169.254.169.254/exports",
        "https://[::1]/exports",
        "https://localhost/exports",
        "https://example.org/exports",
        "https://user@account.blob.core.windows.net/exports",
        "https://account.blob.core.windows.net@example.org/exports",
        "https://account.blob.core.windows.net.example.org/exports",
        "https://account.blob.core.windows.net/exports/folder",
        "https://account.blob.core.windows.net/exports?comp=list",
        "http://127.0.0.1:1/account/exports",
        "http://127.0.0.2:PORT/account/exports",
        "https://127.0.0.1:PORT/account/exports",
        "http://x@127.0.0.1:PORT/account/exports",
        "http://127.0.0.1:PORT/account/exports/folder",
        "http://127.0.0.1:PORT/../exports",
        "http://127.0.0.1:PORT#@account.blob.core.windows.net/exports",
    ],
)
def test_exports_go_to_allowed_hosts_only(site, uri):
    port = site.fake.origin.rpartition(":")[2]
    answer = export(site.api, "1.2", blobContainerUri=uri.replace("PORT", port))
    assert answer.status_code == 400
    assert site.fake.requests == []


@covers("D13.1")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(site, status):
    with FakeBlobs().serving() as elsewhere:
        location = f"{elsewhere.origin}/account/exports/x"
        site.fake.answer = lambda *_: (status, {"Location": location})
        answer = export(site.api, "1.2", blobContainerUri=site.fake_uri())
        assert answer.status_code == 400
        assert len(site.fake.requests) == 1
        assert elsewhere.requests == []


@covers("D13.1")
def test_by_default_an_emulator_is_no_destination(api, azurite):
    answer = export(
        api,
        "1.2",
        connectionString=azurite.connection,
        blobContainerName="exports",
    )
    assert answer.status_code == 400
    assert "not allowed" in answer.text


@covers("D13.2")
def test_a_folder_below_the_root_is_a_destination(site):
    one = made()
    site.api.store(one.file)
    answer = export(site.api, one.study, "1.2.404", type="folder", path="a/b")
    if STACK == "emulated":
        assert answer.status_code == 400
        assert "folders" in answer.text
        return
    operation = ended(site.api, answer)
    id = answer.json()["id"]
    assert operation["results"] == {
        "exported": 1,
        "skipped": 1,
        "errorHref": f"a/b/{id}/errors.log",
    }
    folder = site.folder / "a/b"
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    [line] = log_lines(found.pop(f"{id}/errors.log"))
    assert line["identifier"] == "1.2.404"
    assert found == expected(id, one)


@covers("D13.2")
@pytest.mark.parametrize("path", ["..", "a/../b", "../x", "a\\b", ".tmp", "a/./b"])
def test_no_path_leads_out_of_the_root(site, path):
    before = sorted(site.folder.parent.rglob("*"))
    answer = export(site.api, "1.2", type="folder", path=path)
    assert answer.status_code == 400
    assert sorted(site.folder.parent.rglob("*")) == before


@covers("D13.2")
def test_without_a_root_there_is_no_folder(api):
    answer = export(api, "1.2", type="folder", path="a")
    assert answer.status_code == 400


# --- ends and secrets ------------------------------------------------------------------


def secrets_of(running: Running) -> dict[str, str]:
    """What the store of secrets holds, by operation."""
    path = running.data / "dicom/secrets/secrets.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


def places_of(running: Running, word: str) -> set[str]:
    """The files of the server, its log and journals among them, that have the word."""
    return {
        str(path.relative_to(running.data))
        for path in running.data.rglob("*")
        if path.is_file() and word.encode() in path.read_bytes()
    }


class Held:
    """Keeps the fake service from answering for files until it is let go."""

    def __init__(self, fake: FakeBlobs) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        fake.answer = self._answer

    def _answer(self, _method: str, path: str) -> tuple[int, dict[str, str]]:
        if not is_log(path):
            self.reached.set()
            self.released.wait(60)
        return CREATED


@pytest.fixture
def held(site: Exporting) -> Iterator[Held]:
    holding = Held(site.fake)
    yield holding
    holding.released.set()


def begin_held(site: Exporting, held: Held) -> httpx.Response:
    """An export that waits for its destination; its secret is where it may be."""
    one = made()
    site.api.store(one.file)
    answer = export(site.api, one.study, blobContainerUri=site.fake_uri())
    assert answer.status_code == 202
    assert held.reached.wait(30)
    secrets = secrets_of(site.running)
    assert secrets.keys() == {answer.json()["id"]}
    assert CANARY in secrets[answer.json()["id"]]
    path = site.running.data / "dicom/secrets/secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert places_of(site.running, CANARY) == {"dicom/secrets/secrets.json"}
    shown = site.api.get(answer.json()["href"]).text
    shown += site.api.get("/v2/operations").text + answer.text
    shown += site.api.get("/health/check").text
    assert CANARY not in shown
    assert f"{site.fake.origin}/account/exports/" in shown
    return answer


def assert_forgotten(site: Exporting, answer: httpx.Response) -> None:
    assert secrets_of(site.running) == {}
    assert places_of(site.running, CANARY) == set()
    shown = site.api.get(f"/v2/operations/{answer.json()['id']}")
    assert shown.status_code == 200
    assert CANARY not in shown.text


@covers("D13.3")
def test_the_signature_is_kept_with_the_secrets_only_and_gone_after_success(site, held):
    answer = begin_held(site, held)
    held.released.set()
    assert ended(site.api, answer)["status"] == "succeeded"
    assert_forgotten(site, answer)


@covers("D13.3", "13.13")
def test_it_is_gone_after_a_failure_that_the_destination_caused(site):
    one = made()
    site.api.store(one.file)
    site.fake.answer = lambda _, path: CREATED if is_log(path) else (403, {})
    answer = export(site.api, one.study, "1.2.404", blobContainerUri=site.fake_uri())
    operation = ended(site.api, answer)
    assert operation["status"] == "failed"
    results = operation["results"]
    assert results["exported"] == 0
    assert "authenticate" in results["error"]
    assert_forgotten(site, answer)


@covers("D13.3")
def test_it_is_gone_after_a_cancel(site, held):
    answer = begin_held(site, held)
    assert site.api.delete(answer.json()["href"]).status_code == 202
    held.released.set()
    operation = ended(site.api, answer)
    assert operation["status"] in {"canceled", "succeeded"}
    assert_forgotten(site, answer)


@covers("D13.3")
def test_it_is_gone_after_a_kill_and_the_export_is_whole(serve, azurite, tmp_path):
    with FakeBlobs().serving() as fake:
        settings = {"DICOM_EXPORT_HOSTS": fake.origin}
        running = serve(data=tmp_path, **settings)
        with Api(running.url) as api:
            site = Exporting(api, running, azurite, fake, tmp_path)
            held = Held(fake)
            answer = begin_held(site, held)
        running.kill()
        assert secrets_of(running).keys() == {answer.json()["id"]}
        held.released.set()
        running = serve(data=tmp_path, **settings)
        with Api(running.url) as api:
            href = f"{running.url}/v2/operations/{answer.json()['id']}"
            operation = ended_at(api, href)
            assert operation["results"]["exported"] == 1
            assert_forgotten(replace(site, api=api, running=running), answer)
        running.stop()
