"""Several processes, restarts, draining and timers of the host."""

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest


def process_id(port):
    """The process that answers a new connection, and the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/process")
    return json.loads(connection.getresponse().read())["pid"], connection


def process_ids(running, wanted, tries=50):
    found = set()
    for _ in range(tries):
        pid, connection = process_id(running.port)
        connection.close()
        found.add(pid)
        if len(found) >= wanted:
            break
    return found


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def get_later(url, answers):
    def get():
        try:
            answers.append(httpx.get(url, timeout=20))
        except httpx.HTTPError as error:
            answers.append(error)

    thread = threading.Thread(target=get)
    thread.start()
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
    answers = [process_id(running.port) for _ in range(10)]
    counts = Counter(pid for pid, _ in answers)
    for _, connection in answers:
        connection.close()
    assert len(counts) == 2
    assert min(counts.values()) >= 3  # 5 when the machine has nothing else to do


def test_a_stream_ends_when_its_client_leaves(host, tmp_path):
    closed = tmp_path / "closed"
    running = host("streaming", "--workers", "1", FIRED=str(closed))
    with httpx.stream("GET", f"{running.url}/drip") as answer:
        assert next(answer.iter_bytes()).startswith(b"drop")
        assert not closed.exists()
    wait_until(closed.exists)
    assert "Traceback" not in running.log()


def test_a_dead_worker_is_replaced_and_no_later_request_fails(host):
    running = host("streaming", "--workers", "2")
    before = process_ids(running, 2)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{running.url}/die")
    for _ in range(20):
        assert httpx.get(f"{running.url}/hello", timeout=10).status_code == 200
    wait_until(lambda: len(process_ids(running, 2) - before) == 1)
    assert "starting another" in running.log()


def test_sigterm_lets_a_running_request_finish(host):
    for workers in ("1", "2"):
        running = host("streaming", "--workers", workers)
        answers = []
        thread = get_later(f"{running.url}/slow?seconds=1.5", answers)
        time.sleep(0.7)
        assert running.stop() == 0
        thread.join()
        assert answers[0].text == "Slow"


def test_a_request_that_outlasts_the_drain_time_is_cut(host):
    running = host("streaming", "--workers", "1", "--drain-seconds", "1")
    answers = []
    thread = get_later(f"{running.url}/slow?seconds=4.5", answers)
    time.sleep(0.5)
    began = time.monotonic()
    assert running.stop() == 0
    thread.join()
    assert time.monotonic() - began < 3
    assert getattr(answers[0], "status_code", 500) == 500


def test_a_second_signal_ends_at_once(host):
    for workers in ("1", "2"):
        running = host("streaming", "--workers", workers)
        answers = []
        thread = get_later(f"{running.url}/slow?seconds=4.5", answers)
        time.sleep(0.5)
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(2) == 130
        thread.join()


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
    time.sleep(2.5)
    running.stop()
    lines = fired.read_text().splitlines()
    assert 2 <= len(lines) <= 4
    assert len({line.split()[0] for line in lines}) == 1
    assert {line.split()[1] for line in lines} == {"False"}


def test_a_timer_that_was_due_while_the_host_was_down_fires_as_past_due(host, tmp_path):
    fired = tmp_path / "fired"
    now = datetime.now(UTC)
    later = now.minute + 2 if now.minute < 57 else 1
    settings = {"FIRED": str(fired), "TICK_SCHEDULE": f"0 {later} * * * *"}
    data = tmp_path / "data"
    first = host("streaming", "--workers", "1", data=data, **settings)
    first.stop()
    assert not fired.exists()
    records = data / "host/timers.json"
    text = records.read_text()
    year = str(now.year)
    assert year in text
    records.write_text(text.replace(f'"next": "{year}', '"next": "2020'))
    second = host("streaming", "--workers", "1", data=data, **settings)
    wait_until(fired.exists)
    second.stop()
    third = host("streaming", "--workers", "1", data=data, **settings)
    time.sleep(0.5)
    third.stop()
    assert [line.split()[1] for line in fired.read_text().splitlines()] == ["True"]
