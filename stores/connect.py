"""Opens the stores that the settings name."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from dicomweb.export_destination import Destination, Folder
from stores.errors import disk_unavailable
from stores.ports import ExportSink, Secrets, Stores, TokenKeys

logger = logging.getLogger(__name__)

INDEX_FOLDER = "index"
BLOB_FOLDER = "blobs"
JOURNAL_FOLDER = "journal"
SECRETS_FOLDER = "secrets"


class StoreSettings(Protocol):
    """The settings that matter here, as `services.settings.Settings` has them."""

    @property
    def store(self) -> str:
        """`embedded` or `azure`."""
        ...

    @property
    def data(self) -> Path:
        """Embedded: the folder of the index and the files."""
        ...

    @property
    def durability(self) -> str:
        """Embedded: `power-loss` or `process-crash`."""
        ...

    @property
    def cosmos_endpoint(self) -> str:
        """Azure: URL of the Cosmos DB account."""
        ...

    @property
    def cosmos_database(self) -> str:
        """Azure: name of the database."""
        ...

    @property
    def cosmos_key(self) -> str:
        """Azure: key of the account; empty for the managed identity."""
        ...

    @property
    def blob_endpoint(self) -> str:
        """Azure: URL of the blob service, entered with the managed identity."""
        ...

    @property
    def blob_connection(self) -> str:
        """Azure: connection string, used instead of the endpoint if not empty."""
        ...

    @property
    def blob_container(self) -> str:
        """Azure: name of the blob container."""
        ...

    @property
    def table_endpoint(self) -> str:
        """Azure: URL of the table service; empty for that of the blob account."""
        ...

    @property
    def table(self) -> str:
        """Azure: name of the table of the journal."""
        ...

    @property
    def key_vault(self) -> str:
        """Azure: URL of the vault; a file of the data folder where empty."""
        ...

    @property
    def export_root(self) -> str:
        """Folder below which exports may be written; empty for none."""
        ...


def connect(settings: StoreSettings) -> Stores:
    """The stores, ready for use.

    Raises:
        StoreFormatError: The index is of a newer version or not one of ours (the Azure
            index says so at its first request).
        StoreUnavailable: The disk is full or failed; what was opened is closed again.
        ValueError: There is no such kind of store.
    """
    if settings.store == "embedded":
        return _embedded(settings)
    if settings.store == "azure":
        return _azure(settings)
    raise ValueError(f"There is no store {settings.store!r}")


def token_keys(authority: str) -> TokenKeys:
    """The keys of the issuer of tokens; nothing is fetched yet."""
    from stores.token_keys import HttpTokenKeys

    return HttpTokenKeys(authority)


def _embedded(settings: StoreSettings) -> Stores:
    from stores.directory_blobs import DirectoryBlobs
    from stores.file_secrets import FileSecrets
    from stores.sqlite_documents import SqliteDocuments
    from stores.sqlite_journal import SqliteJournal

    data, survives = settings.data, settings.durability == "power-loss"
    with ExitStack() as opened:
        try:
            documents = SqliteDocuments(
                data / INDEX_FOLDER, survives_power_loss=survives
            )
            opened.callback(documents.close_now)
            journal = SqliteJournal(data / JOURNAL_FOLDER, survives_power_loss=survives)
            opened.callback(journal.close_now)
            blobs = DirectoryBlobs(data / BLOB_FOLDER, survives_power_loss=survives)
        except OSError as error:
            # The answer names no paths; whoever runs the server needs them.
            logger.error("The data folder cannot be used: %s", error)  # noqa: TRY400
            raise disk_unavailable(error) from error
        opened.pop_all()
    secrets = FileSecrets(data / SECRETS_FOLDER)
    return Stores(documents, blobs, journal, secrets, blobs.spool_folder)


def export_sink(settings: StoreSettings, destination: Destination) -> ExportSink:
    """Where the files of an export go; a container is not reached yet.

    Raises:
        DestinationRefused: The folder cannot be written to.
    """
    if isinstance(destination, Folder):
        from stores.folder_export import FolderExport

        return FolderExport(Path(settings.export_root), destination)
    from stores.blob_export import BlobExport

    return BlobExport(destination)


def _azure(settings: StoreSettings) -> Stores:
    """Nothing is reached yet: the first request opens the connections."""
    from stores.azure_blobs import AzureBlobs, BlobAddress
    from stores.cosmos_account import CosmosAddress
    from stores.cosmos_documents import CosmosDocuments
    from stores.table_journal import TableAddress, TableJournal

    index = CosmosAddress(
        settings.cosmos_endpoint, settings.cosmos_database, settings.cosmos_key
    )
    blobs = BlobAddress(
        settings.blob_endpoint, settings.blob_connection, settings.blob_container
    )
    table = TableAddress(
        settings.table_endpoint or _table_endpoint(settings.blob_endpoint),
        settings.blob_connection,
        settings.table,
    )
    return Stores(
        CosmosDocuments(index),
        AzureBlobs(blobs),
        TableJournal(table),
        _azure_secrets(settings),
    )


def _table_endpoint(blob_endpoint: str) -> str:
    """The table service of the account whose blob service this is."""
    return blob_endpoint.replace(".blob.", ".table.", 1)


def _azure_secrets(settings: StoreSettings) -> Secrets:
    if settings.key_vault:
        from stores.key_vault_secrets import KeyVaultSecrets

        return KeyVaultSecrets(settings.key_vault)
    from stores.file_secrets import FileSecrets

    return FileSecrets(settings.data / SECRETS_FOLDER)
