"""The files of an export in a blob container that the caller named: `ExportSink`.

The host has been checked (`dicomweb.export_destination`); here no redirect is followed,
so nothing, and no credential, reaches another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import HttpResponseError
from azure.storage.blob.aio import ContainerClient

from dicomweb.errors import StoreUnavailable, quoted
from dicomweb.export_destination import EMULATOR_ACCOUNT, BlobContainer
from stores.azure_blobs import AzureBlobs, client_options
from stores.ports import DestinationRefused, Source

LOG_BLOCK_BYTES: Final = 2 * 1024 * 1024
PATIENCE_SECONDS: Final = 6.0
_PASSING: Final = frozenset({408, 429})
_MISSING: Final = frozenset({"ContainerNotFound", "ContainerBeingDeleted"})


class _ContainerConnection:
    """A client of the container that the caller named."""

    def __init__(self, destination: BlobContainer) -> None:
        self._identity: Any = None
        self.container = ContainerClient(
            destination.account_url,
            destination.name,
            credential=self._credential(destination),
            permit_redirects=False,
            **client_options(),
        )

    def _credential(self, destination: BlobContainer) -> Any:
        if destination.managed_identity:
            from azure.identity.aio import DefaultAzureCredential

            self._identity = DefaultAzureCredential()
            return self._identity
        if destination.account_key:
            return AzureNamedKeyCredential(EMULATOR_ACCOUNT, destination.account_key)
        return AzureSasCredential(destination.sas) if destination.sas else None

    async def close(self) -> None:
        """Ends the connections."""
        await self.container.close()
        if self._identity is not None:
            await self._identity.close()


class BlobExport:
    """Files and logs in one container."""

    def __init__(
        self, destination: BlobContainer, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        connection = _ContainerConnection(destination)
        self._container = connection.container
        self._name = quoted(destination.name)
        self._host = quoted(destination.account_url.partition("://")[2])
        self._blobs = AzureBlobs(connection, patience_seconds=patience_seconds)

    async def put(self, name: str, source: Source) -> None:
        """Stores a file whole or not at all; one that is there is replaced."""
        with self._refusals():
            await self._blobs.put([(name, source)])

    async def write_log(self, name: str, data: bytes) -> None:
        """Makes the append blob have this content, whatever it had."""
        with self._refusals():
            await self._blobs.append(name, data, LOG_BLOCK_BYTES)

    async def close(self) -> None:
        """Ends the connections."""
        await self._blobs.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What another attempt would not change becomes DestinationRefused."""
        try:
            yield
        except (StoreUnavailable, HttpResponseError) as error:
            cause = error if isinstance(error, HttpResponseError) else error.__cause__
            if not isinstance(cause, HttpResponseError):
                raise
            status = cause.status_code or 500
            if status >= 500 or status in _PASSING:
                raise
            raise DestinationRefused(self._reason(cause, status)) from error

    def _reason(self, error: HttpResponseError, status: int) -> str:
        if status in {401, 403}:
            return (
                f"Unable to authenticate for blob container {self._name} in account"
                f" {self._host}."
            )
        if status == 404 or str(getattr(error, "error_code", "")) in _MISSING:
            return (
                f"Blob container {self._name} does not exist in account {self._host}."
            )
        return f"Failed to write to blob container {self._name} (status {status})."
