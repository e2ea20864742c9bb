"""`./dev serve --stack emulated`: the Azure stack on this machine."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from blackbox.hosts import ROOT

from cli.client import Server

START_SECONDS = 90
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def emulators_of(data: Path) -> list[str]:
    """Command lines of processes that work on this data folder."""
    found = subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    )
    return [line for line in found.stdout.splitlines() if str(data) in line]


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/check", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_server_on_the_emulators_stores_and_leaves_nothing_behind(
    tmp_path, unused_tcp_port
):
    if not shutil.which("node") or not (ROOT / "node_modules/azurite").exists():
        pytest.skip("node or azurite is not installed")
    if not (ROOT / ".venv/stamp").exists():
        pytest.skip("runs only in an environment that ./dev made")
    url, log = f"http://127.0.0.1:{unused_tcp_port}", tmp_path / "log"
    data = tmp_path / "data"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                ROOT / "dev",
                "serve",
                "--stack=emulated",
                f"--port={unused_tcp_port}",
                f"--data={data}",
                "--workers=1",
            ],
            env={**os.environ, "DICOM_SAMPLE": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(url) or "sample instances" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        with Server(f"{url}/v2") as server:
            assert len(server.request("GET", "/studies").json()) == 9
        assert (data / "emulators").is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        deadline = time.monotonic() + 15
        while emulators_of(data) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert emulators_of(data) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
