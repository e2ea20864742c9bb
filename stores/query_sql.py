"""Conditions as SQLite statements on the index table; every value is a parameter.

A `Seek` is a set of index rows that contains all documents a condition can be true
for, perhaps more: `stores.conditions` has the last word on each. Statements are made of
our own table and column names only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stores.ports import (
    And,
    AnyWordStartsWith,
    ArrayContains,
    Condition,
    Equals,
    Exists,
    FieldPath,
    In,
    Like,
    Or,
    Order,
    Prefix,
    Query,
    Range,
    Scalar,
)
from stores.sqlite_index import (
    ALL_PATH,
    CUT_CHARACTERS,
    ELEMENTS,
    PARTITION_PATH,
    Layout,
    Stored,
    path_text,
    stored,
    stored_value,
)

Parameters = tuple[Any, ...]
HIGHEST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Seek:
    """Index rows that a condition can hold for.

    Attributes:
        where: SQL on the columns p, s, v, o of the index.
        ordered: The rows come in the natural order by themselves.
        single: No document has two such rows.
    """

    where: str
    parameters: Parameters
    ordered: bool = False
    single: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a query says besides its conditions on fields.

    Attributes:
        scope: Limits column `s`; empty when the query does not.
        scope_fixed: It is one value.
        bounds: Limits column `o`, from conditions and the keyset.
        natural: Whether the wanted order is that of the index, and its direction.
        rest: The conjuncts that the others leave.
    """

    scope: Seek
    scope_fixed: bool
    bounds: Seek
    natural: bool
    descending: bool
    rest: tuple[Condition, ...]


NOTHING = Seek("", ())


def conjuncts(condition: Condition | None) -> list[Condition]:
    """The conditions that must all hold."""
    if condition is None:
        return []
    if isinstance(condition, And):
        return [part for each in condition.conditions for part in conjuncts(each)]
    return [condition]


def prefix_end(start: str) -> str | None:
    """The least text above all that start so; None when there is no such text."""
    stem = start.rstrip(HIGHEST_CHARACTER)
    if not stem:
        return None
    code = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def shape_of(layout: Layout, query: Query, after: Sequence[Scalar] | None) -> Shape:
    """How the query meets the layout of the container."""
    parts = conjuncts(query.where)
    fixed = {part.path for part in parts if isinstance(part, Equals)}
    scope_parts = [part for part in parts if path_of(part) == layout.scope]
    order_parts = [part for part in parts if path_of(part) == layout.order]
    open_keys = [
        (position, key)
        for position, key in enumerate(query.order)
        if key.path not in fixed
    ]
    natural, descending = _natural(layout, [key for _, key in open_keys])
    scope_fixed = layout.scope in fixed
    natural = natural and (scope_fixed or len(open_keys) == 2)
    bounds = [seek for part in order_parts if (seek := _on_column("o", part))]
    if natural and after is not None and len(open_keys) == 1:
        comparison = "<" if descending else ">"
        bounds.append(Seek(f"o {comparison} ?", (after[open_keys[0][0]],)))
    rest = tuple(
        part for part in parts if path_of(part) not in (layout.scope, layout.order)
    )
    return Shape(
        _joined([seek for part in scope_parts if (seek := _on_column("s", part))]),
        scope_fixed,
        _joined(bounds),
        natural,
        descending,
        rest,
    )


def path_of(condition: Condition) -> FieldPath | None:
    """The one path of a condition; None for And and Or."""
    return None if isinstance(condition, And | Or) else condition.path


def _natural(layout: Layout, keys: Sequence[Order]) -> tuple[bool, bool]:
    """Whether these keys are the index's own order, and whether downwards."""
    wanted = [key.path for key in keys]
    if wanted not in ([layout.order], [layout.scope, layout.order]):
        return False, False
    directions = {key.descending for key in keys}
    return len(directions) == 1, keys[-1].descending


def _joined(seeks: Iterable[Seek]) -> Seek:
    parts = list(seeks)
    return Seek(
        " AND ".join(part.where for part in parts),
        tuple(value for part in parts for value in part.parameters),
    )


