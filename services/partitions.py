"""Data partitions: names under which the same UIDs may exist again."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dicomweb.errors import InvalidRequest, StoreUnavailable
from dicomweb.identifiers import (
    DEFAULT_PARTITION,
    Partition,
    check_partition_name,
    partition_key,
)
from stores import containers
from stores.ports import (
    Committed,
    Create,
    Document,
    Documents,
    Operation,
    Order,
    Query,
    Replace,
)

PARTITION_KEY = "partitions"
COUNTER = "counter"
CACHE_SECONDS = 300.0
CACHE_NAMES = 10_000
_TRIES = 50
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class ListedPartition:
    """A partition as the API shows it."""

    partition: Partition
    created: datetime


class Partitions:
    """The partitions of the archive; those found are remembered for five minutes.

    Attributes:
        enabled: Whether routes name their partition.
    """

    def __init__(
        self,
        documents: Documents,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        *,
        enabled: bool,
    ) -> None:
        self._documents = documents
        self._now = now
        self._new_id = new_id
        self.enabled = enabled
        self._found: OrderedDict[str, tuple[float, Partition]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def resolve(self, name: str | None, *, create: bool) -> Partition:
        """The partition of a request.

        Args:
            name: From the path; None on routes without one.
            create: Whether a missing partition is made (store, workitem create).

        Raises:
            InvalidRequest: Partitions are off but one is named, on but none is named,
                the name is malformed, or there is no such partition.
        """
        if not self.enabled:
            if name is not None:
                raise InvalidRequest(
                    "Data partitions are disabled.", code="PartitionsDisabled"
                )
            return Partition(DEFAULT_PARTITION)
        if name is None:
            raise InvalidRequest(
                "The route must name a partition: /partitions/{name}/…",
                code="PartitionMissing",
            )
        check_partition_name(name)
        found = self._cached(name) or await self._read(name)
        if found is None and create:
            found = await self._create(name)
        if found is None:
            raise InvalidRequest(
                "The specified partition does not exist.", code="PartitionNotFound"
            )
        return found

    def _cached(self, name: str) -> Partition | None:
        entry = self._found.get(partition_key(name))
        if entry is None or entry[0] < time.monotonic():
            return None
        return entry[1]

    def _remember(self, document: Document) -> Partition:
        partition = Partition(document["name"], document["number"])
        self._found[partition.key] = (time.monotonic() + CACHE_SECONDS, partition)
        if len(self._found) > CACHE_NAMES:
            self._found.popitem(last=False)
        return partition

    async def _read(self, name: str) -> Partition | None:
        if partition_key(name) == partition_key(DEFAULT_PARTITION):
            return Partition(DEFAULT_PARTITION)
        document = await self._documents.read(
            containers.SYSTEM, PARTITION_KEY, partition_key(name)
        )
        return None if document is None else self._remember(document)

    async def _create(self, name: str) -> Partition:
        """Makes the partition; two makers at once get the same one."""
        async with self._lock:
            for _ in range(_TRIES):
                found = await self._read(name)
                if found is not None:
                    return found
                await self._try_create(name)
        raise StoreUnavailable("The partition could not be created. Please retry.")

    async def _try_create(self, name: str) -> bool:
        counter = await self._documents.read(containers.SYSTEM, PARTITION_KEY, COUNTER)
        number = counter["last"] + 1 if counter else 2
        row = {
            "id": partition_key(name),
            "k": "partition",
            "name": name,
            "number": number,
            "created": self._now().isoformat(),
            "token": self._new_id(),
        }
        after = {"id": COUNTER, "k": "counter", "last": number}
        count: Operation = (
            Replace(after, if_etag=counter["_etag"]) if counter else Create(after)
        )
        result = await self._documents.batch(
            containers.SYSTEM, PARTITION_KEY, [Create(row), count]
        )
        if isinstance(result, Committed):
            await self._documents.flush()
            return True
        return False

    async def all(self) -> list[ListedPartition]:
        """All partitions, the default one first, then as they were created.

        Raises:
            InvalidRequest: Partitions are off.
        """
        if not self.enabled:
            raise InvalidRequest(
                "Data partitions are disabled.", code="PartitionsDisabled"
            )
        rows = await self._rows()
        default = ListedPartition(
            Partition(DEFAULT_PARTITION),
            datetime.fromisoformat("1970-01-01T00:00+00:00"),
        )
        return [default] + [
            ListedPartition(
                Partition(row["name"], row["number"]),
                datetime.fromisoformat(row["created"]),
            )
            for row in sorted(rows, key=lambda row: int(row["number"]))
        ]

    async def _rows(self) -> list[Document]:
        rows: list[Document] = []
        after = None
        while True:
            page = await self._documents.query(
                containers.SYSTEM,
                Query(None, (Order(("id",)),)),
                partition_key=PARTITION_KEY,
                limit=_PAGE,
                after=after,
            )
            rows += [row for row in page.documents if row["id"] != COUNTER]
            if page.after is None:
                return rows
            after = page.after

    async def check_switch(self) -> None:
        """Refuses to serve without partitions an archive that uses them.

        Raises:
            StoreUnavailable: There are partitions beside the default one.
        """
        if not self.enabled and await self._rows():
            raise StoreUnavailable(
                "DICOM_DATA_PARTITIONS cannot be switched off: the archive has"
                " partitions.",
                retry_after_seconds=60,
            )
