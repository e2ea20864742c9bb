"""Leases: one host at a time does a job that several hosts are told to do.

A lease only saves double work: what it guards must be harmless when done twice, since
a host that pauses longer than its lease does not know that it lost it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomweb.errors import StoreUnavailable
from services.runtime import Runtime
from stores import containers
from stores.ports import Committed, Create, Delete, Document, Operation, Replace

logger = logging.getLogger(__name__)

PARTITION_KEY = "leases"
WAIT_SECONDS = 0.5


@asynccontextmanager
async def lease(
    runtime: Runtime, name: str, duration: timedelta
) -> AsyncIterator[bool]:
    """Whether the lease is ours until the end of the block, or for `duration`."""
    etag = await _take(runtime, name, duration)
    try:
        yield etag is not None
    finally:
        if etag is not None:
            await runtime.documents.batch(
                containers.SYSTEM, PARTITION_KEY, [Delete(name, if_etag=etag)]
            )


@asynccontextmanager
async def held(runtime: Runtime, name: str, duration: timedelta) -> AsyncIterator[None]:
    """Waits for the lease and keeps it until the end of the block, however long."""
    etag = await _take(runtime, name, duration)
    while etag is None:
        await asyncio.sleep(WAIT_SECONDS)
        etag = await _take(runtime, name, duration)
    holder = _Holder(runtime, name, duration, etag)
    task = asyncio.create_task(holder.renew())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runtime.documents.batch(
            containers.SYSTEM, PARTITION_KEY, [Delete(name, if_etag=holder.etag)]
        )


@dataclass
class _Holder:
    runtime: Runtime
    name: str
    duration: timedelta
    etag: str

    async def renew(self) -> None:
        """Puts off the end of the lease again and again."""
        while True:
            await asyncio.sleep(self.duration.total_seconds() / 3)
            document = _document(self.runtime, self.name, self.duration)
            operation = Replace(document, if_etag=self.etag)
            try:
                result = await self.runtime.documents.batch(
                    containers.SYSTEM, PARTITION_KEY, [operation]
                )
            except StoreUnavailable as error:
                logger.warning(
                    "the lease %s could not be renewed: %s", self.name, error
                )
                continue
            if not isinstance(result, Committed) or result.etags[0] is None:
                logger.warning("the lease %s was lost", self.name)
                return
            self.etag = result.etags[0]


async def _take(runtime: Runtime, name: str, duration: timedelta) -> str | None:
    """Etag of the lease, None where another host has it."""
    held = await runtime.documents.read(containers.SYSTEM, PARTITION_KEY, name)
    now = runtime.now()
    if held is not None and datetime.fromisoformat(held["until"]) > now:
        return None
    document = _document(runtime, name, duration)
    operation: Operation = (
        Create(document) if held is None else Replace(document, if_etag=held["_etag"])
    )
    result = await runtime.documents.batch(
        containers.SYSTEM, PARTITION_KEY, [operation]
    )
    return result.etags[0] if isinstance(result, Committed) else None


def _document(runtime: Runtime, name: str, duration: timedelta) -> Document:
    return {
        "id": name,
        "k": "lease",
        "holder": runtime.new_id(),
        "until": (runtime.now() + duration).isoformat(),
    }
