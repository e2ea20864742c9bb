"""docker/smoke-test.sh sees whether a server works.

A program of the name `docker` stands for Docker: it runs the server with our own host,
and commands "in the container" with our Python. CI runs the script on real containers.
"""

import os
import shlex
import socket
import subprocess
import sys

import pytest
from blackbox.hosts import ROOT

FAKE = """#!/bin/bash
shift # compose
files=
while [ "$1" = --file ]; do files=$files$2; shift 2; done
case $files in *features*) export DICOM_DATA_PARTITIONS=true ;; esac
export DICOM_DATA=$FAKE_DATA/dicom FUNCTIONS_REQUEST_BODY_SIZE_LIMIT=2147483647
start() {{
  [ -e "$FAKE_DATA/pid" ] && return
  mkdir -p "$FAKE_DATA"
  (cd {root} && exec {python} -m localhost . --port "$FAKE_PORT" --workers 1 \\
    --data "$FAKE_DATA/host" >"$FAKE_DATA/log" 2>&1) &
  echo $! >"$FAKE_DATA/pid"
  for _ in $(seq 300); do
    grep -q 'Ready at' "$FAKE_DATA/log" 2>/dev/null && return
    sleep 0.1
  done
  exit 1
}}
stop() {{
  kill "$(cat "$FAKE_DATA/pid")"
  while kill -0 "$(cat "$FAKE_DATA/pid")" 2>/dev/null; do sleep 0.05; done
  rm "$FAKE_DATA/pid" "$FAKE_DATA/log"
}}
case "$*" in
  up*) start ;;
  "exec -T dicom id -u") echo 10001 ;;
  "exec -T dicom python -") exec {python} - ;;
  restart*) stop; [ -z "$FAKE_FORGETS" ] || rm -r "$FAKE_DATA/dicom"; start ;;
  logs*) cat "$FAKE_DATA/log" ;;
  down*) stop ;;
  *) echo "unknown: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def smoke(tmp_path):
    program = tmp_path / "docker"
    root, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    program.write_text(FAKE.format(root=root, python=python))
    program.chmod(0o755)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def run(*arguments, forgets=""):
        return subprocess.run(
            [ROOT / "docker/smoke-test.sh", *arguments],
            env={
                **os.environ,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "BASE": f"http://127.0.0.1:{port}",
                "FAKE_PORT": str(port),
                "FAKE_DATA": str(tmp_path / "data"),
                "FAKE_FORGETS": forgets,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


def test_a_server_that_works_passes(smoke):
    ended = smoke("features")
    assert ended.returncode == 0, ended.stderr
    assert "Smoke test passed" in ended.stdout


def test_a_server_that_forgets_when_it_is_started_anew_fails(smoke):
    ended = smoke(forgets="yes")
    assert ended.returncode != 0
    assert "Smoke test passed" not in ended.stdout


def test_an_unknown_overlay_is_told(smoke):
    ended = smoke("http")
    assert ended.returncode == 2
    assert "no overlay http" in ended.stderr
