"""The function app: settings, stores and services put together, and all functions.

Imports are kept few: a cold start pays for each. The runtime is made on the first
request, in the event loop that serves it.
"""

import asyncio
import gc
import logging
import os
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import azure.durable_functions as df
import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, StreamingResponse

from functions import auth, roles, telemetry, timers
from functions.http import Endpoint, endpoint
from functions.operations import resume_reindex
from functions.routes import HttpFunction, http_functions
from orchestrations import registry
from services import startup
from services.runtime import Runtime
from services.settings import Settings
from services.tokens import Tokens
from stores import connect

# What libraries say about a file quotes its values, which belong in no log.
logging.getLogger("pydicom").disabled = True
warnings.simplefilter("ignore", UserWarning)
# At level information, which is Azure's default, each request to a store is 30 lines.
for talkative in ("azure", "httpx"):
    logging.getLogger(talkative).setLevel(logging.WARNING)

# An answer is made of thousands of small objects that are in no cycle: so many more are
# made before Python looks for cycles (pages of 100 studies: half the CPU).
gc.set_threshold(10_000, 20, 20)

settings = Settings.from_environment(os.environ)
sending = telemetry.configured(os.environ)
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)

_runtime: asyncio.Future[Runtime] | None = None


async def resolve() -> Runtime:
    """The runtime of this process; whoever comes first makes it."""
    global _runtime  # noqa: PLW0603 - one per process, and only here
    if _runtime is None:
        _runtime = asyncio.get_running_loop().create_future()
        try:
            _runtime.set_result(await _start())
        except BaseException as error:
            failed, _runtime = _runtime, None
            failed.set_exception(error)
            failed.exception()  # nobody may be waiting for it
            raise
    return await asyncio.shield(_runtime)


async def _start() -> Runtime:
    stores = await asyncio.to_thread(connect.connect, settings)
    runtime = startup.build(
        settings,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: uuid4().hex,
        open_sink=partial(connect.export_sink, settings),
    )
    await runtime.partitions.check_switch()
    return runtime


def _gate() -> auth.Gate:
    """Open without security; else nobody passes without a token and a role.

    Raises:
        SettingsError: The roles file is wrong.
    """
    if not settings.security:
        return auth.Gate(settings)
    folder = Path(__file__).parent
    return auth.Gate(
        settings,
        roles.load(folder / settings.roles_file),
        Tokens(connect.token_keys(settings.authority), settings.audiences),
    )


def _register(function: HttpFunction, serve: Endpoint) -> None:
    route = app.route(
        route=function.template,
        methods=function.methods,
        trigger_arg_name="request",
    )
    handler = _with_client(serve) if function.route.durable else _without_client(serve)
    app.function_name(function.name)(route(handler))


def _without_client(serve: Endpoint) -> Any:
    async def handler(request: Request) -> StreamingResponse:
        return await serve(request)

    return handler


def _with_client(serve: Endpoint) -> Any:
    @app.durable_client_input(client_name="client")
    async def handler(request: Request, client: Any) -> StreamingResponse:
        request.state.durable_client = client
        return await serve(request)

    return handler


gate = _gate()
for function in http_functions():
    _register(function, endpoint(function.route, resolve, gate, telemetry=sending))
app.register_functions(registry.blueprint(resolve))


@app.function_name("PublishPending")
@app.timer_trigger("timer", settings.publish_schedule, run_on_startup=True)
async def publish_pending_timer(timer: func.TimerRequest) -> None:
    """Heals catalog and feed after a crash; also once at every start."""
    del timer
    await timers.publish_pending(await resolve())


@app.function_name("CleanUpDeleted")
@app.timer_trigger("timer", settings.cleanup_schedule)
async def clean_up_deleted_timer(timer: func.TimerRequest) -> None:
    """Removes the blobs of deleted instances whose delay is over."""
    del timer
    await timers.clean_up_deleted(await resolve())


@app.function_name("PurgeHistory")
@app.timer_trigger("timer", settings.purge_schedule)
@app.durable_client_input(client_name="client")
async def purge_history_timer(timer: func.TimerRequest, client: Any) -> None:
    """Forgets operations that began long ago."""
    del timer
    await timers.purge_history(await resolve(), client)


@app.function_name("ForgetSecrets")
@app.timer_trigger("timer", settings.cleanup_schedule)
@app.durable_client_input(client_name="client")
async def forget_secrets_timer(timer: func.TimerRequest, client: Any) -> None:
    """Forgets the secrets of exports that a crash kept from forgetting them."""
    del timer
    await timers.forget_secrets(await resolve(), client)


@app.function_name("ResumeReindex")
@app.timer_trigger("timer", settings.cleanup_schedule)
@app.durable_client_input(client_name="client")
async def resume_reindex_timer(timer: func.TimerRequest, client: Any) -> None:
    """Goes on where a crash kept an operation from starting."""
    del timer
    await resume_reindex(await resolve(), client)
