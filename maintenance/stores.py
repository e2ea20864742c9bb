"""The services on the stores that the settings name, for as long as a command runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from services import startup
from services.runtime import Runtime
from services.settings import Settings
from stores import connect
from stores.errors import StoreFormatError
from stores.staging import is_in_use


class CannotDo(Exception):
    """The command cannot do what it is asked for; the message says why."""


def say(text: str) -> None:
    """Writes a line to standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    """The services; other processes may use the same stores.

    Raises:
        CannotDo: The stores are not ours or of a newer format.
    """
    try:
        stores = await asyncio.to_thread(connect.connect, settings)
    except StoreFormatError as error:
        raise CannotDo(str(error)) from error
    runtime = startup.build(
        settings,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: uuid4().hex,
    )
    try:
        yield runtime
    finally:
        await runtime.publisher.close()
        await stores.close()


def check_archive(settings: Settings) -> None:
    """Refuses a data folder without an archive, which opening would make.

    Raises:
        CannotDo: There is none.
    """
    if settings.store == "embedded" and not _blobs(settings).is_dir():
        raise CannotDo(f"There is no archive in {settings.data}")


def check_idle(settings: Settings) -> None:
    """Refuses a data folder that a server has open; of Azure's stores nobody can say.

    Raises:
        CannotDo: It is in use.
    """
    if settings.store == "embedded" and is_in_use(_blobs(settings)):
        raise CannotDo(f"A server uses {settings.data}: stop it first")


def _blobs(settings: Settings) -> Path:
    return settings.data / connect.BLOB_FOLDER
