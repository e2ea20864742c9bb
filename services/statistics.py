"""How much there is and how far the background work has come.

No archive is scanned for it, however large: studies, instances and bytes stand in the
head of the change feed, and what waits is counted up to a thousand. On Cosmos DB that
is two point reads and three queries on small indexes.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from services.cleanup import EXHAUSTED
from services.feed import Totals
from services.runtime import Runtime
from stores import containers
from stores.ports import Document, Equals, Order, Query, Range

COUNTED = 1000
"""Queues are counted up to so many."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that waits.

    Attributes:
        length: COUNTED when there may be more.
        due: How many of them should have been done by now.
        oldest: Since when the oldest is due, or will be; None when nothing waits.
    """

    length: int
    due: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The state of the archive.

    Attributes:
        totals: As far as the change feed has come.
        unpublished: Commits that are not known to be in the feed yet.
        cleanup: Commits whose deleted blobs are still there.
        given_up: Commits whose blobs could not be deleted, five days in a row.
    """

    totals: Totals
    unpublished: Queue
    cleanup: Queue
    given_up: int


async def read(runtime: Runtime) -> Statistics:
    """The statistics as they are now."""
    totals, unpublished, cleanup, given_up = await asyncio.gather(
        runtime.feed.totals(),
        _unpublished(runtime),
        _cleanup(runtime),
        _given_up(runtime),
    )
    return Statistics(totals, unpublished, cleanup, given_up)


async def _unpublished(runtime: Runtime) -> Queue:
    query = Query(Range(("pending",), low="0"), (Order(("pending",)),), ("pending",))
    page = await runtime.documents.query(containers.DICOM, query, limit=COUNTED)
    times = [_committed(row) for row in page.documents]
    return Queue(len(times), len(times), times[0] if times else None)


def _committed(event: Document) -> datetime:
    milliseconds = int(event["pending"].partition("|")[0])
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_IN_TURN = (Order(("after",)), Order(("id",)))


async def _cleanup(runtime: Runtime) -> Queue:
    query = Query(Range(("after",), low="0", high="9998"), _IN_TURN, ("after",))
    page = await runtime.documents.query(containers.CLEANUP, query, limit=COUNTED)
    times = [datetime.fromisoformat(row["after"]) for row in page.documents]
    now = runtime.now()
    due = sum(each <= now for each in times)
    return Queue(len(times), due, times[0] if times else None)


async def _given_up(runtime: Runtime) -> int:
    query = Query(Equals(("after",), EXHAUSTED), _IN_TURN, ("after",))
    page = await runtime.documents.query(containers.CLEANUP, query, limit=COUNTED)
    return len(page.documents)
