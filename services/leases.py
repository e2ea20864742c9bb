"""Leases: one host at a time does a job that several hosts are told to do.

A lease only saves double work: what it guards must be harmless when done twice, since
a host that pauses longer than its lease does not know that it lost it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from services.runtime import Runtime
from stores import containers
from stores.ports import Committed, Create, Delete, Operation, Replace

PARTITION_KEY = "leases"


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


async def _take(runtime: Runtime, name: str, duration: timedelta) -> str | None:
    """Etag of the lease, None where another host has it."""
    held = await runtime.documents.read(containers.SYSTEM, PARTITION_KEY, name)
    now = runtime.now()
    if held is not None and datetime.fromisoformat(held["until"]) > now:
        return None
    document = {
        "id": name,
        "k": "lease",
        "holder": runtime.new_id(),
        "until": (now + duration).isoformat(),
    }
    operation: Operation = (
        Create(document) if held is None else Replace(document, if_etag=held["_etag"])
    )
    result = await runtime.documents.batch(
        containers.SYSTEM, PARTITION_KEY, [operation]
    )
    return result.etags[0] if isinstance(result, Committed) else None
