"""Runs timer triggers in one process, and remembers when each was due.

The data folder keeps `timers.json`: after a restart a timer that should have fired
meanwhile fires once, at once, with `past_due` set. Timers more frequent than a minute
are not remembered, nor are those with `use_monitor=False`, as in Azure.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from azure.functions.meta import Datum

from localhost.errors import InvocationFailed, LoadError
from localhost.indexing import Function
from localhost.schedule import Interval, Schedule, parse
from localhost.worker import Invoker, trigger_datum

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS = 60.0  # the wall clock may be set while we sleep


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


@dataclass(slots=True)
class TimerRecords:
    """Last and next firing of each timer, on disk."""

    path: Path
    _entries: dict[str, dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            self._entries = {}
        except ValueError:
            logger.warning("%s is damaged; starting without it", self.path)
            self._entries = {}

    def get(self, name: str) -> Mapping[str, str]:
        """`last`, `next` and `schedule` of a timer, empty when it is new."""
        return self._entries.get(name, {})

    def put(self, name: str, entry: dict[str, str]) -> None:
        """Remember this entry; it is on disk when the call returns."""
        self._entries[name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(self._entries, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


@dataclass(slots=True)
class Timer:
    """One timer function."""

    function: Function
    expression: str
    schedule: Schedule
    monitored: bool
    run_on_startup: bool


@dataclass(slots=True)
class Timers:
    """All timers of an app.

    Attributes:
        invoker: Runs the functions.
        timers: As `find` gives them.
        records: Where firings are remembered.
        now: The clock.
    """

    invoker: Invoker
    timers: tuple[Timer, ...]
    records: TimerRecords
    now: Callable[[], datetime] = utc_now
    _tasks: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    _running: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def start(self) -> None:
        """Begin to fire."""
        for timer in self.timers:
            self._tasks.append(asyncio.create_task(self._run(timer)))

    async def stop(self, limit_seconds: float) -> None:
        """Fire no more; wait up to the limit for what runs, then cancel it."""
        for task in self._tasks:
            task.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=limit_seconds)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._tasks, *self._running, return_exceptions=True)

    async def _run(self, timer: Timer) -> None:
        due = await self._start(timer)
        while True:
            await self._sleep_until(due)
            await self._fire(timer, past_due=False)
            due = timer.schedule.next_after(max(due, self.now()))
            self._remember(timer, due)

    async def _start(self, timer: Timer) -> datetime:
        """Make up for what was missed; the time of the next firing."""
        record = self.records.get(timer.function.name) if timer.monitored else {}
        if record.get("schedule") != timer.expression:
            record = {}
        now = self.now()
        expected = record.get("next")
        past_due = expected is not None and datetime.fromisoformat(expected) < now
        if past_due or timer.run_on_startup:
            await self._fire(timer, past_due=past_due)
        elif expected is not None:
            return datetime.fromisoformat(expected)
        due = timer.schedule.next_after(self.now())
        self._remember(timer, due, fired=past_due or timer.run_on_startup)
        return due

    async def _sleep_until(self, due: datetime) -> None:
        while (left := (due - self.now()).total_seconds()) > 0:  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(min(left, _LONGEST_SLEEP_SECONDS))

    async def _fire(self, timer: Timer, *, past_due: bool) -> None:
        """Run the function; it survives a cancelled wait until `stop` gives up."""
        running = asyncio.create_task(self._invoke(timer, past_due=past_due))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        await asyncio.shield(running)

    async def _invoke(self, timer: Timer, *, past_due: bool) -> None:
        name = timer.function.name
        record = self.records.get(name)
        payload = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": {
                "Last": record.get("last", "0001-01-01T00:00:00+00:00"),
                "Next": record.get("next", self.now().isoformat()),
                "LastUpdated": record.get("last", "0001-01-01T00:00:00+00:00"),
            },
            "IsPastDue": past_due,
        }
        datum = Datum(json.dumps(payload), "json")
        try:
            await self.invoker.invoke(name, trigger_datum(timer.function, datum))
        except InvocationFailed as failure:
            logger.error("Timer %s failed\n%s", name, failure.details)  # noqa: TRY400

    def _remember(self, timer: Timer, due: datetime, *, fired: bool = True) -> None:
        if not timer.monitored:
            return
        entry = {"schedule": timer.expression, "next": due.isoformat()}
        last = self.records.get(timer.function.name).get("last")
        if fired:
            entry["last"] = self.now().isoformat()
        elif last:
            entry["last"] = last
        self.records.put(timer.function.name, entry)


def find(functions: Mapping[str, Function]) -> tuple[Timer, ...]:
    """The timers among these functions.

    Raises:
        LoadError: A schedule is not understood.
    """
    return tuple(
        _timer(function)
        for function in functions.values()
        if function.trigger.type == "timerTrigger"
    )


def _timer(function: Function) -> Timer:
    properties: Mapping[str, Any] = function.trigger.properties
    expression = properties["schedule"]
    try:
        schedule = parse(expression)
        frequent = _is_frequent(schedule)
    except LoadError as error:
        raise LoadError(f"Function {function.name}: {error}") from error
    return Timer(
        function=function,
        expression=expression,
        schedule=schedule,
        monitored=properties.get("useMonitor") is not False and not frequent,
        run_on_startup=properties.get("runOnStartup") is True,
    )


def _is_frequent(schedule: Schedule) -> bool:
    if isinstance(schedule, Interval):
        return schedule.length < timedelta(minutes=1)
    first = schedule.next_after(utc_now())
    return schedule.next_after(first) - first < timedelta(minutes=1)
