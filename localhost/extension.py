"""What the host asks of its Durable Functions engine, `localhost.durable`.

The engine lives in the jobs process (or in the only process), beside the worker that
runs its activities. The package has to provide

* `localhost.durable.open_engine(setup: EngineSetup) -> Engine`
* `localhost.durable.client_provider(endpoint: ClientEndpoint) -> Provider`, which
  `Worker.register_binding("durableClient", ...)` receives in every process.

The host serves `Engine.app` on a loopback port of its own, behind a secret made at
each start that is part of `rpc_url`; HTTP workers forward what arrives below
`WEBHOOKS` to it. `localhost.durable` is imported only if the app has a Durable
binding.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localhost.indexing import Binding
from localhost.worker import Invoker

WEBHOOKS = "/runtime/webhooks/durabletask"
RPC = "/durabletask"
DURABLE_TYPES = frozenset(
    {"orchestrationTrigger", "activityTrigger", "entityTrigger", "durableClient"}
)

Message = MutableMapping[str, Any]
Asgi = Callable[
    [
        Message,
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an engine is made of.

    Attributes:
        invoker: Runs orchestrators, activities and entities.
        triggers: Function name to its trigger, Durable ones only.
        folder: The host's data folder; the engine keeps `durable.db` in it.
        options: `extensions.durableTask` of host.json.
        rpc_url: Where clients on this machine reach `RPC`, secret included; ends with
            a slash: `http://127.0.0.1:40123/<secret>/durabletask/`.
        public_url: Base of the URLs given to HTTP callers, without a slash at its end.
        key: System key that requests below `WEBHOOKS` must carry, as `?code=` or
            `x-functions-key`. Requests below `RPC` the host has checked already.
    """

    invoker: Invoker
    triggers: Mapping[str, Binding]
    folder: Path
    options: Mapping[str, Any]
    rpc_url: str
    public_url: str
    key: str


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """What a durableClient binding has to tell the SDK; see `EngineSetup`."""

    options: Mapping[str, Any]
    rpc_url: str
    public_url: str
    key: str


class Engine(Protocol):
    """A running engine.

    Attributes:
        app: ASGI application for paths that start with `WEBHOOKS` or `RPC`; the full
            path, without the secret, is in `scope["path"]`.
    """

    app: Asgi

    async def start(self) -> None:
        """Open the database and go on with what was under way."""

    async def stop(self) -> None:
        """Take no new work, wait for running episodes, close the database."""
