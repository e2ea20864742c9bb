"""Blobs as files below one folder: `Blobs` for the embedded stack.

A blob is written under a temporary name, synced, and renamed into place; then the
folders it stands in are synced. So a blob is there whole or not at all, also after a
loss of power.
"""

# Paths are texts here: Path objects cost more than the system calls.
# ruff: noqa: PTH108, PTH116

import asyncio
import itertools
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from stores.blob_names import check_name
from stores.directory_files import (
    Folders,
    Ready,
    append_file,
    append_range,
    make_file,
)
from stores.errors import disk_unavailable
from stores.ports import BlobMissing, BlobProperties, BytesSource, Source
from stores.staging import FOLDER_NAME, Staging

T = TypeVar("T")

THREADS = 8
CHUNK_BYTES = 512 * 1024
NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux only
GATHERED_BYTES = 1 << 20
"""Sources up to this size are written in one go, larger ones piece by piece."""
ON_THE_SPOT_BYTES = 1 << 18
SLICES = 4
LISTED_AT_ONCE = 500


class DirectoryBlobs:
    """Blobs below `root`, which several processes may share."""

    def __init__(self, root: Path, *, survives_power_loss: bool = True) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._prefix = f"{root}/"
        self._sync = survives_power_loss
        self._staging = Staging(root)
        self._folders = Folders(str(root), sync=survives_power_loss)
        self._threads = ThreadPoolExecutor(THREADS, "blobs")

    @property
    def spool_folder(self) -> Path:
        """Where callers may prepare files that `put` renames; ends with the process."""
        return self._staging.folder

    async def put(self, blobs: Sequence[tuple[str, Source]]) -> None:
        """Stores all; they are durable when it returns."""
        ready = [await self._prepared(name, source) for name, source in blobs]
        if not ready:
            return
        if len(ready) == 1 and self._is_quick(ready[0]):
            try:
                self._place(ready, folders_too=True)
            except OSError as error:
                raise disk_unavailable(error) from error
            return
        if len(ready) == 1:
            await self._in_thread(self._place, ready, True)
            return
        slices = [ready[start::SLICES] for start in range(SLICES)]
        results = await asyncio.gather(
            *(self._in_thread(self._place, part, False) for part in slices if part),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._in_thread(
            self._folders.make_durable, [each.target for each in ready]
        )

    def _is_quick(self, blob: Ready) -> bool:
        """Whether a thread would cost more than the write: nothing waits for a disk."""
        in_memory = blob.path is None and blob.size_bytes <= ON_THE_SPOT_BYTES
        return in_memory and not self._sync

    async def _prepared(self, name: str, source: Source) -> Ready:
        """What a thread needs to store the source without the event loop."""
        target = self._path(name)
        if source.movable_path is not None:
            return Ready(target, source.size_bytes, path=str(source.movable_path))
        if isinstance(source, BytesSource):
            return Ready(target, source.size_bytes, data=(source.data,))
        if source.size_bytes <= GATHERED_BYTES:
            chunks = [bytes(chunk) async for chunk in source.chunks()]
            return Ready(target, source.size_bytes, data=chunks)
        return Ready(
            target, source.size_bytes, path=await self._staged(source), ours=True
        )

    async def _staged(self, source: Source) -> str:
        path = self._staging.new_path()
        make_file(path, ())
        try:
            waiting: list[bytes | memoryview] = []
            size_bytes = 0
            async for chunk in source.chunks():
                waiting.append(bytes(chunk))
                size_bytes += len(chunk)
                if size_bytes >= GATHERED_BYTES:
                    await self._in_thread(append_file, path, waiting)
                    waiting, size_bytes = [], 0
            await self._in_thread(append_file, path, waiting)
        except BaseException:
            os.unlink(path)
            raise
        return path

    def _place(self, blobs: Sequence[Ready], folders_too: bool) -> None:
        """Writes, syncs and renames; in a thread."""
        for blob in blobs:
            self._folders.place(blob, self._staging.new_path)
        if folders_too:
            self._folders.make_durable([blob.target for blob in blobs])

    async def read(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes | memoryview]:
        """Chunks of the blob from `offset`; to its end when `length` is None."""
        descriptor, end = self._open(name)
        try:
            if length is not None:
                end = min(end, offset + length)
            while offset < end:
                chunk = await self._chunk(
                    descriptor, min(CHUNK_BYTES, end - offset), offset
                )
                if not chunk:
                    return
                offset += len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    async def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, fewer where the blob ends before."""
        if offset < 0 or length < 0:
            raise ValueError("A range starts at 0 or later and has 0 bytes or more")
        descriptor, size_bytes = self._open(name)
        try:
            length = min(length, size_bytes - offset)
            pieces = []
            while length > 0:
                piece = await self._chunk(descriptor, length, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        finally:
            os.close(descriptor)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _chunk(self, descriptor: int, length: int, offset: int) -> bytes:
        """Some bytes: at once where they are in memory, else read by a thread."""
        if _in_memory(descriptor, offset) and _in_memory(
            descriptor, offset + length - 1
        ):
            return os.pread(descriptor, length, offset)
        return await self._in_thread(os.pread, descriptor, length, offset)

    async def copy(self, source_name: str, name: str) -> None:
        """Copies by the kernel; the copy's time is its own."""
        await self.splice(name, b"", source_name, 0)

    async def splice(
        self, name: str, head: bytes, source_name: str, offset: int
    ) -> None:
        """Stores `head` followed by the source's bytes from `offset`, durable."""
        await self._in_thread(self._splice, self._path(name), head, source_name, offset)

    def _splice(self, target: str, head: bytes, source_name: str, offset: int) -> None:
        """All in the thread, which may outlive whoever waits for it."""
        path = self._staging.new_path()
        source, _ = self._open(source_name)
        try:
            make_file(path, [head])
            append_range(path, source, offset)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        finally:
            os.close(source)
        self._place([Ready(target, 0, path=path, ours=True)], folders_too=True)

    async def delete(self, name: str) -> bool:
        """Whether there was one to delete; folders left empty go with it."""
        return await self._in_thread(self._delete, self._path(name))

    def _delete(self, path: str) -> bool:
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._check_root()
            return False
        self._folders.prune(path)
        return True

    async def list(self, prefix: str) -> AsyncIterator[BlobProperties]:
        """Blobs whose name starts with `prefix`, by name."""
        found = self._walk("", prefix)
        await self._in_thread(self._check_root)
        while page := await self._in_thread(_some, found):
            for each in page:
                yield each

    def _walk(self, folder: str, prefix: str) -> Iterator[BlobProperties]:
        with suppress(FileNotFoundError, NotADirectoryError):
            entries = []
            with os.scandir(self._prefix + folder) as found:
                for entry in found:
                    inside = entry.is_dir(follow_symlinks=False)
                    name = folder + entry.name + ("/" if inside else "")
                    wanted = name.startswith(prefix) or prefix.startswith(name)
                    if wanted and name != f"{FOLDER_NAME}/":
                        entries.append(name)
            for name in sorted(entries):
                if name.endswith("/"):
                    yield from self._walk(name, prefix)
                elif name.startswith(prefix):
                    with suppress(FileNotFoundError):
                        yield self._properties(name)

    def _properties(self, name: str) -> BlobProperties:
        status = os.stat(self._prefix + name)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(name)
        return BlobProperties(
            name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)
        )

    async def properties(self, name: str) -> BlobProperties | None:
        """The blob's properties, or None."""
        check_name(name)
        try:
            return self._properties(name)
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return None
        except OSError as error:
            raise disk_unavailable(error) from error

    async def set_tier(self, name: str, tier: str) -> None:
        """Nothing: a folder has no tiers."""

    async def close(self) -> None:
        """Ends the threads and removes what was staged."""
        await asyncio.to_thread(self._threads.shutdown)
        self._staging.close()

    def _check_root(self) -> None:
        """Tells a missing blob from a disk that is not mounted any more.

        Raises:
            StoreUnavailable: The folder lacks what this process made in it.
        """
        try:
            os.stat(self._staging.folder)
        except OSError as error:
            raise disk_unavailable(error) from error

    def _path(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _open(self, name: str) -> tuple[int, int]:
        """Descriptor and size of the blob's file."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check_root()
            raise BlobMissing(name) from error
        except OSError as error:
            raise disk_unavailable(error) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise BlobMissing(name)
        return descriptor, status.st_size

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise disk_unavailable(error) from error


def _in_memory(descriptor: int, offset: int) -> bool:
    """Whether reading there would not wait for the disk, as far as anyone can say."""
    if NOWAIT is None:
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, NOWAIT) == 1
    except OSError:  # not in memory, or a file system that cannot say
        return False


def _some(found: Iterator[BlobProperties]) -> Sequence[BlobProperties]:
    return list(itertools.islice(found, LISTED_AT_ONCE))
