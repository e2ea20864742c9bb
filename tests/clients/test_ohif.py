"""The OHIF viewer in a real Chromium, on our pages and our data."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blackbox.hosts import ROOT, boot
from data import instance

from cli import sample, viewer
from cli.client import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIT = 0.03  # of a viewport's pixels, as in ohif.mjs

pytestmark = [
    pytest.mark.client,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.allow_hosts(["127.0.0.1"]),
]


@dataclass(frozen=True)
class Session:
    """What one session in the browser saw, and where its screenshots are."""

    seen: dict[str, Any]
    url: str
    folder: Path


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("chromium is not installed")
    return found


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (ROOT / "node_modules/playwright-core").exists():
        pytest.skip("node or its packages are not installed")
    return found


@pytest.fixture(scope="module")
def ohif(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The viewer's folder: that of ./dev serve, fetched if need be."""
    folder = ROOT / "viewer"
    try:
        viewer.fetch(folder)
    except viewer.FetchError as error:
        pytest.skip(f"no viewer for chromium: {error}")
    return folder


@pytest.fixture(scope="module")
def session(
    chromium: str, node: str, ohif: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("ohif")
    server = boot(
        ROOT, folder, "--workers", "1", DICOM_DATA=str(folder), DICOM_VIEWER=str(ohif)
    )
    try:
        yield Session(browse(server.url, folder, chromium, node), server.url, folder)
    finally:
        server.stop()


def browse(url: str, folder: Path, chromium: str, node: str) -> dict[str, Any]:
    (folder / "upload.dcm").write_bytes(
        instance(PatientID="UPLOADED-BY-OHIF", PatientName="Uploaded^Here")
    )
    with Server(f"{url}/v2") as server:
        sample.load(server, folder / "sample.json")
        both = {"PatientName": "Two^Modalities", "StudyInstanceUID": "2.25.7"}
        for modality in ("CT", "US"):
            file = instance(**both, Modality=modality)
            assert server.store_instances([file]).status == 200
        uids = {
            "ct": study(server, "PatientID=SAMPLE-PHANTOM"),
            "mr": study(server, "StudyDescription=abdomen%5Eliver"),
            "us": study(server, "PatientName=PLA"),
            "sr": study(server, "ModalitiesInStudy=SR"),
        }
    script = Path(__file__).with_name("ohif.mjs")
    done = subprocess.run(
        [node, script, url, folder, folder / "upload.dcm"],
        env={**os.environ, "CHROMIUM": chromium, "STUDIES": json.dumps(uids)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def study(server: Server, query: str) -> str:
    found = server.request("GET", f"/studies?{query}").json()
    return str(found[0]["0020000D"]["Value"][0])


def test_the_study_list_shows_every_sample_study(session):
    studies = [row for row in session.seen["rows"] if "Reset" not in row]
    assert len(studies) == 10
    assert "Sample, Phantom" in studies[0]
    two = next(row for row in studies if "Two, Modalities" in row)
    assert "CT\\US" in two


def test_the_list_tells_how_many_images_a_series_has(session):
    assert "CT 64 slices 64" in " ".join(session.seen["preview"].split())


def test_the_ct_opens_as_a_volume_in_three_planes(session):
    assert len([part for part in session.seen["mpr"] if part > LIT]) == 3


def test_an_mr_shows(session):
    assert max(session.seen["mr"]) > LIT


def test_a_multi_frame_ultrasound_shows(session):
    assert max(session.seen["us"]) > LIT


def test_a_report_can_be_read(session):
    assert "A mass of 3 cm was detected." in session.seen["sr"]
    assert "[IMAGE is not supported]" in session.seen["sr"]


def test_a_file_is_uploaded(session):
    assert session.seen["upload"] == 200
    with Server(f"{session.url}/v2") as server:
        assert study(server, "PatientID=UPLOADED-BY-OHIF")


def test_nothing_failed_and_nobody_else_was_asked(session):
    assert session.seen["problems"] == []
    assert session.seen["elsewhere"] == []
