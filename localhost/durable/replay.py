"""What an orchestrator's list of actions means, given the history.

The classic protocol sends no task ids: the client library numbers tasks as they are
yielded, the Durable Task framework as actions are invoked, and answers carry that
number. So the framework's side is played again here over the whole history: top-level
actions are awaited one after another, every invocation takes the next id, and what
has an id that the history does not know yet is new work.

Pure: no clock, no storage, no client library.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from localhost.durable.history import EVENT_NAMES, EventKind, microseconds

Action = Mapping[str, Any]


class ActionType(IntEnum):
    """`actionType` of the client library's answer."""

    CALL_ACTIVITY = 0
    CALL_ACTIVITY_WITH_RETRY = 1
    CALL_CHILD = 2
    CALL_CHILD_WITH_RETRY = 3
    CONTINUE_AS_NEW = 4
    CREATE_TIMER = 5
    WAIT_FOR_EVENT = 6
    CALL_ENTITY = 7
    CALL_HTTP = 8
    SIGNAL_ENTITY = 9
    WHEN_ANY = 11
    WHEN_ALL = 12


class NonDeterministic(Exception):
    """The orchestrator asks for other work than it did when history was written."""


class UnsupportedAction(Exception):
    """An action that this engine cannot do; the text says which."""


@dataclass(frozen=True, slots=True)
class Past:
    """One event of the history, as far as replay needs it (see `history.Event`)."""

    kind: int
    task: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class RunActivity:
    """Queue an activity; `input` is JSON text."""

    task: int
    name: str
    input: str


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a sub-orchestration; without `instance_id` the engine makes one."""

    task: int
    name: str
    input: str
    instance_id: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Wake the orchestrator at `fire_at`, in microseconds since 1970 UTC."""

    task: int
    fire_at: int


@dataclass(frozen=True, slots=True)
class SendToEntity:
    """Send an operation to the entity `@name@key`; a signal wants no answer."""

    task: int
    entity: str
    operation: str
    input: str
    signal: bool
    request_id: str


