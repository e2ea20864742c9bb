"""What expressions of a Bicep file come to, for given parameters.

Knows what our templates use; anything else is an error. Resources and outputs of modules
stand for texts such as `site.id`.
"""

from collections.abc import Callable
from typing import Any

from tree_sitter import Node

from bicep.syntax import Declared, File, bodies, literal, named, text_of


class Failed(Exception):
    """The template called fail()."""


class Evaluator:
    """The values of one file."""

    def __init__(self, file: File, parameters: dict[str, Any]) -> None:
        self.variables = file.named("variable")
        self.parameters = file.named("parameter")
        self.symbols = {*file.named("resource", "module")}
        self.given = parameters

    def body(self, declared: Declared) -> dict[str, Any]:
        """The body of a resource or module that is no loop."""
        assert declared.value is not None
        [node] = bodies(declared.value)
        found = self.value(node, {})
        assert isinstance(found, dict)
        return found

    def variable(self, name: str) -> Any:
        node = self.variables[name].value
        assert node is not None
        return self.value(node, {})

    def condition(self, declared: Declared) -> bool:
        """Whether a resource or module is there at all."""
        node = declared.value
        assert node is not None
        return node.type != "if_statement" or bool(self.value(named(node)[0], {}))

    def value(self, node: Node, local: dict[str, Any]) -> Any:
        method: Callable[[Node, dict[str, Any]], Any] = getattr(self, f"_{node.type}")
        return method(node, local)

    # --- by kind of node ------------------------------------------------------------

    def _string(self, node: Node, local: dict[str, Any]) -> str:
        whole = literal(node)
        if whole is not None:
            return whole
        parts = []
        for part in named(node):
            if part.type == "interpolation":
                parts.append(str(self.value(named(part)[0], local)))
            else:
                parts.append(text_of(part))
        return "".join(parts)

    def _number(self, node: Node, local: dict[str, Any]) -> int:
        return int(text_of(node))

    def _boolean(self, node: Node, local: dict[str, Any]) -> bool:
        return text_of(node) == "true"

    def _null(self, node: Node, local: dict[str, Any]) -> None:
        return None

    def _identifier(self, node: Node, local: dict[str, Any]) -> Any:
        name = text_of(node)
        if name in local:
            return local[name]
        if name in self.given:
            return self.given[name]
        if name in self.variables:
            return self.variable(name)
        if name in self.parameters and self.parameters[name].value is not None:
            return self.value(self.parameters[name].value, {})
        assert name in self.symbols, name
        return name

    def _array(self, node: Node, local: dict[str, Any]) -> list[Any]:
        return [
            self.value(part, local) for part in named(node) if part.type != "comment"
        ]

    def _object(self, node: Node, local: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for part in named(node):
            if part.type == "object_property":
                key, value = named(part)[0], named(part)[-1]
                name = (
                    text_of(key) if key.type == "identifier" else self.value(key, local)
                )
                found[name] = self.value(value, local)
        return found

    def _parenthesized_expression(self, node: Node, local: dict[str, Any]) -> Any:
        return self.value(named(node)[0], local)

    def _ternary_expression(self, node: Node, local: dict[str, Any]) -> Any:
        test, yes, no = named(node)
        return self.value(yes if self.value(test, local) else no, local)

    def _binary_expression(self, node: Node, local: dict[str, Any]) -> bool:
        left, right = named(node)
        operator = text_of(node.children[1])
        first = self.value(left, local)
        if operator == "&&":
            return bool(first and self.value(right, local))
        if operator == "||":
            return bool(first or self.value(right, local))
        equal: bool = first == self.value(right, local)
        return {"==": equal, "!=": not equal}[operator]

    def _unary_expression(self, node: Node, local: dict[str, Any]) -> bool:
        assert text_of(node).startswith("!")
        return not self.value(named(node)[-1], local)

    def _member_expression(self, node: Node, local: dict[str, Any]) -> Any:
        parts = named(node)
        if parts[0].type == "lambda_expression":  # `x => x.name`, see check.py
            return self._call_later(named(parts[0]), parts[1], local)
        found = self.value(parts[0], local)
        name = text_of(parts[1])
        return found[name] if isinstance(found, dict) else f"{found}.{name}"

    def _assertion_expression(self, node: Node, local: dict[str, Any]) -> Any:
        return self.value(named(node)[0], local)

    def _subscript_expression(self, node: Node, local: dict[str, Any]) -> Any:
        table, key = (self.value(part, local) for part in named(node))
        return f"{table}[{key}]" if isinstance(table, str) else table[key]

    def _lambda_expression(self, node: Node, local: dict[str, Any]) -> Any:
        return self._call_later(named(node), None, local)

    def _call_later(self, parts: list[Node], tail: Node | None, local: Any) -> Any:
        def call(argument: Any) -> Any:
            found = self.value(parts[-1], {**local, text_of(parts[0]): argument})
            return found[text_of(tail)] if tail else found

        return call

    def _call_expression(self, node: Node, local: dict[str, Any]) -> Any:
        name = text_of(named(node)[0])
        arguments = [self.value(part, local) for part in named(named(node)[1])]
        return FUNCTIONS[name](*arguments)


def fail(message: str) -> None:
    raise Failed(message)


def union(*values: Any) -> Any:
    if isinstance(values[0], list):
        return list(dict.fromkeys(each for value in values for each in value))
    return {key: each for value in values for key, each in value.items()}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "empty": lambda value: not value,
    "environment": lambda: {"suffixes": {"storage": "core.windows.net"}},
    "fail": fail,
    "items": lambda value: [{"key": k, "value": v} for k, v in sorted(value.items())],
    "map": lambda values, function: [function(each) for each in values],
    "max": max,
    "min": min,
    "replace": lambda text, old, new: text.replace(old, new),
    "resourceGroup": lambda: {"id": "/group", "location": "westeurope"},
    "string": lambda value: {True: "True", False: "False"}.get(value, str(value)),
    "toLower": str.lower,
    "union": union,
    "uniqueString": lambda *_: "abcdefghijklm",
    "bool": lambda text: text == "true",
    "int": int,
}
