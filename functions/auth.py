"""Who calls, and whether they may: tokens, roles, and each caller's share.

A `Gate` stands before every handler. Without security it only counts requests; with
it, no route but the health check and CORS preflight answers without a valid token.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from dicomweb.errors import Forbidden, TooManyRequests, Unauthenticated
from dicomweb.identifiers import DEFAULT_PARTITION, partition_key
from functions.call import Permission, Route
from functions.roles import EVERYWHERE, Roles
from services.settings import Settings
from services.tokens import Tokens

MAX_CALLERS = 10_000
_IDENTITIES = ("oid", "sub", "appid", "azp", "client_id")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        address: Of the client.
        key: The same for every request of one caller: tenant and object id, else the
            address.
        roles: As the token names them; none without security.
        claims: Of the token; empty without security.
    """

    address: str = ""
    key: str = ""
    roles: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)


class Shares:
    """So many requests a minute for each caller, in this process."""

    def __init__(
        self, per_minute: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Everybody starts with a whole minute's share.

        Args:
            per_minute: 0 for no limit.
            clock: Seconds that only grow.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Counts a request.

        Raises:
            TooManyRequests: The caller has used its share up.
        """
        if not self._per_minute:
            return
        now = self._clock()
        each_second = self._per_minute / 60
        left, at = self._left.get(caller, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * each_second)
        if left < 1:
            raise TooManyRequests(
                f"At most {self._per_minute} requests a minute are answered.",
                retry_after_seconds=max(1, round((1 - left) / each_second)),
            )
        self._left[caller] = (left - 1, now)
        self._left.move_to_end(caller)
        if len(self._left) > MAX_CALLERS:
            self._left.popitem(last=False)


class Gate:
    """Lets callers in, or says why not.

    Attributes:
        settings: Of this process.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Roles | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """A gate for these settings.

        Args:
            settings: `security` decides whether tokens are needed.
            roles: What roles may do; needed with security.
            tokens: Verifies tokens; needed with security.
        """
        self.settings = settings
        self._roles = roles
        self._tokens = tokens
        self._shares = Shares(settings.rate_limit)
        self._challenge = _challenge(settings)

    async def identify(self, route: Route, request: Request) -> Caller:
        """Who calls; on open routes nobody in particular.

        Raises:
            Unauthenticated: There is no valid token.
            TooManyRequests: There is none, and too many such came from the address.
            StoreUnavailable: The issuer of the tokens does not answer.
        """
        stranger = self.stranger(request)
        if route.anonymous or self._tokens is None:
            return stranger
        try:
            claims = await self._tokens.verify(_bearer(request))
        except Unauthenticated:
            self._shares.take(stranger.key)
            raise
        return Caller(stranger.address, _key(claims), self._role_names(claims), claims)

    def stranger(self, request: Request) -> Caller:
        """What is known of a caller without looking at its token."""
        address = self._address(request)
        return Caller(address, address)

    def count(self, caller: Caller, route: Route) -> None:
        """Takes a request off the caller's share.

        Raises:
            TooManyRequests: The caller has used its share up.
        """
        if not route.anonymous:
            self._shares.take(caller.key)

    def check(self, caller: Caller, route: Route, request: Request) -> None:
        """Whether the caller may use the route, in the partition of the path.

        Raises:
            Forbidden: No role of the caller allows it.
        """
        self.require(caller, route, request, route.permission)

    def require(
        self, caller: Caller, route: Route, request: Request, permission: Permission
    ) -> None:
        """Whether the caller may do this as well, in the partition of the path.

        Raises:
            Forbidden: No role of the caller allows it.
        """
        if self._roles is None or permission is Permission.NONE:
            return
        scope = EVERYWHERE
        if route.in_partitions:
            name = request.path_params.get("partition", DEFAULT_PARTITION)
            scope = partition_key(name)
        if not self._roles.allow(caller.roles, permission, scope):
            raise Forbidden("Authorization failed.")

    def challenge(self, request: Request) -> str:
        """Value of `WWW-Authenticate` for a refused request.

        Source: RFC 6750 3.
        """
        if "authorization" in request.headers:
            return f'{self._challenge}, error="invalid_token"'
        return self._challenge

    def _role_names(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Roles of the claim: a list, or names with blanks between them."""
        value = claims.get(self.settings.roles_claim)
        if isinstance(value, str):
            return tuple(value.split())
        if isinstance(value, list):
            return tuple(each for each in value if isinstance(each, str))
        return ()

    def _address(self, request: Request) -> str:
        """Address of the client; what a trusted proxy says about it comes first."""
        if self.settings.trust_forwarded:
            forwarded: str = request.headers.get("x-forwarded-for", "")
            if forwarded:
                return _without_port(forwarded.rpartition(",")[2].strip())
        return request.client.host if request.client else ""


def _without_port(address: str) -> str:
    """The address alone; Azure's front end adds the port of the connection."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, _, port = address.rpartition(":")
    return host if port.isdigit() and ":" not in host and host else address


def _challenge(settings: Settings) -> str:
    audience = settings.audiences[0] if settings.audiences else ""
    return (
        f'Bearer authorization_uri="{settings.authority}",'
        f' resource_id="{audience}", realm="{audience}"'
    )


def _bearer(request: Request) -> str:
    """The token of the request.

    Raises:
        Unauthenticated: There is none, or more than one.

    Source: RFC 6750 2.1.
    """
    values = request.headers.getlist("authorization")
    if not values:
        raise Unauthenticated("A bearer token is needed.")
    scheme, _, token = values[0].partition(" ")
    token = token.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise Unauthenticated("The Authorization header must be one bearer token.")
    return token


def _key(claims: Mapping[str, Any]) -> str:
    """What is the same in all tokens of a caller."""
    tenant = claims.get("tid", claims["iss"])
    for name in _IDENTITIES:
        if name in claims:
            return f"{tenant}|{claims[name]}"
    return str(tenant)