Decision = RunActivity | StartChild | SetTimer | SendToEntity


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an episode leads to.

    `awaited_all` says that nothing in the list is still waited for: only then may the
    instance end. `continue_as_new` is the next execution's input (JSON text), or None.
    `canceled` are ids of timers that need not fire. `final_failures` are the failed
    tasks that no retry followed, and the closing timers of their retries.
    """

    decisions: tuple[Decision, ...]
    canceled: frozenset[int]
    awaited_all: bool
    continue_as_new: str | None
    final_failures: frozenset[int]


_SCHEDULING = frozenset(
    {
        EventKind.TASK_SCHEDULED,
        EventKind.CHILD_CREATED,
        EventKind.TIMER_CREATED,
        EventKind.EVENT_SENT,
    }
)
_FAILURES = frozenset({EventKind.TASK_FAILED, EventKind.CHILD_FAILED})
_ANSWERS = _FAILURES | {
    EventKind.TASK_COMPLETED,
    EventKind.CHILD_COMPLETED,
    EventKind.TIMER_FIRED,
}
_CALLS = frozenset({ActionType.CALL_ACTIVITY, ActionType.CALL_ACTIVITY_WITH_RETRY})


def replay(
    actions: Sequence[Action], past: Sequence[Past], now: int, execution_id: str
) -> Outcome:
    """New work, and whether all is done, after the whole history.

    Args:
        actions: The flat list of schema version 2 (V3 in the client library).
        past: Every event of this execution, the present episode's included.
        now: The present episode's time, microseconds since 1970 UTC.
        execution_id: Goes into the ids of entity requests.

    Raises:
        NonDeterministic: The actions contradict the history.
        UnsupportedAction: An action is of a kind that this engine cannot do.
    """
    pass_over = _Replay(past, now, execution_id)
    awaited_all = pass_over.run(actions, past)
    pass_over.check_nothing_is_missing()
    return Outcome(
        decisions=tuple(pass_over.decisions),
        canceled=frozenset(pass_over.canceled),
        awaited_all=awaited_all,
        continue_as_new=pass_over.continue_as_new,
        final_failures=frozenset(pass_over.final_failures),
    )


class _Node:
    """Something awaited; `tell` hears once of its end.

    A node that is born done tells nobody: whoever invoked it looks at `done`.
    """

    __slots__ = ("done", "ok", "tell")

    def __init__(
        self, tell: "Callable[[_Node], None] | None", *, done: bool = False
    ) -> None:
        self.tell = tell
        self.done = done
        self.ok = True

    def finish(self, *, ok: bool) -> None:
        if not self.done:
            self.done = True
            self.ok = ok
            if self.tell is not None:
                self.tell(self)


class _Retry:
    """Attempts with a timer after each failure; the timer after the last is due now."""

    def __init__(self, play: "_Replay", action: Action, node: _Node) -> None:
        self._play = play
        self._action = action
        self._node = node
        self._attempts = 0
        self._task = -1

    def attempt(self) -> None:
        self._attempts += 1
        self._task = self._play.counter
        self._play.invoke_call(self._action, self._attempted)

    def _is_last(self) -> bool:
        options = self._action["retryOptions"]
        return self._attempts >= int(options["maxNumberOfAttempts"])

    def _attempted(self, attempt: _Node) -> None:
        if attempt.ok:
            self._node.finish(ok=True)
            return
        wait = 0
        if self._is_last():
            self._play.final_failures.add(self._play.counter)
        else:
            self._play.final_failures.discard(self._task)
            wait = int(self._action["retryOptions"]["firstRetryIntervalInMilliseconds"])
        self._play.set_timer(self._play.now + wait * 1000, self._waited)

    def _waited(self, _timer: _Node) -> None:
        if self._is_last():
            self._node.finish(ok=False)
        else:
            self.attempt()


class _Replay:
    """One pass over the history with the actions known at its end."""

    def __init__(self, past: Iterable[Past], now: int, execution_id: str) -> None:
        self.now = now
        self._execution_id = execution_id
        self.counter = 0
        self.decisions: list[Decision] = []
        self.canceled: set[int] = set()
        self.final_failures: set[int] = set()
        self.continue_as_new: str | None = None
        self._scheduled = {
            event.task: event for event in past if event.kind in _SCHEDULING
        }
        self._open: dict[int, _Node] = {}
        self._waiting: dict[str, list[_Node]] = {}
        self._buffered: dict[str, int] = {}

    def run(self, actions: Iterable[Action], past: Iterable[Past]) -> bool:
        """Play all events; True when every action has been awaited."""
        remaining = iter(actions)
        current = self._advance(remaining)
        for event in past:
            self._apply(event)
            if current is not None and current.done:
                current = self._advance(remaining)
        return current is None

    def check_nothing_is_missing(self) -> None:
        """Every task that history has must have been asked for again."""
        for task, event in self._scheduled.items():
            if task is not None and task >= self.counter:
                raise NonDeterministic(
                    "Non-deterministic orchestrator: it no longer asks for task "
                    f"{task}, {EVENT_NAMES[EventKind(event.kind)]} of {event.name}."
                )

    def invoke_call(
        self, action: Action, tell: Callable[[_Node], None] | None
    ) -> _Node:
        """Run an activity or start a sub-orchestration, once."""
        name, task = str(action["functionName"]), self.counter
        text = str(action.get("input", "null"))
        if action["actionType"] in _CALLS:
            return self._schedule(
                EventKind.TASK_SCHEDULED, name, RunActivity(task, name, text), tell
            )
        child = StartChild(
            task, name, text, action.get("instanceId"), action.get("version")
        )
        return self._schedule(EventKind.CHILD_CREATED, name, child, tell)

    def set_timer(self, fire_at: int, tell: Callable[[_Node], None] | None) -> _Node:
        """Wait until an instant, in microseconds since 1970 UTC."""
        timer = SetTimer(self.counter, fire_at)
        return self._schedule(EventKind.TIMER_CREATED, None, timer, tell)

    def _advance(self, remaining: Iterator[Action]) -> _Node | None:
        """Invoke actions until one has to be waited for; None at the end."""
        for action in remaining:
            node = self._invoke(action, None)
            if not node.done:
                return node
        return None

    def _apply(self, event: Past) -> None:
        if event.kind == EventKind.EVENT_RAISED:
            name = event.name or ""
            waiting = self._waiting.get(name)
            if waiting:  # the latest wait is served first, in the client library too
                waiting.pop().finish(ok=True)
            else:
                self._buffered[name] = self._buffered.get(name, 0) + 1
        elif event.kind in _ANSWERS and event.task is not None:
            self._answer(event.task, ok=event.kind not in _FAILURES)

    def _answer(self, task: int, *, ok: bool) -> None:
        if task >= self.counter:
            raise NonDeterministic(
                "Non-deterministic orchestrator: history has an answer to task "
                f"{task}, which the orchestrator no longer starts."
            )
        node = self._open.pop(task, None)
        if node is None:
            return
        if not ok:
            self.final_failures.add(task)
        node.finish(ok=ok)

    def _invoke(self, action: Action, tell: Callable[[_Node], None] | None) -> _Node:
        match action["actionType"]:
            case ActionType.WHEN_ANY | ActionType.WHEN_ALL:
                node = self._compound(action, tell)
            case ActionType.CALL_ACTIVITY | ActionType.CALL_CHILD:
                node = self.invoke_call(action, tell)
            case ActionType.CALL_ACTIVITY_WITH_RETRY | ActionType.CALL_CHILD_WITH_RETRY:
                node = _Node(tell)
                _Retry(self, action, node).attempt()
            case ActionType.CREATE_TIMER:
                node = self._timer(action, tell)
            case ActionType.WAIT_FOR_EVENT:
                node = self._wait(str(action["externalEventName"]), tell)
            case ActionType.CALL_ENTITY | ActionType.SIGNAL_ENTITY:
                node = self._send(action, tell)
            case ActionType.CONTINUE_AS_NEW:
                self.continue_as_new = str(action.get("input", "null"))
                node = _Node(tell, done=True)
            case ActionType.CALL_HTTP:
                raise UnsupportedAction("CallHttp is not supported by this host.")
            case kind:
                raise UnsupportedAction(f"Action type {kind} is unknown to this host.")
        return node

    def _compound(self, action: Action, tell: Callable[[_Node], None] | None) -> _Node:
        """WhenAny, or WhenAll, which waits for all children even after a failure."""
        children: Sequence[Action] = action["compoundActions"]
        needed = 1 if action["actionType"] == ActionType.WHEN_ANY else len(children)
        node = _Node(None)
        done = 0
        ok = True

        def child_done(child: _Node) -> None:
            nonlocal done, ok
            done += 1
            ok = ok and child.ok
            if done >= needed:
                node.finish(ok=ok)

        for child in children:
            invoked = self._invoke(child, child_done)
            if invoked.done:
                child_done(invoked)
        node.done = node.done or not children
        node.tell = tell
        return node

    def _timer(self, action: Action, tell: Callable[[_Node], None] | None) -> _Node:
        if not action.get("isCanceled"):
            return self.set_timer(microseconds(action["fireAt"]), tell)
        task = self.counter
        node = self.set_timer(microseconds(action["fireAt"]), None)
        node.done = True
        node.tell = tell
        self.canceled.add(task)
        return node

    def _wait(self, name: str, tell: Callable[[_Node], None] | None) -> _Node:
        buffered = self._buffered.get(name, 0)
        if buffered:
            self._buffered[name] = buffered - 1
            return _Node(tell, done=True)
        node = _Node(tell)
        self._waiting.setdefault(name, []).append(node)
        return node

    def _send(self, action: Action, tell: Callable[[_Node], None] | None) -> _Node:
        """An entity's answer comes as an external event named by the request."""
        entity, task = str(action["instanceId"]), self.counter
        signal = action["actionType"] == ActionType.SIGNAL_ENTITY
        request_id = str(uuid5(NAMESPACE_OID, f"{self._execution_id}:{task}"))
        request = SendToEntity(
            task,
            entity,
            str(action["operation"]),
            str(action.get("input", "null")),
            signal,
            request_id,
        )
        self._schedule(EventKind.EVENT_SENT, entity, request, None)
        if signal:
            return _Node(tell, done=True)
        return self._wait(request_id, tell)

    def _schedule(
        self,
        kind: EventKind,
        name: str | None,
        decision: Decision,
        tell: Callable[[_Node], None] | None,
    ) -> _Node:
        """Give the next id to a task; it is new work unless history has it."""
        task = self.counter
        self.counter += 1
        known = self._scheduled.get(task)
        if known is None:
            self.decisions.append(decision)
        elif known.kind != kind or known.name != name:
            raise NonDeterministic(
                f"Non-deterministic orchestrator: task {task} was "
                f"{EVENT_NAMES[EventKind(known.kind)]} of {known.name}, "
                f"now it would be {EVENT_NAMES[kind]} of {name}."
            )
        node = _Node(tell)
        self._open[task] = node
        return node
