"""The emulator as an HTTP server on loopback, with its control paths.

`/_emulator/…` belongs to us: `counters` (GET), `reset` (POST: counters and faults),
`faults` (POST: a rule), `keys` (POST: {"enabled": false}), `clock` (POST: {"advance_seconds": n}), `split` (POST:
{"database", "container", "range"}).
"""

import asyncio
import base64
import json
import ssl
import uuid
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from emulators.cosmos import authorization
from emulators.cosmos.errors import CosmosError, bad_request
from emulators.cosmos.faults import AFTER, Counters, Faults, Moment, Rule, error_of
from emulators.cosmos.gateway import Answer, Gateway, Request, operation_kind
from emulators.cosmos.resources import Resources
from emulators.cosmos.storage import Storage

EMULATOR_KEY = base64.b64encode(
    b"The Cosmos emulator of DICOM Functions. No secret."
).decode()
_CONTROL = "_emulator"


@dataclass(frozen=True, slots=True)
class Options:
    """How the emulator is started.

    Attributes:
        port: 0 takes a free one.
        file: SQLite file, or `:memory:`.
        consistency: Default consistency level of the account.
        certificate: PEM file with certificate and key, to serve https.
    """

    host: str = "127.0.0.1"
    port: int = 0
    key: str = EMULATOR_KEY
    file: str = ":memory:"
    physical_partitions: int = 4
    consistency: str = "Session"
    certificate: str = ""


class Emulator:
    """A running emulator; `start` and `stop` once each."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._key: bytes | None = base64.b64decode(options.key)
        self._storage = Storage(options.file)
        self._resources = Resources(self._storage, options.physical_partitions)
        self._faults = Faults()
        self._counters = Counters()
        self._runner: web.ServerRunner | None = None
        self._gateway: Gateway | None = None
        self.endpoint = ""

    async def start(self) -> None:
        """Listens; `endpoint` says where."""
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None))
        await self._runner.setup()
        options, tls = self._options, None
        if options.certificate:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.certificate)
        site = web.TCPSite(self._runner, options.host, options.port, ssl_context=tls)
        await site.start()
        port = self._runner.addresses[0][1]
        scheme = "https" if tls else "http"
        self.endpoint = f"{scheme}://{options.host}:{port}/"
        self._gateway = Gateway(
            self._storage, self._resources, self.endpoint, self._options.consistency
        )

    async def stop(self) -> None:
        """Stops listening and closes the storage."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._storage.close()

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        path = http.rel_url.raw_path.strip("/")
        segments = [unquote(part) for part in path.split("/")] if path else []
        body = await http.content.read()
        headers = {name.lower(): value for name, value in http.headers.items()}
        request = Request(http.method, segments, headers, body)
        try:
            if segments[:1] == [_CONTROL]:
                return self._control(request)
            return await self._answered(http, request)
        except CosmosError as error:
            return _refused(error)

    async def _answered(
        self, http: web.BaseRequest, request: Request
    ) -> web.StreamResponse:
        assert self._gateway is not None
        authorization.verify(
            self._key, request.method, request.segments, request.headers
        )
        kind = operation_kind(request)
        self._counters.requests[kind] += 1
        rule = self._strike(kind, request)
        if rule is not None:
            self._counters.struck[rule.moment.value] += 1
            if rule.seconds:
                await asyncio.sleep(rule.seconds)
            if rule.moment not in AFTER and rule.moment is not Moment.LATENCY:
                return _struck(http, rule)
        answer = self._gateway.answer(request)
        self._counters.charge(kind, answer.charge)
        self._note_scan(request, answer)
        if rule is not None and rule.moment in AFTER:
            return _struck(http, rule)
        return _response(answer)

    def _strike(self, kind: str, request: Request) -> Rule | None:
        """The fault that the request meets; `*` means operations on documents."""
        if "docs" not in request.segments[4:5]:
            return None
        return self._faults.strike(kind, request.segments[3])

    def _note_scan(self, request: Request, answer: Answer) -> None:
        if answer.unindexed:
            self._counters.scans.append(
                {
                    "container": request.segments[3],
                    "paths": list(answer.unindexed),
                    "query": request.json()["query"],
                }
            )

    def _control(self, request: Request) -> web.Response:
        assert self._gateway is not None
        match request.method, request.segments[1:]:
            case "GET", ["counters"]:
                return web.json_response(self._counters.as_json())
            case "POST", ["reset"]:
                self._counters = Counters()
                self._faults = Faults()
            case "POST", ["faults"]:
                self._faults.add(request.json())
            case "POST", ["keys"]:
                enabled = request.json()["enabled"]
                self._key = base64.b64decode(self._options.key) if enabled else None
            case "POST", ["clock"]:
                self._gateway.clock_offset_seconds += request.json()["advance_seconds"]
            case "POST", ["split"]:
                asked = request.json()
                container = self._resources.container(
                    asked["database"], asked["container"]
                )
                with self._storage.transaction():
                    self._resources.split(container, asked["range"])
            case _:
                raise bad_request("No such control.")
        return web.json_response({})


def _common(charge: float) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-ms-activity-id": str(uuid.uuid4()),
        "x-ms-request-charge": f"{charge:.2f}",
        "x-ms-schemaversion": "1.16",
        "x-ms-gatewayversion": "2.0.0",
        "x-emulator-charge": "modelled",
    }


def _response(answer: Answer) -> web.Response:
    headers = _common(answer.charge) | answer.headers
    return web.Response(
        status=answer.status, body=answer.body.encode(), headers=headers
    )


def _refused(error: CosmosError) -> web.Response:
    body = json.dumps({"code": error.code, "message": str(error)})
    headers = _common(1.0) | error.headers()
    return web.Response(status=error.status, body=body.encode(), headers=headers)


def _struck(http: web.BaseRequest, rule: Rule) -> web.StreamResponse:
    """The fault's answer, or a connection that ends without one."""
    error = error_of(rule)
    if error is not None:
        return _refused(error)
    if http.transport is not None:
        http.transport.abort()
    return web.Response(status=500)
