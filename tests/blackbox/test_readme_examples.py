"""The examples of the README, cut out of it and run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from data import instance

from cli.client import Server
from cli.phantom import Phantom, instances

README = Path(__file__).parents[2] / "README.md"
PHANTOM = Phantom(slices=12, size=64, pixel_mm=6.0, slice_mm=20.0, name="readme")
LONGEST_VOLUME_EXAMPLE = 15


def example(name: str, url: str) -> str:
    """The code block below `<!-- example: name -->`, for a server at the URL."""
    pattern = rf"<!-- example: {name} -->\n```\w+\n(.*?)```"
    found = re.search(pattern, README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the README has no example {name}"
    return found[1].replace("http://127.0.0.1:8080", url)


@pytest.fixture
def url(serve):
    running = serve()
    yield running.url
    running.stop()


@pytest.mark.slow
def test_the_curl_example_stores_finds_and_fetches(url, tmp_path):
    (tmp_path / "slice.dcm").write_bytes(
        instance(PatientID="SAMPLE-README", StudyInstanceUID="2.25.111222333")
    )
    script = tmp_path / "example.sh"
    script.write_text("set -e\n" + example("curl", url))
    done = subprocess.run(
        ["bash", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stored, found, metadata = json_values(done.stdout)
    assert "00081199" in stored
    assert found[0]["0020000D"]["Value"] == ["2.25.111222333"]
    assert metadata[0]["00100020"]["Value"] == ["SAMPLE-README"]
    assert b"DICM" in (tmp_path / "study.multipart").read_bytes()


def json_values(text: str) -> list:
    """The JSON values that stand one behind the other in the text."""
    decoder, values = json.JSONDecoder(), []
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


@pytest.mark.slow
def test_the_python_examples_load_a_volume_and_store_a_segmentation(url, tmp_path):
    folder = tmp_path / "ct-folder" / "series"
    folder.mkdir(parents=True)
    for number, file in enumerate(instances(PHANTOM)):
        (folder / f"{number}.dcm").write_bytes(file)
    volume = example("volume", url)
    assert len(volume.splitlines()) <= LONGEST_VOLUME_EXAMPLE
    checks = "\nprint(volume.shape, volume.min() < -900, volume.max() > 500)\n"
    script = tmp_path / "example.py"
    script.write_text(volume + checks + example("segmentation", url))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(12, 64, 64) True True"
    with Server(f"{url}/v2") as server:
        study = PHANTOM.uid("study")
        found = server.request("GET", f"/studies/{study}/series?Modality=SEG").json()
    assert len(found) == 1
