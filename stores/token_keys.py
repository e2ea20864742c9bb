"""Signing keys of an issuer of tokens, fetched over HTTPS and kept.

They are fetched again when an hour old, and at once when a token names a key that is
not known (the issuer has a new one). What strangers may cause in this way is bounded;
an issuer that does not answer is left alone for longer and longer, and what it said
before counts for a day.

Source: OpenID Connect Discovery 1.0 section 4; RFC 7517.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from dicomweb.errors import StoreUnavailable

logger = logging.getLogger(__name__)

DISCOVERY = "/.well-known/openid-configuration"
FRESH_SECONDS = 3600.0
STALE_SECONDS = 86_400.0
ASKS_AT_ONCE = 3
ASK_SECONDS = 30.0
"""So often a token with an unknown key may make us ask, after ASKS_AT_ONCE times."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 1_000_000
MIN_RSA_DIGITS = 342
"""Base64url digits of a modulus of 2048 bits."""


@dataclass(frozen=True, slots=True)
class _Published:
    """What the issuer said, and when."""

    issuer: str
    keys: tuple[Mapping[str, Any], ...]
    at: float


@dataclass(slots=True)
class _Allowance:
    """Tokens of a bucket: how often strangers may make us ask."""

    left: float = field(default=ASKS_AT_ONCE)
    at: float = 0.0

    def take(self, now: float) -> bool:
        gained = (now - self.at) / ASK_SECONDS
        self.left, self.at = min(ASKS_AT_ONCE, self.left + gained), now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class HttpTokenKeys:
    """The keys of one issuer; one fetch at a time."""

    def __init__(
        self,
        authority: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            authority: URL below which the issuer's configuration is published.
            transport: How to reach it; None for the network.
            clock: Seconds that only grow.
        """
        self._authority = authority.rstrip("/")
        self._transport = transport
        self._clock = clock
        self._published: _Published | None = None
        self._lock = asyncio.Lock()
        self._allowance = _Allowance(at=clock())
        self._wait = 0.0
        self._not_before = 0.0

    async def issuer(self) -> str:
        """Its name, as tokens state it in `iss`."""
        return (await self._current()).issuer

    async def key(self, kid: str | None) -> Mapping[str, Any] | None:
        """The public signing key of that id as a JSON Web Key; None where none is."""
        published = await self._current()
        found = _find(published, kid)
        if found is None and kid is not None:
            published = await self._asked_again(published)
            found = _find(published, kid)
        return found

    async def _current(self) -> _Published:
        """What is known, fetched again when it is no longer fresh."""
        known = self._published
        if known is not None and self._clock() - known.at < FRESH_SECONDS:
            return known
        async with self._lock:
            if self._published is not known:
                assert self._published is not None
                return self._published
            return await self._refreshed()

    async def _asked_again(self, seen: _Published) -> _Published:
        """What the issuer says now; what was seen when it may not be asked."""
        async with self._lock:
            if self._published is not None and self._published is not seen:
                return self._published
            if not self._allowance.take(self._clock()):
                return seen
            return await self._refreshed()

    async def _refreshed(self) -> _Published:
        """A new answer, or the last one while the issuer does not answer.

        Raises:
            StoreUnavailable: There is none, or it is more than a day old.
        """
        now = self._clock()
        if now >= self._not_before:
            try:
                self._published = await self._fetch(now)
                self._wait = 0.0
            except (httpx.HTTPError, ValueError) as error:
                logger.warning(
                    "%s: %s", self._authority, str(error) or type(error).__name__
                )
                self._wait = min(
                    LONGEST_WAIT_SECONDS, max(FIRST_WAIT_SECONDS, 2 * self._wait)
                )
                self._not_before = self._clock() + self._wait
        known = self._published
        if known is None or now - known.at > STALE_SECONDS:
            raise StoreUnavailable(
                "Tokens cannot be verified now: their issuer does not answer.",
                retry_after_seconds=max(1, round(self._not_before - now)),
            )
        return known

    async def _fetch(self, now: float) -> _Published:
        async with httpx.AsyncClient(
            transport=self._transport, timeout=TIMEOUT_SECONDS
        ) as client:
            configuration = await _json(client, self._authority + DISCOVERY)
            issuer, address = configuration.get("issuer"), configuration.get("jwks_uri")
            if not isinstance(issuer, str) or not isinstance(address, str):
                # ruff: noqa: TRY004 - what is wrong is an answer, not a type of ours
                raise ValueError("its configuration names no issuer or no keys")
            if self._authority.startswith("https:") and not address.startswith(
                "https:"
            ):
                raise ValueError("its keys are not published over https")
            published = await _json(client, address)
        keys = published.get("keys")
        if not isinstance(keys, list):
            raise ValueError("it publishes no list of keys")
        return _Published(issuer, tuple(filter(_is_usable, keys)), now)


def _find(published: _Published, kid: str | None) -> Mapping[str, Any] | None:
    if kid is None:
        return published.keys[0] if len(published.keys) == 1 else None
    return next((key for key in published.keys if key.get("kid") == kid), None)


def _is_usable(key: Any) -> bool:
    """Whether it is a key for RS256 or ES256 signatures, long enough.

    Source: RFC 7518 3.3, 3.4.
    """
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return False
    match key.get("kty"), key.get("alg"):
        case "RSA", None | "RS256":
            return len(str(key.get("n", ""))) >= MIN_RSA_DIGITS
        case "EC", None | "ES256":
            return key.get("crv") == "P-256"
    return False


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """The JSON object at the URL.

    Raises:
        HTTPError: It cannot be had.
        ValueError: It is none, or too large.
    """
    body = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"{url} is too large")
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError(f"{url} is no JSON object")
    return value
