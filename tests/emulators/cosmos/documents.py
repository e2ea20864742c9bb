"""Writes and point reads of documents, alone and in transactional batches."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from emulators.cosmos import charges
from emulators.cosmos.errors import CosmosError, bad_request
from emulators.cosmos.partitioning import effective_partition_key
from emulators.cosmos.patching import patched
from emulators.cosmos.resources import Container, new_etag, rid_bytes
from emulators.cosmos.sql_filter import compile_filter
from emulators.cosmos.sql_parser import parse_condition
from emulators.cosmos.storage import Row, Storage
from emulators.cosmos.values import as_stored

MOST_BATCH_OPERATIONS = 100
MOST_BATCH_BYTES = 2 * 1024 * 1024
MOST_DOCUMENT_BYTES = 2 * 1024 * 1024
MOST_ID_BYTES = 1023
_SYSTEM = ("_rid", "_self", "_etag", "_attachments", "_ts", "_lsn")


@dataclass(frozen=True, slots=True)
class Done:
    """A successful operation.

    Attributes:
        body: JSON of the document afterwards; None after a delete.
        charge: Modelled request units.
        lsn: Write number of the physical partition `range`.
    """

    status: int
    body: str | None
    etag: str | None
    charge: float
    range: str
    lsn: int


def compact(value: Any) -> str:
    """JSON without spaces."""
    return orjson.dumps(value).decode()


class Writer:
    """Operations on one logical partition within the storage's open transaction.

    All writes of one writer share one LSN, as those of a transaction do (docs:
    change-feed.md: changes of a batch carry the same `_lsn`).
    """

    def __init__(
        self, storage: Storage, container: Container, partition_key: str, now: int
    ) -> None:
        self._storage = storage
        self._container = container
        self._pk = partition_key
        self._now = now
        self._epk = effective_partition_key(partition_key)
        self._range = container.partition_of(self._epk).id
        self._lsn: int | None = None

    @property
    def lsn(self) -> int:
        """The write number of this transaction, taken at the first write."""
        if self._lsn is None:
            self._lsn = self._storage.next_lsn(self._container.rid, self._range)
        return self._lsn

    def read(self, id: str) -> Done:
        """The document; 404 when there is none."""
        row = self._existing(id)
        lsn = self._storage.lsn(self._container.rid, self._range)
        charge = charges.read(len(row.body))
        return Done(200, row.body, row.etag, charge, self._range, lsn)

    def create(self, document: Mapping[str, Any]) -> Done:
        """A new document; 409 when the id is taken."""
        id = self._checked(document)
        if self._found(id) is not None:
            raise CosmosError(409, f"Entity with the specified id exists: {id}.")
        return self._keep(None, id, document)

    def upsert(self, document: Mapping[str, Any], if_match: str | None = None) -> Done:
        """A document created or replaced; If-Match counts for one that exists."""
        id = self._checked(document)
        row = self._found(id)
        if row is not None:
            _check_etag(row, if_match)
        return self._keep(row, id, document)

    def replace(
        self, id: str, document: Mapping[str, Any], if_match: str | None = None
    ) -> Done:
        """The document with new content; 404, 412."""
        if self._checked(document) != id:
            raise bad_request("The id of a document cannot be changed.")
        row = self._existing(id)
        _check_etag(row, if_match)
        return self._keep(row, id, document)

    def patch(
        self, id: str, request: Mapping[str, Any], if_match: str | None = None
    ) -> Done:
        """The document with fields changed; 404, 412 when the condition fails."""
        if not set(request) <= {"operations", "condition"}:
            raise bad_request(f"A patch has no fields {sorted(request)}.")
        row = self._existing(id)
        _check_etag(row, if_match)
        document = row.document
        condition = request.get("condition")
        if condition is not None:
            _, node = parse_condition(condition)
            if not compile_filter(node, {})(document):
                raise CosmosError(412, "The filter predicate of the patch is not met.")
        changed = patched(document, request["operations"])
        return self._keep(row, id, changed)

    def delete(self, id: str, if_match: str | None = None) -> Done:
        """Removes the document; 404, 412."""
        row = self._existing(id)
        _check_etag(row, if_match)
        entries = self._remove(row)
        charge = charges.insert(len(row.body), entries)
        return Done(204, None, None, charge, self._range, self.lsn)

    # --- parts

    def _found(self, id: str) -> Row | None:
        return self._storage.document(self._container.rid, self._pk, id, self._now)

    def _existing(self, id: str) -> Row:
        row = self._found(id)
        if row is None:
            raise CosmosError(
                404, f"Entity with the specified id does not exist: {id}."
            )
        return row

    def _remove(self, row: Row) -> int:
        entries = list(self._container.policy.entries(row.document))
        self._storage.unindex(self._container.rid, row.range, row.n, entries)
        self._storage.delete(row.n)
        return len(entries)

    def _checked(self, document: Mapping[str, Any]) -> str:
        """The document's id; a 400 when id, partition key or ttl are not right."""
        id = document.get("id")
        if not isinstance(id, str) or not id:
            raise bad_request("The required property 'id' is missing.")
        if len(id.encode()) > MOST_ID_BYTES or set(id) & set("/\\#?"):
            raise bad_request("The id is too long or has one of / \\ # ?.")
        if document.get(self._container.partition_key_field) != self._pk:
            raise bad_request(
                "PartitionKey extracted from document doesn't match the one specified"
                " in the header.",
                substatus=1001,
            )
        ttl = document.get("ttl")
        if "ttl" in document and (
            isinstance(ttl, bool) or not isinstance(ttl, int) or (ttl != -1 and ttl < 1)
        ):
            raise bad_request(f"The input ttl '{ttl}' is invalid.")
        return id

    def _keep(self, row: Row | None, id: str, document: Mapping[str, Any]) -> Done:
        """Creates (no row) or replaces the document, with its index entries."""
        content = {k: v for k, v in document.items() if k not in _SYSTEM}
        if len(compact(content).encode()) > MOST_DOCUMENT_BYTES:
            raise CosmosError(413, "Request size is too large: a document is 2 MB.")
        etag, lsn = new_etag(), self.lsn
        stored = as_stored(content)
        stored |= {"_etag": etag, "_attachments": "attachments/", "_ts": self._now}
        kept = Row(
            0,
            self._pk,
            self._epk,
            self._range,
            id,
            "",
            etag,
            lsn,
            self._expires(stored),
        )
        if row is None:
            kept = replace(kept, n=self._storage.insert(self._container.rid, kept))
        else:
            entries = list(self._container.policy.entries(row.document))
            self._storage.unindex(self._container.rid, row.range, row.n, entries)
            kept = replace(kept, n=row.n)
        rid = rid_bytes(self._container.rid) + kept.n.to_bytes(8, "little")
        stored |= {"_rid": _rid(rid)}
        stored |= {"_self": f"{self._container.body['_self']}docs/{stored['_rid']}/"}
        kept = replace(kept, body=compact(stored))
        self._storage.update(kept)
        entries = list(self._container.policy.entries(stored))
        self._storage.index(self._container.rid, self._range, kept.n, entries)
        cost = charges.insert if row is None else charges.replace
        charge = cost(len(kept.body), len(entries))
        return Done(
            201 if row is None else 200, kept.body, etag, charge, self._range, lsn
        )

    def _expires(self, document: Mapping[str, Any]) -> int | None:
        """When the document ends (docs: time-to-live.md).

        A document's own ttl counts only where the container has a defaultTtl.
        """
        default = self._container.body.get("defaultTtl")
        if default is None:
            return None
        ttl: int = document.get("ttl", default)
        return None if ttl == -1 else self._now + ttl


