"""A request and the part of a runtime that the way to a handler needs."""

from types import SimpleNamespace
from typing import Any

from starlette.requests import Request

from services.metrics import Metrics
from services.settings import Settings


def request(
    method: str = "GET",
    query: str = "",
    headers: dict[str, str] | None = None,
    version: str = "v2",
    address: tuple[str, int] = ("10.0.0.1", 8080),
) -> Request:
    """A request without a body, as a host makes it."""
    fields = {"host": "host:8080", **(headers or {})}
    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": "http",
            "server": address,
            "path": "/test",
            "raw_path": b"/test",
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in fields.items()],
            "path_params": {"version": version},
        }
    )


def runtime_with(**settings: Any) -> Any:
    """Settings only: what the way to a handler reads before any store is used."""
    return SimpleNamespace(settings=Settings(**settings), metrics=Metrics())
