"""A server that has endpoints and an identity, no key and no connection string.

The emulators take tokens only, for their own audience and while they last; the Cosmos
emulator refuses every key, as an account with `disableLocalAuth`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from blackbox.api import AS_STORED, Api, made, parts
from blackbox.hosts import ROOT, Running, boot
from blackbox.operations import ended
from emulators.identity import IdentityEndpoint, identity_endpoint
from emulators.processes import AZURITE, Emulated, without_keys

pytestmark = pytest.mark.timeout(300)

CLIENT_ID = "00000000-0000-0000-0000-00000000000a"
STORAGE = "https://storage.azure.com"
ACCOUNT = "https://127.0.0.1"
"""Of the Cosmos DB account: its URL without the port."""

Serve = Callable[[IdentityEndpoint], Running]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with without_keys(tmp_path_factory.mktemp("certificate")) as running:
        yield running


@contextmanager
def served(
    emulated: Emulated, identity: IdentityEndpoint, folder: Path, **more: str
) -> Iterator[tuple[Api, Running]]:
    settings = emulated.environment_of_identity() | identity.environment() | more
    assert not any("KEY" in name or "CONNECTION" in name for name in settings)
    running = boot(
        ROOT, folder, "--workers", "1",
        DICOM_SAMPLE="0", DICOM_DATA=str(folder / "dicom"), **settings,
    )  # fmt: skip
    try:
        with Api(running.url) as api:
            yield api, running
    finally:
        running.stop()


@pytest.mark.parametrize("client_id", [CLIENT_ID, None])
def test_it_stores_finds_updates_exports_and_retrieves(emulated, tmp_path, client_id):
    one = made(PatientID="IDENTITY", PatientName="Before")
    host = emulated.endpoint("Blob").removesuffix("/devstoreaccount1")
    container = f"exports-{'user' if client_id else 'system'}"
    with identity_endpoint(client_id) as identity:
        with served(emulated, identity, tmp_path, DICOM_EXPORT_HOSTS=host) as (
            api,
            running,
        ):
            assert api.get("/health/check").status_code == 200
            assert api.store(one.file).status_code == 200
            [found] = api.search(f"/v2/studies?StudyInstanceUID={one.study}")
            assert found["0020000D"]["Value"] == [one.study]
            [(_, file)] = parts(api.read(f"/v2{one.study_path}", AS_STORED))
            assert file == one.file
            change = {"00100020": {"vr": "LO", "Value": ["NEW"]}}
            body = {"studyInstanceUids": [one.study], "changeDataset": change}
            done = ended(api, api.post("/v2/studies/$bulkUpdate", json=body))
            assert done["status"] == "succeeded"
            [listed] = [
                each
                for each in api.get("/v2/operations").json()
                if each["operationId"] == done["operationId"]
            ]
            assert listed["status"] == "succeeded"
            exported = export(emulated, api, one.study, container)
            assert exported.startswith(b"\0" * 128 + b"DICM")
            assert b"NEW" in exported
            log = running.log()
        assert identity.resources() == {STORAGE, ACCOUNT}
        assert {query.get("client_id") for query in identity.asked} == {client_id}
        # One connection to each service asks once; so does the one of the export.
        assert len(identity.asked) <= 8
        assert identity.secret not in log
        assert "eyJ" not in log, "a token in the log"


def export(emulated: Emulated, api: Api, study: str, name: str) -> bytes:
    """The one file of the study, exported with the identity into a new container."""
    with ContainerClient.from_connection_string(
        emulated.blobs.connection, name, connection_verify=emulated.certificate
    ) as container:
        container.create_container()
        settings = {
            "blobContainerUri": f"{emulated.endpoint('Blob')}/{name}",
            "useManagedIdentity": True,
        }
        body = {
            "source": {"type": "identifiers", "settings": {"values": [study]}},
            "destination": {"type": "azureBlob", "settings": settings},
        }
        done = ended(api, api.post("/v2/export", json=body))
        assert done["status"] == "succeeded", done
        [blob] = [b.name for b in container.list_blobs() if b.name.endswith(".dcm")]
        return container.download_blob(blob).readall()


def test_tokens_are_renewed_before_they_end(emulated, tmp_path):
    one, two = made(), made()
    with (
        identity_endpoint(CLIENT_ID, lifetime_seconds=6) as identity,
        served(emulated, identity, tmp_path) as (api, _),
    ):
        assert api.store(one.file).status_code == 200
        asked = len(identity.asked)
        time.sleep(6.5)
        assert api.store(two.file).status_code == 200
        assert len(parts(api.read(f"/v2{one.study_path}", AS_STORED))) == 1
        assert len(identity.asked) > asked


def test_an_identity_that_gets_no_token_is_503_until_it_does(emulated, tmp_path):
    one = made()
    with (
        identity_endpoint("00000000-0000-0000-0000-00000000000b") as identity,
        served(emulated, identity, tmp_path, AZURE_CLIENT_ID=CLIENT_ID) as (
            api,
            running,
        ),
    ):
        answer = api.store(one.file)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert api.read(f"/v2{one.study_path}/metadata").status_code == 503
        assert api.get("/health/check").status_code == 503
        assert identity.secret not in running.log()
        identity.client_id = CLIENT_ID
        assert api.store(one.file).status_code == 200
        assert api.get("/health/check").status_code == 200


def test_a_token_of_another_audience_or_time_is_refused(emulated, tmp_path):
    """What the other tests rely on: the emulators look at the tokens."""
    with (
        identity_endpoint(CLIENT_ID, lifetime_seconds=-10) as identity,
        served(emulated, identity, tmp_path) as (api, _),
    ):
        assert api.store(made().file).status_code == 503
