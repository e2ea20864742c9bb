"""Says whether a TCP address is free, and if not which process holds it."""

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # include/net/tcp_states.h of Linux
COMMAND_CHARACTERS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=port_number, required=True)


def run(arguments: argparse.Namespace) -> int:
    """0 when a server can listen there; else 1, after saying why not."""
    problem = bind_problem(arguments.host, arguments.port)
    if problem is None:
        return 0
    holder = holder_of(arguments.port)
    print(
        f"dev: {arguments.host}:{arguments.port} cannot be used: {problem}"
        + (f"; held by {holder}" if holder else "")
        + f". Another port: --port {min(arguments.port + 1, 65535)}",
        file=sys.stderr,
    )
    return 1


def port_number(text: str) -> int:
    """The port as a number, 1 to 65535.

    Raises:
        ValueError: It is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def bind_problem(host: str, port: int) -> str | None:
    """What the system says against listening there, None if nothing."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            # As a server binds: old connections in TIME_WAIT are no obstacle.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def holder_of(port: int) -> str | None:
    """Process number and command line of who listens on the port, if we may know."""
    inodes = listening_inodes(port)
    if inodes:
        return process_with_socket(inodes)
    if shutil.which("lsof"):
        return lsof_holder(port)
    return None


def listening_inodes(port: int) -> set[str]:
    """The socket inodes, as Linux lists them, that listen on the port."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1][-4:], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes


def process_with_socket(inodes: set[str]) -> str | None:
    """The first process that has one of the sockets open."""
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode(errors="replace").strip()
                return f"process {process.name} ({command[:COMMAND_CHARACTERS]})"
    return "a process of another user"


def lsof_holder(port: int) -> str | None:
    """The same as lsof tells it, where there is no /proc."""
    answer = subprocess.run(  # noqa: S603 - fixed words and a number
        ["lsof", "-nP", "-Fpc", f"-iTCP:{port}", "-sTCP:LISTEN"],  # noqa: S607 - /usr/sbin or /usr/bin
        capture_output=True,
        text=True,
        check=False,
    )
    fields = {line[0]: line[1:] for line in answer.stdout.splitlines() if line}
    return f"process {fields['p']} ({fields.get('c', '?')})" if "p" in fields else None
