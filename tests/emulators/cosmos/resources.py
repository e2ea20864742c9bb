"""Databases, containers and offers (throughput).

Shapes of the JSON: REST reference, "Databases", "Collections", "Offers". What we do not
use (unique keys, conflict resolution, hierarchical keys, vectors) is refused.
"""

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulators.cosmos.errors import CosmosError, bad_request
from emulators.cosmos.index_policy import IndexPolicy
from emulators.cosmos.partitioning import PhysicalPartition, evenly
from emulators.cosmos.storage import Storage

_CONTAINER_FIELDS = frozenset(
    {"id", "partitionKey", "indexingPolicy", "defaultTtl", "conflictResolutionPolicy"}
)
LEAST_THROUGHPUT = 400
LEAST_AUTOSCALE = 1000


def new_rid(parent: bytes = b"", size: int = 4) -> str:
    """A resource id below a parent's: Base64 with `-` for `/`."""
    return base64.b64encode(parent + os.urandom(size), b"+-").decode()


def rid_bytes(rid: str) -> bytes:
    """The bytes of a resource id."""
    return base64.b64decode(rid, b"+-")


def new_etag() -> str:
    """A new etag with its quotes, as the service writes it."""
    noise = os.urandom(10).hex()
    return f'"{noise[:8]}-0000-0000-0000-{noise[8:]}"'


@dataclass(slots=True)
class Container:
    """A container as requests need it.

    Attributes:
        link: `dbs/{database}/colls/{container}`.
        body: Its JSON.
    """

    link: str
    body: dict[str, Any]
    policy: IndexPolicy
    partitions: tuple[PhysicalPartition, ...]

    @property
    def rid(self) -> str:
        """The container's resource id; the key of its documents in the storage."""
        rid: str = self.body["_rid"]
        return rid

    @property
    def partition_key_field(self) -> str:
        """The one top-level field that holds the partition key."""
        path: str = self.body["partitionKey"]["paths"][0]
        return path[1:]

    def partition_of(self, effective_key: str) -> PhysicalPartition:
        """The physical partition an effective partition key falls into."""
        return next(each for each in self.partitions if each.holds(effective_key))

    def partition(self, id: str) -> PhysicalPartition:
        """The physical partition of that id; 410/1002 when it was split."""
        for each in self.partitions:
            if each.id == id:
                return each
        raise CosmosError(410, f"Partition key range {id} is gone.", substatus=1002)


