"""Azure Functions Core Tools with the command line of `python -m localhost`.

Takes the folder of the app, `--port 0` and whatever else our host takes; runs `func
start` on a free port, says `Ready at URL` when health answers, and ends on SIGTERM.
Each run has operations of its own in the storage account.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from uuid import uuid4

WAIT_SECONDS = 120.0
SETTINGS = {
    "FUNCTIONS_WORKER_RUNTIME": "python",
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "AzureWebJobsDisableHomepage": "true",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "2147483647",
    "PYTHON_ENABLE_INIT_INDEXING": "1",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/check", timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 503  # it answers: something it needs is away
    except OSError:
        return False


def environment() -> dict[str, str]:
    """Core Tools take a variable before local.settings.json."""
    name = uuid4().hex[:20]
    hub = "AzureFunctionsJobHost__extensions__durableTask__hubName"
    host = {"AzureFunctionsWebHost__hostid": name, hub: f"test{name}"}
    return {**SETTINGS, **host, **os.environ}


def main(words: list[str]) -> int:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # Standard output belongs to whoever waits for "Ready".
    host = subprocess.Popen(
        ["func", "start", "--port", str(port), "--verbose"],
        cwd=Path(words[0]),
        env=environment(),
        stdout=sys.stderr,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(host.pid, signal.SIGINT))
    deadline = time.monotonic() + WAIT_SECONDS
    while host.poll() is None and not is_healthy(url):
        if time.monotonic() > deadline:
            os.killpg(host.pid, signal.SIGKILL)
            return 1
        time.sleep(0.2)
    if host.poll() is None:
        print(f"Ready at {url}", flush=True)
    status = host.wait()
    return 0 if status in {0, -signal.SIGINT, 130} else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
