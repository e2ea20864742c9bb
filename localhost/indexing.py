"""Turns an app folder into a table of functions, as the language worker does.

It knows the SDK's function objects and two files of the app folder, host.json and
local.settings.json; it knows no trigger and runs nothing.
"""

import importlib
import inspect
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhost.errors import LoadError

logger = logging.getLogger(__name__)

_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?")
_SETTING = re.compile(r"%([^%\s]+)%")


@dataclass(frozen=True, slots=True)
class Binding:
    """One binding as function.json would state it.

    Attributes:
        name: Parameter name, or `$return`.
        type: `httpTrigger`, `activityTrigger`, `durableClient` and so on.
        direction: `IN`, `OUT` or `INOUT`.
        properties: The remaining members, camel case, settings resolved.
    """

    name: str
    type: str
    direction: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the app.

    Attributes:
        name: As Azure shows it.
        trigger: The one binding that starts it.
        bindings: All bindings, the trigger among them.
        handler: The user's callable.
        is_async: The handler is a coroutine function.
        annotations: Parameter name to annotation.
        wants_context: The handler has a `context` parameter that is no binding.
    """

    name: str
    trigger: Binding
    bindings: tuple[Binding, ...]
    handler: Callable[..., Any]
    is_async: bool
    annotations: Mapping[str, Any]
    wants_context: bool

    @property
    def inputs(self) -> tuple[Binding, ...]:
        """Bindings that are handed in, except the trigger."""
        return tuple(
            binding
            for binding in self.bindings
            if binding.direction != "OUT" and binding is not self.trigger
        )


@dataclass(frozen=True, slots=True)
class HostFile:
    """What host.json says, as far as this host follows it.

    Attributes:
        route_prefix: Put before every HTTP route, without slashes at its ends.
        function_timeout_seconds: Longest run of a function, None for no limit.
        durable: The `extensions.durableTask` object, settings resolved.
    """

    route_prefix: str
    function_timeout_seconds: float | None
    durable: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class App:
    """An indexed function app: functions in alphabetical order, and host.json."""

    folder: Path
    functions: tuple[Function, ...]
    host: HostFile


def load(folder: Path) -> App:
    """The functions of the app in `folder`.

    The folder becomes the working directory and the first place to import from, as
    in Azure. Values of local.settings.json become environment variables where the
    environment does not have them yet.

    Raises:
        LoadError: There is no usable function_app.py, host.json or function in it.
    """
    folder = folder.resolve()
    if not (folder / "function_app.py").is_file():
        raise LoadError(f"{folder} has no function_app.py")
    host = read_host_file(folder)
    os.chdir(folder)
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))
    return App(folder, index(_application(_imported(folder))), host)


def _imported(folder: Path) -> Any:
    """The module function_app.

    Raises:
        LoadError: It ends in an exception; says which and where it comes from. What
            an app refuses on purpose, such as a wrong setting, needs no stack trace.
    """
    try:
        return importlib.import_module("function_app")
    except Exception as error:
        logger.info("function_app.py ends in an exception", exc_info=True)
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if Path(each.filename).is_relative_to(folder)]
        place = (own or frames)[-1]
        raise LoadError(
            f"{error}\n({type(error).__name__} while function_app.py was loaded, in"
            f" {place.filename} line {place.lineno}; --verbose tells the way there)"
        ) from error


def apply_local_settings(folder: Path) -> None:
    """Put Values of local.settings.json into the environment; the environment wins.

    Raises:
        LoadError: The file is no JSON object, or is encrypted.
    """
    settings = _read_json(folder / "local.settings.json")
    if settings.get("IsEncrypted"):
        raise LoadError("local.settings.json is encrypted; decrypt it with `func`")
    for name, value in settings.get("Values", {}).items():
        os.environ.setdefault(name, value if isinstance(value, str) else str(value))


def read_host_file(folder: Path) -> HostFile:
    """What host.json of the app folder says; Azure's defaults where it is silent.

    Raises:
        LoadError: The file is damaged.
    """
    content = _read_json(folder / "host.json")
    extensions = content.get("extensions", {})
    prefix = extensions.get("http", {}).get("routePrefix", "api")
    timeout = content.get("functionTimeout", "00:30:00")
    return HostFile(
        route_prefix=prefix.strip("/"),
        function_timeout_seconds=None if timeout == "-1" else seconds(timeout),
        durable=_resolved(extensions.get("durableTask", {})),
    )


def seconds(time_span: str) -> float:
    """Seconds of a .NET TimeSpan, `[d.]hh:mm[:ss[.fffffff]]`.

    Raises:
        LoadError: The text is something else.
    """
    match = _TIME_SPAN.fullmatch(time_span)
    if match is None:
        raise LoadError(f"{time_span!r} is no time span like 00:10:00")
    days, hours, minutes, rest, fraction = match.groups(default="0")
    total = (int(days) * 24 + int(hours)) * 3600 + int(minutes) * 60 + int(rest)
    return total + float(f"0.{fraction}")


def resolve(text: str) -> str:
    """The text with every `%NAME%` replaced by that app setting.

    Raises:
        LoadError: There is no such setting.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise LoadError(f"%{name}% is used in a binding but is not set")
        return os.environ[name]

    return _SETTING.sub(value, text)


