"""The HTTP side of the host: an ASGI application over the functions of one app.

A request meets, in this order: mounted applications (system webhooks), the reserved
paths, the home page, and the first function whose route fits. Functions that use the
streaming extension receive a Starlette request on the very scope and channels of the
server, so bodies are copied nowhere; classic functions get `func.HttpRequest` through
the SDK's converters, with the limits that these have in Azure.
"""

import inspect
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from azure.functions.meta import Datum

from localhost.errors import InvocationFailed, LoadError
from localhost.extension import Asgi, Message
from localhost.indexing import Function
from localhost.keys import Keys
from localhost.routing import Route, Router, parse
from localhost.worker import Worker, trigger_datum

logger = logging.getLogger(__name__)

DEFAULT_BODY_LIMIT_BYTES = 104_857_600
_RESERVED = ("/runtime/", "/admin/")
_SYSTEM = frozenset({prefix[:5].encode() for prefix in _RESERVED})
_BODYLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_NO_HOME_PAGE = "AzureWebJobsDisableHomepage"
_HOME = b"Your function app is up and running.\n"


class BodyTooLarge(Exception):
    """A request body without a declared length went over the limit."""


class WebApp:
    """All HTTP functions of a worker as one ASGI application."""

    def __init__(self, worker: Worker, keys: Keys) -> None:
        limit = os.environ.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT")
        self._limit = int(limit) if limit else DEFAULT_BODY_LIMIT_BYTES
        self._keys = keys
        self._home = os.environ.get(_NO_HOME_PAGE, "").lower() != "true"
        self._mounts: dict[str, Asgi] = {}
        functions = [
            function
            for function in worker.functions.values()
            if function.trigger.type == "httpTrigger"
        ]
        prefix = worker.app.host.route_prefix
        self.router = Router([_route(function, prefix) for function in functions])
        self._endpoints = {f.name: _endpoint(worker, f) for f in functions}
        self._levels = {
            function.name: level
            for function in functions
            if (level := function.trigger.properties.get("authLevel", "FUNCTION"))
            != "ANONYMOUS"
        }

    def mount(self, prefix: str, application: Asgi) -> None:
        """Hand every path below `prefix` to this application, paths unchanged.

        Mounted applications come before all functions and check keys themselves.
        """
        self._mounts[prefix.rstrip("/") + "/"] = application

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Answer one request."""
        path: bytes = scope["raw_path"]
        method: str = scope["method"]
        if path[:5].lower() in _SYSTEM:
            application = self._reserved(scope["path"])
            if application:
                return await application(scope, receive, send)
        if path == b"/" and self._home and method in {"GET", "HEAD"}:
            return await _answer(send, 200, _HOME)
        matched = self.router.match(method, path)
        if matched is None:
            return await _answer(send, 404)
        route, scope["path_params"] = matched
        if route.name in self._levels and not self._admitted(route.name, scope):
            return await _answer(send, 401)
        endpoint = self._endpoints[route.name]
        if method in _BODYLESS:
            return await endpoint(scope, receive, send)
        return await self._limited(endpoint, scope, receive, send)

    def _reserved(self, path: str) -> Asgi | None:
        for prefix, application in self._mounts.items():
            if path.startswith(prefix):
                return application
        return _not_found if path.lower().startswith(_RESERVED) else None

    def _admitted(self, name: str, scope: Message) -> bool:
        shown = _header(scope, b"x-functions-key")
        key = shown.decode("latin-1") if shown else None
        if key is None:
            query = scope["query_string"].decode("latin-1")
            key = dict(parse_qsl(query)).get("code")
        return self._keys.admits(self._levels[name], name, key)

    async def _limited(
        self, endpoint: Asgi, scope: Message, receive: Any, send: Any
    ) -> None:
        """Serve a request whose body may be too large."""
        length = _header(scope, b"content-length")
        if length is None:
            await self._measured(endpoint, scope, receive, send)
        elif int(length) > self._limit:
            await _answer(send, 413)
        else:
            await endpoint(scope, receive, send)

    async def _measured(
        self, endpoint: Asgi, scope: Message, receive: Any, send: Any
    ) -> None:
        """Serve a request that does not tell its length, up to the limit."""
        received = 0
        started = False

        async def counted_receive() -> Message:
            nonlocal received
            message: Message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise BodyTooLarge
            return message

        async def noted_send(message: Message) -> None:
            nonlocal started
            if received > self._limit and not started:
                raise BodyTooLarge  # whatever the function makes of it, it is a 413
            started = True
            await send(message)

        try:
            await endpoint(scope, counted_receive, noted_send)
        except BodyTooLarge:
            if started:
                raise
            await _answer(send, 413)


class StreamingEndpoint:
    """A function with the streaming extension's request type."""

    def __init__(self, worker: Worker, function: Function) -> None:
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import Response, StreamingResponse

        self._worker = worker
        self._function = function
        self._name = function.trigger.name
        self._request_class = Request
        self._response_class = Response
        self._stream_class = StreamingResponse
        self._gone = ClientDisconnect

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Call the function and let its response write itself."""
        request = self._request_class(scope, receive, send)
        try:
            result = await self._worker.call(self._function, {self._name: request})
        except BodyTooLarge:
            raise
        except self._gone:
            return
        except Exception:
            logger.exception("Function %s failed", self._function.name)
            await _answer(send, 500)
            return
        if not isinstance(result, self._response_class):
            result = _serialized(result)
        if isinstance(result, self._stream_class):
            send = _telling_send(scope, send)
        try:
            await result(scope, receive, send)
        except self._gone:
            return


class ClassicEndpoint:
    """A function with `func.HttpRequest`: whole bodies, one value per header."""

    def __init__(self, worker: Worker, function: Function) -> None:
        self._worker = worker
        self._function = function

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Read the request, call the function, send what it returned."""
        body = await _whole_body(receive)
        if body is None:
            return None
        if body and _header(scope, b"content-length") is None and _drops_chunked():
            logger.warning(
                "%s: the Azure host drops chunked bodies of classic functions, so "
                "this host does too; LOCALHOST_CHUNKED_BODIES=true passes them",
                self._function.name,
            )
            body = b""
        inputs = trigger_datum(self._function, _request_datum(scope, body))
        try:
            result = await self._worker.invoke(self._function.name, inputs)
        except InvocationFailed as failure:
            logger.error("%s\n%s", failure, failure.details)  # noqa: TRY400
            return await _answer(send, 500)
        if result is None:
            return await _answer(send, 204)
        if result.type == "string":
            return await _answer(send, 200, result.value.encode())
        return await _send_http_datum(send, result.value)


