"""When a timer fires: NCRONTAB expressions and constant intervals. Pure; UTC only.

An NCRONTAB expression is `{second} {minute} {hour} {day} {month} {day of week}`, or
five fields without the seconds. A day has to fit both day fields (unlike in cron).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol

from localhost.errors import LoadError
from localhost.indexing import seconds

_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_DAYS = "sunmontuewedthufrisat"
_LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_FIELDS = ("second", "minute", "hour", "day", "month", "day of week")
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")
_SEARCHED_DAYS = 366 * 12  # 29 February on a given weekday can be 12 years away


class Schedule(Protocol):
    """Something that knows the time of its next firing."""

    def next_after(self, moment: datetime) -> datetime:
        """The first firing later than `moment`; both in UTC."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Fires again and again, always the same time after the last firing."""

    length: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """See `Schedule`."""
        return moment + self.length


@dataclass(frozen=True, slots=True)
class Crontab:
    """A parsed NCRONTAB expression; each field is the ascending values it allows."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    def next_after(self, moment: datetime) -> datetime:
        """See `Schedule`.

        Raises:
            LoadError: No such day comes within twelve years.
        """
        start = moment.replace(microsecond=0) + timedelta(seconds=1)
        day, earliest = start.date(), start.time()
        for _ in range(_SEARCHED_DAYS):
            if self._fits(day):
                found = self._time_from(earliest)
                if found is not None:
                    return datetime.combine(day, found, moment.tzinfo)
            day += timedelta(days=1)
            earliest = time()
        raise LoadError("the schedule never fires")

    def _fits(self, day: date) -> bool:
        return (
            day.month in self.months
            and day.day in self.days
            and day.isoweekday() % 7 in self.weekdays
        )

    def _time_from(self, earliest: time) -> time | None:
        """First time of day not before `earliest`, None when the day is over."""
        for hour in self.hours:
            if hour < earliest.hour:
                continue
            for minute in self.minutes:
                if (hour, minute) < (earliest.hour, earliest.minute):
                    continue
                same = (hour, minute) == (earliest.hour, earliest.minute)
                least = earliest.second if same else 0
                for second in self.seconds:
                    if second >= least:
                        return time(hour, minute, second)
        return None


def parse(expression: str) -> Schedule:
    """The schedule of a timer trigger: NCRONTAB or a time span such as `00:05:00`.

    Raises:
        LoadError: It is neither.
    """
    fields = expression.split()
    if len(fields) == 1 and ":" in expression:
        length = timedelta(seconds=seconds(fields[0]))
        if not length:
            raise LoadError(f"schedule {expression!r} has no length")
        return Interval(length)
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise LoadError(f"schedule {expression!r} must have 5 or 6 fields")
    try:
        crontab = Crontab(*(_field(text, index) for index, text in enumerate(fields)))
    except ValueError as error:
        raise LoadError(f"schedule {expression!r}: {error}") from error
    return crontab


def _field(text: str, index: int) -> tuple[int, ...]:
    allowed: set[int] = set()
    for part in text.lower().split(","):
        allowed.update(_values(part, index))
    return tuple(sorted(allowed))


def _values(part: str, index: int) -> Sequence[int]:
    match = _PART.fullmatch(part)
    low, high = _LIMITS[index]
    if match is None:
        raise ValueError(f"{part!r} is no {_FIELDS[index]}")
    star, first, last, step = match.groups()
    if not star:
        low = _number(first, index)
        if last:
            high = _number(last, index)
        elif not step:
            high = low
    if step == "0" or low > high:
        raise ValueError(f"{part!r} is no {_FIELDS[index]}")
    return range(low, high + 1, int(step or 1))


def _number(text: str, index: int) -> int:
    names = {4: _MONTHS, 5: _DAYS}.get(index, "")
    low, high = _LIMITS[index]
    place = -1 if text.isdigit() else names.find(text[:3])
    value = int(text) if place % 3 else place // 3 + low
    if not low <= value <= high:
        raise ValueError(f"{text} is no {_FIELDS[index]}")
    return value
