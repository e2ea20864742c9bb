"""A whole host in a process of its own, to be killed and started again."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from localhost import keys
from localhost.extension import WEBHOOKS

ROOT = Path(__file__).parents[2]
APP = ROOT / "tests/apps/durable_sample"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HostProcess:
    """`python -m localhost` on the sample app; the port stays the same."""

    def __init__(self, data: Path, workers: int = 1) -> None:
        self._data = data
        self._workers = workers
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self.log = data.with_suffix(".log")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it is ready."""
        with self.log.open("a") as log:
            self._process = self._spawn(log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("Ready at"):
            self.kill()
        assert line.startswith("Ready at"), self.log.read_text()

    def _spawn(self, log: IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "localhost", str(APP)),
                *("--port", str(self._port), "--data", str(self._data)),
                *("--workers", str(self._workers)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def poll(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def request(self, method: str, path: str, data: Any = None) -> tuple[int, Any]:
        """Status and JSON of a webhook call."""
        key = keys.load(self._data).system("durabletask")
        joint = "&" if "?" in path else "?"
        url = f"http://127.0.0.1:{self._port}{WEBHOOKS}/{path}{joint}code={quote(key)}"
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, body, method=method)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def begin(self, name: str, instance_id: str, data: Any) -> None:
        """Start an orchestration as the Python client would."""
        status, answer = self.request(
            "POST", f"orchestrators/{name}/{instance_id}", json.dumps(data)
        )
        assert status == 202, answer

    def status(self, instance_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.request("GET", f"instances/{instance_id}")[1]
        return found

    def end(self, instance_id: str, seconds: float = 60) -> dict[str, Any]:
        """The status once the instance has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.status(instance_id)
            if found["runtimeStatus"] in {"Completed", "Failed", "Terminated"}:
                return found
            time.sleep(0.05)
        raise TimeoutError(str(found))
