"""Carries each commit into catalog, change feed and cleanup list.

It starts at once and the caller may wait for it; what a crash leaves behind is found
by its `pending` field and healed (`heal`). All steps may be repeated.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dicomweb.errors import DicomwebError, StoreUnavailable
from dicomweb.query_tags import QueryTag
from services import documents as doc
from services import event_parts
from services.catalog import Catalog, CatalogChange
from services.feed import Feed
from services.tag_registry import Registry, TagRegistry
from stores import containers
from stores.ports import (
    And,
    Create,
    Document,
    Documents,
    Equals,
    Order,
    Patch,
    Query,
    Range,
)

logger = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
HEAL_AGE_SECONDS = 10.0
FINISH_DELAY_SECONDS = 0.25
CLEANUP_BUCKETS = 16
INDEX_AGAIN = 40
MOST_FAILURES = 3
"""After so many studies for which the stores did not answer they are to blame."""
_REMEMBERED = 10_000
_PAGE = 200
_ANY_REVISION = 2**53


def cleanup_bucket(pk: str) -> str:
    """Logical partition of the cleanup pages of a study."""
    return str(sum(pk.encode()) % CLEANUP_BUCKETS)


IndexAgain = Callable[[str, Sequence[str], Sequence[QueryTag]], Awaitable[None]]
ForgetErrors = Callable[[Sequence[int]], Awaitable[None]]
"""Gets the first watermarks of instances that were deleted."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit to a study did.

    Attributes:
        previous_revision: Of the study before; None when there was none.
        study: `st` afterwards.
        series: `se` documents that changed, afterwards.
        removed_series: Ids of `se` documents that were deleted.
    """

    pk: str
    event: Document
    previous_revision: int | None
    study: Document
    series: tuple[Document, ...] = ()
    removed_series: tuple[str, ...] = ()


class Publisher:
    """Publishes the commits of this process and heals those of dead ones."""

    def __init__(
        self,
        documents: Documents,
        catalog: Catalog,
        feed: Feed,
        tags: TagRegistry,
        now: Callable[[], datetime],
        delete_delay_seconds: int,
    ) -> None:
        self._documents = documents
        self._tags = tags
        self._catalog = catalog
        self._feed = feed
        self._now = now
        self._delete_delay = timedelta(seconds=delete_delay_seconds)
        self._published: OrderedDict[str, int] = OrderedDict()
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._finished: dict[str, list[str]] = {}
        self._gone: dict[str, int] = {}
        self._finisher: asyncio.Task[None] | None = None
        self._has_healed = False
        self.finish_delete: Callable[[str], Awaitable[None]] = _no_delete
        self.index_again: IndexAgain = _no_index
        self.forget_errors: ForgetErrors = _no_forgetting

    def publish(self, commit: Commit) -> None:
        """Starts publishing, after earlier commits of the same study."""
        previous = self._tails.get(commit.pk)
        task = asyncio.get_running_loop().create_task(self._follow(previous, commit))
        self._tails[commit.pk] = task

    async def settled(self, pk: str) -> None:
        """Returns when all commits to the study are published, or after 2 seconds."""
        task = self._tails.get(pk)
        if task is not None:
            await asyncio.wait([task], timeout=WAIT_SECONDS)

    async def close(self) -> None:
        """Waits for what is under way."""
        while tasks := [*self._tails.values()]:
            await asyncio.wait(tasks)
        if self._finisher is not None:
            await asyncio.wait([self._finisher])

    async def _follow(
        self, previous: "asyncio.Task[None] | None", commit: Commit
    ) -> None:
        try:
            if previous is not None:
                await asyncio.wait([previous])
            await self._publish(commit)
        except DicomwebError as error:
            self._published.pop(commit.pk, None)
            logger.warning("publishing of %s waits: %s", commit.event["id"], error)
        except Exception:
            self._published.pop(commit.pk, None)
            logger.exception("publishing of %s failed", commit.event["id"])
        finally:
            if self._tails.get(commit.pk) is asyncio.current_task():
                del self._tails[commit.pk]

    async def _publish(self, commit: Commit) -> None:
        events = [commit.event]
        change = CatalogChange(
            commit.pk, commit.study, commit.series, commit.removed_series
        )
        known = self._published.get(commit.pk)
        if commit.previous_revision is not None and known != commit.previous_revision:
            events = await self._pending_events(commit.pk, commit.event["rev"])
            if len(events) > 1:
                # The series that the other commits changed are theirs alone to know.
                change = await self._whole_study(commit.pk, commit.study)
        await asyncio.gather(
            self._catalog.put(change),
            self._append(commit.pk, events),
            self._index_newer_tags(commit.pk, events),
        )
        ids = await self._settle(commit.pk, events, commit.study)
        self._finish_later(commit.pk, ids, commit.study)
        self._published[commit.pk] = commit.event["rev"]
        if len(self._published) > _REMEMBERED:
            self._published.popitem(last=False)

    async def _append(self, pk: str, events: Sequence[Document]) -> None:
        """Appends to the feed, in order; those at hand share a request."""
        at_hand: list[Document] = []
        for event in events:
            if "parts" not in event:
                at_hand.append(event)
                continue
            await self._feed.append(pk, at_hand)
            at_hand = []
            async for piece in event_parts.pieces(self._documents, pk, event):
                await self._feed.append(pk, [piece])
        await self._feed.append(pk, at_hand)

    async def _index_newer_tags(self, pk: str, events: Sequence[Document]) -> None:
        """Indexes again what was stored with an older registry of query tags."""
        written = [
            event
            for event in events
            if (event["entries"] or "parts" in event)
            and event["action"] != doc.DELETE_ACTION
        ]
        if not written:
            return
        registry = await self._tags.read()
        for event in written:
            if event["tv"] >= registry.version:
                continue
            async for piece in event_parts.pieces(self._documents, pk, event):
                await self._index_entries(pk, piece["entries"], registry)

    async def _index_entries(
        self, pk: str, entries: Sequence[list[Any]], registry: Registry
    ) -> None:
        ids = [doc.instance_id(series, sop) for series, sop, *_ in entries]
        for start in range(0, len(ids), INDEX_AGAIN):
            piece = ids[start : start + INDEX_AGAIN]
            await self.index_again(pk, piece, registry.indexed)

    async def _settle(
        self, pk: str, events: Sequence[Document], study: Document
    ) -> list[str]:
        """Hands deleted versions to cleanup; ids of what is done then.

        The event that began a delete stays pending until the study is gone, so that
        healing finds the study however far the delete came.
        """
        for event in events:
            if event["action"] == doc.DELETE_ACTION:
                await self._list_for_cleanup(pk, event)
                if event.get("first"):
                    await self.forget_errors(event["first"])
        deleting = study["state"] == doc.DELETING
        # The parts first: should they alone be marked, the event is published again.
        return [
            id
            for event in events
            if not (deleting and "hold" in event)
            for id in (*event_parts.ids(event), event["id"])
        ]

    def _finish_later(self, pk: str, ids: Sequence[str], study: Document) -> None:
        self._finished.setdefault(pk, []).extend(ids)
        self._gone.pop(pk, None)
        if study["state"] == doc.GONE:
            self._gone[pk] = study["rev"]
        if self._finisher is None:
            loop = asyncio.get_running_loop()
            self._finisher = loop.create_task(self._finish())

    async def _list_for_cleanup(self, pk: str, event: Document) -> None:
        bucket = cleanup_bucket(pk)
        committed = datetime.fromisoformat(event["at"])
        page = {
            "id": f"{pk}|{event['rev']}",
            "study": pk,
            "after": (committed + self._delete_delay).isoformat(),
            "tries": 0,
            "names": event["blobs"],
        }
        await self._documents.batch(containers.CLEANUP, bucket, [Create(page)])

    async def _finish(self) -> None:
        """Marks published events done, a little later and many at once."""
        try:
            while True:
                await asyncio.sleep(FINISH_DELAY_SECONDS)
                if not self._finished:
                    return
                finished, self._finished = self._finished, {}
                gone, self._gone = self._gone, {}
                for pk, ids in finished.items():
                    await self._mark_done(pk, ids, gone.get(pk))
        except DicomwebError as error:
            logger.warning("events stay pending for the healing timer: %s", error)
        finally:
            self._finisher = None

    async def _mark_done(
        self, pk: str, ids: Sequence[str], gone_revision: int | None
    ) -> None:
        """Marks the events, first what is left of the study where they ended it."""
        if gone_revision is not None:
            still = And((Equals(("state",), doc.GONE), Equals(("rev",), gone_revision)))
            forget = Patch(
                doc.STUDY, sets={("ttl",): doc.GONE_SECONDS}, condition=still
            )
            await self._documents.batch(containers.DICOM, pk, [forget])
        for start in range(0, len(ids), 100):
            await self._documents.batch(
                containers.DICOM, pk, [_done(id) for id in ids[start : start + 100]]
            )

    async def _pending_events(self, pk: str, up_to: int) -> list[Document]:
        """Events of the study not known to be published, in commit order."""
        query = Query(
            And(
                (
                    Equals(("t",), "ev"),
                    Range(("pending",), low="0"),
                    Range(("rev",), high=up_to),
                )
            ),
            order=(Order(("rev",)),),
        )
        events: list[Document] = []
        after = None
        while True:
            page = await self._documents.query(
                containers.DICOM, query, partition_key=pk, limit=_PAGE, after=after
            )
            events += page.documents
            if page.after is None:
                return events
            after = page.after

    async def heal(self, *, minimum_age_seconds: float | None = None) -> int:
        """Publishes what dead processes left behind.

        Args:
            minimum_age_seconds: Events younger than this may still be published by
                their own process. None: 10, and nothing the first time, because at
                its start a server finds what it left behind when it died.

        Returns:
            How many studies were healed.

        Raises:
            StoreUnavailable: Several could not be; a repetition goes on.
        """
        if minimum_age_seconds is None:
            minimum_age_seconds = HEAL_AGE_SECONDS if self._has_healed else -1.0
        horizon = self._now() - timedelta(seconds=minimum_age_seconds)
        high = f"{int(horizon.timestamp() * 1000):015d}|~"
        query = Query(
            Range(("pending",), high=high), (Order(("pending",)),), fields=("pk",)
        )
        tried: dict[str, Exception | None] = {}
        after = None
        while True:
            page = await self._documents.query(
                containers.DICOM, query, limit=_PAGE, after=after
            )
            for pk in dict.fromkeys(row["pk"] for row in page.documents):
                if pk not in tried and pk not in self._tails:
                    tried[pk] = await self._failure_to_heal(pk)
            errors = list(tried.values())
            if sum(isinstance(each, DicomwebError) for each in errors) >= MOST_FAILURES:
                raise StoreUnavailable("Many studies cannot be published now.")
            if page.after is None:
                self._has_healed = True
                return errors.count(None)
            after = page.after

    async def _failure_to_heal(self, pk: str) -> Exception | None:
        """None when it went well; a study that cannot be healed holds up no other."""
        try:
            await self._heal_study(pk)
        except DicomwebError as error:
            logger.warning("%s could not be healed: %s", pk, error)
            return error
        except Exception as error:
            logger.exception("%s could not be healed", pk)
            return error
        return None

    async def _heal_study(self, pk: str) -> None:
        study = await self._documents.read(containers.DICOM, pk, doc.STUDY)
        if study is not None and study["state"] == doc.DELETING:
            await self.finish_delete(pk)
            await self.settled(pk)
            study = await self._documents.read(containers.DICOM, pk, doc.STUDY)
        if study is None:  # of a version that let it go before it was published
            events = await self._pending_events(pk, _ANY_REVISION)
            if not events:
                return
            study = doc.gone_study(events[-1])
        change = await self._whole_study(pk, study)
        events = await self._pending_events(pk, study["rev"])
        await self._catalog.put(change)
        await self._append(pk, events)
        await self._index_newer_tags(pk, events)
        ids = await self._settle(pk, events, study)
        is_gone = study["state"] == doc.GONE
        await self._mark_done(pk, ids, study["rev"] if is_gone else None)
        logger.info("healed %d events of %s", len(events), pk)

    async def _whole_study(self, pk: str, study: Document) -> CatalogChange:
        """The change that makes all rows of the study what they should be."""
        series = await self._all_series(pk)
        present = {row["id"] for row in series}
        listed = await self._catalog.series_ids(pk)
        removed = tuple(id for id in listed if id not in present)
        return CatalogChange(pk, study, tuple(series), removed)

    async def _all_series(self, pk: str) -> list[Document]:
        query = Query(Equals(("t",), "se"))
        rows: list[Document] = []
        after = None
        while True:
            page = await self._documents.query(
                containers.DICOM, query, partition_key=pk, limit=_PAGE, after=after
            )
            rows += page.documents
            if page.after is None:
                return rows
            after = page.after


async def _no_index(pk: str, ids: Sequence[str], tags: Sequence[QueryTag]) -> None:
    raise RuntimeError(f"nobody indexes {len(ids)} of {pk} by {len(tags)} tags")


async def _no_forgetting(watermarks: Sequence[int]) -> None:
    raise RuntimeError(f"nobody forgets the errors of {len(watermarks)} instances")


async def _no_delete(pk: str) -> None:
    raise RuntimeError(f"nobody finishes the delete of {pk}")


def _done(id: str) -> Patch:
    return Patch(id, sets={("ttl",): doc.DONE_SECONDS, ("pending",): None})
