"""Execution of one query request: rows, order, page, continuation, query plan.

A page ends at `x-ms-max-item-count` rows (100 unless said) or 4 MB (docs:
concepts-limits.md, "Maximum response size"). A continuation holds the sort position of
the last row, as the service's own do.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emulators.cosmos import charges
from emulators.cosmos.documents import compact
from emulators.cosmos.errors import CosmosError, bad_request
from emulators.cosmos.planner import Plan, Planner, Scope
from emulators.cosmos.resources import Container
from emulators.cosmos.sql_filter import Parameters, compile_filter, operand_value
from emulators.cosmos.sql_parser import parse
from emulators.cosmos.sql_tree import SortKey, Statement
from emulators.cosmos.storage import Row, Storage
from emulators.cosmos.values import UNDEFINED, at, encode

MOST_PAGE_BYTES = 4 * 1024 * 1024
DEFAULT_PAGE_ROWS = 100
Position = tuple[bytes, int]
"""Where a row stands: the bytes of its sort keys and its number."""


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """A query as it came.

    Attributes:
        epk: Effective partition keys from (included) and to (not), or None.
        page_rows: Rows of a page; -1 leaves it to the service.
        continuation: Token of the page before, or None.
    """

    text: str
    parameters: Parameters
    scope: Scope
    epk: tuple[str, str] | None
    page_rows: int
    continuation: str | None


@dataclass(frozen=True, slots=True)
class QueryPage:
    """A page of results.

    Attributes:
        unindexed: Paths for which the query had to scan.
    """

    rows: list[Any]
    continuation: str | None
    charge: float
    unindexed: tuple[str, ...]
    loaded: int


def read_query(body: Mapping[str, Any]) -> tuple[str, Parameters]:
    """Text and parameters of the body of a query."""
    if not set(body) <= {"query", "parameters"} or "query" not in body:
        raise bad_request("A query has `query` and `parameters`.")
    parameters = {}
    for each in body.get("parameters") or []:
        if set(each) != {"name", "value"}:
            raise bad_request("A parameter has a name and a value.")
        parameters[each["name"]] = each["value"]
    return body["query"], parameters


def run_query(
    storage: Storage, container: Container, request: QueryRequest, now: int
) -> QueryPage:
    """One page of the query."""
    statement = parse(request.text)
    page_rows = request.page_rows if request.page_rows > 0 else DEFAULT_PAGE_ROWS
    found = Planner(
        storage, container, statement, request.parameters, request.scope, page_rows, now
    ).plan()
    resumed = _resumed(request)
    matches = _matches(container, statement, request, found.rows)
    counted = _Counted(matches)
    rows = _sorted(statement, counted, found)
    after = _position_from(resumed)
    if after is not None:
        rows = (each for each in rows if each[0] > after)
    page = _page(statement, request, rows, resumed)
    return QueryPage(
        page.items,
        page.continuation,
        charges.query(counted.loaded, page.size_bytes),
        found.unindexed,
        counted.loaded,
    )


class _Counted:
    """Rows that matched, counting those that were looked at."""

    def __init__(self, matches: Iterator[tuple[Row, dict[str, Any]] | None]) -> None:
        self._matches = matches
        self.loaded = 0

    def __iter__(self) -> Iterator[tuple[Row, dict[str, Any]]]:
        for each in self._matches:
            self.loaded += 1
            if each is not None:
                yield each


def _matches(
    container: Container,
    statement: Statement,
    request: QueryRequest,
    rows: Iterator[Row],
) -> Iterator[tuple[Row, dict[str, Any]] | None]:
    """Row and document of each match, None for each that is not one."""
    test = compile_filter(statement.where, request.parameters)
    for row in rows:
        inside = request.epk is None or request.epk[0] <= row.epk < request.epk[1]
        document = row.document if inside else None
        matched = document is not None and test(document)
        yield (row, document) if matched and document is not None else None


def _key(order: tuple[SortKey, ...], document: Mapping[str, Any]) -> bytes:
    return b"".join(
        encode(at(document, key.path), descending=key.descending) for key in order
    )


def _sorted(
    statement: Statement, matches: _Counted, found: Plan
) -> Iterator[tuple[Position, dict[str, Any]]]:
    sign = -1 if found.backwards else 1
    keyed = (
        ((_key(statement.order, document), sign * row.n), document)
        for row, document in matches
    )
    if found.ordered:
        return keyed
    return iter(sorted(keyed, key=lambda each: each[0]))


# --- pages -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Page:
    items: list[Any]
    continuation: str | None
    size_bytes: int


def _digest(request: QueryRequest) -> str:
    text = compact([request.text, sorted(request.parameters.items()), request.epk])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _resumed(request: QueryRequest) -> dict[str, Any]:
    if request.continuation is None:
        return {}
    try:
        token = json.loads(base64.b64decode(request.continuation))
    except ValueError as error:
        raise bad_request("Invalid continuation token.") from error
    if token.get("query") != _digest(request):
        raise bad_request("The continuation token belongs to another query.")
    return dict(token)


def _position_from(token: Mapping[str, Any]) -> Position | None:
    if "key" not in token:
        return None
    return bytes.fromhex(token["key"]), token["n"]


def _number(operand: Any, request: QueryRequest) -> int | None:
    if operand is None:
        return None
    value = operand_value(operand, request.parameters)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad_request("TOP, OFFSET and LIMIT take a number from 0.")
    return value


def _page(
    statement: Statement,
    request: QueryRequest,
    rows: Iterator[tuple[Position, dict[str, Any]]],
    resumed: Mapping[str, Any],
) -> _Page:
    top, limit = _number(statement.top, request), _number(statement.limit, request)
    skip = resumed.get("skip", _number(statement.offset, request) or 0)
    left = resumed.get("left", top if limit is None else limit)
    if statement.aggregate:
        return _Page([sum(1 for _ in rows)], None, 8)
    most = request.page_rows if request.page_rows > 0 else DEFAULT_PAGE_ROWS
    items: list[Any] = []
    size = 0
    last: Position | None = None
    for position, document in rows:
        if skip > 0:
            skip -= 1
            continue
        if left == 0:
            return _Page(items, None, size)
        item = _projected(statement, document)
        item_bytes = len(compact(item).encode())
        if items and (len(items) >= most or size + item_bytes > MOST_PAGE_BYTES):
            assert last is not None
            return _Page(items, _token(request, last, left), size)
        items.append(item)
        size += item_bytes
        last = position
        left = None if left is None else left - 1
    return _Page(items, None, size)


def _token(request: QueryRequest, last: Position, left: int | None) -> str:
    token = {
        "query": _digest(request), "key": last[0].hex(), "n": last[1],
        "skip": 0, "left": left,
    }  # fmt: skip
    return base64.b64encode(compact(token).encode()).decode()


def _projected(statement: Statement, document: dict[str, Any]) -> Any:
    if statement.merged:
        items = [
            {} if (value := at(document, key.path)) is UNDEFINED else {"item": value}
            for key in statement.order
        ]
        return {"_rid": document["_rid"], "orderByItems": items, "payload": document}
    if statement.fields is None:
        return document
    result: dict[str, Any] = {}
    for path in statement.fields:
        value = at(document, path)
        if value is not UNDEFINED:
            result[path[-1]] = value
    return result


# --- query plans -----------------------------------------------------------------


def needs_plan(statement: Statement) -> bool:
    """Whether the gateway leaves a cross-partition query to the client (400/1004).

    Source: azure-cosmos 4.17.1, _execution_context/execution_dispatcher.py
    (`_is_partitioned_execution_info`).
    """
    return bool(
        statement.order
        or statement.top is not None
        or statement.offset is not None
        or statement.aggregate
    )


def query_plan(text: str, container: Container) -> dict[str, Any]:
    """The plan by which the SDK fans a query out and merges it.

    Fields as azure-cosmos 4.17.1 reads them: execution_context/query_execution_info.py.
    OFFSET and aggregates are refused: our code never sends them across partitions.
    """
    statement = parse(text)
    if statement.offset is not None or statement.aggregate:
        raise bad_request("Plans with OFFSET or aggregates are not emulated.")
    info: dict[str, Any] = {
        "distinctType": "None", "top": None, "offset": None, "limit": None,
        "orderBy": [], "orderByExpressions": [], "groupByExpressions": [],
        "groupByAliases": [], "aggregates": [], "groupByAliasToAggregateType": {},
        "rewrittenQuery": "", "hasSelectValue": False, "hasNonStreamingOrderBy": False,
    }  # fmt: skip
    if statement.top is not None:
        info["top"] = operand_value(statement.top, {})
    if statement.order:
        info |= _ordered_plan(text, statement)
    ranges = [{"min": "", "max": "FF", "isMinInclusive": True, "isMaxInclusive": False}]
    return {
        "partitionedQueryExecutionInfoVersion": 2,
        "queryInfo": info,
        "queryRanges": ranges,
    }


def _ordered_plan(text: str, statement: Statement) -> dict[str, Any]:
    if statement.fields is not None:
        raise bad_request("Plans with ORDER BY and chosen fields are not emulated.")
    alias = statement.alias
    names = ["".join(f'["{name}"]' for name in key.path) for key in statement.order]
    items = ", ".join(f'{{"item": {alias}{name}}}' for name in names)
    upper = text.upper()
    clause = text[upper.rindex("ORDER BY") :]
    start, end = upper.find(" WHERE "), upper.rindex("ORDER BY")
    condition = f"({text[start + 7 : end].strip()}) AND " if start >= 0 else ""
    top = f"TOP {operand_value(statement.top, {})} " if statement.top else ""
    rewritten = (
        f"SELECT {top}{alias}._rid, [{items}] AS orderByItems, {alias} AS payload"
        f" FROM {alias} WHERE {condition}"
        f"({{documentdb-formattableorderbyquery-filter}}) {clause}"
    )
    return {
        "orderBy": [
            "Descending" if k.descending else "Ascending" for k in statement.order
        ],
        "orderByExpressions": [f"{alias}{name}" for name in names],
        "rewrittenQuery": rewritten,
    }


def refuse_cross_partition(statement: Statement) -> None:
    """The gateway's answer to a query that it cannot serve without a plan."""
    if needs_plan(statement):
        raise CosmosError(
            400,
            "The provided cross partition query can not be directly served by the"
            " gateway. This is a first chance (internal) exception that all newer"
            " clients will know how to handle gracefully.",
            substatus=1004,
        )
