"""A host that is killed at any moment loses nothing and does no step twice."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durable.host_process import HostProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KILLS = 8


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(tmp_path / "data")
    process.start()
    yield process
    if process.poll() is None:
        process.kill()


def test_orchestrations_of_every_kind_survive_kills(
    host: HostProcess, tmp_path: Path
) -> None:
    flaky = {"folder": str(tmp_path), "name": "flaky", "succeeds_at": 6}
    wanted = {
        "chain": ("Chain", 10, 18),
        "fan": ("FanOut", 300, sum(n * n for n in range(300))),
        "family": ("Family", 3, [8, 9, 10]),
        "generations": ("Generations", [20, 0], [2870, 210]),
        "persistent": ("Persistent", flaky, "flaky"),
        "listener": ("Listener", None, ['"one"', '"two"']),
    }
    for instance_id, (name, given, _) in wanted.items():
        host.begin(name, instance_id, given)
    host.begin("Waiting", "waiting", None)
    dice = random.Random(4711)
    for turn in range(KILLS):
        time.sleep(dice.uniform(0.3, 0.8))
        if turn == 2:
            event = host.request(
                "POST", "instances/listener/raiseEvent/second", '"two"'
            )
            assert event[0] == 202
        host.kill()
        host.start()
    assert (
        host.request("POST", "instances/listener/raiseEvent/first", '"one"')[0] == 202
    )
    ended = {instance_id: host.end(instance_id) for instance_id in wanted}
    assert {
        key: found["runtimeStatus"] for key, found in ended.items()
    } == dict.fromkeys(wanted, "Completed")
    assert {key: found["output"] for key, found in ended.items()} == {
        key: output for key, (_, _, output) in wanted.items()
    }
    assert host.end("waiting")["runtimeStatus"] == "Completed"
    assert host.stop() == 0


def test_a_timer_that_was_due_while_the_host_was_down_fires_at_its_start(
    host: HostProcess,
) -> None:
    host.begin("Waiting", "late", None)
    while host.status("late")["runtimeStatus"] == "Pending":
        time.sleep(0.01)
    host.kill()
    time.sleep(2.2)
    host.start()
    assert host.end("late", seconds=10)["runtimeStatus"] == "Completed"


def test_a_second_host_on_the_same_data_does_not_start(
    host: HostProcess, tmp_path: Path
) -> None:
    second = HostProcess(tmp_path / "data")
    with pytest.raises(AssertionError, match=r"is in use \(by process"):
        second.start()
    host.begin("FanOut", "fan", 3)
    assert host.end("fan")["output"] == 5


def test_the_client_inside_an_app_reaches_the_engine_over_http(
    host: HostProcess,
) -> None:
    host.begin("ClientInside", "inside", ["one"])
    ended = host.end("inside")
    assert ended["runtimeStatus"] == "Completed", ended
    started, refused, status = ended["output"]
    assert started == "one"
    assert "already exists" in refused
    assert status in {"Pending", "Running"}
    assert host.request("POST", "instances/one/terminate?reason=enough")[0] == 202
    assert host.status("one")["runtimeStatus"] == "Terminated"
    assert host.stop() == 0
    assert "Unclosed client session" not in host.log.read_text()


def test_with_several_processes_the_engine_is_in_the_one_for_jobs(
    tmp_path: Path,
) -> None:
    host = HostProcess(tmp_path / "data", workers=2)
    host.start()
    try:
        host.begin("ClientInside", "inside", ["one"])
        host.begin("Family", "family", 2)
        assert host.end("family")["output"] == [8, 9]
        assert host.end("inside")["runtimeStatus"] == "Completed"
    finally:
        assert host.stop() == 0
