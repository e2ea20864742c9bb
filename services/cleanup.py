"""Removes the blobs of deleted instances once their delay is over.

The list (container `cleanup`) is written by whoever publishes a delete, or replaces a
version; it holds only blobs that no index document names since a commit. A page that
cannot be emptied comes back a day later, five times; then it stays, marked exhausted.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomweb.errors import StoreUnavailable
from services import documents as doc
from services.publishing import CLEANUP_BUCKETS, cleanup_bucket
from services.runtime import Runtime
from stores import containers
from stores.ports import (
    Delete,
    Document,
    Operation,
    Order,
    Query,
    Range,
    Replace,
    Scalar,
    Upsert,
)

logger = logging.getLogger(__name__)

LEASE = "clean-up"
"""Whoever holds it keeps blobs from being removed."""
MAX_TRIES = 5
BACK_OFF = timedelta(days=1)
EXHAUSTED = "9999-12-31T00:00:00+00:00"
LONGEST = timedelta(minutes=4)
PAGES = 20
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What a run did.

    Attributes:
        oldest: When the page that waits longest became due; None where none waits.
        exhausted: Pages that are given up.
    """

    pages: int = 0
    blobs: int = 0
    failed: int = 0
    oldest: datetime | None = None
    exhausted: int = 0


async def clean_up(runtime: Runtime, *, pages: int = PAGES) -> CleanupReport:
    """Empties the pages that are due, `pages` of each bucket in turn.

    After some minutes it leaves the rest to the next run.
    """
    done = blobs = failed = 0
    until = runtime.now() + LONGEST
    waiting = list(range(CLEANUP_BUCKETS))
    while waiting and runtime.now() < until:
        bucket = str(waiting.pop(0))
        due = await _due(runtime, bucket, pages)
        for page in due:
            emptied = await _empty(runtime, page)
            await _settle(runtime, bucket, page, emptied=emptied)
            done += emptied
            failed += not emptied
            blobs += len(page["names"]) if emptied else 0
        if len(due) == pages:
            waiting.append(int(bucket))
    oldest, exhausted = await _waiting(runtime)
    return CleanupReport(done, blobs, failed, oldest, exhausted)


async def remove_later(
    runtime: Runtime, pk: str, key: str, names: list[str], delay: timedelta
) -> None:
    """Lists blobs of which no reader will be told any more.

    Args:
        runtime: The stores.
        pk: Logical partition of their study.
        key: Unique in the study.
        names: Of the blobs.
        delay: For the readers that were told of them.
    """
    page = {
        "id": f"{pk}|{key}",
        "study": pk,
        "after": (runtime.now() + delay).isoformat(),
        "tries": 0,
        "names": names,
    }
    await runtime.documents.batch(
        containers.CLEANUP, cleanup_bucket(pk), [Upsert(page)]
    )


async def _due(runtime: Runtime, bucket: str, limit: int) -> tuple[Document, ...]:
    query = Query(
        Range(("after",), high=runtime.now().isoformat()),
        (Order(("after",)), Order(("id",))),
    )
    page = await runtime.documents.query(
        containers.CLEANUP, query, partition_key=bucket, limit=limit
    )
    return page.documents


async def _empty(runtime: Runtime, page: Document) -> bool:
    """Whether every blob of the page is gone; a missing one is as good.

    The manifests go last: as long as a file is there, a rebuild of the index must be
    able to read that it was deleted.
    """
    gate = asyncio.Semaphore(PARALLEL)

    async def delete(name: str) -> None:
        async with gate:
            await runtime.blobs.delete(name)

    manifests = [name for name in page["names"] if doc.is_manifest(name)]
    others = [name for name in page["names"] if not doc.is_manifest(name)]
    try:
        for names in (others, manifests):
            await asyncio.gather(*(delete(name) for name in names))
    except StoreUnavailable as error:
        logger.warning("deleted blobs of %s stay for now: %s", page["study"], error)
        return False
    return True


async def _settle(
    runtime: Runtime, bucket: str, page: Document, *, emptied: bool
) -> None:
    """Takes the page off the list, or puts it off; another worker may have."""
    operation: Operation = Delete(page["id"], if_etag=page["_etag"])
    if not emptied:
        tries = page["tries"] + 1
        after = (runtime.now() + BACK_OFF).isoformat()
        if tries > MAX_TRIES:
            logger.critical("blobs of %s cannot be deleted", page["study"])
            after = EXHAUSTED
        kept = {k: v for k, v in page.items() if k not in {"_etag", "pk"}}
        operation = Replace(
            kept | {"tries": tries, "after": after}, if_etag=page["_etag"]
        )
    await runtime.documents.batch(containers.CLEANUP, bucket, [operation])


async def _waiting(runtime: Runtime) -> tuple[datetime | None, int]:
    """When the oldest page became or becomes due, and how many are given up."""
    query = Query(Range(("after",), low="0"), (Order(("after",)), Order(("id",))))
    page = await runtime.documents.query(containers.CLEANUP, query, limit=1)
    oldest = None
    if page.documents and page.documents[0]["after"] != EXHAUSTED:
        oldest = datetime.fromisoformat(page.documents[0]["after"])
    exhausted = 0
    after: tuple[Scalar, ...] | None = None
    given_up = Query(
        Range(("after",), low=EXHAUSTED), (Order(("after",)), Order(("id",)))
    )
    while True:
        page = await runtime.documents.query(
            containers.CLEANUP, given_up, limit=1000, after=after
        )
        exhausted += len(page.documents)
        if page.after is None:
            return oldest, exhausted
        after = page.after
