"""Where instances, messages and work are kept: one SQLite file, one connection.

The file is locked for this process. Every method is synchronous and takes well under
a millisecond; several calls inside `transaction()` become visible, and survive a
crash, together or not at all. `synchronous=NORMAL`: a killed process loses nothing,
a power loss may lose the last commits unless `flush` was called after them.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localhost.durable.history import Event, EventKind
from localhost.durable.replay import Past
from localhost.durable.schema import (
    SCHEMA,
    SCHEMA_VERSION,
    Activity,
    Instance,
    InstanceFilter,
    Message,
    Operation,
    Parent,
    Status,
)
from localhost.errors import HostError

_INSTANCE = (
    "id, execution, name, version, status, input, output, custom_status, created, "
    "updated, parent, parent_execution, parent_task"
)


class Store:
    """The durable state of one engine."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            HostError: Another process has the file open, or a newer version wrote it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(
            path, timeout=0, isolation_level=None, cached_statements=256
        )
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise HostError(f"{path}: {error}; is another host using it?") from error
        self._wal = os.open(f"{path}-wal", os.O_RDONLY)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._db.close()
            raise HostError(f"{self._path} was written by a newer version of this host")
        with self.transaction():
            if version == 0:
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._wal)
        self._db.close()

    def flush(self) -> None:
        """Make all commits so far safe against power loss. Blocks; thread-safe."""
        getattr(os, "fdatasync", os.fsync)(self._wal)  # macOS has only fsync

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; must not span an await."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Instances

    def instance(self, instance_id: str) -> Instance | None:
        """The instance, None when there is none."""
        row = self._db.execute(
            f"SELECT {_INSTANCE} FROM instance WHERE id=?",  # noqa: S608 constant
            (instance_id,),
        ).fetchone()
        return _instance(row) if row else None

    def put_instance(self, instance: Instance) -> None:
        """Write all of an instance's row."""
        parent = instance.parent
        self._db.execute(
            "INSERT OR REPLACE INTO instance VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                instance.id,
                instance.execution_id,
                instance.name,
                instance.version,
                instance.status.value,
                instance.input,
                instance.output,
                instance.custom_status,
                instance.created,
                instance.updated,
                parent and parent.instance_id,
                parent and parent.execution_id,
                parent and parent.task,
            ),
        )

    def query(
        self, wanted: InstanceFilter, limit: int, after: tuple[int, str] | None = None
    ) -> Sequence[Instance]:
        """Instances by time of creation, oldest first.

        Args:
            wanted: Which ones.
            limit: At most so many.
            after: Creation time and id of the last one of the page before.
        """
        where, values = _conditions(wanted)
        if after is not None:
            where.append("(created, id) > (?, ?)")
            values += after
        rows = self._db.execute(
            f"SELECT {_INSTANCE} FROM instance WHERE {' AND '.join(where)} "  # noqa: S608
            "ORDER BY created, id LIMIT ?",
            (*values, limit),
        )
        return [_instance(row) for row in rows]

    def child(self, parent_id: str, execution_id: str, task: int) -> Instance | None:
        """The sub-orchestration that a task of an execution started."""
        row = self._db.execute(
            f"SELECT {_INSTANCE} FROM instance "  # noqa: S608 constant
            "WHERE parent=? AND parent_execution=? AND parent_task=?",
            (parent_id, execution_id, task),
        ).fetchone()
        return _instance(row) if row else None

    def forget(self, instance_id: str) -> None:
        """Delete an instance and everything that waits for it."""
        self.clear_execution(instance_id)
        self.drop_messages(instance_id)
        self._db.execute("DELETE FROM activity WHERE instance=?", (instance_id,))
        self._db.execute("DELETE FROM instance WHERE id=?", (instance_id,))

    def clear_execution(self, instance_id: str) -> None:
        """Delete the history, and the messages that only this execution can take."""
        self._db.execute("DELETE FROM history WHERE instance=?", (instance_id,))
        self._db.execute(
            "DELETE FROM inbox WHERE instance=? AND execution IS NOT NULL",
            (instance_id,),
        )

    # History

    def past(self, instance_id: str) -> tuple[list[Past], list[str]]:
        """The history of the present execution: for replay, and as stored bodies."""
        rows = self._db.execute(
            "SELECT kind, task, name, body FROM history WHERE instance=? "
            "ORDER BY position",
            (instance_id,),
        ).fetchall()
        return [Past(row[0], row[1], row[2]) for row in rows], [row[3] for row in rows]

    def append(self, instance_id: str, events: Iterable[Event]) -> None:
        """Add events at the end of the history."""
        position = self._db.execute(
            "SELECT coalesce(max(position), -1) FROM history WHERE instance=?",
            (instance_id,),
        ).fetchone()[0]
        self._db.executemany(
            "INSERT INTO history VALUES(?,?,?,?,?,?)",
            (
                (instance_id, number, event.kind, event.task, event.name, event.body)
                for number, event in enumerate(events, position + 1)
            ),
        )

    def remove_events(self, instance_id: str, tasks: Iterable[int], kind: int) -> None:
        """Take the events of one kind about these tasks out of the history."""
        self._db.executemany(
            "DELETE FROM history WHERE instance=? AND kind=? AND task=?",
            ((instance_id, kind, task) for task in tasks),
        )

    # Messages to instances

    def send(
        self, instance_id: str, execution_id: str | None, due: int, event: Event
    ) -> None:
        """Put an event into an instance's inbox.

        Args:
            instance_id: The instance.
            execution_id: The only execution it is meant for, None for whichever runs.
            due: When it may be taken out.
            event: The event.
        """
        self._db.execute(
            "INSERT INTO inbox(instance, execution, due, kind, task, name, body) "
            "VALUES(?,?,?,?,?,?,?)",
            (
                instance_id,
                execution_id,
                due,
                event.kind,
                event.task,
                event.name,
                event.body,
            ),
        )

    def messages(self, instance_id: str, now: int) -> Sequence[Message]:
        """What is due, in order of due time and arrival."""
        rows = self._db.execute(
            "SELECT number, kind, task, name, body FROM inbox "
            "WHERE instance=? AND due<=? ORDER BY due, number",
            (instance_id, now),
        )
        return [Message(row[0], Event(*row[1:])) for row in rows]

    def take(self, messages: Iterable[Message]) -> None:
        """Remove messages that an episode has consumed."""
        self._db.executemany(
            "DELETE FROM inbox WHERE number=?",
            ((message.number,) for message in messages),
        )

    def drop_messages(self, instance_id: str) -> None:
        """Remove all messages of an instance, timers included."""
        self._db.execute("DELETE FROM inbox WHERE instance=?", (instance_id,))

    def cancel_timers(self, instance_id: str, tasks: Iterable[int]) -> None:
        """Remove timers that have not fired."""
        self._db.executemany(
            "DELETE FROM inbox WHERE instance=? AND kind=? AND task=?",
            ((instance_id, EventKind.TIMER_FIRED, task) for task in tasks),
        )

    def due_instances(self, now: int) -> Sequence[str]:
        """Instances that have something to do."""
        rows = self._db.execute(
            "SELECT DISTINCT inbox.instance FROM inbox "
            "JOIN instance ON instance.id = inbox.instance "
            "WHERE inbox.due<=? AND instance.status<>?",
            (now, Status.SUSPENDED.value),
        )
        return [row[0] for row in rows]

    def next_due(self, now: int) -> int | None:
        """When the next timer fires, None when none is set."""
        row = self._db.execute(
            "SELECT min(due) FROM inbox WHERE due>?", (now,)
        ).fetchone()
        due: int | None = row[0]
        return due

    # Activities

    def queue_activity(
        self, instance: Instance, task: int, name: str, input_json: str
    ) -> int:
        """Queue an activity; its number."""
        number = self._db.execute(
            "INSERT INTO activity(instance, execution, task, name, input) "
            "VALUES(?,?,?,?,?)",
            (instance.id, instance.execution_id, task, name, input_json),
        ).lastrowid
        assert number is not None
        return number

    def activity_numbers(self) -> Sequence[int]:
        """All queued activities, oldest first."""
        rows = self._db.execute("SELECT number FROM activity ORDER BY number")
        return [row[0] for row in rows]

    def begin_activity(self, number: int) -> Activity | None:
        """The activity, with this start counted; None when it is gone."""
        row = self._db.execute(
            "UPDATE activity SET starts=starts+1 WHERE number=? RETURNING number, "
            "instance, execution, task, name, input, starts",
            (number,),
        ).fetchone()
        return Activity(*row) if row else None

    def return_activity(self, number: int) -> None:
        """Undo the count of a start that was called off in good order."""
        self._db.execute(
            "UPDATE activity SET starts=starts-1 WHERE number=?", (number,)
        )

    def end_activity(self, number: int) -> bool:
        """Take an activity out of the queue; False when it was not in it."""
        return (
            self._db.execute("DELETE FROM activity WHERE number=?", (number,)).rowcount
            == 1
        )

    def has_activities(self, instance_id: str) -> bool:
        """Whether activities of the instance are queued or running."""
        row = self._db.execute(
            "SELECT 1 FROM activity WHERE instance=? LIMIT 1", (instance_id,)
        ).fetchone()
        return row is not None

    # Entities

    def entity_state(self, entity: str) -> str | None:
        """JSON text, None when the entity does not exist."""
        row = self._db.execute(
            "SELECT state FROM entity WHERE id=?", (entity,)
        ).fetchone()
        return row[0] if row else None

    def put_entity(self, entity: str, state: str | None, now: int) -> None:
        """Set the state; None deletes the entity."""
        if state is None:
            self._db.execute("DELETE FROM entity WHERE id=?", (entity,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO entity VALUES(?,?,?)", (entity, state, now)
            )

    def queue_operation(
        self,
        entity: str,
        operation: str,
        input_json: str,
        answer_to: tuple[str, str, str] | None = None,
    ) -> None:
        """Queue an operation on an entity.

        Args:
            entity: `@name@key`.
            operation: Its name.
            input_json: JSON text of a string that is JSON text itself.
            answer_to: Request id, instance and execution; None for a signal.
        """
        self._db.execute(
            "INSERT INTO entity_inbox"
            "(entity, operation, input, request, caller, caller_execution) "
            "VALUES(?,?,?,?,?,?)",
            (entity, operation, input_json, *(answer_to or (None, None, None))),
        )

    def operations(self, entity: str, limit: int) -> Sequence[Operation]:
        """Queued operations in order of arrival."""
        rows = self._db.execute(
            "SELECT number, operation, input, request, caller, caller_execution "
            "FROM entity_inbox WHERE entity=? ORDER BY number LIMIT ?",
            (entity, limit),
        )
        return [Operation(*row) for row in rows]

    def end_operations(self, operations: Iterable[Operation]) -> None:
        """Take operations out of the queue."""
        self._db.executemany(
            "DELETE FROM entity_inbox WHERE number=?",
            ((operation.number,) for operation in operations),
        )

    def waiting_entities(self) -> Sequence[str]:
        """Entities that have operations queued."""
        rows = self._db.execute("SELECT DISTINCT entity FROM entity_inbox")
        return [row[0] for row in rows]


def _instance(row: Sequence[Any]) -> Instance:
    *own, status, input_, output, custom, created, updated, parent, run, task = row
    return Instance(
        own[0],
        own[1],
        own[2],
        own[3],
        Status(status),
        input_,
        output,
        custom,
        created,
        updated,
        Parent(parent, run, task) if parent else None,
    )


def _conditions(wanted: InstanceFilter) -> tuple[list[str], list[object]]:
    where: list[str] = ["1"]
    values: list[object] = []
    if wanted.created_from is not None:
        where.append("created>=?")
        values.append(wanted.created_from)
    if wanted.created_to is not None:
        where.append("created<=?")
        values.append(wanted.created_to)
    if wanted.statuses:
        where.append(f"status IN ({','.join('?' * len(wanted.statuses))})")
        values += [status.value for status in wanted.statuses]
    if wanted.id_prefix:
        where.append("substr(id, 1, ?)=?")
        values += [len(wanted.id_prefix), wanted.id_prefix]
    return where, values
