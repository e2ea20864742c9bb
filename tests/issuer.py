"""An issuer of tokens: keys, their publication, and tokens good and bad.

`Issuer().application` is an ASGI application with the two documents that a verifier
reads; `token(**claims)` signs. Changed keys are published at once.
"""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TENANT = "11111111-2222-3333-4444-555555555555"
APPLICATION = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
URL = "https://issuer.example"


class Issuer:
    """One issuer; `asked` counts how often its keys were read."""

    def __init__(self, name: str = URL) -> None:
        self.name = name
        self.asked = 0
        self.broken = False
        self.extra: dict[str, Any] = {}
        self.private: dict[str, Any] = {}
        self.rotate("first")

    def rotate(self, kid: str, *, algorithm: str = "RS256") -> None:
        """Replaces all keys by a new one."""
        self.private = {kid: new_key(algorithm)}

    def published(self) -> dict[str, Any]:
        return {"keys": [public_jwk(key, kid) for kid, key in self.private.items()]}

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        documents = {
            "/.well-known/openid-configuration": {
                "issuer": self.name,
                "jwks_uri": f"{scope['scheme']}://issuer.example/keys",
                **self.extra,
            },
            "/keys": self.published(),
        }
        self.asked += scope["path"] == "/keys"
        found = None if self.broken else documents.get(scope["path"])
        status, body = (
            (503, b"") if found is None else (200, json.dumps(found).encode())
        )
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def token(
        self, *, kid: str | None = None, key: Any = None, alg: str = "", **claims: Any
    ) -> str:
        """A token that is valid for an hour unless the claims say otherwise."""
        kid = kid or next(iter(self.private))
        key = key or self.private[kid]
        alg = alg or (
            "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        )
        return jwt.encode(self.claims(**claims), key, alg, {"kid": kid})

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = time.time()
        filled = {
            "iss": self.name,
            "aud": APPLICATION,
            "tid": TENANT,
            "oid": "caller",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "roles": ["globalReader"],
            **claims,
        }
        return {name: value for name, value in filled.items() if value is not None}


def new_key(algorithm: str = "RS256") -> Any:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def public_jwk(key: Any, kid: str) -> dict[str, Any]:
    is_elliptic = isinstance(key, ec.EllipticCurvePrivateKey)
    codec = jwt.algorithms.ECAlgorithm if is_elliptic else jwt.algorithms.RSAAlgorithm
    return {**json.loads(codec.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


def unsigned(
    header: dict[str, Any], claims: dict[str, Any], signature: str = ""
) -> str:
    """A token put together by hand."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims)
    ]
    return ".".join([*parts, signature])


def hmac_with_public_key(issuer: Issuer) -> str:
    """The classic confusion: the public key taken for a shared secret."""
    import hashlib
    import hmac

    [(kid, key)] = issuer.private.items()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = unsigned({"alg": "HS256", "typ": "JWT", "kid": kid}, issuer.claims())
    signed = text.rpartition(".")[0]
    digest = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
