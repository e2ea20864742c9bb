"""An HTTP proxy in the test's own loop: counts requests, cuts or refuses answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from urllib.parse import urlsplit

from stores.azure_blobs import BlobAddress

IDLE_SECONDS = 2.0


class Proxy:
    """Passes connections on; counts requests, cuts or refuses those it is told to."""

    def __init__(self, target: str) -> None:
        self._host, self._port = urlsplit(target).hostname, urlsplit(target).port
        self.requests: list[str] = []
        self.cut_answers = 0
        self.busy_answers = 0
        self.struck = 0
        self._random = Random(1)
        self._before = self._after = 0.0

    def strike(self, *, before: float, after: float, seed: int = 1) -> None:
        """Lets shares of the requests fail: unheard, or with the answer lost."""
        self._random, self._before, self._after = Random(seed), before, after

    def _strikes(self, share: float) -> bool:
        strikes = self._random.random() < share
        self.struck += strikes
        return strikes

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there = await asyncio.open_connection(self._host, self._port)
        used = time.monotonic()
        try:
            while head := await self._head(reader):
                # Azurite closes what was idle for 5 s.
                if there[0].at_eof() or time.monotonic() > used + IDLE_SECONDS:
                    there[1].close()
                    there = await asyncio.open_connection(self._host, self._port)
                await self._one(head, reader, writer, *there)
                used = time.monotonic()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, there[1]):
                each.close()
                await asyncio.gather(each.wait_closed(), return_exceptions=True)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def _one(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        self.requests.append(head.split(b" ", 1)[0].decode())
        body = await reader.readexactly(_length(head))
        if self._strikes(self._before / 2):
            raise ConnectionResetError
        if self.busy_answers or self._strikes(self._before / 2):
            self.busy_answers = max(0, self.busy_answers - 1)
            writer.write(b"HTTP/1.1 503 Server Busy\r\nContent-Length: 0\r\n\r\n")
            return
        there_writer.write(head + body)
        answer = await there_reader.readuntil(b"\r\n\r\n")
        answer += await _body(answer, there_reader, head.startswith(b"HEAD"))
        if self.cut_answers or self._strikes(self._after):
            self.cut_answers = max(0, self.cut_answers - 1)
            raise ConnectionResetError
        writer.write(answer)
        await writer.drain()


def _field(head: bytes, name: bytes) -> bytes | None:
    for line in head.lower().split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key == name:
            return value.strip()
    return None


def _length(head: bytes) -> int:
    return int(_field(head, b"content-length") or 0)


async def _body(head: bytes, reader: asyncio.StreamReader, empty: bool) -> bytes:
    if empty:
        return b""
    if _field(head, b"transfer-encoding") != b"chunked":
        return await reader.readexactly(_length(head))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body


@asynccontextmanager
async def counted(
    address: BlobAddress, *, service: str = "Blob"
) -> AsyncIterator[tuple[BlobAddress, Proxy]]:
    """The same blobs, or the tables beside them, by way of a proxy."""
    endpoint = address.connection.split(f"{service}Endpoint=")[1].split("/devstore")[0]
    proxy = Proxy(endpoint)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connection = address.connection.replace(endpoint, here)
    try:
        yield replace(address, connection=connection), proxy
    finally:
        server.close()
        await asyncio.sleep(0.05)
