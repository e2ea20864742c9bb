"""A canary sent through every route, in every way but the path, is in no log line.

Paths hold UIDs and names of partitions and tags, which logs may have. The server runs
with `--verbose`: informational messages, an access log, the audit log.
"""

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from blackbox.api import AS_STORED, DICOM_JSON, Api, Made, made, reason
from blackbox.hosts import Running
from blackbox.stacks import lose_file
from data import instance, multipart, new_uid
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from functions.routes import HttpFunction, http_functions

CANARY = "CANARY7F3A"
KEYWORDS = (
    "AccessionNumber",
    "AcquisitionDateTime",
    "InstanceNumber",
    "Modality",
    "PatientAge",
    "PatientBirthDate",
    "PatientComments",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PatientWeight",
    "PerformedProcedureStepStartDate",
    "RetrieveURL",
    "SOPClassUID",
    "SeriesInstanceUID",
    "SpecificCharacterSet",
    "StudyDate",
    "StudyInstanceUID",
    "StudyTime",
)
USED = (
    "AcquisitionDateTime",
    "ImageType",
    "NumberOfFrames",
    "PatientWeight",
    "PhotometricInterpretation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "SpecificCharacterSet",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
VALUES = {
    "plain": CANARY,
    "long": CANARY * 20,
    "odd": f"{CANARY}\t\x1b{CANARY}",
    "several": f"{CANARY}\\{CANARY}^{CANARY}=={CANARY}===",
    "not ASCII": f"{CANARY}é",
}
TAGS = [{"path": "PatientComments", "level": "Study"}, {"path": CANARY, "vr": CANARY}]
CHANGE = {
    "studyInstanceUids": [CANARY],
    "changeDataset": {"00100010": {"vr": "PN", "Value": [{"Alphabetic": CANARY}]}},
}

EXPORT = {
    "source": {"type": "identifiers", "settings": {"values": ["1.2.3"]}},
    "destination": {
        "type": "azureblob",
        "settings": {
            "blobContainerUri": f"http://127.0.0.1:9/container?sig={CANARY}",
            "connectionString": f"AccountName=a;AccountKey={CANARY}",
            "blobContainerName": CANARY,
        },
    },
}


@pytest.fixture(scope="module")
def running(serve: Callable[..., Running]) -> Iterator[Running]:
    running = serve(
        options=("--verbose",), DICOM_AUDIT="true", DICOM_EXPORT_HOSTS="127.0.0.1"
    )
    yield running
    assert "dicom.audit" in running.log()
    running.stop()


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Api]:
    with Api(running.url) as client:
        yield client


@pytest.fixture(scope="module")
def stored(client: Api) -> Made:
    """An instance full of canaries."""
    file = made(
        PatientName=CANARY,
        PatientID=CANARY,
        PatientComments=CANARY,
        AccessionNumber=CANARY,
        frames=2,
    )
    assert client.store(file.file).status_code == 200
    return file


@pytest.fixture(autouse=True)
def silence(running: Running) -> Iterator[None]:
    """What a test makes the server log has no canary, and is more than nothing."""
    before = len(running.log())
    yield
    log = running.log()[before:]
    assert {line for line in log.splitlines() if CANARY in line} == set()
    assert "uvicorn.access" in log


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_that_are_stored_or_refused(client, version, value):
    path = f"/{version}/studies"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = [instance(**{keyword: value}) for keyword in KEYWORDS]
    for file in files:
        answer = client.store(file, path=path)
        assert answer.status_code in {200, 202, 409}, answer.text
        client.store(file, path=f"{path}/{new_uid()}")
    assert client.store(*files, path=path).status_code in {202, 409}


def test_damaged_files_and_bodies(client):
    file = instance(PatientName=CANARY, PatientComments=CANARY)
    body, content_type = multipart([file])
    cut = [file[:length] for length in range(130, len(file), 37)]
    assert client.store(*cut).status_code in {202, 409}
    for damaged in (file[132:], CANARY.encode(), file.replace(b"PN", b"??")):
        assert reason(client.store(damaged)) is not None
    for damaged in (body[:-10], body.replace(b"\r\n\r\n", b" "), CANARY.encode()):
        answer = client.post_body("/v2/studies", damaged, content_type)
        assert answer.status_code in {202, 400, 409}
    for content_type in (CANARY, f"multipart/related; boundary={CANARY}"):
        assert client.post_body("/v2/studies", body, content_type).is_client_error


