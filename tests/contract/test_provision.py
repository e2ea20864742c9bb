"""Provisioning: what is made, what is changed, what is refused."""

from collections.abc import Iterator

import pytest
from emulators.processes import Emulated, cosmos_emulator, provision

from stores.azure_blobs import AzureBlobs, BlobAddress
from stores.containers import (
    CONTAINERS,
    COUNTERS_KEY,
    DATA_FORMAT,
    SYSTEM,
    WATERMARK_ID,
)
from stores.cosmos_account import FORMAT_ID, FORMAT_PARTITION_KEY, CosmosConnection
from stores.cosmos_documents import CosmosDocuments
from stores.errors import StoreFormatError
from stores.ports import BytesSource, Create
from stores.provision import main, policy_of

pytestmark = pytest.mark.contract

NOTHING = ["nothing to change"]


@pytest.fixture
def empty(emulated: Emulated) -> Iterator[Emulated]:
    """A Cosmos DB account without a database, and a blob container yet to be made."""
    blobs = BlobAddress(
        connection=emulated.blobs.connection, container=f"made-{id(emulated)}"
    )
    with cosmos_emulator() as cosmos:
        yield Emulated(cosmos, blobs)


async def set_format(emulated: Emulated, version: int) -> None:
    async with CosmosConnection(emulated.cosmos) as client:
        database = client.get_database_client(emulated.cosmos.database)
        await database.get_container_client(SYSTEM).upsert_item(
            {"id": FORMAT_ID, "pk": FORMAT_PARTITION_KEY, "version": version}
        )


async def test_everything_is_made_once(empty: Emulated) -> None:
    first = provision(empty, "--dry-run")
    assert "create database dicom" in first
    assert provision(empty, "--dry-run") == first
    made = provision(empty)
    assert [f"create container {spec.name}" in made for spec in CONTAINERS] == (
        [True] * len(CONTAINERS)
    )
    assert f"record data format {DATA_FORMAT}" in made
    assert f"create blob container {empty.blobs.container}" in made
    assert provision(empty) == NOTHING
    documents = CosmosDocuments(empty.cosmos)
    await documents.batch("dicom", "p", [Create({"id": "st"})])
    await documents.close()
    blobs = AzureBlobs(empty.blobs)
    await blobs.put([("a/b", BytesSource(b"1"))])
    assert await blobs.read_range("a/b", 0, 1) == b"1"
    await blobs.close()


async def test_a_changed_policy_is_told_and_mended(empty: Emulated) -> None:
    provision(empty)
    spec = CONTAINERS[1]
    async with CosmosConnection(empty.cosmos) as client:
        database = client.get_database_client(empty.cosmos.database)
        policy = policy_of(spec)
        policy["includedPaths"] = [
            each for each in policy["includedPaths"] if each["path"] != "/f/*"
        ]
        policy["includedPaths"].append({"path": "/old/?"})
        del policy["compositeIndexes"][0]
        from azure.cosmos import PartitionKey

        await database.replace_container(
            spec.name, PartitionKey("/pk"), indexing_policy=policy
        )
        wanted = [
            f"container {spec.name}: includedPaths + /f/*",
            f"container {spec.name}: includedPaths - /old/?",
            f"container {spec.name}: compositeIndexes + /k ascending, /sk descending",
            f"container {spec.name}: defaultTtl -1",
        ]
        assert provision(empty, "--dry-run") == wanted
        assert provision(empty) == wanted
        assert provision(empty) == NOTHING
        found = await database.get_container_client(spec.name).read()
        assert found["indexingPolicy"] == policy_of(spec)
        assert found["defaultTtl"] == -1


async def test_newer_data_are_refused_by_all(empty: Emulated) -> None:
    provision(empty)
    await set_format(empty, DATA_FORMAT + 1)
    with pytest.raises(RuntimeError, match=f"data format {DATA_FORMAT + 1}"):
        provision(empty)
    documents = CosmosDocuments(empty.cosmos)
    with pytest.raises(StoreFormatError, match=f"data format {DATA_FORMAT + 1}"):
        await documents.read("dicom", "p", "st")
    await documents.close()


async def forget_format(emulated: Emulated) -> None:
    async with CosmosConnection(emulated.cosmos) as client:
        database = client.get_database_client(emulated.cosmos.database)
        await database.get_container_client(SYSTEM).delete_item(
            FORMAT_ID, FORMAT_PARTITION_KEY
        )


async def test_containers_that_a_template_made_get_the_record_at_first_use(
    empty: Emulated,
) -> None:
    provision(empty)
    await forget_format(empty)
    documents = CosmosDocuments(empty.cosmos)
    assert await documents.read("dicom", "p", "st") is None
    await documents.close()
    assert provision(empty) == NOTHING


async def test_data_without_a_record_of_their_format_are_refused(
    empty: Emulated,
) -> None:
    provision(empty)
    documents = CosmosDocuments(empty.cosmos)
    await documents.batch(SYSTEM, COUNTERS_KEY, [Create({"id": WATERMARK_ID})])
    await documents.close()
    await forget_format(empty)
    documents = CosmosDocuments(empty.cosmos)
    with pytest.raises(StoreFormatError, match="no record"):
        await documents.read("dicom", "p", "st")
    await documents.close()


async def test_older_data_are_recorded_anew(empty: Emulated) -> None:
    provision(empty)
    await set_format(empty, 0)
    change = [f"record data format {DATA_FORMAT} instead of 0"]
    assert provision(empty, "--dry-run") == change
    assert provision(empty) == change
    assert provision(empty) == NOTHING


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ([], [{"offerThroughput": 100, "offerAutopilotSettings": {"maxThroughput": 1000}}]),
        (["--manual", "600"], [{"offerThroughput": 600}]),
    ],
)  # fmt: skip
async def test_the_throughput_is_as_asked(
    empty: Emulated, options: list[str], content: list[object]
) -> None:
    provision(empty, *options)
    async with CosmosConnection(empty.cosmos) as client:
        database = await client.get_database_client(empty.cosmos.database).read()
        query = {
            "query": "SELECT * FROM root r WHERE r.resource = @link",
            "parameters": [{"name": "@link", "value": database["_self"]}],
        }
        offers = client.client_connection.QueryOffers(query)
        assert [each["content"] async for each in offers] == content


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({}, "DICOM_COSMOS_ENDPOINT"),
        ({"DICOM_COSMOS_ENDPOINT": "https://127.0.0.1:1"}, "DICOM_BLOB_ENDPOINT"),
    ],
)
def test_the_command_names_what_it_needs(
    environment: dict[str, str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--dry-run"], environment)
    assert ended.value.code == 2
    assert missing in capsys.readouterr().err
