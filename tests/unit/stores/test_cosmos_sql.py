"""The SQL that is sent to Cosmos DB."""

from dataclasses import replace
from typing import Any

import pytest
from emulators.cosmos.sql_parser import parse, parse_condition
from hypothesis import given
from hypothesis import strategies as st

from stores.containers import CATALOG, CLEANUP, CONTAINERS, DICOM, FEED, ContainerSpec
from stores.cosmos_sql import (
    Slice,
    is_indexed,
    patch_condition,
    paths,
    select,
    served_order,
)
from stores.ports import (
    And,
    AnyWordStartsWith,
    ArrayContains,
    Condition,
    Equals,
    Exists,
    In,
    Like,
    Or,
    Order,
    Prefix,
    Query,
    Range,
)

SPECS = {spec.name: spec for spec in CONTAINERS}
NEWEST = (Order(("k",)), Order(("sk",), descending=True))
KIND = Equals(("k",), "st|p")


def where_of(condition: Condition) -> tuple[str, list[Any]]:
    statement = select(Query(condition), None, Slice(), sortable_only=False)
    values = [each["value"] for each in statement.parameters]
    return statement.text.removeprefix("SELECT * FROM c WHERE "), values


@pytest.mark.parametrize(
    ("condition", "text", "values"),
    [
        (Equals(("f", "A"), None), 'c["f"]["A"] = @p0', [None]),
        (In(("id",), ("a", 1)), 'c["id"] IN (@p0, @p1)', ["a", 1]),
        (In(("id",), ()), "false", []),
        (Range(("w",), 1, 2), '(c["w"] >= @p0 AND c["w"] <= @p1)', [1, 2]),
        (Range(("w",), low="a"), 'c["w"] >= @p0', ["a"]),
        (Prefix(("w",), "a'"), 'STARTSWITH(c["w"], @p0)', ["a'"]),
        (
            Like(("w",), "a*b?c%_[]^!"),
            "c[\"w\"] LIKE @p0 ESCAPE '!'",
            ["a%b_c!%!_![!]!^!!"],
        ),
        (
            AnyWordStartsWith(("words", "PN"), "x"),
            (
                'EXISTS(SELECT VALUE word FROM word IN c["words"]["PN"]'
                " WHERE STARTSWITH(word, @p0))"
            ),
            ["x"],
        ),
        (ArrayContains(("mods",), "CT"), 'ARRAY_CONTAINS(c["mods"], @p0)', ["CT"]),
        (Exists(("pending",)), 'IS_DEFINED(c["pending"])', []),
        (And(()), "true", []),
        (Or(()), "false", []),
        (
            Or((And((Exists(("a",)), Exists(("b",)))), Exists(("c",)))),
            '((IS_DEFINED(c["a"]) AND IS_DEFINED(c["b"])) OR IS_DEFINED(c["c"]))',
            [],
        ),
    ],
    ids=repr,
)
def test_a_condition_as_sql(condition: Condition, text: str, values: list[Any]) -> None:
    assert where_of(condition) == (text, values)


@pytest.mark.parametrize(
    "condition", [Range(("w",)), Range(("w",), "a", 1), Range(("w",), low=True)]
)
def test_a_range_without_bounds_of_one_type_is_refused(condition: Range) -> None:
    with pytest.raises(ValueError):
        where_of(condition)


def test_a_patch_condition_has_its_values_in_it() -> None:
    condition = And((Equals(("rev",), 4), Equals(("state",), 'li"ve\\\n')))
    text = patch_condition(condition)
    assert text == ('FROM c WHERE (c["rev"] = 4 AND c["state"] = "li\\"ve\\\\\\n")')
    with pytest.raises(ValueError):
        patch_condition(Equals(("n",), float("inf")))


def test_a_keyset_leaves_out_what_the_filter_fixes() -> None:
    query = Query(And((KIND, Equals(("f", "PatientID"), "x"))), NEWEST)
    order = served_order(SPECS[CATALOG], query)
    part = Slice(("st|p", "007"))
    statement = select(query, order, part, sortable_only=False)
    assert statement.text == (
        'SELECT * FROM c WHERE (c["k"] = @p0 AND c["f"]["PatientID"] = @p1)'
        ' AND c["sk"] < @p2'
        ' ORDER BY c["k"], c["f"]["PatientID"], c["sk"] DESC'
    )
    assert [each["value"] for each in statement.parameters] == ["st|p", "x", "007"]


def test_a_keyset_of_two_keys_goes_on_behind_both() -> None:
    query = Query(None, (Order(("after",)), Order(("id",))), ("tries",))
    order = served_order(SPECS[CLEANUP], query)
    part = Slice((7, "b"))
    assert select(query, order, part, sortable_only=False).text == (
        'SELECT c["id"], c["tries"], c["after"] FROM c WHERE (c["after"] > @p1'
        ' OR (c["after"] = @p2 AND c["id"] > @p0)) ORDER BY c["after"], c["id"]'
    )


