"""Partial document update.

Docs: partial-document-update.md: `add`, `set`, `replace`, `remove`, `incr`; at most 10
operations; `set` and `add` need the parent, `replace` and `remove` the field itself;
`incr` creates a missing field; a system field, `id` and the partition key cannot be
changed. `move` is not used by our code and refused.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from emulators.cosmos.errors import bad_request

MOST_OPERATIONS = 10
_FIXED = frozenset({"id", "pk", "_etag", "_ts", "_rid", "_self", "_attachments"})


def patched(
    document: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A copy of the document with the operations applied in order."""
    if not 0 < len(operations) <= MOST_OPERATIONS:
        raise bad_request(
            f"A patch has 1 to {MOST_OPERATIONS} operations, not {len(operations)}."
        )
    result = copy.deepcopy(dict(document))
    for operation in operations:
        _apply(result, operation)
    return result


def _apply(document: dict[str, Any], operation: Mapping[str, Any]) -> None:
    kind = operation.get("op")
    expected = {"op", "path"} | (set() if kind == "remove" else {"value"})
    if kind not in {"add", "set", "replace", "remove", "incr"}:
        raise bad_request(f"Patch operation '{kind}' is not emulated.")
    if set(operation) != expected:
        raise bad_request(f"Patch operation {kind} has fields {sorted(operation)}.")
    parent, name = _parent(document, operation["path"])
    if isinstance(parent, list):
        _apply_to_list(parent, name, kind, operation.get("value"))
        return
    if kind in {"replace", "remove"} and name not in parent:
        raise bad_request(f"Patch path '{operation['path']}' does not exist.")
    match kind:
        case "remove":
            del parent[name]
        case "incr":
            parent[name] = _increased(parent.get(name, 0), operation["value"])
        case _:
            parent[name] = operation["value"]


def _apply_to_list(parent: list[Any], name: str, kind: str, value: Any) -> None:
    position = len(parent) if name == "-" else int(name) if name.isdigit() else -1
    if not 0 <= position < len(parent) + (kind == "add"):
        raise bad_request(f"Patch index '{name}' is out of the array.")
    match kind:
        case "remove":
            del parent[position]
        case "add":
            parent.insert(position, value)
        case "incr":
            parent[position] = _increased(parent[position], value)
        case _:
            parent[position] = value


def _increased(old: Any, by: Any) -> Any:
    for value in (old, by):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_request("Patch incr needs numbers.")
    return old + by


def _parent(document: dict[str, Any], pointer: Any) -> tuple[Any, str]:
    """The object or list that holds the target, and the target's name in it."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise bad_request(f"Patch path '{pointer}' must start with /.")
    names = [
        part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")
    ]
    if names[0] in _FIXED:
        raise bad_request(f"Patch path '{pointer}' cannot be changed.")
    parent: Any = document
    for name in names[:-1]:
        if isinstance(parent, list) and name.isdigit() and int(name) < len(parent):
            parent = parent[int(name)]
        elif isinstance(parent, dict) and name in parent:
            parent = parent[name]
        else:
            raise bad_request(f"Patch path '{pointer}': its parent does not exist.")
    if not isinstance(parent, dict | list):
        raise bad_request(f"Patch path '{pointer}': its parent is a scalar.")
    return parent, names[-1]
