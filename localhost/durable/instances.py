"""Beginning, ending and replacing executions: the changes of state of instances.

Everything here is synchronous and takes part in the caller's transaction, or is one.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from localhost.durable import history
from localhost.durable.history import Event
from localhost.durable.schema import Instance, Parent, Status
from localhost.durable.store import Store

NOW = 0
"""Due time of a message that is not a timer: at once, whatever the clock says."""


class AlreadyRunning(Exception):
    """An instance of this id exists and has not ended."""

    def __init__(self, status: Status) -> None:
        """Word it as the Azure extension does; callers look for "already exists"."""
        super().__init__(
            f"An Orchestration instance with the status {status.value} already exists."
        )


class Agenda(Protocol):
    """Told of new work; a call for something that turns out not to be there is fine."""

    def wake(self, instance_id: str) -> None:
        """An instance has a message."""

    def run_activity(self, number: int) -> None:
        """An activity was queued."""

    def wake_entity(self, entity: str) -> None:
        """An entity has an operation."""

    def watch(self, due: int) -> None:
        """A timer was set."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a new instance is to be; `input` is JSON text, None for no input."""

    name: str
    instance_id: str
    input: str | None
    version: str | None = None
    parent: Parent | None = None


class Instances:
    """Changes of state; it tells the agenda what became possible."""

    def __init__(self, store: Store, agenda: Agenda, clock: Callable[[], int]) -> None:
        """Work on `store`; `clock` gives microseconds since 1970 UTC."""
        self._store = store
        self._agenda = agenda
        self._clock = clock

    def create(self, start: Start) -> Instance:
        """Begin an instance; one that has ended under the same id is replaced.

        Raises:
            AlreadyRunning: The id is in use.
        """
        known = self._store.instance(start.instance_id)
        if known is not None and not known.status.is_final:
            raise AlreadyRunning(known.status)
        now = self._clock()
        instance = Instance(
            id=start.instance_id,
            execution_id=new_execution_id(),
            name=start.name,
            version=start.version,
            status=Status.PENDING,
            input=start.input,
            output=None,
            custom_status=None,
            created=now,
            updated=now,
            parent=start.parent,
        )
        self._begin(instance, now)
        return instance

    def continue_as_new(self, instance: Instance, input_json: str) -> None:
        """Replace the execution; events from outside that it did not take stay."""
        now = self._clock()
        following = replace(
            instance, execution_id=new_execution_id(), input=input_json, updated=now
        )
        self._begin(following, now)

    def _begin(self, instance: Instance, now: int) -> None:
        self._store.put_instance(instance)
        self._store.clear_execution(instance.id)
        started = history.execution_started(
            now, instance.execution, instance.name, instance.version
        )
        self._store.send(instance.id, instance.execution_id, NOW, started)
        self._agenda.wake(instance.id)

    def finish(
        self, instance: Instance, status: Status, output: str | None, last: Event
    ) -> None:
        """End an instance and tell the orchestration that waits for it.

        Args:
            instance: The instance as it is now.
            status: A final one.
            output: JSON text, None for no result.
            last: The event that closes the history.
        """
        now = self._clock()
        ended = replace(instance, status=status, output=output, updated=now)
        self._store.put_instance(ended)
        self._store.append(instance.id, [last])
        self._store.drop_messages(instance.id)
        parent = instance.parent
        if parent is None:
            return
        if status is Status.COMPLETED:
            answer = history.child_completed(now, parent.task, output)
        else:
            answer = history.child_failed(now, parent.task, plain_text(output))
        self.answer(parent, answer)

    def answer(self, parent: Parent, event: Event) -> None:
        """Hand an answer to the execution that waits for it, if it still does."""
        self.deliver(parent.instance_id, parent.execution_id, event)

    def deliver(self, instance_id: str, execution_id: str, event: Event) -> None:
        """Put an event into the inbox of an execution, unless it is over."""
        instance = self._store.instance(instance_id)
        if (
            instance is not None
            and instance.execution_id == execution_id
            and not instance.status.is_final
        ):
            self._store.send(instance_id, execution_id, NOW, event)
            self._agenda.wake(instance_id)


def new_execution_id() -> str:
    """A fresh id, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def plain_text(output: str | None) -> str:
    """The text inside a JSON string; other JSON text as it is."""
    value = json.loads(output) if output else ""
    return value if isinstance(value, str) else str(output)
