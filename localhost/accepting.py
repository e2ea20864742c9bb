"""Accepts connections so that processes on one socket share them evenly.

Left alone, the first process that wakes up takes every connection in the queue, and
with keep-alive clients the others then idle for ever. Here a process takes one
connection at a time, and lets go for a moment when another one has fewer. When the
others are too busy to answer within that moment it takes the connection after all.
"""

import asyncio
import contextlib
import errno
import logging
import mmap
import socket
import ssl
from collections.abc import Callable

logger = logging.getLogger(__name__)

_YIELD_SECONDS = 0.003
_OUT_OF_DESCRIPTORS_SECONDS = 0.5
_CELL_BYTES = 4


class Load:
    """How many connections each process has; memory shared by forks."""

    def __init__(self, processes: int) -> None:
        self._memory = mmap.mmap(-1, _CELL_BYTES * processes)
        self._cells = memoryview(self._memory).cast("I")
        self._own = 0

    def begin(self, index: int) -> None:
        """This process is the one with this number, without connections so far."""
        self._own = index
        self.set(0)

    def set(self, connections: int) -> None:
        """This process has so many connections."""
        self._cells[self._own] = connections

    def add_one(self) -> None:
        """This process has taken one more."""
        self._cells[self._own] += 1

    def remove_one(self) -> None:
        """What `add_one` counted did not become a connection."""
        self._cells[self._own] -= 1

    def exceeds_another(self) -> bool:
        """Whether some process has fewer connections than this one."""
        return min(self._cells) < self._cells[self._own]


class Acceptor:
    """Accepts on one socket; shaped as `asyncio.Server` where uvicorn needs it."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        load: Load,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._descriptor = listener.fileno()
        self._loop.add_reader(self._descriptor, self._offered)

    def close(self) -> None:
        """Accept no more; this process lets go of the socket."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._descriptor)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until accepted connections have their protocol."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _offered(self) -> None:
        if self._load.exceeds_another():
            self._rest(_YIELD_SECONDS)
        else:
            self._accept()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._descriptor)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._descriptor, self._offered)
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client is gone
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise
            logger.warning("Cannot accept a connection: %s", error.strerror)
            self._rest(_OUT_OF_DESCRIPTORS_SECONDS)
            return
        self._load.add_one()
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls
            )
        except OSError as error:  # TLS handshakes fail for many honest reasons
            logger.debug("Connection not opened: %s", error)
            connection.close()
            self._load.remove_one()
