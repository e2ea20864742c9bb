"""`./dev` on machines that are not ours: fresh clones, poor Pythons, no network."""

import contextlib
import importlib.util
import json
import os
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from blackbox.dev_copies import copy_to

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
FIRST_START_SECONDS = 120
LATER_START_SECONDS = 3
STOP_SECONDS = 20
SAMPLE_STUDIES = 9

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(slots=True)
class Clone:
    """A fresh clone, and the machine it is on, as its environment tells.

    Attributes:
        folder: Where it lies; the path has spaces.
        environment: All variables that `./dev` sees.
        started: Servers to end after the test.
    """

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """One command of ./dev, called from another folder, to its end."""
        return subprocess.run(
            [self.folder / "dev", *words],
            cwd="/",
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )

    def serve(self, port: int, *words: str, **more: str) -> subprocess.Popen[str]:
        """A server that starts; what it says goes to the file `log`."""
        with (self.folder.parent / f"log.{port}").open("w") as log:
            process = subprocess.Popen(
                [self.folder / "dev", "serve", "--port", str(port), *words],
                cwd="/",
                env={**self.environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, port: int) -> str:
        return (self.folder.parent / f"log.{port}").read_text()

    def data(self, name: str) -> tuple[str, str]:
        return "--data", str(self.folder.parent / name)


def fair(seconds: float) -> float:
    """The seconds on a machine that does nothing else, as many as they are on this."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, bytes]:
    url, headers = f"http://127.0.0.1:{port}{path}", {"Accept": "application/json"}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def wait_until(condition: Callable[[], bool], seconds: float, else_say: str) -> float:
    """Seconds until the condition held; fails the test when it never does."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            pytest.fail(else_say)
        time.sleep(0.02)
    return time.monotonic() - begun


def is_healthy(port: int) -> bool:
    with contextlib.suppress(OSError):
        return get(port, "/health/check")[0] == 200
    return False


def wait_until_healthy(clone: Clone, port: int, seconds: float) -> float:
    process = clone.started[-1]
    begun = time.monotonic()
    while not is_healthy(port):
        if process.poll() is not None or time.monotonic() - begun > seconds:
            pytest.fail(f"not healthy in {seconds} s:\n{clone.log(port)}")
        time.sleep(0.02)
    return time.monotonic() - begun


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM, as a service manager would; the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_SECONDS)


def studies(port: int) -> list[dict]:
    _, body = get(port, "/v2/studies")
    return json.loads(body or b"[]")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PATH of what Debian's smallest image has, with one Python of ours.

    Also a `python3.13` that is there and does not work, as pyenv's shims are.
    """
    folder = tmp_path_factory.mktemp("tools")
    for name in (
        *("bash", "cat", "cksum", "cp", "dirname", "env", "grep", "ls"),
        *("mkdir", "mktemp", "mv", "readlink", "rm", "sed", "sh", "sleep", "uname"),
    ):
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    if PYTHON.name != "python3.13":
        broken = folder / "python3.13"
        broken.write_text(
            "#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n"
        )
        broken.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of requirements.txt, so that not every test downloads them."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [*any_pip(), "download", "-qq", "--only-binary", ":all:"]
    subprocess.run(
        [*command, "-r", ROOT / "requirements.txt", "-d", folder], check=True
    )
    return folder


def any_pip() -> list[str]:
    """A pip that works for this Python; ./dev may have made its environment without."""
    here = [sys.executable, "-m", "pip"]
    wheels = Path("/usr/share/python-wheels").glob("pip-*.whl")
    others = [
        [str(PYTHON), "-m", "pip"],
        *([sys.executable, f"{wheel}/pip"] for wheel in wheels),
        *([found] for name in ("pip3", "pip") if (found := shutil.which(name))),
    ]
    for pip in (here, *([*other, "--python", sys.executable] for other in others)):
        tried = subprocess.run([*pip, "--version"], capture_output=True, check=False)
        if tried.returncode == 0:
            return pip
    pytest.skip("no pip to download packages with")


def clone_to(folder: Path, tools: Path, python: Path, **more: str) -> Clone:
    target = folder / "a folder with spaces" / "clone"
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git, or the repository of these files, is not here to be cloned")
    # The files may be another user's, as in a container: git asks for a word.
    trusting = folder / "gitconfig"
    trusting.parent.mkdir(parents=True, exist_ok=True)
    trusting.write_text("[safe]\n\tdirectory = *\n")
    subprocess.run(
        ["git", "clone", "-q", "--local", str(ROOT), str(target)],
        env={**os.environ, "GIT_CONFIG_GLOBAL": str(trusting)},
        check=True,
    )
    kept = ("PIP_CERT", "PIP_FIND_LINKS", "HTTPS_PROXY", "https_proxy", "HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"PATH": f"{python.parent}:{tools}", "LANG": "C", **more}
    return Clone(target, environment, [])


@contextlib.contextmanager
def closing(clone: Clone) -> Iterator[Clone]:
    try:
        yield clone
    finally:
        for process in clone.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def without_network(wheels: Path) -> dict[str, str]:
    """Installs from the wheels; bytecode of what is imported is made when it is."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_COMPILE": "0"}


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, tools: Path
) -> Iterator[tuple[Clone, float]]:
    """A clone after its first start, and how long that took, from a real index."""
    folder = tmp_path_factory.mktemp("first")
    with closing(clone_to(folder, tools, PYTHON)) as clone:
        port = free_port()
        process = clone.serve(port, *clone.data("first"))
        seconds = wait_until_healthy(clone, port, 2 * FIRST_START_SECONDS)
        assert stop(process) == 0
        yield clone, seconds


