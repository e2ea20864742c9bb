"""Several processes, restarts, draining and timers of the host."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest


def process_id(port):
    """The process that answers a new connection, and the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/process")
    return json.loads(connection.getresponse().read())["pid"], connection


def process_ids(running, wanted, seconds=30.0):
    found = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, connection = process_id(running.port)
        connection.close()
        found.add(pid)
        if len(found) >= wanted:
            break
    return found


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def slow_request(running, entered, seconds, answers):
    """A thread that makes a request of so many seconds, once the function runs."""

    def get():
        url = f"{running.url}/slow?seconds={seconds}"
        try:
            answers.append(httpx.get(url, timeout=120))
        except httpx.HTTPError as error:
            answers.append(error)

    entered.unlink(missing_ok=True)
    thread = threading.Thread(target=get)
    thread.start()
    wait_until(entered.exists)
    return thread


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_requests_are_answered_by_children_of_the_parent(host):
    running = host("streaming", "--workers", "2")
    found = process_ids(running, 2)
    assert running.process.pid not in found
    assert len(found) == 2
    assert running.stop() == 0
    assert not any(exists(pid) for pid in found)


def test_connections_that_stay_are_shared_evenly(host):
    running = host("streaming", "--workers", "2")
    fewest = 0
    for _ in range(3):  # half and half when the machine has nothing else to do
        answers = [process_id(running.port) for _ in range(30)]
        counts = Counter(pid for pid, _ in answers)
        for _, connection in answers:
            connection.close()
        assert len(counts) <= 2
        fewest = max(fewest, min(counts.values()) if len(counts) == 2 else 0)
        if fewest >= 9:
            break
    assert fewest >= 9


def test_a_stream_ends_when_its_client_leaves(host, tmp_path):
    closed = tmp_path / "closed"
    running = host("streaming", "--workers", "1", FIRED=str(closed))
    with httpx.stream("GET", f"{running.url}/drip") as answer:
        drops = answer.iter_bytes()  # the stream ends when nobody holds it any more
        assert next(drops).startswith(b"drop")
        assert not closed.exists()
    wait_until(closed.exists)
    assert "Traceback" not in running.log()


def test_a_dead_worker_is_replaced_and_no_later_request_fails(host):
    running = host("streaming", "--workers", "2")
    before = process_ids(running, 2)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{running.url}/die", timeout=60)
    for _ in range(20):
        assert httpx.get(f"{running.url}/hello", timeout=60).status_code == 200
    wait_until(lambda: len(process_ids(running, 2) - before) == 1)
    assert "starting another" in running.log()


def test_sigterm_lets_a_running_request_finish(host, tmp_path):
    entered = tmp_path / "entered"
    for workers in ("1", "2"):
        running = host("streaming", "--workers", workers, ENTERED=str(entered))
        answers = []
        thread = slow_request(running, entered, 1.5, answers)
        assert running.stop() == 0
        thread.join()
        assert answers[0].text == "Slow"


def test_a_request_that_outlasts_the_drain_time_is_cut(host, tmp_path):
    entered, answers = tmp_path / "entered", []
    options = ("--workers", "1", "--drain-seconds", "1")
    running = host("streaming", *options, ENTERED=str(entered))
    thread = slow_request(running, entered, 90, answers)
    began = time.monotonic()
    assert running.stop() == 0
    thread.join()
    assert time.monotonic() - began < 40
    assert getattr(answers[0], "status_code", 500) == 500


def test_a_second_signal_ends_at_once(host, tmp_path):
    entered = tmp_path / "entered"
    for workers in ("1", "2"):
        running = host("streaming", "--workers", workers, ENTERED=str(entered))
        answers = []
        thread = slow_request(running, entered, 90, answers)
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert running.process.poll() is None
        assert interrupted(running.process) == 130
        thread.join()


def interrupted(process):
    """The exit code after a second SIGINT.

    Two that come before a busy process looks are one to it: then a third is due.
    """
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(5)
    raise AssertionError("it does not end")


def test_children_end_when_the_parent_is_killed(host):
    running = host("streaming", "--workers", "2")
    found = process_ids(running, 2)
    running.kill()
    wait_until(lambda: not any(exists(pid) for pid in found))


def test_a_timer_fires_in_one_process_only(host, tmp_path):
    fired = tmp_path / "fired"
    running = host(
        "streaming",
        "--workers",
        "2",
        FIRED=str(fired),
        TICK_SCHEDULE="* * * * * *",
    )
    began = time.monotonic()
    wait_until(lambda: fired.exists() and len(fired.read_text().splitlines()) >= 2)
    running.stop()
    lines = fired.read_text().splitlines()
    assert len(lines) <= time.monotonic() - began + 3  # it may have begun before us
    assert len({line.split()[0] for line in lines}) == 1
    assert {line.split()[1] for line in lines} == {"False"}


def test_a_timer_that_was_due_while_the_host_was_down_fires_as_past_due(host, tmp_path):
    fired = tmp_path / "fired"
    later = (datetime.now(UTC).minute + 30) % 60
    settings = {"FIRED": str(fired), "TICK_SCHEDULE": f"0 {later} * * * *"}
    data = tmp_path / "data"
    first = host("streaming", "--workers", "1", data=data, **settings)
    first.stop()
    assert not fired.exists()
    records = data / "host/timers.json"
    text, count = re.subn(r'"next": "\d{4}', '"next": "2020', records.read_text())
    assert count == 1
    records.write_text(text)
    second = host("streaming", "--workers", "1", data=data, **settings)
    wait_until(fired.exists)
    second.stop()
    third = host("streaming", "--workers", "1", data=data, **settings)
    time.sleep(0.5)
    third.stop()
    assert [line.split()[1] for line in fired.read_text().splitlines()] == ["True"]
