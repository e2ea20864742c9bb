"""The identity endpoint of App Service, and tokens that the emulators can check.

Docs: learn.microsoft.com/azure/app-service/overview-managed-identity (REST endpoint):
`GET {IDENTITY_ENDPOINT}?api-version=2019-08-01&resource=…&client_id=…` with the header
X-IDENTITY-HEADER; a user-assigned identity that is not there is 400. Tokens have the
claims that count (`iss`, `aud`, `nbf`, `exp`, `iat`) and no true signature.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ISSUER = "https://sts.windows.net/00000000-0000-0000-0000-000000000001/"
API_VERSION = "2019-08-01"
HOUR_SECONDS = 3600


@dataclass
class IdentityEndpoint:
    """A running endpoint.

    Attributes:
        client_id: Of the user-assigned identity; None for the system's own.
        lifetime_seconds: Of the tokens.
        asked: Query of each request, in order.
        fails: Statuses of the next answers.
    """

    client_id: str | None = None
    lifetime_seconds: float = HOUR_SECONDS
    asked: list[dict[str, str]] = field(default_factory=list)
    fails: list[int] = field(default_factory=list)
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    url: str = ""

    def environment(self) -> dict[str, str]:
        """What App Service gives an app that has the identity."""
        given = {"IDENTITY_ENDPOINT": self.url, "IDENTITY_HEADER": self.secret}
        return given | ({"AZURE_CLIENT_ID": self.client_id} if self.client_id else {})

    def resources(self) -> set[str]:
        """What tokens were asked for."""
        return {query["resource"] for query in self.asked}

    def answer(self, query: dict[str, str], header: str) -> tuple[int, dict[str, Any]]:
        """Status and body of a request."""
        self.asked.append(query)
        if self.fails:
            return self.fails.pop(0), {"statusCode": 500, "message": "Not now."}
        if header != self.secret or query.get("api-version") != API_VERSION:
            return 401, {"statusCode": 401, "message": "Who are you?"}
        if query.get("client_id") != self.client_id:
            return 400, {"statusCode": 400, "message": "No User Assigned Identity."}
        resource, expires = query["resource"], time.time() + self.lifetime_seconds
        return 200, {
            "access_token": token(resource, expires=expires),
            "client_id": query.get("client_id", "system"),
            "expires_on": str(int(expires)),
            "resource": resource,
            "token_type": "Bearer",
        }


def token(audience: str, *, expires: float, issuer: str = ISSUER) -> str:
    """A token; its signature is none."""
    now = time.time()
    claims = {
        "aud": audience,
        "iss": issuer,
        "iat": now - 5,
        "nbf": now - 5,
        "exp": expires,
        "oid": "00000000-0000-0000-0000-000000000002",
    }
    parts = ({"alg": "RS256", "typ": "JWT", "kid": "none"}, claims)
    return ".".join([*(_encoded(json.dumps(p).encode()) for p in parts), "c2ln"])


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, unchecked.

    Raises:
        ValueError: It is none.
    """
    _, text, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("no object")
    return claims


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def identity_endpoint(
    client_id: str | None = None, lifetime_seconds: float = HOUR_SECONDS
) -> Iterator[IdentityEndpoint]:
    """An endpoint on loopback."""
    endpoint = IdentityEndpoint(client_id, lifetime_seconds)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = dict(parse_qsl(urlsplit(self.path).query))
            header = self.headers.get("X-IDENTITY-HEADER", "")
            status, value = endpoint.answer(query, header)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/msi/token"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
