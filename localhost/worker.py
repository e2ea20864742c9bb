"""Calls functions: the one invocation path of every trigger.

A trigger hands over its payload as the same `Datum` that the Azure host would send;
the SDK's own binding converters decode it and encode what the function returns.

How other parts plug in
-----------------------
* `worker.functions` maps names to indexed functions: a Durable engine looks for the
  triggers `orchestrationTrigger`, `activityTrigger` and `entityTrigger` in there.
* `await worker.invoke(name, {parameter: Datum(...)})` runs one function and gives the
  Datum of its result (`json` for Durable's triggers, None when there is none). It
  raises `InvocationFailed` with type, message and traceback of what went wrong.
  `trigger_datum(function, datum)` builds the mapping for the common one-input case.
* `worker.register_binding("durableClient", provider)`: `provider(function, binding)`
  gives the Datum for that input binding, at every call.
* Only `invoke` is needed to *run* functions, so an engine takes an `Invoker`, and
  tests of an engine can hand it one of their own.
"""

import asyncio
import contextvars
import functools
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from azure.functions import meta
from azure.functions.meta import Datum

from localhost.errors import InvocationFailed, LoadError
from localhost.indexing import App, Binding, Function

Provider = Callable[[Function, Binding], Datum]


class Invoker(Protocol):
    """Something that runs functions of the app; `Worker` is one."""

    async def invoke(self, name: str, inputs: Mapping[str, Datum]) -> Datum | None:
        """The encoded result of function `name`, None when it has none.

        Raises:
            InvocationFailed: The function is unknown, raised or took too long.
        """


@dataclass(frozen=True, slots=True)
class InvocationContext:
    """The `context` argument of a function, shaped as `azure.functions.Context`.

    This host does no distributed tracing and knows no retry policies, so those two
    members are None.
    """

    function_name: str
    function_directory: str
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    thread_local_storage: Any = field(default_factory=threading.local)
    trace_context: None = None
    retry_context: None = None


@dataclass(slots=True)
class Worker:
    """Runs the functions of one app in this process."""

    app: App
    functions: Mapping[str, Function] = field(init=False)
    _providers: dict[str, Provider] = field(default_factory=dict, init=False)
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.functions = {function.name: function for function in self.app.functions}
        wanted = os.environ.get("PYTHON_THREADPOOL_THREAD_COUNT")
        self._threads = ThreadPoolExecutor(
            int(wanted) if wanted else None, thread_name_prefix="function"
        )

    def register_binding(self, type: str, provider: Provider) -> None:
        """From now on `provider` gives the value of input bindings of this type."""
        self._providers[type] = provider

    def check_bindings(self) -> None:
        """Make sure that every input and output of every function can be served.

        Raises:
            LoadError: A binding type has no provider, or no converter.
        """
        for function in self.functions.values():
            for binding in function.bindings:
                if binding is function.trigger or binding.type == "http":
                    continue
                if binding.type not in self._providers:
                    raise LoadError(
                        f"Function {function.name}: this host has no "
                        f"{binding.type} binding"
                    )

    async def invoke(self, name: str, inputs: Mapping[str, Datum]) -> Datum | None:
        """See `Invoker.invoke`."""
        function = self.functions.get(name)
        if function is None:
            raise InvocationFailed(name, "LookupError", "no such function", "")
        try:
            arguments = self._decode(function, inputs)
            result = await self.call(function, arguments)
            return _encode(function, result)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise _failure(function, error) from error

    async def call(self, function: Function, arguments: dict[str, Any]) -> Any:
        """What the handler returns; its own exceptions come out unchanged.

        Args:
            function: One of `functions`.
            arguments: The trigger's value by parameter name; completed in place with
                the other inputs and the context.

        Raises:
            TimeoutError: `functionTimeout` of host.json has passed.
        """
        for binding in function.inputs:
            if binding.name not in arguments:
                arguments[binding.name] = self._provide(function, binding)
        if function.wants_context:
            arguments["context"] = InvocationContext(
                function.name, str(self.app.folder)
            )
        async with asyncio.timeout(self.app.host.function_timeout_seconds):
            if function.is_async:
                return await function.handler(**arguments)
            call = functools.partial(
                contextvars.copy_context().run, function.handler, **arguments
            )
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, call)

    def close(self) -> None:
        """Let go of the threads; what still runs in them is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _provide(self, function: Function, binding: Binding) -> Any:
        datum = self._providers[binding.type](function, binding)
        return _converter(binding.type).decode(datum, trigger_metadata=None)

    def _decode(
        self, function: Function, inputs: Mapping[str, Datum]
    ) -> dict[str, Any]:
        types = {binding.name: binding.type for binding in function.bindings}
        return {
            name: _converter(types[name]).decode(datum, trigger_metadata={})
            for name, datum in inputs.items()
        }


def trigger_datum(function: Function, datum: Datum) -> dict[str, Datum]:
    """The inputs of a call that gives the trigger this payload."""
    return {function.trigger.name: datum}


@functools.cache
def _converter(type: str) -> Any:
    registry: Any = meta.get_binding_registry  # untyped in the SDK
    converter = registry().get(type)
    if converter is None:
        raise LoadError(f"azure-functions knows no binding type {type}")
    return converter


def _encode(function: Function, result: Any) -> Datum | None:
    returned = next((b for b in function.bindings if b.name == "$return"), None)
    type = returned.type if returned else function.trigger.type
    converter = _converter(type)
    implicit = getattr(converter, "has_implicit_output", None)
    if returned is None and not (implicit and implicit()):
        return None
    if result is None and returned is not None:
        return None
    datum: Datum = converter.encode(result, expected_type=None)
    return datum


def _failure(function: Function, error: BaseException) -> InvocationFailed:
    details = "".join(traceback.format_exception(error))
    message = str(error)
    if isinstance(error, TimeoutError) and not message:
        message = "the function took longer than functionTimeout of host.json"
    return InvocationFailed(function.name, type(error).__name__, message, details)
