"""The destinations of exports: a container on Azurite and a folder, the same cases."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from blackbox.destinations import ACCOUNT, Azurite, running_azurite

from dicomweb.errors import StoreUnavailable
from dicomweb.export_destination import EMULATOR_KEY, BlobContainer, Folder
from stores.blob_export import LOG_BLOCK_BYTES, BlobExport
from stores.folder_export import FolderExport
from stores.ports import BytesSource, DestinationRefused

MIB = 1024 * 1024
# aiohttp 3.14 lets a socket with unsent bytes linger when its request is cancelled, as
# those of a large file are whose source fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*_SelectorTransport:pytest.PytestUnraisableExceptionWarning"
)


class Failing:
    """A source that fails behind its last byte."""

    movable_path: Path | None = None

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.size_bytes // MIB):
            yield b"x" * MIB
        raise LookupError


@pytest.fixture(scope="module")
def azurite():
    with running_azurite() as running:
        yield running


@pytest.fixture(params=["container", "folder"])
async def place(request, tmp_path):
    """A sink and a function that gives what is there."""
    if request.param == "folder":
        sink = FolderExport(tmp_path, Folder("a"))

        def there():
            return {
                str(path.relative_to(tmp_path / "a")): path.read_bytes()
                for path in tmp_path.rglob("a/**/*")
                if path.is_file()
            }

    else:
        azurite = request.getfixturevalue("azurite")
        name = f"c{abs(hash(request.node.name))}"
        container = azurite.container(name)
        sink = BlobExport(of(azurite, name))

        def there():
            return {
                blob.name: container.download_blob(blob.name).readall()
                for blob in container.list_blobs()
            }

    yield sink, there
    await sink.close()
    await asyncio.sleep(0.1)
    gc.collect()


def of(azurite: Azurite, name: str, **more: str) -> BlobContainer:
    url = f"{azurite.origin}/{ACCOUNT}"
    return BlobContainer(url, name, sas=azurite.sas(name, **more))


async def test_files_are_stored_whole_and_replaced(place):
    sink, there = place
    await sink.put("x/1.dcm", BytesSource(b"first"))
    await sink.put("x/1.dcm", BytesSource(b"second"))
    await sink.put("x/2.dcm", BytesSource(b""))
    assert there() == {"x/1.dcm": b"second", "x/2.dcm": b""}


async def test_a_large_file(place):
    sink, there = place
    data = bytes(range(256)) * 4096 * 41
    await sink.put("large.dcm", BytesSource(data))
    assert there() == {"large.dcm": data}


@pytest.mark.parametrize("mebibytes", [1, 40])
async def test_what_the_source_raises_is_raised_and_nothing_stored(place, mebibytes):
    sink, there = place
    with pytest.raises(LookupError):
        await sink.put("bad.dcm", Failing(mebibytes * MIB))
    assert there() == {}


async def test_the_log_is_what_was_written_last(place):
    sink, there = place
    for data in (b"", b"one\n" * LOG_BLOCK_BYTES, b"two\n"):
        await sink.write_log("errors.log", data)
        assert there() == {"errors.log": data}


async def test_what_a_container_refuses_is_told_without_its_signature(azurite):
    azurite.container("refusing")
    missing = BlobExport(of(azurite, "missing"))
    reader = BlobExport(of(azurite, "refusing", permission="r"))
    nobody = BlobExport(BlobContainer(f"{azurite.origin}/{ACCOUNT}", "refusing"))
    for sink, text in (
        (missing, "does not exist"),
        (reader, "authenticate"),
        (nobody, "authenticate"),
    ):
        for write in (
            sink.put("x", BytesSource(b"x")),
            sink.write_log("errors.log", b""),
        ):
            with pytest.raises(DestinationRefused, match=text) as refused:
                await write
            assert "sig" not in str(refused.value)
        await sink.close()


async def test_an_emulator_is_entered_by_its_key(azurite):
    azurite.container("keyed")
    url = f"{azurite.origin}/{ACCOUNT}"
    sink = BlobExport(BlobContainer(url, "keyed", account_key=EMULATOR_KEY))
    await sink.put("x", BytesSource(b"x"))
    await sink.close()
    client = ContainerClient.from_connection_string(azurite.connection, "keyed")
    assert client.download_blob("x").readall() == b"x"


async def test_a_host_that_does_not_answer_is_no_refusal(unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}/{ACCOUNT}"
    sink = BlobExport(BlobContainer(url, "away", sas="sig=x"), patience_seconds=0.2)
    with pytest.raises(StoreUnavailable):
        await sink.put("x", BytesSource(b"x"))
    await sink.close()
