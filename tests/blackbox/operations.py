"""Waits for operations, for tests of whatever starts one."""

import time
from typing import Any

import httpx
from blackbox.api import Api

PATIENCE_SECONDS = 120


def ended(api: Api, accepted: httpx.Response) -> dict[str, Any]:
    """The operation that an answer names, once it has ended."""
    assert accepted.status_code == 202, accepted.text
    return ended_at(api, accepted.json()["href"])


def ended_at(
    api: Api, href: str, *, seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """The operation at this URL, once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        answer = api.get(href)
        assert answer.status_code in {200, 202}, answer.text
        operation: dict[str, Any] = answer.json()
        if answer.status_code == 200:
            return operation
        assert answer.headers["location"] == href
        assert time.monotonic() < deadline, f"still {operation}"
        time.sleep(0.05)
