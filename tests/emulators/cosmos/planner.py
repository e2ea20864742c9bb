"""Which documents a query has to look at: through the index, or by a scan.

The service takes, for each part of a filter, the matching entries of an index path and
intersects them (docs: index-overview.md, "index usage"); an ORDER BY needs a range
index, one of two or more keys a composite index that is the same or exactly opposite
(index-policy.md, "Composite indexes"), else it is a 400. Here the most selective part
gives the candidates, or the order's index is walked until the page is full; the whole
filter is then evaluated on each candidate, so the choice never changes the rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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

FEW = 300
"""Documents of a logical partition up to which all are looked at."""
MOST_COUNTED = 10_000
"""Index entries are counted up to here to tell how selective a condition is."""

HANDFUL = 100
CAUTION = 2
"""How many times better walking the order must seem."""

Bounds = tuple[bytes, bytes]
Span = tuple[str, Bounds]
"""An index path and low <= key < high in it."""

OrderSpan = tuple[str, Bounds, bool]
"""Index path and bounds that give rows in order, and whether read backwards."""

Measure = Callable[[Sequence[Span], int], int]
"""How many entries the spans hold, each counted up to the second argument."""


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


@dataclass(frozen=True, slots=True)
class Planner:
    """A query that looks for the cheapest way to its candidates.

    Attributes:
        page_rows: How many rows the page takes at most.
        now: Unix time in seconds.
    """

    storage: Storage
    container: Container
    statement: Statement
    parameters: Parameters
    scope: Scope
    page_rows: int
    now: int

    def plan(self) -> Plan:
        """The way; its rows are in order only within one physical partition."""
        policy = self.container.policy
        check_order(policy, self.statement.order)
        if self.scope.partition_key is not None:
            return self._in_partition(self.scope.partition_key)
        unindexed = tuple(
            "/".join(path)
            for path in filter_paths(self.statement.where)
            if not policy.indexes(path)
        )
        found = self._by_index(scans=bool(unindexed))
        return found or Plan(self._all(), ordered=False, unindexed=unindexed)

    def _by_index(self, *, scans: bool) -> Plan | None:
        """The most selective part of the filter, or the order's index, walked."""
        where, parameters = self.statement.where, self.parameters
        index = _Index(parameters, self.container.policy.indexes, self._measure)
        spans = None if scans else _spans(where, index)
        walk = None
        if len(self.scope.ranges) == 1 and not scans:
            walk = _order_span(self.container.policy, self.statement, parameters)
        if walk is not None and (spans is None or self._walks(walk, spans)):
            path, bounds, backwards = walk
            rows = self.storage.walk(
                self.container.rid,
                path,
                self.scope.ranges[0],
                bounds,
                self.now,
                backwards=backwards,
            )
            return Plan(rows, ordered=True, backwards=backwards)
        return None if spans is None else Plan(self._union(spans), ordered=False)

    def _walks(self, walk: OrderSpan, spans: Sequence[Span]) -> bool:
        """Whether walking the order is likely to fill the page sooner.

        If n of m documents match, a page of k rows is found after k * m / n of them,
        unless the matches stand at the end.
        """
        matching = self._measure(spans, MOST_COUNTED)
        if matching <= self.page_rows:
            return False
        path, bounds, _ = walk
        total = self._measure([(path, bounds)], MOST_COUNTED)
        return CAUTION * self.page_rows * total / matching < matching

    def _measure(self, spans: Sequence[Span], most: int) -> int:
        return sum(
            self.storage.count(self.container.rid, path, each, bounds, most)
            for path, bounds in spans
            for each in self.scope.ranges
        )

    def _union(self, spans: Sequence[Span]) -> Iterator[Row]:
        seen: set[int] = set()
        rid = self.container.rid
        for each in self.scope.ranges:
            for path, bounds in spans:
                for row in self.storage.walk(rid, path, each, bounds, self.now):
                    if row.n not in seen:
                        seen.add(row.n)
                        yield row

    def _all(self) -> Iterator[Row]:
        for each in self.scope.ranges:
            yield from self.storage.physical(self.container.rid, each, self.now)

    # --- one logical partition

    def _in_partition(self, key: str) -> Plan:
        """The documents of one logical partition, by their ids if the filter names
        some, else all while they are few, else by the index."""
        rid, now = self.container.rid, self.now
        ids = _ids(self.statement.where, self.parameters)
        if ids is not None:
            found = (self.storage.document(rid, key, id, now) for id in sorted(ids))
            return Plan((row for row in found if row is not None), ordered=False)
        size = self.storage.partition_size(rid, key, FEW)
        if size == FEW and self.statement.order != (SortKey(("id",), False),):
            plan = self._by_index(scans=False)
            if plan is not None:
                inside = (row for row in plan.rows if row.pk == key)
                return replace(plan, rows=inside)
        low, high = _id_bounds(self.statement.where, self.parameters)
        by_id = self.statement.order == (SortKey(("id",), descending=False),)
        rows = self.storage.partition(rid, key, now, low, high)
        return Plan(rows, ordered=by_id)


