"""Clients that load a server, and the comparison of what it says with what was sent.

They speak HTTP over plain asyncio streams: many requests cost little, and a connection
may end anywhere. Files are made from one template by replacing UIDs.
"""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from data import file_of, item, new_uid
from pydicom.uid import CTImageStorage

FULL = os.environ.get("FULL") == "1"
"""Whether to take the time for the whole of what a shorter run only samples."""
BOUNDARY = "loads-of-parts"
STOW_HEADERS = {
    "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
    "Accept": "application/dicom+json",
}
WADO_HEADERS = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'
}
JSON_HEADERS = {"Accept": "application/dicom+json"}
SOP_INSTANCE_UID, STUDY_COUNT = "00080018", "00201208"
REFERENCED, FAILED, REASON = "00081199", "00081198", "00081197"
REFERENCED_UID, SERIES_COUNT = "00081155", "00201209"
ALREADY_EXISTS = 45070
LOST = (OSError, asyncio.IncompleteReadError, ValueError)
"""What a client sees when the server dies or hangs up."""


# --- HTTP ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection, one request after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        self.writer.write(head(method, path, headers or {}, len(body)) + body)
        await self.writer.drain()
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """The next response."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = lines.split("\r\n")
        status = int(first.split(" ", 2)[1])
        fields = (line.partition(":") for line in rest if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        if status == 100:
            return await self.answer(method)
        body = b""
        if method != "HEAD" and status not in {204, 304}:
            body = await self._body(headers)
        return Answer(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        chunks = []
        while size := int(await self.reader.readline(), 16):
            chunks.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        await self.reader.readline()
        return b"".join(chunks)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


def head(method: str, path: str, headers: dict[str, str], length: int | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


async def healthy(port: int, *, seconds: float = 20) -> None:
    """Returns at the first 200 of the health check."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(*LOST):
            async with connected(port) as connection:
                answer = await connection.request("GET", "/health/check")
                if answer.status == 200:
                    return
        await asyncio.sleep(0.05)
    raise AssertionError("not healthy in time")


# --- files -----------------------------------------------------------------------

_MARK = "2.25.1000000000000000{}"


def template(**more: Any) -> bytes:
    """A file without pixels of its own, whose UIDs `with_uids` fills in."""
    return file_of(
        item(
            SpecificCharacterSet="ISO_IR 192",
            SOPClassUID=CTImageStorage,
            StudyInstanceUID=_MARK.format(1),
            SeriesInstanceUID=_MARK.format(2),
            SOPInstanceUID=_MARK.format(3),
            StudyDate="20240229",
            Modality="CT",
            PatientName="Load^Test",
            PatientID="LOAD",
            **more,
        )
    )


def _image(pixels: int) -> bytes:
    return template(
        Rows=100,
        Columns=pixels // 200,
        BitsAllocated=16,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        PixelRepresentation=0,
        PixelData=b"\x5a\xa5" * (pixels // 2),
    )


def with_uids(content: bytes, study: str, series: str, sop: str) -> bytes:
    """A template with UIDs of the length of its own."""
    for place, uid in enumerate((study, series, sop), 1):
        content = content.replace(_MARK.format(place).encode(), uid.encode())
    return content


_SMALL, _LARGE = _image(2_000), _image(4_600_000)


class Uids:
    """UIDs of the template's length, in order."""

    def __init__(self) -> None:
        self._number = int(new_uid().rpartition(".")[2]) * 1_000_000
        self._seed = time.time_ns() % 10**6

    def next(self) -> str:
        self._number += 1
        return f"2.25.1{self._seed:06d}{self._number % 10**10:010d}"


def load_file(study: str, series: str, sop: str, *, large: bool = False) -> bytes:
    """A file; a large one is spooled to disk by the server."""
    return with_uids(_LARGE if large else _SMALL, study, series, sop)


def stow_body(files: Iterable[bytes]) -> bytes:
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        + content
        + b"\r\n"
        for content in files
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def acknowledged(answer: Answer) -> set[str]:
    """SOP Instance UIDs that the response says are stored, now or before."""
    if answer.status not in {200, 202, 409}:
        return set()
    dataset = answer.json()
    stored = {
        row[REFERENCED_UID]["Value"][0]
        for row in dataset.get(REFERENCED, {}).get("Value", [])
    }
    known = {
        row[REFERENCED_UID]["Value"][0]
        for row in dataset.get(FAILED, {}).get("Value", [])
        if row[REASON]["Value"] == [ALREADY_EXISTS]
    }
    return stored | known


# --- a load of stores ------------------------------------------------------------


@dataclass
class Sent:
    """What the clients did.

    Attributes:
        files: By study and SOP Instance UID, acknowledged or not.
        acknowledged: SOP Instance UIDs.
    """

    files: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    acknowledged: set[str] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)


async def store_until_lost(
    port: int, sent: Sent, studies: Sequence[str], uids: Uids, random: Random
) -> None:
    """One client that stores a few instances at a time until the server is gone."""
    with suppress(*LOST):
        async with connected(port) as connection:
            while True:
                await store_some(connection, sent, studies, uids, random, 0.01)


