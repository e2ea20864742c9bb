"""Orthanc as a client: it pushes to us, searches here and pulls back; storescu too."""

import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from blackbox.hosts import Running
from data import instance, new_uid
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

pytestmark = [
    pytest.mark.client,
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),
]

PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
)
START_SECONDS = 60


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc that knows our server under the name `ours`."""

    client: httpx.Client
    dicom_port: int

    def post(self, path: str, body: Any) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.client.post(path, content=content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def find(self, level: str, **query: str) -> list[str]:
        return self.post("/tools/find", {"Level": level, "Query": query})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def orthanc(
    server: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc")
    plugin = next(filter(os.path.exists, PLUGINS), None)
    if program is None or plugin is None:
        pytest.skip("Orthanc and its DICOMweb plugin are not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [plugin],
        "DicomWeb": {
            "Enable": True,
            "Servers": {
                "ours": {
                    "Url": f"{server.url}/v2/",
                    "HasDelete": True,
                    "ChunkedTransfers": True,
                }
            },
        },
    }
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, configuration], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60) as client:
            _wait(client, process)
            yield Orthanc(client, dicom)
    finally:
        process.terminate()
        process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.get("/system").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Orthanc did not start ({process.poll()})")


def pixels(datasets: Iterable[Dataset]) -> dict[str, bytes]:
    return {str(each.SOPInstanceUID): each.PixelData for each in datasets}


def ours(server: Running, study: str) -> dict[str, bytes]:
    """The pixels of the study's instances as we have them."""
    return pixels(DICOMwebClient(f"{server.url}/v2").retrieve_study(study))


def parsed(files: list[bytes]) -> list[Dataset]:
    return [dcmread(io.BytesIO(file)) for file in files]


def test_it_pushes_searches_pulls_and_deletes(server: Running, orthanc: Orthanc):
    study = new_uid()
    files = [
        instance(
            PatientID="ORTHANC",
            PatientName="Push^Pull",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            frames=3,
        )
        for _ in range(5)
    ]
    for file in files:
        orthanc.post("/instances", file)
    (resource,) = orthanc.find("Study", StudyInstanceUID=study)

    pushed = orthanc.post(
        "/dicom-web/servers/ours/stow", {"Resources": [resource], "Synchronous": True}
    )
    assert pushed["InstancesCount"] == "5"
    assert ours(server, study) == pixels(parsed(files))

    found = orthanc.post(
        "/dicom-web/servers/ours/qido",
        {"Uri": "/studies", "Arguments": {"PatientName": "Push*"}},
    )
    assert [each["0020000D"]["Value"] for each in found] == [study]

    orthanc.client.delete(f"/studies/{resource}").raise_for_status()
    assert orthanc.find("Study", StudyInstanceUID=study) == []
    pulled = orthanc.post(
        "/dicom-web/servers/ours/retrieve",
        {"Resources": [{"Study": study}], "Synchronous": True},
    )
    assert int(pulled["ReceivedInstancesCount"]) == len(files)
    assert len(orthanc.find("Instance", StudyInstanceUID=study)) == 5

    orthanc.post(
        "/dicom-web/servers/ours/delete", {"Level": "Study", "StudyInstanceUID": study}
    )
    answer = httpx.get(
        f"{server.url}/v2/studies?StudyInstanceUID={study}",
        headers={"Accept": "application/dicom+json"},
    )
    assert answer.status_code == 204


def test_what_a_modality_sends_to_it_reaches_us(
    server: Running, orthanc: Orthanc, tmp_path: Path
):
    storescu = shutil.which("storescu")
    if storescu is None:
        pytest.skip("storescu (dcmtk) is not installed")
    study = new_uid()
    files = [
        instance(PatientID="MODALITY", StudyInstanceUID=study, frames=2)
        for _ in range(3)
    ]
    for number, file in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(file)
    subprocess.run(
        [storescu, "+sd", "127.0.0.1", str(orthanc.dicom_port), tmp_path],
        check=True,
        timeout=60,
    )
    resources = orthanc.find("Study", StudyInstanceUID=study)
    orthanc.post(
        "/dicom-web/servers/ours/stow", {"Resources": resources, "Synchronous": True}
    )
    assert ours(server, study) == pixels(parsed(files))
