"""Starts the emulators as processes of their own, on free ports of loopback."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from emulators.cosmos.server import EMULATOR_KEY
from stores.azure_blobs import BlobAddress
from stores.cosmos_account import CosmosAddress

ROOT = Path(__file__).resolve().parents[2]
AZURITE = ROOT / "node_modules" / ".bin" / "azurite"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite's documentation gives for its one account; no secret."""
START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Emulated:
    """Addresses of running emulators.

    Attributes:
        control: URL below which the Cosmos emulator takes `faults`, `counters`, ….
        certificate: PEM file to be trusted; empty where they speak http.
    """

    cosmos: CosmosAddress
    blobs: BlobAddress
    certificate: str = ""

    @property
    def control(self) -> str:
        return f"{self.cosmos.endpoint}_emulator/"

    @property
    def table(self) -> str:
        """Of the journal; one for each blob container."""
        return "journal" + "".join(c for c in self.blobs.container if c.isalnum())

    def endpoint(self, service: str) -> str:
        """Of the `Blob` or the `Table` service."""
        return self.blobs.connection.split(f"{service}Endpoint=")[1].split(";")[0]

    def environment_of_identity(self) -> dict[str, str]:
        """The settings of a server that enters with its identity: no key anywhere."""
        return {
            "DICOM_STORE": "azure",
            "DICOM_COSMOS_ENDPOINT": self.cosmos.endpoint,
            "DICOM_COSMOS_DATABASE": self.cosmos.database,
            "DICOM_BLOB_ENDPOINT": self.endpoint("Blob"),
            "DICOM_BLOB_CONTAINER": self.blobs.container,
            "DICOM_TABLE_ENDPOINT": self.endpoint("Table"),
            "DICOM_TABLE": self.table,
            **self._trust(),
        }

    def _trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": self.certificate} if self.certificate else {}

    def environment(self) -> dict[str, str]:
        """The settings of a server that is to use them."""
        return {
            "DICOM_STORE": "azure",
            "DICOM_COSMOS_ENDPOINT": self.cosmos.endpoint,
            "DICOM_COSMOS_DATABASE": self.cosmos.database,
            "DICOM_COSMOS_KEY": self.cosmos.key,
            "DICOM_BLOB_CONNECTION": self.blobs.connection,
            "DICOM_BLOB_CONTAINER": self.blobs.container,
            "DICOM_TABLE": self.table,
            **self._trust(),
        }


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(
    command: Callable[..., list[str]], *wanted: int
) -> Iterator[tuple[int, ...]]:
    """Ports of a process, once it listens on them; ended afterwards.

    Args:
        command: Gives the command line for the ports.
        wanted: Ports; 0 stands for any. Another process may take a free one before
            this does: then there is a second try on others.
    """
    try:
        process, ports = _listening(command, wanted)
    except RuntimeError:
        if all(wanted):
            raise
        process, ports = _listening(command, wanted)
    try:
        yield ports
    finally:
        _end(process)


def _listening(
    command: Callable[..., list[str]], wanted: tuple[int, ...]
) -> tuple["subprocess.Popen[bytes]", tuple[int, ...]]:
    ports = tuple(port or free_port() for port in wanted)
    process = subprocess.Popen(command(*ports), stdout=subprocess.DEVNULL, cwd=ROOT)
    try:
        for port in ports:
            _wait_for(port, process)
    except BaseException:
        _end(process)
        raise
    return process, ports


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


@contextmanager
def cosmos_emulator(
    *options: str, port: int = 0, database: str = "dicom"
) -> Iterator[CosmosAddress]:
    """Our Cosmos DB emulator, empty unless `--file` says otherwise."""
    program = [sys.executable, str(ROOT / "tests" / "emulators" / "cosmos")]

    def command(port: int) -> list[str]:
        return [*program, "--port", str(port), *options]

    scheme = "https" if "--certificate" in options else "http"
    with _process(command, port) as (at,):
        yield CosmosAddress(f"{scheme}://127.0.0.1:{at}/", database, EMULATOR_KEY)