@pytest.fixture
def clone(installed: tuple[Clone, float]) -> Iterator[Clone]:
    """A clone that is installed and from now on has no network."""
    done, _ = installed
    offline = {"PIP_NO_INDEX": "1", "https_proxy": "http://127.0.0.1:9"}
    with closing(Clone(done.folder, {**done.environment, **offline}, [])) as again:
        yield again


def poor_python(folder: Path, *hidden: str) -> Path:
    """This Python without some modules of its library; the rest by links."""
    version = PYTHON.name
    library, packages = folder / "lib" / version, folder / "lib" / version
    packages = packages / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    shutil.copy2(PYTHON.resolve(), folder / "bin" / version)
    real = Path(sys.base_prefix) / "lib"
    for path in real.glob("libpython*"):
        (folder / "lib" / path.name).symlink_to(path)
    for path in (real / version).iterdir():
        has_packages = path.name in {"site-packages", "dist-packages"}
        if not has_packages and path.stem not in hidden:
            (library / path.name).symlink_to(path)
    if "pip" not in hidden:
        give_pip(real / version / "site-packages", packages)
    return folder / "bin" / version


def give_pip(real: Path, packages: Path) -> None:
    """Its own pip; Debian's Python has none there, then that of the environment."""
    origin = importlib.util.find_spec("pip")
    places = [real / "pip", *([Path(origin.origin).parent] if origin else [])]
    pip = next((place for place in places if place.is_dir()), None)
    if pip is None:
        pytest.skip("no pip that a Python without ensurepip could have")
    (packages / "pip").symlink_to(pip)
    # Debian's Python looks for packages in a folder of another name.
    (packages.parent / "dist-packages").symlink_to("site-packages")


def test_a_fresh_clone_is_healthy_within_two_minutes(installed):
    clone, seconds = installed
    print(f"first start: {seconds:.1f} s")
    assert seconds <= fair(FIRST_START_SECONDS)
    assert not list(clone.folder.glob(".venv.*"))


def test_a_later_start_needs_no_network_and_three_seconds(clone):
    taken = []
    for _ in range(3):
        port = free_port()
        process = clone.serve(port, *clone.data("later"))
        taken.append(wait_until_healthy(clone, port, FIRST_START_SECONDS))
        assert stop(process) == 0
        assert "Installing" not in clone.log(port)
    print(f"later starts: {', '.join(f'{seconds:.2f}' for seconds in taken)} s")
    assert min(taken) <= fair(LATER_START_SECONDS)


def test_with_a_certificate_everything_goes_over_https(clone, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key}"
    subprocess.run(
        [*command.split(), "-out", str(cert), "-subj", "/CN=some other name"],
        check=True,
        capture_output=True,
    )
    port = free_port()
    tls = ("--cert", str(cert), "--key", str(key))
    process = clone.serve(port, *clone.data("tls"), *tls, DICOM_SAMPLE="1")
    loaded = f"of {SAMPLE_STUDIES} studies"
    wait_until(lambda: loaded in clone.log(port), FIRST_START_SECONDS, "no samples")
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    health = f"https://127.0.0.1:{port}/health/check"
    with urllib.request.urlopen(health, context=context, timeout=10) as answer:
        assert answer.headers["strict-transport-security"]
    assert f"Ready: DICOMweb at https://127.0.0.1:{port}/v2" in clone.log(port)
    assert "WARNING" not in clone.log(port)
    assert stop(process) == 0
    assert "--key needs --cert" in clone.run("serve", *tls[2:]).stdout


