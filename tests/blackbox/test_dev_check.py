"""`./dev check` on a small repository: every step is run, and those that fail named."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from blackbox.dev_copies import copy_to

FILES = {
    "pyproject.toml": """
[tool.ruff.lint]
select = ["F"]
[tool.pytest.ini_options]
asyncio_default_fixture_loop_scope = "function"
[tool.mypy]
packages = ["core"]
[tool.importlinter]
root_packages = ["core"]
[[tool.importlinter.contracts]]
name = "Layers"
type = "layers"
layers = ["core.upper", "core.lower"]
""",
    "core/__init__.py": "",
    "core/lower.py": "LOW = 1\n",
    "core/upper.py": "from core import lower\n\nHIGH  =  lower.LOW\n",  # not formatted
    "tests/unit/test_upper.py": "def test_it():\n    assert 'low' == 'high'\n",
    "tests/docs/test_page.py": "def test_it():\n    pass\n",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = copy_to(tmp_path / "a copy")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def start(copy: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [copy / "dev", "check"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_what_fails_is_named_and_the_rest_is_run_all_the_same(copy):
    process = start(copy)
    said, _ = process.communicate(timeout=150)
    assert process.returncode == 1, said
    for step in ("lint", "layers", "types"):
        assert f"dev: {step}: good" in said, said
    assert "1 failed, 1 passed" in said
    assert said.splitlines()[-1].startswith("dev: check: FAILED: format tests"), said


def test_when_it_is_interrupted_its_tests_end_with_it(copy):
    begun = copy / "begun"
    (copy / "tests/unit/test_upper.py").write_text(
        "import os, pathlib, time\n"
        "def test_it():\n"
        f"    pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(100)\n"
    )
    process = start(copy)
    deadline = time.monotonic() + 100
    while not begun.exists() or not begun.read_text():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=50)
    assert process.returncode != 0
    worker = Path("/proc") / begun.read_text()
    while worker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
