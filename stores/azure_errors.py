"""What the Azure SDKs raise, as the one error that services know.

`trouble` says of an exception whether it passes and whether the request may have been
carried out all the same. Both Azure adapters repeat by it and nothing else does: the
SDKs' own repetition is switched off, because azure-cosmos 4.17.1 sends a write again
after a lost connection although it may have been committed.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from dicomweb.errors import StoreUnavailable

PATIENCE_SECONDS: Final = 10.0
"""How long an adapter repeats before it gives up."""

RETRY_WITH: Final = 449
READ_SESSION_NOT_AVAILABLE: Final = 1002
_NOT_APPLIED: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, RETRY_WITH, HTTPStatus.GONE}
)
_LONGEST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault that passes.

    Attributes:
        maybe_applied: The request may have been carried out.
        after_seconds: How long the service asks to wait, 0 when it does not say.
        reason: Short, for messages and logs.
    """

    maybe_applied: bool
    after_seconds: float
    reason: str


def trouble(error: BaseException) -> Trouble | None:
    """The passing fault, or None for an error that stays."""
    from azure.core.exceptions import (
        AzureError,
        IncompleteReadError,
        ServiceRequestError,
        ServiceResponseError,
    )

    status = getattr(error, "status_code", None)
    if status is not None:
        return _of_status(int(status), error)
    if isinstance(error, ServiceRequestError):
        return Trouble(
            not _never_connected(error), 0.0, "the connection could not be kept"
        )
    if isinstance(error, ServiceResponseError | IncompleteReadError | TimeoutError):
        return Trouble(True, 0.0, "the answer was lost")
    if isinstance(error, AzureError) and "Timeout" in type(error).__name__:
        return Trouble(True, 0.0, "no answer in time")
    return None


def _of_status(status: int, error: BaseException) -> Trouble | None:
    headers = _headers(error)
    wait = float(headers.get("x-ms-retry-after-ms") or 0) / 1000
    if status in _NOT_APPLIED:
        return Trouble(False, wait, f"status {status}")
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= 500:
        return Trouble(True, wait, f"status {status}")
    substatus = str(headers.get("x-ms-substatus") or "")
    if status == 404 and substatus == str(READ_SESSION_NOT_AVAILABLE):
        return Trouble(False, wait, "the session is not up to date")
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    headers = getattr(error, "headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    return headers or {}


def _never_connected(error: BaseException) -> bool:
    """Whether no byte can have reached the service.

    azure-core 1.41 reports a connection that broke while the answer was awaited as a
    ServiceRequestError too; only the transport's own error tells them apart.
    """
    from aiohttp import ClientConnectorError

    return isinstance(getattr(error, "inner_exception", None), ClientConnectorError)


def unavailable(
    service: str, reason: str, *, outcome_unknown: bool = False
) -> StoreUnavailable:
    """The StoreUnavailable for a service that did not answer as it should."""
    return StoreUnavailable(
        f"The {service} is not available now ({reason})",
        retry_after_seconds=2,
        outcome_unknown=outcome_unknown,
    )


def denied(service: str, error: Exception) -> StoreUnavailable | None:
    """The StoreUnavailable for a refused access, else None.

    A missing role, an old key, or an identity that gets no token (azure-identity says
    so without a status) is no fault of the client's request.
    """
    from azure.core.exceptions import ClientAuthenticationError

    status = getattr(error, "status_code", None)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return unavailable(service, f"access was refused, status {status}")
    if isinstance(error, ClientAuthenticationError):
        return unavailable(service, "the server's identity got no token")
    return None


@dataclass(slots=True)
class Patience:
    """Pauses between attempts, growing and random, until the time is over."""

    seconds: float = PATIENCE_SECONDS
    _attempt: int = 0
    _started: float = field(default_factory=time.monotonic)

    async def pause(self, after_seconds: float) -> bool:
        """Waits before the next attempt; False, at once, when there is none."""
        self._attempt += 1
        longest = min(_LONGEST_PAUSE_SECONDS, 0.01 * 2**self._attempt)
        wait = after_seconds + random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        if time.monotonic() - self._started + wait > self.seconds:
            return False
        await asyncio.sleep(wait)
        return True
