import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomweb.errors import StoreUnavailable
from stores.connect import connect
from stores.containers import SYSTEM
from stores.ports import BytesSource, Create


@dataclass(frozen=True)
class Chosen:
    """What `connect` reads of the settings."""

    data: Path
    store: str = "embedded"
    durability: str = "power-loss"
    cosmos_endpoint: str = ""
    cosmos_database: str = ""
    cosmos_key: str = ""
    blob_endpoint: str = ""
    blob_connection: str = ""
    blob_container: str = ""


@pytest.mark.parametrize("durability", ["power-loss", "process-crash"])
async def test_the_embedded_stores_keep_all_below_the_data_folder(
    tmp_path: Path, durability: str
) -> None:
    stores = connect(Chosen(tmp_path / "data", durability=durability))
    await stores.documents.batch(SYSTEM, "tags", [Create({"id": "registry"})])
    await stores.documents.flush()
    assert stores.spool_folder is not None
    await stores.blobs.put([("a/b", BytesSource(b"1"))])
    await stores.close()
    again = connect(Chosen(tmp_path / "data", durability=durability))
    assert await again.documents.read(SYSTEM, "tags", "registry") is not None
    assert await again.blobs.read_range("a/b", 0, 9) == b"1"
    await again.close()


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cloud"):
        connect(Chosen(tmp_path, store="cloud"))


async def test_a_start_on_a_store_that_is_there_writes_nothing(tmp_path: Path) -> None:
    """So it succeeds on a full disk."""
    settings = Chosen(tmp_path)
    await connect(settings).close()
    stores = connect(settings)
    for log in ("index/index.db-wal", "journal/journal.db-wal"):
        assert (tmp_path / log).stat().st_size == 0, log
    await stores.close()


@pytest.mark.parametrize("broken", ["index/index.db", "journal/journal.db", "blobs"])
async def test_a_start_that_fails_is_a_503_and_leaves_nothing_open(
    tmp_path: Path, broken: str
) -> None:
    """Every request tries again, so nothing may add up."""
    settings = Chosen(tmp_path)
    await connect(settings).close()
    place = tmp_path / broken
    if place.is_dir():
        shutil.rmtree(place)
        place.touch()
    else:
        place.unlink()
        place.mkdir()
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            connect(settings)
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_the_log_names_the_path_that_failed_and_the_answer_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "index").write_text("no folder")
    with pytest.raises(StoreUnavailable) as refused:
        connect(Chosen(tmp_path))
    assert str(tmp_path) not in str(refused.value)
    assert f"'{tmp_path / 'index'}" in caplog.text
