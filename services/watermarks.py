"""Watermarks: numbers that only grow; each names one version of one instance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomweb.errors import StoreUnavailable
from services.merging import Merger
from stores import containers
from stores.ports import Committed, Create, Documents, Patch

PARTITION_KEY = "counters"
DOCUMENT_ID = "watermark"
MAX_AGE = timedelta(hours=1)
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
    """Reserves watermarks; callers that wait at the same time share one request."""

    def __init__(self, documents: Documents, now: Callable[[], datetime]) -> None:
        self._documents = documents
        self._now = now
        self._merger: Merger[int, Reservation] = Merger(self._reserve_all)

    async def reserve(self, count: int) -> Reservation:
        """The next `count` watermarks, for this caller alone.

        Raises:
            StoreUnavailable: The counter cannot be reached.
        """
        return await self._merger.submit(count)

    async def _reserve_all(self, counts: Sequence[int]) -> list[Reservation]:
        reserved = self._now()
        first = await self._advance(sum(counts)) - sum(counts) + 1
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
