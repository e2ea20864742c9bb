"""The HTTP API of the engine: the client library's RPC, and the webhooks.

Both have the same routes; the webhooks need the system key, the RPC's secret is part
of its address and checked before a request comes here.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

from localhost.durable import status
from localhost.durable.client import management_links
from localhost.durable.history import microseconds
from localhost.durable.instances import AlreadyRunning
from localhost.durable.management import (
    Management,
    NoSuchInstance,
    NotNow,
    UnknownOrchestrator,
)
from localhost.durable.rewind import CannotRewind
from localhost.durable.schema import InstanceFilter, Status
from localhost.extension import RPC, WEBHOOKS, Message

_PAGE = 100
_MOST_BODY_BYTES = 16 * 1024 * 1024
_CONTINUATION = "x-ms-continuation-token"

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `parts` are the path's segments below the prefix, decoded."""

    method: str
    parts: Sequence[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def flag(self, name: str, *, default: bool) -> bool:
        """A query parameter that is `true` or `false`."""
        return self.query.get(name, str(default)).lower() == "true"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `text` is JSON."""

    status: int
    text: str = "null"
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequest(Exception):
    """The request cannot be understood; the text says why."""


class WebApi:
    """The ASGI application."""

    def __init__(
        self, management: Callable[[], Management], public_url: str, key: str
    ) -> None:
        """Serve `management()`.

        Args:
            management: Asked at every request, since an engine makes it when it starts.
            public_url: Base of the links given to callers.
            key: System key of the webhooks.
        """
        self._management = management
        self._public_url = public_url
        self._key = key

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        if request is None:
            answer = _problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too big."
            )
        elif not self._may(scope["path"], request):
            answer = Answer(HTTPStatus.UNAUTHORIZED)
        else:
            answer = await self.answer(request)
        await _write(answer, send)

    def _may(self, path: str, request: Request) -> bool:
        if path.startswith(f"{RPC}/"):
            return True
        given = request.query.get("code") or request.headers.get("x-functions-key", "")
        return secrets.compare_digest(given.encode(), self._key.encode())

    async def answer(self, request: Request) -> Answer:
        """The answer to a request that may do everything."""
        try:
            return await self._route(request)
        except NoSuchInstance as error:
            return _problem(HTTPStatus.NOT_FOUND, str(error))
        except (NotNow, CannotRewind) as error:
            return _problem(HTTPStatus.GONE, str(error))
        except (UnknownOrchestrator, BadRequest) as error:
            return _problem(HTTPStatus.BAD_REQUEST, str(error))
        except AlreadyRunning as error:
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps(str(error)))

    async def _route(self, request: Request) -> Answer:
        answer = Answer(HTTPStatus.NOT_FOUND)
        match request.parts:
            case ["orchestrators", name]:
                answer = await self._start(request, name, None)
            case ["orchestrators", name, instance_id]:
                answer = await self._start(request, name, instance_id)
            case ["instances"]:
                answer = await self._instances(request)
            case ["instances", instance_id, *rest]:
                answer = await self._instance(request, instance_id, rest)
            case ["entities", name, key]:
                answer = await self._entity(request, name, key)
        return answer

    async def _start(
        self, request: Request, name: str, instance_id: str | None
    ) -> Answer:
        if request.method != "POST":
            return Answer(HTTPStatus.NOT_FOUND)
        version = request.query.get("version", "")
        started = self._management().start(
            name, instance_id, _json_body(request, None), version
        )
        await self._management().flush()
        return self._accepted(started)

    def _accepted(self, instance_id: str) -> Answer:
        links = management_links(instance_id, self._public_url, self._key)
        headers = {"location": links["statusQueryGetUri"], "retry-after": "10"}
        return Answer(HTTPStatus.ACCEPTED, json.dumps(links), headers)

    async def _instances(self, request: Request) -> Answer:
        wanted = _filter(request.query)
        if request.method == "DELETE":
            return _purged(await self._management().purge_all(wanted))
        if request.method != "GET":
            return Answer(HTTPStatus.NOT_FOUND)
        limit = _number(request.query.get("top") or _PAGE)
        try:
            page, token = self._management().query(
                wanted, limit, request.headers.get(_CONTINUATION)
            )
        except ValueError as error:
            raise BadRequest(str(error)) from error
        with_input = request.flag("showInput", default=True)
        text = ",".join(
            status.describe(instance, with_input=with_input) for instance in page
        )
        headers = {_CONTINUATION: token} if token else {}
        return Answer(HTTPStatus.OK, f"[{text}]", headers)

    async def _instance(
        self, request: Request, instance_id: str, rest: Sequence[str]
    ) -> Answer:
        match request.method, rest:
            case "GET", []:
                return self._status(request, instance_id)
            case "DELETE", []:
                return _purged(int(self._management().purge(instance_id)))
            case "POST", ["raiseEvent", name]:
                data = _json_body(request, "null") or "null"
                self._management().raise_event(instance_id, name, data)
                await self._management().flush()
                return Answer(HTTPStatus.ACCEPTED)
            case "POST", [verb]:
                return await self._change(request, instance_id, verb)
        return Answer(HTTPStatus.NOT_FOUND)

    async def _change(self, request: Request, instance_id: str, verb: str) -> Answer:
        management, reason = self._management(), request.query.get("reason", "")
        answer = Answer(HTTPStatus.ACCEPTED)
        match verb:
            case "terminate":
                management.terminate(instance_id, reason)
            case "suspend":
                management.suspend(instance_id, reason)
            case "resume":
                management.resume(instance_id, reason)
            case "rewind":
                await management.rewind(instance_id, reason)
            case "restart":
                new_id = request.flag("restartWithNewInstanceId", default=True)
                answer = self._accepted(management.restart(instance_id, new_id=new_id))
            case _:
                return Answer(HTTPStatus.NOT_FOUND)
        await management.flush()
        return answer

    def _status(self, request: Request, instance_id: str) -> Answer:
        instance = self._management().instance(instance_id)
        events = None
        if request.flag("showHistory", default=False):
            events = status.events(
                self._management().events(instance_id),
                with_output=request.flag("showHistoryOutput", default=False),
            )
        text = status.describe(
            instance,
            with_input=request.flag("showInput", default=True),
            events=events,
        )
        if instance.status.is_final:
            return Answer(HTTPStatus.OK, text)
        accepted = self._accepted(instance_id)
        return Answer(HTTPStatus.ACCEPTED, text, accepted.headers)

    async def _entity(self, request: Request, name: str, key: str) -> Answer:
        if request.method == "GET":
            return Answer(HTTPStatus.OK, self._management().entity_state(name, key))
        if request.method != "POST":
            return Answer(HTTPStatus.NOT_FOUND)
        self._management().signal_entity(
            name,
            key,
            request.query.get("op", ""),
            _json_body(request, None) or "null",
        )
        await self._management().flush()
        return Answer(HTTPStatus.ACCEPTED)


async def _read(scope: Message, receive: Receive) -> Request | None:
    """The request; None when its body is too big."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > _MOST_BODY_BYTES:
            return None
        more = message.get("more_body", False)
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0]
    for prefix in (WEBHOOKS, RPC):
        _, found, rest = path.partition(prefix)
        if found:
            path = rest
            break
    return Request(
        method=scope["method"],
        parts=[unquote(part) for part in path.split("/") if part],
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        },
        body=b"".join(chunks),
    )


