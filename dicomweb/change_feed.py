"""The change feed: what its readers may ask for and how its entries look.

Version 1 is read by sequence, version 2 by time. A Microsoft extension of DICOMweb; no
part of the standard.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from dicomweb.errors import InvalidRequest, quoted
from dicomweb.parameters import Pairs, first_values, flag, whole_number

MAX_SEQUENCE = 2**63 - 1


class Action(Enum):
    """What happened to an instance."""

    CREATE = "Create"
    UPDATE = "Update"
    DELETE = "Delete"


class State(Enum):
    """What has become of the version of the instance that the entry is about."""

    CURRENT = "Current"
    REPLACED = "Replaced"
    DELETED = "Deleted"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event.

    Attributes:
        sequence: Counted up from 1.
        timestamp: UTC.
        state: Now, not then.
        metadata: DICOM JSON of the instance as it is now, None where it is not asked
            for or the instance is gone.
    """

    sequence: int
    partition_name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    action: Action
    timestamp: datetime
    state: State
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SequenceWindow:
    """Entries whose sequence is over `offset` and at most `offset + limit`."""

    offset: int
    limit: int
    include_metadata: bool


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Entries with start <= timestamp < end, the first `offset` left out.

    Attributes:
        start: UTC; None is the beginning.
        end: UTC; None is the end.
    """

    start: datetime | None
    end: datetime | None
    offset: int
    limit: int
    include_metadata: bool


def parse_window(pairs: Pairs, *, version: int) -> SequenceWindow | TimeWindow:
    """What a request for the feed asks for.

    Args:
        pairs: Query parameters in order, decoded; unknown ones are ignored.
        version: Of the API, 1 or 2.

    Raises:
        InvalidRequest: A parameter is malformed or out of range.
    """
    values = first_values(pairs)
    offset = whole_number(values, "Offset", default=0, low=0, high=MAX_SEQUENCE)
    include = flag(values, "IncludeMetadata", default=True)
    if version == 1:
        limit = whole_number(values, "Limit", default=10, low=1, high=100)
        return SequenceWindow(offset, limit, include)
    limit = whole_number(values, "Limit", default=100, low=1, high=200)
    start, end = (
        parse_instant(values[name]) if name in values else None
        for name in ("starttime", "endtime")
    )
    if start is not None and end is not None and end <= start:
        raise InvalidRequest(
            f"The start time {quoted(start.isoformat())} must occur strictly before"
            f" the end time {quoted(end.isoformat())}.",
            code="InvalidParameter",
        )
    return TimeWindow(start, end, offset, limit, include)


def parse_include_metadata(pairs: Pairs) -> bool:
    """Whether the latest entry is asked for with metadata.

    Raises:
        InvalidRequest: The parameter is neither true nor false.
    """
    return flag(first_values(pairs), "IncludeMetadata", default=True)


_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)"
    r"(?:\.([0-9]{1,9}))?)?\s*(Z|[+ -]?[0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)


def parse_instant(text: str) -> datetime:
    """The instant in UTC, rounded up to microseconds.

    A `+` that came unescaped, and so as a blank, is understood.

    Raises:
        InvalidRequest: It is no ISO 8601 date and time, or has no time zone.
    """
    match = _INSTANT.fullmatch(text.strip().upper())
    unreadable = InvalidRequest(
        f"Unable to parse value {quoted(text)} as a date and time.",
        code="InvalidParameter",
    )
    if match is None:
        raise unreadable
    day, time, fraction, zone = match.groups()
    if zone is None:
        raise InvalidRequest(
            "Date and time value must specify a time zone.", code="InvalidParameter"
        )
    if zone != "Z" and zone[0] not in "+-":
        zone = f"+{zone.strip()}"
    try:
        instant = datetime.fromisoformat(f"{day}T{time or '00:00:00'}{zone}")
    except ValueError:
        raise unreadable from None
    nanoseconds = int((fraction or "0").ljust(9, "0"))
    fraction_of_second = timedelta(microseconds=-(-nanoseconds // 1000))
    last = datetime.max.replace(tzinfo=instant.tzinfo)
    # .NET's DateTimeOffset.MaxValue has seven digits of nines.
    return _to_utc(min(instant, last - fraction_of_second) + fraction_of_second)


_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


def _to_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return _FIRST if instant.year == 1 else _LAST


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """The entry as a JSON object; `metadata` only where there are any."""
    members: dict[str, Any] = {
        "sequence": entry.sequence,
        "partitionName": entry.partition_name,
        "studyInstanceUid": entry.study_instance_uid,
        "seriesInstanceUid": entry.series_instance_uid,
        "sopInstanceUid": entry.sop_instance_uid,
        "action": entry.action.value,
        "timestamp": entry.timestamp.isoformat(),
        "state": entry.state.value,
    }
    if entry.metadata is not None:
        members["metadata"] = entry.metadata
    return members
