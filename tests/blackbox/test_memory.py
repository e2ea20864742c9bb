"""Memory while much goes in and out: less than 150 MB above that of an idle server.

`FULL=1` makes it an instance of 2 GB, a study of 10 GB and uploads of 53 MB each; that
takes 25 GB of disk for a while.
"""

import asyncio
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from blackbox.hosts import Running
from blackbox.loads import (
    FULL,
    STOW_HEADERS,
    WADO_HEADERS,
    Connection,
    Uids,
    acknowledged,
    connected,
    head,
    healthy,
    load_file,
    stow_body,
)
from emulators.processes import AZURITE, both

MB = 1_000_000
ABOVE_IDLE_BYTES = 150 * MB
UPLOADS = 16
PIECE = bytes(range(256)) * 4096
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 240)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much goes in and out, in bytes."""

    instance: int
    upload: int
    study_instances: int
    study_instance: int

    @property
    def needed(self) -> int:
        """Of disk; the emulator of Blob Storage keeps blobs twice for a while."""
        written = self.instance + UPLOADS * self.upload
        return 2 * (written + self.study_instances * self.study_instance)


SIZES = {
    "embedded": Sizes(200 * MB, 20 * MB, 4, 250 * MB),
    "emulated": Sizes(100 * MB, 12 * MB, 4, 60 * MB),  # Azurite is slow
}
if FULL:
    SIZES = dict.fromkeys(SIZES, Sizes(2_000 * MB, 53 * MB, 20, 500 * MB))


# --- measuring -------------------------------------------------------------------


def pss_bytes(pid: int) -> int:
    """Memory of the process and its children, shared pages by their share."""
    total = 0
    for number in (pid, *_children(pid)):
        try:
            rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        (line,) = [row for row in rollup.splitlines() if row.startswith("Pss:")]
        total += int(line.split()[1]) * 1024
    return total


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


@dataclass
class Meter:
    """The peak while the block runs."""

    pid: int
    peak: int = 0

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.03):
            self.peak = max(self.peak, pss_bytes(self.pid))


# --- streams ---------------------------------------------------------------------


def file_head(study: str, series: str, sop: str, pixel_bytes: int) -> bytes:
    """A file up to the value of Pixel Data, which is to have that length."""
    small = load_file(study, series, sop)
    at = small.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    return small[:at] + struct.pack("<I", pixel_bytes)


async def upload(port: int, study: str, series: str, sop: str, size: int) -> None:
    """Stores an instance of about that size, made while it is sent."""
    pixel_bytes = size // len(PIECE) * len(PIECE)
    opening, closing = stow_body([b"|"]).split(b"|")
    opening += file_head(study, series, sop, pixel_bytes)
    length = len(opening) + pixel_bytes + len(closing)
    async with connected(port) as connection:
        writer = connection.writer
        writer.write(head("POST", "/v2/studies", STOW_HEADERS, length) + opening)
        for _ in range(pixel_bytes // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        writer.write(closing)
        assert acknowledged(await connection.answer()) == {sop}


async def download(port: int, path: str) -> int:
    """Bytes of the body, which is thrown away."""
    async with connected(port) as connection:
        connection.writer.write(head("GET", path, WADO_HEADERS, None))
        status = await connection.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in status.split(b"\r\n")[0], status
        return await _discarded(connection, status.lower())


async def _discarded(connection: Connection, headers: bytes) -> int:
    reader, total = connection.reader, 0
    if b"transfer-encoding: chunked" not in headers:
        length = headers.partition(b"content-length: ")[2].partition(b"\r")[0]
        return await _skip(reader, int(length))
    while size := int(await reader.readline(), 16):
        total += await _skip(reader, size)
        await reader.readexactly(2)
    await reader.readline()
    return total


async def _skip(reader: asyncio.StreamReader, count: int) -> int:
    left = count
    while left:
        data = await reader.read(min(left, 1 << 20))
        assert data, "the answer ended too early"
        left -= len(data)
    return count


# --- the stacks ------------------------------------------------------------------


@pytest.fixture(params=["embedded", "emulated"])
def server(
    request: pytest.FixtureRequest, serve: Callable[..., Running], tmp_path: Path
) -> Iterator[Running]:
    needed = SIZES[request.param].needed
    if shutil.disk_usage(tmp_path).free < needed:
        pytest.skip(f"less than {needed // MB} MB free on the disk")
    limit = {"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "2147483647"}
    if request.param == "embedded":
        data = {"DICOM_STORE": "embedded", "DICOM_DATA": str(tmp_path / "dicom")}
        running = serve(data=tmp_path / "host", **data, **limit)
        yield running
        running.stop()
    else:
        if not AZURITE.exists():
            pytest.skip("azurite is not installed: run npm ci")
        with both(folder=tmp_path / "emulators") as emulated:
            settings = emulated.environment() | {"TMPDIR": str(tmp_path)}
            running = serve(data=tmp_path / "host", **settings, **limit)
            yield running
            running.stop()
    for folder in ("dicom", "emulators"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)


async def idle_bytes(running: Running) -> int:
    """After each kind of request has been served once."""
    uids = Uids()
    await healthy(running.port)
    study, series, sop = uids.next(), uids.next(), uids.next()
    await upload(running.port, study, series, sop, 8 * MB)
    await download(running.port, f"/v2/studies/{study}")
    await asyncio.sleep(0.5)
    return pss_bytes(running.process.pid)


async def test_what_streams_through_stays_out_of_memory(
    server: Running, request: pytest.FixtureRequest
) -> None:
    sizes = SIZES[request.node.callspec.params["server"]]
    port, pid, uids = server.port, server.process.pid, Uids()
    idle = await idle_bytes(server)
    peaks = {}
    study, series = uids.next(), uids.next()
    with Meter(pid) as meter:
        await upload(port, study, series, uids.next(), sizes.instance)
    peaks[f"STOW of {sizes.instance // MB} MB"] = meter.peak
    with Meter(pid) as meter:
        await asyncio.gather(
            *(
                upload(port, uids.next(), uids.next(), uids.next(), sizes.upload)
                for _ in range(UPLOADS)
            )
        )
    peaks[f"{UPLOADS} uploads of {sizes.upload // MB} MB"] = meter.peak
    for _ in range(sizes.study_instances):
        await upload(port, study, series, uids.next(), sizes.study_instance)
    with Meter(pid) as meter:
        got = await download(port, f"/v2/studies/{study}")
    peaks[f"study of {got // MB} MB"] = meter.peak
    stored = sizes.study_instances * sizes.study_instance + sizes.instance
    assert got > 0.95 * stored
    above = {name: peak - idle for name, peak in peaks.items()}
    print(f"idle {idle / MB:.0f} MB; above:")
    for name, more in above.items():
        print(f"  {name}: {more / MB:.0f} MB")
    assert max(above.values()) < ABOVE_IDLE_BYTES