@pytest.mark.parametrize(
    ("host", "security", "warns"),
    [
        ("0.0.0.0", "", True),
        ("::", "false", True),
        ("0.0.0.0", "True", False),
        ("localhost", "", False),
        ("127.0.0.2", "", False),
        ("::1", "", False),
    ],
)
def test_an_open_door_is_named(clone, host, security, warns):
    """There is no such store: the server says so and ends."""
    port = free_port()
    options = ("--host", host, *clone.data("open"))
    more = {"DICOM_SECURITY": security} if security else {}
    process = clone.serve(port, *options, DICOM_STORE="paper", **more)
    assert process.wait(STOP_SECONDS) != 0
    said = clone.log(port)
    assert "DICOM_STORE: must be one of embedded, azure" in said
    assert ("WARNING: anyone who reaches" in said) is warns, said


def test_scripts_of_the_environment_work_where_it_was_moved_to(clone):
    done = subprocess.run(
        [clone.folder / ".venv/bin/uvicorn", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "uvicorn" in done.stdout


def test_a_new_default_folder_gets_samples_once_and_they_can_be_taken_out(clone):
    port = free_port()
    url = f"http://127.0.0.1:{port}/v2"
    process = clone.serve(port)
    wait_until_healthy(clone, port, FIRST_START_SECONDS)
    loaded = f"of {SAMPLE_STUDIES} studies"
    wait_until(lambda: loaded in clone.log(port), 60, clone.log(port))
    assert "refused" not in clone.log(port)
    assert len(studies(port)) == SAMPLE_STUDIES

    answer = clone.run("sample", "--remove", "--url", url)
    assert "Removed" in answer.stdout
    assert studies(port) == []
    assert stop(process) == 0

    clone.serve(port)
    wait_until_healthy(clone, port, FIRST_START_SECONDS)
    wait_until(lambda: "viewer" in clone.log(port), 30, clone.log(port))
    assert studies(port) == []


def test_samples_that_were_interrupted_are_loaded_by_the_next_start(clone):
    port = free_port()
    data = clone.data("interrupted")
    record = Path(data[1]) / "sample.json"
    process = clone.serve(port, *data, DICOM_SAMPLE="1")
    wait_until(record.exists, 30, clone.log(port))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads(record.read_text())["state"] == "wanted"

    clone.serve(port, *data)
    wait_until(lambda: "sample instances" in clone.log(port), 60, clone.log(port))
    assert len(studies(port)) == SAMPLE_STUDIES
    assert json.loads(record.read_text())["state"] == "loaded"


def test_a_folder_given_with_data_gets_no_samples(clone):
    port = free_port()
    clone.serve(port, *clone.data("given"))
    wait_until(lambda: "viewer" in clone.log(port), 60, clone.log(port))
    assert studies(port) == []
    assert not (clone.folder.parent / "given" / "sample.json").exists()


def test_a_busy_port_is_refused_with_the_name_of_who_holds_it(clone):
    port = free_port()
    first = clone.serve(port, *clone.data("holder"))
    wait_until_healthy(clone, port, FIRST_START_SECONDS)
    answer = clone.run("serve", "--port", str(port), *clone.data("other"))
    assert answer.returncode != 0
    assert f"process {first.pid}" in answer.stdout
    assert "localhost" in answer.stdout
    assert "Ready" not in answer.stdout


def test_it_works_through_a_symbolic_link(clone, tmp_path):
    (tmp_path / "dicom").symlink_to("second")
    (tmp_path / "second").symlink_to(clone.folder / "dev")
    done = subprocess.run(
        [tmp_path / "dicom", "sample", "--help"],
        cwd=tmp_path,
        env=clone.environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "--remove" in done.stdout) == (0, True)


def test_a_data_folder_belongs_to_one_server(clone):
    ports = free_port(), free_port()
    data = clone.data("shared")
    first = clone.serve(ports[0], *data)
    wait_until_healthy(clone, ports[0], FIRST_START_SECONDS)
    second = clone.serve(ports[1], *data)
    assert second.wait(STOP_SECONDS) == 1
    said = clone.log(ports[1])
    assert f"host is in use (by process {first.pid}:" in said
    assert "Ready" not in said
    assert "Traceback" not in said
    assert is_healthy(ports[0])


WRONG_SETTINGS = {
    "DICOM_STORE": "paper",
    "DICOM_DURABILITY": "none",
    "DICOM_MAX_FILE_BYTES": "much",
    "DICOM_DATA_PARTITIONS": "maybe",
    "DICOM_NONSENSE": "1",
}


@pytest.mark.parametrize("workers", ["1", "3"])
def test_every_wrong_setting_is_named_once_and_without_a_stack_trace(clone, workers):
    port = free_port()
    options = (*clone.data("wrong"), "--workers", workers)
    process = clone.serve(port, *options, **WRONG_SETTINGS)
    assert process.wait(STOP_SECONDS) == 1
    said = clone.log(port)
    assert {
        name: said.count(f"\n{name}: ") for name in WRONG_SETTINGS
    } == dict.fromkeys(WRONG_SETTINGS, 1)
    assert "Traceback" not in said
    assert "could not start" not in said


def test_every_wrong_option_is_named_at_once(clone):
    answer = clone.run(
        *("serve", "--port", "70000", "--workers", "many", "--prot", "--data="),
        *("--stack", "paper", "--cert", "/nowhere/cert.pem", "--host"),
    )
    assert answer.returncode == 1
    assert answer.stdout.splitlines() == [
        "dev: serve: --port is a number from 1 to 65535, not '70000'",
        "dev: serve: --workers is a number from 1 to 64, not 'many'",
        "dev: serve: there is no option --prot",
        "dev: serve: --data needs a value",
        "dev: serve: --stack is embedded or emulated, not 'paper'",
        "dev: serve: --cert names no file that can be read: '/nowhere/cert.pem'",
        "dev: serve: --host needs a value",
        "dev: ./dev serve --help shows how it is used",
    ]
    answer = clone.run("sevre")
    assert (answer.returncode, "sevre" in answer.stdout) == (1, True)


@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_a_data_folder_that_cannot_be_is_named(clone, tmp_path, name):
    (tmp_path / "file").write_text("")
    answer = clone.run(
        *("serve", "--port", str(free_port()), "--data", str(tmp_path / name))
    )
    assert answer.returncode == 1
    assert f"cannot keep data in {tmp_path / name}" in answer.stdout
    assert "Traceback" not in answer.stdout


def test_a_file_that_is_no_certificate_is_named(clone):
    cert = clone.folder / "README.md"
    options = ("--port", str(free_port()), *clone.data("no-cert"), "--cert", str(cert))
    answer = clone.run("serve", *options)
    assert answer.returncode == 1
    assert f"cannot use the certificate ({cert})" in answer.stdout
    assert "Traceback" not in answer.stdout


def test_a_verbose_server_writes_a_line_for_each_request_and_no_query(clone):
    port = free_port()
    process = clone.serve(port, "--verbose", *clone.data("verbose"))
    wait_until_healthy(clone, port, FIRST_START_SECONDS)
    get(port, "/v2/studies?PatientName=SAMPLE-CANARY")
    assert stop(process) == 0
    said = clone.log(port)
    lines = [line for line in said.splitlines() if "/v2/studies" in line]
    requests = [line for line in lines if "HTTP/1.1" in line]
    assert len(requests) == 1
    assert requests[0].endswith('"GET /v2/studies HTTP/1.1" 204')
    assert "CANARY" not in said


# Makes the terminal that it is given its own, so that Ctrl-C means it.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)


def press_ctrl_c(clone: Clone, cue: str, *words: str) -> tuple[int, str]:
    """Exit code and output of `./dev serve` on a terminal, ended by Ctrl-C at the cue."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, clone.folder / "dev", "serve", *words],
        cwd="/",
        env=clone.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        text=True,
        start_new_session=True,
    )
    clone.started.append(process)
    os.close(theirs)
    said, pressed = b"", False
    with contextlib.suppress(OSError):  # Linux's way to say that all ends are closed
        while chunk := os.read(terminal, 65536):
            said += chunk
            if cue.encode() in said and not pressed:
                pressed = True
                os.write(terminal, b"\x03")
    os.close(terminal)
    return process.wait(STOP_SECONDS), said.decode()


@pytest.mark.parametrize("cue", ["Ready: ", "viewer"])
def test_ctrl_c_ends_a_server_without_a_stack_trace(clone, cue):
    options = ("--port", str(free_port()), *clone.data("ctrl-c"))
    code, said = press_ctrl_c(clone, cue, *options)
    assert code == 0
    assert "Traceback" not in said
    assert said.count("Ready") == 1
    lines = [line for line in said.splitlines() if not line.startswith("dev: ")]
    assert [line.strip("^C") for line in lines] in ([], [""])


def test_ctrl_c_ends_an_installation_and_nothing_half_done_is_used(tmp_path, tools):
    alone = clone_to(tmp_path, tools, PYTHON, PIP_NO_INDEX="1")
    code, said = press_ctrl_c(alone, "Installing", "--port", str(free_port()))
    assert code != 0
    assert "Traceback" not in said
    assert not (alone.folder / ".venv").exists()


@pytest.mark.parametrize(
    "command", ["serve", "test", "check", "emulators", "func", "help"]
)
def test_a_command_tells_how_it_is_used_before_anything_is_installed(
    tmp_path, tools, command
):
    folder = tmp_path / "dev folder"
    folder.mkdir()
    shutil.copy(ROOT / "dev", folder / "dev")
    told = [
        subprocess.run(
            [folder / "dev", *words],
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for words in ((command, "--help"), ("help", command))
    ]
    assert told[1].startswith(f"Usage: ./dev {command}")
    assert told[0].startswith("Usage: ./dev")
    assert sorted(path.name for path in folder.iterdir()) == ["dev"]


@pytest.mark.parametrize(
    "command", ["sample", "provision", "bench", "scrub", "backup", "restore"]
)
def test_a_command_lists_its_options(clone, command):
    answer = clone.run(command, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: ./dev {command} ")


def test_a_python_that_was_chosen_and_does_not_work_is_named(tmp_path, tools):
    clone = clone_to(tmp_path, tools, PYTHON, DEV_PYTHON="/nowhere/python3")
    answer = clone.run("serve")
    assert (answer.returncode, "/nowhere/python3" in answer.stdout) == (1, True)


def test_without_ensurepip_the_system_pip_does(tmp_path, tools, wheels):
    python = poor_python(tmp_path / "python", "ensurepip")
    with closing(clone_to(tmp_path, tools, python, **without_network(wheels))) as clone:
        port = free_port()
        clone.serve(port, *clone.data("data"))
        wait_until_healthy(clone, port, FIRST_START_SECONDS)


def test_without_ensurepip_and_pip_the_package_to_install_is_named(tmp_path, tools):
    # Without `email` no pip that lies about elsewhere on this machine runs either.
    python = poor_python(tmp_path / "python", "ensurepip", "pip", "email")
    clone = clone_to(tmp_path, tools, python)
    answer = clone.run("serve", "--port", str(free_port()))
    assert answer.returncode == 1
    assert f"apt-get install {PYTHON.name}-venv" in answer.stdout
    assert not (clone.folder / ".venv").exists()


def test_a_python_that_can_make_no_environment_is_passed_over(tmp_path, tools):
    poor = poor_python(tmp_path / "python", "ensurepip", "pip", "email")
    clone = clone_to(tmp_path, tools, PYTHON, PIP_NO_INDEX="1")
    path = f"{poor.parent}:{clone.environment['PATH']}"
    answer = clone.run("serve", "--port", str(free_port()), PATH=path)
    assert f"({PYTHON})" in answer.stdout
    assert "The packages could not be installed" in answer.stdout


LAME = """#!/bin/sh
case "$*" in
  -V) echo Python 3.13.0 ;;
  *"import sys, venv"* | *fcntl*) ;;
  *) exit 1 ;;
