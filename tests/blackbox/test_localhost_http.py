"""The host over HTTP: routing, both HTTP styles, keys and limits."""

import http.client
import json
import socket
import ssl
import subprocess
import sys

import httpx
import pytest
from blackbox.hosts import LOCALHOST, ROOT, boot


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    running = boot(
        ROOT / "tests/apps/streaming",
        tmp_path_factory.mktemp("streaming"),
        "--workers",
        "1",
        FUNCTIONS_REQUEST_BODY_SIZE_LIMIT="1000000",
    )
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def classic(tmp_path_factory):
    running = boot(
        ROOT / "tests/apps/classic",
        tmp_path_factory.mktemp("classic"),
        "--workers",
        "1",
    )
    yield running
    assert running.stop() == 0


def test_route_values_reach_the_function(streaming):
    assert httpx.get(f"{streaming.url}/hello").text == "Hello world"
    assert httpx.get(f"{streaming.url}/HELLO/Ada%20L/").text == "Hello Ada L"
    assert httpx.get(f"{streaming.url}/v2/rest/a/b").json() == {
        "version": "2",
        "path": "a/b",
    }


def test_the_first_function_by_name_takes_a_path_that_two_fit(streaming):
    assert httpx.get(f"{streaming.url}/items/5").json() == {"number": "5"}
    assert httpx.get(f"{streaming.url}/items/x").json()["text"] == "x"
    assert httpx.delete(f"{streaming.url}/items/5").json()["method"] == "DELETE"


def test_an_unlisted_method_and_an_unknown_path_are_both_404(streaming):
    assert httpx.put(f"{streaming.url}/items/5").status_code == 404
    assert httpx.get(f"{streaming.url}/nowhere").status_code == 404
    assert httpx.get(f"{streaming.url}/admin/host/status").status_code == 404


def test_head_has_headers_and_no_body(streaming):
    answer = httpx.head(f"{streaming.url}/hello")
    assert (answer.status_code, answer.headers["content-length"]) == (200, "11")
    assert answer.content == b""


def test_bodies_stream_and_repeated_headers_stay(streaming):
    pieces = (b"x" * 1000 for _ in range(50))
    answer = httpx.post(f"{streaming.url}/echo", content=pieces)
    assert answer.content == b"x" * 50_000
    assert answer.headers.get_list("x-twice") == ["1", "2"]


def test_sync_functions_and_plain_results_work(streaming):
    assert httpx.get(f"{streaming.url}/sync").text == "from a thread"
    assert httpx.get(f"{streaming.url}/plain").json() == {"plain": [1, 2]}


def test_a_function_that_raises_gives_500_without_its_words(streaming):
    answer = httpx.get(f"{streaming.url}/fail")
    assert (answer.status_code, answer.content) == (500, b"")
    assert "ValueError: secret detail" in streaming.log()


def test_the_context_names_the_function(streaming):
    assert httpx.get(f"{streaming.url}/slow?seconds=0").text == "Slow"


def test_a_function_that_exceeds_function_timeout_gives_500(streaming):
    assert httpx.get(f"{streaming.url}/slow?seconds=20", timeout=10).status_code == 500


def test_a_declared_body_over_the_limit_is_413(streaming):
    answer = httpx.post(f"{streaming.url}/count", content=b"x" * 1_000_001)
    assert answer.status_code == 413
    fits = httpx.post(f"{streaming.url}/count", content=b"x" * 1_000_000)
    assert fits.json() == {"bytes": 1_000_000}


def test_an_undeclared_body_over_the_limit_is_413(streaming):
    pieces = (b"x" * 50_000 for _ in range(30))
    assert httpx.post(f"{streaming.url}/count", content=pieces).status_code == 413
    pieces = (b"x" * 50_000 for _ in range(20))
    assert httpx.post(f"{streaming.url}/count", content=pieces).json() == {
        "bytes": 1_000_000
    }