def test_pixels_that_cannot_be_decoded(client):
    frame = b"\xff\xd8\xff" + CANARY.encode() * 10
    broken = made(frames=[frame], transfer_syntax=JPEGBaseline8Bit)
    assert client.store(broken.file).is_success
    assert client.read(f"/v2{broken.path}/rendered", "image/png").is_error
    transcoded = 'multipart/related; type="application/octet-stream"'
    assert client.read(f"/v2{broken.path}/frames/1", transcoded).is_error


@pytest.mark.parametrize("keyword", USED)
def test_values_that_are_used_later(running, client, keyword):
    """Rendering, transcoding, metadata and bulk update of a file with odd values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = made(frames=1, PatientName=CANARY, **{keyword: CANARY})
    if client.store(odd.file, path="/v1/studies").is_success:
        path = f"/v2{odd.path}"
        client.read(f"{path}/rendered?window=1,2,linear", "image/png")
        client.read(f"{path}/frames/1/rendered", "image/jpeg")
        client.read(f"{path}/frames/1", "image/jls")
        client.read(f"{path}/metadata")
        client.read(path, f"application/dicom; transfer-syntax={JPEG2000Lossless}")
        update = {**CHANGE, "studyInstanceUids": [odd.study]}
        answer = client.post("/v2/studies/$bulkUpdate", json=update)
        assert answer.status_code == 202, answer.text
        wait_until_ended(client, answer.json()["id"])


def wait_until_ended(client: Api, id: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        status = client.get(f"/v2/operations/{id}").json()["status"]
        if status not in {"notStarted", "running"}:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def filled(function: HttpFunction, values: dict[str, str]) -> str:
    def segment(text: str) -> str:
        name = re.match(r"\{\*?([a-z]+)", text)
        return values.get(name[1], "1.2.3") if name else text

    return "/" + "/".join(segment(text) for text in function.template.split("/"))


QUERY = {
    "PatientName": CANARY,
    "PatientID": f"{CANARY}\\",
    "StudyDate": CANARY,
    "limit": CANARY,
    "includefield": CANARY,
    CANARY: CANARY,
    "windowcenter": CANARY,
    "startTime": CANARY,
}


def requests(method: str) -> Iterator[dict[str, Any]]:
    yield {}
    yield {"params": QUERY}
    if method == "HEAD":
        return
    if method == "GET":
        for name, value in QUERY.items():
            yield {"params": {name: value}}
    for name in ("Accept", "Content-Type", "Range", "If-None-Match", "X-Any"):
        yield {"headers": {"Accept": "*/*", name: f"{CANARY}/{CANARY}; q={CANARY}"}}
    if method in {"POST", "PUT", "PATCH"}:
        for content in (TAGS, CHANGE, EXPORT, [CANARY], {"00741000": CANARY}, CANARY):
            yield {"content": json.dumps(content), "headers": as_json(DICOM_JSON)}
            yield {
                "content": json.dumps(content),
                "headers": as_json("application/json"),
            }
        yield {"content": f'{{"{CANARY}', "headers": as_json("application/json")}


def as_json(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type, "Accept": "*/*"}


@pytest.mark.parametrize("function", http_functions(), ids=lambda each: each.name)
def test_requests_of_every_route(client, stored, function):
    uids = {"study": stored.study, "series": stored.series, "instance": stored.sop}
    scope = {"version": "v2", "partition": "p", "ignored": ""}
    known = {**scope, "document": "api.json", **uids}
    deletes = "DELETE" in function.methods
    targets = [scope, {**known, "frame": "1", "frames": "1"}]
    for values in targets[:1] if deletes else targets:
        path = filled(function, values)
        for method in function.methods:
            for arguments in requests(method):
                arguments.setdefault("headers", {"Accept": "*/*"})
                client.request(method, path, **arguments)


def test_a_file_that_is_missing(running, client, stored):
    client.read(f"/v2{stored.path}", AS_STORED)
    lost = made(PatientName=CANARY, PatientID=CANARY, frames=1)
    assert client.store(lost.file).is_success
    lose_file(running.settings, lost.sop)
    for path, accept in (
        (lost.path, AS_STORED),
        (f"{lost.path}/frames/1", 'multipart/related; type="application/octet-stream"'),
        (f"{lost.path}/rendered", "image/jpeg"),
    ):
        answer = failing(client, path, accept)
        assert answer is None or answer.is_error


def failing(client: Api, path: str, accept: str) -> httpx.Response | None:
    """The answer; None where the connection broke."""
    try:
        return client.read(f"/v2{path}", accept)
    except httpx.HTTPError:
        return None