esac
"""


def test_a_second_python_without_venv_does_not_keep_the_tests_from_running(
    tmp_path, tools
):
    """Only the tests for Azure's worker library want an environment of it."""
    if importlib.util.find_spec("azure_functions_runtime"):
        pytest.skip("this Python has Azure's worker library itself")
    python = tmp_path / "bin" / "python3.13"
    python.parent.mkdir()
    python.write_text(LAME)
    python.chmod(0o755)
    done = subprocess.run(
        [copy_to(tmp_path / "copy") / "dev", "test", "--version"],
        env={"PATH": f"{python.parent}:{tools}", "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode, f"pytest {pytest.__version__}" in said) == (0, True), said
    assert "apt-get install" in said
    assert f"No .venv313 with {python}" in said
    assert not list((tmp_path / "copy").glob(".venv313*"))


def test_after_an_interrupted_first_start_two_at_once_install_once(
    tmp_path, tools, wheels
):
    alone = clone_to(tmp_path, tools, PYTHON, **without_network(wheels))
    with closing(alone) as clone:
        process = clone.serve(free_port(), *clone.data("none"))
        wait_until(
            lambda: any(clone.folder.glob(".venv.new.*/lib/*/site-packages/numpy")),
            60,
            "the installation never got that far",
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (clone.folder / ".venv").exists()

        ports = [free_port(), free_port()]
        for port in ports:
            clone.serve(port, *clone.data(f"data{port}"))
        for port in ports:
            wait_until_healthy(clone, port, FIRST_START_SECONDS)
        logs = "".join(clone.log(port) for port in ports)
        assert logs.count("Installing the packages") == 1
        assert logs.count("Waiting for another ./dev") == 1
        assert not list(clone.folder.glob(".venv.*"))
