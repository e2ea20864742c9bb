"""Whether a document meets a Condition, and how documents are put in order.

This is the meaning of `stores.ports.Condition`: the SQLite adapter decides every row
by it (its indexes only propose rows), patch conditions are decided by it, and the
Cosmos DB SQL is tested against it. Values compare by JSON type: true is not 1.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cmp_to_key
from typing import Any, TypeVar, assert_never

from stores.ports import (
    And,
    AnyWordStartsWith,
    ArrayContains,
    Condition,
    Document,
    Equals,
    Exists,
    FieldPath,
    In,
    Like,
    Or,
    Order,
    Prefix,
    Range,
    Scalar,
)

MISSING: Any = object()
"""What `field` gives where a document has no such field."""

Predicate = Callable[[Document], bool]


def field(document: Document, path: FieldPath) -> Any:
    """The value at the path, or MISSING."""
    value: Any = document
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def same(left: Any, right: Any) -> bool:
    """Whether two JSON scalars are of one type and equal."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list | dict):
        return False
    return bool(left == right)


def predicate(condition: Condition | None) -> Predicate:  # noqa: PLR0911 - a table of kinds
    """The condition as a function of a document.

    Raises:
        ValueError: A Range without bounds or with bounds of two types.
    """
    if condition is None:
        return lambda _document: True
    match condition:
        case And(conditions):
            return _all([predicate(each) for each in conditions])
        case Or(conditions):
            return _any([predicate(each) for each in conditions])
        case Exists(path):
            return lambda document: field(document, path) is not MISSING
        case Equals() | In() | ArrayContains():
            return _of_value(condition)
        case Range():
            return _range(condition)
        case _:
            return _of_text(condition)


def matches(condition: Condition | None, document: Document) -> bool:
    """Whether the document meets the condition."""
    return predicate(condition)(document)


def _all(parts: list[Predicate]) -> Predicate:
    return lambda document: all(part(document) for part in parts)


def _any(parts: list[Predicate]) -> Predicate:
    return lambda document: any(part(document) for part in parts)


def _of_value(condition: Equals | In | ArrayContains) -> Predicate:
    path = condition.path
    match condition:
        case Equals(_, wanted):
            return lambda document: same(field(document, path), wanted)
        case In(_, values):
            texts = frozenset(value for value in values if isinstance(value, str))
            others = [value for value in values if not isinstance(value, str)]

            def one_of(document: Document) -> bool:
                found = field(document, path)
                if isinstance(found, str):
                    return found in texts
                return any(same(found, value) for value in others)

            return one_of
        case ArrayContains(_, wanted):

            def contains(document: Document) -> bool:
                found = field(document, path)
                return isinstance(found, list) and any(
                    same(each, wanted) for each in found
                )

            return contains
        case _:
            assert_never(condition)


def _of_text(condition: Prefix | Like | AnyWordStartsWith) -> Predicate:
    path = condition.path
    match condition:
        case Prefix(_, start):

            def starts(document: Document) -> bool:
                found = field(document, path)
                return isinstance(found, str) and found.startswith(start)

            return starts
        case Like(_, pattern):
            fits = like_expression(pattern).fullmatch

            def like(document: Document) -> bool:
                found = field(document, path)
                return isinstance(found, str) and fits(found) is not None

            return like
        case AnyWordStartsWith(_, start):

            def word(document: Document) -> bool:
                found = field(document, path)
                return isinstance(found, list) and any(
                    isinstance(each, str) and each.startswith(start) for each in found
                )

            return word
        case _:
            assert_never(condition)


def like_expression(pattern: str) -> re.Pattern[str]:
    """The `*` and `?` pattern as a regular expression for `fullmatch`.

    Each run between two `*` is an atomic group, so that the time is at most pattern
    times text however many `*` a client sends.
    """
    first, *rest = [
        ".".join(re.escape(piece) for piece in part.split("?"))
        for part in pattern.split("*")
    ]
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def is_number(value: Any) -> bool:
    """Whether the value is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range(condition: Range) -> Predicate:
    path, low, high = condition.path, condition.low, condition.high
    bounds = [bound for bound in (low, high) if bound is not None]
    if bounds and all(isinstance(bound, str) for bound in bounds):
        of_type: Callable[[Any], bool] = lambda value: isinstance(value, str)  # noqa: E731 - one of two choices
    elif bounds and all(is_number(bound) for bound in bounds):
        of_type = is_number
    else:
        raise ValueError("A range needs a bound, and both must be text or numbers")

    def within(document: Document) -> bool:
        found = field(document, path)
        return (
            of_type(found)
            and (low is None or found >= low)
            and (high is None or found <= high)
        )

    return within


def paths(condition: Condition | None) -> Iterator[FieldPath]:
    """Every path that the condition looks at."""
    match condition:
        case None:
            return
        case And(conditions) | Or(conditions):
            for each in conditions:
                yield from paths(each)
        case _:
            yield condition.path


# --- order ----------------------------------------------------------------------

Keys = tuple[Scalar, ...]
T = TypeVar("T")


def order_keys(order: Sequence[Order], document: Document) -> Keys | None:
    """The values of the order keys; None where one is neither text nor a number."""
    keys: list[Scalar] = []
    for each in order:  # a loop costs half of two generators, a document each
        key = field(document, each.path)
        if not (isinstance(key, str) or is_number(key)):
            return None
        keys.append(key)
    return tuple(keys)


def compare_keys(order: Sequence[Order], left: Sequence[Any], right: Any) -> int:
    """Negative when `left` comes first; numbers come before texts when ascending."""
    for each, a, b in zip(order, left, right, strict=True):
        if a == b:
            continue
        a_text, b_text = isinstance(a, str), isinstance(b, str)
        smaller = a < b if a_text == b_text else b_text
        return -1 if smaller is not each.descending else 1
    return 0


def sorted_keys(
    order: Sequence[Order], items: Sequence[tuple[Keys, T]]
) -> list[tuple[Keys, T]]:
    """The items in the order of their keys."""

    def compare(left: tuple[Keys, T], right: tuple[Keys, T]) -> int:
        return compare_keys(order, left[0], right[0])

    return sorted(items, key=cmp_to_key(compare))