def test_within_a_partition_only_sortable_keys_and_an_offset() -> None:
    query = Query(None, (Order(("last",), descending=True),))
    order = served_order(SPECS[FEED], query)
    part = Slice(None, 5, 3)
    assert select(query, order, part, sortable_only=True).text == (
        'SELECT * FROM c WHERE (IS_STRING(c["last"]) OR IS_NUMBER(c["last"]))'
        ' ORDER BY c["last"] DESC OFFSET @p0 LIMIT @p1'
    )


@pytest.mark.parametrize(
    ("container", "where", "order", "wanted"),
    [
        (CATALOG, KIND, NEWEST, NEWEST),
        (CATALOG, KIND, NEWEST[1:], NEWEST),
        (CATALOG, None, NEWEST, NEWEST),
        (CATALOG, None, NEWEST[1:], NEWEST[1:]),
        (
            CATALOG, KIND, (Order(("sk",)),),
            (Order(("k",), descending=True), Order(("sk",))),
        ),
        (CATALOG, None, (Order(("k",)), Order(("sk",))), None),
        (CATALOG, None, (Order(("secret",)),), None),
        (CATALOG, KIND, (Order(("sk",)), Order(("id",))), None),
        (CLEANUP, None, (Order(("id",)),), (Order(("id",)),)),
        (
            DICOM, Equals(("t",), "i"), (Order(("w",), descending=True),),
            (Order(("w",), descending=True),),
        ),
        (DICOM, Equals(("w",), 1), (Order(("w",)),), (Order(("w",)),)),
    ],
)  # fmt: skip
def test_an_order_is_made_to_fit_a_composite_index(
    container: str,
    where: Condition | None,
    order: tuple[Order, ...],
    wanted: tuple[Order, ...] | None,
) -> None:
    assert served_order(SPECS[container], Query(where, order)) == wanted


@pytest.mark.parametrize(
    ("path", "indexed"),
    [
        (("f", "A"), True),
        (("f",), False),
        (("mods",), True),
        (("mods", "x"), False),
        (("id",), True),
        (("pk",), True),
        (("secret",), False),
    ],
)
def test_a_path_is_indexed_as_its_container_says(
    path: tuple[str, ...], indexed: bool
) -> None:
    assert is_indexed(SPECS[CATALOG], path) is indexed


NAMES = st.text(min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
TEXTS = st.text(max_size=6)
CONDITIONS = st.recursive(
    st.one_of(
        st.builds(Equals, PATHS, TEXTS | st.integers() | st.none()),
        st.builds(In, PATHS, st.lists(TEXTS, max_size=3).map(tuple)),
        st.builds(Range, PATHS, TEXTS, TEXTS),
        st.builds(Prefix, PATHS, TEXTS),
        st.builds(Like, PATHS, TEXTS),
        st.builds(AnyWordStartsWith, PATHS, TEXTS),
        st.builds(ArrayContains, PATHS, TEXTS),
        st.builds(Exists, PATHS),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        .map(tuple)
        .flatmap(lambda parts: st.sampled_from([And(parts), Or(parts)]))
    ),
    max_leaves=4,
)


@given(CONDITIONS, PATHS, TEXTS)
def test_no_name_or_value_leaves_its_place(
    where: Condition, path: tuple[str, ...], value: str
) -> None:
    query = Query(where, (Order(path, descending=True), Order(("id",))), ("é",))
    statement = select(
        query, query.order, Slice((value, "a"), 1, 2), sortable_only=True
    )
    parsed = parse(statement.text)
    assert [(key.path, key.descending) for key in parsed.order] == [
        (path, True), (("id",), False)
    ]  # fmt: skip
    assert parsed.fields is not None
    assert set(parsed.fields) == {("id",), ("é",), (path[0],)}
    names = [each["name"] for each in statement.parameters]
    assert names == [f"@p{n}" for n in range(len(names))]


@given(CONDITIONS)
def test_a_patch_condition_is_one_condition(where: Condition) -> None:
    alias, _ = parse_condition(patch_condition(where))
    assert alias == "c"
    assert paths(And((where, Exists(("x",))))) >= {("x",)}


def test_specs_name_their_composites_by_indexed_paths() -> None:
    for spec in CONTAINERS:
        for keys in spec.composites:
            assert all(is_indexed(spec, key.path) for key in keys)
    assert not is_indexed(replace(SPECS[FEED], indexed=()), ("last",))
    assert isinstance(SPECS[FEED], ContainerSpec)
