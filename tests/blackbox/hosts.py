"""Host processes for tests: boot, stop, kill."""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from patients import found_in

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 40.0


@dataclass(slots=True)
class Running:
    """A host process that said it is ready.

    Attributes:
        url: Base URL without a slash at its end.
        process: The parent process (the only one with `--workers 1`).
        data: The folder of all its state.
        log_path: What it wrote to standard error.
        settings: The environment variables that it was given.
    """

    url: str
    process: subprocess.Popen[bytes]
    data: Path
    log_path: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        """Ask it to end; its exit code. Kills what does not end in time.

        Fails when the log tells of a patient.
        """
        code = self._stopped()
        if self.log_path.exists():  # not beyond a test that passed and took its folder
            assert found_in(self.log()) == []
        return code

    def _stopped(self) -> int:
        self._close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _close(self) -> None:
        if self.process.stdout:
            self.process.stdout.close()

    def kill(self) -> None:
        """End it as a power failure would, as far as processes go."""
        self._close()
        self.process.kill()
        self.process.wait()


LOCALHOST = (sys.executable, "-m", "localhost")
CORE_TOOLS = (sys.executable, str(Path(__file__).with_name("core_tools.py")))
# TEST_HOST=func: the product is served by Azure Functions Core Tools.
PRODUCT = CORE_TOOLS if os.environ.get("TEST_HOST") == "func" else LOCALHOST


def boot(
    app: Path,
    data: Path,
    *arguments: str,
    command: tuple[str, ...] = LOCALHOST,
    **env: str,
) -> Running:
    """A started host; a second boot on the same folder continues its state."""
    data.mkdir(parents=True, exist_ok=True)
    log_path = data / "host.log"
    options = ["--port", "0", "--data", str(data / "host"), *arguments]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*command, str(app), *options],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        url = _wait_for_url(process)
    except TimeoutError as error:
        Running("", process, data, log_path).kill()
        pytest.fail(f"{error}\n{log_path.read_text()}")
    return Running(url, process, data, log_path, env)


def _wait_for_url(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    deadline = time.monotonic() + START_SECONDS
    text = b""
    while time.monotonic() < deadline:
        readable, _, _ = select.select([process.stdout], [], [], 0.1)
        if readable:
            chunk = os.read(process.stdout.fileno(), 4096)
            text += chunk
            if b"\n" in text and b"Ready at " in text:
                return text.split(b"Ready at ")[1].split()[0].decode()
            if not chunk:
                break
    raise TimeoutError(f"the host did not start (exit code {process.poll()})")


def refused_start(tmp_path: Path, **env: str) -> str:
    """What a server that must not start says."""
    options = ["--port", "0", "--workers", "1", "--data", str(tmp_path / "host")]
    ended = subprocess.run(
        [*LOCALHOST, str(ROOT), *options],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "DICOM_DATA": str(tmp_path / "dicom"), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    return ended.stdout + ended.stderr
