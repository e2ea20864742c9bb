"""Rewind: run a failed instance again from the tasks that failed for good.

Failed sub-orchestrations that can still be replayed are rewound with their parent, in
one transaction; others are started anew. Retries begin at their last attempt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from localhost.durable import history
from localhost.durable.episodes import Episodes
from localhost.durable.history import EventKind
from localhost.durable.instances import NOW, Agenda
from localhost.durable.replay import NonDeterministic, UnsupportedAction
from localhost.durable.schema import Instance, Status
from localhost.durable.store import Store

_ANSWERS = (EventKind.TASK_FAILED, EventKind.CHILD_FAILED)
_BEGINNINGS = (
    EventKind.TASK_SCHEDULED,
    EventKind.CHILD_CREATED,
    EventKind.TIMER_CREATED,
    EventKind.TIMER_FIRED,
)


class CannotRewind(Exception):
    """The instance cannot be rewound; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What rewinding an instance takes.

    `failed` are the tasks whose failures are forgotten, `children` the plans of those
    of them that are sub-orchestrations and are rewound too.
    """

    instance: Instance
    failed: frozenset[int]
    children: Mapping[int, "Plan"]


class Rewinder:
    """Rewinds instances."""

    def __init__(
        self,
        store: Store,
        episodes: Episodes,
        agenda: Agenda,
        clock: Callable[[], int],
    ) -> None:
        """Work on `store`; `clock` gives microseconds since 1970 UTC."""
        self._store = store
        self._episodes = episodes
        self._agenda = agenda
        self._clock = clock

    async def rewind(self, instance: Instance, reason: str) -> None:
        """Make a failed instance and its failed children run again.

        Raises:
            CannotRewind: It has not failed, its orchestrator can no longer be
                replayed, or something else changed it meanwhile.
        """
        plan = await self._plan(instance)
        with self._store.transaction():
            self._carry_out(plan, reason)

    async def _plan(self, instance: Instance) -> Plan:
        if instance.status is not Status.FAILED:
            raise CannotRewind("Only failed instances can be rewound.")
        episode = self._episodes.episode(instance, self._clock(), ())
        reply = await self._episodes.call(episode)
        try:
            failed = self._episodes.replay(episode, reply).final_failures
        except (NonDeterministic, UnsupportedAction) as error:
            raise CannotRewind(str(error)) from error
        children = {}
        for task in failed:
            child = self._store.child(instance.id, instance.execution_id, task)
            if child is None:
                continue
            try:
                children[task] = await self._plan(child)
            except CannotRewind:
                continue
        return Plan(instance, failed, children)

    def _carry_out(self, plan: Plan, reason: str) -> None:
        instance, now = plan.instance, self._clock()
        if self._store.instance(instance.id) != instance:
            raise CannotRewind("The instance has changed meanwhile.")
        self._forget_failures(plan)
        self._store.put_instance(
            replace(instance, status=Status.RUNNING, output=None, updated=now)
        )
        event = history.rewound(now, reason)
        self._store.send(instance.id, instance.execution_id, NOW, event)
        self._agenda.wake(instance.id)
        for child in plan.children.values():
            self._carry_out(child, reason)

    def _forget_failures(self, plan: Plan) -> None:
        """Take failures out of the history; the tasks become new work again.

        Children that are rewound stay created, so only their answer goes.
        """
        again = plan.failed - plan.children.keys()
        for kind in _ANSWERS:
            self._store.remove_events(plan.instance.id, plan.failed, kind)
        for kind in _BEGINNINGS:
            self._store.remove_events(plan.instance.id, again, kind)
        ended = EventKind.EXECUTION_COMPLETED
        self._store.remove_events(plan.instance.id, (-1,), ended)