def _on_column(column: str, condition: Condition) -> Seek | None:
    """The condition on a whole value that stands uncut in a column."""
    match condition:
        case Equals(_, value):
            return Seek(f"{column} = ?", (stored(value),))
        case In(_, values):
            marks = ",".join("?" * len(values))
            return Seek(
                f"{column} IN ({marks})", tuple(stored(value) for value in values)
            )
        case Prefix(_, start):
            return _between(column, start, prefix_end(start), "<")
        case Range(_, low, high):
            return _between(column, low, high, "<=")
        case Or(conditions):
            return _alternatives(column, conditions)
        case _:
            return None


def _alternatives(column: str, conditions: Sequence[Condition]) -> Seek | None:
    seeks = [_on_column(column, part) for part in conditions]
    known = [seek for seek in seeks if seek is not None]
    if not known or len(known) < len(seeks):
        return None
    joined = " OR ".join(f"({seek.where})" for seek in known)
    return Seek(
        f"({joined})", tuple(value for seek in known for value in seek.parameters)
    )


def _id_limit(condition: Condition) -> Seek | None:
    """What the condition says of the id: a superset, None when nothing."""
    if isinstance(condition, Or):
        if not all(path_of(part) == ("id",) for part in condition.conditions):
            return None
    elif path_of(condition) != ("id",):
        return None
    return _on_column("id", condition)


def by_id(condition: Condition | None) -> bool:
    """Whether the documents are named by their ids."""
    return any(_id_limit(part) is not None for part in conjuncts(condition))


def _between(column: str, low: Stored | None, high: Stored | None, upper: str) -> Seek:
    """A column from low to high; texts and numbers never mix in one comparison."""
    parts, values = [], []
    if low is not None:
        parts.append(f"{column} >= ?")
        values.append(low)
        if high is None and not isinstance(low, str):
            parts.append(f"{column} < ''")
        elif high is None:
            parts.append(f"{column} < x''")
    if high is not None:
        parts.append(f"{column} {upper} ?")
        values.append(high)
        if low is None and isinstance(high, str):
            parts.append(f"{column} >= ''")
    return Seek(" AND ".join(parts), tuple(values))


def seek_of(layout: Layout, shape: Shape, condition: Condition) -> Seek | None:
    """Index rows for one conjunct; None where the index cannot help."""
    match condition:
        case Or(conditions):
            return _any_of(layout, shape, conditions)
        case And(conditions):
            for part in conditions:
                seek = seek_of(layout, shape, part)
                if seek is not None:
                    return replace(seek, ordered=False)
            return None
        case _:
            return _simple(layout, shape, condition)


def _any_of(
    layout: Layout, shape: Shape, conditions: Sequence[Condition]
) -> Seek | None:
    seeks = [seek_of(layout, shape, part) for part in conditions]
    known = [seek for seek in seeks if seek is not None]
    if len(known) < len(seeks) or not known:
        return None
    return Seek(
        "(" + " OR ".join(f"({seek.where})" for seek in known) + ")",
        tuple(value for seek in known for value in seek.parameters),
    )


def _simple(  # noqa: C901, PLR0911, PLR0912 - a table of kinds
    layout: Layout, shape: Shape, condition: Condition
) -> Seek | None:
    assert not isinstance(condition, And | Or)
    path = condition.path
    if path == ("pk",):
        if not shape.scope.where:
            return None  # documents without a scope have no such row
        text = PARTITION_PATH
    elif path in (("id",), layout.scope, layout.order) or not layout.covers(path):
        return None
    else:
        text = path_text(path)
    match condition:
        case Exists():
            return _rows_at(shape, text, NOTHING)
        case ArrayContains(_, value):
            return _point(shape, text + ELEMENTS, value)
        case Equals(_, value):
            return _point(shape, text, value)
        case In(_, values):
            marks = ",".join("?" * len(values))
            parameters = tuple(stored_value(value) for value in values)
            return _rows_at(shape, text, Seek(f"v IN ({marks})", parameters))
        case AnyWordStartsWith(_, start):
            return _rows_at(shape, text + ELEMENTS, _starting(start))
        case Prefix(_, start):
            return _rows_at(shape, text, _starting(start))
        case Range(_, low, high):
            cut_low, cut_high = _cut(low), _cut(high)
            return _rows_at(shape, text, _between("v", cut_low, cut_high, "<="))
        case Like(_, pattern):
            return _rows_at(shape, text, _like(pattern))


