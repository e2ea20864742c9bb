"""Files and folders made durable: what `DirectoryBlobs` does in its threads."""

# Paths are texts here: Path objects cost more than the system calls.
# ruff: noqa: PTH103, PTH104, PTH106, PTH108, PTH110, PTH116, PTH120

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from stores.disk import sync_data

Bytes = bytes | bytearray | memoryview
MAX_KNOWN_FOLDERS = 20_000
MAX_VECTOR = 512
COPY_BYTES = 1 << 30
READ_BYTES = 1 << 20
CANNOT_COPY = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
)


@dataclass(frozen=True, slots=True)
class Ready:
    """A blob about to be placed: bytes in memory, or a complete file.

    Attributes:
        ours: The file was staged by the store, which removes it on failure.
    """

    target: str
    size_bytes: int
    data: Sequence[Bytes] = ()
    path: str | None = None
    ours: bool = False


def write_file(descriptor: int, chunks: Sequence[Bytes]) -> None:
    """Writes all the bytes, however many calls it takes."""
    waiting = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
    while waiting:
        count = os.writev(descriptor, waiting[:MAX_VECTOR])
        while waiting and count >= len(waiting[0]):
            count -= len(waiting.pop(0))
        if count:
            waiting[0] = waiting[0][count:]


def copy_range(source: int, target: int, offset: int) -> None:
    """Appends the source's bytes from `offset`, within the kernel where it can."""
    copy = getattr(os, "copy_file_range", _cannot_copy)  # Linux only
    try:
        while count := copy(source, target, COPY_BYTES, offset):
            offset += count
    except OSError as error:
        if error.errno not in CANNOT_COPY:
            raise
        while chunk := os.pread(source, READ_BYTES, offset):
            write_file(target, [chunk])
            offset += len(chunk)


# A descriptor never outlives the call that opened it: the coroutine that waits for a
# thread may be cancelled, and its number would be another file's while that one writes.


def make_file(path: str, chunks: Sequence[Bytes]) -> None:
    """Makes a file of these bytes; FileExistsError where there is one."""
    with _opened(path, os.O_CREAT | os.O_EXCL) as descriptor:
        write_file(descriptor, chunks)


def append_file(path: str, chunks: Sequence[Bytes]) -> None:
    """Appends to a file that is there."""
    with _opened(path, os.O_APPEND) as descriptor:
        write_file(descriptor, chunks)


def append_range(path: str, source: int, offset: int) -> None:
    """Appends the source's bytes from `offset` to a file that is there."""
    with _opened(path, 0) as descriptor:
        os.lseek(descriptor, 0, os.SEEK_END)  # no O_APPEND: the kernel would not copy
        copy_range(source, descriptor, offset)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _cannot_copy(*_: int) -> int:
    raise OSError(errno.ENOSYS, "no copy_file_range here")


class Folders:
    """Renames files into folders and knows which folders are on the disk for good."""

    def __init__(self, root: str, *, sync: bool) -> None:
        self._root = root
        self._sync = sync
        self._known: dict[str, tuple[int, int]] = {}

    def place(self, blob: Ready, new_path: Callable[[], str]) -> None:
        """Makes the blob's bytes durable and gives the file its name."""
        if blob.path is None:
            path = new_path()
            self._write(path, blob.data)
            self._rename(path, blob.target, remove=True)
            return
        try:
            if self._sync:
                _sync_path(blob.path, os.O_RDONLY)
            self._rename(blob.path, blob.target, remove=blob.ours)
        except FileNotFoundError:
            # A put that is repeated after its file was moved has nothing left to do.
            if blob.ours or _size(blob.target) != blob.size_bytes:
                raise
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_across(blob, new_path())

    def _copy_across(self, blob: Ready, path: str) -> None:
        assert blob.path is not None
        source = os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._write(path, (), copied_from=source)
        finally:
            os.close(source)
        self._rename(path, blob.target, remove=True)
        os.unlink(blob.path)

    def _write(
        self, path: str, data: Sequence[Bytes], copied_from: int | None = None
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            write_file(descriptor, data)
            if copied_from is not None:
                copy_range(copied_from, descriptor, 0)
            if self._sync:
                sync_data(descriptor)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def _rename(self, path: str, target: str, *, remove: bool) -> None:
        try:
            while True:
                try:
                    os.rename(path, target)
                except FileNotFoundError:
                    if not os.path.exists(path):
                        raise
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                else:
                    return
        except BaseException:
            if remove:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            raise

    def make_durable(self, targets: Sequence[str]) -> None:
        """Syncs the folders of these files, and those above that may have a new one.

        Who finds a folder known relies on its entry in the folder above, so it becomes
        known only once that one is synced. A folder that was removed and made again is
        a new one, also under its old inode number: the folder above has changed then.
        """
        if not self._sync:
            return
        synced: set[str] = set()
        for start in dict.fromkeys(map(os.path.dirname, targets)):
            folder = start
            _sync_folder(folder, synced)
            while folder != self._root:
                above = os.path.dirname(folder)
                place = os.stat(folder).st_ino, os.stat(above).st_mtime_ns
                if self._known.get(folder) != place:
                    _sync_folder(above, synced)
                    self._know(folder, place)
                folder = above

    def _know(self, folder: str, place: tuple[int, int]) -> None:
        if len(self._known) >= MAX_KNOWN_FOLDERS:
            self._known.clear()
        self._known[folder] = place

    def prune(self, path: str) -> None:
        """Removes the folders above a deleted file that are empty now."""
        folder = os.path.dirname(path)
        while folder != self._root:
            try:
                os.rmdir(folder)
            except OSError:
                return
            self._known.pop(folder, None)
            folder = os.path.dirname(folder)


def _sync_folder(folder: str, synced: set[str]) -> None:
    """Syncs the folder unless it is among those that were."""
    if folder not in synced:
        _sync_path(folder, os.O_RDONLY | os.O_DIRECTORY)
        synced.add(folder)


def _sync_path(path: str, flags: int) -> None:
    """Syncs a file or folder."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
