"""The folder in which a process prepares files before they are renamed into place.

Each process has a folder of its own below `.tmp`, with a lock that ends with the
process, however it ends; so a later start tells leftovers from work under way, in
another container as well, where process ids say nothing.
"""

import fcntl
import itertools
import os
import shutil
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

FOLDER_NAME = ".tmp"
LOCK_NAME = "lock"


class Staging:
    """A folder of this process below the root, on the same file system."""

    def __init__(self, root: Path) -> None:
        parent = root / FOLDER_NAME
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in list(parent.iterdir()):
            _remove_if_dead(leftover)
        while True:
            self.folder = parent / token_hex(8)
            self.folder.mkdir()
            with suppress(FileNotFoundError):
                self._lock = _locked(self.folder / LOCK_NAME, create=True)
                if (self.folder / LOCK_NAME).exists():
                    break
        self._prefix = f"{self.folder}/"
        self._numbers = itertools.count()

    def new_path(self) -> str:
        """Path of a file that does not exist yet."""
        return f"{self._prefix}{next(self._numbers)}"

    def close(self) -> None:
        """Removes the folder with all that is left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def is_in_use(root: Path) -> bool:
    """Whether a process, of this or another container, has the store open."""
    for lock in (root / FOLDER_NAME).glob(f"*/{LOCK_NAME}"):
        try:
            os.close(_locked(lock, create=False))
        except BlockingIOError:
            return True
        except FileNotFoundError:
            continue
    return False


def _locked(path: Path, *, create: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_dead(folder: Path) -> None:
    """Removes the folder unless the process that made it lives."""
    try:
        descriptor = _locked(folder / LOCK_NAME, create=True)
    except OSError:
        return  # its owner holds the lock, or somebody else removes it
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
