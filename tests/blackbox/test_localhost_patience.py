"""Clients that stop in the middle of something do not keep their connection."""

import asyncio
import socket

import pytest

from localhost.server import HttpServer, Serving


async def application(scope, receive, send):
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    size = 50_000_000 if scope["path"] == "/large" else 2
    length = str(size).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", length)],
        }
    )
    await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture
async def port():
    listener = socket.create_server(("127.0.0.1", 0))
    started = asyncio.Event()
    serving = Serving(head_seconds=1.5, body_seconds=1.5, reader_seconds=1.5)
    server = HttpServer(application, listener, serving, started.set)
    running = asyncio.create_task(server.run_until_stopped())
    await started.wait()
    yield listener.getsockname()[1]
    server.stop()
    await running


async def exchange(port, *pieces, pause=0.0):
    """Everything the server sends until it closes, after these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_connection_without_a_request_is_closed(port):
    assert await exchange(port) == b""


async def test_a_head_that_never_ends_is_closed(port):
    head = b"GET / HTTP/1.1\r\nHost: x\r\n"
    assert await exchange(port, head, b"X-A: b\r\n", b"X-B: c\r\n", pause=0.9) == b""


async def test_a_body_that_pauses_for_too_long_is_closed(port):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    assert await exchange(port, head, b"abc") == b""


async def test_a_slow_but_steady_body_is_answered(port):
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8\r\n\r\n"
    )
    answer = await exchange(port, head, *[b"x"] * 8, pause=0.25)
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_a_second_head_that_never_ends_is_closed(port):
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await exchange(port, whole, b"GET / HT", pause=0.2)
    assert answer.count(b"HTTP/1.1 200 OK") == 1


async def test_a_client_that_reads_nothing_is_cut_off(port):
    for seconds in (4, 8, 16):  # a busy server comes to it later
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(seconds)
        try:
            await reader.readexactly(50_000_000)
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
    pytest.fail("it was never cut off")
