"""The data folder of a host belongs to one host at a time."""

import fcntl
import os
from pathlib import Path

from localhost.errors import HostError
from localhost.sockets import command_of

_LONGEST_PID = 20


def claim(folder: Path) -> int:
    """An open descriptor: the folder is this process's for as long as it stays open.

    The folder is made when it is missing.

    Raises:
        HostError: It cannot be made or written, or another host has it; says which.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise unusable(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, _LONGEST_PID).decode(errors="replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise unusable(folder, error) from error
        by = f" (by {command_of(holder)})" if holder.isdecimal() else ""
        raise HostError(f"{folder} is in use{by}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def unusable(folder: Path, error: OSError) -> HostError:
    """What to say when the folder cannot be worked with."""
    return HostError(f"cannot keep data in {folder}: {error.strerror or error}")
