"""History events in the shapes that the client library reads.

An event is kept as text without its `IsPlayed` field, so that the body of an
orchestration trigger is a join of stored strings: nothing is parsed or dumped again
when an orchestrator is replayed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class EventKind(IntEnum):
    """Event types as numbered by Durable Task; the client library ignores the rest."""

    EXECUTION_STARTED = 0
    EXECUTION_COMPLETED = 1
    EXECUTION_TERMINATED = 3
    TASK_SCHEDULED = 4
    TASK_COMPLETED = 5
    TASK_FAILED = 6
    CHILD_CREATED = 7
    CHILD_COMPLETED = 8
    CHILD_FAILED = 9
    TIMER_CREATED = 10
    TIMER_FIRED = 11
    EPISODE_STARTED = 12
    EVENT_SENT = 14
    EVENT_RAISED = 15
    GENERIC = 17
    EXECUTION_SUSPENDED = 19
    EXECUTION_RESUMED = 20


EVENT_NAMES = {
    EventKind.EXECUTION_STARTED: "ExecutionStarted",
    EventKind.EXECUTION_COMPLETED: "ExecutionCompleted",
    EventKind.EXECUTION_TERMINATED: "ExecutionTerminated",
    EventKind.TASK_SCHEDULED: "TaskScheduled",
    EventKind.TASK_COMPLETED: "TaskCompleted",
    EventKind.TASK_FAILED: "TaskFailed",
    EventKind.CHILD_CREATED: "SubOrchestrationInstanceCreated",
    EventKind.CHILD_COMPLETED: "SubOrchestrationInstanceCompleted",
    EventKind.CHILD_FAILED: "SubOrchestrationInstanceFailed",
    EventKind.TIMER_CREATED: "TimerCreated",
    EventKind.TIMER_FIRED: "TimerFired",
    EventKind.EPISODE_STARTED: "OrchestratorStarted",
    EventKind.EVENT_SENT: "EventSent",
    EventKind.EVENT_RAISED: "EventRaised",
    EventKind.GENERIC: "GenericEvent",
    EventKind.EXECUTION_SUSPENDED: "ExecutionSuspended",
    EventKind.EXECUTION_RESUMED: "ExecutionResumed",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One history event.

    `task` is the id of the task that the event schedules or answers, `name` the
    function, entity or external event it is about; both are also inside `body`, the
    JSON text of the event without `IsPlayed` and without its opening brace.
    """

    kind: int
    task: int | None
    name: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Execution:
    """Which run of which instance an orchestrator function is called for."""

    instance_id: str
    execution_id: str
    parent_instance_id: str | None
    input: str | None


def timestamp(microseconds: int) -> str:
    """The instant as the host writes it, UTC with six digits of a second.

    Args:
        microseconds: Since 1970-01-01 UTC.
    """
    instant = _EPOCH + timedelta(microseconds=microseconds)
    return f"{instant:%Y-%m-%dT%H:%M:%S.%f}Z"


