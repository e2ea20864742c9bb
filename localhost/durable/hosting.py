"""The engine as the host sees it: made from host.json, served over HTTP."""

from collections.abc import Mapping
from typing import Any

from localhost.durable.client import close_client_session
from localhost.durable.engine import Engine, Limits
from localhost.durable.functions import Functions
from localhost.durable.web_api import WebApi
from localhost.errors import LoadError
from localhost.extension import Asgi, EngineSetup

FILE_NAME = "durable.db"


class HostedEngine:
    """See `localhost.extension.Engine`."""

    app: Asgi

    def __init__(self, engine: Engine, app: Asgi) -> None:
        """Put an engine and the application that serves it together."""
        self._engine = engine
        self.app = app

    async def start(self) -> None:
        """See `localhost.extension.Engine.start`."""
        await self._engine.start()

    async def stop(self) -> None:
        """See `localhost.extension.Engine.stop`."""
        await self._engine.stop()
        await close_client_session()


def open_engine(setup: EngineSetup) -> HostedEngine:
    """The engine of an app; nothing is opened before its `start`.

    Raises:
        LoadError: A limit in host.json is not a positive whole number.
    """
    engine = Engine(
        setup.folder / FILE_NAME,
        Functions(setup.invoker, setup.triggers),
        limits(setup.options),
    )
    app = WebApi(lambda: engine.management, setup.public_url, setup.key)
    return HostedEngine(engine, app)


def limits(options: Mapping[str, Any]) -> Limits:
    """Concurrency as `extensions.durableTask` of host.json has it.

    Raises:
        LoadError: A limit is not a positive whole number.
    """
    defaults = Limits()
    return Limits(
        activities=_limit(
            options, "maxConcurrentActivityFunctions", defaults.activities
        ),
        orchestrators=_limit(
            options, "maxConcurrentOrchestratorFunctions", defaults.orchestrators
        ),
        entities=_limit(options, "maxConcurrentEntityFunctions", defaults.entities),
        grace_seconds=defaults.grace_seconds,
    )


def _limit(options: Mapping[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise LoadError(
            f"host.json: extensions.durableTask.{name} is {value!r}, "
            "not a positive whole number"
        )
    return value
