"""Any query over any documents gives what the meaning of the conditions gives."""

import itertools
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.conditions import matches, order_keys, sorted_keys
from stores.containers import CONTAINERS, WORK
from stores.cosmos_documents import CosmosDocuments
from stores.cosmos_sql import served_order
from stores.ports import (
    And,
    AnyWordStartsWith,
    ArrayContains,
    Condition,
    Document,
    Documents,
    Equals,
    Exists,
    In,
    Like,
    Or,
    Order,
    Prefix,
    Query,
    Range,
    Upsert,
)

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

_scopes = itertools.count(1)

TEXTS = st.text(alphabet="ab%_[^é", max_size=4) | st.sampled_from(
    ["a" * 300, "a" * 300 + "b", "\U0010ffff", "a\0b", "\0"]
)
NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, -2.0, 2**53, -(2**62), 1e300])
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
NAMES = st.sampled_from(["a", "b", "a.b", "é"])
PATHS = st.tuples(st.just("f"), NAMES) | st.tuples(
    st.just("f"), NAMES, st.sampled_from(["v", "w"])
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["v", "w"]), SCALARS, max_size=2)
)


def bodies_with(
    order_keys: st.SearchStrategy[Any],
) -> st.SearchStrategy[list[Document]]:
    return st.lists(
        st.fixed_dictionaries(
            {"f": st.dictionaries(NAMES, VALUES, max_size=3)},
            optional={"sk": order_keys},
        ),
        max_size=8,
    )


BODIES = bodies_with(TEXTS) | bodies_with(NUMBERS)
"""A keyset compares within one type: the order keys of a scope are all of one."""


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    bounds = st.tuples(values | st.none(), values | st.none()).filter(any_bound)
    return st.builds(lambda path, pair: Range(path, *pair), PATHS, bounds)


def any_bound(pair: tuple[Any, Any]) -> bool:
    return pair[0] is not None or pair[1] is not None


SIMPLE: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Equals, PATHS, SCALARS),
    st.builds(In, PATHS, st.lists(SCALARS, max_size=3).map(tuple)),
    ranges(TEXTS),
    ranges(NUMBERS),
    st.builds(Prefix, PATHS, TEXTS),
    st.builds(Like, PATHS, st.text(alphabet="ab%_[?*", max_size=5)),
    st.builds(AnyWordStartsWith, PATHS, TEXTS),
    st.builds(ArrayContains, PATHS, SCALARS),
    st.builds(Exists, PATHS),
)
CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        .map(tuple)
        .flatmap(lambda parts: st.sampled_from([And(parts), Or(parts)]))
    ),
    max_leaves=5,
)
ORDERS = st.sampled_from(
    [
        (Order(("k",)), Order(("sk",), descending=True), Order(("id",))),
        (Order(("sk",), descending=True), Order(("id",), descending=True)),
        (Order(("sk",)), Order(("id",))),
    ]
)


def unique_natural(documents: list[Document]) -> bool:
    """Whether `sk` alone tells the documents apart, as in the catalog."""
    keys = [document.get("sk") for document in documents]
    return len(set(keys)) == len(keys)


def serves_across(documents: Documents, query: Query) -> bool:
    """Whether the adapter takes the order across partitions; else it says so."""
    spec = next(each for each in CONTAINERS if each.name == WORK)
    return (
        not isinstance(documents, CosmosDocuments)
        or served_order(spec, query) is not None
    )


def expected(documents: list[Document], query: Query) -> list[str]:
    pairs = [
        (keys, document["id"])
        for document in documents
        if matches(query.where, document)
        and (keys := order_keys(query.order, document)) is not None
    ]
    return [id for _, id in sorted_keys(query.order, pairs)]


async def by_pages(
    documents: Documents, query: Query, limit: int, partition_key: str | None
) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = await documents.query(
            WORK, query, limit=limit, after=after, partition_key=partition_key
        )
        assert len(page.documents) <= limit
        found += [document["id"] for document in page.documents]
        if page.after is None:
            return found
        after = page.after


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(bodies=BODIES, where=CONDITIONS, order=ORDERS, limit=st.integers(1, 5))
async def test_any_query_gives_what_the_conditions_mean(
    documents: Documents,
    bodies: list[Document],
    where: Condition,
    order: tuple[Order, ...],
    limit: int,
) -> None:
    scope = f"k{next(_scopes)}"
    rows = [
        body | {"id": letter, "k": scope}
        for letter, body in zip(string.ascii_lowercase, bodies, strict=False)
    ]
    if rows:
        await documents.batch(WORK, scope, [Upsert(row) for row in rows])
    scoped = And((Equals(("k",), scope), where))
    orders = [order]
    if unique_natural(rows):
        orders.append((Order(("k",)), Order(("sk",), descending=True)))
    for each in orders:
        query = Query(scoped, each, ("id",))
        wanted = expected(rows, query)
        if serves_across(documents, query):
            assert await by_pages(documents, query, limit, None) == wanted
        assert await by_pages(documents, query, limit, scope) == wanted
    by_id = Query(where, (Order(("id",), descending=True),))
    assert await by_pages(documents, by_id, limit, scope) == expected(rows, by_id)
