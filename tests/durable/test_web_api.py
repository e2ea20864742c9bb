"""The HTTP API as ASGI: keys, routes, bad requests, links."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from durable.harness import ENDPOINT, Host, hosting

from localhost.durable.client import binding_payload
from localhost.durable.hosting import limits
from localhost.errors import LoadError
from localhost.extension import RPC, WEBHOOKS


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    app = df.DFApp()

    @app.function_name("Listen")
    @app.orchestration_trigger(context_name="context")
    def listen(context: df.DurableOrchestrationContext):
        heard = yield context.wait_for_external_event("go")
        return [context.get_input(), heard]

    async with hosting(app, tmp_path) as running:
        yield running


async def call(
    host: Host,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a request sent in two pieces."""
    sent: list[dict[str, Any]] = []
    pieces = [
        {"type": "http.request", "body": body[:3], "more_body": True},
        {"type": "http.request", "body": body[3:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    await host.api(scope, receive, send)
    named = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], named, json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?code=wrong", {}, 401),
        ("?code=key", {}, 404),
        ("", {"X-Functions-Key": "key"}, 404),
    ],
)
async def test_webhooks_need_the_system_key(
    host: Host, query: str, headers: dict[str, str], status: int
) -> None:
    path = f"{WEBHOOKS}/instances/nobody{query}"
    assert (await call(host, "GET", path, headers=headers))[0] == status


async def test_other_spellings_of_the_webhooks_path_need_the_key_too(
    host: Host,
) -> None:
    path = f"{WEBHOOKS.upper()}/instances/nobody"
    assert (await call(host, "GET", path))[0] == 401


async def test_rpc_was_checked_by_its_address(host: Host) -> None:
    assert (await call(host, "GET", f"{RPC}/instances/nobody"))[0] == 404


async def test_a_start_answers_with_links_that_work(host: Host) -> None:
    path = f"{WEBHOOKS}/orchestrators/Listen/a%20b?code=key"
    status, headers, links = await call(host, "POST", path, b'{"n": 1}')
    assert status == 202
    assert links["id"] == "a b"
    assert headers["location"] == links["statusQueryGetUri"]

    def local(name: str) -> str:
        return str(links[name]).removeprefix(ENDPOINT.public_url)

    status, headers, found = await call(host, "GET", local("statusQueryGetUri"))
    assert (status, found["input"]) == (202, {"n": 1})
    assert headers["retry-after"] == "10"
    raise_event = local("sendEventPostUri").replace("{eventName}", "go")
    assert (await call(host, "POST", raise_event, b'"now"'))[0] == 202
    await host.end("a%20b")
    status, _, found = await call(host, "GET", local("statusQueryGetUri"))
    assert (status, found["output"]) == (200, [{"n": 1}, "now"])
    status, _, purged = await call(host, "DELETE", local("purgeHistoryDeleteUri"))
    assert (status, purged) == (200, {"instancesDeleted": 1})
    assert (await call(host, "GET", local("statusQueryGetUri")))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "orchestrators/Nobody", b"", 400),
        ("POST", "orchestrators/Listen", b"{not json", 400),
        ("GET", "orchestrators/Listen", b"", 404),
        ("PUT", "instances", b"", 404),
        ("GET", "instances?runtimeStatus=Asleep", b"", 400),
        ("GET", "instances?createdTimeFrom=yesterday", b"", 400),
        ("GET", "instances?top=many", b"", 400),
        ("POST", "instances/x/dance", b"", 404),
        ("POST", "instances/x/terminate/now", b"", 404),
        ("GET", "entities/Nothing/x", b"", 404),
        ("PUT", "entities/Nothing/x", b"", 404),
        ("GET", "nonsense", b"", 404),
        ("POST", "orchestrators/Listen", b" " * (16 * 1024 * 1024 + 1), 413),
    ],
)
async def test_bad_requests_are_refused(
    host: Host, method: str, path: str, body: bytes, status: int
) -> None:
    assert (await call(host, method, f"{RPC}/{path}", body))[0] == status


async def test_the_binding_has_what_the_client_library_reads() -> None:
    client = df.DurableOrchestrationClient(binding_payload(ENDPOINT))
    links = client.create_http_management_payload("the-id")
    assert links["id"] == "the-id"
    assert links["statusQueryGetUri"] == (
        "http://localhost:8080/runtime/webhooks/durabletask/instances/the-id?code=key"
    )
    assert links["terminatePostUri"].endswith(
        "/the-id/terminate?reason={text}&code=key"
    )


def test_limits_come_from_host_json_and_must_make_sense() -> None:
    assert limits({"maxConcurrentActivityFunctions": 3}).activities == 3
    assert limits({}).orchestrators == 4
    for wrong in (0, -1, "8", True, 1.5):
        with pytest.raises(LoadError, match="maxConcurrentActivityFunctions"):
            limits({"maxConcurrentActivityFunctions": wrong})
