"""Watermarks: numbers that only grow; each names one version of one instance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicomweb.errors import StoreUnavailable
from services.merging import Merger
from stores import containers
from stores.ports import Committed, Create, Documents, Patch

PARTITION_KEY = containers.COUNTERS_KEY
DOCUMENT_ID = containers.WATERMARK_ID
MAX_AGE = timedelta(hours=1)
SPARE = 64
SPARE_AGE = timedelta(seconds=1)
STREAM_AGE = timedelta(seconds=2)
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Reservation:
    """Watermarks first, first + 1, … of one caller.

    Attributes:
        reserved: When; a commit with one older than an hour is refused, because scrub
            may take its blobs for orphans.
    """

    first: int
    count: int
    reserved: datetime


class Watermarks:
    """Reserves watermarks; callers that wait at the same time share one request.

    Under a stream of stores a request takes some more than are asked for. They are
    used within a second or never, so that watermarks of several processes are out of
    order by no more than that.
    """

    def __init__(self, documents: Documents, now: Callable[[], datetime]) -> None:
        self._documents = documents
        self._now = now
        self._merger: Merger[int, Reservation] = Merger(self._reserve_all)
        self._spare = Reservation(0, 0, datetime.min.replace(tzinfo=UTC))

    async def reserve(self, count: int) -> Reservation:
        """The next `count` watermarks, for this caller alone.

        Raises:
            StoreUnavailable: The counter cannot be reached.
        """
        spare = self._spare
        if spare.count >= count and self._now() - spare.reserved < SPARE_AGE:
            self._spare = Reservation(
                spare.first + count, spare.count - count, spare.reserved
            )
            return Reservation(spare.first, count, spare.reserved)
        return await self._merger.submit(count)

    async def _reserve_all(self, counts: Sequence[int]) -> list[Reservation]:
        reserved = self._now()
        streaming = reserved - self._spare.reserved < STREAM_AGE
        wanted = sum(counts)
        more = SPARE if streaming else 0
        first = await self._advance(wanted + more) - wanted - more + 1
        self._spare = Reservation(first + wanted, more, reserved)
        reservations = []
        for count in counts:
            reservations.append(Reservation(first, count, reserved))
            first += count
        return reservations

    async def _advance(self, count: int) -> int:
        """The counter after adding; a lost answer only wastes numbers."""
        patch = Patch(DOCUMENT_ID, increments={("value",): count})
        for attempt in range(_TRIES):
            try:
                result = await self._documents.batch(
                    containers.SYSTEM, PARTITION_KEY, [patch]
                )
            except StoreUnavailable as error:
                if error.outcome_unknown and attempt == 0:
                    continue
                raise
            if isinstance(result, Committed):
                document = result.documents[0]
                assert document is not None
                return int(document["value"])
            await self._documents.batch(
                containers.SYSTEM,
                PARTITION_KEY,
                [Create({"id": DOCUMENT_ID, "k": "counter", "value": 0})],
            )
        raise StoreUnavailable("The watermark counter is not available.")

    async def raise_to(self, value: int) -> None:
        """Makes the next watermark larger than `value` (after a rebuild)."""
        current = await self._advance(0)
        if current < value:
            await self._advance(value - current)
