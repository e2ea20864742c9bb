"""The function app as a host finds it; each look at it is a fresh process."""

import json
import os
import subprocess
import sys

import pytest

from functions.routes import http_functions

HEAVY = [
    *("numpy", "pydicom", "PIL", "imagecodecs", "azure.cosmos", "azure.identity"),
    *("opentelemetry.sdk", "azure.monitor", "jwt", "cryptography", "httpx"),
]


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DICOM_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


LOOK = f"""
import json, sys
import function_app
functions = {{}}
for function in function_app.app.get_functions():
    bindings = json.loads(function.get_function_json())["bindings"]
    trigger = next(each for each in bindings if each["type"].endswith("Trigger"))
    functions[function.get_function_name()] = trigger
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps({{"functions": functions, "heavy": heavy}}))
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    done = in_a_process(LOOK, DICOM_DATA=str(folder / "never"))
    assert done.returncode == 0, done.stderr
    assert not (folder / "never").exists()
    return json.loads(done.stdout)


def test_every_route_is_a_function_that_anyone_may_call(app):
    found = app["functions"]
    for function in http_functions():
        binding = found[function.name]
        assert binding["type"] == "httpTrigger"
        assert binding["route"] == function.template
        assert binding["methods"] == list(function.methods)
        assert binding["authLevel"] == "ANONYMOUS"


def test_the_timer_runs_at_once_and_as_the_settings_say(app):
    timer = app["functions"]["PublishPending"]
    assert timer["type"] == "timerTrigger"
    assert timer["schedule"] == "*/30 * * * * *"
    assert timer["runOnStartup"] is True


def test_nothing_heavy_is_imported_before_it_is_needed(app):
    assert app["heavy"] == []


def test_wrong_settings_stop_the_start_and_are_all_named():
    done = in_a_process("import function_app", DICOM_STOR="x", DICOM_DURABILITY="y")
    assert done.returncode != 0
    assert "DICOM_STOR: " in done.stderr
    assert "DICOM_DURABILITY: " in done.stderr


RESOLVE = """
import asyncio, os, pathlib
import function_app
from dicomweb.errors import StoreUnavailable

async def main():
    folder = pathlib.Path(os.environ["DICOM_DATA"])
    folder.write_text("in the way")
    try:
        await function_app.resolve()
    except StoreUnavailable:
        print("failed")
    folder.unlink()
    first, second = await asyncio.gather(function_app.resolve(), function_app.resolve())
    print(first is second, (folder / "index").is_dir())
    await first.close()

asyncio.run(main())
"""


def test_the_runtime_is_made_once_and_a_start_that_failed_is_tried_again(tmp_path):
    done = in_a_process(RESOLVE, DICOM_DATA=str(tmp_path / "data"))
    assert done.stdout.split() == ["failed", "True", "True"], done.stderr


QUOTING = """
import logging, sys, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
import function_app
from pydicom.dataset import Dataset
data = Dataset()
data.PatientBirthDate = "CANARY"
data.SpecificCharacterSet = "CANARY"
data.PatientName = "x"
data.decode()
warnings.warn("CANARY")
for name in ("azure.core.pipeline.policies.http_logging_policy", "httpx"):
    logging.getLogger(name).info("CANARY")
"""


def test_what_libraries_say_about_values_is_not_heard(tmp_path):
    done = in_a_process(QUOTING, DICOM_DATA=str(tmp_path / "never"))
    assert done.returncode == 0, done.stderr
    assert "CANARY" not in done.stdout + done.stderr
