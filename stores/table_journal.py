"""The journal in one Azure table: `Journal` for the Azure stack.

A partition per kind. The service lists by key, ascending, and nothing else; each row
is therefore kept twice, under a key that falls with time (`d|…`, newest first) and
under one that rises (`a|…`), written and deleted by the same transaction.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from stores.azure_errors import (
    PATIENCE_SECONDS,
    Patience,
    denied,
    trouble,
    unavailable,
)
from stores.ports import JournalRow

SERVICE: Final = "journal"
MAX_TRANSACTION: Final = 100
MAX_TRANSACTION_BYTES: Final = 2_000_000
CONNECTION_SECONDS: Final = 5
ANSWER_SECONDS: Final = 60
_NEWEST, _OLDEST, _END = "d|", "a|", "~"
_LAST: Final = 10**18 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where the table is and how to get in.

    Attributes:
        endpoint: URL of the table service, entered with the managed identity.
        connection: Connection string, used instead of the endpoint when not empty.
        table: Its name.
    """

    endpoint: str = ""
    connection: str = ""
    table: str = "journal"


class TableJournal:
    """Rows by kind and time in one table, which is made when missing."""

    def __init__(
        self, address: TableAddress, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        options: dict[str, Any] = {
            "retry_total": 0,
            "connection_timeout": CONNECTION_SECONDS,
            "read_timeout": ANSWER_SECONDS,
        }
        self._patience_seconds = patience_seconds
        self._identity: Any = None
        if address.connection:
            self._table = TableClient.from_connection_string(
                address.connection, address.table, **options
            )
            return
        from azure.identity.aio import DefaultAzureCredential

        self._identity = DefaultAzureCredential()
        self._table = TableClient(
            address.endpoint, address.table, credential=self._identity, **options
        )

    async def put(self, kind: str, rows: Sequence[JournalRow]) -> None:
        """Writes the rows, each with both its keys in one transaction."""
        pairs = []
        for row in rows:
            data = orjson.dumps(row.data).decode()
            pairs.append(
                [
                    {"PartitionKey": kind, "RowKey": key, "data": data}
                    for key in _keys(row.at, row.id)
                ]
            )
        for chunk in _chunks(pairs):
            operations = [
                ("upsert", entity, {"mode": UpdateMode.REPLACE}) for entity in chunk
            ]
            try:
                await self._submit(operations)
            except ResourceNotFoundError:
                await self._create_table()
                await self._submit(operations)

    async def page(
        self, kind: str, *, limit: int, offset: int = 0, oldest_first: bool = False
    ) -> list[JournalRow]:
        """Rows of the kind, newest first or oldest first."""
        prefix = _OLDEST if oldest_first else _NEWEST

        async def read() -> list[JournalRow]:
            found: list[JournalRow] = []
            skipped = 0
            async for entity in self._query(kind, prefix, prefix + _END):
                if skipped < offset:
                    skipped += 1
                    continue
                if len(found) == limit:
                    break
                found.append(_decoded(entity))
            return found

        try:
            return await self._attempt(read)
        except ResourceNotFoundError:
            return []

    async def count(self, kind: str) -> int:
        """How many rows the kind has; a request for each thousand."""

        async def read() -> int:
            count = 0
            async for _ in self._query(kind, _OLDEST, _OLDEST + _END, ["RowKey"]):
                count += 1
            return count

        try:
            return await self._attempt(read)
        except ResourceNotFoundError:
            return 0

    async def purge(self, kind: str, before: datetime | None = None) -> int:
        """Deletes the rows older than `before`, all when None; how many."""
        end = _OLDEST + (_END if before is None else f"{_microseconds(before):018d}")
        count = 0
        while True:
            keys = await self._page_of_keys(kind, end)
            if not keys:
                return count
            doomed = []
            for key in keys:
                at, id = _parsed(key)
                doomed += [
                    {"PartitionKey": kind, "RowKey": each} for each in _keys(at, id)
                ]
            await self._delete(doomed)
            count += len(keys)

    async def delete(self, kind: str, keys: Sequence[tuple[datetime, str]]) -> int:
        """Deletes the rows, one after another; how many of them there were."""
        count = 0
        for at, id in keys:
            pair = [{"PartitionKey": kind, "RowKey": key} for key in _keys(at, id)]
            try:
                await self._submit([("delete", entity) for entity in pair])
                count += 1
            except ResourceNotFoundError:
                continue
        return count

    async def close(self) -> None:
        """Ends the connections."""
        await self._table.close()
        if self._identity is not None:
            await self._identity.close()

    # --- requests

    def _query(
        self, kind: str, low: str, high: str, fields: list[str] | None = None
    ) -> AsyncIterator[Any]:
        entities: AsyncIterator[Any] = self._table.query_entities(
            "PartitionKey eq @kind and RowKey ge @low and RowKey lt @high",
            parameters={"kind": kind, "low": low, "high": high},
            select=fields,
        )
        return entities

    async def _page_of_keys(self, kind: str, end: str) -> list[str]:
        async def read() -> list[str]:
            keys: list[str] = []
            async for entity in self._query(kind, _OLDEST, end):
                keys.append(entity["RowKey"])
                if len(keys) == MAX_TRANSACTION // 2:
                    break
            return keys

        try:
            return await self._attempt(read)
        except ResourceNotFoundError:
            return []

    async def _delete(self, entities: Sequence[dict[str, Any]]) -> None:
        """Deletes the entities; another process may be deleting them too."""
        try:
            await self._submit([("delete", entity) for entity in entities])
        except ResourceNotFoundError:
            for entity in entities:
                await self._delete_one(entity)

    async def _delete_one(self, entity: dict[str, Any]) -> None:
        try:
            await self._attempt(
                lambda: self._table.delete_entity(
                    entity["PartitionKey"], entity["RowKey"]
                )
            )
        except ResourceNotFoundError:
            return

    async def _submit(self, operations: Sequence[Any]) -> None:
        await self._attempt(lambda: self._table.submit_transaction(operations))

    async def _create_table(self) -> None:
        try:
            await self._attempt(self._table.create_table)
        except ResourceExistsError:
            return

    async def _attempt(self, request: Callable[[], Awaitable[T]]) -> T:
        """What the request gives, repeated while its fault passes.

        Raises:
            ResourceNotFoundError: There is no such entity or no such table.
            StoreUnavailable: The fault does not pass, or access is refused.
        """
        patience = Patience(self._patience_seconds)
        while True:
            try:
                return await request()
            except Exception as error:
                if getattr(error, "status_code", None) == HTTPStatus.NOT_FOUND:
                    raise ResourceNotFoundError(str(error)) from error
                refused = denied(SERVICE, error)
                if refused is not None:
                    raise refused from error
                fault = trouble(error)
                if fault is None:
                    raise
                if not await patience.pause(fault.after_seconds):
                    raise unavailable(SERVICE, fault.reason) from error


# --- keys ---------------------------------------------------------------------------


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _keys(at: datetime, id: str) -> tuple[str, str]:
    """The falling and the rising key."""
    time = _microseconds(at)
    return f"{_NEWEST}{_LAST - time:018d}|{id}", f"{_OLDEST}{time:018d}|{id}"


def _parsed(rising_key: str) -> tuple[datetime, str]:
    _, time, id = rising_key.split("|", 2)
    return _EPOCH + int(time) * _MICROSECOND, id


def _decoded(entity: Any) -> JournalRow:
    mark, time, id = entity["RowKey"].split("|", 2)
    elapsed = int(time) if mark == _OLDEST[0] else _LAST - int(time)
    return JournalRow(_EPOCH + elapsed * _MICROSECOND, id, orjson.loads(entity["data"]))


def _chunks(rows: Sequence[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """The rows' entities in transactions that the service takes."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for entities in rows:
        length = sum(2 * len(entity["data"]) + 1024 for entity in entities)
        full = len(chunk) + len(entities) > MAX_TRANSACTION
        if chunk and (full or size + length > MAX_TRANSACTION_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk += entities
        size += length
    if chunk:
        yield chunk