@contextmanager
def azurite(
    *,
    port: int = 0,
    table_port: int = 0,
    folder: Path | None = None,
    container: str = "dicom",
    certificate: str = "",
) -> Iterator[BlobAddress]:
    """Azurite: blobs and tables, in memory unless a folder is given.

    With a certificate it speaks https and takes tokens, whose claims it checks.

    `--skipApiVersionCheck`: azure-storage-blob 12.31 speaks a newer version than
    Azurite 3.37 knows of.
    """
    if not AZURITE.exists():
        raise RuntimeError("Azurite is not installed: run npm ci")
    place = ["--location", str(folder)] if folder else ["--inMemoryPersistence"]
    node = shutil.which("node") or "node"
    scheme = "http"
    if certificate:
        scheme = "https"
        place += ["--oauth", "basic", "--cert", certificate, "--key", certificate]

    def command(blobs: int, tables: int) -> list[str]:
        return [
            node, str(AZURITE.resolve()), "--blobHost", "127.0.0.1",
            "--blobPort", str(blobs), "--tableHost", "127.0.0.1",
            "--tablePort", str(tables), "--queueHost", "127.0.0.1",
            "--queuePort", str(free_port()), "--skipApiVersionCheck",
            "--disableTelemetry", "--silent", *place,
        ]  # fmt: skip

    with _process(command, port, table_port) as (blobs, tables):
        connection = (
            f"DefaultEndpointsProtocol={scheme};AccountName=devstoreaccount1;"
            f"AccountKey={AZURITE_KEY};"
            f"BlobEndpoint={scheme}://127.0.0.1:{blobs}/devstoreaccount1;"
            f"TableEndpoint={scheme}://127.0.0.1:{tables}/devstoreaccount1;"
        )
        yield BlobAddress(connection=connection, container=container)


def control(emulated: Emulated, path: str, body: object = None) -> Any:
    """The answer of a control path; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    trust = emulated.certificate and ssl.create_default_context(
        cafile=emulated.certificate
    )
    request = Request(emulated.control + path, data)
    with urlopen(request, context=trust or None) as answer:
        return json.load(answer)


def counters(emulated: Emulated) -> Any:
    """What the Cosmos emulator counted since its last reset."""
    return control(emulated, "counters")


def provision(emulated: Emulated, *options: str) -> list[str]:
    """What the provisioning command says, line by line."""
    command = [sys.executable, "-m", "stores.provision", *options]
    environment = os.environ | emulated.environment()
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.splitlines()


@contextmanager
def both(
    cosmos_port: int = 0,
    blob_port: int = 0,
    table_port: int = 0,
    folder: Path | None = None,
) -> Iterator[Emulated]:
    """Both emulators, provisioned; what they hold is kept in the folder if given."""
    options: list[str] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--file", str(folder / "cosmos.db")]
    with (
        cosmos_emulator(*options, port=cosmos_port) as cosmos,
        azurite(
            port=blob_port,
            table_port=table_port,
            folder=folder and folder / "azurite",
        ) as blobs,
    ):
        emulated = Emulated(cosmos, blobs)
        provision(emulated)
        yield emulated


@contextmanager
def without_keys(folder: Path) -> Iterator[Emulated]:
    """Both emulators as the templates make the accounts: https, tokens, no keys.

    Provisioned with a key first, because a token makes no containers.
    """
    certificate = str(_certificate(folder))
    with (
        cosmos_emulator("--certificate", certificate) as cosmos,
        azurite(certificate=certificate) as blobs,
    ):
        emulated = Emulated(cosmos, blobs, certificate)
        provision(emulated)
        control(emulated, "keys", {"enabled": False})
        yield emulated


def _certificate(folder: Path) -> Path:
    """A PEM file with a new certificate of 127.0.0.1 and its key."""
    file = folder / "emulators.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        " -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    options = ["-keyout", str(file), "-out", str(folder / "certificate.pem")]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    with file.open("ab") as both_parts:
        both_parts.write((folder / "certificate.pem").read_bytes())
    return file
