"""What work on files gives: small results in memory, large ones in nameless files.

A client may take its time to fetch a result; meanwhile nothing large stays in memory.
The files have no name, so nothing is left of them, however the process ends.
"""

import asyncio
import mmap
import os
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomweb.errors import StoreUnavailable

MEMORY_BYTES = 1024 * 1024
GATHERED_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 512 * 1024

Read = Callable[[int, int], AsyncIterator[bytes | memoryview]]


class Result:
    """Bytes that can be read from anywhere, once or often.

    Attributes:
        size_bytes: Of the whole.
        read: The bytes from an offset, of a length.
    """

    def __init__(self, size_bytes: int, read: Read) -> None:
        self.size_bytes = size_bytes
        self.read = read

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """All bytes."""
        return self.read(0, self.size_bytes)

    async def part(self, offset: int, length: int) -> bytes:
        """Some of the bytes, at once."""
        return b"".join([bytes(chunk) async for chunk in self.read(offset, length)])


def in_memory(data: bytes) -> Result:
    """The bytes as a result."""

    async def read(offset: int, length: int) -> AsyncIterator[bytes | memoryview]:
        yield memoryview(data)[offset : offset + length]

    return Result(len(data), read)


def put_aside(data: bytes, folder: Path) -> Result:
    """The bytes as a result, in a file of the folder if they are many.

    Call it in a thread.

    Raises:
        StoreUnavailable: The disk is full.
    """
    if len(data) <= MEMORY_BYTES:
        return in_memory(data)
    return written(iter((data,)), folder)


def written(pieces: Iterator[bytes | memoryview], folder: Path) -> Result:
    """The pieces as a result, in a file of the folder. Call it in a thread.

    Raises:
        StoreUnavailable: The disk is full.
    """
    with _disk():
        file = _NamelessFile(folder)
        for piece in pieces:
            file.write(piece)
    return Result(file.size_bytes, file.read)


def gathered(
    pieces: Iterator[bytes | memoryview], folder: Path
) -> bytearray | mmap.mmap:
    """The pieces in one buffer: memory, or a mapped file if they are many.

    Raises:
        StoreUnavailable: The disk is full.
    """
    small = bytearray()
    for piece in pieces:
        small += piece
        if len(small) > GATHERED_BYTES:
            break
    else:
        return small
    with _disk():
        file = _NamelessFile(folder)
        file.write(small)
        del small
        for piece in pieces:
            file.write(piece)
        return file.mapped()


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            "The server's disk is full.", retry_after_seconds=60
        ) from error


class _NamelessFile:
    """A file that ends with its object."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self._descriptor = os.dup(file.fileno())
        self.size_bytes = 0
        weakref.finalize(self, os.close, self._descriptor)

    def mapped(self) -> mmap.mmap:
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        self.size_bytes += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]

    async def read(self, offset: int, length: int) -> AsyncIterator[bytes | memoryview]:
        end = offset + length
        while offset < end:
            size = min(_CHUNK_BYTES, end - offset)
            chunk = await asyncio.to_thread(os.pread, self._descriptor, size, offset)
            offset += len(chunk)
            yield chunk
