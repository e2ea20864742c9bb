"""Sockets to 127.0.0.1 only; the client library's one HTTP session is per test here."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/durable/" in str(item.path):
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            # An answer before its wait is normal to the client library, yet it warns.
            item.add_marker(
                pytest.mark.filterwarnings("ignore:Potential duplicate:UserWarning")
            )


@pytest.fixture(autouse=True)
def fresh_client_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of azure-functions-durable lives in the loop that first used it."""
    from azure.durable_functions.models.utils import http_utils

    monkeypatch.setattr(http_utils, "_client_session", None)
