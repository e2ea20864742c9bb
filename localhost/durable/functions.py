"""The app's durable functions, as the engine calls them."""

from collections.abc import Mapping
from enum import Enum

from azure.functions.meta import Datum

from localhost.errors import InvocationFailed
from localhost.indexing import Binding
from localhost.worker import Invoker


class FunctionKind(Enum):
    """The three kinds of functions that the engine calls, by their trigger."""

    ORCHESTRATOR = "orchestrationTrigger"
    ACTIVITY = "activityTrigger"
    ENTITY = "entityTrigger"


_NAMED_BY = {
    FunctionKind.ORCHESTRATOR: "orchestration",
    FunctionKind.ACTIVITY: "activity",
    FunctionKind.ENTITY: "entityName",
}


class Functions:
    """Finds and calls functions by the names that orchestrations use for them."""

    def __init__(self, invoker: Invoker, triggers: Mapping[str, Binding]) -> None:
        """Index the triggers.

        Args:
            invoker: Runs the functions.
            triggers: Function name to its trigger; other than Durable ones are ignored.
        """
        self._invoker = invoker
        self._known: dict[FunctionKind, dict[str, tuple[str, str]]] = {
            kind: {} for kind in FunctionKind
        }
        for function, trigger in triggers.items():
            for kind in FunctionKind:
                if trigger.type == kind.value:
                    name = trigger.properties.get(_NAMED_BY[kind]) or function
                    if kind is FunctionKind.ENTITY:
                        name = name.lower()  # as the client library writes entity ids
                    self._known[kind][name] = (function, trigger.name)

    def has(self, kind: FunctionKind, name: str) -> bool:
        """Whether the app has a function of this kind and name."""
        return name in self._known[kind]

    async def call(self, kind: FunctionKind, name: str, payload: str) -> str:
        """The function's answer, as the JSON text that its converter wrote.

        Args:
            kind: Which trigger the function has.
            name: Its Durable name; an entity's in lower case.
            payload: The trigger's data, JSON text.

        Raises:
            InvocationFailed: The function is unknown, raised or took too long.
        """
        function, parameter = self._known[kind].get(name, ("", ""))
        if not function:
            raise InvocationFailed(
                name, "LookupError", f"the app has no {kind.value} '{name}'", ""
            )
        datum = await self._invoker.invoke(
            function, {parameter: Datum(payload, "string")}
        )
        return "null" if datum is None or datum.value is None else str(datum.value)
