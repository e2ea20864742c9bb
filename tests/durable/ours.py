"""The product's own orchestrations on the local engine with real stores."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import azure.durable_functions as df
from durable.harness import Host, hosting

from orchestrations import registry
from services.runtime import Runtime


@asynccontextmanager
async def running(runtime: Runtime, folder: Path) -> AsyncIterator[Host]:
    """The product's orchestrations on these stores."""

    async def resolve() -> Runtime:
        return runtime

    app = df.DFApp()
    app.register_functions(registry.blueprint(resolve))
    async with hosting(app, folder) as host:
        yield host