async def _write(answer: Answer, send: Send) -> None:
    body = answer.text.encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **answer.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": int(answer.status),
            "headers": [
                (name.encode(), value.encode()) for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _problem(status_code: HTTPStatus, text: str) -> Answer:
    body = json.dumps({"Message": text, "ExceptionMessage": text})
    return Answer(status_code, body)


def _purged(count: int) -> Answer:
    code = HTTPStatus.OK if count else HTTPStatus.NOT_FOUND
    return Answer(code, json.dumps({"instancesDeleted": count}))


def _json_body(request: Request, default: str | None) -> str | None:
    """The body if it is JSON text, `default` if it is empty."""
    if not request.body.strip():
        return default
    try:
        text = request.body.decode()
        json.loads(text)
    except ValueError as error:
        raise BadRequest("The body is not JSON.") from error
    return text


def _number(value: str | int) -> int:
    try:
        number = int(value)
    except ValueError as error:
        raise BadRequest("`top` is not a number.") from error
    return max(1, min(number, 1000))


def _filter(query: Mapping[str, str]) -> InstanceFilter:
    """What `createdTimeFrom`, `createdTimeTo`, `runtimeStatus` and the prefix ask."""
    try:
        return InstanceFilter(
            created_from=_instant(query, "createdTimeFrom"),
            created_to=_instant(query, "createdTimeTo"),
            statuses=frozenset(_statuses(query.get("runtimeStatus", ""))),
            id_prefix=query.get("instanceIdPrefix", ""),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _instant(query: Mapping[str, Any], name: str) -> int | None:
    value = query.get(name)
    return microseconds(value) if value else None


def _statuses(text: str) -> list[Status]:
    return [Status(name) for name in text.split(",") if name]
