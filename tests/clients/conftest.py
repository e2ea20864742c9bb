"""One server of the product for all clients of other people."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox.hosts import ROOT, Running, boot


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clients")
    running = boot(ROOT, folder, "--workers", "1", DICOM_DATA=str(folder))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")
