"""A disk that fills up under load: nothing acknowledged is lost, the server lives on.

The data folder is a small file system in memory, which only root may mount.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from blackbox.hosts import Running
from blackbox.loads import (
    JSON_HEADERS,
    STOW_HEADERS,
    WADO_HEADERS,
    FeedReader,
    Sent,
    Uids,
    acknowledged,
    agree,
    connected,
    healthy,
    load_file,
    store_some,
    stow_body,
)

SIZE_MIB = 40
BALLAST_MIB = 8
WRITERS = 8
REFUSED = 503


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB, 8 of which are a file named `ballast`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs root: {mounted.stderr.strip()}")
    (folder / "ballast").write_bytes(bytes(BALLAST_MIB << 20))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Takes what is left, to the last byte."""
    with (folder / "rest").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


async def store_until_refused(
    port: int, sent: Sent, studies: list[str], uids: Uids, random: Random
) -> None:
    async with connected(port) as connection:
        refusals = 0
        while refusals < 5:
            answer = await store_some(connection, sent, studies, uids, random, 0.05)
            if answer.status == REFUSED:
                assert int(answer.headers["retry-after"]) > 0
                refusals += 1


async def test_a_full_disk_refuses_and_loses_nothing(
    serve: Callable[..., Running], small_disk: Path, tmp_path: Path
) -> None:
    data = small_disk / "dicom"
    settings = {
        "DICOM_STORE": "embedded",
        "DICOM_DATA": str(data),
        "DICOM_PUBLISH_SCHEDULE": "*/2 * * * * *",
    }
    uids, sent, feed, random = Uids(), Sent(), FeedReader(), Random(4)
    studies = [uids.next() for _ in range(3)]
    running = serve(data=tmp_path / "host", **settings)
    await healthy(running.port)
    await writers(running.port, sent, studies, uids, random)
    fill(small_disk)
    await writers(running.port, sent, studies, uids, random)
    assert sent.statuses <= {200, 202, REFUSED}
    assert len(sent.acknowledged) > 100
    await reads_work(running.port, studies)

    (small_disk / "rest").unlink()
    (small_disk / "ballast").unlink()
    late = uids.next()
    await store_one(running.port, sent, late, uids)
    await healthy(running.port)
    await agree(running.port, sent, feed, [*studies, late], seconds=20)
    assert_no_leftovers(data)

    fill(small_disk)
    await writers(running.port, sent, studies, uids, random)
    running.kill()
    running = serve(data=tmp_path / "host", **settings)
    await healthy(running.port)
    await reads_work(running.port, studies)
    (small_disk / "rest").unlink()
    await store_one(running.port, sent, late, uids)
    await agree(running.port, sent, feed, [*studies, late], seconds=20)
    assert_no_leftovers(data)
    assert running.stop() == 0
    print(f"{len(sent.acknowledged)} instances acknowledged on {SIZE_MIB} MiB")


async def writers(
    port: int, sent: Sent, studies: list[str], uids: Uids, random: Random
) -> None:
    await asyncio.gather(
        *(
            store_until_refused(port, sent, studies, uids, random)
            for _ in range(WRITERS)
        )
    )


async def reads_work(port: int, studies: list[str]) -> None:
    """Whoever only reads notices nothing."""
    async with connected(port) as connection:
        for path in ("/v2/studies", "/v1/changefeed", "/health/check"):
            answer = await connection.request("GET", path, JSON_HEADERS)
            assert answer.status == 200, (path, answer)
        for study in studies:
            answer = await connection.request(
                "GET", f"/v2/studies/{study}", WADO_HEADERS
            )
            assert answer.status == 200


async def store_one(port: int, sent: Sent, study: str, uids: Uids) -> None:
    sop = uids.next()
    sent.files[study][sop] = load_file(study, uids.next(), sop)
    async with connected(port) as connection:
        body = stow_body([sent.files[study][sop]])
        answer = await connection.request("POST", "/v2/studies", STOW_HEADERS, body)
    assert answer.status == 200, answer
    sent.acknowledged |= acknowledged(answer)


def assert_no_leftovers(data: Path) -> None:
    staged = [p for p in (data / "blobs/.tmp").glob("*/*") if p.name != "lock"]
    assert staged == []
    assert os.access(data / "index/index.db", os.R_OK)
