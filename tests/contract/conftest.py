"""The adapters that the contracts run on: the same cases for each."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

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


DOCUMENTS: dict[str, Callable[[Path], AbstractAsyncContextManager[Documents]]] = {
    "sqlite": sqlite
}
BLOBS: dict[str, Callable[[Path], AbstractAsyncContextManager[Blobs]]] = {
    "directory": directory
}


@pytest.fixture(params=DOCUMENTS)
async def documents(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Documents]:
    async with DOCUMENTS[request.param](tmp_path / "index") as adapter:
        yield adapter


@pytest.fixture(params=BLOBS)
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    async with BLOBS[request.param](tmp_path / "blobs") as adapter:
        yield adapter
