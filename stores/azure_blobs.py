"""The instances in Blob Storage: `Blobs` for the Azure stack.

Every request is checked end to end: what is sent carries its MD5, which the service
compares before it stores anything. Repetition is ours (`stores.azure_errors`); the
SDK's own is off, so one attempt is one request.
"""

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, StandardBlobTier
from azure.storage.blob.aio import BlobClient, ContainerClient

from stores.allowance import Allowance
from stores.azure_errors import (
    PATIENCE_SECONDS,
    Patience,
    denied,
    trouble,
    unavailable,
)
from stores.blob_names import check_name
from stores.ports import BlobMissing, BlobProperties, BytesSource, Source
from stores.usage import count_blob_call

logger = logging.getLogger(__name__)

SERVICE = "blob store"
SINGLE_PUT_BYTES = 32 * 1024 * 1024
"""Up to here a blob is one request."""
BLOCK_BYTES = 8 * 1024 * 1024
BLOCKS_AT_ONCE = 4
BLOBS_AT_ONCE = 16
SENDING_BYTES = 32 * 1024 * 1024
"""Of all uploads of a process that are under way; the SDK needs as much again."""
READ_BYTES = 4 * 1024 * 1024
"""Bytes of one request of a streamed read; the next is under way meanwhile."""
RANGE_BYTES = 32 * 1024 * 1024
"""A range up to here is read by one request."""
CONNECTION_SECONDS = 5
ANSWER_SECONDS = 60
COPY_POLL_SECONDS = 0.2
_CHECKSUM: Final = "md5"
_RANGE_NOT_SATISFIABLE = 416
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """Where the blobs are and how to get in.

    Attributes:
        endpoint: URL of the blob service, entered with the managed identity.
        connection: Connection string, used instead of the endpoint when not empty.
        container: Name of the blob container.
    """

    endpoint: str = ""
    connection: str = ""
    container: str = "dicom"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range that was read.

    Attributes:
        total: Size of the whole blob.
        etag: Its version.
    """

    data: bytes
    total: int
    etag: str | None


def client_options() -> dict[str, Any]:
    """Options of every client: no repetition by the SDK, few pieces."""
    return {
        "retry_total": 0,
        "connection_timeout": CONNECTION_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "max_single_put_size": SINGLE_PUT_BYTES,
        "max_single_get_size": RANGE_BYTES,
        "max_chunk_get_size": RANGE_BYTES,
    }


class Connection(Protocol):
    """A client of a container, to be closed."""

    container: ContainerClient

    async def close(self) -> None:
        """Ends the connections."""
        ...


class BlobConnection:
    """A client of the container and its identity, to be closed together."""

    def __init__(self, address: BlobAddress) -> None:
        options = client_options()
        self._identity: Any = None
        if address.connection:
            self.container = ContainerClient.from_connection_string(
                address.connection, address.container, **options
            )
            return
        from azure.identity.aio import DefaultAzureCredential

        self._identity = DefaultAzureCredential()
        self.container = ContainerClient(
            address.endpoint, address.container, credential=self._identity, **options
        )

    async def close(self) -> None:
        """Ends the connections."""
        await self.container.close()
        if self._identity is not None:
            await self._identity.close()


class AzureBlobs:
    """Blobs in one container of Blob Storage."""

    def __init__(
        self,
        address: BlobAddress | Connection,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._connection: Connection = (
            BlobConnection(address) if isinstance(address, BlobAddress) else address
        )
        self._container = self._connection.container
        self._patience_seconds = patience_seconds
        self._places = asyncio.Semaphore(BLOBS_AT_ONCE)
        self._sending = Allowance(SENDING_BYTES)

    async def close(self) -> None:
        """Ends the connections."""
        await self._connection.close()

    # --- writing

    async def put(self, blobs: Sequence[tuple[str, Source]]) -> None:
        """Stores all, in parallel; all are stored when it returns."""
        for name, _ in blobs:
            check_name(name)  # before anything is sent
        results = await asyncio.gather(
            *(self._put_one(name, source) for name, source in blobs),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _put_one(self, name: str, source: Source) -> None:
        async with self._places:
            if source.size_bytes <= SINGLE_PUT_BYTES:
                async with self._sending.taken(source.size_bytes):
                    await self._put_whole(name, await _gathered(source))
            else:
                await self._put_blocks(name, source.chunks())

    async def _put_whole(self, name: str, data: bytes) -> None:
        client = self._client(name)
        await self._repeat(
            lambda: client.upload_blob(
                data, length=len(data), overwrite=True, validate_content=_CHECKSUM
            )
        )

    async def _put_blocks(
        self, name: str, chunks: AsyncIterator[bytes | memoryview]
    ) -> None:
        """Stages blocks, some at once, then commits their list."""
        client = self._client(name)
        ids: list[str] = []
        running: set[asyncio.Task[None]] = set()
        try:
            pieces = _blocks(chunks)
            while (data := await self._next_block(pieces)) is not None:
                ids.append(b64encode(f"{len(ids):010d}".encode()).decode())
                stage = asyncio.create_task(self._stage(client, ids[-1], data))
                stage.add_done_callback(self._end_block)
                running.add(stage)
                if len(running) >= BLOCKS_AT_ONCE:
                    running = await _one_less(running)
            while running:
                running = await _one_less(running)
        except BaseException:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise
        blocks = [BlobBlock(block_id=id) for id in ids]
        await self._repeat(lambda: client.commit_block_list(blocks))

    async def _next_block(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """The next block as soon as there is room for it; None after the last."""
        await self._sending.take(BLOCK_BYTES)
        data = None
        try:
            data = await anext(pieces, None)
        finally:
            if data is None:
                self._sending.give_back(BLOCK_BYTES)
        return data

    def _end_block(self, _stage: object) -> None:
        self._sending.give_back(BLOCK_BYTES)

    async def _stage(self, client: BlobClient, id: str, data: bytes) -> None:
        await self._repeat(
            lambda: client.stage_block(
                id, data, length=len(data), validate_content=_CHECKSUM
            )
        )

    async def append(self, name: str, data: bytes, block_bytes: int) -> None:
        """Makes an append blob of these bytes, in blocks; replaces what is there."""
        client = self._client(name)
        await self._repeat(client.create_append_blob)
        for start in range(0, len(data), block_bytes):
            block = data[start : start + block_bytes]
            await self._repeat(
                partial(
                    client.append_block,
                    block,
                    length=len(block),
                    appendpos_condition=start,
                )
            )

    async def copy(self, source_name: str, name: str) -> None:
        """Copies within the account; returns when the copy is complete."""
        source, target = self._client(source_name), self._client(name)
        status = await self._repeat(lambda: target.start_copy_from_url(source.url))
        state = str(status["copy_status"])
        while state == "pending":
            await asyncio.sleep(COPY_POLL_SECONDS)
            properties = await self._repeat(target.get_blob_properties)
            state = str(properties.copy.status)
        if state != "success":
            raise unavailable(SERVICE, f"a copy ended as {state}")

    async def splice(
        self, name: str, head: bytes, source_name: str, offset: int
    ) -> None:
        """Stores `head` followed by the source's bytes from `offset`.

        The bytes pass through here: Put Block From URL would need a signature or token
        for the source and gains nothing within a region.
        """
        rest = self.read(source_name, offset=offset)
        first = await anext(rest, b"")
        if len(head) + len(first) <= SINGLE_PUT_BYTES and len(first) < READ_BYTES:
            await self._put_whole(name, head + bytes(first))
        else:
            await self._put_blocks(name, _chained(head, first, rest))

    async def delete(self, name: str) -> bool:
        """Whether there was one to delete."""
        try:
            await self._repeat(self._client(name).delete_blob)
        except BlobMissing:
            return False
        return True

    async def set_tier(self, name: str, tier: str) -> None:
        """Moves to a storage tier (`Hot`, `Cool`, `Cold`) where the account has any."""
        client = self._client(name)
        wanted = StandardBlobTier(tier)
        try:
            await self._repeat(lambda: client.set_standard_blob_tier(wanted))
        except HttpResponseError as error:
            # Premium accounts and some kinds of encryption know no tiers.
            logger.info("a blob keeps its tier: %s", error.reason)

    # --- reading

    async def read(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes | memoryview]:
        """Chunks of the blob from `offset`; to its end when `length` is None.

        All chunks are of one version of the blob.
        """
        async for chunk in self._pieces(name, offset, length, READ_BYTES):
            yield chunk

    async def _pieces(
        self, name: str, offset: int, length: int | None, most: int
    ) -> AsyncIterator[bytes]:
        """The bytes, `most` by one request; the next is under way meanwhile."""
        piece = await self._piece(name, offset, _least(length, most), None)
        end = piece.total if length is None else min(piece.total, offset + length)
        position = offset + len(piece.data)
        while True:
            following: asyncio.Task[_Piece] | None = None
            if position < end:
                size = min(end - position, most)
                part = self._piece(name, position, size, piece.etag)
                following = asyncio.create_task(part)
            try:
                if piece.data:
                    yield piece.data
                if following is None:
                    return
                piece = await following
            finally:
                if following is not None and not following.done():
                    following.cancel()
            position += len(piece.data)
            if not piece.data:
                raise unavailable(SERVICE, "a blob ended early")

    async def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, fewer where the blob ends before."""
        if offset < 0 or length < 0:
            raise ValueError("A range starts at 0 or later and has 0 bytes or more")
        found = self._pieces(name, offset, length, RANGE_BYTES)
        pieces = [piece async for piece in found]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _piece(
        self, name: str, offset: int, size: int, etag: str | None
    ) -> _Piece:
        """The bytes of one request."""
        client = self._client(name)
        if size == 0:
            properties = await self._repeat(client.get_blob_properties)
            return _Piece(b"", properties.size, properties.etag)
        condition: dict[str, Any] = {}
        if etag is not None:
            condition = {
                "etag": etag, "match_condition": MatchConditions.IfNotModified
            }  # fmt: skip

        async def attempt() -> _Piece:
            try:
                answer = await client.download_blob(
                    offset, size, max_concurrency=1, **condition
                )
                data = await answer.readall()
            except HttpResponseError as error:
                if error.status_code != _RANGE_NOT_SATISFIABLE:
                    raise
                return _Piece(b"", 0, None)
            found = answer.properties
            return _Piece(data, _size_of_all(found.content_range), found.etag)

        return await self._repeat(attempt)

    async def list(self, prefix: str) -> AsyncIterator[BlobProperties]:
        """Blobs whose name starts with `prefix`, by name."""
        token: str | None = None
        while True:
            page, token = await self._repeat(partial(self._page, prefix, token))
            for each in page:
                yield each
            if not token:
                return

    async def _page(
        self, prefix: str, token: str | None
    ) -> tuple[Sequence[BlobProperties], str | None]:
        pages: Any = self._container.list_blobs(name_starts_with=prefix).by_page(token)
        page = await anext(pages)
        found = [
            BlobProperties(each.name, each.size, each.last_modified)
            async for each in page
        ]
        return found, pages.continuation_token

    async def properties(self, name: str) -> BlobProperties | None:
        """The blob's properties, or None."""
        try:
            found = await self._repeat(self._client(name).get_blob_properties)
        except BlobMissing:
            return None
        return BlobProperties(found.name, found.size, found.last_modified)

    # --- parts

    def _client(self, name: str) -> BlobClient:
        """The blob's client; ValueError for a name no store takes."""
        return self._container.get_blob_client(check_name(name))

    async def _repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of a request that is harmless when repeated.

        Raises:
            BlobMissing: No such blob.
            StoreUnavailable: No attempt succeeded in time.
        """
        patience = Patience(self._patience_seconds)
        while True:
            count_blob_call()
            try:
                return await attempt()
            except ResourceNotFoundError as error:
                raise _missing(error) from error
            except ResourceModifiedError as error:
                raise unavailable(SERVICE, "a blob changed meanwhile") from error
            except Exception as error:
                fault = trouble(error)
                if fault is None:
                    refused = denied(SERVICE, error)
                    if refused is None:
                        raise
                    raise refused from error
                logger.debug("%s: %s", type(error).__name__, fault.reason)
                if not await patience.pause(fault.after_seconds):
                    raise unavailable(SERVICE, fault.reason) from error


def _missing(error: ResourceNotFoundError) -> Exception:
    """A missing blob, or a container that has not been made."""
    if str(getattr(error, "error_code", "")) == "ContainerNotFound":
        return unavailable(SERVICE, "its container has not been made")
    return BlobMissing()


def _size_of_all(content_range: str | None) -> int:
    """The size of the blob from `bytes 0-99/1000`; the SDK's `size` is the range's."""
    return int((content_range or "").rpartition("/")[2])


def _least(length: int | None, most: int) -> int:
    return most if length is None else max(0, min(length, most))


async def _gathered(source: Source) -> bytes:
    if isinstance(source, BytesSource):
        return source.data if isinstance(source.data, bytes) else bytes(source.data)
    return b"".join([chunk async for chunk in source.chunks()])


async def _blocks(chunks: AsyncIterator[bytes | memoryview]) -> AsyncIterator[bytes]:
    """The bytes in pieces of BLOCK_BYTES, the last one shorter."""
    waiting = bytearray()
    async for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: BLOCK_BYTES - len(waiting)]
            waiting += taken
            rest = rest[len(taken) :]
            if len(waiting) == BLOCK_BYTES:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _one_less(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """The tasks that still run after one or more ended; raises what they raised."""
    done, rest = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return rest


async def _chained(
    head: bytes,
    first: bytes | memoryview,
    rest: AsyncIterator[bytes | memoryview],
) -> AsyncIterator[bytes | memoryview]:
    yield head
    yield first
    async for chunk in rest:
        yield chunk
