"""The rules of a batch that both adapters keep: names, sizes, what a patch does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from stores.conditions import MISSING, field, is_number
from stores.ports import (
    BINARY_FIELDS,
    FORBIDDEN_ID_CHARACTERS,
    MAX_BATCH_BYTES,
    MAX_BATCH_OPERATIONS,
    MAX_DOCUMENT_BYTES,
    MAX_ID_BYTES,
    Create,
    Delete,
    Document,
    FieldPath,
    Operation,
    Patch,
    Replace,
    Upsert,
)

MAX_PATCH_CHANGES = 10
MAX_PARTITION_KEY_BYTES = 2048
STORE_FIELDS = frozenset({"pk", "_etag"})
"""Fields that the store adds to what is read and ignores in what is written."""
RESERVED_FIELDS = STORE_FIELDS | BINARY_FIELDS


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document ready to be written.

    Attributes:
        body: JSON without the binary fields and what the store adds.
        binary: The values of BINARY_FIELDS that are there.
    """

    body: bytes
    binary: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Size as Cosmos DB counts it: binary fields as base64."""
        return len(self.body) + sum(
            (len(value) + 2) // 3 * 4 for value in self.binary.values()
        )


def check_partition_key(partition_key: str) -> None:
    """Refuses (ValueError) what cannot be a partition key."""
    if not 0 < len(partition_key.encode()) <= MAX_PARTITION_KEY_BYTES:
        raise ValueError("A partition key has 1 to 2048 bytes")


def check_id(id: object) -> str:
    """The id, if Cosmos DB would take it; else ValueError."""
    if not isinstance(id, str) or not id:
        raise ValueError("An id is a text that is not empty")
    if not FORBIDDEN_ID_CHARACTERS.isdisjoint(id):
        raise ValueError("An id has none of / \\ ? #")
    if len(id) * 4 > MAX_ID_BYTES and len(id.encode()) > MAX_ID_BYTES:
        raise ValueError(f"An id has at most {MAX_ID_BYTES} bytes")
    return id


def encode(document: Document) -> Encoded:
    """The document as it is written.

    Raises:
        ValueError: Bad id or ttl, not JSON, or larger than MAX_DOCUMENT_BYTES.
    """
    check_id(document.get("id"))
    _check_ttl(document.get("ttl"))
    binary: dict[str, bytes] = {}
    plain = document
    if not RESERVED_FIELDS.isdisjoint(document):
        plain = document.copy()
        for name in RESERVED_FIELDS & document.keys():
            value = plain.pop(name)
            if name in BINARY_FIELDS:
                binary[name] = _binary(name, value)
    try:
        encoded = Encoded(orjson.dumps(plain), binary)
    except TypeError as error:
        raise ValueError(f"The document is not JSON: {error}") from error
    if encoded.size_bytes > MAX_DOCUMENT_BYTES:
        raise ValueError(f"A document has at most {MAX_DOCUMENT_BYTES} bytes")
    return encoded


def _binary(name: str, value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(f"The field {name} holds bytes")  # noqa: TRY004 - one kind of refusal for all
    return bytes(value)


def _check_ttl(ttl: object) -> None:
    if ttl is None or (is_number(ttl) and (ttl == -1 or 0 < int(str(ttl)) < 2**31)):
        return
    raise ValueError("ttl is a number of seconds above 0, or -1")


def check_batch(
    partition_key: str, operations: Sequence[Operation]
) -> list[Encoded | None]:
    """The documents of the batch as they are written; None for patches and deletes.

    Raises:
        ValueError: Cosmos DB would refuse the batch whatever is stored.
    """
    check_partition_key(partition_key)
    if not 0 < len(operations) <= MAX_BATCH_OPERATIONS:
        raise ValueError(f"A batch has 1 to {MAX_BATCH_OPERATIONS} operations")
    encoded: list[Encoded | None] = []
    size_bytes = 0
    for operation in operations:
        match operation:
            case Create(document) | Replace(document) | Upsert(document):
                ready = encode(document)
                size_bytes += ready.size_bytes
                encoded.append(ready)
            case Patch():
                size_bytes += _check_patch(operation)
                encoded.append(None)
            case Delete(id):
                check_id(id)
                encoded.append(None)
    if size_bytes > MAX_BATCH_BYTES:
        raise ValueError(f"A batch has at most {MAX_BATCH_BYTES} bytes")
    return encoded


def _check_patch(patch: Patch) -> int:
    check_id(patch.id)
    changes = (*patch.increments, *patch.sets, *patch.removes)
    if not 0 < len(changes) <= MAX_PATCH_CHANGES:
        raise ValueError(f"A patch has 1 to {MAX_PATCH_CHANGES} changes")
    for path in changes:
        if not path or path[0] in STORE_FIELDS or path == ("id",):
            raise ValueError("A patch cannot change the id or what the store adds")
    size_bytes = 0
    for path, value in patch.sets.items():
        if len(path) == 1 and path[0] in BINARY_FIELDS:
            size_bytes += len(_binary(path[0], value))
        else:
            try:
                size_bytes += len(orjson.dumps(value))
            except TypeError as error:
                raise ValueError(f"A new value is not JSON: {error}") from error
    return size_bytes


def apply_patch(document: Document, patch: Patch) -> None:
    """Changes the document: increments, then sets, then removes.

    Raises:
        ValueError: A parent is not an object, a number is none, or a field to remove
            is not there; the document is then half changed and must be dropped.
    """
    for path, amount in patch.increments.items():
        value = field(document, path)
        if value is MISSING:
            value = 0
        if not is_number(value):
            raise ValueError(f"There is no number at {'.'.join(path)}")
        _parent(document, path)[path[-1]] = value + amount
    _set_all(document, patch.sets)
    for path in patch.removes:
        if field(document, path) is MISSING:
            raise ValueError(f"There is nothing to remove at {'.'.join(path)}")
        del _parent(document, path)[path[-1]]


def _set_all(document: Document, sets: Mapping[FieldPath, Any]) -> None:
    for path, value in sets.items():
        _parent(document, path)[path[-1]] = value


def _parent(document: Document, path: FieldPath) -> Document:
    parent = field(document, path[:-1])
    if not isinstance(parent, dict):
        raise ValueError(f"There is no object at {'.'.join(path[:-1])}")  # noqa: TRY004 - one kind of refusal for all
    return parent
