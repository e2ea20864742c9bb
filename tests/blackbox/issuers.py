"""Issuers of tokens that a real server reads over HTTP on 127.0.0.1.

`published(issuer)` serves the documents of an `Issuer`; `MockIssuer` is npm
oauth2-mock-server, whose tokens are none of ours.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from issuer import Issuer

SCRIPT = Path(__file__).with_name("mock_issuer.mjs")
PACKAGE = SCRIPT.parents[2] / "node_modules" / "oauth2-mock-server"
START_SECONDS = 30


@contextlib.contextmanager
def published() -> Iterator[Issuer]:
    """An issuer whose name is the URL where its keys are."""
    issuer = Issuer()
    config = uvicorn.Config(
        issuer.application,
        port=0,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        loop="asyncio",
    )
    server = uvicorn.Server(config)
    started = threading.Event()

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(START_SECONDS)
    port = server.servers[0].sockets[0].getsockname()[1]
    issuer.name = f"http://127.0.0.1:{port}"
    yield issuer
    server.should_exit = True
    thread.join()


class MockIssuer:
    """npm oauth2-mock-server in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("node") is not None and PACKAGE.is_dir()

    def rotate(self) -> None:
        """Replaces the signing key."""
        assert self._process.stdin
        self._process.stdin.write("rotate\n")
        self._process.stdin.flush()
        assert self._line() == "done"

    def token(self, **claims: Any) -> str:
        """An access token of a client with these claims on top of the usual ones."""
        form = {"grant_type": "client_credentials", "claims": json.dumps(claims)}
        port = self.url.rpartition(":")[2]
        answer = httpx.post(f"http://127.0.0.1:{port}/token", data=form)
        found: str = answer.json()["access_token"]
        return found

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(START_SECONDS)
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
