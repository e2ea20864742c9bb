"""Durable Functions through the whole host, in one process and in several."""

import time

import httpx
import pytest


def finished(url):
    deadline = time.monotonic() + 20
    while True:
        status = httpx.get(url, timeout=10).json()
        if status["runtimeStatus"] in {"Completed", "Failed", "Terminated"}:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_orchestration_started_by_a_request_runs_in_the_jobs_process(host, workers):
    running = host("durable", "--workers", workers)
    started = httpx.post(f"{running.url}/start/4", timeout=10)
    assert started.status_code == 202
    status = finished(f"{running.url}/status/{started.json()['id']}")
    assert status["runtimeStatus"] == "Completed"
    assert status["output"]["sum"] == 12
    answering = httpx.get(f"{running.url}/process").json()["pid"]
    assert (status["output"]["pid"] == answering) == (workers == "1")
    assert running.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_status_link_works_from_outside_and_needs_its_key(host, workers):
    running = host("durable", "--workers", workers)
    links = httpx.post(f"{running.url}/start/2", timeout=10).json()["links"]
    link = links["statusQueryGetUri"]
    assert link.startswith(f"{running.url}/runtime/webhooks/durabletask/instances/")
    assert finished(link)["output"]["sum"] == 2
    assert httpx.get(link.partition("?")[0]).status_code == 401


def test_an_operation_is_still_known_after_the_host_was_killed(host, tmp_path):
    data = tmp_path / "kept"
    first = host("durable", "--workers", "2", data=data)
    operation_id = httpx.post(f"{first.url}/start/3", timeout=10).json()["id"]
    first.kill()
    second = host("durable", "--workers", "1", data=data)
    assert finished(f"{second.url}/status/{operation_id}")["output"]["sum"] == 6