def index(application: Any) -> tuple[Function, ...]:
    """The functions of an SDK app object, by name.

    Raises:
        LoadError: The SDK refuses the app.
    """
    application.functions_bindings = None  # get_functions() fails a second time else
    try:
        functions = application.get_functions()
    except ValueError as error:
        raise LoadError(str(error)) from error
    if not functions:
        raise LoadError("function_app.py registers no functions")
    indexed = [_function(function) for function in functions]
    return tuple(sorted(indexed, key=lambda function: function.name))


def _application(module: Any) -> Any:
    from azure.functions import FunctionRegister

    found = {
        id(value): value
        for value in vars(module).values()
        if isinstance(value, FunctionRegister)
    }
    if len(found) != 1:
        raise LoadError(
            f"function_app.py must have exactly one top-level FunctionApp, "
            f"found {len(found)}"
        )
    return next(iter(found.values()))


def _function(function: Any) -> Function:
    name = function.get_function_name()
    try:
        stated = json.loads(function.get_function_json())["bindings"]
        bindings = tuple(_binding(members) for members in stated)
    except LoadError as error:
        raise LoadError(f"Function {name}: {error}") from error
    trigger_name = function.get_trigger().name
    trigger = next(b for b in bindings if b.name == trigger_name)
    handler = function.get_user_function()
    parameters = inspect.signature(handler).parameters
    bound = {binding.name for binding in bindings}
    missing = [
        binding.name
        for binding in bindings
        if binding.name != "$return" and binding.name not in parameters
    ]
    if missing and not _takes_anything(handler):
        raise LoadError(f"Function {name} has no parameter {', '.join(missing)}")
    return Function(
        name=name,
        trigger=trigger,
        bindings=bindings,
        handler=handler,
        is_async=inspect.iscoroutinefunction(handler),
        annotations={key: value.annotation for key, value in parameters.items()},
        wants_context="context" in parameters and "context" not in bound,
    )


def _takes_anything(handler: Callable[..., Any]) -> bool:
    """Durable's orchestrator and entity objects are called with their own names."""
    return not inspect.isfunction(handler) or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(handler).parameters.values()
    )


def _binding(members: dict[str, Any]) -> Binding:
    name, kind = members.pop("name"), members.pop("type")
    direction = members.pop("direction")
    route = members.pop("route", None)
    properties = _resolved(members)
    if route is not None:
        properties["route"] = route
    return Binding(name, kind, direction, properties)


def _resolved(members: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _resolved_value(value) for key, value in members.items()}


def _resolved_value(value: Any) -> Any:
    match value:
        case str():
            return resolve(value)
        case dict():
            return _resolved(value)
        case _:
            return value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise LoadError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path.name} is not a JSON object")
    return content
