"""An issuer of tokens: keys, their publication, and tokens good and bad.

`Issuer().application` is an ASGI application with the two documents that a verifier
reads; `token(**claims)` signs. Changed keys are published at once.
"""

import base64
import json
import time
from collections.abc import Callable
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
        host = dict(scope["headers"])[b"host"].decode()
        documents = {
            "/.well-known/openid-configuration": {
                "issuer": self.name,
                "jwks_uri": f"{scope['scheme']}://{host}/keys",
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
        self,
        *,
        kid: str | None = None,
        key: Any = None,
        alg: str = "",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token that is valid for an hour unless the claims say otherwise."""
        kid = kid or next(iter(self.private))
        key = key or self.private[kid]
        alg = alg or (
            "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        )
        fields = {"kid": kid, **(header or {})}
        return jwt.encode(self.claims(**claims), key, alg, fields)

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


NOW = time.time()
HOUR = 3600
BAD_TOKENS: dict[str, Callable[[Issuer], str]] = {
    "wrong issuer": lambda i: i.token(iss="https://other.example"),
    "wrong audience": lambda i: i.token(aud="other"),
    "no audience": lambda i: i.token(aud=None),
    "no issuer": lambda i: i.token(iss=None),
    "no end": lambda i: i.token(exp=None),
    "expired": lambda i: i.token(exp=NOW - HOUR),
    "not yet valid": lambda i: i.token(nbf=NOW + HOUR, exp=NOW + 2 * HOUR),
    "none": lambda i: unsigned({"alg": "none", "kid": the_kid(i)}, i.claims()),
    "None": lambda i: unsigned({"alg": "None", "kid": the_kid(i)}, i.claims(), "x"),
    "no algorithm": lambda i: unsigned({"kid": the_kid(i)}, i.claims(), "x"),
    "shared secret": lambda i: hmac_with_public_key(i),
    "RS512": lambda i: i.token(alg="RS512"),
    "unknown kid": lambda i: i.token(kid="other", key=new_key()),
    "foreign key": lambda i: i.token(key=new_key()),
    "EC key under RSA kid": lambda i: i.token(key=new_key("ES256")),
    "own key in the header": lambda i: with_own_key(i),
    "unknown critical extension": lambda i: i.token(header={"crit": ["x"], "x": 1}),
    "tampered payload": lambda i: tampered(i),
    "cut": lambda i: i.token()[:-5],
    "no token": lambda i: "nonsense",
    "empty parts": lambda i: "..",
    "too long": lambda i: "a" * 20_000,
}
"""Tokens that nobody may take, by what is wrong with them."""


def the_kid(issuer: Issuer) -> str:
    return next(iter(issuer.private))


def tampered(issuer: Issuer) -> str:
    """A good token whose payload was exchanged."""
    header, _, signature = issuer.token().split(".")
    changed = unsigned({}, issuer.claims(roles=["globalAdmin"])).split(".")[1]
    return f"{header}.{changed}.{signature}"


def with_own_key(issuer: Issuer) -> str:
    """Signed with a key that the token itself brings along."""
    key = new_key()
    header = {"kid": the_kid(issuer), "jwk": public_jwk(key, the_kid(issuer))}
    return jwt.encode(issuer.claims(), key, "RS256", header)
