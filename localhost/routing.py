"""HTTP routes as the Azure host matches them: by function name, first match wins.

Pure: templates and paths in, matches out. There is no precedence between templates;
literals ignore case, one slash at the end of a path is ignored, and a method that a
route does not list is no match. All routes are tried at once: each position of the
path narrows a set of candidates, kept as the bits of one integer whose lowest bit is
the first function by name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote
from uuid import UUID

from localhost.errors import LoadError

Check = Callable[[str], bool]

_PARAMETER_NAME = re.compile(r"(\*{0,2})([^:=?{}*/]+)")
_PERCENT_SLASH = re.compile("%2f", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A `{name}` of a template.

    Attributes:
        name: As written.
        checks: All must accept the value.
        default: Value when the path ends before it, None for none.
        optional: The path may end before it.
        catch_all: Takes the rest of the path, slashes included.
    """

    name: str
    checks: tuple[Check, ...]
    default: str | None
    optional: bool
    catch_all: bool

    def accepts(self, value: str) -> bool:
        """Whether every constraint holds."""
        return all(check(value) for check in self.checks)


@dataclass(frozen=True, slots=True)
class Complex:
    """A segment of literals and parameters, such as `v{version:int}`."""

    pattern: re.Pattern[str]
    parameters: tuple[Parameter, ...]

    def capture(self, segment: str) -> dict[str, str] | None:
        """Values by parameter name, None when the segment does not fit."""
        match = self.pattern.fullmatch(segment)
        if match is None:
            return None
        values: dict[str, str] = {}
        for number, parameter in enumerate(self.parameters, 1):
            value = match[number]
            if value is None:
                continue
            if not parameter.accepts(value):
                return None
            values[parameter.name] = value
        return values


Segment = str | Parameter | Complex


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed route template.

    Attributes:
        text: As written.
        segments: In order; literals in lower case.
        required: Least number of segments of a path that fits.
        catch_all: The last segment takes any number of path segments.
    """

    text: str
    segments: tuple[Segment, ...]
    required: int
    catch_all: bool

    def capture(self, path: Sequence[str]) -> dict[str, str] | None:
        """Parameter values for a path whose literals already fit, None for no match.

        Parameters that the path leaves out are absent, unless they have a default.
        """
        values: dict[str, str] = {}
        length = len(path)
        for position, segment in enumerate(self.segments):
            if isinstance(segment, str):
                continue
            if isinstance(segment, Complex):
                captured = segment.capture(path[position])
                if captured is None:
                    return None
                values |= captured
                continue
            if segment.catch_all:
                value = "/".join(path[position:])
            else:
                value = path[position] if position < length else ""
                if not value and position < length:
                    return None
            if not value:
                if segment.default is None:
                    continue
                value = segment.default
            if segment.checks and not segment.accepts(value):
                return None
            values[segment.name] = value
        return values


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP function as the router sees it.

    Attributes:
        name: Function name; routes are tried in the order of names.
        methods: Upper case, empty for all.
        template: Prefix included.
    """

    name: str
    methods: frozenset[str]
    template: Template


