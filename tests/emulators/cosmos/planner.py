"""Which documents a query has to look at: through the index, or by a scan.

The service takes, for each part of a filter, the matching entries of an index path and
intersects them (docs: index-overview.md, "index usage"); an ORDER BY needs a range
index, one of two or more keys a composite index that is the same or exactly opposite
(index-policy.md, "Composite indexes"), else it is a 400. Here the most selective part
gives the candidates, or the order's index is walked until the page is full; the whole
filter is then evaluated on each candidate, so the choice never changes the rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emulators.cosmos.errors import bad_request
from emulators.cosmos.index_policy import IndexPolicy
from emulators.cosmos.resources import Container
from emulators.cosmos.sql_filter import Parameters, operand_value
from emulators.cosmos.sql_tree import (
    Both,
    Call,
    Comparison,
    Either,
    ExistsIn,
    InList,
    LikePattern,
    Node,
    Path,
    SortKey,
    Statement,
    Truth,
)
from emulators.cosmos.storage import Row, Storage
from emulators.cosmos.values import encode, string_prefix, successor

FEW = 1500
"""Candidates up to which they are loaded and sorted rather than the order walked."""

Bounds = tuple[bytes, bytes]
Span = tuple[str, Bounds]
"""An index path and low <= key < high in it."""

Measure = Callable[[Sequence[Span]], int]
"""How many entries the spans hold, counted up to a little over FEW."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the documents of a scope are found.

    Attributes:
        unindexed: Paths of the filter that no index serves: the query scans.
        ordered: Whether the rows come in the order asked for.
        backwards: Whether rows of equal keys come last created first.
    """

    rows: Iterator[Row]
    ordered: bool
    backwards: bool = False
    unindexed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a query covers.

    Attributes:
        ranges: Ids of physical partitions.
        partition_key: One logical partition, or None.
    """

    ranges: tuple[str, ...]
    partition_key: str | None = None


def filter_paths(node: Node) -> Iterator[Path]:
    """Every path that the condition reads; elements of lists are `[]`."""
    match node:
        case Both(nodes) | Either(nodes):
            for each in nodes:
                yield from filter_paths(each)
        case ExistsIn(_, found, condition):
            for below in filter_paths(condition):
                yield (*found.path, "[]", *below)
        case Call("ARRAY_CONTAINS", found):
            yield (*found.path, "[]")
        case Comparison(found) | InList(found) | LikePattern(found) | Call(_, found):
            yield found.path
        case Truth():
            return


def check_order(policy: IndexPolicy, order: Sequence[SortKey]) -> None:
    """A 400 for an ORDER BY that no index serves, as the service answers."""
    if len(order) > 1 and policy.composite_for(order) is None:
        raise bad_request(
            "The order by query does not have a corresponding composite index that it"
            " can be served from."
        )
    if len(order) == 1 and not policy.indexes(order[0].path):
        raise bad_request(
            "The index path corresponding to the specified order-by item is excluded."
        )


def plan(
    storage: Storage,
    container: Container,
    statement: Statement,
    parameters: Parameters,
    scope: Scope,
    now: int,
) -> Plan:
    """The cheapest way to the candidates; ordered across the ranges of the scope only
    when there is one."""
    check_order(container.policy, statement.order)
    if scope.partition_key is not None:
        return _in_partition(storage, container, statement, parameters, scope, now)
    unindexed = tuple(
        "/".join(path)
        for path in filter_paths(statement.where)
        if not container.policy.indexes(path)
    )

    def measure(spans: Sequence[Span]) -> int:
        return _counted(storage, container, spans, scope)

    spans = None if unindexed else _spans(statement.where, parameters, measure)
    few = spans is not None and measure(spans) <= FEW
    walk = None if few else _order_span(container.policy, statement, parameters)
    if walk is not None and len(scope.ranges) == 1:
        path, bounds, backwards = walk
        rows = storage.walk(
            container.rid, path, scope.ranges[0], bounds, now, backwards=backwards
        )
        return Plan(rows, ordered=True, backwards=backwards, unindexed=unindexed)
    if spans is not None:
        return Plan(_union(storage, container, spans, scope, now), ordered=False)
    rows = (
        row
        for each in scope.ranges
        for row in storage.physical(container.rid, each, now)
    )
    return Plan(rows, ordered=False, unindexed=unindexed)


def _in_partition(
    storage: Storage,
    container: Container,
    statement: Statement,
    parameters: Parameters,
    scope: Scope,
    now: int,
) -> Plan:
    """All documents of the logical partition, between the bounds on `id`."""
    assert scope.partition_key is not None
    low, high = "", None
    for node in _conjuncts(statement.where):
        match node:
            case Comparison(found, operator, operand) if found.path == ("id",):
                value = operand_value(operand, parameters)
                if isinstance(value, str) and operator in {">", ">=", "="}:
                    low = max(low, value)
                if isinstance(value, str) and operator in {"<", "<=", "="}:
                    high = value if high is None else min(high, value)
            case _:
                pass
    rows = storage.partition(container.rid, scope.partition_key, now, low, high)
    by_id = statement.order == (SortKey(("id",), descending=False),)
    return Plan(rows, ordered=by_id)


def _conjuncts(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Both):
        return tuple(part for each in node.nodes for part in _conjuncts(each))
    return (node,)


