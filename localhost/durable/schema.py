"""The tables of `durable.db` and the rows read from them.

All times are microseconds since 1970-01-01 UTC; payloads are JSON text as they were
received, never parsed on the way.
"""

from dataclasses import dataclass
from enum import StrEnum

from localhost.durable.history import Event, Execution

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE instance(
  id TEXT PRIMARY KEY, execution TEXT NOT NULL, name TEXT NOT NULL, version TEXT,
  status TEXT NOT NULL, input TEXT, output TEXT, custom_status TEXT,
  created INTEGER NOT NULL, updated INTEGER NOT NULL,
  parent TEXT, parent_execution TEXT, parent_task INTEGER) WITHOUT ROWID;
CREATE INDEX instance_created ON instance(created, id);
CREATE INDEX instance_parent ON instance(parent) WHERE parent IS NOT NULL;
CREATE TABLE history(
  instance TEXT NOT NULL, position INTEGER NOT NULL, kind INTEGER NOT NULL,
  task INTEGER, name TEXT, body TEXT NOT NULL,
  PRIMARY KEY(instance, position)) WITHOUT ROWID;
CREATE TABLE inbox(
  number INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL, execution TEXT,
  due INTEGER NOT NULL, kind INTEGER NOT NULL, task INTEGER, name TEXT,
  body TEXT NOT NULL);
CREATE INDEX inbox_instance ON inbox(instance, due, number);
CREATE INDEX inbox_due ON inbox(due);
CREATE TABLE activity(
  number INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL,
  execution TEXT NOT NULL, task INTEGER NOT NULL, name TEXT NOT NULL,
  input TEXT NOT NULL, starts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX activity_instance ON activity(instance);
CREATE TABLE entity(
  id TEXT PRIMARY KEY, state TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entity_inbox(
  number INTEGER PRIMARY KEY AUTOINCREMENT, entity TEXT NOT NULL,
  operation TEXT NOT NULL, input TEXT NOT NULL, request TEXT, caller TEXT,
  caller_execution TEXT);
CREATE INDEX entity_inbox_entity ON entity_inbox(entity, number);
"""


class Status(StrEnum):
    """Runtime status of an instance, as the client library spells it.

    The last two exist for queries only: no instance here ever has them.
    """

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    CANCELED = "Canceled"
    CONTINUED_AS_NEW = "ContinuedAsNew"

    @property
    def is_final(self) -> bool:
        """The instance does nothing more."""
        return self in _FINAL


_FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.TERMINATED})


@dataclass(frozen=True, slots=True)
class Parent:
    """The orchestration that waits for an instance, and the task it waits with."""

    instance_id: str
    execution_id: str
    task: int


@dataclass(frozen=True, slots=True)
class Instance:
    """An orchestration: its present execution and what a client can see of it."""

    id: str
    execution_id: str
    name: str
    version: str | None
    status: Status
    input: str | None
    output: str | None
    custom_status: str | None
    created: int
    updated: int
    parent: Parent | None

    @property
    def execution(self) -> Execution:
        """What an orchestration trigger has to say about it."""
        return Execution(
            self.id,
            self.execution_id,
            self.parent.instance_id if self.parent else None,
            self.input,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """An event that waits for the next episode of an instance."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Activity:
    """A queued activity; `starts` counts how often it was begun and not finished."""

    number: int
    instance_id: str
    execution_id: str
    task: int
    name: str
    input: str
    starts: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A queued operation on an entity; without `caller` nobody waits for it."""

    number: int
    operation: str
    input: str
    request_id: str | None
    caller: str | None
    caller_execution: str | None


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances a query or purge means.

    `created_from` and `created_to` are inclusive; no statuses means all.
    """

    created_from: int | None = None
    created_to: int | None = None
    statuses: frozenset[Status] = frozenset()
    id_prefix: str = ""
