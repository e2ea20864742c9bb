"""Between processes: a door with a secret, and a proxy that knows it."""

import hmac
from typing import Any

from localhost.extension import Asgi, Message

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date"}
)


def behind_secret(secret: str, application: Asgi) -> Asgi:
    """The application below `/<secret>`, which is cut off; 404 for all else."""
    expected = f"/{secret}".encode()

    async def guarded(scope: Message, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        shown = path[: len(expected)].encode()
        if not hmac.compare_digest(shown, expected):
            await _answer(send, 404)
            return
        scope["path"] = path[len(expected) :]
        scope["raw_path"] = scope["raw_path"][len(expected) :]
        await application(scope, receive, send)

    return guarded


class Forward:
    """An ASGI application that hands requests to another server, bodies whole.

    Meant for the small JSON of webhooks; 502 when the other server is away.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session: Any = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Forward one request, and its answer back."""
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        target = self._base_url + scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in _HOP_BY_HOP
        ]
        url = URL(f"{target}?{query}" if query else target, encoded=True)
        try:
            async with self._session.request(
                scope["method"], url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError:
            await _answer(send, 502)
            return
        kept = [
            (name.lower(), value)
            for name, value in answer.raw_headers
            if name.lower() not in _HOP_BY_HOP
        ]
        await _answer(send, answer.status, content, kept)


async def _answer(
    send: Any,
    status: int,
    body: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*(headers or []), length],
        }
    )
    await send({"type": "http.response.body", "body": body})