def _counted(
    storage: Storage, container: Container, spans: Sequence[Span], scope: Scope
) -> int:
    return sum(
        storage.count(container.rid, path, each, bounds, FEW + 1)
        for path, bounds in spans
        for each in scope.ranges
    )


def _union(
    storage: Storage,
    container: Container,
    spans: Sequence[Span],
    scope: Scope,
    now: int,
) -> Iterator[Row]:
    seen: set[int] = set()
    for each in scope.ranges:
        for path, bounds in spans:
            for row in storage.walk(container.rid, path, each, bounds, now):
                if row.n not in seen:
                    seen.add(row.n)
                    yield row


# --- spans of the index that hold all matches of a condition ---------------------


def _spans(
    node: Node, parameters: Parameters, measure: Measure
) -> tuple[Span, ...] | None:
    """Spans that together hold every match; None when the index cannot say."""
    match node:
        case Truth(False):
            return ()
        case Both(nodes):
            parts = [_spans(each, parameters, measure) for each in nodes]
            known = [part for part in parts if part is not None]
            return min(known, key=measure, default=None)
        case Either(nodes):
            return _joined([_spans(each, parameters, measure) for each in nodes])
        case Comparison(found, operator, operand):
            value = operand_value(operand, parameters)
            return ((_name(found.path), _bounds(operator, value)),)
        case InList(found, operands):
            values = [operand_value(each, parameters) for each in operands]
            return tuple((_name(found.path), _bounds("=", each)) for each in values)
        case ExistsIn(_, found, Call("STARTSWITH", _, operand)) if operand is not None:
            return _prefix((*found.path, "[]"), operand_value(operand, parameters))
        case Call("STARTSWITH", found, operand) if operand is not None:
            return _prefix(found.path, operand_value(operand, parameters))
        case Call("ARRAY_CONTAINS", found, operand) if operand is not None:
            value = operand_value(operand, parameters)
            return ((_name((*found.path, "[]")), _bounds("=", value)),)
        case _:
            return None


def _joined(parts: Sequence[tuple[Span, ...] | None]) -> tuple[Span, ...] | None:
    joined: list[Span] = []
    for part in parts:
        if part is None:
            return None
        joined.extend(part)
    return tuple(joined)


def _name(path: Path) -> str:
    return "/".join(path)


def _prefix(path: Path, value: Any) -> tuple[Span, ...] | None:
    if not isinstance(value, str):
        return ()
    low = string_prefix(value)
    return ((_name(path), (low, successor(low))),)


def _bounds(operator: str, value: Any) -> Bounds:
    """Keys of the values for which `field operator value` is true."""
    key = encode(value)
    above_type = bytes((key[0] + 1,))
    match operator:
        case "=":
            return key, key + b"\0"
        case "<":
            return key[:1], key
        case "<=":
            return key[:1], key + b"\0"
        case ">":
            return key + b"\0", above_type
        case _:
            return key, above_type


# --- the index of the order -------------------------------------------------------


def _order_span(
    policy: IndexPolicy, statement: Statement, parameters: Parameters
) -> tuple[str, Bounds, bool] | None:
    """Index path, bounds and direction that give the rows in order; None: sort them."""
    order = statement.order
    conditions = _conjuncts(statement.where)
    if len(order) == 1:
        return _single_span(order[0], conditions, parameters)
    composite = policy.composite_for(order) if order else None
    if composite is None:
        return None
    name, backwards = composite
    stored = policy.composites[int(name.split()[1])]
    prefix = b""
    for key in stored:
        equal = _equal_to(key.path, conditions, parameters)
        if equal is None:
            low, high = _key_bounds(key, conditions, parameters)
            return name, (prefix + low, prefix + high), backwards
        prefix += encode(equal[0], descending=key.descending)
    return name, (prefix, prefix + b"\0"), backwards


def _single_span(
    key: SortKey, conditions: Sequence[Node], parameters: Parameters
) -> tuple[str, Bounds, bool] | None:
    """The path's own index, if the filter leaves out documents without the field."""
    for node in conditions:
        match node:
            case Comparison(found) if found.path == key.path:
                break
            case Call("IS_DEFINED", found) if found.path == key.path:
                break
            case _:
                pass
    else:
        return None
    if key.path == ("_ts",):
        return None
    low, high = _key_bounds(SortKey(key.path, descending=False), conditions, parameters)
    return _name(key.path), (low, high), key.descending


def _equal_to(
    path: Path, conditions: Sequence[Node], parameters: Parameters
) -> tuple[Any] | None:
    for node in conditions:
        match node:
            case Comparison(found, "=", operand) if found.path == path:
                return (operand_value(operand, parameters),)
            case _:
                pass
    return None


def _key_bounds(
    key: SortKey, conditions: Sequence[Node], parameters: Parameters
) -> Bounds:
    """Bounds of one component from the comparisons with it, both ends generous."""
    low, high = b"", b"\xff" * 9
    for node in conditions:
        match node:
            case Comparison(found, operator, operand) if found.path == key.path:
                value = operand_value(operand, parameters)
                encoded = encode(value, descending=key.descending)
                upward = operator in {">", ">="}
                if operator == "=":
                    low, high = max(low, encoded), min(high, successor(encoded))
                elif upward != key.descending:
                    low = max(low, encoded)
                else:
                    high = min(high, successor(encoded))
            case _:
                pass
    return low, high