class Resources:
    """The databases and containers of the account, kept in the storage."""

    def __init__(self, storage: Storage, physical_partitions: int) -> None:
        self._storage = storage
        self._count = physical_partitions
        self._containers: dict[str, Container] = {}

    # --- databases

    def create_database(
        self, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The new database; 409 when there is one of that id."""
        id = _id(body)
        if self._storage.resource("db", "", id):
            raise CosmosError(409, f"Database {id} exists.")
        rid = new_rid()
        database = {
            "id": id, "_rid": rid, "_self": f"dbs/{rid}/", "_etag": new_etag(),
            "_colls": "colls/", "_users": "users/", "_ts": int(time.time()),
        }  # fmt: skip
        self._storage.keep_resource("db", "", database)
        self._keep_offer(database, headers)
        return database

    def database(self, id: str) -> dict[str, Any]:
        """The database; 404 when there is none."""
        found = self._storage.resource("db", "", id)
        if found is None:
            raise CosmosError(404, f"Database {id} does not exist.", substatus=1003)
        return found

    def databases(self) -> list[dict[str, Any]]:
        """All databases by id."""
        return self._storage.resources("db", "")

    def drop_database(self, id: str) -> None:
        """Removes a database with all that is in it."""
        self.database(id)
        for body in self._storage.resources("coll", id):
            self.drop_container(id, body["id"])
        self._storage.drop_resource("db", "", id)

    # --- containers

    def create_container(
        self, database: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The new container; 409 when there is one of that id."""
        parent = self.database(database)
        id = _id(body)
        _check_container(body)
        if self._storage.resource("coll", database, id):
            raise CosmosError(409, f"Container {id} exists.")
        rid = new_rid(rid_bytes(parent["_rid"]))
        made = {
            **body, "_rid": rid, "_self": f"dbs/{parent['_rid']}/colls/{rid}/",
            "_etag": new_etag(), "_ts": int(time.time()), "_docs": "docs/",
            "_sprocs": "sprocs/", "_triggers": "triggers/", "_udfs": "udfs/",
            "_conflicts": "conflicts/",
        }  # fmt: skip
        self._storage.keep_resource("coll", database, made)
        self._keep_offer(made, headers)
        return made

    def replace_container(
        self, database: str, id: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The container with a new policy or TTL; its index is made anew at once."""
        container = self.container(database, id)
        body = {name: value for name, value in body.items() if name[0] != "_"}
        _check_container(body)
        if body["partitionKey"] != container.body["partitionKey"]:
            raise bad_request("The partition key of a container cannot be changed.")
        kept = {k: v for k, v in container.body.items() if k.startswith("_")}
        made = {**kept, **body, "_etag": new_etag(), "_ts": int(time.time())}
        self._storage.keep_resource("coll", database, made)
        renewed = self._loaded(database, made, container.partitions)
        self._index_again(container, renewed)
        return made

    def _index_again(self, old: Container, new: Container) -> None:
        for partition in new.partitions:
            for row in list(self._storage.physical(new.rid, partition.id, -1)):
                document = row.document
                self._storage.unindex(
                    old.rid, row.range, row.n, list(old.policy.entries(document))
                )
                self._storage.index(
                    new.rid, row.range, row.n, list(new.policy.entries(document))
                )

    def container(self, database: str, id: str) -> Container:
        """The container; 404 when there is none."""
        link = f"dbs/{database}/colls/{id}"
        loaded = self._containers.get(link)
        if loaded is not None:
            return loaded
        self.database(database)
        body = self._storage.resource("coll", database, id)
        if body is None:
            raise CosmosError(404, f"Container {link} does not exist.", substatus=1003)
        return self._loaded(database, body, evenly(self._count))

    def _loaded(
        self,
        database: str,
        body: dict[str, Any],
        partitions: tuple[PhysicalPartition, ...],
    ) -> Container:
        link = f"dbs/{database}/colls/{body['id']}"
        container = Container(
            link, body, IndexPolicy.parse(body["indexingPolicy"]), partitions
        )
        self._containers[link] = container
        return container

    def containers(self, database: str) -> list[dict[str, Any]]:
        """All containers of a database by id."""
        self.database(database)
        return self._storage.resources("coll", database)

    def drop_container(self, database: str, id: str) -> None:
        """Removes a container with its documents."""
        container = self.container(database, id)
        self._storage.drop_container(container.rid)
        self._storage.drop_resource("coll", database, id)
        del self._containers[container.link]

    def split(self, container: Container, id: str) -> None:
        """Splits a physical partition in two, as the service does when one is full."""
        old = container.partition(id)
        low = int((old.low or "0").ljust(32, "0"), 16)
        high = int((old.high if old.high != "FF" else "40").ljust(32, "0"), 16)
        middle = f"{(low + high) // 2:032X}"
        first = max(int(each.id) for each in container.partitions) + 1
        parents = (*old.parents, old.id)
        halves = (
            PhysicalPartition(str(first), old.low, middle, parents),
            PhysicalPartition(str(first + 1), middle, old.high, parents),
        )
        for row in list(self._storage.physical(container.rid, id, -1)):
            half = halves[row.epk >= middle]
            self._storage.move(container.rid, row, half.id)
        lsn = self._storage.lsn(container.rid, old.id)
        for half in halves:
            self._storage.start_lsn(container.rid, half.id, lsn)
        position = container.partitions.index(old)
        container.partitions = (
            *container.partitions[:position], *halves,
            *container.partitions[position + 1 :],
        )  # fmt: skip

    # --- offers

    def _keep_offer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        manual = headers.get("x-ms-offer-throughput")
        autoscale = headers.get("x-ms-cosmos-offer-autopilot-settings")
        if manual and autoscale:
            raise bad_request("Manual and autoscale throughput exclude each other.")
        if not manual and not autoscale:
            return
        rid = new_rid()
        self._storage.keep_resource(
            "offer",
            "",
            {
                "id": rid, "_rid": rid, "_self": f"offers/{rid}/", "_etag": new_etag(),
                "_ts": int(time.time()), "offerVersion": "V2", "offerType": "Invalid",
                "resource": body["_self"], "offerResourceId": body["_rid"],
                "content": _throughput(manual, autoscale),
            },
        )  # fmt: skip

    def offers(self) -> list[dict[str, Any]]:
        """All offers."""
        return self._storage.resources("offer", "")

    def replace_offer(self, rid: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The offer with another throughput."""
        for offer in self.offers():
            if offer["_rid"].lower() == rid.lower():
                content = body["content"]
                if content.get("offerThroughput", LEAST_THROUGHPUT) < LEAST_THROUGHPUT:
                    raise bad_request("The throughput is below the minimum of 400.")
                made = {**offer, "content": content, "_etag": new_etag()}
                self._storage.keep_resource("offer", "", made)
                return made
        raise CosmosError(404, f"Offer {rid} does not exist.")


def _throughput(manual: str | None, autoscale: str | None) -> dict[str, Any]:
    """Content of an offer (docs: concepts-limits.md, minimum throughput)."""
    if autoscale:
        most = json.loads(autoscale)["maxThroughput"]
        if most < LEAST_AUTOSCALE or most % 1000:
            raise bad_request("Autoscale maximum: a multiple of 1000 from 1000.")
        return {
            "offerThroughput": most // 10,
            "offerAutopilotSettings": {"maxThroughput": most},
        }
    if int(manual or 0) < LEAST_THROUGHPUT:
        raise bad_request("The throughput is below the minimum of 400.")
    return {"offerThroughput": int(manual or 0)}


def _id(body: Mapping[str, Any]) -> str:
    id = body.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= 255 or set(id) & set("/\\#?"):
        raise bad_request("The id is missing, too long or has one of / \\ # ?.")
    return id


def _check_container(body: Mapping[str, Any]) -> None:
    unknown = set(body) - _CONTAINER_FIELDS
    if unknown:
        raise bad_request(f"Container settings not emulated: {sorted(unknown)}.")
    key = body.get("partitionKey", {})
    paths = key.get("paths", [])
    if key.get("kind") != "Hash" or key.get("version") != 2 or len(paths) != 1:
        raise bad_request("Only one Hash partition key of version 2 is emulated.")
    if paths[0].count("/") != 1:
        raise bad_request("Only a top-level partition key is emulated.")
    ttl = body.get("defaultTtl", -1)
    if ttl != -1 and (not isinstance(ttl, int) or ttl < 1):
        raise bad_request(f"The defaultTtl '{ttl}' is invalid.")
    if "indexingPolicy" not in body:
        raise bad_request("An indexing policy is required here: say what you index.")
    IndexPolicy.parse(body["indexingPolicy"])
