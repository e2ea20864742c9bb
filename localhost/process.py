"""What one process of the host runs: HTTP, jobs (timers, Durable), or both."""

import asyncio
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from os import _exit
from pathlib import Path

from localhost import indexing, memory, timers
from localhost.accepting import Load
from localhost.extension import (
    DURABLE_TYPES,
    RPC,
    WEBHOOKS,
    Asgi,
    ClientEndpoint,
    Engine,
    EngineSetup,
)
from localhost.forward import Forward, behind_secret
from localhost.indexing import App
from localhost.keys import Keys
from localhost.server import HttpServer, Serving, new_event_loop
from localhost.web import WebApp
from localhost.worker import Worker

logger = logging.getLogger(__name__)

_SERVED_TRIGGERS = frozenset({"httpTrigger", "timerTrigger"}) | DURABLE_TYPES
_STUCK_THREAD_SECONDS = 5.0


class Role(Flag):
    """What a process takes care of."""

    HTTP = auto()
    JOBS = auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """What all processes of a host have in common.

    Attributes:
        app_folder: Where function_app.py is.
        data_folder: What the host itself remembers.
        claimed: Descriptor that keeps other hosts from the data folder; the parent's.
        keys: Access keys.
        listener: The public socket.
        rpc_listener: Loopback socket of the Durable engine.
        rpc_secret: First path segment that opens it.
        public_url: Base of the app's URLs, without a slash at its end.
        serving: How HTTP is served.
        load: Connections of each HTTP process.
    """

    app_folder: Path
    data_folder: Path
    claimed: int
    keys: Keys
    listener: socket.socket
    rpc_listener: socket.socket
    rpc_secret: str
    public_url: str
    serving: Serving
    load: Load

    @property
    def engine_url(self) -> str:
        """Where the engine's whole application is, without a slash at its end."""
        port = self.rpc_listener.getsockname()[1]
        return f"http://127.0.0.1:{port}/{self.rpc_secret}"


def run(
    setup: Setup, roles: Role, on_ready: Callable[[], None], lifeline: int | None
) -> bool:
    """Run the roles until SIGTERM or SIGINT, or until the parent is gone.

    Args:
        setup: The host's setup.
        roles: What this process takes care of.
        on_ready: Called once, when everything runs.
        lifeline: Descriptor that becomes readable when the parent dies.

    Returns:
        Whether there was anything to do; False comes back at once.

    Raises:
        HostError: The app cannot be loaded.
    """
    memory.give_back_early()
    worker = Worker(_load(setup.app_folder))
    if roles is Role.JOBS and not _has_jobs(worker.app):
        return False
    process = Process(setup, roles, worker, on_ready)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(process.run(lifeline))
    worker.close()
    watchdog = threading.Timer(_STUCK_THREAD_SECONDS, _exit, (0,))
    watchdog.daemon = True  # ends us if a function never lets go of its thread
    watchdog.start()
    return True


def _load(folder: Path) -> App:
    """The app, outside of the garbage collector's care: its modules live for ever."""
    gc.disable()
    try:
        return indexing.load(folder)
    finally:
        gc.freeze()
        gc.enable()


