"""The rows by which SQLite finds documents across partitions: an inverted index.

Each container has one table `(p, s, v, o, n)` whose primary key is all of it: a path,
the document's scope (what every search fixes, `k` of the catalog), the value there, the
document's place in the natural order (`sk`), and the row of the document. Equality
with newest first is one seek, a prefix or a range one scan, list elements are rows.
The index only proposes documents, `stores.conditions` decides on each; so a long value
may be cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stores.conditions import MISSING, field
from stores.containers import ContainerSpec
from stores.ports import Document, FieldPath, Scalar

ROWS_VERSION = 2
"""Raised whenever `rows` gives other rows: the index is then made anew."""
CUT_CHARACTERS = 256
"""Values are indexed up to here."""

ALL_PATH = ""
"""The path of the row that every document with a scope has, its value empty."""
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
        names: Top-level fields that index rows are made of.
        documents: Name of the table of documents.
        index: Name of the table of the index.
    """

    name: str
    scope: FieldPath
    order: FieldPath
    fields: tuple[FieldPath, ...]
    names: frozenset[str]
    documents: str
    index: str

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
    names = frozenset(path[0] for path in (scope, order, *fields))
    tables = f"documents_{spec.name}", f"index_{spec.name}"
    return Layout(spec.name, scope, order, fields, names, *tables)


def path_text(path: Iterable[str]) -> str:
    """The path as it is stored: names with dots between, dots in names escaped."""
    return ".".join(_escaped(name) for name in path)


def _escaped(name: str) -> str:
    if "." in name or "\\" in name:
        return name.replace("\\", "\\\\").replace(".", "\\.")
    return name


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
    pairs: list[tuple[str, Stored]] = []
    if scope != NONE:
        pairs.append((ALL_PATH, NONE))
        pairs.append((PARTITION_PATH, partition_key[:CUT_CHARACTERS]))
    for path in layout.fields:
        if path[-1] != "*":
            value = field(document, path)
            if value is not MISSING:
                _add(pairs, path_text(path), value)
            continue
        parent = field(document, path[:-1])
        if isinstance(parent, dict):
            _add_fields(pairs, path_text(path[:-1]), parent)
    return {(text, scope, value, order) for text, value in pairs}


def _add_fields(
    pairs: list[tuple[str, Stored]], text: str, fields: dict[str, Any]
) -> None:
    for name, value in fields.items():
        _add(pairs, f"{text}.{_escaped(name)}", value)


def _add(pairs: list[tuple[str, Stored]], text: str, value: Any) -> None:
    if isinstance(value, str):
        pairs.append((text, value[:CUT_CHARACTERS]))
    elif isinstance(value, dict):
        pairs.append((text, COMPOUND))
        _add_fields(pairs, text, value)
    elif isinstance(value, list):
        pairs.append((text, COMPOUND))
        elements = text + ELEMENTS
        pairs.extend(
            (elements, stored_value(element))
            for element in value
            if not isinstance(element, list | dict)
        )
    else:
        pairs.append((text, stored(value)))
