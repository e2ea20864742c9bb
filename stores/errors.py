"""What failed in a database or on a disk, as the one error that services know."""

import errno
import sqlite3

from dicomweb.errors import StoreUnavailable

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreFormatError(RuntimeError):
    """The store was written by a newer version, or is not one of ours: do not start."""


def index_unavailable(error: sqlite3.Error) -> Exception:
    """The StoreUnavailable for an error of SQLite."""
    name = getattr(error, "sqlite_errorname", "") or "error"
    full = name.startswith("SQLITE_FULL")
    text = "The disk of the index is full" if full else f"The index failed ({name})"
    return StoreUnavailable(text, retry_after_seconds=30 if full else 2)


def disk_unavailable(error: OSError, *, outcome_unknown: bool = False) -> Exception:
    """The StoreUnavailable for a failed system call."""
    if error.errno in DISK_FULL:
        return StoreUnavailable(
            "The disk of the store is full",
            retry_after_seconds=30,
            outcome_unknown=outcome_unknown,
        )
    return StoreUnavailable(
        f"The disk of the store failed ({errno.errorcode.get(error.errno or 0, '?')})",
        retry_after_seconds=5,
        outcome_unknown=outcome_unknown,
    )
