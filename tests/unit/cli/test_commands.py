import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli import ready, sample
from cli.__main__ import COMMANDS, load, main
from cli.client import Server


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_and_explains_itself(name, capsys):
    assert load(name).run
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[name] in " ".join(capsys.readouterr().out.split())


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "sample" in capsys.readouterr().err


def test_a_word_that_a_command_does_not_know_is_named_under_the_commands_name(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sample", "--foo"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: ./dev sample")
    assert "there is no --foo" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("foo", "foo cannot be used: not an http or https URL"),
        ("http://127.0.0.1:1/v2", "No server answers at http://127.0.0.1:1/v2"),
    ],
)
def test_a_server_that_cannot_be_used_is_named(
    url, said, tmp_path, capsys, socket_enabled
):
    assert main(["sample", "--url", url, "--data", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("dicom.example", "dicom.example"),
    ],
)
def test_a_listening_address_becomes_one_that_a_client_can_use(host, reached):
    assert ready.reachable(host) == reached


class Sick(BaseHTTPRequestHandler):
    """Answers 503 at first, as a server does whose disk fails, then 200."""

    asked = 0

    def do_GET(self):
        Sick.asked += 1
        self.send_response(503 if Sick.asked < 4 else 200)
        self.end_headers()
        self.wfile.write(b"The disk failed" if Sick.asked < 4 else b"{}")

    def log_message(self, *_words):
        pass


def test_a_server_that_is_not_healthy_is_asked_in_peace_and_told_of_once(
    monkeypatch, capsys, socket_enabled
):
    pauses = []
    monkeypatch.setattr(ready.time, "sleep", pauses.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Sick) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert ready.wait_until_healthy(url, os.getpid())
        server.shutdown()
    assert pauses == [ready.UNHEALTHY_POLL_SECONDS] * 3
    said = capsys.readouterr().err
    assert said == f"dev: Not ready yet: {url}/health/check answers The disk failed\n"


def test_a_process_that_ended_is_not_alive_before_its_parent_asks_either():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert ready.is_alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not ready.is_alive(process.pid)
    assert not ready.is_alive(process.pid)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host/v2", "http:///v2"])
def test_what_is_no_http_url_is_refused(url):
    with pytest.raises(ValueError, match="not an http"):
        Server(url)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (None, False),
        ({"state": "wanted"}, True),
        ({"state": "loaded", "instances": []}, False),
        ({"state": "removed", "instances": []}, False),
    ],
)
def test_samples_are_due_only_when_asked_for_and_not_loaded(tmp_path, record, wanted):
    path = tmp_path / "sample.json"
    if record is not None:
        path.write_text(json.dumps(record))
    assert sample.is_wanted(path) is wanted


def test_the_record_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "sample.json"
    sample.write(path, "loaded", ["/studies/1"])
    assert json.loads(path.read_text()) == {
        "state": "loaded",
        "instances": ["/studies/1"],
    }
    assert [each.name for each in path.parent.iterdir()] == ["sample.json"]


def test_the_samples_are_whole_files_of_nine_studies_with_slices_in_order():
    found = list(sample.samples())
    assert len({one.path.split("/series/")[0] for one in found}) == 9
    assert all(one.file[128:132] == b"DICM" for one in found)
    assert len({one.sop_instance_uid for one in found}) == len(found) >= 68
    assert all(one.path.endswith(one.sop_instance_uid) for one in found)


def test_there_is_nothing_to_remove_without_a_record(tmp_path):
    server = Server("http://127.0.0.1:1/v2")
    assert sample.remove(server, tmp_path / "sample.json").startswith("Nothing")
