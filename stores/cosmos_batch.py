"""A batch of the port as the transactional batch of Cosmos DB, and its answer back."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from stores.cosmos_sql import patch_condition
from stores.ports import (
    BINARY_FIELDS,
    Committed,
    Create,
    Delete,
    Document,
    Operation,
    Patch,
    Rejection,
    Replace,
    Upsert,
)

_SERVICE_FIELDS = ("_rid", "_self", "_ts", "_attachments")
REJECTIONS = {
    404: Rejection.MISSING,
    409: Rejection.EXISTS,
    412: Rejection.CONDITION,
}
BatchOperation = (
    tuple[str, tuple[Any, ...]] | tuple[str, tuple[Any, ...], dict[str, Any]]
)
"""As `execute_item_batch` takes them: kind, arguments, conditions."""


def to_cosmos(partition_key: str, document: Document) -> dict[str, Any]:
    """The document as it is sent: with its partition key, bytes as base64."""
    sent = {
        name: b64encode(value).decode() if name in BINARY_FIELDS else value
        for name, value in document.items()
        if name != "_etag" and not (name == "ttl" and value is None)
    }
    sent["pk"] = partition_key
    return sent


def from_cosmos(item: Mapping[str, Any]) -> Document:
    """The document as the port knows it."""
    document = {k: v for k, v in item.items() if k not in _SERVICE_FIELDS}
    for name in BINARY_FIELDS & document.keys():
        document[name] = b64decode(document[name])
    return document


def batch_operation(partition_key: str, operation: Operation) -> BatchOperation:
    """The operation as the SDK takes it."""
    match operation:
        case Create(document):
            return ("create", (to_cosmos(partition_key, document),))
        case Upsert(document):
            return ("upsert", (to_cosmos(partition_key, document),))
        case Replace(document, etag):
            arguments = (document["id"], to_cosmos(partition_key, document))
            return ("replace", arguments, _if_match(etag))
        case Delete(id, etag):
            return ("delete", (id,), _if_match(etag))
        case Patch(id, condition=condition):
            predicate = (
                {}
                if condition is None
                else {"filter_predicate": patch_condition(condition)}
            )
            return ("patch", (id, _changes(operation)), predicate)


def _if_match(etag: str | None) -> dict[str, Any]:
    return {} if etag is None else {"if_match_etag": etag}


def _changes(patch: Patch) -> list[dict[str, Any]]:
    """The changes as JSON patch operations: increments, then sets, then removes."""
    changes = [
        {"op": "incr", "path": _pointer(path), "value": amount}
        for path, amount in patch.increments.items()
    ]
    for path, value in patch.sets.items():
        binary = len(path) == 1 and path[0] in BINARY_FIELDS
        sent = b64encode(value).decode() if binary else value
        changes.append({"op": "set", "path": _pointer(path), "value": sent})
    changes += [{"op": "remove", "path": _pointer(path)} for path in patch.removes]
    return changes


def _pointer(path: Sequence[str]) -> str:
    """The path as a JSON pointer (RFC 6901)."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def committed(
    operations: Sequence[Operation], results: Sequence[Mapping[str, Any]]
) -> Committed:
    """What the service says the operations left behind."""
    bodies = [result.get("resourceBody") for result in results]
    return left_behind(operations, bodies)


def left_behind(
    operations: Sequence[Operation], bodies: Sequence[Mapping[str, Any] | None]
) -> Committed:
    """The answer of a committed batch from the documents as they are now."""
    etags: list[str | None] = []
    documents: list[Document | None] = []
    for operation, body in zip(operations, bodies, strict=True):
        if isinstance(operation, Delete) or body is None:
            etags.append(None)
            documents.append(None)
            continue
        etags.append(body["_etag"])
        kept = (
            from_cosmos(body)
            if isinstance(operation, Patch)
            else {"id": body["id"], "_etag": body["_etag"]}
        )
        documents.append(kept)
    return Committed(tuple(etags), tuple(documents))


def unchanged(
    operations: Sequence[Operation],
    left: Committed,
    bodies: Sequence[Mapping[str, Any] | None],
) -> Committed:
    """The answer without the etags of documents that are not as they were written."""
    etags = tuple(
        etag
        if isinstance(operation, Patch) or (body and _is_as_written(operation, body))
        else None
        for operation, etag, body in zip(operations, left.etags, bodies, strict=True)
    )
    return replace(left, etags=etags)


def _is_as_written(operation: Operation, body: Mapping[str, Any]) -> bool:
    if not isinstance(operation, Create | Replace | Upsert):
        return False
    return _compared(operation.document) == _compared(body)


def _compared(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(to_cosmos("", dict(document)), option=orjson.OPT_SORT_KEYS)


def id_of(operation: Operation) -> str:
    """The id of the document that the operation is about."""
    match operation:
        case Patch(id) | Delete(id):
            return id
        case Create(document) | Replace(document) | Upsert(document):
            return str(document["id"])


def token_of(operations: Sequence[Operation]) -> object | None:
    """The token by which a repeated batch is known again, or None."""
    first = operations[0]
    return first.document.get("token") if isinstance(first, Create) else None


def applies_once(operations: Sequence[Operation]) -> bool:
    """Whether a second application of the batch is sure to be refused."""
    return any(
        isinstance(each, Create | Delete)
        or (isinstance(each, Replace) and each.if_etag is not None)
        for each in operations
    )


def harmless_twice(operations: Sequence[Operation]) -> bool:
    """Whether applying the batch twice leaves what applying it once does."""
    return all(
        isinstance(each, Upsert) or (isinstance(each, Replace) and each.if_etag is None)
        for each in operations
    )
