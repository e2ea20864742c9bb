"""The engine: what is due is done, with bounded concurrency, across restarts.

It schedules; the steps themselves are in `episodes`, `activities` and `entities`, the
operations of clients in `management`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localhost.durable.activities import Activities
from localhost.durable.entities import Entities
from localhost.durable.episodes import Episodes
from localhost.durable.functions import Functions
from localhost.durable.instances import Instances
from localhost.durable.lanes import Lane
from localhost.durable.management import Management
from localhost.durable.rewind import Rewinder
from localhost.durable.store import Store

_LONGEST_SLEEP_SECONDS = 30.0
"""Timers are looked at again after this time, should the clock have been set."""

_LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs at once, and how long `stop` waits for running activities."""

    activities: int = 8
    orchestrators: int = 4
    entities: int = 4
    grace_seconds: float = 5.0


def wall_clock() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Engine:
    """Runs the orchestrations of one app from one file."""

    def __init__(
        self,
        path: Path,
        functions: Functions,
        limits: Limits | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            path: The SQLite file.
            functions: The app's functions.
            limits: Concurrency.
            clock: Microseconds since 1970 UTC.
        """
        self._path = path
        self._functions = functions
        self._limits = limits or Limits()
        self._clock = clock
        self._pauses: dict[str, float] = {}
        self._paused: set[str] = set()
        self._next_due: int | None = None
        self._timer_set = asyncio.Event()

    async def start(self) -> None:
        """Open the file and go on with what was under way.

        Raises:
            HostError: The file cannot be opened, or another process has it open.
        """
        store = self._store = Store(self._path)
        instances = Instances(store, self, self._clock)
        self._episodes = Episodes(store, self._functions, instances, self, self._clock)
        rewinder = Rewinder(store, self._episodes, self, self._clock)
        self.management = Management(
            store, self._functions, instances, rewinder, self, self._clock
        )
        activities = Activities(store, self._functions, instances, self._clock)
        entities = Entities(store, self._functions, instances, self, self._clock)
        self._instance_lane = Lane(self._limits.orchestrators, self._run_episode)
        self._activity_lane = Lane(self._limits.activities, activities.run)
        self._entity_lane = Lane(self._limits.entities, entities.run)
        for number in store.activity_numbers():
            self.run_activity(number)
        for entity in store.waiting_entities():
            self.wake_entity(entity)
        self._timers = asyncio.create_task(self._watch_timers())

    async def stop(self) -> None:
        """Take no new work, wait for what runs, close the file.

        Activities that need longer than the grace period run again after a start.
        """
        self._timers.cancel()
        await asyncio.gather(self._timers, return_exceptions=True)
        grace = self._limits.grace_seconds
        await asyncio.gather(
            self._activity_lane.close(grace), self._entity_lane.close(grace)
        )
        await self._instance_lane.close(grace)
        self._store.close()

    def wake(self, instance_id: str) -> None:
        """An instance has a message.

        Every episode replays the whole history, so while more answers are about to
        come, the next episode waits for as long as the last one took, twice over:
        replay then costs a bounded share of the time however big the fan-out is.
        """
        until = self._pauses.get(instance_id, 0.0)
        loop = asyncio.get_running_loop()
        if until <= loop.time() or not self._store.has_activities(instance_id):
            self._pauses.pop(instance_id, None)
            self._instance_lane.add(instance_id)
        elif instance_id not in self._paused:
            self._paused.add(instance_id)
            loop.call_at(until, self._end_pause, instance_id)

    def _end_pause(self, instance_id: str) -> None:
        self._paused.discard(instance_id)
        self._pauses.pop(instance_id, None)
        self._instance_lane.add(instance_id)

    def run_activity(self, number: int) -> None:
        """An activity was queued."""
        self._activity_lane.add(number)

    def wake_entity(self, entity: str) -> None:
        """An entity has an operation."""
        self._entity_lane.add(entity)

    def watch(self, due: int) -> None:
        """A timer was set."""
        if self._next_due is None or due < self._next_due:
            self._next_due = due
            self._timer_set.set()

    async def _run_episode(self, instance_id: str) -> None:
        took = await self._episodes.run(instance_id)
        if took and self._store.has_activities(instance_id):
            pause = min(2 * took, _LONGEST_PAUSE_SECONDS)
            self._pauses[instance_id] = asyncio.get_running_loop().time() + pause

    async def _watch_timers(self) -> None:
        while True:
            self._timer_set.clear()
            now = self._clock()
            for instance_id in self._store.due_instances(now):
                self.wake(instance_id)
            self._next_due = self._store.next_due(now)
            wait = _LONGEST_SLEEP_SECONDS
            if self._next_due is not None:
                wait = min(wait, max(0.0, (self._next_due - self._clock()) / 1e6))
            try:
                await asyncio.wait_for(self._timer_set.wait(), wait)
            except TimeoutError:
                continue
