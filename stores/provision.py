"""Makes and upgrades what the Azure stack needs: our schema manager.

Database, containers with their index policies, the record of the data format, and the
blob container. Every step compares first, so it may run at each deployment; with
`--dry-run` it only says what it would do. A store of a newer format is refused.

    python -m stores.provision --dry-run

reads the same DICOM_COSMOS_… and DICOM_BLOB_… variables as the server.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError
from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import ContainerProxy, CosmosClient, DatabaseProxy
from azure.cosmos.exceptions import CosmosResourceNotFoundError

from stores.azure_blobs import BlobAddress, BlobConnection
from stores.containers import CONTAINERS, DATA_FORMAT, SYSTEM, ContainerSpec
from stores.cosmos_account import (
    FORMAT_ID,
    FORMAT_PARTITION_KEY,
    CosmosAddress,
    CosmosConnection,
    check_format,
)
from stores.ports import FieldPath, Order

KEEP_UNTIL_SAID: Final = -1
"""Default TTL: documents live on, and a `ttl` of their own counts."""
AUTOSCALE_RU: Final = 1000


@dataclass(frozen=True, slots=True)
class Throughput:
    """Request units per second that all containers share.

    Attributes:
        autoscale: Greatest value; 0 for none.
        manual: Fixed value; 0 for none. Both 0: a serverless account.
    """

    autoscale: int = AUTOSCALE_RU
    manual: int = 0

    def offer(self) -> int | ThroughputProperties | None:
        """As the SDK takes it."""
        if self.autoscale:
            return ThroughputProperties(auto_scale_max_throughput=self.autoscale)
        return self.manual or None


# --- index policies ---------------------------------------------------------------


def policy_of(spec: ContainerSpec) -> dict[str, Any]:
    """The indexing policy of a container.

    Source: Azure Cosmos DB documentation, index-policy.md.
    """
    paths = sorted({path for each in spec.indexed for path in _policy_paths(each)})
    return {
        "indexingMode": "consistent",
        "automatic": True,
        "includedPaths": [{"path": path} for path in ["/pk/?", *paths]],
        "excludedPaths": [{"path": "/*"}],
        "compositeIndexes": [
            [_composite_part(key) for key in keys] for keys in spec.composites
        ],
    }


def _policy_paths(path: FieldPath) -> tuple[str, ...]:
    """A scalar and the elements of a list; `*` covers both."""
    text = "/" + "/".join(path)
    return (text,) if path[-1] == "*" else (f"{text}/?", f"{text}/[]/?")


def _composite_part(key: Order) -> dict[str, str]:
    return {
        "path": "/" + "/".join(key.path),
        "order": "descending" if key.descending else "ascending",
    }


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What has to change in a policy, one line each.

    The service's own additions and the order of the paths do not count.
    """
    lines: list[str] = []
    for name in ("includedPaths", "excludedPaths"):
        old = {each["path"] for each in found.get(name, [])} - {'/"_etag"/?'}
        new = {each["path"] for each in wanted[name]}
        lines += [f"{name} + {path}" for path in sorted(new - old)]
        lines += [f"{name} - {path}" for path in sorted(old - new)]
    old_keys = {_composite_text(each) for each in found.get("compositeIndexes", [])}
    new_keys = {_composite_text(each) for each in wanted["compositeIndexes"]}
    lines += [f"compositeIndexes + {text}" for text in sorted(new_keys - old_keys)]
    lines += [f"compositeIndexes - {text}" for text in sorted(old_keys - new_keys)]
    if found.get("indexingMode") != wanted["indexingMode"]:
        lines.append(f"indexingMode {wanted['indexingMode']}")
    return lines


