"""What clients can do with instances and entities.

Raised events and the other messages wait in the inbox; terminate, suspend and resume
take effect at once. All methods leave the database committed; whoever needs them safe
against power loss calls `flush` before answering.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from localhost.durable import history
from localhost.durable.entities import entity_id
from localhost.durable.functions import FunctionKind, Functions
from localhost.durable.instances import (
    NOW,
    Agenda,
    Instances,
    Start,
    new_execution_id,
)
from localhost.durable.rewind import Rewinder
from localhost.durable.schema import Instance, InstanceFilter, Status
from localhost.durable.store import Store

_FINAL = frozenset(status for status in Status if status.is_final)
_PURGE_BATCH = 200


class UnknownOrchestrator(Exception):
    """The app has no orchestrator of this name."""


class NoSuchInstance(Exception):
    """There is no instance of this id."""


class NotNow(Exception):
    """The instance's status does not allow it; the text says why."""


class Management:
    """The operations of the durable client."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        instances: Instances,
        rewinder: Rewinder,
        agenda: Agenda,
        clock: Callable[[], int],
    ) -> None:
        """Work on `store`; `clock` gives microseconds since 1970 UTC."""
        self._store = store
        self._functions = functions
        self._instances = instances
        self._rewinder = rewinder
        self._agenda = agenda
        self._clock = clock

    async def flush(self) -> None:
        """Wait until all commits so far are safe against power loss."""
        await asyncio.to_thread(self._store.flush)

    def start(
        self, name: str, instance_id: str | None, input_json: str | None, version: str
    ) -> str:
        """Start an instance.

        Args:
            name: The orchestrator.
            instance_id: None or empty for a new id.
            input_json: JSON text, None for no input.
            version: Empty for none.

        Returns:
            The instance's id.

        Raises:
            UnknownOrchestrator: The app has no such function.
            AlreadyRunning: The id is in use by an instance that has not ended.
        """
        if not self._functions.has(FunctionKind.ORCHESTRATOR, name):
            raise UnknownOrchestrator(
                f"The function '{name}' doesn't exist, is disabled, or is not an "
                "orchestrator function."
            )
        start = Start(
            name, instance_id or new_execution_id(), input_json, version or None
        )
        with self._store.transaction():
            return self._instances.create(start).id

    def instance(self, instance_id: str) -> Instance:
        """The instance.

        Raises:
            NoSuchInstance: There is none.
        """
        instance = self._store.instance(instance_id)
        if instance is None:
            raise NoSuchInstance(f"No instance with ID '{instance_id}' found.")
        return instance

    def events(self, instance_id: str) -> Sequence[str]:
        """The history as JSON texts, oldest first."""
        _, bodies = self._store.past(instance_id)
        return [f"{{{body}" for body in bodies]

    def query(
        self, wanted: InstanceFilter, limit: int, token: str | None
    ) -> tuple[Sequence[Instance], str | None]:
        """A page of instances, oldest first, and the token of the next page.

        Raises:
            ValueError: The token is not one of ours.
        """
        after = _read_token(token) if token else None
        page = self._store.query(wanted, limit + 1, after)
        if len(page) <= limit:
            return page, None
        return page[:limit], _make_token(page[limit - 1])

    def raise_event(self, instance_id: str, name: str, data: str) -> None:
        """Send an external event; `data` is JSON text.

        Raises:
            NoSuchInstance: There is none.
            NotNow: It has ended.
        """
        self._unfinished(instance_id)
        with self._store.transaction():
            event = history.event_raised(self._clock(), name, data)
            self._store.send(instance_id, None, NOW, event)
        self._agenda.wake(instance_id)

    def terminate(self, instance_id: str, reason: str) -> None:
        """End an instance; what it started goes on, its answers are dropped.

        Raises:
            NoSuchInstance: There is none.
            NotNow: It has ended.
        """
        instance = self._unfinished(instance_id)
        with self._store.transaction():
            last = history.execution_terminated(self._clock(), reason)
            self._instances.finish(
                instance, Status.TERMINATED, json.dumps(reason), last
            )

    def suspend(self, instance_id: str, reason: str) -> None:
        """Let messages wait until `resume`; running activities go on.

        Raises:
            NoSuchInstance: There is none.
            NotNow: It has ended.
        """
        instance = self._unfinished(instance_id)
        now = self._clock()
        with self._store.transaction():
            self._store.put_instance(
                replace(instance, status=Status.SUSPENDED, updated=now)
            )
            if instance.status is Status.RUNNING:
                event = history.execution_suspended(now, reason)
                self._store.append(instance_id, [event])

    def resume(self, instance_id: str, reason: str) -> None:
        """Undo `suspend`; nothing happens if the instance is not suspended.

        Raises:
            NoSuchInstance: There is none.
            NotNow: It has ended.
        """
        instance = self._unfinished(instance_id)
        if instance.status is not Status.SUSPENDED:
            return
        now = self._clock()
        past, _ = self._store.past(instance_id)
        status = Status.RUNNING if past else Status.PENDING
        with self._store.transaction():
            self._store.put_instance(replace(instance, status=status, updated=now))
            if past:
                event = history.execution_resumed(now, reason)
                self._store.append(instance_id, [event])
        self._agenda.wake(instance_id)

    def restart(self, instance_id: str, *, new_id: bool) -> str:
        """Start the same orchestrator with the same input; the id of the new instance.

        Raises:
            NoSuchInstance: There is none.
            AlreadyRunning: The id is to be kept and the instance has not ended.
        """
        instance = self.instance(instance_id)
        return self.start(
            instance.name,
            None if new_id else instance_id,
            instance.input,
            instance.version or "",
        )

    async def rewind(self, instance_id: str, reason: str) -> None:
        """Run a failed instance again from the tasks that failed for good.

        Raises:
            NoSuchInstance: There is none.
            CannotRewind: It has not failed, or can no longer be replayed.
        """
        await self._rewinder.rewind(self.instance(instance_id), reason)

    def purge(self, instance_id: str) -> bool:
        """Delete an instance that has ended, or an entity; False if there is none."""
        with self._store.transaction():
            instance = self._store.instance(instance_id)
            if instance is not None and instance.status.is_final:
                self._store.forget(instance_id)
                return True
            if self._store.entity_state(instance_id) is not None:
                self._store.put_entity(instance_id, None, self._clock())
                return True
        return False

    async def purge_all(self, wanted: InstanceFilter) -> int:
        """Delete the instances that match and have ended; how many they were."""
        statuses = (wanted.statuses or _FINAL) & _FINAL
        if not statuses:
            return 0
        ended = replace(wanted, statuses=statuses)
        count = 0
        while page := self._store.query(ended, _PURGE_BATCH):
            with self._store.transaction():
                for instance in page:
                    self._store.forget(instance.id)
            count += len(page)
            await asyncio.sleep(0)
        return count

    def signal_entity(
        self, name: str, key: str, operation: str, input_json: str
    ) -> None:
        """Queue an operation on an entity.

        Args:
            name: The entity function.
            key: Which entity.
            operation: What it is to do.
            input_json: JSON text of a string that is JSON text itself, or `null`.

        Raises:
            NoSuchInstance: The app has no such entity function.
        """
        if not self._functions.has(FunctionKind.ENTITY, name.lower()):
            raise NoSuchInstance(f"The app has no entity function '{name}'.")
        entity = entity_id(name, key)
        with self._store.transaction():
            self._store.queue_operation(entity, operation, input_json)
        self._agenda.wake_entity(entity)

    def entity_state(self, name: str, key: str) -> str:
        """The entity's state, JSON text.

        Raises:
            NoSuchInstance: The entity does not exist.
        """
        state = self._store.entity_state(entity_id(name, key))
        if state is None:
            raise NoSuchInstance(f"There is no entity '{entity_id(name, key)}'.")
        return state

    def _unfinished(self, instance_id: str) -> Instance:
        instance = self.instance(instance_id)
        if instance.status.is_final:
            raise NotNow(f"The instance has ended: {instance.status.value}.")
        return instance


def _make_token(last: Instance) -> str:
    return base64.urlsafe_b64encode(f"{last.created} {last.id}".encode()).decode()


def _read_token(token: str) -> tuple[int, str]:
    try:
        created, _, instance_id = (
            base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        )
        return int(created), instance_id
    except (binascii.Error, ValueError) as error:
        raise ValueError("not a continuation token of this host") from error
