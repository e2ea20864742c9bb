"""The way of every request: checks before its handler, headers and errors after it.

`endpoint` holds the only `except DicomwebError` and the only `except Exception` of the
product.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from secrets import token_hex
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from dicomweb.errors import (
    DicomwebError,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    TooManyRequests,
    Unauthenticated,
)
from dicomweb.identifiers import DEFAULT_PARTITION, Partition
from functions.audit import Audit, custom_headers
from functions.auth import Gate
from functions.call import Call, Route
from functions.telemetry import Telemetry
from services.metrics import Usage, current_usage, on_account
from services.runtime import Runtime
from services.settings import Settings

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 200.0  # Azure's load balancer gives up after 230
REQUEST_ID = "x-ms-request-id"
SUPPORTED_VERSIONS = "1.0-prerelease, 1, 2"
PREFLIGHT_SECONDS = 3600

_FORBIDDEN_QUERY = re.compile(r"<|%3c", re.IGNORECASE)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_LOOPBACK_ADDRESSES = frozenset({"127.0.0.1", "::1"})
_EXPOSED_HEADERS = (
    "ETag, Location, Warning, Link, Content-Range, Accept-Ranges, Digest,"
    " erroneous-dicom-attributes, api-supported-versions, x-ms-request-id"
)
_SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
_HTTPS_ONLY = "max-age=31536000"
_INTERNAL_ERROR = (
    "The server encountered an internal error. Please retry the request. If the issue"
    " persists, please contact support."
)

Resolve = Callable[[], Awaitable[Runtime]]
Endpoint = Callable[[Request], Awaitable[Response]]


def endpoint(
    route: Route,
    resolve: Resolve,
    gate: Gate,
    *,
    telemetry: Telemetry | None = None,
    request_seconds: float = REQUEST_SECONDS,
) -> Endpoint:
    """The handler of the route as a host calls it.

    Args:
        route: Of the table.
        resolve: Gives the runtime of this process.
        gate: Says who may pass.
        telemetry: Sends traces and metrics; None where that is not configured.
        request_seconds: After this the request is answered with 503.
    """

    async def serve(request: Request) -> Response:
        visit = _Visit(route, resolve, gate, telemetry, request)
        current_usage(visit.usage)
        answer = visit.answer(request_seconds)
        return visit.sent(await on_account(answer, visit.usage))

    return serve


class _Visit:
    """One request, from its arrival to the last byte of its answer."""

    def __init__(
        self,
        route: Route,
        resolve: Resolve,
        gate: Gate,
        telemetry: Telemetry | None,
        request: Request,
    ) -> None:
        self._route = route
        self._resolve = resolve
        self._gate = gate
        self._telemetry = telemetry
        self._request = request
        self._runtime: Runtime | None = None
        self._id = token_hex(16)
        self._root = public_root(gate.settings, request)
        self._audit = Audit(gate.settings, route, request, self._root, self._id)
        self._since = time.perf_counter()
        self._span = telemetry.begin(route, request, self._id) if telemetry else None
        self.usage = Usage()

    async def answer(self, seconds: float) -> Response:
        """The response, whatever happens."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                response = await self._handled()
        except DicomwebError as error:
            response = _error_response(error)
            if isinstance(error, Unauthenticated):
                challenge = self._gate.challenge(self._request)
                response.headers["WWW-Authenticate"] = challenge
        except ClientDisconnect:
            response = PlainTextResponse("The request was aborted.", 400)
        except TimeoutError:
            response = _timed_out(self._id, is_ours=limit.expired())
        except Exception:
            logger.exception("request %s to %s failed", self._id, self._route.name)
            response = PlainTextResponse(_INTERNAL_ERROR, 500)
        self._audit.executed(response.status_code)
        _add_headers(response.headers, self._route, self._id, self._root)
        add_cors_headers(response.headers, self._gate.settings, self._request)
        is_head = self._request.method == "HEAD"
        return _without_body(response) if is_head else response

    async def _handled(self) -> Response:
        """What the handler says, if the caller may reach it.

        Raises:
            DicomwebError: It may not, or the handler refuses.
        """
        route, request = self._route, self._request
        self._audit.identified(self._gate.stranger(request))
        caller = await self._gate.identify(route, request)
        self._audit.identified(caller)
        self._gate.count(caller, route)
        self._audit.executing(custom_headers(request))
        self._gate.check(caller, route, request)
        self._runtime = await self._resolve()
        call = await _prepare(
            route, self._runtime, request, self._root, self._id, self.usage
        )
        call.require = partial(self._gate.require, caller, route, request)
        return await route.handler(call)

    def sent(self, response: Response) -> Response:
        """The response, counted now or when its last byte has been sent."""
        self.usage.bytes_in = _length(self._request.headers)
        if isinstance(response, StreamingResponse):
            status, body = response.status_code, response.body_iterator
            response.body_iterator = self._counted(status, body)
        else:
            self.usage.bytes_out = len(response.body)
            self._finish(response.status_code)
        return response

    async def _counted(
        self, status: int, body: AsyncIterable[Any]
    ) -> AsyncIterator[Any]:
        """The chunks of the body; a host may ask for them in another task."""
        current_usage(self.usage)
        try:
            async for chunk in body:
                self.usage.bytes_out += len(chunk)
                yield chunk
        finally:
            self._finish(status)

    def _finish(self, status: int) -> None:
        seconds = time.perf_counter() - self._since
        if self._runtime is not None:
            name = self._route.name
            self._runtime.metrics.add(name, status, seconds, self.usage)
        if self._telemetry is not None:
            self._telemetry.end(self._span, self._route, status, seconds, self.usage)


