"""One episode of an orchestrator: call it, replay its actions, commit what follows.

Nothing is written before the function has answered, and everything in one
transaction after it; so a step happens once, or not at all and then again.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localhost.durable import history
from localhost.durable.functions import FunctionKind, Functions
from localhost.durable.history import Event, EventKind
from localhost.durable.instances import Agenda, AlreadyRunning, Instances, Start
from localhost.durable.replay import (
    Action,
    Decision,
    NonDeterministic,
    Outcome,
    Past,
    RunActivity,
    SendToEntity,
    SetTimer,
    StartChild,
    UnsupportedAction,
    replay,
)
from localhost.durable.schema import Instance, Message, Parent, Status
from localhost.durable.store import Store
from localhost.errors import InvocationFailed

_FAILURE_LABEL = "\n\n$OutOfProcData$:"


@dataclass(frozen=True, slots=True)
class Reply:
    """What an orchestrator function answered; JSON texts are None where absent.

    Without `actions` the failure did not come from the orchestrator's own code.
    """

    actions: Sequence[Action] | None
    done: bool
    output: str | None
    custom_status: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Episode:
    """What goes into one call of an orchestrator function."""

    instance: Instance
    at: int
    past: Sequence[Past]
    bodies: Sequence[str]
    new: Sequence[Event]
    messages: Sequence[Message]

    @property
    def events(self) -> list[Past]:
        """The whole history, for replay."""
        return [
            *self.past,
            *(Past(event.kind, event.task, event.name) for event in self.new),
        ]


class Episodes:
    """Runs orchestrators."""

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

    async def run(self, instance_id: str) -> float:
        """Handle all messages that are due.

        Returns:
            Seconds that calling the function took, 0 if there was nothing to do.
        """
        episode = self._gather(instance_id)
        if episode is None:
            return 0.0
        began = time.perf_counter()
        reply = await self.call(episode)
        took = time.perf_counter() - began
        with self._store.transaction():
            self._commit(episode, reply)
        return took

    def _gather(self, instance_id: str) -> Episode | None:
        at = self._clock()
        instance = self._store.instance(instance_id)
        if instance is None or instance.status is Status.SUSPENDED:
            return None
        messages = self._store.messages(instance_id, at)
        if not messages:
            return None
        mine = [message.event for message in messages]
        # An event from outside may have come before its execution had begun.
        mine.sort(key=lambda event: event.kind != EventKind.EXECUTION_STARTED)
        return self.episode(instance, at, mine, messages)

    def episode(
        self,
        instance: Instance,
        at: int,
        events: Sequence[Event],
        messages: Sequence[Message] = (),
    ) -> Episode:
        """The stored history with new events, ready for `call`."""
        past, bodies = self._store.past(instance.id)
        new = [history.episode_started(at), *events]
        return Episode(instance, at, past, bodies, new, messages)

    async def call(self, episode: Episode) -> Reply:
        """The orchestrator's answer; whatever it raises is an answer too."""
        instance = episode.instance
        body = history.trigger_body(instance.execution, episode.bodies, episode.new)
        try:
            text = await self._functions.call(
                FunctionKind.ORCHESTRATOR, instance.name, body
            )
            return _read(json.loads(text))
        except InvocationFailed as failed:
            return _read_failure(failed)

    def _commit(self, episode: Episode, reply: Reply) -> None:
        instance = self._store.instance(episode.instance.id)
        if (
            instance is None
            or instance.execution_id != episode.instance.execution_id
            or instance.status.is_final
        ):
            return  # ended or replaced from outside while the function ran
        self._store.take(episode.messages)
        if instance.status is Status.PENDING:
            instance = replace(instance, status=Status.RUNNING)
        if reply.custom_status is not None:
            instance = replace(instance, custom_status=reply.custom_status)
        try:
            outcome = self.replay(episode, reply)
        except (NonDeterministic, UnsupportedAction) as error:
            self._store.append(instance.id, episode.new)
            self._fail(instance, reply.error or str(error))
            return
        self._carry_on(instance, episode, reply, outcome)

    def replay(self, episode: Episode, reply: Reply) -> Outcome:
        """What the orchestrator's answer means.

        Raises:
            NonDeterministic: It contradicts the history.
            UnsupportedAction: It asks for something this engine cannot do, or the
                function could not be run at all.
        """
        if reply.actions is None:
            raise UnsupportedAction(reply.error)
        return replay(
            reply.actions, episode.events, episode.at, episode.instance.execution_id
        )

    def _carry_on(
        self, instance: Instance, episode: Episode, reply: Reply, outcome: Outcome
    ) -> None:
        scheduled = [
            self._carry_out(instance, decision, episode.at)
            for decision in outcome.decisions
        ]
        if outcome.awaited_all and outcome.continue_as_new is not None:
            self._instances.continue_as_new(
                instance, json.dumps(outcome.continue_as_new)
            )
            return
        self._store.append(instance.id, [*episode.new, *scheduled])
        self._store.cancel_timers(instance.id, outcome.canceled)
        if outcome.awaited_all and reply.error is not None:
            self._fail(instance, reply.error)
        elif outcome.awaited_all and reply.done:
            last = history.execution_completed(episode.at, "Completed", reply.output)
            self._instances.finish(instance, Status.COMPLETED, reply.output, last)
        else:
            self._store.put_instance(replace(instance, updated=episode.at))

    def _fail(self, instance: Instance, error: str) -> None:
        text = f"Orchestrator function '{instance.name}' failed: {error}"
        output = json.dumps(text)
        last = history.execution_completed(self._clock(), "Failed", output)
        self._instances.finish(instance, Status.FAILED, output, last)

    def _carry_out(self, instance: Instance, decision: Decision, at: int) -> Event:
        """Put new work where it will be done; the event that records it."""
        match decision:
            case RunActivity(task, name, input_json):
                number = self._store.queue_activity(instance, task, name, input_json)
                self._agenda.run_activity(number)
                return history.task_scheduled(at, task, name, input_json)
            case StartChild():
                return self._start_child(instance, decision, at)
            case SetTimer(task, fire_at):
                fired = history.timer_fired(task, fire_at)
                self._store.send(instance.id, instance.execution_id, fire_at, fired)
                self._agenda.watch(fire_at)
                return history.timer_created(at, task, fire_at)
            case SendToEntity():
                return self._send(instance, decision, at)

    def _start_child(self, instance: Instance, child: StartChild, at: int) -> Event:
        child_id = child.instance_id or f"{instance.execution_id}:{child.task}"
        parent = Parent(instance.id, instance.execution_id, child.task)
        input_json = json.dumps(child.input)
        problem = ""
        if not self._functions.has(FunctionKind.ORCHESTRATOR, child.name):
            problem = f"The app has no orchestrator '{child.name}'."
        else:
            try:
                self._instances.create(
                    Start(child.name, child_id, input_json, child.version, parent)
                )
            except AlreadyRunning as error:
                problem = str(error)
        if problem:
            self._instances.answer(
                parent, history.child_failed(at, child.task, problem)
            )
        return history.child_created(at, child.task, child.name, child_id, input_json)

    def _send(self, instance: Instance, sent: SendToEntity, at: int) -> Event:
        answer_to = (sent.request_id, instance.id, instance.execution_id)
        input_json = json.dumps(sent.input)
        self._store.queue_operation(
            sent.entity, sent.operation, input_json, None if sent.signal else answer_to
        )
        self._agenda.wake_entity(sent.entity)
        request = {
            "op": sent.operation,
            "id": sent.request_id,
            "signal": sent.signal,
            "parent": instance.id,
            "parentExecution": instance.execution_id,
            "input": sent.input,
        }
        return history.event_sent(at, sent.task, sent.entity, json.dumps(request))


def _read(state: dict[str, Any]) -> Reply:
    return Reply(
        actions=[action for batch in state["actions"] for action in batch],
        done=bool(state["isDone"]),
        output=_text(state, "output"),
        custom_status=_text(state, "customStatus"),
        error=state.get("error"),
    )


def _text(state: dict[str, Any], member: str) -> str | None:
    value = state.get(member)
    return None if value is None else json.dumps(value)


def _read_failure(failed: InvocationFailed) -> Reply:
    """The client library hides its answer in the text of what it raises.

    Anything without it did not come from the orchestrator's own code.
    """
    message, label, state = failed.message.partition(_FAILURE_LABEL)
    if label:
        reply = _read(json.loads(state))
        return replace(reply, error=reply.error or message)
    text = f"{failed.type}: {failed.message}"
    return Reply(actions=None, done=True, output=None, custom_status=None, error=text)
