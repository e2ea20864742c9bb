import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.conditions import (
    compare_keys,
    like_expression,
    matches,
    order_keys,
    sorted_keys,
)
from stores.ports import Equals, Order, Range
from stores.query_sql import prefix_end


@given(st.text(alphabet="ab\n", max_size=8), st.text(alphabet="ab?*", max_size=6))
def test_a_like_pattern_means_what_a_file_pattern_means(
    text: str, pattern: str
) -> None:
    wanted = fnmatch.fnmatchcase(text, pattern)
    assert (like_expression(pattern).fullmatch(text) is not None) == wanted


def test_a_hostile_like_pattern_takes_no_time() -> None:
    started = time.process_time()
    assert like_expression("*a" * 200 + "b").fullmatch("a" * 5_000) is None
    assert time.process_time() - started < 1


def test_booleans_are_no_numbers() -> None:
    assert not matches(Equals(("a",), 1), {"a": True})
    assert not matches(Equals(("a",), False), {"a": 0})
    assert not matches(Range(("a",), 0, 2), {"a": True})


@pytest.mark.parametrize("bounds", [(None, None), (1, "a"), (True, None)])
def test_a_range_of_no_type_is_refused(bounds: tuple) -> None:
    with pytest.raises(ValueError, match="bound"):
        matches(Range(("a",), *bounds), {"a": 1})


def test_a_document_with_a_key_that_has_no_order_is_left_out() -> None:
    order = (Order(("a",)),)
    for body in ({}, {"a": None}, {"a": []}, {"a": True}):
        assert order_keys(order, body) is None
    assert order_keys(order, {"a": 0}) == (0,)


def test_keys_sort_by_each_direction_and_numbers_before_texts() -> None:
    order = (Order(("a",)), Order(("b",), descending=True))
    keys = [("x", 1), (2, 5), (2, "y"), ("x", 2), (1, 0)]
    found = [pair for pair, _ in sorted_keys(order, [(key, None) for key in keys])]
    assert found == [(1, 0), (2, "y"), (2, 5), ("x", 2), ("x", 1)]
    assert compare_keys(order, (1, 1), (1, 1)) == 0


@given(st.text(max_size=3), st.text(max_size=3))
def test_texts_with_a_prefix_end_before_its_end(start: str, rest: str) -> None:
    end = prefix_end(start)
    text = start + rest
    assert end is None or (text < end) == (text >= start and text.startswith(start))
