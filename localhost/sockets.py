"""Listening sockets, and who holds a port that is taken."""

import contextlib
import errno
import socket
from pathlib import Path

from localhost.errors import HostError
from localhost.server import BACKLOG

_LISTENING = "0A"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: Name or address, IPv4 or IPv6.
        port: 0 lets the system choose.

    Raises:
        HostError: The address is not ours, or the port is taken; says by whom.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        holder = holder_of(port) if error.errno == errno.EADDRINUSE else None
        by = f" (held by {holder}); --port chooses another" if holder else ""
        reason = error.strerror or str(error)
        raise HostError(f"cannot listen on {host}:{port}: {reason}{by}") from error
    listener.setblocking(False)
    return listener


def holder_of(port: int) -> str | None:
    """Command and process id of the program that listens on this TCP port.

    None when it cannot be told: not on Linux, or another user's program.
    """
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return command_of(process.name)
    return None


def command_of(pid: str) -> str:
    """`process 123: command and arguments`, cut short; without them if unknown."""
    with contextlib.suppress(OSError):
        command = (Path("/proc") / pid / "cmdline").read_bytes()
        words = command.replace(b"\0", b" ").decode(errors="replace")
        return f"process {pid}: {words.strip()[:120]}"
    return f"process {pid}"


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                is_port = int(fields[1].rpartition(":")[2], 16) == port
                if is_port and fields[3] == _LISTENING:
                    found.add(f"socket:[{fields[9]}]")
    return found
