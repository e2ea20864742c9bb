"""Conditions of the SQL tree evaluated on documents."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from emulators.cosmos.errors import bad_request
from emulators.cosmos.sql_tree import (
    Both,
    Call,
    Comparison,
    Either,
    ExistsIn,
    Field,
    InList,
    LikePattern,
    Literal,
    Node,
    Operand,
    Truth,
)
from emulators.cosmos.values import UNDEFINED, at, comparable, equal, is_number

Parameters = Mapping[str, Any]
Test = Callable[[Any], bool]


def operand_value(operand: Operand, parameters: Parameters) -> Any:
    """The constant, or the parameter's value; an unknown parameter is a 400."""
    if isinstance(operand, Literal):
        return operand.value
    if operand.name not in parameters:
        raise bad_request(f"Parameter '{operand.name}' is not given.")
    return parameters[operand.name]


def compile_filter(node: Node, parameters: Parameters) -> Test:
    """A function that tells whether a document meets the condition."""
    match node:
        case Truth(value):
            return lambda _: value
        case Both(nodes):
            tests = [compile_filter(each, parameters) for each in nodes]
            return lambda document: all(test(document) for test in tests)
        case Either(nodes):
            tests = [compile_filter(each, parameters) for each in nodes]
            return lambda document: any(test(document) for test in tests)
        case Comparison(field, operator, operand):
            value = operand_value(operand, parameters)
            return _comparison(field, operator, value)
        case InList(field, operands):
            values = [operand_value(each, parameters) for each in operands]
            return lambda document: any(
                equal(at(document, field.path), value) for value in values
            )
        case LikePattern(field, operand, escape):
            return _like(field, operand_value(operand, parameters), escape)
        case ExistsIn(_, field, condition):
            inner = compile_filter(condition, parameters)
            return lambda document: any(
                inner(each) for each in _elements(at(document, field.path))
            )
        case Call():
            return _call(node, parameters)


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _comparison(field: Field, operator: str, value: Any) -> Test:
    def test(document: Any) -> bool:
        found = at(document, field.path)
        if not comparable(found, value):
            return False
        if operator == "=":
            return bool(found == value)
        if found is None or isinstance(found, list | dict):
            return operator in {"<=", ">="} and bool(found == value)
        match operator:
            case "<":
                return bool(found < value)
            case "<=":
                return bool(found <= value)
            case ">":
                return bool(found > value)
            case _:
                return bool(found >= value)

    return test


@lru_cache(maxsize=512)
def like_expression(pattern: str, escape: str | None) -> re.Pattern[str]:
    """The LIKE pattern as a regular expression.

    `%` any run, `_` one character; `[...]` sets are refused, since we escape `[`
    (docs: nosql/query/keywords.md, LIKE). What stands between two `%` is an atomic
    group: its first place is as good as any, and nothing is tried twice.
    """
    pieces, position = [""], 0
    while position < len(pattern):
        character = pattern[position]
        if character == escape and position + 1 < len(pattern):
            position += 1
            pieces[-1] += re.escape(pattern[position])
        elif character == "%":
            pieces.append("")
        elif character == "_":
            pieces[-1] += "."
        elif character == "[":
            raise bad_request("LIKE with a set of characters is not emulated.")
        else:
            pieces[-1] += re.escape(character)
        position += 1
    first, *rest = pieces
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _like(field: Field, pattern: Any, escape: str | None) -> Test:
    if not isinstance(pattern, str):
        return lambda _: False
    expression = like_expression(pattern, escape)

    def test(document: Any) -> bool:
        found = at(document, field.path)
        return isinstance(found, str) and expression.fullmatch(found) is not None

    return test


def _call(node: Call, parameters: Parameters) -> Test:
    path = node.field.path
    if node.name == "IS_STRING":
        return lambda document: isinstance(at(document, path), str)
    if node.name == "IS_NUMBER":
        return lambda document: is_number(at(document, path))
    if node.operand is None:
        return lambda document: at(document, path) is not UNDEFINED
    value = operand_value(node.operand, parameters)
    if node.name == "ARRAY_CONTAINS":
        return lambda document: any(
            equal(each, value) for each in _elements(at(document, path))
        )

    def starts(document: Any) -> bool:
        found = at(document, path)
        return (
            isinstance(found, str)
            and isinstance(value, str)
            and found.startswith(value)
        )

    return starts
