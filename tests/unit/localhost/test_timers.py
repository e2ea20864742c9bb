"""Timers on a clock of their own: due, past due, remembered."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import azure.functions as func
import pytest

from localhost.errors import InvocationFailed, LoadError
from localhost.indexing import index
from localhost.timers import TimerRecords, Timers, find

START = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class Recorder:
    """Takes the calls; fails those it is told to."""

    def __init__(self, fails=False):
        self.payloads = []
        self.called = asyncio.Event()
        self.fails = fails

    async def invoke(self, name, inputs):
        self.payloads.append(json.loads(inputs["timer"].value))
        self.called.set()
        if self.fails:
            raise InvocationFailed(name, "ValueError", "no", "traceback")


def timers_of(schedule, **options):
    app = func.FunctionApp()

    @app.timer_trigger(schedule=schedule, arg_name="timer", **options)
    async def Tick(timer: func.TimerRequest) -> None:
        return

    return find({function.name: function for function in index(app)})


async def run(tmp_path, timers, now, recorder, seconds=0.05):
    clock = Timers(recorder, timers, TimerRecords(tmp_path / "t.json"), lambda: now)
    clock.start()
    await asyncio.sleep(seconds)
    await clock.stop(1)
    return recorder.payloads


async def test_a_new_timer_waits_for_its_time(tmp_path):
    assert await run(tmp_path, timers_of("0 0 * * * *"), START, Recorder()) == []
    record = TimerRecords(tmp_path / "t.json").get("Tick")
    assert record == {
        "schedule": "0 0 * * * *",
        "next": "2026-11-22T13:00:00+00:00",
    }


async def test_a_missed_firing_is_made_up_for_once_as_past_due(tmp_path):
    timers = timers_of("0 0 * * * *")
    await run(tmp_path, timers, START, Recorder())
    later = START + timedelta(hours=5, minutes=1)
    [payload] = await run(tmp_path, timers, later, Recorder())
    assert payload["IsPastDue"] is True
    assert payload["ScheduleStatus"]["Next"] == "2026-11-22T13:00:00+00:00"
    assert await run(tmp_path, timers, later, Recorder()) == []
    assert TimerRecords(tmp_path / "t.json").get("Tick")["last"] == later.isoformat()


async def test_a_changed_schedule_forgets_what_was_missed(tmp_path):
    await run(tmp_path, timers_of("0 0 * * * *"), START, Recorder())
    later = START + timedelta(days=1)
    assert await run(tmp_path, timers_of("0 30 * * * *"), later, Recorder()) == []


async def test_run_on_startup_fires_at_every_start(tmp_path):
    timers = timers_of("0 0 * * * *", run_on_startup=True)
    for _ in range(2):
        [payload] = await run(tmp_path, timers, START, Recorder())
        assert payload["IsPastDue"] is False


async def test_an_unmonitored_timer_is_not_remembered(tmp_path):
    await run(tmp_path, timers_of("0 0 * * * *", use_monitor=False), START, Recorder())
    await run(tmp_path, timers_of("*/10 * * * * *"), START, Recorder())
    await run(tmp_path, timers_of("00:00:10"), START, Recorder())
    assert not (tmp_path / "t.json").exists()


async def test_a_timer_that_fails_fires_again(tmp_path, caplog):
    began = asyncio.get_running_loop().time()

    def clock():  # a hundred seconds of the clock are one of ours
        passed = asyncio.get_running_loop().time() - began
        return START + timedelta(seconds=passed * 100)

    recorder = Recorder(fails=True)
    records = TimerRecords(tmp_path / "t.json")
    timers = Timers(recorder, timers_of("00:00:01"), records, clock)
    timers.start()
    for _ in range(2):
        await asyncio.wait_for(recorder.called.wait(), 5)
        recorder.called.clear()
    await timers.stop(1)
    assert "Timer Tick failed" in caplog.text


async def test_stopping_waits_for_a_running_function(tmp_path):
    ended = []

    class Slow:
        async def invoke(self, name, inputs):
            await asyncio.sleep(0.2)
            ended.append(name)

    timers = timers_of("0 0 * * * *", run_on_startup=True)
    await run(tmp_path, timers, START, type("R", (Slow,), {"payloads": []})())
    assert ended == ["Tick"]


def test_damaged_records_are_left_behind(tmp_path, caplog):
    (tmp_path / "t.json").write_text("{")
    assert TimerRecords(tmp_path / "t.json").get("Tick") == {}
    assert "damaged" in caplog.text


def test_a_wrong_schedule_names_its_function():
    with pytest.raises(LoadError, match="Function Tick: schedule 'never'"):
        timers_of("never")
