"""The black-box suite can be run on Azure Functions Core Tools.

Here a program of the name `func` stands for them: our own host behind their command
line. CI runs the suite on the real ones.
"""

import os
import shlex
import sys
from urllib.request import urlopen

import pytest
from blackbox.hosts import CORE_TOOLS, ROOT, boot

# `func start --port N --verbose` in the folder of the app.
FAKE = """#!/bin/sh
[ "$1 $2 $4" = "start --port --verbose" ] || exit 2
[ "$FUNCTIONS_WORKER_RUNTIME" = python ] || exit 3
exec {python} -m localhost . --port "$3" --workers 1 --data "$DICOM_DATA/host" >/dev/null
"""


@pytest.fixture
def func(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "func"
    program.write_text(FAKE.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_product_starts_answers_and_ends(func, tmp_path):
    data = tmp_path / "data"
    running = boot(
        ROOT, data, "--workers", "1",
        command=CORE_TOOLS, DICOM_DATA=str(data), DICOM_SAMPLE="0", **func,
    )  # fmt: skip
    with urlopen(f"{running.url}/health/check", timeout=10) as answer:
        assert answer.status == 200
    assert running.stop() == 0


def test_a_host_that_does_not_start_is_told(tmp_path):
    program = tmp_path / "func"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(pytest.fail.Exception, match="broken"):
        boot(
            ROOT, tmp_path / "data",
            command=CORE_TOOLS, PATH=f"{tmp_path}:{os.environ['PATH']}",
        )  # fmt: skip
