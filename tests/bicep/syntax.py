"""Bicep files as trees: what a file declares, and what an expression may stand for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_bicep.language()))
NO_VALUE = {"type", "compatible_identifier", "diagnostic_comment", "comment"}


@dataclass
class Declared:
    """One declaration.

    Attributes:
        kind: parameter, variable, resource, module, output, type or function.
        value: The expression or body; None where there is none.
        reference: Resource type with version, or path of a module.
        type: Text of the declared type, empty where there is none.
    """

    kind: str
    name: str
    node: Node
    value: Node | None = None
    reference: str = ""
    type: str = ""
    existing: bool = False
    decorators: dict[str, Node] = field(default_factory=dict)


@dataclass
class File:
    """A parsed file; `broken` are the nodes that are no Bicep."""

    path: Path
    root: Node
    declared: list[Declared]
    broken: list[Node]

    def named(self, *kinds: str) -> dict[str, Declared]:
        """The declarations of these kinds by name."""
        return {each.name: each for each in self.declared if each.kind in kinds}


def parse(path: Path, text: str | None = None) -> File:
    """The file, or the given text in its place."""
    source = path.read_text(encoding="utf-8") if text is None else text
    root = PARSER.parse(source.encode()).root_node
    broken = [each for each in walk(root) if each.is_error or each.is_missing]
    return File(path, root, list(declarations(root)), broken)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything in it, in the order of the text."""
    yield node
    for child in node.children:
        yield from walk(child)


def text_of(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()


def literal(node: Node) -> str | None:
    """The text of a string without interpolations, else None."""
    if node.type != "string":
        return None
    parts = named(node)
    if any(part.type not in {"string_content", "escape_sequence"} for part in parts):
        return None
    return "".join(text_of(part) for part in parts)


def named(node: Node) -> list[Node]:
    return [child for child in node.children if child.is_named]


def declarations(root: Node) -> Iterator[Declared]:
    decorators: dict[str, Node] = {}
    for node in named(root):
        if node.type == "decorators":
            decorators = dict(decorators_of(node))
            continue
        found = declaration(node)
        if found:
            found.decorators = decorators
            yield found
        if node.type != "comment":
            decorators = {}


def decorators_of(node: Node) -> Iterator[tuple[str, Node]]:
    for call in (named(each)[0] for each in named(node)):
        name = named(call)[0] if call.type == "call_expression" else call
        yield text_of(name).removeprefix("sys."), call


def declaration(node: Node) -> Declared | None:
    kind = node.type.removesuffix("_declaration")
    parts = named(node)
    if kind in {"parameter", "output"}:
        types = [text_of(each) for each in parts if each.type == "type"]
        values = [each for each in parts[1:] if each.type not in NO_VALUE]
        value = values[-1] if values else None
        return Declared(kind, text_of(parts[0]), node, value, type="".join(types))
    if kind == "variable":
        return Declared(kind, text_of(parts[0]), node, parts[-1])
    if kind in {"resource", "module"}:
        return Declared(
            kind,
            text_of(parts[0]),
            node,
            parts[-1],
            reference=literal(parts[1]) or "",
            existing=any(child.type == "existing" for child in node.children),
        )
    return None


def bodies(node: Node) -> Iterator[Node]:
    """The object nodes of a resource or module: behind loops and conditions."""
    if node.type == "object":
        yield node
    elif node.type in {"for_statement", "if_statement"}:
        yield from bodies(named(node)[-1])


def properties(node: Node) -> dict[str, Node]:
    """Name to value of an object; names that are expressions are left out."""
    found = {}
    for each in named(node):
        if each.type == "object_property":
            key, value = named(each)[0], named(each)[-1]
            name = literal(key) if key.type == "string" else text_of(key)
            if name is not None:
                found[name] = value
    return found


def candidates(node: Node, variables: dict[str, Declared]) -> Iterator[Node]:
    """What an expression may come to, as far as its text tells."""
    parts = named(node)
    if node.type == "parenthesized_expression":
        yield from candidates(parts[0], variables)
    elif node.type == "ternary_expression":
        for part in parts[1:]:
            yield from candidates(part, variables)
    elif node.type == "identifier" and text_of(node) in variables:
        value = variables[text_of(node)].value
        assert value is not None
        yield from candidates(value, variables)
    elif node.type == "subscript_expression" and parts[0].type == "identifier":
        for table in candidates(parts[0], variables):
            if table.type == "object":
                for value in properties(table).values():
                    yield from candidates(value, variables)
    elif called(node) == "union":
        for argument in named(parts[1]):
            yield from candidates(argument, variables)
    else:
        yield node


def called(node: Node) -> str:
    """The name of the function that a call calls; empty for anything else."""
    if node.type != "call_expression":
        return ""
    return text_of(named(node)[0]).removeprefix("sys.").removeprefix("az.")


def elements(node: Node) -> Iterator[Node]:
    """The elements that an array, a loop or a map() makes."""
    parts = named(node)
    if node.type == "array":
        yield from parts
    elif node.type == "for_statement":
        yield from bodies(node)
    elif called(node) == "map":
        yield named(named(parts[1])[-1])[-1]
