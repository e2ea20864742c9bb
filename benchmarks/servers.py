"""Starts a server to be measured, and reads what CPU and memory its processes use."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORTHANC_PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        base: Root of its DICOMweb service.
        pid: Of its first process; None for one that we did not start.
    """

    name: str
    base: str
    pid: int | None = None

    @property
    def processes(self) -> list[int]:
        """Ids of its processes, children included."""
        if self.pid is None:
            return []
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                parents[int(entry.name)] = _parent(entry)
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return sum(_cpu(pid) for pid in self.processes)

    def settle(self, *, seconds: float = 60.0) -> None:
        """Waits until the server has nothing more to do of what it was sent."""
        deadline, before = time.monotonic() + seconds, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1.0)
            after = self.cpu_seconds()
            if after - before < 0.05:
                return
            before = after

    def memory_bytes(self) -> int:
        """Resident memory of all its processes, shared pages counted once each."""
        return sum(_memory(pid) for pid in self.processes)


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def _memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"no answer at {url}")


@contextmanager
def ours(*, workers: int = 1, durability: str = "process-crash") -> Iterator[Server]:
    """This project's server on a new folder."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = os.environ | {
            "DICOM_DATA": folder,
            "DICOM_DURABILITY": durability,
            "DICOM_SAMPLE": "0",
            "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "2147483647",
            "AzureWebJobsDisableHomepage": "true",
        }
        command = [sys.executable, "-m", "localhost", ".", "--port", str(port)]
        command += ["--workers", str(workers), "--data", folder]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health/check", process)
            yield Server("ours", f"http://127.0.0.1:{port}/v2", process.pid)
        finally:
            process.terminate()
            process.wait()


def orthanc_plugin() -> str | None:
    """The DICOMweb plugin of Orthanc, where both are installed."""
    if shutil.which("Orthanc") is None:
        return None
    return next((path for path in ORTHANC_PLUGINS if Path(path).exists()), None)


@contextmanager
def orthanc(*, sync: bool = False) -> Iterator[Server]:
    """Orthanc with SQLite on a new folder.

    Args:
        sync: Whether each stored file is synced to the disk (`SyncStorageArea`).
    """
    plugin = orthanc_plugin()
    if plugin is None:
        raise RuntimeError("Orthanc and its DICOMweb plugin are not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="orthanc-") as folder:
        settings = {
            "Name": "bench",
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "SyncStorageArea": sync,
            "OverwriteInstances": False,
            "Plugins": [plugin],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        config = Path(folder) / "orthanc.json"
        config.write_text(json.dumps(settings))
        process = subprocess.Popen(
            ["Orthanc", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/system", process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/system") as answer:
                version = json.load(answer)["Version"]
            base = f"http://127.0.0.1:{port}/dicom-web"
            yield Server(f"Orthanc {version}", base, process.pid)
        finally:
            process.terminate()
            process.wait()
