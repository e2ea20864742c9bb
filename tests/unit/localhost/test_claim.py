"""One host at a time in a data folder."""

import os
import subprocess
import sys

import pytest

from localhost.claim import claim
from localhost.errors import HostError

HOLD = "import sys; from localhost.claim import claim; claim(__import__('pathlib')"
HOLD += ".Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_folder_is_made_and_free_again_once_the_descriptor_is_closed(tmp_path):
    for _ in range(2):
        os.close(claim(tmp_path / "new" / "host"))


def test_a_folder_of_another_process_is_refused_with_the_name_of_that(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HostError) as refused:
            claim(tmp_path)
        other.stdin.close()
    assert str(refused.value).startswith(
        f"{tmp_path} is in use (by process {other.pid}"
    )
    os.close(claim(tmp_path))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot keep data in .*file/x: Not a dir"):
        claim(tmp_path / "file" / "x")