def microseconds(text: str) -> int:
    """Microseconds since 1970-01-01 UTC of an ISO 8601 instant; no zone means UTC.

    Raises:
        ValueError: The text is not an ISO 8601 instant.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - _EPOCH) // _MICROSECOND


def _event(
    kind: EventKind,
    at: int,
    *,
    event_id: int = -1,
    task: int | None = None,
    name: str | None = None,
    **fields: object,
) -> Event:
    body = json.dumps(
        {"EventType": kind, "EventId": event_id, "Timestamp": timestamp(at), **fields}
    )
    return Event(kind, event_id if task is None else task, name, body[1:])


def episode_started(at: int) -> Event:
    """Opens an episode; its time is the orchestrator's clock until the next one.

    The event that Azure writes at the end of an episode (13) is left out: the client
    library skips it, at the price of parsing it at every replay.
    """
    return _event(EventKind.EPISODE_STARTED, at)


def execution_started(
    at: int, execution: Execution, name: str, version: str | None
) -> Event:
    """The first event of every execution."""
    parent = execution.parent_instance_id
    return _event(
        EventKind.EXECUTION_STARTED,
        at,
        name=name,
        Name=name,
        Version=version or "",
        Input=execution.input,
        Tags=None,
        Correlation=None,
        ScheduledStartTime=None,
        OrchestrationInstance={
            "InstanceId": execution.instance_id,
            "ExecutionId": execution.execution_id,
        },
        ParentInstance=(
            {"OrchestrationInstance": {"InstanceId": parent}} if parent else None
        ),
    )


def execution_completed(at: int, status: str, result: str | None) -> Event:
    """The last event of an execution that ended by itself."""
    return _event(
        EventKind.EXECUTION_COMPLETED, at, OrchestrationStatus=status, Result=result
    )


def execution_terminated(at: int, reason: str) -> Event:
    """The last event of an execution that was ended from outside."""
    return _event(EventKind.EXECUTION_TERMINATED, at, Input=reason)


def rewound(at: int, reason: str) -> Event:
    """Makes an orchestrator run once more; the client library ignores it."""
    return _event(EventKind.GENERIC, at, Data=f"Rewound: {reason}")


def execution_suspended(at: int, reason: str) -> Event:
    """From here on messages wait."""
    return _event(EventKind.EXECUTION_SUSPENDED, at, Reason=reason)


def execution_resumed(at: int, reason: str) -> Event:
    """Messages are handed on again."""
    return _event(EventKind.EXECUTION_RESUMED, at, Reason=reason)


def task_scheduled(at: int, task: int, name: str, input_json: str) -> Event:
    """An activity was queued."""
    return _event(
        EventKind.TASK_SCHEDULED,
        at,
        event_id=task,
        name=name,
        Name=name,
        Version="",
        Input=f"[{input_json}]",
    )


def task_completed(at: int, task: int, result: str | None) -> Event:
    """An activity returned; `result` is JSON text."""
    return _event(
        EventKind.TASK_COMPLETED, at, task=task, TaskScheduledId=task, Result=result
    )


def task_failed(at: int, task: int, reason: str, details: str) -> Event:
    """An activity raised."""
    return _event(
        EventKind.TASK_FAILED,
        at,
        task=task,
        TaskScheduledId=task,
        Reason=reason,
        Details=details,
    )


def child_created(
    at: int, task: int, name: str, instance_id: str, input_json: str
) -> Event:
    """A sub-orchestration was started."""
    return _event(
        EventKind.CHILD_CREATED,
        at,
        event_id=task,
        name=name,
        Name=name,
        InstanceId=instance_id,
        Version="",
        Input=input_json,
    )


def child_completed(at: int, task: int, result: str | None) -> Event:
    """A sub-orchestration returned; `result` is JSON text."""
    return _event(
        EventKind.CHILD_COMPLETED, at, task=task, TaskScheduledId=task, Result=result
    )


def child_failed(at: int, task: int, reason: str, details: str = "") -> Event:
    """A sub-orchestration failed, was terminated, or could not be started."""
    return _event(
        EventKind.CHILD_FAILED,
        at,
        task=task,
        TaskScheduledId=task,
        Reason=reason,
        Details=details,
    )


def timer_created(at: int, task: int, fire_at: int) -> Event:
    """A timer was set."""
    return _event(EventKind.TIMER_CREATED, at, event_id=task, FireAt=timestamp(fire_at))


def timer_fired(task: int, fire_at: int) -> Event:
    """A timer's time has come."""
    return _event(
        EventKind.TIMER_FIRED,
        fire_at,
        task=task,
        TimerId=task,
        FireAt=timestamp(fire_at),
    )


def event_sent(at: int, task: int, target: str, request: str) -> Event:
    """An operation was sent to an entity; `request` is JSON text with its id."""
    return _event(
        EventKind.EVENT_SENT,
        at,
        event_id=task,
        name=target,
        InstanceId=target,
        Name="op",
        Input=request,
    )


def event_raised(at: int, name: str, data: str) -> Event:
    """An external event, or an entity's answer; `data` is JSON text."""
    return _event(EventKind.EVENT_RAISED, at, name=name, Name=name, Input=data)


def trigger_body(
    execution: Execution, past: Sequence[str], new: Iterable[Event]
) -> str:
    """The JSON text that an orchestration trigger carries.

    Args:
        execution: The instance and the input of this execution.
        past: Bodies of the events of earlier episodes, in order.
        new: The events of this episode; the first opens the episode.
    """
    head = json.dumps(
        {
            "instanceId": execution.instance_id,
            "isReplaying": bool(past),
            "parentInstanceId": execution.parent_instance_id,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
            "longRunningTimerIntervalDuration": "3.00:00:00",
            "maximumShortTimerDuration": "6.00:00:00",
            "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
        }
    )
    events = [f'{{"IsPlayed":true,{body}' for body in past]
    events += [f'{{"IsPlayed":false,{event.body}' for event in new]
    return (
        f'{head[:-1]},"input":{execution.input or "null"},'
        f'"history":[{",".join(events)}]}}'
    )
