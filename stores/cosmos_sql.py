"""Every Cosmos DB SQL statement that we send: named templates, values as parameters.

Only patch conditions carry values in their text, since the service takes no parameters
there; they are written as JSON constants. Field names are always quoted, so no name can
change a statement.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stores.containers import ContainerSpec
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

SELECT: Final = "SELECT {fields} FROM c{where}{order}{slice}"
WHERE: Final = " WHERE {condition}"
ORDER_BY: Final = " ORDER BY {keys}"
SLICE: Final = " OFFSET {offset} LIMIT {limit}"
PATCH_CONDITION: Final = "FROM c WHERE {condition}"
EQUALS: Final = "{field} = {value}"
IN: Final = "{field} IN ({values})"
COMPARISON: Final = "{field} {operator} {value}"
PREFIX: Final = "STARTSWITH({field}, {value})"
LIKE: Final = "{field} LIKE {value} ESCAPE '!'"
ANY_WORD: Final = (
    "EXISTS(SELECT VALUE word FROM word IN {field} WHERE STARTSWITH(word, {value}))"
)
ARRAY_CONTAINS: Final = "ARRAY_CONTAINS({field}, {value})"
EXISTS: Final = "IS_DEFINED({field})"
SORTABLE: Final = "(IS_STRING({field}) OR IS_NUMBER({field}))"
AFTER_EQUAL: Final = "({equal} AND {then})"

SYSTEM_PATHS: Final = frozenset({("id",), ("pk",), ("_ts",)})
"""Indexed in every container: by the service itself, `pk` by our policies."""

_LIKE_SPECIALS = str.maketrans(
    {
        "*": "%",
        "?": "_",
        "!": "!!",
        "%": "!%",
        "_": "!_",
        "[": "![",
        "]": "!]",
        "^": "!^",
    }
)

Write = Callable[[Scalar], str]
"""Puts a value into a statement and returns what stands for it there."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its parameters as the service takes them."""

    text: str
    parameters: list[dict[str, Any]]


@dataclass(slots=True)
class _Parameters:
    """Collects the values of a statement."""

    listed: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, value: Scalar) -> str:
        """The name of a new parameter with this value."""
        name = f"@p{len(self.listed)}"
        self.listed.append({"name": name, "value": value})
        return name


