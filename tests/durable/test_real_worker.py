"""Azure's own worker library and our host see the same app and give the same results."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests/apps"
SETTINGS = {"TICK_SCHEDULE": "0 0 3 * * *"}
SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from durable.real_worker import datum, plain
from localhost.indexing import load
from localhost.worker import Worker

asked = json.load(sys.stdin)
worker = Worker(load(Path(asked["app"])))
functions = {
    name: [
        {"name": b.name, "type": b.type, "direction": b.direction, **b.properties}
        for b in function.bindings
    ]
    for name, function in worker.functions.items()
}

async def call():
    return [
        plain(await worker.invoke(name, {i[0]: datum(*i[1:]) for i in inputs}))
        for name, inputs in asked["calls"]
    ]

print(json.dumps({"functions": functions, "results": asyncio.run(call())}))
"""


def python_with_worker():
    """A Python that has the worker library: this one, or the one in .venv313."""
    if importlib.util.find_spec("azure_functions_runtime"):
        return sys.executable
    other = ROOT / ".venv313/bin/python"
    if not other.exists():
        pytest.skip("azure-functions-runtime needs Python 3.13; no .venv313 here")
    return str(other)


def run(command, request):
    ended = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **SETTINGS, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def both(app, calls=()):
    """What the worker library and our host say about an app and some calls."""
    request = {"app": str(APPS / app), "calls": list(calls)}
    script = ROOT / "tests/durable/real_worker.py"
    theirs = run([python_with_worker(), str(script)], request)
    ours = run([sys.executable, "-c", SCRIPT], request)
    return theirs, ours


def bindings(functions):
    """Function name to its bindings, without what the host resolves or ignores."""
    return {
        name: sorted(
            (
                binding["name"],
                binding["type"],
                binding["direction"],
                binding.get("route"),
                tuple(binding.get("methods") or ()),
                binding.get("authLevel"),
            )
            for binding in listed
        )
        for name, listed in functions.items()
    }


def http(method="GET", body="", **params):
    return {
        "method": ["string", method],
        "url": ["string", "http://localhost/api/show"],
        "headers": {"x-many": ["string", "1,2"]},
        "query": {"a": ["string", "1,2"]},
        "params": {name: ["string", value] for name, value in params.items()},
        "body": ["bytes", body],
    }


@pytest.mark.parametrize("app", ["classic", "durable", "streaming"])
def test_both_find_the_same_functions_with_the_same_bindings(app):
    theirs, ours = both(app)
    assert bindings(ours["functions"]) == bindings(theirs["functions"])


def test_classic_http_functions_give_the_same_data_in_both():
    calls = [
        ["Show", [["req", "http", http("POST", "body", id="7")]]],
        ["Text", [["req", "http", http()]]],
        ["Cookies", [["req", "http", http()]]],
        ["Named", [["req", "http", http()]]],
    ]
    theirs, ours = both("classic", calls)
    assert [ok for ok, _ in theirs["results"]] == [True] * len(calls)
    assert ours["results"] == [result for _, result in theirs["results"]]


def test_orchestrators_decide_the_same_in_both():
    moment = "2026-11-22T09:35:58.624454Z"
    event = {"EventId": -1, "IsPlayed": False, "Timestamp": moment}
    started = {"Name": "Double", "Version": "", "Input": '"2"'}
    context = {
        "input": "2",
        "instanceId": "x",
        "isReplaying": False,
        "parentInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
        "history": [{**event, "EventType": 12}, {**event, "EventType": 0, **started}],
    }
    calls = [["Double", [["context", "string", json.dumps(context)]]]]
    theirs, ours = both("durable", calls)
    assert [ok for ok, _ in theirs["results"]] == [True]
    [[kind, text]] = ours["results"]
    assert [kind, text] == theirs["results"][0][1]
    assert "Twice" in text
