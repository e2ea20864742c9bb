"""Checkov's policies on infra/, where it is installed; CI runs it on the ARM JSON."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OWN = ROOT / ".build" / "checkov" / "bin"


@pytest.mark.timeout(300)
def test_no_policy_is_broken_but_those_that_parameters_decide():
    program = shutil.which("checkov", path=f"{os.environ['PATH']}:{OWN}")
    if program is None:
        pytest.skip(
            "no checkov: python -m venv .build/checkov;"
            " .build/checkov/bin/pip install checkov==3.3.30"
        )
    options = "--framework bicep --compact --quiet --skip-download --output json"
    ended = subprocess.run(
        [program, "--directory", ROOT / "infra", *options.split(),
         "--config-file", ROOT / "infra" / "checkov.yaml"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    report = json.loads(ended.stdout)
    assert report["results"]["failed_checks"] == []
    assert report["summary"]["passed"] >= 15