def _constant(value: Scalar) -> str:
    """The value as a JSON constant, which Cosmos DB SQL reads as JSON does."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("There is no constant for an infinite number")
    return json.dumps(value)


def field_text(path: FieldPath) -> str:
    """The path as an expression: `c["f"]["PatientID"]`."""
    return "c" + "".join(f"[{json.dumps(name)}]" for name in path)


def patch_condition(condition: Condition) -> str:
    """The condition as the filter predicate of a patch."""
    return PATCH_CONDITION.format(condition=_condition(condition, _constant))


# --- conditions -----------------------------------------------------------------


def _condition(  # noqa: C901, PLR0911, PLR0912 - a table of kinds
    condition: Condition, write: Write
) -> str:
    match condition:
        case And(conditions):
            return _joined(" AND ", conditions, write, empty="true")
        case Or(conditions):
            return _joined(" OR ", conditions, write, empty="false")
        case In(_, ()):
            return "false"
        case In(path, values):
            listed = ", ".join(write(value) for value in values)
            return IN.format(field=field_text(path), values=listed)
        case Range():
            return _range(condition, write)
        case Exists(path):
            return EXISTS.format(field=field_text(path))
        case Like(path, pattern):
            value = write(pattern.translate(_LIKE_SPECIALS))
            return LIKE.format(field=field_text(path), value=value)
        case Equals(path, value):
            return EQUALS.format(field=field_text(path), value=write(value))
        case Prefix(path, value):
            return PREFIX.format(field=field_text(path), value=write(value))
        case AnyWordStartsWith(path, value):
            return ANY_WORD.format(field=field_text(path), value=write(value))
        case ArrayContains(path, value):
            return ARRAY_CONTAINS.format(field=field_text(path), value=write(value))


def _joined(
    word: str, conditions: Iterable[Condition], write: Write, *, empty: str
) -> str:
    parts = [_condition(each, write) for each in conditions]
    if not parts:
        return empty
    return parts[0] if len(parts) == 1 else f"({word.join(parts)})"


def _range(condition: Range, write: Write) -> str:
    bounds = [each for each in (condition.low, condition.high) if each is not None]
    texts = sum(isinstance(each, str) for each in bounds)
    if not bounds or 0 < texts < len(bounds) or any(map(_is_truth, bounds)):
        raise ValueError("A range needs a bound, and both must be text or numbers")
    parts = [
        COMPARISON.format(
            field=field_text(condition.path), operator=operator, value=write(bound)
        )
        for operator, bound in ((">=", condition.low), ("<=", condition.high))
        if bound is not None
    ]
    return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def conjuncts(condition: Condition | None) -> tuple[Condition, ...]:
    """The conditions that must all hold."""
    match condition:
        case None:
            return ()
        case And(conditions):
            return tuple(part for each in conditions for part in conjuncts(each))
        case _:
            return (condition,)


def paths(condition: Condition | None) -> set[FieldPath]:
    """Every path that the condition looks at."""
    match condition:
        case None:
            return set()
        case And(conditions) | Or(conditions):
            return {path for each in conditions for path in paths(each)}
        case _:
            return {condition.path}


# --- order ----------------------------------------------------------------------


def is_indexed(spec: ContainerSpec, path: FieldPath) -> bool:
    """Whether a query across partitions may look at the path."""
    return path in SYSTEM_PATHS or any(
        path[: len(each) - 1] == each[:-1] and len(path) >= len(each)
        if each[-1] == "*"
        else path == each
        for each in spec.indexed
    )


def served_order(spec: ContainerSpec, query: Query) -> tuple[Order, ...] | None:
    """An ORDER BY that the container's index serves and that sorts as the query asks.

    Keys that the filter holds to one value may be left out or put in, so that a
    composite index fits exactly, as the service demands; the longest one serves most
    of the filter.

    Returns:
        The keys, or None where only sorting by ourselves would do.

    Source: Azure Cosmos DB documentation, index-policy.md, "Composite indexes".
    """
    fixed = {each.path for each in conjuncts(query.where) if isinstance(each, Equals)}
    needed = _without(query.order, fixed)
    for composite in sorted(spec.composites, key=len, reverse=True):
        for keys in (composite, _reversed(composite)):
            if _without(keys, fixed) == needed:
                return keys
    if len(needed) > 1:
        return None
    single = needed or query.order[-1:]
    return single if is_indexed(spec, single[0].path) else None


def _without(order: Sequence[Order], fixed: set[FieldPath]) -> tuple[Order, ...]:
    return tuple(key for key in order if key.path not in fixed)


def _reversed(order: Sequence[Order]) -> tuple[Order, ...]:
    return tuple(Order(key.path, descending=not key.descending) for key in order)


def _after(
    order: Sequence[Order], after: Sequence[Scalar], fixed: set[FieldPath], write: Write
) -> str:
    """The condition that leaves the rows behind the keyset.

    Keys that the filter holds to one value are left out. A key is compared with values
    of its own type: all values of one key are texts, or all are numbers.
    """
    keys = [
        (key, value)
        for key, value in zip(order, after, strict=True)
        if key.path not in fixed
    ]
    text: str | None = None
    for key, value in reversed(keys):
        name = field_text(key.path)
        operator = "<" if key.descending else ">"
        beyond = COMPARISON.format(field=name, operator=operator, value=write(value))
        if text is None:
            text = beyond
        else:
            equal = EQUALS.format(field=name, value=write(value))
            text = f"({beyond} OR {AFTER_EQUAL.format(equal=equal, then=text)})"
    return text if text is not None else "false"


@dataclass(frozen=True, slots=True)
class Slice:
    """What of the ordered rows is wanted.

    Attributes:
        after: Keyset after which the rows start, or None.
        offset: Rows to skip on the server, 0 for a statement without OFFSET.
        limit: Rows after the offset; only used with one.
    """

    after: Sequence[Scalar] | None = None
    offset: int = 0
    limit: int = 0


def select(
    query: Query,
    order: Sequence[Order] | None,
    part: Slice,
    *,
    sortable_only: bool,
) -> Statement:
    """The query as SQL.

    Args:
        query: Conditions, order of the keyset and fields.
        order: What `served_order` gave; None for no ORDER BY.
        part: Keyset and offset.
        sortable_only: Leaves out documents whose order keys are neither text nor
            number by a condition of its own (within a partition, where it costs no
            index scan).
    """
    write = _Parameters()
    fixed = {each.path for each in conjuncts(query.where) if isinstance(each, Equals)}
    conditions = [] if query.where is None else [_condition(query.where, write)]
    if part.after is not None:
        conditions.append(_after(query.order, part.after, fixed, write))
    if sortable_only:
        conditions += [
            SORTABLE.format(field=field_text(key.path))
            for key in query.order
            if key.path != ("id",)
        ]
    keys = [
        field_text(key.path) + (" DESC" if key.descending else "")
        for key in order or ()
    ]
    text = SELECT.format(
        fields=_fields(query),
        where=WHERE.format(condition=" AND ".join(conditions)) if conditions else "",
        order=ORDER_BY.format(keys=", ".join(keys)) if keys else "",
        slice=SLICE.format(offset=write(part.offset), limit=write(part.limit))
        if part.offset
        else "",
    )
    return Statement(text, write.listed)


def _fields(query: Query) -> str:
    if not query.fields:
        return "*"
    roots = [key.path[0] for key in query.order]
    names = dict.fromkeys(("id", *query.fields, *roots))
    return ", ".join(field_text((name,)) for name in names)