def _rid(rid: bytes) -> str:
    return base64.b64encode(rid, b"+-").decode()


def _check_etag(row: Row, if_match: str | None) -> None:
    if if_match not in {None, "*", row.etag}:
        raise CosmosError(412, "One of the specified pre-condition is not met.")


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What a transactional batch ends with.

    Attributes:
        status: 200, or 207 when nothing was applied.
        results: JSON of each operation's result.
    """

    status: int
    results: list[dict[str, Any]]
    charge: float
    range: str
    lsn: int


class BatchRefused(Exception):
    """Leaves the transaction, so that it is undone; carries the answer."""

    def __init__(self, results: list[dict[str, Any]], charge: float) -> None:
        super().__init__()
        self.results = results
        self.charge = charge


def check_batch(operations: Any, size_bytes: int) -> None:
    """A 400 or 413 for a batch over the limits (docs: nosql/transactional-batch.md)."""
    if not isinstance(operations, list) or not operations:
        raise bad_request("A batch has at least one operation.")
    if len(operations) > MOST_BATCH_OPERATIONS:
        raise bad_request("Batch request has more operations than what is supported.")
    if size_bytes > MOST_BATCH_BYTES:
        raise CosmosError(413, "Request size is too large: a batch is 2 MB.")


def run_batch(writer: Writer, operations: Sequence[Mapping[str, Any]]) -> BatchAnswer:
    """Applies the operations in order; BatchRefused (424 for the others) at a failure.

    Docs: nosql/transactional-batch.md ("How are transactional batch operations
    executed"): the failed operation has its own status, all others 424, the whole 207.
    """
    results: list[dict[str, Any]] = []
    charge = 0.0
    done: Done | None = None
    for position, operation in enumerate(operations):
        try:
            done = _one(writer, operation)
        except CosmosError as error:
            refused = [_dependent() for _ in operations]
            refused[position] = {
                "statusCode": error.status,
                "subStatusCode": error.substatus,
                "requestCharge": 1.0,
            }
            raise BatchRefused(refused, charge + 1.0) from error
        charge += done.charge
        result: dict[str, Any] = {
            "statusCode": done.status,
            "requestCharge": round(done.charge, 2),
        }
        if done.body is not None:
            result |= {"eTag": done.etag, "resourceBody": orjson.loads(done.body)}
        results.append(result)
    assert done is not None
    return BatchAnswer(200, results, charge, done.range, done.lsn)


def _dependent() -> dict[str, Any]:
    return {"statusCode": 424, "requestCharge": 0.0}


def _one(writer: Writer, operation: Mapping[str, Any]) -> Done:
    unknown = set(operation) - {"operationType", "id", "resourceBody", "ifMatch"}
    if unknown:
        raise bad_request(f"Batch operation fields not emulated: {sorted(unknown)}.")
    body, if_match = operation.get("resourceBody"), operation.get("ifMatch")
    match operation["operationType"]:
        case "Create" if body is not None:
            return writer.create(body)
        case "Upsert" if body is not None:
            return writer.upsert(body, if_match)
        case "Replace" if body is not None:
            return writer.replace(operation["id"], body, if_match)
        case "Patch" if body is not None:
            return writer.patch(operation["id"], body, if_match)
        case "Delete":
            return writer.delete(operation["id"], if_match)
        case "Read":
            return writer.read(operation["id"])
        case other:
            raise bad_request(f"Batch operation '{other}' is not emulated.")
