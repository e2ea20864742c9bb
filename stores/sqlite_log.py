"""The write-ahead log as a file: synced, and mended when a sync has failed."""

import errno
import os
from pathlib import Path

from stores.disk import sync_data
from stores.sqlite_connection import FILE_NAME, LOCK_NAME, WriterLock

PIECE_BYTES = 1 << 20


class LogFile:
    """The log of the index, for use by one thread at a time.

    When a sync fails, Linux forgets that the bytes are not on the disk: the next sync
    succeeds and says nothing about them. What is committed afterwards stands behind a
    gap and would be lost with it at a loss of power. So after a failure the whole log
    is written again before anything counts as synced. A process that finds a log does
    so too before its first sync: nobody tells it how the last one ended.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{FILE_NAME}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._lock = WriterLock(folder / LOCK_NAME)  # of its own: locks are per file
        self._is_doubtful = os.fstat(self._file).st_size > 0

    def sync(self) -> None:
        """Returns when all that was written before the call is on the disk.

        Raises:
            OSError: The disk failed.
        """
        try:
            if self._is_doubtful:
                self._write_again()
            sync_data(self._file)
        except OSError:
            self._is_doubtful = True
            raise
        self._is_doubtful = False

    def doubt(self) -> None:
        """Somebody else's sync of the log failed."""
        self._is_doubtful = True

    @property
    def is_doubtful(self) -> bool:
        """Whether the log is to be written again."""
        return self._is_doubtful

    def _write_again(self) -> None:
        """Writes what the log has where it is, so that the next sync is about it."""
        with self._lock.held():
            size_bytes = os.fstat(self._file).st_size
            for offset in range(0, size_bytes, PIECE_BYTES):
                piece = os.pread(self._file, PIECE_BYTES, offset)
                if os.pwrite(self._file, piece, offset) != len(piece):
                    raise OSError(errno.ENOSPC, "the log is not written again")

    def close(self) -> None:
        """Closes the file and the lock."""
        os.close(self._file)
        self._lock.close()
