"""Secrets of operations: the same cases in a file and in a key vault."""

import asyncio
import json
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport
from emulators.identity import claims_of, identity_endpoint

from dicomweb.errors import StoreUnavailable
from stores.file_secrets import FILE_NAME, FileSecrets
from stores.key_vault_secrets import KeyVaultSecrets
from stores.ports import Secrets

VAULT = "https://clinic.vault.azure.net"
ONE, TWO = "1" * 32, "2" * 32
CHALLENGE = (
    'Bearer authorization="https://login.example.org/tenant",'
    ' resource="https://vault.azure.net"'
)


class FakeVault:
    """As much of Key Vault's HTTP as the adapter uses.

    Attributes:
        secrets: By name.
        fails: Statuses of the next answers.
        tokens: That the requests carried.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.secrets: dict[str, str] = {"not-ours": "x"}
        self.fails: list[int] = []

    def answer(
        self, method: str, name: str, body: dict[str, str]
    ) -> tuple[int, dict[str, object]]:
        if self.fails:
            return self.fails.pop(0), {"error": {"code": "Busy"}}
        if not name:
            ids = [f"{VAULT}/secrets/{each}" for each in self.secrets]
            return 200, {"value": [{"id": id, "attributes": {}} for id in ids]}
        if method == "PUT":
            self.secrets[name] = body["value"]
        if name not in self.secrets:
            return 404, {"error": {"code": "SecretNotFound"}}
        value = self.secrets.pop(name) if method == "DELETE" else self.secrets[name]
        return 200, {"id": f"{VAULT}/secrets/{name}/1", "value": value}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vault: FakeVault

    def do_GET(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Authorization" not in self.headers:
            self._send(401, {}, {"WWW-Authenticate": CHALLENGE})
            return
        self.vault.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
        name = self.path.partition("?")[0].removeprefix("/secrets").strip("/")
        body = json.loads(data) if data else {}
        self._send(*self.vault.answer(self.command, name, body), {})

    do_PUT = do_DELETE = do_GET

    def _send(
        self, status: int, value: dict[str, object], headers: dict[str, str]
    ) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Rerouted(AioHttpTransport):
    """Sends what is for the vault to the fake one: its client insists on https."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    async def send(self, request, **options):
        asked = request.url
        request.url = asked.replace(VAULT, self._url)
        try:
            return await super().send(request, **options)
        finally:
            request.url = asked


class Identity:
    async def get_token(self, *_: str, **__: object) -> AccessToken:
        return AccessToken("token", int(time.time()) + 3600)

    async def close(self) -> None:
        """Nothing."""


@contextmanager
def serving(vault: FakeVault) -> Iterator[str]:
    handler = type("Bound", (Handler,), {"vault": vault})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


@pytest.fixture(params=["file", "key-vault"])
async def secrets(request, tmp_path, vault) -> AsyncIterator[Secrets]:
    if request.param == "file":
        opened: Secrets = FileSecrets(tmp_path)
        yield opened
        await opened.close()
        return
    with serving(vault) as url:
        opened = KeyVaultSecrets(
            VAULT,
            credential=Identity(),
            patience_seconds=0.5,
            transport=Rerouted(url),
        )
        yield opened
        await opened.close()


async def test_a_secret_is_kept_until_it_is_deleted(secrets):
    assert await secrets.get(ONE) is None
    await secrets.put(ONE, "sas:sv=1&sig=a+b/c=")
    await secrets.put(TWO, "ä")
    assert await secrets.get(ONE) == "sas:sv=1&sig=a+b/c="
    assert sorted(await secrets.operations()) == [ONE, TWO]
    await secrets.delete(ONE)
    assert await secrets.get(ONE) is None
    assert await secrets.operations() == [TWO]
    assert await secrets.get(TWO) == "ä"


async def test_the_last_of_two_stays(secrets):
    await secrets.put(ONE, "first")
    await secrets.put(ONE, "second")
    assert await secrets.get(ONE) == "second"
    assert await secrets.operations() == [ONE]


async def test_deleting_what_is_not_there_is_harmless(secrets):
    await secrets.delete(ONE)
    await secrets.put(ONE, "x")
    await secrets.delete(ONE)
    await secrets.delete(ONE)
    assert await secrets.operations() == []


async def test_many_at_once(secrets):
    ids = [f"{n:032x}" for n in range(20)]
    await asyncio.gather(*(secrets.put(id, id) for id in ids))
    assert sorted(await secrets.operations()) == ids
    await asyncio.gather(*(secrets.delete(id) for id in ids))
    assert await secrets.operations() == []


async def test_only_the_owner_reads_the_file_and_it_goes_with_its_last_secret(tmp_path):
    secrets, other = FileSecrets(tmp_path), FileSecrets(tmp_path)
    await secrets.put(ONE, "x")
    path = tmp_path / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await other.get(ONE) == "x"
    await other.delete(ONE)
    assert not path.exists()
    assert b"x" not in b"".join(
        each.read_bytes() for each in tmp_path.iterdir() if each.is_file()
    )


@pytest.mark.parametrize("secrets", ["key-vault"], indirect=True)
async def test_a_busy_vault_is_asked_again_and_a_closed_one_is_told(secrets, vault):
    vault.fails = [429, 503]
    await secrets.put(ONE, "x")
    assert vault.secrets[f"operation-{ONE}"] == "x"
    vault.fails = [403]
    with pytest.raises(StoreUnavailable, match="access was refused"):
        await secrets.get(ONE)
    vault.fails = [503] * 1000
    with pytest.raises(StoreUnavailable, match="status 503"):
        await secrets.get(ONE)


@pytest.mark.parametrize("client_id", ["00000000-0000-0000-0000-00000000000a", None])
async def test_the_apps_own_identity_enters_the_vault(vault, monkeypatch, client_id):
    with serving(vault) as url, identity_endpoint(client_id) as identity:
        monkeypatch.delenv("AZURE_CLIENT_ID", raising=False)
        for name, value in identity.environment().items():
            monkeypatch.setenv(name, value)
        opened = KeyVaultSecrets(VAULT, transport=Rerouted(url))
        await opened.put(ONE, "x")
        assert await opened.get(ONE) == "x"
        await opened.close()
    assert identity.resources() == {"https://vault.azure.net"}
    assert [query.get("client_id") for query in identity.asked] == [client_id]
    assert len(vault.tokens) == 2
    audiences = {claims_of(token)["aud"] for token in vault.tokens}
    assert audiences == {"https://vault.azure.net"}


async def test_an_identity_that_gets_no_token_is_told(vault, monkeypatch):
    with serving(vault) as url, identity_endpoint("another") as identity:
        for name, value in identity.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AZURE_CLIENT_ID", "00000000-0000-0000-0000-00000000000a")
        opened = KeyVaultSecrets(VAULT, transport=Rerouted(url))
        with pytest.raises(StoreUnavailable, match="identity got no token"):
            await opened.get(ONE)
        await opened.close()
    assert vault.tokens == []
