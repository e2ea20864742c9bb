"""Core Tools would serve the app as it is: host.json, functions, routes and their order.

Where `func` is not to be had, Azure's own worker library indexes the app in its place.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from blackbox.dev_copies import copy_to
from durable.test_real_worker import ROOT, SCRIPT, bindings, python_with_worker, run
from emulators.processes import AZURITE, free_port

from functions.routes import http_functions
from orchestrations import registry

HOST = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """What the worker library and our host find in the app itself."""
    os.environ["DICOM_DATA"] = str(tmp_path_factory.mktemp("data"))
    request = {"app": str(ROOT), "calls": []}
    script = ROOT / "tests/durable/real_worker.py"
    theirs = run([python_with_worker(), str(script)], request)["functions"]
    ours = run([sys.executable, "-c", SCRIPT], request)["functions"]
    del os.environ["DICOM_DATA"]
    return theirs, ours


def triggers(functions, kind):
    return {
        name: binding
        for name, listed in functions.items()
        for binding in listed
        if binding["type"].lower() == kind.lower()
    }


def test_the_worker_finds_what_our_host_finds(indexed):
    theirs, ours = indexed
    assert bindings(theirs) == bindings(ours)


def test_names_routes_and_methods_are_those_of_the_table(indexed):
    """In the order in which the host of Azure tries them: by name, first match wins."""
    theirs, _ = indexed
    found = [
        (name, binding["route"], sorted(binding["methods"]))
        for name, binding in sorted(triggers(theirs, "httpTrigger").items())
    ]
    wanted = [
        (each.name, each.template, sorted(each.methods))
        for each in sorted(http_functions(), key=lambda each: each.name)
    ]
    assert found == wanted


def test_nobody_needs_a_function_key(indexed):
    theirs, _ = indexed
    levels = {b["authLevel"] for b in triggers(theirs, "httpTrigger").values()}
    assert {level.lower() for level in levels} == {"anonymous"}


def test_orchestrators_activities_and_timers_are_there(indexed):
    theirs, _ = indexed
    assert triggers(theirs, "orchestrationTrigger")
    assert triggers(theirs, "activityTrigger")
    assert {"PublishPending", "CleanUpDeleted"} <= set(triggers(theirs, "timerTrigger"))
    assert registry  # they are all registered there


def test_the_name_of_every_function_is_one_that_the_host_takes(indexed):
    theirs, _ = indexed
    assert [n for n in theirs if not n[0].isalpha() or len(n) > 127] == []


# --- host.json ----------------------------------------------------------------------


def test_routes_begin_at_the_root_of_the_site():
    assert HOST["version"] == "2.0"
    assert HOST["extensions"]["http"]["routePrefix"] == ""


def test_the_timeout_is_one_that_every_plan_takes():
    """The consumption plan does not start with more than ten minutes."""
    hours, minutes, seconds = map(int, HOST["functionTimeout"].split(":"))
    assert 300 <= hours * 3600 + minutes * 60 + seconds <= 600


def test_the_bundle_has_the_extension_of_durable_functions_and_is_bounded():
    assert HOST["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.*, 5.0.0)",
    }


def test_operations_are_kept_in_the_account_of_the_host():
    durable = HOST["extensions"]["durableTask"]
    assert durable["hubName"].isalnum()
    assert durable["storageProvider"]["type"] == "azureStorage"
    assert durable["storageProvider"]["connectionName"] == "AzureWebJobsStorage"


def test_the_audit_log_is_never_thinned_out():
    sampling = HOST["logging"]["applicationInsights"]["samplingSettings"]
    assert "Trace" in sampling["excludedTypes"].split(";")


# --- ./dev func ---------------------------------------------------------------------


def test_dev_func_says_how_to_get_core_tools_where_they_are_not(tmp_path):
    for name in ("bash", "dirname", "readlink"):
        (tmp_path / name).symlink_to(shutil.which(name))
    ended = subprocess.run(
        ["bash", str(ROOT / "dev"), "func"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "azure-functions-core-tools" in ended.stderr


@pytest.fixture
def copy(tmp_path):
    """What ./dev func needs of this repository, so that it writes nothing here."""
    if not AZURITE.exists() or shutil.which("node") is None:
        pytest.skip("node or azurite is not installed: run npm ci")
    folder = copy_to(tmp_path / "copy")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    return folder


def three_free_ports():
    """The first of three ports in a row that nobody listens on."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 3):
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return first


def test_dev_func_starts_core_tools_with_settings_and_emulators(copy, tmp_path):
    """A program of the name `func` stands for Core Tools and says what it was given."""
    program = tmp_path / "func"
    program.write_text(
        "#!/bin/sh\necho args: $*\ncat local.settings.json\necho venv: $VIRTUAL_ENV\n"
    )
    program.chmod(0o755)
    port = three_free_ports()
    ended = subprocess.run(
        [copy / "dev", "func", "--port", "7171"],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "DEV_AZURITE_PORT": str(port),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"Starting Azurite on ports {port} to {port + 2}" in ended.stderr
    assert "args: start --port 7171" in ended.stdout
    assert "FUNCTIONS_WORKER_RUNTIME" in ended.stdout
    assert f"venv: {copy / '.venv'}" in ended.stdout
    assert (copy / ".data/azurite").is_dir()
