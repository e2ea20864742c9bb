"""The index in Cosmos DB: `Documents` for the Azure stack.

One request per operation. A query across partitions is one request to each physical
partition, all at once, and is merged here by the order keys: a continuation token of
the SDK for such a query belongs to one partition only (README of azure-cosmos 4.17.1)
and never leaves this module.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import (
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceNotFoundError,
)

from stores.azure_errors import PATIENCE_SECONDS, denied, trouble, unavailable
from stores.batches import check_batch
from stores.conditions import compare_keys, order_keys
from stores.containers import CONTAINERS, ContainerSpec
from stores.cosmos_account import SERVICE, CosmosAccount, CosmosAddress, CosmosCounters
from stores.cosmos_batch import (
    REJECTIONS,
    applies_once,
    batch_operation,
    committed,
    from_cosmos,
    harmless_twice,
    id_of,
    left_behind,
    token_of,
    unchanged,
)
from stores.cosmos_sql import (
    Slice,
    Statement,
    is_indexed,
    paths,
    select,
    served_order,
)
from stores.ports import (
    BatchResult,
    Committed,
    Document,
    In,
    Operation,
    Order,
    Page,
    Query,
    Rejected,
    Rejection,
    Scalar,
)

MOST_PAGE_ROWS = 1000
_SPECS = {spec.name: spec for spec in CONTAINERS}
_OWNER_MISSING = 1003
Keys = tuple[Scalar, ...]
Row = tuple[Keys, Document]


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of one physical partition, in order.

    Attributes:
        complete: No more follow.
    """

    rows: list[Row]
    complete: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many rows of a partition are asked for.

    Attributes:
        rows: Asked for in one request; a page also ends at 4 MB.
        enough: With fewer the next page is asked for, if there is one.
    """

    rows: int
    enough: int = 1


EVERYTHING = Wanted(MOST_PAGE_ROWS, enough=sys.maxsize)


class CosmosDocuments:
    """Documents in one Cosmos DB database."""

    def __init__(
        self, address: CosmosAddress, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._account = CosmosAccount(address, patience_seconds=patience_seconds)

    @property
    def counters(self) -> CosmosCounters:
        """Requests and request units so far."""
        return self._account.counters

    async def flush(self) -> None:
        """Nothing: what Cosmos DB acknowledged is safe."""

    async def close(self) -> None:
        """Ends the connections."""
        await self._account.close()

    # --- read

    async def read(
        self, container: str, partition_key: str, id: str
    ) -> Document | None:
        """The document, or None; one point read."""
        proxy = await self._account.container(container)
        hook = self._account.hook("read")

        async def attempt() -> Document | None:
            try:
                item = await proxy.read_item(id, partition_key, response_hook=hook)
            except CosmosResourceNotFoundError as error:
                if trouble(error) is not None:
                    raise
                _check_owner(error)
                self._account.counters.add("read", error.headers)
                return None
            return from_cosmos(item)

        return await self._account.repeat("read", attempt)

    # --- batch

    async def batch(
        self, container: str, partition_key: str, operations: Sequence[Operation]
    ) -> BatchResult:
        """Applies all operations or none, in one request.

        After an answer was lost the batch is sent again where that cannot apply it
        twice; its token then tells whether the first had been committed.
        """
        check_batch(partition_key, operations)
        proxy = await self._account.container(container)
        patience = self._account.patience()
        uncertain = False
        result: BatchResult | None = None
        while result is None:
            try:
                result = await self._send(proxy, partition_key, operations)
            except Exception as error:
                fault = trouble(error)
                if fault is None:
                    refused = denied(SERVICE, error)
                    if refused is None:
                        raise
                    raise refused from error
                uncertain = uncertain or fault.maybe_applied
                again = not uncertain or applies_once(operations)
                again = again or harmless_twice(operations)
                if not again or not await patience.pause(fault.after_seconds):
                    raise unavailable(
                        SERVICE, fault.reason, outcome_unknown=uncertain
                    ) from error
                self._account.counters.repeated["batch"] += 1
        if uncertain and isinstance(result, Rejected):
            return await self._settled(container, partition_key, operations, result)
        return result

    async def _send(
        self, proxy: ContainerProxy, partition_key: str, operations: Sequence[Operation]
    ) -> BatchResult:
        try:
            results = await proxy.execute_item_batch(
                [batch_operation(partition_key, each) for each in operations],
                partition_key,
                response_hook=self._account.hook("batch"),
            )
        except CosmosBatchOperationError as error:
            return self._rejected(error)
        except CosmosResourceNotFoundError as error:
            _check_owner(error)
            raise
        return committed(operations, results)

    def _rejected(self, error: CosmosBatchOperationError) -> Rejected:
        status = int(error.status_code or 0)
        reason = REJECTIONS.get(status)
        if reason is None:
            if trouble(error) is not None:
                raise error
            raise ValueError(
                f"Operation {error.error_index} of the batch was refused with {status}"
            ) from error
        self._account.counters.add("batch", error.headers or {})
        return Rejected(int(error.error_index or 0), reason)

    async def _settled(
        self,
        container: str,
        partition_key: str,
        operations: Sequence[Operation],
        rejected: Rejected,
    ) -> BatchResult:
        """The truth about a batch refused after an answer to it had been lost."""
        token = token_of(operations)
        if token is None:
            raise unavailable(SERVICE, "the answer was lost", outcome_unknown=True)
        if rejected != Rejected(0, Rejection.EXISTS):
            return rejected
        found = await self.read(container, partition_key, id_of(operations[0]))
        if found is None or found.get("token") != token:
            return rejected
        return await self._committed_before(container, partition_key, operations)

    async def _committed_before(
        self, container: str, partition_key: str, operations: Sequence[Operation]
    ) -> Committed:
        """What an earlier attempt left behind.

        What somebody has changed since has no etag: theirs would let the caller replace
        a document that it has not seen.
        """
        ids = tuple(dict.fromkeys(id_of(each) for each in operations))
        found: dict[str, Document] = {}
        query = Query(In(("id",), ids))
        after: Keys | None = None
        while True:
            page = await self.query(
                container, query, partition_key=partition_key, limit=100, after=after
            )
            found |= {document["id"]: document for document in page.documents}
            if page.after is None:
                break
            after = page.after
        found_now = [found.get(id_of(each)) for each in operations]
        return unchanged(operations, left_behind(operations, found_now), found_now)

    # --- query

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
        """Documents in order, those after the keyset, less the first `offset`."""
        spec = _SPECS[container]
        _check(query, limit, after, offset)
        order = served_order(spec, query)
        proxy = await self._account.container(container)
        if partition_key is None:
            _check_indexed(spec, query, order)
            return await self._across(proxy, query, order, after, offset, limit)
        if order is None:
            found = await self._all_sorted(proxy, query, partition_key, after)
            return _page(query, found.rows[offset:], limit, complete=True)
        part = Slice(after, offset, limit + 1)
        statement = select(query, order, part, sortable_only=True)
        found = await self._rows(
            proxy, query, statement, Wanted(limit + 1), partition_key=partition_key
        )
        return _page(query, found.rows, limit, complete=found.complete)

    async def _all_sorted(
        self,
        proxy: ContainerProxy,
        query: Query,
        partition_key: str,
        after: Sequence[Scalar] | None,
    ) -> _Found:
        """All rows of a partition in an order that no index serves."""
        statement = select(query, None, Slice(), sortable_only=True)
        found = await self._rows(
            proxy, query, statement, EVERYTHING, partition_key=partition_key
        )
        rows = _sorted(query.order, found.rows)
        if after is not None:
            rows = [row for row in rows if compare_keys(query.order, row[0], after) > 0]
        return _Found(rows, complete=True)

    async def _across(
        self,
        proxy: ContainerProxy,
        query: Query,
        order: Sequence[Order] | None,
        after: Sequence[Scalar] | None,
        offset: int,
        limit: int,
    ) -> Page:
        """A page over all physical partitions, asked at once and merged.

        A partition that was split while it was asked gives its halves one after the
        other, not in order; the list of ranges, which the SDK keeps, tells: ask again.
        """
        statement = select(query, order, Slice(after), sortable_only=False)
        wanted = Wanted(offset + limit + 1, enough=offset + 1)
        while True:
            ranges = await self._ranges(proxy)
            found = await asyncio.gather(
                *(
                    self._rows(proxy, query, statement, wanted, feed_range=each)
                    for each in ranges
                )
            )
            if await self._ranges(proxy) == ranges:
                break
        merged, complete = _merged(query.order, found)
        return _page(query, merged[offset:], limit, complete=complete)

    async def _ranges(self, proxy: ContainerProxy) -> list[dict[str, Any]]:
        """The physical partitions; a request only while the SDK does not know them."""

        async def attempt() -> list[dict[str, Any]]:
            return [each async for each in proxy.read_feed_ranges()]

        return await self._account.repeat("ranges", attempt)

    async def _rows(
        self,
        proxy: ContainerProxy,
        query: Query,
        statement: Statement,
        wanted: Wanted,
        **scope: Any,
    ) -> _Found:
        """Rows of one partition, page by page until there are enough."""

        async def attempt() -> _Found:
            pages: Any = proxy.query_items(
                statement.text,
                parameters=statement.parameters,
                max_item_count=min(wanted.rows, MOST_PAGE_ROWS),
                response_hook=self._account.hook("query"),
                **scope,
            ).by_page()
            rows: list[Row] = []
            async for page in pages:
                async for item in page:
                    keys = order_keys(query.order, item)
                    if keys is not None:
                        rows.append((keys, from_cosmos(item)))
                if len(rows) >= wanted.enough:
                    break
            return _Found(rows, complete=pages.continuation_token is None)

        try:
            return await self._account.repeat("query", attempt)
        except CosmosResourceNotFoundError as error:
            _check_owner(error)
            raise


# --- parts ------------------------------------------------------------------------


def _check_owner(error: CosmosHttpResponseError) -> None:
    """StoreUnavailable when the container itself is not there."""
    if error.sub_status == _OWNER_MISSING:
        raise unavailable(SERVICE, "its containers have not been made") from error


def _check(
    query: Query, limit: int, after: Sequence[Scalar] | None, offset: int
) -> None:
    if limit < 1 or offset < 0:
        raise ValueError("A page holds at least 1 document after 0 or more")
    if not query.order:
        raise ValueError("A query has an order")
    if after is not None and len(after) != len(query.order):
        raise ValueError("The keyset has one value for each key of the order")


def _check_indexed(
    spec: ContainerSpec, query: Query, order: Sequence[Order] | None
) -> None:
    used = paths(query.where) | {key.path for key in query.order}
    for path in sorted(used):
        if not is_indexed(spec, path):
            raise ValueError(f"{'.'.join(path)} is not indexed in {spec.name}")
    if order is None:
        raise ValueError(f"No composite index of {spec.name} serves this order")


def _sorted(order: Sequence[Order], rows: Sequence[Row]) -> list[Row]:
    def compare(left: Row, right: Row) -> int:
        return compare_keys(order, left[0], right[0])

    return sorted(rows, key=cmp_to_key(compare))


def _merged(order: Sequence[Order], found: Sequence[_Found]) -> tuple[list[Row], bool]:
    """All rows in order, up to where a partition's next page would have to come.

    Returns:
        The rows, and whether no more follow.
    """
    rows = _sorted(order, [row for each in found for row in each.rows])
    ends = [each.rows[-1][0] for each in found if not each.complete and each.rows]
    if not ends:
        return rows, True
    least = _sorted(order, [(keys, {}) for keys in ends])[0][0]
    sure = [row for row in rows if compare_keys(order, row[0], least) <= 0]
    return sure, False


def _page(query: Query, rows: Sequence[Row], limit: int, *, complete: bool) -> Page:
    taken = rows[:limit]
    more = len(rows) > limit or not complete
    after = taken[-1][0] if more and taken else None
    return Page(tuple(_projected(query, document) for _, document in taken), after)


def _projected(query: Query, document: Mapping[str, Any]) -> Document:
    names = ("id", *query.fields) if query.fields else tuple(document)
    return {name: document[name] for name in names if name in document}
