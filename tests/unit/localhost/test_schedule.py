"""When timers fire."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhost.errors import LoadError
from localhost.schedule import Interval, parse

START = datetime(2026, 11, 22, 11, 45, 30, 250_000, tzinfo=UTC)  # a Sunday


def nexts(expression, count=3, start=START):
    schedule = parse(expression)
    found = []
    for _ in range(count):
        start = schedule.next_after(start)
        found.append(start.strftime("%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * * *", ["11-22 11:45:31", "11-22 11:45:32", "11-22 11:45:33"]),
        ("0 */5 * * * *", ["11-22 11:50:00", "11-22 11:55:00", "11-22 12:00:00"]),
        ("*/5 * * * *", ["11-22 11:50:00", "11-22 11:55:00", "11-22 12:00:00"]),
        ("0 0 */3 * * *", ["11-22 12:00:00", "11-22 15:00:00", "11-22 18:00:00"]),
        ("0 30 9 * * 1-5", ["11-23 09:30:00", "11-24 09:30:00", "11-25 09:30:00"]),
        ("0 30 9 * Jan Mon", ["01-04 09:30:00", "01-11 09:30:00", "01-18 09:30:00"]),
        ("0 0 0 1 * *", ["12-01 00:00:00", "01-01 00:00:00", "02-01 00:00:00"]),
        ("0 0 0 29 2 *", ["02-29 00:00:00", "02-29 00:00:00", "02-29 00:00:00"]),
        ("10,50 45 11 * * *", ["11-22 11:45:50", "11-23 11:45:10", "11-23 11:45:50"]),
        ("0 10/20 12 * * *", ["11-22 12:10:00", "11-22 12:30:00", "11-22 12:50:00"]),
        ("0 0 0 13 * 5", ["08-13 00:00:00", "10-13 00:00:00", "04-13 00:00:00"]),
    ],
)
def test_ncrontab_expressions_fire_when_azure_fires_them(expression, expected):
    assert nexts(expression) == expected


def test_a_time_span_fires_at_constant_distance():
    assert parse("01:30:00") == Interval(timedelta(minutes=90))
    assert parse("2.00:00:00").next_after(START) == START + timedelta(days=2)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "60 * * * * *",
        "* * * 0 * *",
        "5-1 * * * * *",
        "*/0 * * * * *",
        "0 0 0 * * 7",
        "x * * * * *",
        "00:00:00",
        "? * * * * *",
        "1.5 * * * * *",
    ],
)
def test_a_wrong_expression_is_a_load_error(expression):
    with pytest.raises(LoadError):
        parse(expression)


def test_a_day_that_never_comes_is_a_load_error():
    with pytest.raises(LoadError, match="never"):
        parse("0 0 0 30 2 *").next_after(START)


@given(
    st.tuples(*[st.sampled_from(["*", "*/7", "0", "5"])] * 3),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
)
def test_the_next_firing_is_the_first_second_that_fits(fields, moment):
    moment = moment.replace(tzinfo=UTC)
    found = parse(" ".join([*fields, "*", "*", "*"])).next_after(moment)

    def fits(text, value):
        return text == "*" or (value % 7 == 0 if text == "*/7" else value == int(text))

    def fires(time):
        parts = (time.second, time.minute, time.hour)
        return all(map(fits, fields, parts))

    assert found > moment
    assert fires(found)
    step = found - timedelta(seconds=1)
    for _ in range(2000):
        if step <= moment:
            break
        assert not fires(step)
        step -= timedelta(seconds=1)
