"""Runs beside a server that starts: says when it is ready, then completes it.

Started by `./dev serve`. Nothing here delays the server: samples are stored and the
viewer is fetched after it is healthy. Ends when the server does.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from cli import sample, viewer
from cli.client import Server

POLL_SECONDS = 0.05
UNHEALTHY_POLL_SECONDS = 2.0
LONGEST_ANSWER = 300
PATIENCE_SECONDS = 120
STOP_SECONDS = 1  # that a server needs to end
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - not bound, asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", type=int, required=True, help="its process number")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--viewer", type=Path, required=True)
    parser.add_argument("--cert", type=Path, help="the server's, where it has TLS")


def run(arguments: argparse.Namespace) -> int:
    """0 when the server became ready and everything else is done."""
    cert = arguments.cert
    scheme = "https" if cert else "http"
    url = f"{scheme}://{reachable(arguments.host)}:{arguments.port}"
    try:
        is_healthy = wait_until_healthy(url, arguments.server, cert)
    except OSError:  # the certificate; the server says so
        return 1
    if not is_healthy:
        return 1
    print(f"dev: Ready: DICOMweb at {url}/v2, for browsers {url}/", flush=True)
    record = arguments.data / "sample.json"
    if sample.is_wanted(record):
        try:
            with Server(f"{url}/v2", cert=cert) as server:
                print(f"dev: {sample.load(server, record)}", flush=True)
        except OSError as error:
            complain(f"The samples were not loaded: {error}")
    say_viewer(arguments.viewer, url, arguments.server)
    return 0


def reachable(host: str) -> str:
    """The host as a client on this machine reaches it, fit for a URL."""
    host = ANY_ADDRESS.get(host, host)
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def wait_until_healthy(url: str, process: int, cert: Path | None = None) -> bool:
    """True once the server answers 200; False when it ended or takes too long.

    What else it answers is said, once, and it is then asked less often.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause, said = POLL_SECONDS, b""
    with Server(url, timeout_seconds=10, cert=cert) as server:
        while is_alive(process) and time.monotonic() < deadline:
            try:
                answer = server.request("GET", "/health/check")
            except OSError:  # it does not listen yet
                time.sleep(pause)
                continue
            if answer.status == 200:
                return True
            if answer.body != said:
                pause, said = UNHEALTHY_POLL_SECONDS, answer.body
                text = said.decode(errors="replace")[:LONGEST_ANSWER]
                complain(f"Not ready yet: {url}/health/check answers {text}")
            time.sleep(pause)
    if is_alive(process):
        complain(f"{url} is still not healthy; nothing more is done for it")
    return False


def complain(text: str) -> None:
    """Says something that went wrong."""
    print(f"dev: {text}", file=sys.stderr, flush=True)


def is_alive(process: int) -> bool:
    """Whether the process still runs; one that ended and was not asked for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:  # gone just now, or not Linux
        return not Path("/proc/self/stat").exists()
    return state != "Z"


def say_viewer(folder: Path, url: str, process: int) -> None:
    """Fetches the viewer if need be, and says where it is or why there is none.

    Says nothing when the server has ended: Ctrl-C ends npm as well.
    """
    try:
        viewer.fetch(folder)
    except viewer.FetchError as error:
        time.sleep(STOP_SECONDS)
        if not is_alive(process):
            return
        what = "The viewer stays an older one" if folder.exists() else "No viewer"
        complain(f"{what}: {error}")
    if folder.exists():
        print(f"dev: Viewer: {url}/viewer/", flush=True)