async def _prepare(
    route: Route,
    runtime: Runtime,
    request: Request,
    root: str,
    request_id: str,
    usage: Usage,
) -> Call:
    """Checks what does not depend on the route's own rules.

    Raises:
        InvalidRequest: The query string or the partition is not allowed.
        NotFound: The version has no such route.
    """
    version = request.path_params.get("version", "").lower()
    if version in route.absent_from:
        raise NotFound("", code="NotInVersion")
    if _FORBIDDEN_QUERY.search(request.url.query):
        raise InvalidRequest("The query string included invalid characters.")
    partition = Partition(DEFAULT_PARTITION)
    if route.in_partitions:
        partition = await runtime.partitions.resolve(
            request.path_params.get("partition"), create=route.creates_partition
        )
    return Call(
        request=request,
        runtime=runtime,
        route=route,
        version=version,
        partition=partition,
        root=root,
        request_id=request_id,
        usage=usage,
    )


def public_root(settings: Settings, request: Request) -> str:
    """Scheme and host as the client knows them: start of every URL we emit."""
    if settings.public_url:
        return settings.public_url
    scheme: str = request.url.scheme
    host = _with_port(request, request.headers.get("host") or request.url.netloc)
    if settings.trust_forwarded:
        scheme = _first(request, "x-forwarded-proto") or scheme
        host = _first(request, "x-forwarded-host") or host
    return f"{scheme}://{host}"


def _with_port(request: Request, host: str) -> str:
    """The host; one on this machine that lacks its port gets it.

    dicomweb-client 0.61 sends `Host: 127.0.0.1` to a server on port 8080 and then
    follows the URLs that it gets.
    """
    address, port = request.scope.get("server") or ("", None)
    if host in _LOOPBACK and address in _LOOPBACK_ADDRESSES and port not in {None, 80}:
        return f"{host}:{port}"
    return host


def _first(request: Request, name: str) -> str:
    value: str = request.headers.get(name, "")
    return value.split(",", maxsplit=1)[0].strip()


# --- errors -------------------------------------------------------------------------


def _error_response(error: DicomwebError) -> Response:
    headers = {}
    if isinstance(error, StoreUnavailable | TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_seconds)
        logger.warning("%s: %s", error.code, error)
    text = str(error)
    if not text:
        return Response(None, error.status, headers)
    return PlainTextResponse(text, error.status, headers)


def _timed_out(request_id: str, *, is_ours: bool) -> Response:
    if not is_ours:
        logger.error("request %s failed: something in it timed out", request_id)
        return PlainTextResponse(_INTERNAL_ERROR, 500)
    logger.warning("request %s took too long and was given up", request_id)
    return PlainTextResponse(
        "The request took too long and was given up; what was acknowledged before"
        " stays. Please retry.",
        503,
        {"Retry-After": "1"},
    )


# --- headers ------------------------------------------------------------------------


def _add_headers(
    headers: MutableHeaders, route: Route, request_id: str, root: str
) -> None:
    headers[REQUEST_ID] = request_id
    if route.versions:
        headers["api-supported-versions"] = SUPPORTED_VERSIONS
    for name, value in _SECURITY_HEADERS:
        headers.setdefault(name, value)
    if root.startswith("https:"):
        headers["Strict-Transport-Security"] = _HTTPS_ONLY


def _length(headers: Mapping[str, str]) -> int:
    """Of the body as its sender says; 0 where it does not."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def add_cors_headers(
    headers: MutableHeaders, settings: Settings, request: Request
) -> None:
    """Lets pages of an allowed origin read the response."""
    origins = settings.cors_origins
    if not origins:
        return
    headers.add_vary_header("Origin")
    origin = request.headers.get("origin")
    if origin is None or not ("*" in origins or origin in origins):
        return
    headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS


async def preflight(call: Call) -> Response:
    """Answers OPTIONS: what a page of an allowed origin may send.

    Source: Fetch standard, CORS-preflight.
    """
    headers: Mapping[str, str] = {}
    asked = call.request.headers.get("access-control-request-headers", "")
    if call.request.headers.get("access-control-request-method"):
        headers = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": asked or "Accept, Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
    return Response(None, 204, headers)


def _without_body(response: Response) -> Response:
    """The same head without a body."""
    head = Response(None, response.status_code)
    head.raw_headers = response.raw_headers
    return head