def test_keys_open_functions_of_their_level(streaming):
    shown = subprocess.run(
        [
            *LOCALHOST,
            "tests/apps/streaming",
            "--show-keys",
            "--data",
            streaming.data / "host",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    keys = dict(line.split("\t") for line in shown.splitlines())

    def status(path, key=None, **query):
        headers = {"x-functions-key": key} if key else {}
        url = f"{streaming.url}/{path}"
        return httpx.get(url, headers=headers, params=query).status_code

    assert status("guarded") == 401
    assert status("guarded", "wrong") == 401
    assert status("guarded", keys["Guarded"]) == 200
    assert status("guarded", keys["host"]) == 200
    assert status("guarded", keys["master"]) == 200
    assert status("guarded", code=keys["Guarded"]) == 200
    assert status("administered", keys["host"]) == 401
    assert status("administered", keys["master"]) == 200


def test_the_home_page_answers_the_root_unless_it_is_disabled(classic, host):
    assert "running" in httpx.get(classic.url).text
    silent = host("classic", "--workers", "1", AzureWebJobsDisableHomepage="true")
    assert httpx.get(silent.url).status_code == 404


def test_a_classic_function_gets_the_request_as_azure_hands_it_over(classic):
    url = f"{classic.url}/api/show/7?a=1&a=2&empty="
    answer = httpx.post(
        url, content=b"body", headers=[("X-Many", "1"), ("X-Many", "2")]
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "method": "POST",
        "url": url,
        "params": {"a": "1,2"},
        "route": {"id": "7"},
        "header": "1,2",
        "body": "body",
    }


def test_a_classic_function_loses_a_chunked_body_as_on_azure(classic, host):
    def body_of(url):
        return httpx.post(f"{url}/api/show", content=iter([b"abc"])).json()["body"]

    assert body_of(classic.url) == ""
    lenient = host("classic", "--workers", "1", LOCALHOST_CHUNKED_BODIES="true")
    assert body_of(lenient.url) == "abc"


def test_classic_results_become_responses_as_on_azure(classic):
    text = httpx.get(f"{classic.url}/api/text")
    assert (text.status_code, text.text) == (200, "text")
    assert text.headers["content-type"].startswith("text/plain")
    assert httpx.get(f"{classic.url}/api/nothing").status_code == 204
    failed = httpx.get(f"{classic.url}/api/raise")
    assert (failed.status_code, failed.content) == (500, b"")
    assert httpx.get(f"{classic.url}/api/Named").text == "named"
    cookies = httpx.get(f"{classic.url}/api/cookies")
    assert cookies.status_code == 201
    assert cookies.headers.get_list("x-twice") == ["2"]
    assert cookies.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


def test_a_certificate_makes_it_https(host, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
        "-days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        f"-keyout {key} -out {cert}",
        shell=True,
        check=True,
        capture_output=True,
    )
    running = host("classic", "--workers", "1", "--cert", str(cert), "--key", str(key))
    context = ssl.create_default_context(cafile=str(cert))
    assert running.url.startswith("https://")
    assert httpx.get(f"{running.url}/api/text", verify=context).text == "text"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_access_log_has_each_request_without_its_query(host, workers):
    running = host("classic", "--workers", workers, "--verbose")
    httpx.get(f"{running.url}/nowhere?secret=1")
    lines = [line for line in running.log().splitlines() if "uvicorn.access" in line]
    assert len(lines) == 1
    assert '"GET /nowhere HTTP/1.1" 404' in lines[0]


def test_a_broken_certificate_is_named_at_start(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    ended = subprocess.run(
        [
            *LOCALHOST,
            "tests/apps/classic",
            "--port=0",
            "--data",
            tmp_path,
            "--cert",
            bad,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "certificate" in ended.stderr


def test_a_taken_port_is_told_with_its_holder(classic, tmp_path):
    ended = subprocess.run(
        [
            *LOCALHOST,
            "tests/apps/classic",
            f"--port={classic.port}",
            "--data",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert f"process {classic.process.pid}: " in ended.stderr
    assert "Traceback" not in ended.stderr


WRONG_APPS = {
    "exactly one top-level FunctionApp": "x = 1",
    "Function Tick: schedule 'never'": """
import azure.functions as func
app = func.FunctionApp()

@app.timer_trigger(schedule="never", arg_name="timer")
async def Tick(timer: func.TimerRequest) -> None:
    pass
""",
}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("reason", WRONG_APPS)
def test_an_app_that_cannot_be_loaded_ends_the_start_with_its_reason(
    tmp_path, workers, reason
):
    (tmp_path / "function_app.py").write_text(WRONG_APPS[reason])
    ended = subprocess.run(
        [*LOCALHOST, tmp_path, "--port=0", "--workers", workers],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.count(reason) == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /hello/%FF HTTP/1.1", 200),
        ("GET http://elsewhere/hello HTTP/1.1", 200),
        ("GET /hello HTTP/1.0", 200),
        ("GET /hello?code=%zz HTTP/1.1", 200),
        ("GET /guarded?code=%ff HTTP/1.1", 401),
        ("OPTIONS * HTTP/1.1", 404),
        ("GET // HTTP/1.1", 404),
        ("GET /%zz HTTP/1.1", 404),
        ("GET /RunTime/x HTTP/1.1", 404),
        ("POST /count HTTP/1.1\r\nContent-Length: abc", 400),
        (
            "POST /count HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("GARBAGE", 400),
    ],
)
def test_odd_requests_are_answered_and_harm_nobody(streaming, head, status):
    with socket.create_connection(("127.0.0.1", streaming.port), timeout=5) as client:
        client.sendall(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert int(answer.split()[1]) == status


def test_the_host_works_without_uvloop_and_httptools(tmp_path):
    program = (
        "import sys; sys.modules |= {'uvloop': None, 'httptools': None}; "
        "from localhost.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    running = boot(
        ROOT / "tests/apps/streaming",
        tmp_path,
        "--workers",
        "2",
        command=(sys.executable, "-c", program),
    )
    try:
        assert httpx.get(f"{running.url}/hello/h11").text == "Hello h11"
        pieces = (b"x" * 1000 for _ in range(5))
        counted = httpx.post(f"{running.url}/count", content=pieces)
        assert counted.json() == {"bytes": 5000}
    finally:
        assert running.stop() == 0


def test_a_connection_serves_many_requests(streaming):
    connection = http.client.HTTPConnection("127.0.0.1", streaming.port, timeout=5)
    for number in range(3):
        connection.request("GET", f"/items/{number}")
        answer = connection.getresponse()
        assert json.loads(answer.read()) == {"number": str(number)}
    connection.close()
