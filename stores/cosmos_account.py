"""The connection to a Cosmos DB account: client, containers, counters, repetition.

Only `stores.connect` and the provisioning import this module, and only for the Azure
stack: azure-cosmos costs a third of a second to load.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

from azure.cosmos.aio import ContainerProxy, CosmosClient, DatabaseProxy
from azure.cosmos.exceptions import CosmosResourceNotFoundError

from stores.azure_errors import (
    PATIENCE_SECONDS,
    Patience,
    denied,
    trouble,
    unavailable,
)
from stores.containers import COUNTERS_KEY, DATA_FORMAT, SYSTEM, WATERMARK_ID
from stores.errors import StoreFormatError
from stores.usage import charge

logger = logging.getLogger(__name__)

SERVICE = "index"
CONNECTION_SECONDS = 5
ANSWER_SECONDS = 10
FORMAT_PARTITION_KEY = "format"
FORMAT_ID = "format"
"""The document of the system container that records the version of the data."""
_ONCE: dict[str, Any] = {
    "enable_endpoint_discovery": False,
    "retry_throttle_total": -1,
    "retry_connect": 0,
    "retry_read": 0,
    "retry_status": 0,
}
"""Options by which every request is sent once.

-1: the SDK takes 0 for "not said" and would repeat nine times. Endpoint discovery only
serves repetition in other regions.
"""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CosmosAddress:
    """Where the index is and how to get in.

    Attributes:
        endpoint: URL of the account; plain http is for emulators.
        key: Account key; empty for the managed identity.
    """

    endpoint: str
    database: str
    key: str = ""


@dataclass(slots=True)
class CosmosCounters:
    """What was asked of the account so far.

    Attributes:
        requests: Requests that were answered, by operation (`read`, `batch`, `query`).
        charge: Request units that the answers named, by operation.
        repeated: Attempts after a passing fault, by operation.
    """

    requests: Counter[str] = field(default_factory=Counter)
    charge: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)

    def add(self, operation: str, headers: Mapping[str, Any]) -> None:
        """Counts an answer by its headers."""
        units = float(headers.get("x-ms-request-charge") or 0)
        self.requests[operation] += 1
        charge(units)
        self.charge[operation] += units  # type: ignore[assignment]  # Counter takes any number
        logger.debug("%s: %.2f RU", operation, units)


class _Credential(Protocol):
    async def close(self) -> None: ...


class CosmosConnection:
    """A client and its identity, to be closed together.

    Args:
        address: Where.
        repeats: Whether the SDK may repeat requests by itself.
    """

    def __init__(self, address: CosmosAddress, *, repeats: bool = False) -> None:
        self._identity: _Credential | None = None
        credential: Any = address.key
        if not address.key:
            from azure.identity.aio import DefaultAzureCredential

            credential = self._identity = DefaultAzureCredential()
        self.client = CosmosClient(
            address.endpoint,
            credential,
            **({} if repeats else _ONCE),
            connection_timeout=CONNECTION_SECONDS,
            read_timeout=ANSWER_SECONDS,
        )

    async def __aenter__(self) -> CosmosClient:
        """The client, once it knows its account."""
        return await self.client.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the connections."""
        await self.client.close()
        if self._identity is not None:
            await self._identity.close()


def check_format(record: Mapping[str, Any]) -> None:
    """Refuses (StoreFormatError) data of a newer version than this code's."""
    version = record.get("version")
    if not isinstance(version, int) or version > DATA_FORMAT:
        raise StoreFormatError(
            f"The index has data format {version}; this version of DICOM Functions"
            f" knows formats up to {DATA_FORMAT}"
        )


class CosmosAccount:
    """The containers of one database, opened at the first request."""

    def __init__(
        self, address: CosmosAddress, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._address = address
        self._patience_seconds = patience_seconds
        self._connection: CosmosConnection | None = None
        self._containers: dict[str, ContainerProxy] = {}
        self._opening = asyncio.Lock()
        self.counters = CosmosCounters()

    async def container(self, name: str) -> ContainerProxy:
        """The container's client."""
        found = self._containers.get(name)
        if found is not None:
            return found
        async with self._opening:
            if self._connection is None:
                self._connection = await self._open()
            database = self._database(self._connection)
            return self._containers.setdefault(
                name, database.get_container_client(name)
            )

    def _database(self, connection: CosmosConnection) -> DatabaseProxy:
        return connection.client.get_database_client(self._address.database)

    async def _open(self) -> CosmosConnection:
        """A connection to data of a format that we know."""
        connection = CosmosConnection(self._address)
        system = self._database(connection).get_container_client(SYSTEM)
        try:
            await self.repeat("open", connection.__aenter__)
            check_format(await self._format(system))
        except CosmosResourceNotFoundError as error:
            await connection.__aexit__(None, None, None)
            raise unavailable(SERVICE, "it has not been provisioned") from error
        except BaseException:
            await connection.__aexit__(None, None, None)
            raise
        return connection

    async def _format(self, system: ContainerProxy) -> Mapping[str, Any]:
        """The record of the data format, made where a template made the containers."""
        try:
            return await self.repeat(
                "read", lambda: system.read_item(FORMAT_ID, FORMAT_PARTITION_KEY)
            )
        except CosmosResourceNotFoundError:
            pass
        try:
            await self.repeat(
                "read", lambda: system.read_item(WATERMARK_ID, COUNTERS_KEY)
            )
        except CosmosResourceNotFoundError:
            record = {
                "id": FORMAT_ID,
                "pk": FORMAT_PARTITION_KEY,
                "version": DATA_FORMAT,
            }
            # The same whoever writes it, so two processes that start do no harm.
            return await self.repeat("upsert", lambda: system.upsert_item(record))
        raise StoreFormatError("The index has data but no record of their format")

    async def repeat(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of an attempt that may be repeated freely.

        Raises:
            StoreUnavailable: No attempt succeeded in time.
            AzureError: The service refused the request itself.
        """
        patience = self.patience()
        while True:
            try:
                return await attempt()
            except Exception as error:
                fault = trouble(error)
                if fault is None:
                    refused = denied(SERVICE, error)
                    if refused is None:
                        raise
                    raise refused from error
                logger.debug("%s: %s", operation, fault.reason)
                if not await patience.pause(fault.after_seconds):
                    raise unavailable(SERVICE, fault.reason) from error
                self.counters.repeated[operation] += 1

    def patience(self) -> Patience:
        """Pauses for one operation."""
        return Patience(self._patience_seconds)

    def hook(self, operation: str) -> Callable[[Mapping[str, Any], Any], None]:
        """What the SDK shall call with each answer."""

        def count(headers: Mapping[str, Any], _result: Any) -> None:
            self.counters.add(operation, headers)

        return count

    async def close(self) -> None:
        """Ends the connections."""
        if self._connection is not None:
            await self._connection.__aexit__(None, None, None)
            self._connection = None
            self._containers.clear()
