"""Bearer tokens: signature, issuer, audience and lifetime.

PyJWT does the cryptography. Algorithms are pinned: neither `none` nor a shared secret
is ever accepted. A verified token is remembered under its hash, for ten minutes at
most, so that a key that was withdrawn soon counts no more.

Source: RFC 7519; RFC 8725; RFC 9068.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from dicomweb.errors import Unauthenticated
from stores.ports import TokenKeys

ALGORITHMS = ("RS256", "ES256")
SKEW_SECONDS = 60.0
REMEMBERED_SECONDS = 600.0
REMEMBERED_TOKENS = 10_000
MAX_TOKEN_CHARACTERS = 16_384

_GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_APPLICATION = re.compile(rf"(?:api://)?({_GUID})", re.IGNORECASE)
_ENTRA_NAME = re.compile(
    rf"https://(?:sts\.windows\.net|login\.microsoftonline\.(?:com|us)"
    rf"|login\.partner\.microsoftonline\.cn|sts\.chinacloudapi\.cn)/({_GUID})"
    r"(?:/v2\.0)?/?",
    re.IGNORECASE,
)

Claims = Mapping[str, Any]


class Tokens:
    """Verifies the tokens of one issuer for some audiences."""

    def __init__(
        self,
        keys: TokenKeys,
        audiences: Iterable[str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A verifier that remembers nothing yet.

        Args:
            keys: Of the issuer.
            audiences: Accepted values of `aud`.
            clock: Seconds since 1970.
        """
        self._keys = keys
        self._audiences = accepted_audiences(audiences)
        self._clock = clock
        self._verified: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()

    async def verify(self, token: str) -> Claims:
        """The claims of a token that is valid now.

        Raises:
            Unauthenticated: It is not.
            StoreUnavailable: Its issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthenticated("The token is not valid.")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        known = self._verified.get(digest)
        now = self._clock()
        if known is not None and now < known[0]:
            return known[1]
        self._verified.pop(digest, None)
        claims = await self._verified_claims(token)
        until = min(now + REMEMBERED_SECONDS, float(claims["exp"]) + SKEW_SECONDS)
        self._verified[digest] = (until, claims)
        if len(self._verified) > REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return claims

    async def _verified_claims(self, token: str) -> Claims:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            jwk = await self._keys.key(kid)
            if jwk is None:
                raise jwt.InvalidKeyError
            return jwt.decode(
                token,
                jwt.PyJWK(dict(jwk), algorithm),
                algorithms=[algorithm],
                audience=self._audiences,
                issuer=issuer_names(await self._keys.issuer()),
                leeway=SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What to tell the caller: which check failed, nothing of the token."""
    import jwt

    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.InvalidAudienceError():
            return "The token is for another audience."
        case jwt.InvalidIssuerError():
            return "The token is of another issuer."
    return "The token is not valid."


def accepted_audiences(audiences: Iterable[str]) -> frozenset[str]:
    """The audiences with both spellings of an application's id.

    Entra ID writes `api://{id}` into tokens of version 1 and `{id}` into those of
    version 2; both name the same application.
    """
    accepted = set()
    for audience in audiences:
        accepted.add(audience)
        application = _APPLICATION.fullmatch(audience)
        if application:
            accepted |= {application[1], f"api://{application[1]}"}
    return frozenset(accepted)


def issuer_names(published: str) -> list[str]:
    """Values of `iss` that mean this issuer.

    A tenant of Entra ID has one name in tokens of version 1 and another in those of
    version 2; which one an application gets is its own setting. Both are signed with
    the same keys.
    """
    tenant = _ENTRA_NAME.fullmatch(published)
    if tenant is None:
        return [published]
    host = urlsplit(published).hostname or ""
    is_china = host.endswith(".cn")
    first = "sts.chinacloudapi.cn" if is_china else "sts.windows.net"
    second = (
        "login.partner.microsoftonline.cn"
        if is_china
        else "login.microsoftonline.us"
        if host.endswith(".us")
        else "login.microsoftonline.com"
    )
    return [
        published,
        f"https://{first}/{tenant[1]}/",
        f"https://{second}/{tenant[1]}/v2.0",
    ]
