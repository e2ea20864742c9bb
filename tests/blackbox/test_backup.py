"""A backup taken while clients store and delete, and what a restore makes of it.

`FULL=1`: three backups in a row under more load.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blackbox.api import Api, made
from blackbox.churn import ONE, Client, path_of
from blackbox.hosts import Running
from blackbox.loads import Uids, connected
from blackbox.maintenance import everything, run
from blackbox.operations import ended
from blackbox.stacks import STACK

FULL = os.environ.get("FULL") == "1"
CLIENTS = 8 if FULL else 4
BACKUPS = 3 if FULL else 1
WARM_UP_SECONDS = 8.0 if FULL else 1.5
Serve = Callable[..., Running]
pytestmark = pytest.mark.skipif(
    STACK != "embedded", reason="Azure keeps the backups of its stores itself"
)


async def dev(command: str, *arguments: str | Path, settings: dict[str, str]) -> str:
    return await asyncio.to_thread(run, command, *arguments, settings=settings)


@pytest.mark.timeout(120 if not FULL else 600)
@pytest.mark.parametrize("delay", ["0", "259200"] if FULL else ["0"])
async def test_a_restored_backup_has_all_that_was_acknowledged_before_it_began(
    serve: Serve, tmp_path: Path, delay: str
):
    """Also where deleted blobs are removed at once, every second."""
    running = serve(
        workers=2,
        DICOM_DELETE_DELAY_SECONDS=delay,
        DICOM_CLEANUP_SCHEDULE="* * * * * *",
    )
    uids, stop = Uids(), asyncio.Event()
    clients = [Client(uids, seed) for seed in range(CLIENTS)]
    backups = []
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(running.port, stop))
        for number in range(BACKUPS):
            await asyncio.sleep(WARM_UP_SECONDS)
            folder = tmp_path / f"backup{number}"
            before = [(dict(client.stored), set(client.gone)) for client in clients]
            await dev("backup", folder, settings=running.settings)
            backups.append((folder, before, [set(c.doomed) for c in clients]))
        stop.set()
    running.stop()
    stored = sum(len(client.stored) for client in clients)
    for folder, before, doomed_after in backups:
        data = tmp_path / f"restored-{folder.name}"
        output = await dev("restore", folder, "--data", data, settings={})
        assert "missing" not in output
        again = serve(data=tmp_path / f"host-{folder.name}", DICOM_DATA=str(data))
        count = 0
        async with connected(again.port) as connection:
            for (files, gone), doomed in zip(before, doomed_after, strict=True):
                for key, content in files.items():
                    answer = await connection.request("GET", path_of(*key), ONE)
                    if key in gone:
                        assert answer.status == 404, "it was deleted before"
                    elif key not in doomed or answer.status != 404:
                        assert answer.status == 200, "it was acknowledged before"
                        assert answer.body == content
                        count += 1
        assert count > 20, f"too little ({count} of {stored}) to matter"
        with Api(again.url) as api:
            assert api.store(made().file).status_code == 200
        again.stop()
        assert "All is well" in run("scrub", settings={"DICOM_DATA": str(data)})


@pytest.fixture
def archive(serve: Serve, tmp_path: Path) -> tuple[dict[str, str], dict[str, object]]:
    """Settings of a small archive that is served no more, and what clients saw."""
    running = serve()
    with Api(running.url) as api:
        one, two = made(), made()
        api.store(one.file, two.file, made(of=one).file)
        body = {
            "studyInstanceUids": [one.study],
            "changeDataset": {"00100020": {"vr": "LO", "Value": ["NEW"]}},
        }
        ended(api, api.post("/v2/studies/$bulkUpdate", json=body))
        api.delete(f"/v2{two.study_path}")
        seen = everything(api, "/v2")
    running.stop()
    return running.settings, seen


def test_a_backup_is_a_whole_archive_of_its_own(serve: Serve, archive, tmp_path):
    settings, seen = archive
    folder = tmp_path / "backup"
    output = run("backup", folder, settings=settings)
    assert "2 instances in 6 files" in output
    assert run("backup", folder, settings=settings, status=2)  # not empty now
    described = json.loads((folder / "backup.json").read_text())
    assert (described["instances"], described["missing"]) == (2, [])
    shutil.rmtree(settings["DICOM_DATA"])  # links keep what they link to
    data = tmp_path / "data"
    data.mkdir()
    assert "2 of 2 instances" in run("restore", folder, "--data", data, settings={})
    again = serve(DICOM_DATA=str(data))
    with Api(again.url) as api:
        assert everything(api, "/v2") == seen
    again.stop()
    output = run("restore", folder, "--data", data, settings={}, status=2)
    assert "is not empty" in output


def test_a_damaged_or_unfinished_backup_is_noticed(archive, tmp_path):
    settings, _ = archive
    folder = tmp_path / "backup"
    run("backup", folder, "--copy", settings=settings)
    files = sorted((folder / "blobs").rglob("*.dcm"))
    content = bytearray(files[0].read_bytes())
    content[-3] ^= 1
    files[0].write_bytes(content)
    files[1].unlink()
    output = run("restore", folder, "--data", tmp_path / "a", settings={}, status=1)
    assert "2 of 2 instances" in output
    assert f"another size or hash than recorded: {name_of(files[0], folder)}" in output
    assert f"is missing: {name_of(files[1], folder)}" in output
    index = folder / "index" / "index.db"
    index.write_bytes(index.read_bytes()[:9000])
    run("restore", folder, "--data", tmp_path / "b", settings={}, status=2)
    assert not (tmp_path / "b" / "index").exists()
    (folder / "backup.json").unlink()
    output = run("restore", folder, "--data", tmp_path / "b", settings={}, status=2)
    assert "no backup, or one that was cut short" in output


def name_of(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder / "blobs"))


def test_what_is_lost_already_is_said_and_does_not_stop_the_backup(archive, tmp_path):
    settings, _ = archive
    [lost, *_] = sorted(Path(settings["DICOM_DATA"], "blobs").rglob("*.metadata"))
    lost.unlink()
    folder = tmp_path / "backup"
    output = run("backup", folder, settings=settings, status=1)
    assert f"/{lost.name}" in output.partition("A stored file is missing:")[2]
    output = run("restore", folder, "--data", tmp_path / "a", settings={}, status=1)
    assert "as before the backup" in output


def test_there_is_nothing_to_back_up_where_no_archive_is(tmp_path):
    for settings in (
        {"DICOM_DATA": str(tmp_path / "nothing")},
        {
            "DICOM_STORE": "azure",
            "DICOM_COSMOS_ENDPOINT": "https://localhost:1/",
            "DICOM_BLOB_ENDPOINT": "https://localhost:1/",
        },
    ):
        run("backup", tmp_path / "backup", settings=settings, status=2)
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "backup").exists()
