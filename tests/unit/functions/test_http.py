"""What every request goes through before and after its handler."""

import asyncio
import logging
import re

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from unit_functions import request, runtime_with

from dicomweb.errors import (
    Conflict,
    DicomwebError,
    NotAcceptable,
    StoreUnavailable,
    TooManyRequests,
)
from functions import http
from functions.auth import Gate
from functions.call import Permission, Route
from services.settings import Settings


def route(handler, versions=("v2",)) -> Route:
    return Route("Test", "GET", "test", handler, Permission.NONE, None, versions)


async def answer(handler, *, settings=None, seconds=5.0, **parts):
    runtime = runtime_with(**(settings or {}))

    async def resolve():
        return runtime

    gate = Gate(runtime.settings)
    serve = http.endpoint(route(handler), resolve, gate, request_seconds=seconds)
    return await serve(request(**parts))


def raising(error: BaseException):
    async def handler(call):
        raise error

    return handler


async def fine(call):
    return PlainTextResponse(call.root)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Conflict("It is there."), 409, b"It is there."),
        (NotAcceptable(""), 406, b""),
        (ClientDisconnect(), 400, b"The request was aborted."),
        (DicomwebError("odd"), 500, b"odd"),
    ],
)
async def test_errors_are_sentences_in_plain_text(error, status, text):
    response = await answer(raising(error))
    assert response.status_code == status
    assert response.body == text
    if text:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (StoreUnavailable("Busy.", retry_after_seconds=7), "7"),
        (TooManyRequests("Slow down.", retry_after_seconds=3), "3"),
    ],
)
async def test_passing_faults_say_when_to_come_back(error, seconds):
    response = await answer(raising(error))
    assert response.status_code == error.status
    assert response.headers["retry-after"] == seconds


@pytest.mark.parametrize("error", [RuntimeError("secret"), TimeoutError("secret")])
async def test_faults_of_ours_are_logged_with_the_request_id_and_told_as_500(
    error, caplog
):
    caplog.set_level(logging.ERROR)
    response = await answer(raising(error))
    assert response.status_code == 500
    assert b"secret" not in response.body
    assert response.headers["x-ms-request-id"] in caplog.text


async def test_a_request_that_takes_too_long_is_given_up_with_503():
    async def slow(call):
        await asyncio.sleep(10)

    response = await answer(slow, seconds=0.01)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_a_server_that_cannot_start_answers_500():
    async def resolve():
        raise RuntimeError("no disk")

    serve = http.endpoint(route(fine), resolve, Gate(Settings()))
    response = await serve(request())
    assert response.status_code == 500


@pytest.mark.parametrize("query", ["a=<b", "a=%3Cb", "a=%3cscript"])
async def test_markup_in_the_query_is_refused(query):
    response = await answer(fine, query=query)
    assert response.status_code == 400
    assert response.body == b"The query string included invalid characters."


async def test_every_answer_has_an_id_and_tells_the_versions():
    response = await answer(fine)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-ms-request-id"])
    assert response.headers["api-supported-versions"] == "1.0-prerelease, 1, 2"


async def test_head_gets_the_same_headers_without_the_body():
    response = await answer(fine, method="HEAD")
    assert response.body == b""
    assert response.headers["content-length"] == str(len("http://host:8080"))


FORWARDED = {"x-forwarded-host": "pacs.example, inner", "x-forwarded-proto": "https"}


@pytest.mark.parametrize(
    ("settings", "root"),
    [
        ({}, "http://host:8080"),
        ({"trust_forwarded": True}, "https://pacs.example"),
        ({"public_url": "https://a.b/c"}, "https://a.b/c"),
        ({"public_url": "https://a.b", "trust_forwarded": True}, "https://a.b"),
    ],
)
async def test_urls_start_as_the_settings_say(settings, root):
    response = await answer(fine, settings=settings, headers=FORWARDED)
    assert response.body.decode() == root


@pytest.mark.parametrize(
    ("host", "address", "root"),
    [
        ("localhost", ("127.0.0.1", 8080), "http://localhost:8080"),
        ("[::1]", ("::1", 8080), "http://[::1]:8080"),
        ("localhost:9000", ("127.0.0.1", 8080), "http://localhost:9000"),
        ("localhost", ("127.0.0.1", 80), "http://localhost"),
        ("localhost", ("172.17.0.2", 8080), "http://localhost"),
        ("pacs.example", ("127.0.0.1", 8080), "http://pacs.example"),
    ],
)
async def test_a_port_left_out_on_this_machine_is_added(host, address, root):
    response = await answer(fine, headers={"host": host}, address=address)
    assert response.body.decode() == root


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((), "https://a", None),
        (("https://a",), "https://a", "https://a"),
        (("https://a",), "https://b", None),
        (("*",), "https://b", "*"),
        (("https://a",), None, None),
    ],
)
async def test_only_pages_of_allowed_origins_may_read(origins, origin, allowed):
    headers = {"origin": origin} if origin else {}
    response = await answer(fine, settings={"cors_origins": origins}, headers=headers)
    assert response.headers.get("access-control-allow-origin") == allowed
    exposed = response.headers.get("access-control-expose-headers", "")
    assert ("ETag" in exposed) is (allowed is not None)
    assert (response.headers.get("vary") == "Origin") is bool(origins)


async def test_preflights_allow_what_is_asked_for(server):
    asked = {
        "Origin": "https://a",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    response = await server.options("/v2/studies", headers=asked)
    assert response.status_code == 204
    assert (
        response.headers["access-control-allow-headers"]
        == asked["Access-Control-Request-Headers"]
    )
    assert "DELETE" in response.headers["access-control-allow-methods"]
    plain = await server.options("/v2/studies")
    assert plain.status_code == 204
    assert "access-control-allow-methods" not in plain.headers


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v2/studies", "GET, HEAD, POST"),
        ("POST", "/V1/changefeed/", "GET, HEAD"),
        ("PATCH", "/v2/studies/1.2", "DELETE, GET, HEAD, POST"),
        ("DELETE", "/health/check", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    server: httpx.AsyncClient, method, path, allow
):
    response = await server.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/v9/studies", "/v2/nonsense", "/nonsense"])
async def test_an_unknown_path_is_404(server, path):
    response = await server.get(path)
    assert response.status_code == 404
