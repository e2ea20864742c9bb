"""The loads: what is sent, how often, and what is measured of it.

A load is run against a server and gives a `Measure`. Server CPU per operation is the
steadiest figure; wall times depend on what else the machine does.
"""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.servers import Server

BOUNDARY = b"bench-boundary"
STORE_HEADERS = {
    "Content-Type": f'multipart/related; type="application/dicom";'
    f" boundary={BOUNDARY.decode()}",
    "Accept": "application/dicom+json",
}
JSON_HEADERS = {
    "Accept": "application/dicom+json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "Mozilla/5.0 (as a viewer in a browser)",
}


@dataclass(frozen=True)
class Measure:
    """What a load cost.

    Attributes:
        cpu_ms: Server CPU per operation.
        p50_ms: Median time of a request.
        p95_ms: 95th percentile of the same.
        per_second: Operations per second of wall time.
        bytes_per_operation: Of the answers.
        failed: Requests that were answered with an error.
    """

    operations: int
    cpu_ms: float
    p50_ms: float
    p95_ms: float
    per_second: float
    bytes_per_operation: float
    failed: int


@dataclass(frozen=True)
class Request:
    """One HTTP request; `operations` is how many operations it counts as."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    operations: int = 1


class Client:
    """A connection that is kept open."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.base)
        self.link: str | None = None
        assert parts.hostname == "127.0.0.1", "loads go to this machine only"
        self._prefix = parts.path
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=600
        )

    def send(self, request: Request) -> tuple[int, int]:
        """Status and length of the answer."""
        status, body = self.fetch(request)
        return status, len(body)

    def fetch(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._connection.request(
            request.method,
            self._prefix + request.path,
            request.body or None,
            request.headers,
        )
        answer = self._connection.getresponse()
        self.link = answer.getheader("Link")
        return answer.status, answer.read()


def run(server: Server, requests: Iterable[Request], *, clients: int = 1) -> Measure:
    """Sends the requests from so many clients and measures the server."""
    waiting = iter(requests)
    lock = threading.Lock()
    times: list[float] = []
    totals = {"operations": 0, "bytes": 0, "failed": 0}

    def work() -> None:
        client = Client(server)
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                return
            start = time.perf_counter()
            status, length = client.send(request)
            elapsed = time.perf_counter() - start
            with lock:
                times.append(elapsed)
                totals["operations"] += request.operations
                totals["bytes"] += length
                totals["failed"] += status >= 400

    cpu = server.cpu_seconds()
    start = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    used = server.cpu_seconds() - cpu
    count = max(1, totals["operations"])
    quantiles = statistics.quantiles(times, n=20) if len(times) > 1 else times * 20
    return Measure(
        operations=totals["operations"],
        cpu_ms=used / count * 1000,
        p50_ms=statistics.median(times) * 1000,
        p95_ms=quantiles[18] * 1000,
        per_second=count / wall,
        bytes_per_operation=totals["bytes"] / count,
        failed=totals["failed"],
    )


def repeat(
    server: Server, request: Request, *, seconds: float = 1.5, at_least: int = 5
) -> Measure:
    """The same request again and again, after one that is not counted.

    Long enough for the kernel's CPU clock, which counts in hundredths of a second.
    """
    Client(server).send(request)

    def again() -> Iterator[Request]:
        end = time.monotonic() + seconds
        sent = 0
        while sent < at_least or time.monotonic() < end:
            sent += 1
            yield request

    return run(server, again())


# --- requests ------------------------------------------------------------------------


def store(files: Sequence[bytes]) -> Request:
    """STOW of these files in one request."""
    parts = []
    for file in files:
        parts += [
            b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n",
            file,
            b"\r\n",
        ]
    body = b"".join([*parts, b"--" + BOUNDARY + b"--\r\n"])
    return Request("POST", "/studies", STORE_HEADERS, body, len(files))


def stores(files: Iterable[bytes], batch: int) -> Iterator[Request]:
    """STOW requests of `batch` files each."""
    waiting: list[bytes] = []
    for file in files:
        waiting.append(file)
        if len(waiting) == batch:
            yield store(waiting)
            waiting = []
    if waiting:
        yield store(waiting)


def search(path: str) -> Request:
    """QIDO."""
    return Request("GET", path, JSON_HEADERS)


def metadata(path: str) -> Request:
    """Metadata of a study, series or instance."""
    return Request("GET", f"{path}/metadata", JSON_HEADERS)


def files(path: str) -> Request:
    """All files below the path, as stored."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    return Request("GET", path, {"Accept": accept})


def frame(path: str, number: int = 1) -> Request:
    """One frame, as stored."""
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    return Request("GET", f"{path}/frames/{number}", {"Accept": accept})


def rendered(path: str, number: int | None = None) -> Request:
    """A rendered frame or instance."""
    frame_path = f"/frames/{number}" if number else ""
    return Request("GET", f"{path}{frame_path}/rendered", {"Accept": "image/jpeg"})


def found(server: Server, path: str) -> list[dict[str, object]]:
    """Results of a search, decoded."""
    status, body = Client(server).fetch(
        Request("GET", path, {"Accept": "application/dicom+json"})
    )
    rows: list[dict[str, object]] = json.loads(body) if status == 200 else []
    return rows


def next_page(server: Server, path: str) -> str:
    """Path of the page that follows; the same path where the server names none."""
    client = Client(server)
    client.fetch(search(path))
    if not client.link:
        return path
    url = urlsplit(client.link.partition("<")[2].partition(">")[0])
    return f"{url.path}?{url.query}".removeprefix(urlsplit(server.base).path)


Load = Callable[[Server], Measure]
