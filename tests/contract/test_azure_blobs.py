"""AzureBlobs beyond the common contract: blocks, requests, faults."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from emulators.processes import Emulated
from emulators.proxy import Proxy, counted

from dicomweb.errors import StoreUnavailable
from stores import azure_blobs
from stores.azure_blobs import AzureBlobs, BlobAddress
from stores.ports import BlobMissing, BytesSource

pytestmark = pytest.mark.contract

_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    return f"azure/{next(_numbers)}/x"


@asynccontextmanager
async def through_proxy(
    emulated: Emulated, patience_seconds: float = 5
) -> AsyncIterator[tuple[AzureBlobs, Proxy]]:
    async with counted(emulated.blobs) as (address, proxy):
        blobs = AzureBlobs(address, patience_seconds=patience_seconds)
        try:
            yield blobs, proxy
        finally:
            await blobs.close()


async def test_a_put_is_one_request_and_a_range_is_one(
    emulated: Emulated, name: str
) -> None:
    async with through_proxy(emulated) as (blobs, proxy):
        await blobs.put([(name, BytesSource(bytes(9_000_000)))])
        assert proxy.requests == ["PUT"]
        assert len(await blobs.read_range(name, 1_000_000, 6_000_000)) == 6_000_000
        assert proxy.requests == ["PUT", "GET"]
        assert [len(chunk) async for chunk in blobs.read(name)] == [
            azure_blobs.READ_BYTES, azure_blobs.READ_BYTES,
            9_000_000 - 2 * azure_blobs.READ_BYTES,
        ]  # fmt: skip
        assert proxy.requests == ["PUT", *["GET"] * 4]


async def test_a_large_blob_goes_in_blocks_and_outlives_faults(
    emulated: Emulated, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_blobs, "SINGLE_PUT_BYTES", 1_000_000)
    monkeypatch.setattr(azure_blobs, "BLOCK_BYTES", 400_000)
    data = b"".join(n.to_bytes(4, "big") for n in range(500_001))
    async with through_proxy(emulated) as (blobs, proxy):
        proxy.cut_answers = 2
        proxy.busy_answers = 2
        await blobs.put([(name, BytesSource(data))])
        assert proxy.requests.count("PUT") == 6 + 1 + 4
        assert await blobs.read_range(name, 0, len(data) + 1) == data
        await blobs.splice(name + "2", b"head", name, 1_000)
        assert (
            b"".join([bytes(c) async for c in blobs.read(name + "2")])
            == b"head" + data[1_000:]
        )


@pytest.mark.parametrize("fault", ["cut_answers", "busy_answers"])
async def test_every_operation_outlives_two_faults(
    emulated: Emulated, name: str, fault: str
) -> None:
    async with through_proxy(emulated) as (blobs, proxy):
        setattr(proxy, fault, 2)
        await blobs.put([(name, BytesSource(b"1234"))])
        setattr(proxy, fault, 2)
        assert [bytes(c) async for c in blobs.read(name, offset=1)] == [b"234"]
        setattr(proxy, fault, 2)
        await blobs.copy(name, name + "2")
        setattr(proxy, fault, 2)
        found = await blobs.properties(name + "2")
        assert found is not None
        assert found.size_bytes == 4
        setattr(proxy, fault, 2)
        assert [b.name async for b in blobs.list(name)] == [name, name + "2"]
        setattr(proxy, fault, 2)
        await blobs.delete(name)
        with pytest.raises(BlobMissing):
            await blobs.read_range(name, 0, 1)


async def test_what_does_not_pass_is_store_unavailable(
    emulated: Emulated, name: str
) -> None:
    async with through_proxy(emulated, patience_seconds=0.3) as (blobs, proxy):
        proxy.busy_answers = 1000
        with pytest.raises(StoreUnavailable):
            await blobs.put(
                [(name, BytesSource(b"1")), (name + "2", BytesSource(b"2"))]
            )
        with pytest.raises(StoreUnavailable):
            await blobs.delete(name)


async def test_a_blob_that_changes_while_it_is_read_ends_the_reading(
    emulated: Emulated, name: str
) -> None:
    blobs = AzureBlobs(emulated.blobs)
    await blobs.put([(name, BytesSource(b"a" * 13_000_000))])
    reading = blobs.read(name)
    await anext(reading)
    await blobs.put([(name, BytesSource(b"b" * 13_000_000))])
    with pytest.raises(StoreUnavailable, match="changed"):
        async for _ in reading:
            pass
    await blobs.close()


async def test_a_container_that_was_not_made_says_so(
    emulated: Emulated, name: str
) -> None:
    address = BlobAddress(connection=emulated.blobs.connection, container="never-made")
    blobs = AzureBlobs(address)
    with pytest.raises(StoreUnavailable, match="container"):
        await blobs.put([(name, BytesSource(b"1"))])
    await blobs.close()


async def test_a_wrong_key_is_store_unavailable(emulated: Emulated, name: str) -> None:
    connection = emulated.blobs.connection.replace("AccountKey=Eby8", "AccountKey=AAAA")
    blobs = AzureBlobs(BlobAddress(connection=connection, container="dicom"))
    with pytest.raises(StoreUnavailable, match="access was refused"):
        await blobs.put([(name, BytesSource(b"1"))])
    await blobs.close()


async def test_a_list_goes_on_over_its_pages(
    emulated: Emulated, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = AzureBlobs(emulated.blobs)
    names = sorted(f"{name}/{n}" for n in range(12))
    await blobs.put([(each, BytesSource(b"1")) for each in names])
    listing = blobs._container.list_blobs
    monkeypatch.setattr(
        blobs._container,
        "list_blobs",
        lambda **options: listing(**options, results_per_page=5),
    )
    assert [blob.name async for blob in blobs.list(name)] == names
    await blobs.close()
