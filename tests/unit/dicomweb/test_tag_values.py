"""The value of a query tag in metadata: the rules are those of a store."""

import pytest

from dicomweb.query_tags import Level, QueryTag
from dicomweb.tag_values import value_of
from dicomweb.validation import ErrorCode


def value(vr, *values, in_file=None):
    tag = QueryTag(1, "00991001", vr, Level.STUDY, private_creator="ACME")
    element = {"vr": in_file or vr, "Value": list(values)}
    if not values:
        del element["Value"]
    creator = {"vr": "LO", "Value": ["ACME"]}
    return value_of({"00990012": creator, "00991201": element}, tag)


@pytest.mark.parametrize(
    ("vr", "given", "form"),
    [
        ("AE", "A Title ", "a title"),
        ("AS", "045Y", "045y"),
        ("CS", "HEAD", "head"),
        ("DA", "20200102", "20200102"),
        ("DS", 70.5, 70.5),
        ("DS", "7.05e1", 70.5),
        ("DT", "2020+0100", "20200101000000.000000"),
        ("FD", 1.5, 1.5),
        ("FL", 1.5, 1.5),
        ("IS", 3, 3),
        ("IS", "0003", 3),
        ("LO", "Ärzte", "ärzte"),
        ("PN", {"Alphabetic": "Tá^Bo"}, "ta^bo"),
        ("SH", "x", "x"),
        ("SL", -5, -5),
        ("SS", -5, -5),
        ("TM", "10", 36_000_000_000),
        ("UI", "1.2.3", "1.2.3"),
        ("UL", 5, 5),
        ("US", 5, 5),
    ],
)
def test_a_value_comes_in_the_form_that_is_searched(vr, given, form):
    assert value(vr, given) == form


@pytest.mark.parametrize(
    ("vr", "given", "code"),
    [
        ("AE", "x" * 17, ErrorCode.TOO_LONG),
        ("AS", "45Y", ErrorCode.WRONG_LENGTH),
        ("CS", "x" * 17, ErrorCode.TOO_LONG),
        ("DA", "20200230", ErrorCode.DATE),
        ("DS", "heavy", ErrorCode.DECIMAL_STRING),
        ("DT", "20201301", ErrorCode.DATE_TIME),
        ("IS", "3.5", ErrorCode.INTEGER_STRING),
        ("IS", 2**31, ErrorCode.INTEGER_STRING),
        ("LO", "x" * 65, ErrorCode.TOO_LONG),
        ("LO", "a\tb", ErrorCode.INVALID_CHARACTERS),
        ("PN", {"Alphabetic": "x" * 65}, ErrorCode.PERSON_NAME_GROUP_LENGTH),
        ("PN", {"Alphabetic": "1^2^3^4^5^6"}, ErrorCode.PERSON_NAME_COMPONENTS),
        ("SH", "x" * 17, ErrorCode.TOO_LONG),
        ("TM", "25", ErrorCode.TIME),
        ("UI", "1.2.a", ErrorCode.UID),
    ],
)
def test_a_value_that_breaks_a_rule_is_an_error(vr, given, code):
    assert value(vr, given) is code


def test_another_vr_than_the_tags_is_an_error_even_without_a_value():
    assert value("SH", "x", in_file="LO") is ErrorCode.UNEXPECTED_VR
    assert value("SH", in_file="LO") is ErrorCode.UNEXPECTED_VR


def test_what_a_file_in_implicit_vr_says_of_private_attributes_is_no_value():
    assert value("LO", in_file="UN") is None


@pytest.mark.parametrize("values", [(), (None,), ("",), (None, "second")])
@pytest.mark.parametrize("vr", ["LO", "DA", "IS", "DS", "PN"])
def test_no_first_value_is_nothing_to_index_and_no_error(vr, values):
    assert value(vr, *values) is None


def test_of_several_values_the_first_one_counts():
    assert value("CS", "ONE", "TWO") == "one"


def test_an_instance_without_the_attribute_or_the_creator_has_no_value():
    tag = QueryTag(1, "00991001", "LO", Level.STUDY, private_creator="ACME")
    other = {"vr": "LO", "Value": ["OTHER"]}
    element = {"vr": "LO", "Value": ["x"]}
    assert value_of({}, tag) is None
    assert value_of({"00990010": other, "00991001": element}, tag) is None