def _composite_text(keys: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(f"{key['path']} {key.get('order', 'ascending')}" for key in keys)


# --- steps ------------------------------------------------------------------------


async def provision(
    cosmos: CosmosAddress,
    blobs: BlobAddress,
    throughput: Throughput,
    *,
    dry_run: bool = False,
) -> list[str]:
    """Makes what is missing and changes what differs.

    Returns:
        One line for each change that was made, or would be; empty when all is as it
        should be.

    Raises:
        StoreFormatError: The data are of a newer format.
    """
    async with CosmosConnection(cosmos, repeats=True) as client:
        lines = [
            line async for line in _index(client, cosmos.database, throughput, dry_run)
        ]
    return lines + await _blob_container(blobs, dry_run)


async def _index(
    client: CosmosClient, name: str, throughput: Throughput, dry_run: bool
) -> AsyncIterator[str]:
    database = client.get_database_client(name)
    try:
        await database.read()
    except CosmosResourceNotFoundError:
        yield f"create database {name}"
        if dry_run:
            for spec in CONTAINERS:
                yield f"create container {spec.name}"
            return
        await client.create_database_if_not_exists(
            name, offer_throughput=throughput.offer()
        )
    async for line in _format(database, dry_run):
        yield line
    for spec in CONTAINERS:
        async for line in _container(database, spec, dry_run):
            yield line


async def _format(database: DatabaseProxy, dry_run: bool) -> AsyncIterator[str]:
    """The record of the data format, before anything else is touched."""
    spec = next(each for each in CONTAINERS if each.name == SYSTEM)
    container = database.get_container_client(SYSTEM)
    try:
        found = await container.read_item(FORMAT_ID, FORMAT_PARTITION_KEY)
    except CosmosResourceNotFoundError:
        yield f"record data format {DATA_FORMAT}"
        if dry_run:
            return
        async for line in _container(database, spec, dry_run):
            yield line
        await _record_format(container)
        return
    check_format(found)
    if found["version"] < DATA_FORMAT:
        yield f"record data format {DATA_FORMAT} instead of {found['version']}"
        if not dry_run:
            await _record_format(container)


async def _record_format(container: ContainerProxy) -> None:
    await container.upsert_item(
        {"id": FORMAT_ID, "pk": FORMAT_PARTITION_KEY, "version": DATA_FORMAT}
    )


async def _container(
    database: DatabaseProxy, spec: ContainerSpec, dry_run: bool
) -> AsyncIterator[str]:
    wanted = policy_of(spec)
    key = PartitionKey("/pk")
    try:
        found = await database.get_container_client(spec.name).read()
    except CosmosResourceNotFoundError:
        yield f"create container {spec.name}"
        if not dry_run:
            await database.create_container_if_not_exists(
                spec.name, key, indexing_policy=wanted, default_ttl=KEEP_UNTIL_SAID
            )
        return
    changes = differences(wanted, found["indexingPolicy"])
    if found.get("defaultTtl") != KEEP_UNTIL_SAID:
        changes.append(f"defaultTtl {KEEP_UNTIL_SAID}")
    for change in changes:
        yield f"container {spec.name}: {change}"
    if changes and not dry_run:
        await database.replace_container(
            spec.name, key, indexing_policy=wanted, default_ttl=KEEP_UNTIL_SAID
        )


async def _blob_container(address: BlobAddress, dry_run: bool) -> list[str]:
    connection = BlobConnection(address)
    try:
        if await connection.container.exists():
            return []
        if not dry_run:
            try:
                await connection.container.create_container()
            except ResourceExistsError:
                return []
        return [f"create blob container {address.container}"]
    finally:
        await connection.close()


# --- command ----------------------------------------------------------------------


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Provisions what the environment names; the exit code."""
    parser = argparse.ArgumentParser(prog="./dev provision", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="only say what differs")
    parser.add_argument("--autoscale", type=int, default=AUTOSCALE_RU, metavar="RU")
    parser.add_argument("--manual", type=int, default=0, metavar="RU")
    parser.add_argument("--serverless", action="store_true")
    options = parser.parse_args(arguments)
    if not environment.get("DICOM_COSMOS_ENDPOINT"):
        parser.error("DICOM_COSMOS_ENDPOINT is not set; docs/azure-stores.md has all")
    if not (
        environment.get("DICOM_BLOB_ENDPOINT")
        or environment.get("DICOM_BLOB_CONNECTION")
    ):
        parser.error("neither DICOM_BLOB_ENDPOINT nor DICOM_BLOB_CONNECTION is set")
    throughput = Throughput(options.autoscale, 0)
    if options.manual or options.serverless:
        throughput = Throughput(0, options.manual)
    lines = asyncio.run(
        provision(
            CosmosAddress(
                environment["DICOM_COSMOS_ENDPOINT"],
                environment.get("DICOM_COSMOS_DATABASE", "dicom"),
                environment.get("DICOM_COSMOS_KEY", ""),
            ),
            BlobAddress(
                environment.get("DICOM_BLOB_ENDPOINT", ""),
                environment.get("DICOM_BLOB_CONNECTION", ""),
                environment.get("DICOM_BLOB_CONTAINER", "dicom"),
            ),
            throughput,
            dry_run=options.dry_run,
        )
    )
    for line in lines or ["nothing to change"]:
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
