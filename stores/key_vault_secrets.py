"""Secrets of operations in Key Vault: `Secrets` for the Azure stack.

A secret is named by its operation. The identity of the app needs the role Key Vault
Secrets Officer on the vault.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from azure.core.exceptions import ResourceNotFoundError

from stores.azure_errors import (
    PATIENCE_SECONDS,
    Patience,
    denied,
    trouble,
    unavailable,
)

SERVICE: Final = "key vault"
PREFIX: Final = "operation-"
T = TypeVar("T")


class KeyVaultSecrets:
    """Secrets in one vault."""

    def __init__(
        self,
        vault: str,
        *,
        credential: Any = None,
        patience_seconds: float = PATIENCE_SECONDS,
        **options: Any,
    ) -> None:
        """Nothing is reached before the first call.

        Args:
            vault: URL of the vault.
            credential: Of azure-identity (async); the app's own identity when None.
            patience_seconds: How long a request is repeated.
            options: Of the client of the SDK.
        """
        self._vault = vault
        self._credential = credential
        self._patience_seconds = patience_seconds
        self._options = options
        self._opened: Any = None

    def _client(self) -> Any:
        from azure.identity.aio import DefaultAzureCredential
        from azure.keyvault.secrets.aio import SecretClient

        if self._opened is None:
            self._credential = self._credential or DefaultAzureCredential()
            self._opened = SecretClient(
                self._vault, self._credential, retry_total=0, **self._options
            )
        return self._opened

    async def put(self, operation_id: str, secret: str) -> None:
        """Keeps the secret until it is deleted."""
        await self._attempt(
            lambda: self._client().set_secret(PREFIX + operation_id, secret)
        )

    async def get(self, operation_id: str) -> str | None:
        """The secret, or None."""
        try:
            found = await self._attempt(
                lambda: self._client().get_secret(PREFIX + operation_id)
            )
        except ResourceNotFoundError:
            return None
        value: str = found.value
        return value

    async def delete(self, operation_id: str) -> None:
        """Forgets it; harmless when there is none."""
        try:
            await self._attempt(
                lambda: self._client().delete_secret(PREFIX + operation_id)
            )
        except ResourceNotFoundError:
            return

    async def operations(self) -> list[str]:
        """Ids of the operations that have a secret."""

        async def names() -> list[str]:
            found = self._client().list_properties_of_secrets()
            return [str(each.name) async for each in found]

        listed = await self._attempt(names)
        return [name.removeprefix(PREFIX) for name in listed if name.startswith(PREFIX)]

    async def close(self) -> None:
        """Ends the connections."""
        if self._opened is not None:
            await self._opened.close()
            await self._credential.close()

    async def _attempt(self, request: Callable[[], Awaitable[T]]) -> T:
        """What the request gives, repeated while its fault passes.

        Raises:
            StoreUnavailable: It does not pass, or access is refused.
        """
        patience = Patience(self._patience_seconds)
        while True:
            try:
                return await request()
            except ResourceNotFoundError:
                raise
            except Exception as error:
                refused = denied(SERVICE, error)
                if refused is not None:
                    raise refused from error
                fault = trouble(error)
                if fault is None:
                    raise
                if not await patience.pause(fault.after_seconds):
                    raise unavailable(SERVICE, fault.reason) from error
