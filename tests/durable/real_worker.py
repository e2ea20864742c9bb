"""Runs on Python 3.13: Azure's own worker library indexes an app and calls functions.

Reads `{"app": folder, "calls": [[function, [[parameter, type, value], ...]], ...]}` from
standard input; a value of type http has its parts as Datums. Writes JSON: `functions`
(name to bindings) and `results` ([ok, type, value] for each call).
"""

import asyncio
import json
import os
import sys
from types import SimpleNamespace
from typing import Any


class Message(SimpleNamespace):
    """Stands for any protobuf class: keeps what it is given."""

    Success, Failure = 1, 0  # StatusResult
    out, inout = 1, 2  # BindingInfo

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Protos:
    """The namespace of protobuf classes that the library asks for."""

    def __getattr__(self, name: str) -> Any:
        return type(name, (Message,), {})


def datum(type: str, value: Any) -> Any:
    from azure.functions.meta import Datum

    if type == "bytes":
        return Datum(value.encode(), type)
    if type == "http":
        parts = {
            key: {name: datum(*one) for name, one in part.items()}
            if isinstance(part, dict)
            else datum(*part)
            for key, part in value.items()
        }
        return Datum(parts, type)
    return Datum(value, type)


def plain(value: Any) -> Any:
    """A Datum, and what is in it, as JSON can hold it."""
    if hasattr(value, "python_value") and hasattr(value, "type"):
        return [value.type, plain(value.value)]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str | int | type(None)) else str(value)


async def main() -> None:
    from azure_functions_runtime import handle_event, native_invocation

    asked = json.load(sys.stdin)
    os.chdir(asked["app"])
    sys.path[0] = asked["app"]  # as the worker around this library does
    protos = Protos()
    init = SimpleNamespace(
        worker_init_request=SimpleNamespace(
            capabilities={}, function_app_directory=asked["app"]
        )
    )
    request = SimpleNamespace(
        request=init, properties={"host": "127.0.0.1", "protos": protos}
    )
    started = await handle_event.worker_init_request(request)
    assert started.result.status == Message.Success, started.result.exception
    listed = await handle_event.functions_metadata_request(request)
    known = {one.name: one for one in listed.function_metadata_results}
    results = []
    for name, inputs in asked["calls"]:
        given = [(parameter, datum(type, value)) for parameter, type, value in inputs]
        ok, result, _, error, _ = await native_invocation.invocation_request_native(
            "1", known[name].function_id, given, {}
        )
        results.append([ok, plain(result) if ok else error])
    functions = {
        name: [json.loads(binding) for binding in one.raw_bindings]
        for name, one in known.items()
    }
    sys.stdout.write(json.dumps({"functions": functions, "results": results}))


if __name__ == "__main__":
    asyncio.run(main())
