"""The emulator's SQL: what it understands, and that it refuses all else."""

from typing import Any

import pytest
from emulators.cosmos.errors import CosmosError
from emulators.cosmos.sql_filter import compile_filter
from emulators.cosmos.sql_parser import parse, parse_condition
from emulators.cosmos.sql_tree import SortKey
from emulators.cosmos.values import encode, string_prefix, successor, type_rank
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT",
        "SELECT * FROM c WHERE",
        "SELECT * FROM c WHERE c.a",
        "SELECT * FROM c WHERE c.a != 1",
        "SELECT * FROM c WHERE c.a <> 1",
        "SELECT * FROM c WHERE NOT c.a = 1",
        "SELECT * FROM c WHERE c.a BETWEEN 1 AND 2",
        "SELECT * FROM c WHERE 1 = c.a",
        "SELECT * FROM c WHERE c.a = c.b",
        "SELECT * FROM c WHERE CONTAINS(c.a, 'x')",
        "SELECT * FROM c WHERE LOWER(c.a) = 'x'",
        "SELECT * FROM c WHERE STARTSWITH(c.a, 'x', true)",
        "SELECT * FROM c WHERE d.a = 1",
        "SELECT d.a FROM c",
        "SELECT DISTINCT c.a FROM c",
        "SELECT VALUE c FROM c",
        "SELECT MAX(c.a) FROM c",
        "SELECT * FROM c JOIN d IN c.a",
        "SELECT * FROM c GROUP BY c.a",
        "SELECT * FROM c ORDER BY LOWER(c.a)",
        "SELECT * FROM c OFFSET 1",
        "SELECT * FROM c LIMIT 1",
        "SELECT * FROM c; SELECT * FROM c",
        "SELECT * FROM c WHERE c.a = 'open",
        "DELETE FROM c",
    ],
)
def test_what_we_never_send_is_refused(text: str) -> None:
    with pytest.raises(CosmosError) as caught:
        parse(text)
    assert caught.value.status == 400


def test_a_statement_has_its_parts() -> None:
    statement = parse(
        'SELECT c["id"], c.f FROM c WHERE c.k = @k ORDER BY c.k, c["s"]["k"] DESC'
        " OFFSET @o LIMIT 5"
    )
    assert statement.fields == (("id",), ("f",))
    assert statement.order == (SortKey(("k",), False), SortKey(("s", "k"), True))
    assert parse("SELECT TOP 3 * FROM root r WHERE r.a = 1").alias == "r"


DOCUMENT = {
    "t": "abc", "n": 5, "yes": True, "none": None, "list": ["x", 1, True],
    "deep": {"a.b": 'q"\\'},
}  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("c.t = 'abc'", True),
        ('c.t = "abc"', True),
        ("c.t = 5", False),
        ("c.n = 5.0", True),
        ("c.n = '5'", False),
        ("c.yes = true", True),
        ("c.yes = 1", False),
        ("c.none = null", True),
        ("c.missing = null", False),
        ("c.none <= null", True),
        ("c.none < null", False),
        ("c.n > 'a'", False),
        ("c.t > 5", False),
        ("c.t >= 'abc' AND c.t < 'abd'", True),
        ("c.t IN ('x', 'abc')", True),
        ("c.missing IN ('x')", False),
        ("c.t LIKE 'a%'", True),
        ("c.t LIKE '_b_'", True),
        ("c.t LIKE 'A%'", False),
        ("c.t LIKE 'a!%' ESCAPE '!'", False),
        ("c.n LIKE '5'", False),
        ("STARTSWITH(c.t, 'ab')", True),
        ("STARTSWITH(c.n, '')", False),
        ("ARRAY_CONTAINS(c.list, 1)", True),
        ("ARRAY_CONTAINS(c.list, '1')", False),
        ("ARRAY_CONTAINS(c.t, 'a')", False),
        ("EXISTS(SELECT VALUE w FROM w IN c.list WHERE STARTSWITH(w, 'x'))", True),
        ("EXISTS(SELECT VALUE w FROM w IN c.t WHERE STARTSWITH(w, 'a'))", False),
        ("IS_DEFINED(c.none)", True),
        ("IS_DEFINED(c.missing)", False),
        ("IS_STRING(c.t) AND IS_NUMBER(c.n)", True),
        ("IS_NUMBER(c.yes) OR IS_STRING(c.none)", False),
        ('c["deep"]["a.b"] = "q\\"\\\\"', True),
        ("(false OR true) AND c.n = 5", True),
    ],
)
def test_a_condition_means_what_the_service_says(condition: str, wanted: bool) -> None:
    _, node = parse_condition(f"FROM c WHERE {condition}")
    assert compile_filter(node, {})(DOCUMENT) is wanted


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(CosmosError):
        compile_filter(parse("SELECT * FROM c WHERE c.a = @b").where, {"@a": 1})


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)  # fmt: skip


def place(value: Any) -> tuple[int, Any]:
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    return type_rank(value), value if known else 0


@given(SCALARS, SCALARS)
def test_the_bytes_of_values_sort_as_the_values(left: Any, right: Any) -> None:
    assert (encode(left) < encode(right)) == (place(left) < place(right))
    assert (encode(left, descending=True) > encode(right, descending=True)) == (
        place(left) < place(right)
    )


@given(st.text(max_size=5), st.text(max_size=5))
def test_a_prefix_spans_the_keys_of_what_starts_with_it(start: str, rest: str) -> None:
    low = string_prefix(start)
    assert low <= encode(start + rest) < successor(low)
    assert (low <= encode(rest) < successor(low)) == rest.startswith(start)
