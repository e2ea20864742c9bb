"""Places that an export may go to: Azurite, and a server that takes what it is told to.

Both are on 127.0.0.1; a server under test has to name them in DICOM_EXPORT_HOSTS.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from azure.storage.blob import ContainerClient, generate_container_sas
from emulators.processes import AZURITE, AZURITE_KEY, azurite

ACCOUNT = "devstoreaccount1"


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running emulator.

    Attributes:
        origin: As DICOM_EXPORT_HOSTS names it.
    """

    connection: str
    origin: str

    def container(self, name: str) -> ContainerClient:
        """A new, empty container."""
        client = ContainerClient.from_connection_string(self.connection, name)
        client.create_container()
        return client

    def uri(self, name: str, **more: str) -> str:
        """Of the container, with a shared access signature for an hour."""
        return f"{self.origin}/{ACCOUNT}/{name}?{self.sas(name, **more)}"

    def sas(self, name: str, *, permission: str = "racwl", minutes: int = 60) -> str:
        return generate_container_sas(
            ACCOUNT,
            name,
            account_key=AZURITE_KEY,
            permission=permission,
            expiry=datetime.now(UTC) + timedelta(minutes=minutes),
        )


@contextmanager
def running_azurite() -> Iterator[Azurite]:
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with azurite() as address:
        endpoint = address.connection.split("BlobEndpoint=")[1].split(f"/{ACCOUNT}")[0]
        yield Azurite(address.connection, endpoint)


Answer = tuple[int, dict[str, str]]
CREATED: Answer = (
    201,
    {"ETag": '"0x1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"},
)


class FakeBlobs:
    """A blob service whose every answer is up to the test.

    Attributes:
        requests: Method and path with query of each request, in order.
        answer: Of a method and a path with query.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.answer: Callable[[str, str], Answer] = lambda *_: CREATED
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append((self.command, self.path))
                status, headers = outer.answer(self.command, self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_DELETE = do_PUT

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["FakeBlobs"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def is_log(path: str) -> bool:
    """Whether a request is about the error log."""
    return path.partition("?")[0].endswith("/errors.log")
