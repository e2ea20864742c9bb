"""What clients see of an instance, as JSON text."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from localhost.durable.history import EVENT_NAMES, EventKind, timestamp
from localhost.durable.schema import Instance

_SCHEDULED_BY = {
    EventKind.TASK_COMPLETED: EventKind.TASK_SCHEDULED,
    EventKind.TASK_FAILED: EventKind.TASK_SCHEDULED,
    EventKind.CHILD_COMPLETED: EventKind.CHILD_CREATED,
    EventKind.CHILD_FAILED: EventKind.CHILD_CREATED,
}
_HIDDEN = frozenset(
    {EventKind.EPISODE_STARTED, EventKind.TASK_SCHEDULED, EventKind.CHILD_CREATED}
)
_SHOWN = ("Reason", "Details", "FireAt", "OrchestrationStatus")
_OUTPUTS = ("Result", "Input")


def describe(
    instance: Instance,
    *,
    with_input: bool = True,
    events: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The status of an instance.

    Args:
        instance: The instance.
        with_input: Show its input; it is null otherwise.
        events: What `historyEvents` shall be.
    """
    shown = {
        "name": instance.name,
        "instanceId": instance.id,
        "runtimeStatus": instance.status.value,
        "createdTime": timestamp(instance.created),
        "lastUpdatedTime": timestamp(instance.updated),
    }
    raw = {
        "input": instance.input if with_input else None,
        "customStatus": instance.custom_status,
        "output": instance.output,
    }
    members = [json.dumps(shown)[1:-1]]
    members += [f'"{name}":{text or "null"}' for name, text in raw.items()]
    if events is not None:
        members.append(f'"historyEvents":{json.dumps(events)}')
    return f"{{{','.join(members)}}}"


def events(bodies: Iterable[str], *, with_output: bool) -> list[dict[str, Any]]:
    """The history as the extension shows it.

    A task's answer also names the function and the time at which it was scheduled;
    the scheduling itself is left out, and so are the bounds of episodes.

    Args:
        bodies: Events as JSON text, oldest first.
        with_output: Show results and inputs.
    """
    scheduled: dict[tuple[int, int], dict[str, Any]] = {}
    shown = []
    for body in bodies:
        event = json.loads(body)
        kind = EventKind(event["EventType"])
        if kind in _HIDDEN:
            scheduled[kind, event["EventId"]] = event
            continue
        entry = {"EventType": EVENT_NAMES[kind], "Timestamp": event["Timestamp"]}
        cause = scheduled.get(
            (_SCHEDULED_BY.get(kind, -1), event.get("TaskScheduledId", -1))
        )
        if cause is not None:
            entry["FunctionName"] = cause["Name"]
            entry["ScheduledTime"] = cause["Timestamp"]
        elif kind is EventKind.EXECUTION_STARTED:
            entry["FunctionName"] = event["Name"]
        elif kind is EventKind.EVENT_RAISED:
            entry["Name"] = event["Name"]
        names = (*_SHOWN, *(_OUTPUTS if with_output else ()))
        entry |= {name: event[name] for name in names if event.get(name) is not None}
        shown.append(entry)
    return shown
