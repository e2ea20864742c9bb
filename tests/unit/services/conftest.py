"""A runtime on real embedded stores in a folder of the test."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services import startup
from services.runtime import Runtime
from services.settings import Settings
from stores import connect


def open_runtime(folder: Path, **settings: object) -> Runtime:
    chosen = Settings(data=folder, durability="process-crash", **settings)
    stores = connect.connect(chosen)
    return startup.build(
        chosen,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: secrets.token_hex(16),
    )


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    opened = open_runtime(tmp_path)
    yield opened
    await opened.close()