async def store_some(
    connection: Connection,
    sent: Sent,
    studies: Sequence[str],
    uids: Uids,
    random: Random,
    large: float,
) -> Answer:
    """Stores one to four instances of a study, this share of them large ones."""
    study, series = random.choice(studies), uids.next()
    files = {}
    for _ in range(random.randint(1, 4)):
        sop = uids.next()
        is_large = random.random() < large
        files[sop] = load_file(study, series, sop, large=is_large)
    sent.files[study] |= files
    answer = await connection.request(
        "POST", "/v2/studies", STOW_HEADERS, stow_body(files.values())
    )
    sent.statuses.add(answer.status)
    sent.acknowledged |= acknowledged(answer)
    return answer


# --- what the server says ----------------------------------------------------------


class Disagreement(AssertionError):
    """QIDO, WADO and the change feed do not say the same, yet."""


@dataclass
class FeedReader:
    """Follows the change feed; every entry is checked once.

    Attributes:
        sequence: The last that was read.
        told: SOP Instance UIDs of Create entries by study.
    """

    sequence: int = 0
    told: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    async def begin(self, connection: Connection) -> "FeedReader":
        """Passes over what is there already, on a server that others use too."""
        answer = await connection.request("GET", "/v1/changefeed/latest")
        if answer.status == 200:
            self.sequence = {k.lower(): v for k, v in answer.json().items()}["sequence"]
        return self

    async def follow(self, connection: Connection) -> None:
        while True:
            answer = await connection.request(
                "GET", f"/v1/changefeed?offset={self.sequence}&limit=100"
            )
            assert answer.status == 200, answer
            entries = answer.json()
            for entry in entries:
                self._take(entry)
            if not entries:
                return

    def _take(self, entry: dict[str, Any]) -> None:
        fields = {name.lower(): value for name, value in entry.items()}
        assert fields["sequence"] == self.sequence + 1, "a gap in the feed"
        self.sequence += 1
        assert fields["action"].lower() == "create"
        told = self.told[fields["studyinstanceuid"]]
        assert fields["sopinstanceuid"] not in told, "an instance twice in the feed"
        told.add(fields["sopinstanceuid"])


async def compare(
    connection: Connection, sent: Sent, feed: FeedReader, studies: Iterable[str]
) -> None:
    """Everything acknowledged is there, and all views agree.

    Raises:
        Disagreement: Not yet.
    """
    await feed.follow(connection)
    for study in studies:
        stored = await contents(connection, study)
        for sop, content in stored.items():
            assert sent.files[study][sop] == content, "not what was sent"
        lost = (sent.acknowledged & sent.files[study].keys()) - stored.keys()
        assert not lost, f"acknowledged but lost: {lost}"
        if feed.told[study] != stored.keys():
            raise Disagreement(f"feed {len(feed.told[study])}, stored {len(stored)}")
        await _compare_searches(connection, study, set(stored))


async def contents(connection: Connection, study: str) -> dict[str, bytes]:
    answer = await connection.request("GET", f"/v2/studies/{study}", WADO_HEADERS)
    if answer.status == 404:
        return {}
    assert answer.status == 200, answer
    boundary = answer.headers["content-type"].rpartition("boundary=")[2].strip('"')
    delimiter = f"--{boundary}".encode()
    assert answer.body.rstrip().endswith(delimiter + b"--")
    found = {}
    for part in answer.body.split(b"\r\n" + delimiter)[:-1]:
        content = part.partition(b"\r\n\r\n")[2]
        start = content.index(b"\x08\x00\x18\x00UI") + 8
        length = int.from_bytes(content[start - 2 : start], "little")
        sop = content[start : start + length].rstrip(b"\0").decode()
        assert sop not in found, "an instance twice"
        found[sop] = content
    return found


async def _compare_searches(
    connection: Connection, study: str, stored: set[str]
) -> None:
    instances = await search(connection, f"/v2/studies/{study}/instances?limit=200")
    total = min(len(stored), 200)
    if len(instances) != total:
        raise Disagreement(f"{len(instances)} instances of {total} found")
    assert {row[SOP_INSTANCE_UID]["Value"][0] for row in instances} <= stored
    counts = await search(
        connection,
        f"/v2/studies?StudyInstanceUID={study}&includefield={STUDY_COUNT}",
    )
    found = [row[STUDY_COUNT]["Value"][0] for row in counts]
    if found != ([len(stored)] if stored else []):
        raise Disagreement(f"the study counts {found}, stored {len(stored)}")
    series = await search(
        connection, f"/v2/studies/{study}/series?limit=200&includefield={SERIES_COUNT}"
    )
    in_series = sum(row[SERIES_COUNT]["Value"][0] for row in series)
    if len(series) < 200 and in_series != len(stored):
        raise Disagreement(f"the series count {in_series}, stored {len(stored)}")


async def search(connection: Connection, path: str) -> list[dict[str, Any]]:
    answer = await connection.request("GET", path, JSON_HEADERS)
    assert answer.status in {200, 204}, answer
    return answer.json() if answer.status == 200 else []


async def agree(
    port: int,
    sent: Sent,
    feed: FeedReader,
    studies: Sequence[str],
    *,
    seconds: float = 20,
) -> None:
    """All views agree within that time."""
    deadline = time.monotonic() + seconds
    async with connected(port) as connection:
        while True:
            try:
                await compare(connection, sent, feed, studies)
            except Disagreement:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
