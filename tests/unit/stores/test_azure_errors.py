"""What passes, what may have been applied, and how long to wait."""

import time
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ServerDisconnectedError
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.cosmos.exceptions import CosmosClientTimeoutError

from dicomweb.errors import StoreUnavailable
from stores.azure_errors import Patience, denied, trouble, unavailable


def answered(status: int, **headers: str) -> HttpResponseError:
    error = HttpResponseError("refused")
    error.status_code = status
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error.response = SimpleNamespace(headers=named)  # type: ignore[assignment]
    return error


def broken(inner: Exception) -> ServiceRequestError:
    return ServiceRequestError("broken", error=inner)


REFUSED = ClientConnectorError(
    SimpleNamespace(ssl=None, host="h", port=1),  # type: ignore[arg-type]
    OSError("refused"),
)


@pytest.mark.parametrize(
    ("error", "maybe_applied"),
    [
        (answered(429), False),
        (answered(449), False),
        (answered(410), False),
        (answered(404, x_ms_substatus="1002"), False),
        (broken(REFUSED), False),
        (broken(ServerDisconnectedError()), True),
        (answered(408), True),
        (answered(500), True),
        (answered(503), True),
        (ServiceResponseError("lost"), True),
        (IncompleteReadError("half"), True),
        (CosmosClientTimeoutError(), True),
        (TimeoutError(), True),
    ],
    ids=repr,
)
def test_a_fault_that_passes(error: Exception, maybe_applied: bool) -> None:
    found = trouble(error)
    assert found is not None
    assert found.maybe_applied is maybe_applied


@pytest.mark.parametrize(
    "error",
    [
        answered(400), answered(401), answered(403), answered(404), answered(409),
        answered(412), answered(413), AzureError("other"), ValueError("ours"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_error_that_stays(error: Exception) -> None:
    assert trouble(error) is None


def test_the_service_says_how_long_to_wait() -> None:
    found = trouble(answered(429, x_ms_retry_after_ms="250"))
    assert found is not None
    assert found.after_seconds == 0.25


@pytest.mark.parametrize(
    ("status", "is_denied"), [(401, True), (403, True), (400, False)]
)
def test_a_refused_access_is_a_store_that_is_not_available(
    status: int, is_denied: bool
) -> None:
    found = denied("index", answered(status))
    assert isinstance(found, StoreUnavailable) is is_denied


def test_the_message_names_the_service_and_the_reason() -> None:
    error = unavailable("index", "status 429", outcome_unknown=True)
    assert str(error) == "The index is not available now (status 429)"
    assert error.outcome_unknown
    assert error.status is HTTPStatus.SERVICE_UNAVAILABLE


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    clock = [1000.0]
    monkeypatch.setattr("stores.azure_errors.asyncio.sleep", sleep)
    monkeypatch.setattr("stores.azure_errors.time.monotonic", lambda: clock[0])
    patience: Any = Patience(10.0, _started=clock[0])
    while await patience.pause(0.0):
        pass
    assert sum(waits) <= 10.0
    assert waits[0] <= 0.02
    assert 0.5 <= waits[-1] <= 1.0
    assert len(waits) > 10
    clock[0] = 1010.0  # a shorter pause might just have fitted
    assert not await patience.pause(0.0)
    assert await Patience(10.0, _started=time.monotonic()).pause(2.0)
    assert waits[-1] >= 2.0


def test_an_identity_without_a_token_makes_the_store_unavailable() -> None:
    found = denied("index", ClientAuthenticationError("no identity here"))
    assert isinstance(found, StoreUnavailable)
    assert "got no token" in str(found)
    assert "no identity here" not in str(found)
