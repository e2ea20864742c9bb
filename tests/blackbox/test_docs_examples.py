"""The commands in docs/ that a reader would type, cut out and run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from data import instance

from cli.client import Server

DOCS = Path(__file__).parents[2] / "docs"
STUDY = "1.2.826.0.1.3680043.8.498.1"

pytestmark = pytest.mark.slow


def example(page: str, begins: str, url: str) -> str:
    """The code block of the page that begins so, for a server at the URL."""
    blocks = re.findall(
        r"^```\w*\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    found = [block for block in blocks if block.startswith(begins)]
    assert len(found) == 1, f"{page} has {len(found)} examples: {begins}"
    return re.sub(r"http://(localhost|127\.0\.0\.1):8080", url, found[0])


def output(script: str, folder: Path) -> str:
    """What the commands print."""
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def url(serve):
    running = serve()
    with Server(f"{running.url}/v2") as server:
        assert server.store_instances([instance(StudyInstanceUID=STUDY)]).status == 200
    yield running.url
    running.stop()


@pytest.mark.parametrize(
    ("page", "begins", "status"),
    [
        ("query-tags.md", "curl -i", "202"),
        ("bulk-update.md", "curl -i", "202"),
        ("operations.md", "curl -i", "404"),
    ],
)
def test_a_command_gets_the_answer_that_the_page_tells(
    url, tmp_path, page, begins, status
):
    answer = output(example(page, begins, url), tmp_path)
    assert answer.startswith(f"HTTP/1.1 {status} "), answer


def test_the_change_feed_is_followed_from_its_beginning(url, tmp_path):
    script = tmp_path / "example.py"
    first = f"\nprint(next(follow('{url}'))['studyInstanceUid'])\n"
    script.write_text(example("change-feed.md", "import time", url) + first)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == STUDY, done.stderr


def test_a_partition_is_made_by_storing_into_it(serve, tmp_path):
    running = serve(DICOM_DATA_PARTITIONS="true")
    (tmp_path / "image.dcm").write_bytes(instance())
    text = output(example("partitions.md", "curl", running.url), tmp_path)
    running.stop()
    stored, end = json.JSONDecoder().raw_decode(text)
    assert "00081199" in stored
    listed = json.loads(text[end:])
    names = [partition["partitionName"] for partition in listed]
    assert names == ["Microsoft.Default", "site-a"]
