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
def test_the_curl_example_finds_and_fetches_a_sample_and_stores_a_file(url, tmp_path):
    study = Phantom().uid("study")
    with Server(f"{url}/v2") as server:
        sampled = instance(PatientID="SAMPLE-PHANTOM", StudyInstanceUID=study)
        assert server.store_instances([sampled]).status == 200
    (tmp_path / "slice.dcm").write_bytes(instance(PatientID="SAMPLE-README"))
    script = tmp_path / "example.sh"
    script.write_text("set -e\n" + example("curl", url))
    done = subprocess.run(
        ["bash", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found, metadata, stored = json_values(done.stdout)
    assert found[0]["0020000D"]["Value"] == [study]
    assert metadata[0]["00100020"]["Value"] == ["SAMPLE-PHANTOM"]
    assert sampled in (tmp_path / "study.multipart").read_bytes()
    assert len(stored["00081199"]["Value"]) == 1


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
