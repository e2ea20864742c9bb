"""What is wrong with a set of Bicep files, as far as it can be told without a compiler.

Syntax; names that are nowhere declared, declared twice or never used; parameters of
modules; resource types, their versions and properties; and keys in settings.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tree_sitter import Node

from bicep.catalog import PLAIN, Catalog, ObjectType, ResourceType, alternatives
from bicep.functions import FUNCTIONS, NAMESPACES
from bicep.syntax import (
    Declared,
    File,
    bodies,
    called,
    candidates,
    elements,
    literal,
    named,
    parse,
    properties,
    text_of,
    walk,
)

LITERALS = {"string": "string", "number": "int", "boolean": "bool", "array": "array",
            "object": "object", "for_statement": "array"}  # fmt: skip
BUILT_IN = {"dependsOn", "scope", "parent"}
MODULE_PROPERTIES = {"name", "params", "scope", "dependsOn"}
SECRET = re.compile(
    r"AccountKey=|SharedAccessKey=|SharedAccessSignature|\bsig=|Password="
)
SECRET_NAME = re.compile(r"(?i)(key|secret|password|token|connection|sas)$")
# Names that end so and hold no key: with local authentication off they say where.
HARMLESS = {
    "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
}
SETTING = re.compile(r"[A-Za-z]+(_[A-Za-z0-9]+)+")


def check(paths: Iterable[Path], catalog: Catalog, texts: dict[Path, str]) -> list[str]:
    """Every mistake as `file:line: sentence`.

    Args:
        paths: All files; modules that they name must be among them.
        texts: What to take instead of the content of a file.
    """
    files = {path: parse(path, texts.get(path)) for path in paths}
    found: list[str] = []
    for file in files.values():
        for node, sentence in Checker(file, files, catalog).mistakes():
            line = node.start_point[0] + 1
            found.append(f"{file.path.name}:{line}: {sentence}")
    return found


Mistakes = Iterator[tuple[Node, str]]


class Checker:
    """The checks of one file."""

    def __init__(self, file: File, files: dict[Path, File], catalog: Catalog) -> None:
        self.file = file
        self.files = files
        self.catalog = catalog
        self.variables = file.named("variable")
        self.parameters = file.named("parameter")
        self.resources = file.named("resource")
        self.modules = file.named("module")

    def mistakes(self) -> Mistakes:
        if self.file.broken:
            for node in self.file.broken:
                yield node, f"this is no Bicep: {text_of(node)[:40]!r}"
            return
        yield from self.names()
        yield from self.repeated()
        yield from self.references(self.file.root, frozenset())
        yield from self.members()
        yield from self.declared_types()
        for module in self.modules.values():
            yield from self.module(module)
        for resource in self.resources.values():
            yield from self.resource(resource)
        yield from self.secrets()

    # --- names ------------------------------------------------------------------

    def names(self) -> Mistakes:
        symbols = [each for each in self.file.declared if each.kind != "output"]
        counts = Counter(each.name for each in symbols)
        used = Counter(
            text_of(node) for node in walk(self.file.root) if node.type == "identifier"
        )
        for each in symbols:
            if counts[each.name] > 1:
                yield each.node, f"{each.name} is declared twice"
            own = 1 if each.kind in {"parameter", "variable"} else 99
            if used[each.name] <= own and own == 1:
                yield each.node, f"{each.name} is never used"

    def repeated(self) -> Mistakes:
        """Properties that an object has twice: the compiler refuses them."""
        for node in walk(self.file.root):
            if node.type != "object":
                continue
            keys = [
                named(each)[0] for each in named(node) if each.type == "object_property"
            ]
            seen: set[str] = set()
            for key in keys:
                name = text_of(key).strip("'")
                if name in seen:
                    yield key, f"{name} is there twice"
                seen.add(name)

    def references(self, node: Node, known: frozenset[str]) -> Mistakes:
        """Identifiers that stand for nothing; `known` are those of loops and lambdas."""
        parts = named(node)
        if node.type == "for_statement":
            names = parts[0]
            local = [names] if names.type == "identifier" else named(names)
            yield from self.references(parts[1], known)
            inside = known | {text_of(each) for each in local}
            yield from self.references(parts[2], inside)
        elif node.type == "lambda_expression":
            local = [each for each in walk(parts[0]) if each.type == "identifier"]
            inside = known | {text_of(each) for each in local}
            yield from self.references(parts[-1], inside)
        elif node.type == "object_property":
            if parts[0].type == "string":
                yield from self.references(parts[0], known)
            yield from self.references(parts[-1], known)
        elif node.type == "call_expression" and parts[0].type == "identifier":
            if text_of(parts[0]) not in FUNCTIONS:
                yield node, f"there is no function {text_of(parts[0])}"
            yield from self.references(parts[1], known)
        elif node.type == "member_expression" and self.is_lambda_tail(parts):
            # The grammar reads `x => x.name` as `(x => x).name`.
            yield from self.references(parts[0], known)
        elif node.type == "identifier":
            name = text_of(node)
            if name not in known and not self.is_symbol(name):
                yield node, f"{name} is not declared"
        elif node.type not in {"type", "decorators", "metadata_declaration"}:
            skip = 1 if node.type.endswith("_declaration") else 0
            if node.type == "target_scope_assignment":
                return
            for part in parts[skip:]:
                yield from self.references(part, known)

    @staticmethod
    def is_lambda_tail(parts: list[Node]) -> bool:
        return parts[0].type == "lambda_expression"

    def is_symbol(self, name: str) -> bool:
        tables = (self.variables, self.parameters, self.resources, self.modules)
        return name in NAMESPACES or any(name in table for table in tables)

    def members(self) -> Mistakes:
        """Outputs of modules and properties of resources that do not exist."""
        for node in walk(self.file.root):
            if node.type != "member_expression":
                continue
            path = re.sub(r"[!?]|\[[^\]]*\]", "", text_of(node)).split(".")
            if len(path) == 3 and path[0] in self.modules and path[1] == "outputs":
                target = self.target(self.modules[path[0]])
                if target and path[2] not in target.named("output"):
                    yield node, f"module {path[0]} has no output {path[2]}"
            if len(path) == 3 and path[0] in self.resources and path[1] == "properties":
                yield from self.member(node, self.resources[path[0]], path[2])

    def member(self, node: Node, resource: Declared, name: str) -> Mistakes:
        kind = self.catalog.find(resource.reference)
        variant = kind.variants.get("") if kind else None
        if kind is None or variant is None:
            return
        body = kind.find(variant.properties["properties"][0], {})
        if body and name not in body.properties:
            yield node, f"{kind.name} has no property {name}"

    def declared_types(self) -> Mistakes:
        """Defaults and outputs of another type than was declared."""
        for each in self.file.declared:
            if each.kind not in {"parameter", "output"} or each.value is None:
                continue
            for value in candidates(each.value, self.variables):
                actual = self.type_of(value)
                if actual and each.type in {*LITERALS.values()} - {actual}:
                    yield value, f"{each.name} is a {each.type}, not a {actual}"
            allowed = allowed_values(each)
            for value in candidates(each.value, self.variables):
                text = literal(value)
                if allowed and text is not None and text not in allowed:
                    yield value, f"{each.name} may not be {text}"

    def type_of(self, node: Node) -> str:
        """The type of an expression; empty where the text does not tell."""
        if node.type in LITERALS:
            return LITERALS[node.type]
        if node.type == "identifier" and text_of(node) in self.parameters:
            return self.parameters[text_of(node)].type
        if called(node) in {"string", "toLower", "uniqueString", "guid", "replace"}:
            return "string"
        if node.type == "binary_expression" and re.search(
            r"[=!]=|&&|\|\|", text_of(node)
        ):
            return "bool"
        if node.type == "member_expression":
            path = re.sub(r"!", "", text_of(node)).split(".")
            if len(path) == 3 and path[0] in self.modules and path[1] == "outputs":
                target = self.target(self.modules[path[0]])
                output = target.named("output").get(path[2]) if target else None
                return output.type if output else ""
        return ""

    # --- modules ----------------------------------------------------------------

    def target(self, module: Declared) -> File | None:
        path = (self.file.path.parent / module.reference).resolve()
        return self.files.get(path)

    def module(self, module: Declared) -> Mistakes:
        target = self.target(module)
        if target is None:
            yield module.node, f"there is no file {module.reference}"
            return
        wanted = target.named("parameter")
        assert module.value is not None
        for body in bodies(module.value):
            given = properties(body)
            for name in given.keys() - MODULE_PROPERTIES:
                yield body, f"a module has no property {name}"
            values = properties(given["params"]) if "params" in given else {}
            for name in values.keys() - wanted.keys():
                yield values[name], f"{module.reference} has no parameter {name}"
            for name, parameter in wanted.items():
                if parameter.value is None and name not in values:
                    yield body, f"{module.reference} needs parameter {name}"
            for name in values.keys() & wanted.keys():
                yield from self.argument(values[name], wanted[name])

    def argument(self, node: Node, parameter: Declared) -> Mistakes:
        allowed = allowed_values(parameter)
        for value in candidates(node, self.variables):
            actual = self.type_of(value)
            if actual and parameter.type in {*LITERALS.values()} - {actual}:
                yield (
                    value,
                    f"{parameter.name} takes a {parameter.type}, not a {actual}",
                )
            text = literal(value)
            if allowed and text is not None and text not in allowed:
                yield value, f"{parameter.name} may not be {text}"

    # --- resources --------------------------------------------------------------

    def resource(self, resource: Declared) -> Mistakes:
        kind = self.catalog.find(resource.reference)
        if kind is None:
            bare = resource.reference.split("@")[0].lower()
            others = [
                t for n, t in self.catalog.types.items() if n.split("@")[0] == bare
            ]
            known = f"; known: {others[0].version}" if others else ""
            yield resource.node, f"unknown resource type {resource.reference}{known}"
            return
        assert resource.value is not None
        for body in bodies(resource.value):
            given = properties(body)
            name = literal(given["name"]) if "name" in given else None
            variant = kind.variants.get("") or kind.variants.get(name or "")
            if variant is None:
                yield body, f"{kind.name} may not be called {name}"
            elif not resource.existing:
                yield from self.object([body], variant, kind, top=True)

    def object(
        self,
        nodes: list[Node],
        type: ObjectType,
        kind: ResourceType,
        *,
        top: bool = False,
    ) -> Mistakes:
        """Objects that together make one value of a type."""
        together: dict[str, Node] = {}
        for node in nodes:
            for name, value in properties(node).items():
                together.setdefault(name, value)
                yield from self.property(node, name, value, (type, kind), top=top)
        dynamic = any(is_dynamic(node) for node in nodes)
        for name, (_, flags, _) in padded(type.properties):
            if "Required" in flags and name not in together and not dynamic:
                yield nodes[0], f"{type.name} needs {name}"

    def property(
        self,
        node: Node,
        name: str,
        value: Node,
        types: tuple[ObjectType, ResourceType],
        *,
        top: bool,
    ) -> Mistakes:
        type, kind = types
        if name in type.properties:
            of, flags, modifiers = pad(type.properties[name])
            if "ReadOnly" in flags:
                yield value, f"{type.name}.{name} is read-only"
            else:
                yield from self.value(value, of, modifiers, kind)
        elif type.additional:
            yield from self.value(value, type.additional, "", kind)
        elif not (top and name in BUILT_IN) and not is_silenced(node, name):
            yield value, f"{type.name} has no property {name}"

    def value(
        self, node: Node, of: str, modifiers: str, kind: ResourceType
    ) -> Mistakes:
        kind.find(of.removesuffix("[]"), {})  # recorded, though it may not be followed
        options = list(candidates(node, self.variables))
        objects = [each for each in options if each.type == "object"]
        if of.endswith("[]"):
            yield from self.array(options, of, kind)
            return
        if objects:
            names = {k: literal(v) or "" for k, v in properties(objects[0]).items()}
            type = kind.find(of, names)
            if type:
                yield from self.object(objects, type, kind)
            elif of in PLAIN - {"any", "object"} or is_enumeration(of, kind):
                yield node, f"an object where {of} is wanted"
        for option in options:
            if option.type != "object":
                yield from self.scalar(option, of, modifiers, kind)

    def array(self, options: list[Node], of: str, kind: ResourceType) -> Mistakes:
        for option in options:
            actual = self.type_of(option)
            if actual and actual != "array":
                yield option, f"a {actual} where {of} is wanted"
            for element in elements(option):
                yield from self.value(element, of.removesuffix("[]"), "", kind)

    def scalar(
        self, node: Node, of: str, modifiers: str, kind: ResourceType
    ) -> Mistakes:
        actual = self.type_of(node)
        text = literal(node)
        if is_enumeration(of, kind):
            members = alternatives(of)
            # Open lists too: what Microsoft's own do not name is a slip of the pen here.
            if text is not None and text not in members:
                yield node, f"{text!r} is none of {of}"
            elif actual not in {"", "string"}:
                yield node, f"a {actual} where {of} is wanted"
        elif of in PLAIN - {"any", "object"}:
            if actual and actual != of:
                yield node, f"a {actual} where a {of} is wanted"
        elif actual and actual != "object":
            yield node, f"a {actual} where a {of} is wanted"
        yield from bounds(node, modifiers)

    # --- secrets ----------------------------------------------------------------

    def secrets(self) -> Mistakes:
        for node in walk(self.file.root):
            function = called(node) or (
                text_of(named(node)[1]) if node.type == "member_expression" else ""
            )
            if re.match(r"list[A-Z]", function):
                yield (
                    node,
                    f"{function} reads keys, and what it reads ends in a setting",
                )
            if node.type == "string" and SECRET.search(text_of(node)):
                yield node, "this looks like a key"
            if node.type == "object_property":
                name = text_of(named(node)[0]).strip("'")
                if is_secret_setting(name):
                    yield node, f"the setting {name} would hold a key"
        for each in self.file.declared:
            if each.kind == "output" and SECRET_NAME.search(each.name):
                is_endpoint = text_of(each.value).endswith(".ConnectionString")
                if not is_endpoint:
                    yield each.node, f"the output {each.name} would show a key"


def is_secret_setting(name: str) -> bool:
    if name in HARMLESS or not SETTING.fullmatch(name):
        return False
    return bool(SECRET_NAME.search(name.removesuffix("_STRING")))


def allowed_values(declared: Declared) -> set[str]:
    call = declared.decorators.get("allowed")
    if call is None:
        return set()
    return {text_of(each).strip("'") for each in named(named(named(call)[1])[0])}


def is_enumeration(of: str, kind: ResourceType) -> bool:
    """Whether a type is one or more literal texts, not the name of an object."""
    return " | " in of or (of not in PLAIN and of not in kind.objects)


def is_dynamic(node: Node) -> bool:
    """Whether an object has names that are expressions."""
    keys = [named(each)[0] for each in named(node) if each.type == "object_property"]
    return any(key.type == "string" and literal(key) is None for key in keys)


def is_silenced(node: Node, name: str) -> bool:
    """Whether the line before says that the compiler's types lack this property."""
    before: Node | None = None
    for child in named(node):
        if child.type == "object_property" and text_of(named(child)[0]) == name:
            return before is not None and "BCP187" in text_of(before)
        before = child if child.type == "diagnostic_comment" else None
    return False


def pad(values: list[str]) -> tuple[str, str, str]:
    of, flags, modifiers = [*values, "", ""][:3]
    return of, flags, modifiers


def padded(types: dict[str, list[str]]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    for name, values in types.items():
        yield name, pad(values)


def bounds(node: Node, modifiers: str) -> Mistakes:
    limits = dict(re.findall(r"(m(?:in|ax)(?:Value|Length)): (\d+)", modifiers))
    text = literal(node)
    if node.type == "number":
        size, unit = int(text_of(node)), "Value"
    elif text is not None:
        size, unit = len(text), "Length"
    else:
        return
    low, high = limits.get(f"min{unit}"), limits.get(f"max{unit}")
    if (low and size < int(low)) or (high and size > int(high)):
        yield node, f"{text_of(node)} is outside of {low} to {high}"
