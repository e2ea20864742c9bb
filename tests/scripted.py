"""Runs an orchestrator without an engine: activities answer from a script.

The orchestrator is driven by the client library's own wrapper for tests. Every run is
then checked for determinism: played again from any point with the same answers, it
must ask for the same things in the same order.
"""

from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import azure.durable_functions as df
from azure.durable_functions.testing import orchestrator_generator_wrapper

Orchestrator = Callable[[df.DurableOrchestrationContext], Generator[Any, Any, Any]]
Answers = Mapping[str, Callable[[Any], Any]]
"""By name of activity: gets the payload, gives the answer or raises."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE_ID = "0123456789abcdef0123456789abcdef"
MAX_STEPS = 1000


class Failed(Exception):
    """What an activity that fails for good raises in an orchestrator."""


@dataclass
class Task:
    """Something the orchestrator waits for."""

    name: str
    settle: Callable[[], Any]

    @property
    def result(self) -> Any:
        return self.settle()


@dataclass
class Run:
    """What one generation of an orchestrator did.

    Attributes:
        asked: Activities and payloads, timers, statuses, in order.
        output: What it returned, or None.
        error: What it raised, or None.
        waits: How often it waited.
        following: The input of the next generation, or None.
    """

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    output: Any = None
    error: Exception | None = None
    following: Any = None
    waits: int = 0

    def activities(self, name: str) -> list[Any]:
        """Payloads of the calls of an activity."""
        return [asked[2] for asked in self.asked if asked[:2] == ("activity", name)]

    @property
    def statuses(self) -> list[Any]:
        return [asked[1] for asked in self.asked if asked[0] == "status"]

    @property
    def pauses(self) -> list[float]:
        """Of the timers, in seconds."""
        return [
            (asked[1] - NOW).total_seconds()
            for asked in self.asked
            if asked[0] == "timer"
        ]


def run(orchestrator: Orchestrator, checkpoint: Any, answers: Answers) -> Run:
    """One generation; checked for determinism."""
    log: list[Any] = []

    def call(name: str, payload: Any) -> Any:
        try:
            answer = answers[name](deepcopy(payload))
        except Failed as failed:
            answer = failed
        log.append(answer)
        return answer

    first = _play(orchestrator, checkpoint, call, MAX_STEPS)
    for stop in range(1, first.waits + 1):
        again = iter(deepcopy(log))
        played = _play(orchestrator, checkpoint, lambda *_, a=again: next(a), stop)
        assert played.asked == first.asked[: len(played.asked)], "not deterministic"
    return first


def generations(
    orchestrator: Orchestrator, checkpoint: Any, answers: Answers
) -> list[Run]:
    """All generations, until one does not continue as new."""
    runs: list[Run] = []
    while True:
        runs.append(run(orchestrator, checkpoint, answers))
        checkpoint = runs[-1].following
        if checkpoint is None:
            return runs
        assert len(runs) < MAX_STEPS


def _play(
    orchestrator: Orchestrator,
    checkpoint: Any,
    call: Callable[[str, Any], Any],
    steps: int,
) -> Run:
    """As far as so many waits."""
    done = Run()
    steering = orchestrator_generator_wrapper(
        orchestrator(_context(done, deepcopy(checkpoint), call))
    )
    try:
        for _ in range(steps):
            waited_for = next(steering)
            if not isinstance(waited_for, Task):
                done.output = waited_for
                break
            done.waits += 1
        else:
            assert steps < MAX_STEPS, "the orchestrator does not end"
    except Failed as error:
        done.error = error
    except RuntimeError as error:
        done.error = error
    return done


def _context(done: Run, checkpoint: Any, call: Callable[[str, Any], Any]) -> Mock:
    def activity(name: str, payload: Any = None) -> Task:
        done.asked.append(("activity", name, deepcopy(payload)))
        answer = call(name, payload)

        def settle() -> Any:
            if isinstance(answer, Failed):
                raise answer
            return deepcopy(answer)

        return Task(name, settle)

    def timer(at: datetime) -> Task:
        done.asked.append(("timer", at))
        return Task("timer", lambda: None)

    def status(value: Any) -> None:
        done.asked.append(("status", deepcopy(value)))

    def following(value: Any) -> None:
        done.asked.append(("continue", deepcopy(value)))
        done.following = deepcopy(value)

    context = Mock(spec=df.DurableOrchestrationContext)
    context.instance_id = INSTANCE_ID
    context.current_utc_datetime = NOW
    context.get_input.side_effect = lambda: checkpoint
    context.call_activity.side_effect = activity
    context.call_activity_with_retry.side_effect = lambda name, _, payload=None: (
        activity(name, payload)
    )
    context.task_all.side_effect = lambda tasks: Task(
        "all", lambda: [task.result for task in tasks]
    )
    context.create_timer.side_effect = timer
    context.set_custom_status.side_effect = status
    context.continue_as_new.side_effect = following
    return context