def _cut(bound: str | float | None) -> Stored | None:
    return None if bound is None else stored_value(bound)


def _rows_at(shape: Shape, text: str, value: Seek) -> Seek:
    parts = [Seek("p = ?", (text,))]
    if shape.scope.where:
        parts.append(shape.scope)
    if value.where:
        parts.append(value)
    if shape.bounds.where:
        parts.append(shape.bounds)
    return replace(_joined(parts), single=not text.endswith(ELEMENTS))


def _point(shape: Shape, text: str, value: Scalar) -> Seek:
    found = _rows_at(shape, text, Seek("v = ?", (stored_value(value),)))
    return replace(found, ordered=shape.scope_fixed)


def everything(shape: Shape) -> Seek:
    """All documents of the scope; those without a scope are not among them."""
    found = _rows_at(shape, ALL_PATH, Seek("v = x''", ()))
    return Seek(found.where, found.parameters, ordered=True)


def _starting(start: str) -> Seek:
    cut = start[:CUT_CHARACTERS]
    return _between("v", cut, prefix_end(cut), "<")


def _like(pattern: str) -> Seek:
    """Values with the pattern's beginning and its longest run of plain characters."""
    pieces = [piece for part in pattern.split("*") for piece in part.split("?")]
    start = pieces[0]
    longest = max(pieces, key=len)
    within = Seek("typeof(v) = 'text'", ())
    if longest and longest != start:
        within = Seek(f"(instr(v, ?) > 0 OR length(v) >= {CUT_CHARACTERS})", (longest,))
    return _joined([_starting(start), within])


# --- statements -----------------------------------------------------------------


def count_statement(layout: Layout, seek: Seek) -> str:
    """Counts the rows of a seek, at most as many as the last parameter says."""
    return (
        f"SELECT count(*) FROM (SELECT 1 FROM {layout.index}"  # noqa: S608 - our own names
        f" WHERE {seek.where} LIMIT ?)"
    )


def rows_statement(
    layout: Layout, shape: Shape, seek: Seek, also: Sequence[Seek], columns: str
) -> tuple[str, Parameters]:
    """Documents of a seek that are in all of `also`, in the natural order if wanted.

    An ordered seek is walked as it stands. The rows of another are sorted first, by
    themselves: the LIMIT keeps SQLite from sorting them together with the documents,
    which would read them all.
    """
    index, documents = layout.index, layout.documents
    where = seek.where + "".join(
        f" AND i.n IN (SELECT n FROM {index} WHERE {each.where})"  # noqa: S608 - our own names
        for each in also
    )
    direction = "DESC" if shape.descending else "ASC"
    order = f" ORDER BY i.s {direction}, i.o {direction}" if shape.natural else ""
    parameters = tuple(value for each in (seek, *also) for value in each.parameters)
    joined = f"CROSS JOIN {documents} AS d ON d.n = i.n"
    if seek.ordered:
        return (
            f"SELECT {columns} FROM {index} AS i {joined} WHERE {where}{order}",  # noqa: S608
            parameters,
        )
    distinct = "" if seek.single else "DISTINCT"
    rows = f"SELECT {distinct} s, o, n FROM {index} AS i WHERE {where}{order} LIMIT -1"  # noqa: S608
    return f"SELECT {columns} FROM ({rows}) AS i {joined}", parameters  # noqa: S608


def partition_statement(
    layout: Layout, partition_key: str, query: Query, columns: str
) -> tuple[str, Parameters]:
    """Documents of a partition by id; conditions on the id are key look-ups."""
    limits = [seek for part in conjuncts(query.where) if (seek := _id_limit(part))]
    where = _joined([Seek("pk = ?", (partition_key,)), *limits])
    direction = "DESC" if query.order[-1].descending else "ASC"
    statement = (
        f"SELECT {columns} FROM {layout.documents} AS d WHERE {where.where}"  # noqa: S608
        f" ORDER BY id {direction}"
    )
    return statement, where.parameters
