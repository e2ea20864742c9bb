"""The change feed: a gap-free sequence of what happened to instances.

Pages of entries stand beside a `head` in one logical partition; head and pages are
written in one batch, so a number once given is visible and none is ever skipped. A page
is named after its event (or the part of a large one), so what is published twice is
refused the second time. Segments keep a logical partition below its limit of 20 GB.

Fields of a page: `first`, `last` sequence, `ts` microseconds since 1970 UTC, `action`,
`p` partition name, `study`, `e` entries `[series, sop, watermark]`.

The head also has `totals`: studies, instances and bytes of the archive. Each event is
published exactly once, so they are exact as far as the feed reaches.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dicomweb.errors import StoreUnavailable
from services.merging import Merger
from stores import containers
from stores.ports import (
    And,
    Committed,
    Condition,
    Create,
    Document,
    Documents,
    In,
    Operation,
    Order,
    Query,
    Range,
    Rejection,
    Replace,
)

SEGMENT_BYTES = 10 * 1000**3
MAX_PAGES = 40
MAX_ENTRIES = 2000
_TRIES = 200
_LOST_ANSWERS = 3
_ENTRY_BYTES = 200
_LATEST = 2**53  # no index counts further exactly
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TOTALS = (0, 0, 0)
_CLOCKS_DIFFER = timedelta(hours=1)
"""At most, between the processes of one archive."""


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One event of one instance.

    Attributes:
        sequence: From 1, no gaps.
        timestamp: UTC.
        watermark: Of the version that the event is about.
    """

    sequence: int
    timestamp: datetime
    action: str
    partition_name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    watermark: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What is in the archive.

    Attributes:
        size_bytes: Of the files as first stored.
        sequence: Of the newest entry of the feed; 0 when there is none.
    """

    studies: int
    instances: int
    size_bytes: int
    sequence: int


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


class Feed:
    """Appends to the feed and reads it."""

    def __init__(self, documents: Documents, now: Callable[[], datetime]) -> None:
        self._documents = documents
        self._now = now
        self._merger: Merger[tuple[str, Document], None] = Merger(
            self._append_all, take=_fitting
        )
        self._segment = 0
        self._head: Document | None = None

    # --- writing -----------------------------------------------------------------

    async def append(self, pk: str, events: Sequence[Document]) -> None:
        """Publishes the events of a study, in order; those already there are skipped.

        Raises:
            StoreUnavailable: The feed cannot be written.
        """
        futures = [
            self._merger.post((pk, event)) for event in events if _entries(event)
        ]
        for future in futures:
            await future

    async def _append_all(self, items: Sequence[tuple[str, Document]]) -> list[None]:
        waiting, lost = list(items), 0
        for _ in range(_TRIES):
            if not waiting:
                return [None] * len(items)
            head = self._head or await self._read_head()
            self._head = None
            if head.get("closed"):
                self._segment += 1
                continue
            waiting = await self._not_published_before(head, waiting)
            if not waiting:
                self._head = head
                continue
            after, pages = self._pages(head, waiting)
            operations: list[Operation] = [
                Replace(after, if_etag=head["_etag"]),
                *(Create(page) for page in pages),
            ]
            key = _segment_key(self._segment)
            try:
                result = await self._documents.batch(containers.FEED, key, operations)
            except StoreUnavailable as error:
                lost += 1
                if lost > _LOST_ANSWERS or not error.outcome_unknown:
                    raise
                continue  # the pages that are there will say so
            if isinstance(result, Committed):
                self._head = after | {"_etag": result.etags[0]}
                await self._close_segment_if_full()
                return [None] * len(items)
            if result.index > 0 and result.reason is Rejection.EXISTS:
                del waiting[result.index - 1]
                self._head = head
        if waiting:
            raise StoreUnavailable("The change feed is busy. Please retry.")
        return [None] * len(items)

    async def _not_published_before(
        self, head: Document, items: list[tuple[str, Document]]
    ) -> list[tuple[str, Document]]:
        """Those that no earlier segment has: names are unique within one only.

        Whoever saw the segment before closed went on to this one, so what an event of
        about that time may be published twice by stands there for good.
        """
        begun = head.get("begun", "")
        names = [
            _page_id(pk, event) for pk, event in items if event.get("at", "") < begun
        ]
        published: set[str] = set()
        for segment in range(self._segment if names else 0):
            page = await self._documents.query(
                containers.FEED,
                Query(In(("id",), tuple(names)), fields=("id",)),
                partition_key=_segment_key(segment),
                limit=len(names),
            )
            published |= {row["id"] for row in page.documents}
        return [each for each in items if _page_id(*each) not in published]

    def _pages(
        self, head: Document, items: Sequence[tuple[str, Document]]
    ) -> tuple[Document, list[Document]]:
        """The head after these events, and their pages."""
        ts = max(microseconds(self._now()), head["ts"] + 1, head["floor"])
        sequence = head["next"]
        totals = list(head.get("totals", _NO_TOTALS))
        size = head["bytes"]
        pages = []
        for pk, event in items:
            entries = _entries(event)
            pages.append(
                {
                    "id": _page_id(pk, event),
                    "first": sequence,
                    "last": sequence + len(entries) - 1,
                    "ts": ts,
                    "action": event["action"],
                    "p": event["p"],
                    "study": event["uid"],
                    "e": [entry[:3] for entry in entries],
                }
            )
            sequence += len(entries)
            for i, more in enumerate(event.get("n", _NO_TOTALS)):
                totals[i] += more
            size += _ENTRY_BYTES * (len(entries) + 2)
        after = {k: v for k, v in head.items() if k not in {"_etag", "pk"}}
        after |= {"next": sequence, "ts": ts, "bytes": size, "totals": totals}
        return after, pages

    async def _close_segment_if_full(self) -> None:
        head = self._head
        if head is None or head["bytes"] < SEGMENT_BYTES:
            return
        closed = {k: v for k, v in head.items() if k not in {"_etag", "pk"}}
        self._head = None
        await self._documents.batch(
            containers.FEED,
            _segment_key(self._segment),
            [Replace(closed | {"closed": True}, if_etag=head["_etag"])],
        )

    async def _read_head(self) -> Document:
        """Head of this segment; the first writer makes it."""
        for _ in range(_TRIES):
            key = _segment_key(self._segment)
            head = await self._documents.read(containers.FEED, key, "head")
            if head is not None:
                return head
            previous = await self._previous_head()
            await self._documents.batch(
                containers.FEED,
                key,
                [Create(_new_head(previous, self._now()))],
            )
        raise StoreUnavailable("The change feed is not available.")

    async def _previous_head(self) -> Document | None:
        if self._segment == 0:
            return None
        return await self._documents.read(
            containers.FEED, _segment_key(self._segment - 1), "head"
        )

    async def restart_at(self, sequence: int) -> None:
        """Makes the next sequence at least this (after a rebuild)."""
        await self._change_head(lambda head: {"next": max(head["next"], sequence)})

    async def totals(self) -> Totals:
        """What is in the archive, and how far the feed has come: one or two reads."""
        key = _segment_key(await self._newest_segment())
        head = await self._documents.read(containers.FEED, key, "head")
        if head is None:
            return Totals(0, 0, 0, 0)
        studies, instances, size_bytes = head.get("totals", _NO_TOTALS)
        return Totals(studies, instances, size_bytes, head["next"] - 1)

    # --- reading -----------------------------------------------------------------

    async def by_sequence(self, offset: int, limit: int) -> list[FeedEntry]:
        """Entries with offset < sequence <= offset + limit, ascending.

        The page across the end is read first: once it is seen, so are all before it.
        """
        offset = min(offset, _LATEST)
        end = offset + limit
        across = await self._pages_where(Range(("last",), low=end + 1), entries=1)
        within = await self._pages_where(Range(("last",), low=offset + 1, high=end))
        return [
            entry
            for entry in _expanded([*within, *across[:1]])
            if offset < entry.sequence <= end
        ]

    async def by_time(
        self, start: datetime | None, end: datetime | None, offset: int, limit: int
    ) -> list[FeedEntry]:
        """Entries with start <= timestamp < end, less the first `offset`.

        None means the beginning and the end of time.

        What is published later gets a later time than `end`, so a reader that asks
        window after window misses nothing.
        """
        offset = min(offset, _LATEST)
        now = self._now()
        await self._raise_floor(min(end or now, now))
        low = None if start is None else microseconds(start)
        high = _LATEST if end is None else microseconds(end) - 1
        where = Range(("ts",), low=low, high=high)
        first = await self._first_sequence(where)
        if first is None:
            return []
        where_from = And((where, Range(("last",), low=first + offset)))
        pages = await self._pages_where(where_from, entries=limit)
        wanted = [e for e in _expanded(pages) if e.sequence >= first + offset]
        return wanted[:limit]

    async def latest(self) -> FeedEntry | None:
        """The entry with the highest sequence, or None."""
        segment = await self._newest_segment()
        while segment >= 0:
            page = await self._documents.query(
                containers.FEED,
                Query(Range(("last",), low=0), (Order(("last",), descending=True),)),
                partition_key=_segment_key(segment),
                limit=1,
            )
            if page.documents:
                return _expanded(page.documents)[-1]
            segment -= 1
        return None

    async def _newest_segment(self) -> int:
        segment = self._segment
        while True:
            key = _segment_key(segment)
            head = await self._documents.read(containers.FEED, key, "head")
            if head is None or not head.get("closed"):
                return segment if head is not None or segment == 0 else segment - 1
            segment += 1

    async def _first_sequence(self, where: Condition) -> int | None:
        pages = await self._pages_where(where, entries=1)
        return int(pages[0]["first"]) if pages else None

    async def _pages_where(
        self, where: Condition, *, entries: int = MAX_ENTRIES
    ) -> list[Document]:
        """Pages in order, until they hold that many entries more than the first."""
        found: list[Document] = []
        for segment in range(await self._newest_segment() + 1):
            after = None
            while True:
                page = await self._documents.query(
                    containers.FEED,
                    Query(where, (Order(("last",)),)),
                    partition_key=_segment_key(segment),
                    limit=min(entries + 1, 200),
                    after=after,
                )
                found += page.documents
                enough = found and found[-1]["last"] - found[0]["last"] >= entries
                if page.after is None or enough:
                    break
                after = page.after
            if found and found[-1]["last"] - found[0]["last"] >= entries:
                break
        return found

    async def _raise_floor(self, moment: datetime) -> None:
        """Makes every later publication at least as late as `moment`."""
        floor = microseconds(moment)
        self._segment = await self._newest_segment()
        head = await self._read_head()
        if floor <= head["ts"] or floor <= head["floor"]:
            return
        await self._change_head(lambda head: {"floor": max(head["floor"], floor)})

    async def _change_head(self, change: Callable[[Document], dict[str, Any]]) -> None:
        for _ in range(_TRIES):
            self._segment = await self._newest_segment()
            head = await self._read_head()
            after = {k: v for k, v in head.items() if k not in {"_etag", "pk"}}
            result = await self._documents.batch(
                containers.FEED,
                _segment_key(self._segment),
                [Replace(after | change(head), if_etag=head["_etag"])],
            )
            if isinstance(result, Committed):
                return
        raise StoreUnavailable("The change feed is busy. Please retry.")


def _segment_key(segment: int) -> str:
    return f"global:{segment}"


def _new_head(previous: Document | None, now: datetime) -> Document:
    begun = {} if previous is None else {"begun": (now + _CLOCKS_DIFFER).isoformat()}
    return {
        **begun,
        "id": "head",
        "next": previous["next"] if previous else 1,
        "ts": previous["ts"] if previous else 0,
        "floor": previous["floor"] if previous else 0,
        "bytes": 0,
        "totals": previous["totals"] if previous else _NO_TOTALS,
    }


def _page_id(pk: str, event: Document) -> str:
    """Of its event, or of one part of it."""
    part = f"|{event['part']}" if "part" in event else ""
    return f"{pk}|{event['rev']}{part}"


def _entries(event: Document) -> list[list[Any]]:
    entries: list[list[Any]] = event.get("entries", [])
    return entries


def _fitting(items: Sequence[tuple[str, Document]]) -> int:
    """How many waiting events one batch may hold."""
    entries = 0
    for count, (_, event) in enumerate(items):
        entries += len(_entries(event))
        if count >= MAX_PAGES or entries > MAX_ENTRIES:
            return count
    return len(items)


def _expanded(pages: Iterable[Document]) -> list[FeedEntry]:
    return [
        FeedEntry(
            sequence=page["first"] + index,
            timestamp=_EPOCH + timedelta(microseconds=page["ts"]),
            action=page["action"],
            partition_name=page["p"],
            study_instance_uid=page["study"],
            series_instance_uid=series,
            sop_instance_uid=sop,
            watermark=watermark,
        )
        for page in pages
        for index, (series, sop, watermark) in enumerate(page["e"])
    ]
