"""Stores that fail on purpose: the same faults for every adapter.

    faults = Faults()
    documents = FaultyDocuments(SqliteDocuments(folder), faults)
    faults.plan(Fault.TIMEOUT_AFTER, at=3)      # the third call, counted from now
    faults.plan(Fault.CRASH, on="batch")        # the next batch
    faults.random(seed=7, share=0.1)            # a tenth of all calls, any fault

`Faults.points` names the calls seen so far, so that a test can run once without faults
and then once for each point (`at=n`), in a child process for CRASH.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, TypeVar

from dicomweb.errors import StoreUnavailable
from stores.ports import (
    BatchResult,
    BlobProperties,
    Blobs,
    Document,
    Documents,
    Operation,
    Page,
    Patch,
    Query,
    Rejected,
    Rejection,
    Scalar,
    Source,
)

T = TypeVar("T")
CRASH_STATUS = 86


class Fault(Enum):
    """What goes wrong at a call."""

    CONFLICT = "conflict"
    """A batch is refused though nothing is wrong with it, as by a concurrent one."""
    THROTTLE = "throttle"
    """429 until the adapter gave up; nothing happened."""
    TIMEOUT_BEFORE = "timeout before"
    """The request was lost; nothing happened, but the caller cannot know."""
    TIMEOUT_AFTER = "timeout after"
    """The answer was lost; it happened, but the caller cannot know."""
    CRASH_BEFORE = "crash before"
    """The process ends before the call."""
    CRASH_AFTER = "crash after"
    """The process ends after the call, before its caller goes on."""


SURVIVABLE = (Fault.CONFLICT, Fault.THROTTLE, Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER)


@dataclass
class _Plan:
    fault: Fault
    on: str | None
    countdown: int


class Faults:
    """Which call fails, and how; shared by the stores of one process.

    Attributes:
        points: Every call so far: name of the method and what it was about.
        happened: The faults that came about, by index into `points`.
    """

    def __init__(self) -> None:
        self.points: list[tuple[str, str]] = []
        self.happened: list[tuple[int, Fault]] = []
        self._plans: list[_Plan] = []
        self._random: Random | None = None
        self._share = 0.0
        self._kinds: Sequence[Fault] = SURVIVABLE

    def plan(self, fault: Fault, *, at: int = 1, on: str | None = None) -> None:
        """Lets the `at`-th call from now fail; of the method `on` only, if given."""
        self._plans.append(_Plan(fault, on, at))

    def random(
        self, *, seed: int, share: float, kinds: Sequence[Fault] = SURVIVABLE
    ) -> None:
        """Lets a share of all calls fail, the same ones for the same seed."""
        self._random, self._share, self._kinds = Random(seed), share, kinds

    def stop(self) -> None:
        """No more faults."""
        self._plans.clear()
        self._random = None

    def next(self, method: str, subject: str) -> Fault | None:
        """The fault of the call that is about to be made."""
        self.points.append((method, subject))
        fault = None
        for plan in list(self._plans):
            if plan.on in (None, method):
                plan.countdown -= 1
                if plan.countdown == 0:
                    self._plans.remove(plan)
                    fault = plan.fault
        if fault is None and self._random and self._random.random() < self._share:
            fault = self._random.choice(self._kinds)
        if fault is not None:
            self.happened.append((len(self.points) - 1, fault))
        return fault

    async def around(
        self, method: str, subject: str, call: Callable[[], Awaitable[T]]
    ) -> T:
        """Makes the call, with its fault if it has one."""
        return await _with(self.next(method, subject), call)


async def _with(fault: Fault | None, call: Callable[[], Awaitable[T]]) -> T:
    match fault:
        case None | Fault.CONFLICT:
            return await call()
        case Fault.CRASH_BEFORE:
            os._exit(CRASH_STATUS)
        case Fault.THROTTLE:
            raise StoreUnavailable("Throttled on purpose")
        case Fault.TIMEOUT_BEFORE:
            raise StoreUnavailable("Lost on purpose", outcome_unknown=True)
        case Fault.TIMEOUT_AFTER:
            await call()
            raise StoreUnavailable("Lost on purpose", outcome_unknown=True)
        case Fault.CRASH_AFTER:
            await call()
            os._exit(CRASH_STATUS)


class FaultyDocuments:
    """Documents with faults in front of them."""

    def __init__(self, documents: Documents, faults: Faults) -> None:
        self._documents = documents
        self._faults = faults

    async def read(
        self, container: str, partition_key: str, id: str
    ) -> Document | None:
        return await self._faults.around(
            "read",
            f"{container}/{id}",
            lambda: self._documents.read(container, partition_key, id),
        )

    async def batch(
        self, container: str, partition_key: str, operations: Sequence[Operation]
    ) -> BatchResult:
        fault = self._faults.next("batch", f"{container}/{partition_key}")
        if fault is Fault.CONFLICT and (refused := _refusal(operations)):
            return refused
        return await _with(
            fault,
            lambda: self._documents.batch(container, partition_key, operations),
        )

    async def query(
        self,
        container: str,
        query: Query,
        *,
        partition_key: str | None = None,
        limit: int,
        after: Sequence[Scalar] | None = None,
        offset: int = 0,
    ) -> Page:
        return await self._faults.around(
            "query",
            container,
            lambda: self._documents.query(
                container,
                query,
                partition_key=partition_key,
                limit=limit,
                after=after,
                offset=offset,
            ),
        )

    async def flush(self) -> None:
        await self._faults.around("flush", "", self._documents.flush)

    async def close(self) -> None:
        await self._documents.close()


def _refusal(operations: Sequence[Operation]) -> Rejected | None:
    """What a concurrent writer would cause: the first guarded operation fails."""
    for index, operation in enumerate(operations):
        guarded = getattr(operation, "if_etag", None) is not None
        if guarded or (isinstance(operation, Patch) and operation.condition):
            return Rejected(index, Rejection.CONDITION)
    return None


class FaultyBlobs:
    """Blobs with faults in front of them; reads of content fail at their first step."""

    def __init__(self, blobs: Blobs, faults: Faults) -> None:
        self._blobs = blobs
        self._faults = faults

    async def put(self, blobs: Sequence[tuple[str, Source]]) -> None:
        subject = ",".join(name for name, _ in blobs)
        await self._faults.around("put", subject, lambda: self._blobs.put(blobs))

    async def read(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes | memoryview]:
        await self._faults.around("open", name, _nothing)
        async for chunk in self._blobs.read(name, offset=offset, length=length):
            yield chunk

    async def read_range(self, name: str, offset: int, length: int) -> bytes:
        return await self._faults.around(
            "read_range", name, lambda: self._blobs.read_range(name, offset, length)
        )

    async def copy(self, source_name: str, name: str) -> None:
        await self._faults.around(
            "copy", name, lambda: self._blobs.copy(source_name, name)
        )

    async def splice(
        self, name: str, head: bytes, source_name: str, offset: int
    ) -> None:
        await self._faults.around(
            "splice", name, lambda: self._blobs.splice(name, head, source_name, offset)
        )

    async def delete(self, name: str) -> bool:
        return await self._faults.around(
            "delete", name, lambda: self._blobs.delete(name)
        )

    async def list(self, prefix: str) -> AsyncIterator[BlobProperties]:
        await self._faults.around("list", prefix, _nothing)
        async for each in self._blobs.list(prefix):
            yield each

    async def properties(self, name: str) -> BlobProperties | None:
        return await self._faults.around(
            "properties", name, lambda: self._blobs.properties(name)
        )

    async def set_tier(self, name: str, tier: str) -> None:
        await self._faults.around(
            "set_tier", name, lambda: self._blobs.set_tier(name, tier)
        )

    async def close(self) -> None:
        await self._blobs.close()


async def _nothing() -> Any:
    return None
