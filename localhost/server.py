"""uvicorn, with a patience that ends: one listening socket, one application.

uvicorn itself lets a client take for ever over a request head or a body. Here a head
must be complete in time, a body must not pause for too long, and a reader must take
something now and then; a sweep every second closes connections that break this.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from typing_extensions import override

from localhost.accepting import Acceptor, Load
from localhost.extension import Asgi

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
MAX_CONNECTIONS = 2000
BACKLOG = 2048
ACCESS_LOG = logging.getLogger("uvicorn.access")


def without_query(record: logging.LogRecord) -> bool:
    """Cuts the query string, which may be confidential, off an access log record."""
    arguments = record.args
    if isinstance(arguments, tuple):
        record.args = tuple(
            argument.partition("?")[0] if isinstance(argument, str) else argument
            for argument in arguments
        )
    return True


ACCESS_LOG.addFilter(without_query)


@dataclass(frozen=True, slots=True)
class Serving:
    """How requests are served.

    Attributes:
        cert: PEM certificate chain; None for plain HTTP.
        key: PEM private key; None when it stands in `cert`.
        access_log: Log each request.
        drain_seconds: How long running requests may take after `stop`.
        head_seconds: Time for a request head, and for the rest of a body after its
            request has been answered.
        body_seconds: Longest pause within a body that we wait for.
        reader_seconds: Longest time that a client may take nothing of a response.
    """

    cert: Path | None = None
    key: Path | None = None
    access_log: bool = False
    drain_seconds: int = 30
    head_seconds: float = 30.0
    body_seconds: float = 60.0
    reader_seconds: float = 120.0


class Patience(asyncio.Protocol):
    """Mixed into uvicorn's protocols: knows since when it waits for its client."""

    loop: asyncio.AbstractEventLoop
    cycle: Any
    flow: Any
    serving: Serving
    load: Load
    access_log: bool
    connections: set[Any]
    head_since: float | None = None
    data_at = 0.0
    full_since: float | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.access_log = self.serving.access_log
        self.load.set(len(self.connections))
        self.head_since = self.data_at = self.loop.time()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.load.set(len(self.connections))

    @override
    def data_received(self, data: bytes) -> None:
        self.data_at = self.loop.time()
        cycle = self.cycle
        if self.head_since is None and (cycle is None or cycle.response_complete):
            self.head_since = self.data_at
        super().data_received(data)
        if self.cycle is not cycle:
            self.head_since = None

    @override
    def pause_writing(self) -> None:
        self.full_since = self.loop.time()
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        self.full_since = None
        super().resume_writing()

    def waits_too_long(self, now: float) -> bool:
        """Whether the client has kept us waiting beyond a limit; `now` of the loop."""
        if self.head_since is not None:
            return now - self.head_since > self.serving.head_seconds
        if self.full_since is not None:
            return now - self.full_since > self.serving.reader_seconds
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            return False
        unasked = self.flow.read_paused or cycle.waiting_for_100_continue
        return not unasked and now - self.data_at > self.serving.body_seconds


def patient_protocol(serving: Serving, load: Load) -> type[Any]:
    """The protocol of httptools where that is installed, else of h11."""
    base: type[Any]
    try:
        from uvicorn.protocols.http import httptools_impl

        base = httptools_impl.HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http import h11_impl

        base = h11_impl.H11Protocol
    members = {"serving": serving, "load": load}
    return type("PatientProtocol", (Patience, base), members)


class HttpServer(uvicorn.Server):
    """Serves one application on one socket until `stop`."""

    def __init__(
        self,
        application: Asgi,
        listener: socket.socket,
        serving: Serving,
        on_started: Callable[[], None] = lambda: None,
        load: Load | None = None,
    ) -> None:
        self._load = load or Load(1)
        self._protocol = patient_protocol(serving, self._load)
        super().__init__(
            uvicorn.Config(
                application,
                http=self._protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                # False would silence every server of this process; see Patience.
                access_log=True,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=serving.drain_seconds,
                ssl_certfile=serving.cert,
                ssl_keyfile=serving.key,
            )
        )
        self._listener = listener
        self._on_started = on_started

    async def run_until_stopped(self) -> None:
        """Serve; returns when everything is drained after `stop`."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await self.serve(sockets=[])
        finally:
            sweeping.cancel()

    def stop(self) -> None:
        """Accept nothing more and let running requests finish."""
        self.should_exit = True

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the server and say so."""
        await super().startup(sockets=sockets)

        def make_protocol() -> Any:
            return self._protocol(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        tls = self.config.ssl
        acceptor: Any = Acceptor(self._listener, make_protocol, tls, self._load)
        self.servers.append(acceptor)
        self._on_started()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which may run more than one server."""
        yield

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            now = loop.time()
            for connection in list(self.server_state.connections):
                late: Any = connection
                if late.waits_too_long(now):
                    logger.info("Closing a connection whose client is too slow")
                    late.transport.abort()


def check_certificate(serving: Serving) -> None:
    """Make sure that certificate and key can be loaded.

    Raises:
        OSError: A file cannot be read, or does not hold what it should.
    """
    if serving.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(serving.cert, serving.key)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of uvloop where that is installed, else asyncio's."""
    with contextlib.suppress(ImportError):
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()
