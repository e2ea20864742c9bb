"""Entities: operations in order of arrival, in batches, state and answers at once."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from localhost.durable import history
from localhost.durable.functions import FunctionKind, Functions
from localhost.durable.instances import Agenda, Instances
from localhost.durable.schema import Operation
from localhost.durable.store import Store
from localhost.errors import InvocationFailed

_BATCH = 100


def entity_id(name: str, key: str) -> str:
    """The id under which an entity is addressed: `@name@key`, the name lower case."""
    return f"@{name.lower()}@{key}"


def split_entity_id(entity: str) -> tuple[str, str]:
    """Name and key of `@name@key`; a key may contain `@`."""
    name, _, key = entity[1:].partition("@")
    return name, key


class Entities:
    """Runs entity functions."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        instances: Instances,
        agenda: Agenda,
        clock: Callable[[], int],
    ) -> None:
        """Work on `store`; `clock` gives microseconds since 1970 UTC."""
        self._store = store
        self._functions = functions
        self._instances = instances
        self._agenda = agenda
        self._clock = clock

    async def run(self, entity: str) -> None:
        """Do one batch of the operations that wait for an entity."""
        operations = self._store.operations(entity, _BATCH)
        if not operations:
            return
        name, key = split_entity_id(entity)
        state = self._store.entity_state(entity)
        try:
            text = await self._functions.call(
                FunctionKind.ENTITY, name, _batch_body(name, key, state, operations)
            )
            answer = json.loads(text)
        except InvocationFailed as failed:
            answer = _all_failed(state, operations, f"{failed.type}: {failed.message}")
        with self._store.transaction():
            self._store.put_entity(
                entity,
                answer["entityState"] if answer["entityExists"] else None,
                self._clock(),
            )
            self._store.end_operations(operations)
            for operation, result in zip(operations, answer["results"], strict=True):
                self._answer(operation, result)
        self._agenda.wake_entity(entity)

    def _answer(self, operation: Operation, result: dict[str, Any]) -> None:
        if (
            operation.caller is None
            or operation.caller_execution is None
            or operation.request_id is None
        ):
            return
        response = {"result": result["result"]}
        if result["isError"]:
            response["exceptionType"] = "Error"
        event = history.event_raised(
            self._clock(), operation.request_id, json.dumps(response)
        )
        self._instances.deliver(operation.caller, operation.caller_execution, event)


def _batch_body(
    name: str, key: str, state: str | None, operations: Sequence[Operation]
) -> str:
    return json.dumps(
        {
            "self": {"name": name, "key": key},
            "exists": state is not None,
            "state": state,
            "batch": [
                {
                    "name": operation.operation,
                    "input": operation.input,
                    "isSignal": operation.caller is None,
                }
                for operation in operations
            ],
        }
    )


def _all_failed(
    state: str | None, operations: Sequence[Operation], text: str
) -> dict[str, Any]:
    """The answer of a batch whose function could not be run: nothing has changed."""
    failed = {"isError": True, "result": json.dumps(text)}
    return {
        "entityExists": state is not None,
        "entityState": state,
        "results": [failed] * len(operations),
    }
