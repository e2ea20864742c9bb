"""npm dicomweb-client in Node.js, with dcmjs to parse what it gets."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from blackbox.hosts import ROOT, Running
from data import instance, new_uid

pytestmark = [
    pytest.mark.client,
    pytest.mark.allow_hosts(["127.0.0.1"]),
]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (ROOT / "node_modules/dicomweb-client").exists():
        pytest.skip("node or its packages are not installed")
    return found


def test_it_stores_searches_and_retrieves(node: str, server: Running, tmp_path: Path):
    study, series = new_uid(), new_uid()
    paths = [tmp_path / f"{number}.dcm" for number in (1, 2)]
    for path in paths:
        path.write_bytes(
            instance(
                PatientID="DWC-JS",
                StudyInstanceUID=study,
                SeriesInstanceUID=series,
                frames=2,
            )
        )
    script = Path(__file__).with_name("dicomweb_client.mjs")
    done = subprocess.run(
        [node, script, f"{server.url}/v2", *paths],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    frame = seen["frameBytes"][0]
    assert frame > 0
    assert seen == {
        "count": 2,
        "instances": 2,
        "metadataOfStudy": 2,
        "metadataOfSeries": 2,
        "filesOfStudy": 2,
        "filesOfSeries": 2,
        "bulkBytes": 2 * frame,
        "frameBytes": [frame, frame],
        "rendered": "ffd8ff",
        "same": True,
        "patient": "DWC-JS",
        "problems": [],
    }
