"""Boots real servers on 127.0.0.1 and stops them.

* `host(app, *arguments, **env)` runs `python -m localhost` on an app of tests/apps.
* `serve(**env)` runs the product on a data folder of its own, settings by keyword.
* `server` is one product server for the whole session.
* `place` is each version of the API in turn, two with a partition.
* `api` is a client of it; `partitioned` of one with data partitions, `special` of one
  with small limits, full validation, CORS and a public URL.
All but the clients give a `Running`: `.url`, `.process`, `.data`, `.settings`, `.log()`.

`TEST_STACK=emulated` runs the product on the emulators of Cosmos DB and Blob
Storage, a database and a blob container for each server. `TEST_HOST=func` has it served
by Azure Functions Core Tools, which must be installed, with Azurite on its usual ports.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blackbox.api import FILE_LIMIT, ORIGIN, PUBLIC_URL, TRANSCODE_LIMIT, Api, Place
from blackbox.hosts import PRODUCT, ROOT, Running, boot
from blackbox.stacks import SettingsOf, stack
from blackbox.tags import Tags

AS_DEV_SERVE = {
    "AzureWebJobsDisableHomepage": "true",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "2147483647",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            item.add_marker(pytest.mark.blackbox)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts hosts on the small apps of tests/apps, and stops them after the test."""
    started: list[Running] = []

    def start(
        app: str, *arguments: str, data: Path | None = None, **env: str
    ) -> Running:
        folder = data or tmp_path / f"host{len(started)}"
        running = boot(ROOT / "tests/apps" / app, folder, *arguments, **env)
        started.append(running)
        return running

    yield start
    _stop_all(started)


@pytest.fixture(scope="session")
def settings_of() -> Iterator[SettingsOf]:
    """The settings of the store that belongs to a server's folder."""
    with stack() as settings:
        yield settings


@pytest.fixture(scope="session")
def serve(
    tmp_path_factory: pytest.TempPathFactory, settings_of: SettingsOf
) -> Iterator[Callable[..., Running]]:
    """Starts product servers; keyword arguments are settings.

    `workers=`, `options=` (of the host) and `data=` (to continue on a folder) are no
    settings. All servers end with the session at the latest; a test that is done with
    one calls `.stop()`.
    """
    started: list[Running] = []

    def start(
        *,
        workers: int = 1,
        options: tuple[str, ...] = (),
        data: Path | None = None,
        **env: str,
    ) -> Running:
        folder = data or tmp_path_factory.mktemp("server")
        settings = {"DICOM_SAMPLE": "0", **AS_DEV_SERVE, **settings_of(folder), **env}
        count = ("--workers", str(workers))
        running = boot(ROOT, folder, *count, *options, command=PRODUCT, **settings)
        started.append(running)
        return running

    yield start
    _stop_all(started)


@pytest.fixture(scope="session")
def server(serve: Callable[..., Running]) -> Running:
    """The product with default settings, shared by all tests of the session."""
    return serve()


@pytest.fixture(scope="session")
def api(server: Running) -> Iterator[Api]:
    with Api(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def partitioned(serve: Callable[..., Running]) -> Iterator[Api]:
    with Api(serve(DICOM_DATA_PARTITIONS="true").url) as client:
        yield client


@pytest.fixture(scope="session", params=["v1.0-prerelease", "v1/p", "v2", "v2/p"])
def place(request: pytest.FixtureRequest, api: Api, partitioned: Api) -> Place:
    version, _, partition = request.param.partition("/")
    if partition:
        return Place(partitioned, f"/{version}/partitions/place")
    return Place(api, f"/{version}")


@pytest.fixture(scope="session")
def special(serve: Callable[..., Running]) -> Iterator[Api]:
    running = serve(
        DICOM_MAX_FILE_BYTES=str(FILE_LIMIT),
        DICOM_MAX_TRANSCODE_BYTES=str(TRANSCODE_LIMIT),
        DICOM_FULL_VALIDATION="true",
        DICOM_BLANK_PREAMBLE="true",
        DICOM_CORS_ORIGINS=f"{ORIGIN},https://other.example.org",
        DICOM_PUBLIC_URL=PUBLIC_URL,
    )
    with Api(running.url) as client:
        yield client


@pytest.fixture(scope="module")
def tags(serve: Callable[..., Running]) -> Iterator[Tags]:
    """Query tags of a server that the tests of one file have for themselves.

    They are not of the shared server: its version 1 would refuse by their rules.
    """
    running = serve()
    with Api(running.url) as client:
        yield Tags(client)
    running.stop()


def _stop_all(started: list[Running]) -> None:
    with contextlib.ExitStack() as stack:
        for running in started:
            stack.callback(running.stop)
