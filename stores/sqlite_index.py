"""The rows by which SQLite finds documents across partitions: an inverted index.

Each container has one table `(p, s, v, o, n)` whose primary key is all of it: a path,
the document's scope (what every search fixes, `k` of the catalog), the value there, the
document's place in the natural order (`sk`), and the row of the document. Equality
with newest first is one seek, a prefix or a range one scan, list elements are rows.
The index only proposes documents, `stores.conditions` decides on each; so a long value
may be cut.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from stores.conditions import MISSING, field
from stores.containers import ContainerSpec
from stores.ports import Document, FieldPath, Scalar

CUT_CHARACTERS = 256
"""Values are indexed up to here."""

ALL_PATH = ""
"""The path of the row that every document has, with an empty value."""
PARTITION_PATH = "pk"
ELEMENTS = "[]"
"""Ends the path of the rows of a list's elements."""

Stored = str | int | float | bytes
Row = tuple[str, Stored, Stored, Stored]
"""Path, scope, value, order; the row number of the document follows in the table."""

NONE = b""
NULL, FALSE, TRUE, COMPOUND = b"\x00", b"\x01", b"\x02", b"\x03"
MAX_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class Layout:
    """How a container is laid out in SQLite.

    Attributes:
        scope: The path whose value is in column `s`.
        order: The path whose value is in column `o`.
        fields: The other indexed paths.
    """

    name: str
    scope: FieldPath
    order: FieldPath
    fields: tuple[FieldPath, ...]

    @property
    def documents(self) -> str:
        """Name of the table of documents."""
        return f"documents_{self.name}"

    @property
    def index(self) -> str:
        """Name of the table of the index."""
        return f"index_{self.name}"

    def covers(self, path: FieldPath) -> bool:
        """Whether a query across partitions may look at this path."""
        return path in (("id",), ("pk",), self.scope, self.order) or any(
            path[: len(field) - 1] == field[:-1] if field[-1] == "*" else path == field
            for field in self.fields
        )


def layout_of(spec: ContainerSpec) -> Layout:
    """The layout: scope and order are those of the container's first composite.

    A container without one is read partition by partition, by its first path.
    """
    if spec.composites:
        scope, order = spec.composites[0][0].path, spec.composites[0][1].path
    else:
        scope, order = ("pk",), spec.indexed[0]
    fields = tuple(path for path in spec.indexed if path not in (scope, order))
    return Layout(spec.name, scope, order, fields)


def path_text(path: Iterable[str]) -> str:
    """The path as it is stored: names with dots between, dots in names escaped."""
    return ".".join(
        name.replace("\\", "\\\\").replace(".", "\\.")
        if "." in name or "\\" in name
        else name
        for name in path
    )


def stored(value: Scalar) -> Stored:
    """A scalar such that SQLite compares numbers and texts as we do; nothing cut."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        return float(value)
    return value


def stored_value(value: Scalar) -> Stored:
    """A scalar as it stands in column `v`."""
    if isinstance(value, str):
        return value[:CUT_CHARACTERS]
    return stored(value)


def _key(document: Document, path: FieldPath) -> Stored:
    value = field(document, path)
    if value is MISSING or isinstance(value, list | dict):
        return NONE
    return stored(value)


def rows(layout: Layout, partition_key: str, document: Document) -> set[Row]:
    """The index rows of a document."""
    order = _key(document, layout.order)
    scope: Stored = partition_key
    if layout.scope != ("pk",):
        scope = _key(document, layout.scope)
    found: set[Row] = {
        (ALL_PATH, scope, NONE, order),
        (PARTITION_PATH, scope, partition_key[:CUT_CHARACTERS], order),
    }
    for path in layout.fields:
        if path[-1] == "*":
            parent = field(document, path[:-1])
            if isinstance(parent, dict):
                for name, value in parent.items():
                    _add(found, (*path[:-1], name), value, scope, order)
        else:
            value = field(document, path)
            if value is not MISSING:
                _add(found, path, value, scope, order)
    return found


def _add(
    found: set[Row], path: FieldPath, value: Any, scope: Stored, order: Stored
) -> None:
    text = path[0] if len(path) == 1 else path_text(path)
    if isinstance(value, str):
        found.add((text, scope, value[:CUT_CHARACTERS], order))
    elif isinstance(value, list | dict):
        found.add((text, scope, COMPOUND, order))
        _add_inside(found, path, value, scope, order)
    else:
        found.add((text, scope, stored(value), order))


def _add_inside(
    found: set[Row],
    path: FieldPath,
    value: list[Any] | dict[str, Any],
    scope: Stored,
    order: Stored,
) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _add(found, (*path, name), inner, scope, order)
        return
    text = path_text(path) + ELEMENTS
    for element in _scalars(value):
        found.add((text, scope, stored_value(element), order))


def _scalars(values: list[Any]) -> Iterator[Scalar]:
    return (value for value in values if not isinstance(value, list | dict))