def _telling_send(scope: Message, send: Any) -> Any:
    """A `send` that raises when the client is gone, and a scope that says so.

    Starlette then streams without a task group that only waits for the disconnect,
    which costs more than everything else about a small streamed response.
    """
    connection: Any = getattr(send, "__self__", None)
    if not hasattr(connection, "disconnected"):
        return send
    scope["asgi"] = {**scope["asgi"], "spec_version": "2.4"}

    async def telling_send(message: Message) -> None:
        if connection.disconnected:
            raise OSError("the client is gone")
        await send(message)

    return telling_send


def _drops_chunked() -> bool:
    return os.environ.get("LOCALHOST_CHUNKED_BODIES", "").lower() != "true"


def _route(function: Function, prefix: str) -> Route:
    properties = function.trigger.properties
    text = properties.get("route")
    text = function.name if text is None else text.strip("/")
    try:
        template = parse("/".join(part for part in (prefix, text) if part))
    except LoadError as error:
        raise LoadError(f"Function {function.name}: {error}") from error
    methods = frozenset(method.upper() for method in properties.get("methods") or ())
    return Route(function.name, methods, template)


def _endpoint(worker: Worker, function: Function) -> Asgi:
    """The caller for this function's style; mixing styles is an error as in Azure."""
    base = sys.modules.get("azurefunctions.extensions.base")
    if base is None or not base.HttpV2FeatureChecker.http_v2_enabled():
        return ClassicEndpoint(worker, function)
    annotation = function.annotations.get(function.trigger.name)
    if not (
        inspect.isclass(annotation) and base.RequestTrackerMeta.check_type(annotation)
    ):
        raise LoadError(
            f"Function {function.name}: with the streaming HTTP extension every HTTP "
            f"function must take its Request"
        )
    return StreamingEndpoint(worker, function)


def _header(scope: Message, name: bytes) -> bytes | None:
    for header, value in scope["headers"]:
        if header == name:
            found: bytes = value
            return found
    return None


async def _whole_body(receive: Any) -> bytes | None:
    """The request body, None when the client left before its end."""
    chunks = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


def _request_datum(scope: Message, body: bytes) -> Datum:
    query = scope["query_string"].decode("latin-1")
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
    ]
    host = dict(headers).get("host", "localhost")
    path = scope["raw_path"].decode("latin-1")
    url = f"{scope['scheme']}://{host}{path}" + (f"?{query}" if query else "")
    return Datum(
        {
            "method": Datum(scope["method"], "string"),
            "url": Datum(url, "string"),
            "headers": _joined(headers),
            "query": _joined(parse_qsl(query)),
            "params": {
                name: Datum(value, "string")
                for name, value in scope["path_params"].items()
            },
            "body": Datum(body, "bytes"),
        },
        "http",
    )


def _joined(pairs: list[tuple[str, str]]) -> dict[str, Datum]:
    """Repeated names become one, with commas, as the Azure host hands them over."""
    values: dict[str, str] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name in values else value
    return {name: Datum(value, "string") for name, value in values.items()}


async def _send_http_datum(send: Any, response: Mapping[str, Any]) -> None:
    body: bytes = response["body"].value
    headers = [
        (name.lower().encode("latin-1"), datum.value.encode("latin-1"))
        for name, datum in response["headers"].items()
        if name.lower() != "content-length"
    ]
    headers.append((b"content-length", b"%d" % len(body)))
    for cookie in response["cookies"] or ():
        headers += [
            (b"set-cookie", morsel.OutputString().encode("latin-1"))
            for morsel in cookie.values()
        ]
    status = int(response["status_code"].value)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _serialized(result: Any) -> Any:
    """The JSON response FastAPI makes of a plain value."""
    from fastapi.encoders import jsonable_encoder
    from starlette.responses import JSONResponse

    return JSONResponse(jsonable_encoder(result))


async def _not_found(_scope: Message, _receive: Any, send: Any) -> None:
    await _answer(send, 404)


async def _answer(send: Any, status: int, text: bytes = b"") -> None:
    headers = [(b"content-length", b"%d" % len(text))]
    if text:
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