def _ids(where: Node, parameters: Parameters) -> set[str] | None:
    """The ids that the filter asks for by name, or None."""
    for node in _conjuncts(where):
        match node:
            case InList(found, operands) if found.path == ("id",):
                values = [operand_value(each, parameters) for each in operands]
            case Comparison(found, "=", operand) if found.path == ("id",):
                values = [operand_value(operand, parameters)]
            case _:
                continue
        return {value for value in values if isinstance(value, str)}
    return None


def _id_bounds(where: Node, parameters: Parameters) -> tuple[str, str | None]:
    """The least and the greatest id that the filter lets through."""
    low, high = "", None
    for node in _conjuncts(where):
        match node:
            case Comparison(found, operator, operand) if found.path == ("id",):
                value = operand_value(operand, parameters)
                if not isinstance(value, str):
                    continue
                if operator in {">", ">="}:
                    low = max(low, value)
                else:
                    high = value if high is None else min(high, value)
            case _:
                pass
    return low, high


def _conjuncts(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Both):
        return tuple(part for each in node.nodes for part in _conjuncts(each))
    return (node,)


# --- spans of the index that hold all matches of a condition ---------------------


@dataclass(frozen=True, slots=True)
class _Index:
    """What there is to look up: paths that are indexed and how much they hold."""

    parameters: Parameters
    has: Callable[[Path], bool]
    measure: Measure

    def value(self, operand: Any) -> Any:
        return operand_value(operand, self.parameters)


def _spans(node: Node, index: _Index) -> tuple[Span, ...] | None:
    """Spans that together hold every match; None when the index cannot say."""
    match node:
        case Truth(False):
            return ()
        case Both(nodes):
            parts = [_spans(each, index) for each in nodes]
            parts += _ranges(nodes, index)
            known = [part for part in parts if part is not None]
            return _narrowest(known, index.measure)
        case Either(nodes):
            return _joined([_spans(each, index) for each in nodes])
        case _ if not all(map(index.has, filter_paths(node))):
            return None
        case Comparison(found, operator, operand):
            return ((_name(found.path), _bounds(operator, index.value(operand))),)
        case InList(found, operands):
            values = [index.value(each) for each in operands]
            return tuple((_name(found.path), _bounds("=", each)) for each in values)
        case ExistsIn(_, found, Call("STARTSWITH", _, operand)) if operand is not None:
            return _prefix((*found.path, "[]"), index.value(operand))
        case Call("STARTSWITH", found, operand) if operand is not None:
            return _prefix(found.path, index.value(operand))
        case Call("ARRAY_CONTAINS", found, operand) if operand is not None:
            bounds = _bounds("=", index.value(operand))
            return ((_name((*found.path, "[]")), bounds),)
        case _:
            return None


def _narrowest(
    parts: Sequence[tuple[Span, ...]], measure: Measure
) -> tuple[Span, ...] | None:
    """The part with the fewest entries; large ones are not counted to their end."""
    for most in (HANDFUL, MOST_COUNTED):
        counted = [
            (measure(part, most), position) for position, part in enumerate(parts)
        ]
        if counted and min(counted)[0] < most:
            return parts[min(counted)[1]]
    return parts[0] if parts else None


def _ranges(nodes: Sequence[Node], index: _Index) -> list[tuple[Span, ...] | None]:
    """One span for each path that is compared more than once: from low to high."""
    found: dict[str, Bounds] = {}
    for node in nodes:
        if isinstance(node, Comparison) and index.has(node.field.path):
            low, high = _bounds(node.operator, index.value(node.operand))
            known = found.setdefault(_name(node.field.path), (low, high))
            found[_name(node.field.path)] = max(known[0], low), min(known[1], high)
    return [((path, bounds),) for path, bounds in found.items()]


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
) -> OrderSpan | None:
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
) -> OrderSpan | None:
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
