"""The one change to the client library: it must still be needed, and be invisible."""

import importlib
import inspect
from datetime import UTC, datetime, timedelta, timezone

import pytest
from dateutil.parser import parse as dateutil_parse

from orchestrations import fast_replay

EVENT_MODULE = importlib.import_module(
    "azure.durable_functions.models.history.HistoryEvent"
)


def test_the_client_library_still_parses_every_event_with_dateutil() -> None:
    """When this fails, look whether `fast_replay` can go."""
    source = inspect.getsource(EVENT_MODULE)
    assert "from dateutil.parser import parse as dt_parse" in source
    assert "self._timestamp: datetime.datetime = dt_parse(Timestamp)" in source


def test_events_have_the_same_time_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EVENT_MODULE, "dt_parse", dateutil_parse)
    text = "2026-11-22T09:35:58.6244541Z"
    slow = EVENT_MODULE.HistoryEvent(12, -1, True, text).timestamp
    fast_replay.apply()
    assert EVENT_MODULE.dt_parse is not dateutil_parse
    fast = EVENT_MODULE.HistoryEvent(12, -1, True, text).timestamp
    assert fast == slow == datetime(2026, 11, 22, 9, 35, 58, 624454, tzinfo=UTC)
    assert str(fast) == str(slow)


def test_applying_twice_changes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EVENT_MODULE, "dt_parse", dateutil_parse)
    fast_replay.apply()
    once = EVENT_MODULE.dt_parse
    fast_replay.apply()
    assert EVENT_MODULE.dt_parse is once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T09:35:58Z", datetime(2026, 11, 22, 9, 35, 58, tzinfo=UTC)),
        (
            "2026-11-22T09:35:58.5+02:00",
            datetime(
                2026, 11, 22, 9, 35, 58, 500000, tzinfo=timezone(timedelta(hours=2))
            ),
        ),
        ("22 November 2026 09:35", datetime(2026, 11, 22, 9, 35)),
    ],
)
def test_other_spellings_are_read_too(text: str, expected: datetime) -> None:
    assert fast_replay.parser(dateutil_parse)(text) == expected
