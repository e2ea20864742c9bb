"""Where the parts of a request wait until they are committed.

Small parts stay in memory, within one allowance for all requests of the process; the
rest go to files that the blob store may rename into place (design decision 4.9).
"""

import asyncio
import hashlib
import mmap
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from dicomweb.errors import StoreUnavailable
from stores.ports import BytesSource, Source

MEMORY_BYTES = 64 * 1024 * 1024
PART_MEMORY_BYTES = 4 * 1024 * 1024
WRITE_BYTES = 1024 * 1024
CHUNK_BYTES = 1024 * 1024


class FileSource:
    """A source that is a complete file."""

    def __init__(self, path: Path, size_bytes: int, *, movable: bool) -> None:
        self._path = path
        self._size = size_bytes
        self._movable = movable

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size

    @property
    def movable_path(self) -> Path | None:
        """The file, when the blob store is on its file system."""
        return self._path if self._movable else None

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The file in pieces of 1 MiB, read in a thread."""
        file = await asyncio.to_thread(self._path.open, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            file.close()


class SpooledPart:
    """One part: append to it, then read it as a buffer, store it, discard it."""

    def __init__(self, spool: "Spool") -> None:
        self._spool = spool
        self._memory: bytearray | None = bytearray()
        self._held = 0
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._writing: asyncio.Future[None] | None = None
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    async def append(self, data: bytes | memoryview) -> None:
        """Adds bytes at the end.

        Raises:
            StoreUnavailable: The disk is full.
        """
        self._hash.update(data)
        self.size_bytes += len(data)
        if self._file is None and not self._fits(len(data)):
            self._open_file()
        assert self._memory is not None
        self._memory += data
        if self._file is not None and len(self._memory) >= WRITE_BYTES:
            await self._write()

    def _fits(self, length: int) -> bool:
        """Takes memory for `length` more bytes if there is room."""
        assert self._memory is not None
        if len(self._memory) + length > PART_MEMORY_BYTES:
            return False
        if not self._spool.take(length):
            return False
        self._held += length
        return True

    def _open_file(self) -> None:
        try:
            self._path = self._spool.new_path()
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise StoreUnavailable("The server's disk cannot be written.") from error

    async def _write(self) -> None:
        assert self._memory is not None
        assert self._file is not None
        data, self._memory = self._memory, bytearray()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, _write_all, self._file, data)
        try:
            await asyncio.shield(self._writing)
        except OSError as error:
            raise StoreUnavailable(
                "The server's disk is full.", retry_after_seconds=60
            ) from error
        self._spool.give_back(self._held)
        self._held = 0

    async def finish(self) -> None:
        """Must be called once all bytes were appended."""
        if self._file is None:
            return
        await self._write()
        self._file.close()
        self._memory = None
        assert self._path is not None
        with self._path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @property
    def in_memory(self) -> bool:
        """Whether the part is not in a file."""
        return self._map is None

    @property
    def buffer(self) -> bytearray | mmap.mmap:
        """All bytes, without a copy."""
        if self._map is not None:
            return self._map
        assert self._memory is not None
        return self._memory

    @property
    def sha256(self) -> str:
        """Hash of the bytes, hex."""
        return self._hash.hexdigest()

    def blank_preamble(self) -> None:
        """Overwrites the first 128 bytes with zeros, in memory or in the file."""
        blank = bytes(min(128, self.size_bytes))
        if self._map is None:
            assert self._memory is not None
            self._memory[: len(blank)] = blank
        else:
            assert self._path is not None
            with self._path.open("r+b") as file:
                file.write(blank)
        self._hash = hashlib.sha256(self.buffer)

    def source(self) -> Source:
        """What the blob store takes."""
        if self._path is not None and self._map is not None:
            return FileSource(self._path, self.size_bytes, movable=self._spool.movable)
        assert self._memory is not None
        return BytesSource(self._memory)

    def discard(self) -> None:
        """Gives back memory and disk; harmless when the file was moved."""
        self._spool.give_back(self._held)
        self._held = 0
        self._memory = None
        if self._writing is None or self._writing.done():
            self._let_go()
        else:
            # The request was given up while a thread writes: were the file closed now,
            # the thread might find another one, of another patient, under its number.
            self._writing.add_done_callback(self._let_go)

    def _let_go(self, _written: object = None) -> None:
        if self._file is not None:
            self._file.close()
        if self._map is not None:
            self._map.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class Spool:
    """The allowance of memory and the folder of a process."""

    def __init__(
        self, folder: Path, *, movable: bool, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.folder = folder
        self._free = memory_bytes
        self.movable = movable

    def part(self) -> SpooledPart:
        """A new, empty part."""
        return SpooledPart(self)

    def take(self, length: int) -> bool:
        """Whether that much memory was free; it is taken then."""
        if length > self._free:
            return False
        self._free -= length
        return True

    def give_back(self, length: int) -> None:
        """Returns memory that was taken."""
        self._free += length

    def new_path(self) -> Path:
        """A name for a file, known as this process's own by its process id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"part-{os.getpid()}-{secrets.token_hex(8)}"