class Router:
    """A table of routes that finds the first one that fits a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: route.name))
        longest = max((len(r.template.segments) for r in self.routes), default=0)
        self._by_length = [self._fitting(length) for length in range(longest + 2)]
        self._by_method, self._any_method = self._methods()
        self._positions = [self._position(index) for index in range(longest)]

    def match(
        self, method: str, raw_path: bytes
    ) -> tuple[Route, dict[str, str]] | None:
        """The first route that takes this request and its parameters.

        Args:
            method: Upper case.
            raw_path: As received, percent-encoded, without the query.
        """
        path = split(raw_path)
        length = len(path)
        candidates = self._by_length[min(length, len(self._by_length) - 1)]
        candidates &= self._by_method.get(method, self._any_method)
        for segment, (literals, others) in zip(path, self._positions, strict=False):
            candidates &= literals.get(segment.lower(), others)
            if not candidates:
                return None
        while candidates:
            lowest = candidates & -candidates
            route = self.routes[lowest.bit_length() - 1]
            values = route.template.capture(path)
            if values is not None:
                return route, values
            candidates ^= lowest
        return None

    def _fitting(self, length: int) -> int:
        bits = 0
        for index, route in enumerate(self.routes):
            template = route.template
            fits = length <= len(template.segments) or template.catch_all
            if template.required <= length and fits:
                bits |= 1 << index
        return bits

    def _methods(self) -> tuple[dict[str, int], int]:
        unlimited = sum(1 << i for i, r in enumerate(self.routes) if not r.methods)
        listed: dict[str, int] = {}
        for index, route in enumerate(self.routes):
            for method in route.methods:
                listed[method] = listed.get(method, unlimited) | 1 << index
        return listed, unlimited

    def _position(self, position: int) -> tuple[dict[str, int], int]:
        """Candidates by lower-case segment at this position, and for any other text."""
        literals: dict[str, int] = {}
        others = 0
        for index, route in enumerate(self.routes):
            segments = route.template.segments
            if position < len(segments) and isinstance(segments[position], str):
                literal = str(segments[position])
                literals[literal] = literals.get(literal, 0) | 1 << index
            else:
                others |= 1 << index
        return {text: bits | others for text, bits in literals.items()}, others


def split(raw_path: bytes) -> list[str]:
    """The decoded segments of a path; `%2F` stays, as it is no separator.

    One slash at the end is ignored; the root has no segments.
    """
    path = raw_path.decode("ascii", "replace")
    parts = path[1 : -1 if path.endswith("/") else None].split("/")
    if "%" in path:
        parts = [_decode(part) if "%" in part else part for part in parts]
    return parts if parts != [""] else []


def _decode(segment: str) -> str:
    return unquote(_PERCENT_SLASH.sub("%252F", segment))


def parse(text: str) -> Template:
    """The template that `text` describes.

    Raises:
        LoadError: The text is no valid route template.
    """
    try:
        segments = tuple(_segment(part) for part in _split_template(text))
    except (ValueError, re.error) as error:
        raise LoadError(f"route {text!r}: {error}") from error
    required = 0
    for number, segment in enumerate(segments, 1):
        skippable = isinstance(segment, Parameter) and (
            segment.optional or segment.catch_all or segment.default is not None
        )
        if not skippable:
            required = number
        if isinstance(segment, Parameter) and segment.catch_all:
            if number < len(segments):
                raise LoadError(f"route {text!r}: a catch-all must come last")
            return Template(text, segments, required, catch_all=True)
    return Template(text, segments, required, catch_all=False)


def _split_template(text: str) -> list[str]:
    """Segments of a template; slashes between braces belong to a constraint."""
    parts = [""]
    depth = 0
    for character in text.strip("/"):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ValueError("braces do not balance")
    return [] if parts == [""] else parts


def _segment(text: str) -> Segment:
    parts = _parts(text)
    if not parts:
        raise ValueError("a segment is empty")
    if len(parts) == 1:
        [part] = parts
        return part.lower() if isinstance(part, str) else part
    pattern = ""
    parameters = []
    for part in parts:
        if isinstance(part, str):
            pattern += re.escape(part)
            continue
        if part.catch_all:
            raise ValueError("a catch-all must be a segment of its own")
        parameters.append(part)
        if part.optional and pattern.endswith(r"(.+)\."):
            pattern = pattern[:-6] + r"(.+?)(?:\.([^.]+))?"
        else:
            pattern += "(.+)"
    return Complex(re.compile(pattern, re.IGNORECASE | re.DOTALL), tuple(parameters))


def _parts(text: str) -> list[str | Parameter]:
    """Literals and parameters of one segment; doubled braces stand for one."""
    parts: list[str | Parameter] = []
    literal = ""
    position = 0
    while position < len(text):
        if text[position : position + 2] in {"{{", "}}"}:
            literal += text[position]
            position += 2
        elif text[position] == "{":
            if literal:
                parts.append(literal)
                literal = ""
            end = _end_of_parameter(text, position + 1)
            inside = text[position + 1 : end].replace("{{", "{").replace("}}", "}")
            parts.append(_parameter(inside))
            position = end + 1
        else:
            literal += text[position]
            position += 1
    return [*parts, literal] if literal else parts


def _end_of_parameter(text: str, start: int) -> int:
    position = start
    while position < len(text):
        if text[position : position + 2] in {"{{", "}}"}:
            position += 2
        elif text[position] == "}":
            return position
        else:
            position += 1
    raise ValueError("a parameter is not closed")


def _parameter(text: str) -> Parameter:
    named = _PARAMETER_NAME.match(text)
    if named is None:
        raise ValueError(f"{{{text}}} has no name")
    rest = text[named.end() :]
    checks = []
    while rest.startswith(":"):
        constraint, rest = _constraint(rest[1:])
        checks.append(constraint)
    optional = rest.endswith("?")
    rest = rest.removesuffix("?")
    if rest and not rest.startswith("="):
        raise ValueError(f"{{{text}}} is not understood")
    return Parameter(
        name=named[2],
        checks=tuple(checks),
        default=rest[1:] if rest else None,
        optional=optional,
        catch_all=bool(named[1]),
    )


def _constraint(text: str) -> tuple[Check, str]:
    """The check that `text` begins with, and what follows it."""
    named = re.match(r"[A-Za-z]+", text)
    if named is None:
        raise ValueError(f"{text!r} is no constraint")
    name, rest = named[0].lower(), text[named.end() :]
    argument = ""
    if rest.startswith("("):
        closed = re.search(r"\)(?=[:=?]|$)", rest)
        if closed is None:
            raise ValueError(f"{text!r} lacks a closing parenthesis")
        argument, rest = rest[1 : closed.start()], rest[closed.end() :]
    if name not in _CONSTRAINTS:
        raise ValueError(f"{name!r} is no known constraint")
    return _CONSTRAINTS[name](argument), rest


def _is_number(convert: Callable[[str], object]) -> Callable[[str], Check]:
    def check(value: str) -> bool:
        try:
            convert(value)
        except ValueError:
            return False
        return "_" not in value

    return lambda _: check


def _is_integer(bits: int) -> Callable[[str], Check]:
    limit = 1 << (bits - 1)

    def check(value: str) -> bool:
        matched = re.fullmatch(r"\s*[+-]?[0-9]+\s*", value, re.ASCII)
        return matched is not None and -limit <= int(value) < limit

    return lambda _: check


def _within(low: float, high: float) -> Check:
    is_long = _is_integer(64)("")
    return lambda value: is_long(value) and low <= int(value) <= high


def _length(argument: str) -> Check:
    low, _, high = argument.partition(",")
    return _length_between(int(low), int(high or low))


def _length_between(low: int, high: float) -> Check:
    return lambda value: low <= len(value) <= high


def _range(argument: str) -> Check:
    low, _, high = argument.partition(",")
    return _within(int(low), int(high))


def _regex(argument: str) -> Check:
    pattern = re.compile(argument, re.IGNORECASE)
    return lambda value: pattern.search(value) is not None


_INFINITY = float("inf")
_CONSTRAINTS: Mapping[str, Callable[[str], Check]] = {
    "alpha": lambda _: _regex(r"\A[a-z]*\Z"),
    "bool": lambda _: lambda value: value.strip().lower() in {"true", "false"},
    "decimal": _is_number(float),
    "double": _is_number(float),
    "float": _is_number(float),
    "guid": _is_number(UUID),
    "int": _is_integer(32),
    "long": _is_integer(64),
    "length": _length,
    "max": lambda argument: _within(-_INFINITY, int(argument)),
    "maxlength": lambda argument: _length_between(0, int(argument)),
    "min": lambda argument: _within(int(argument), _INFINITY),
    "minlength": lambda argument: _length_between(int(argument), _INFINITY),
    "range": _range,
    "regex": _regex,
    "required": lambda _: bool,
}