class Process:
    """The running roles of one process."""

    def __init__(
        self, setup: Setup, roles: Role, worker: Worker, on_ready: Callable[[], None]
    ) -> None:
        self._setup = setup
        self._roles = roles
        self._worker = worker
        self._on_ready = on_ready
        self._stopped = asyncio.Event()
        self._public: HttpServer | None = None
        self._private: HttpServer | None = None
        self._clock: timers.Timers | None = None
        self._starting = 1

    async def run(self, lifeline: int | None) -> None:
        """Start the roles, wait for a signal, stop them in order."""
        self._listen_for_signals(lifeline)
        engine = self._connect_durable()
        self._worker.check_bindings()
        if Role.HTTP in self._roles:
            self._warn_of_unserved()
            self._public = self._public_server(engine)
        if Role.JOBS in self._roles:
            self._clock = self._timers()
        if engine:
            await engine.start()
            self._private = self._engine_server(engine)
        try:
            await self._serve()
        finally:
            if engine:
                await engine.stop()

    async def _serve(self) -> None:
        """Run until told to stop; public requests end first, as they need the rest."""
        private = None
        if self._private:
            private = asyncio.create_task(self._private.run_until_stopped())
        if self._clock:
            self._clock.start()
        self._started_one()
        if self._public:
            await self._public.run_until_stopped()
        else:
            await self._stopped.wait()
        if self._clock:
            await self._clock.stop(self._setup.serving.drain_seconds)
        if self._private and private:
            self._private.stop()
            await private

    def _connect_durable(self) -> Engine | None:
        """Give Durable clients their binding; the engine, if it is ours to run."""
        app, setup = self._worker.app, self._setup
        if not _is_durable(app):
            return None
        from localhost import durable

        key = setup.keys.system("durabletask")
        rpc_url = f"{setup.engine_url}{RPC}/"
        endpoint = ClientEndpoint(app.host.durable, rpc_url, setup.public_url, key)
        self._worker.register_binding(
            "durableClient", durable.client_provider(endpoint)
        )
        if Role.JOBS not in self._roles:
            return None
        return durable.open_engine(
            EngineSetup(
                invoker=self._worker,
                triggers={
                    function.name: function.trigger
                    for function in app.functions
                    if function.trigger.type in DURABLE_TYPES
                },
                folder=setup.data_folder,
                options=app.host.durable,
                rpc_url=rpc_url,
                public_url=setup.public_url,
                key=key,
            )
        )

    def _public_server(self, engine: Engine | None) -> HttpServer:
        web = WebApp(self._worker, self._setup.keys)
        if engine:
            web.mount(WEBHOOKS, engine.app)
        elif _is_durable(self._worker.app):
            web.mount(WEBHOOKS, Forward(self._setup.engine_url))
        return self._server(
            web, self._setup.listener, self._setup.serving, self._setup.load
        )

    def _engine_server(self, engine: Engine) -> HttpServer:
        application = behind_secret(self._setup.rpc_secret, engine.app)
        serving = Serving(drain_seconds=self._setup.serving.drain_seconds)
        return self._server(application, self._setup.rpc_listener, serving, Load(1))

    def _server(
        self,
        application: Asgi,
        listener: socket.socket,
        serving: Serving,
        load: Load,
    ) -> HttpServer:
        self._starting += 1
        return HttpServer(application, listener, serving, self._started_one, load)

    def _timers(self) -> timers.Timers:
        records = timers.TimerRecords(self._setup.data_folder / "timers.json")
        return timers.Timers(self._worker, timers.find(self._worker.functions), records)

    def _started_one(self) -> None:
        self._starting -= 1
        if not self._starting:
            self._on_ready()

    def _listen_for_signals(self, lifeline: int | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, signal.SIGTERM)
        if lifeline is None:
            loop.add_signal_handler(signal.SIGINT, self._stop, signal.SIGINT)
        else:
            loop.add_reader(lifeline, self._orphaned, lifeline)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        logger.warning("The parent process is gone; stopping")
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if self._stopped.is_set():
            _exit(128 + number)
        self._stopped.set()
        if self._public:
            self._public.stop()

    def _warn_of_unserved(self) -> None:
        for function in self._worker.functions.values():
            if function.trigger.type not in _SERVED_TRIGGERS:
                logger.warning(
                    "Function %s will not run: this host has no %s",
                    function.name,
                    function.trigger.type,
                )


def _is_durable(app: App) -> bool:
    return any(
        binding.type in DURABLE_TYPES
        for function in app.functions
        for binding in function.bindings
    )


def _has_jobs(app: App) -> bool:
    has_timer = any(f.trigger.type == "timerTrigger" for f in app.functions)
    return has_timer or _is_durable(app)
