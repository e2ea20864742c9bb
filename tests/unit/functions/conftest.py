"""The whole server in one process: real stores in a temporary folder, no socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.requests import Request

from functions.auth import Gate
from functions.http import endpoint
from functions.routes import http_functions
from localhost.routing import Route, Router, parse
from services import startup
from services.runtime import Runtime
from services.settings import Settings
from stores.connect import connect

Serve = Callable[..., Awaitable["Server"]]


class Server(httpx.AsyncClient):
    """A client whose requests are routed and answered as by a Functions host."""

    runtime: Runtime


def application(
    resolve: Callable[[], Awaitable[Runtime]], gate: Gate, **options: Any
) -> Any:
    """All HTTP functions as an ASGI application."""
    functions = http_functions()
    router = Router(
        [Route(f.name, frozenset(f.methods), parse(f.template)) for f in functions]
    )
    endpoints = {f.name: endpoint(f.route, resolve, gate, **options) for f in functions}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        matched = router.match(scope["method"], scope["raw_path"].split(b"?")[0])
        assert matched is not None
        route, scope["path_params"] = matched
        response = await endpoints[route.name](Request(scope, receive, send))
        await response(scope, receive, send)

    return app


@asynccontextmanager
async def running(
    folder: Path,
    *,
    make_gate: Callable[[Settings], Gate] = Gate,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A server on stores in the folder."""
    configured = Settings(
        data=folder / "data",
        durability="process-crash",
        viewer=folder / "viewer",
        **settings,
    )
    stores = connect(configured)
    runtime = startup.build(
        configured,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: uuid4().hex,
    )

    async def resolve() -> Runtime:
        return server.runtime

    transport = httpx.ASGITransport(
        application(resolve, make_gate(configured)), raise_app_exceptions=True
    )
    async with Server(transport=transport, base_url="http://host:8080") as server:
        server.runtime = runtime
        yield server
    await runtime.close()


@pytest.fixture(scope="session")
def running_server() -> Callable[..., Any]:
    """Starts a server: `async with running_server(folder, **settings) as server`."""
    return running


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server
