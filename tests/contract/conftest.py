"""The adapters that the contracts run on: the same cases for each."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from emulators.processes import AZURITE, Emulated, both, counters

from stores.azure_blobs import AzureBlobs
from stores.cosmos_documents import CosmosDocuments
from stores.directory_blobs import DirectoryBlobs
from stores.ports import Blobs, Documents
from stores.sqlite_documents import SqliteDocuments


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Documents]:
    documents = SqliteDocuments(folder)
    try:
        yield documents
    finally:
        await documents.close()


@asynccontextmanager
async def directory(folder: Path) -> AsyncIterator[Blobs]:
    blobs = DirectoryBlobs(folder)
    try:
        yield blobs
    finally:
        await blobs.close()


@asynccontextmanager
async def cosmos(emulated: Emulated) -> AsyncIterator[CosmosDocuments]:
    documents = CosmosDocuments(emulated.cosmos)
    try:
        yield documents
    finally:
        await documents.close()


@asynccontextmanager
async def blob_storage(emulated: Emulated) -> AsyncIterator[AzureBlobs]:
    blobs = AzureBlobs(emulated.blobs)
    try:
        yield blobs
    finally:
        await blobs.close()


EMBEDDED_DOCUMENTS: dict[
    str, Callable[[Path], AbstractAsyncContextManager[Documents]]
] = {"sqlite": sqlite}
AZURE_DOCUMENTS: dict[
    str, Callable[[Emulated], AbstractAsyncContextManager[Documents]]
] = {"cosmos": cosmos}
EMBEDDED_BLOBS: dict[str, Callable[[Path], AbstractAsyncContextManager[Blobs]]] = {
    "directory": directory
}
AZURE_BLOBS: dict[str, Callable[[Emulated], AbstractAsyncContextManager[Blobs]]] = {
    "blob-storage": blob_storage
}


LARGE_BODY = "ignore:Sending a large body directly:ResourceWarning"
"""aiohttp 3.14 says so of bodies over 1 MB, which the Azure SDKs send as bytes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The emulators are on loopback; nothing else may be reached."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            item.add_marker(pytest.mark.filterwarnings(LARGE_BODY))


@pytest.fixture(scope="session")
def emulated() -> Iterator[Emulated]:
    """The emulators of Cosmos DB, blobs and tables, shared by all cases."""
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with both() as running:
        yield running
        assert counters(running)["scans"] == [], "queries that no index serves"


@pytest.fixture(params=[*EMBEDDED_DOCUMENTS, *AZURE_DOCUMENTS])
async def documents(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Documents]:
    if request.param in EMBEDDED_DOCUMENTS:
        opened = EMBEDDED_DOCUMENTS[request.param](tmp_path / "index")
    else:
        opened = AZURE_DOCUMENTS[request.param](request.getfixturevalue("emulated"))
    async with opened as adapter:
        yield adapter


@pytest.fixture(params=[*EMBEDDED_BLOBS, *AZURE_BLOBS])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    if request.param in EMBEDDED_BLOBS:
        opened = EMBEDDED_BLOBS[request.param](tmp_path / "blobs")
    else:
        opened = AZURE_BLOBS[request.param](request.getfixturevalue("emulated"))
    async with opened as adapter:
        yield adapter
