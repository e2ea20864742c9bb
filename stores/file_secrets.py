"""Secrets of operations in one file that only its owner can read: `Secrets`, embedded.

The file is replaced as a whole, under a lock that all processes of the store share; it
is removed with its last secret.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

from stores.errors import disk_unavailable

FILE_NAME: Final = "secrets.json"
_MODE: Final = 0o600


class FileSecrets:
    """Secrets by operation in `secrets.json` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME

    async def put(self, operation_id: str, secret: str) -> None:
        """Keeps the secret until it is deleted."""
        await self._change(lambda secrets: secrets | {operation_id: secret})

    async def get(self, operation_id: str) -> str | None:
        """The secret, or None."""
        return (await asyncio.to_thread(self._read)).get(operation_id)

    async def delete(self, operation_id: str) -> None:
        """Forgets it; harmless when there is none."""
        await self._change(
            lambda secrets: {k: v for k, v in secrets.items() if k != operation_id}
        )

    async def operations(self) -> list[str]:
        """Ids of the operations that have a secret."""
        return sorted(await asyncio.to_thread(self._read))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replaces the file with what `change` makes of it.

        Raises:
            StoreUnavailable: The disk is full or failed.
        """

        def apply() -> None:
            with _locked(self._path.with_suffix(".lock")):
                before = self._read()
                after = change(before)
                if after != before:
                    self._write(after)

        try:
            await asyncio.to_thread(apply)
        except OSError as error:
            raise disk_unavailable(error) from error

    def _read(self) -> dict[str, str]:
        try:
            secrets: dict[str, str] = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        return secrets

    def _write(self, secrets: dict[str, str]) -> None:
        if not secrets:
            self._path.unlink(missing_ok=True)
            return
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(secrets))
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
