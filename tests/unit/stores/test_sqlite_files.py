"""The SQLite index as a file: starts, failures of the disk, crashes, processes."""

import asyncio
import fcntl
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dicomweb.errors import StoreUnavailable
from stores.containers import CATALOG, DATA_FORMAT, DICOM
from stores.errors import StoreFormatError
from stores.ports import Committed, Create, Equals, Order, Patch, Query, Upsert
from stores.sqlite_connection import (
    CHECKPOINT_LOCK_NAME,
    FILE_NAME,
    LAYOUTS,
    LOCK_NAME,
    WriterLock,
)
from stores.sqlite_documents import SqliteDocuments
from stores.sqlite_writer import PURGE_INTERVAL_SECONDS

ROOT = Path(__file__).parents[3]

WRITER = """
import asyncio, sys, time
from pathlib import Path
from stores.ports import Create, Patch, Upsert
from stores.sqlite_documents import SqliteDocuments

async def main(folder, who, writers, seconds):
    documents = SqliteDocuments(Path(folder))
    end, done, longest = time.monotonic() + seconds, 0, 0.0

    async def write(key):
        nonlocal done, longest
        number = 0
        while time.monotonic() < end:
            started = time.monotonic()
            await documents.batch("dicom", key, [
                Create({"id": f"ev:{number}", "t": "ev"}),
                Create({"id": f"i:{number}", "t": "i", "w": number, "z": bytes(3000)}),
                Upsert({"id": "st", "t": "st", "ni": number + 1}),
            ])
            await documents.flush()
            longest = max(longest, time.monotonic() - started)
            print(key, number, flush=True)
            number, done = number + 1, done + 1

    await asyncio.gather(*(write(f"{who}.{n}") for n in range(writers)))
    print("done", done, longest, flush=True)
    await documents.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
"""


def start_writer(
    folder: Path, who: str, writers: int, seconds: float
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), who, str(writers), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Stands for a full disk: no file of this process may grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_what_was_committed_is_there_at_the_next_start(tmp_path: Path) -> None:
    first = SqliteDocuments(tmp_path)
    await first.batch(DICOM, "p", [Create({"id": "st", "z": b"1"})])
    await first.close()
    assert not (tmp_path / f"{FILE_NAME}-wal").exists()
    second = SqliteDocuments(tmp_path)
    found = await second.read(DICOM, "p", "st")
    await second.close()
    assert found is not None
    assert found["z"] == b"1"


async def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path)
    await documents.batch(DICOM, "p", [Create({"id": "before"})])
    limit = (tmp_path / f"{FILE_NAME}-wal").stat().st_size + 100_000
    with largest_file(limit):
        writes = [
            documents.batch(DICOM, "p", [Create({"id": f"i{n}", "z": bytes(200_000)})])
            for n in range(3)
        ]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
            assert not outcome.outcome_unknown
        assert await documents.read(DICOM, "p", "before") is not None
        small = await documents.batch(DICOM, "p", [Create({"id": "small"})])
        assert isinstance(small, Committed)
    later = await documents.batch(
        DICOM, "p", [Create({"id": "i0", "z": bytes(200_000)})]
    )
    assert isinstance(later, Committed)
    page = await documents.query(DICOM, Query(None), partition_key="p", limit=10)
    assert [document["id"] for document in page.documents] == ["before", "i0", "small"]
    await documents.close()


async def test_one_bad_batch_does_not_harm_those_that_share_its_transaction(
    tmp_path: Path,
) -> None:
    documents = SqliteDocuments(tmp_path)
    bad = [Create({"id": "x"}), Patch("x", increments={("no", "parent"): 1})]
    outcomes = await asyncio.gather(
        documents.batch(DICOM, "p", [Create({"id": "a"})]),
        documents.batch(DICOM, "p", bad),
        documents.batch(DICOM, "p", [Create({"id": "b"})]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], ValueError)
    page = await documents.query(DICOM, Query(None), partition_key="p", limit=10)
    assert [document["id"] for document in page.documents] == ["a", "b"]
    await documents.close()


@pytest.mark.parametrize("at_once", [1, 20])
async def test_a_lock_that_fails_is_told_and_writing_goes_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """On the spot and in the thread of the writer, which nobody would start again."""
    documents = SqliteDocuments(tmp_path)

    def failing(_file: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", failing)
    results = await asyncio.wait_for(
        asyncio.gather(
            *(
                documents.batch(DICOM, "p", [Create({"id": f"i{n}"})])
                for n in range(at_once)
            ),
            return_exceptions=True,
        ),
        10,
    )
    assert {type(result) for result in results} == {StoreUnavailable}
    monkeypatch.undo()
    for n in range(at_once):
        await documents.batch(DICOM, "p", [Create({"id": f"i{n}"})])
    await documents.close()


def test_an_index_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    asyncio.run(_open_and_close(tmp_path))
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute(f"PRAGMA user_version={DATA_FORMAT + 1}")
    connection.close()
    with pytest.raises(StoreFormatError, match="format"):
        asyncio.run(_open_and_close(tmp_path))


@pytest.mark.parametrize("kind", ["another program's", "no database"])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE_NAME
    if kind == "no database":
        path.write_bytes(b"precious" * 1000)
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE precious (a)")
        connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreFormatError):
        asyncio.run(_open_and_close(tmp_path))
    assert path.read_bytes() == before


async def _open_and_close(folder: Path) -> None:
    await SqliteDocuments(folder).close()


async def test_index_rows_are_made_anew_when_the_layout_changed(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path)
    body = {"id": "st", "k": "k", "sk": "1", "f": {"PatientID": "a"}}
    await documents.batch(CATALOG, "p", [Create(body)])
    await documents.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute(f"DELETE FROM {LAYOUTS[CATALOG].index}")
        connection.execute("UPDATE layouts SET digest = 'another'")
    connection.close()
    documents = SqliteDocuments(tmp_path)
    query = Query(Equals(("f", "PatientID"), "a"), (Order(("k",)), Order(("sk",))))
    page = await documents.query(CATALOG, query, limit=1)
    assert len(page.documents) == 1
    await documents.close()


async def test_expired_documents_are_removed_from_the_file_in_time(
    tmp_path: Path,
) -> None:
    now = [1_000_000.0]
    documents = SqliteDocuments(tmp_path, clock=lambda: now[0])
    await documents.batch(DICOM, "p", [Create({"id": "old", "pending": "1", "ttl": 5})])
    now[0] += PURGE_INTERVAL_SECONDS + 1
    assert await documents.read(DICOM, "p", "old") is None
    await documents.batch(DICOM, "p", [Create({"id": "new", "pending": "2"})])
    await documents.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    layout = LAYOUTS[DICOM]
    assert connection.execute(f"SELECT id FROM {layout.documents}").fetchall() == [
        ("new",)
    ]
    assert connection.execute(f"SELECT DISTINCT n FROM {layout.index}").fetchall() == [
        (2,)
    ]
    connection.close()


async def test_a_flush_starts_after_the_call_and_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = SqliteDocuments(tmp_path)
    started: list[float] = []

    def slow_sync(_descriptor: int) -> None:
        started.append(time.monotonic())
        time.sleep(0.05)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    calls: list[tuple[float, float]] = []

    async def flush() -> None:
        called = time.monotonic()
        await documents.flush()
        calls.append((called, time.monotonic()))

    first = asyncio.create_task(flush())
    await asyncio.sleep(0.02)
    await asyncio.gather(first, *(flush() for _ in range(10)))
    assert len(started) == 2
    for called, returned in calls:
        assert any(called <= start and start + 0.05 <= returned for start in started)
    await documents.close()


async def test_a_failed_sync_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = SqliteDocuments(tmp_path)

    def failing(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StoreUnavailable) as caught:
        await documents.flush()
    assert caught.value.outcome_unknown
    monkeypatch.undo()
    await documents.flush()
    await documents.close()


@pytest.mark.parametrize("restarted", [False, True])
async def test_after_a_failed_sync_the_log_is_written_again_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, restarted: bool
) -> None:
    """Linux tells of lost pages once; the next sync succeeds without them.

    The disk here is a copy of what syncs have really brought there.
    """
    documents = SqliteDocuments(tmp_path / "index")
    disk = Disk(monkeypatch, tmp_path / "index" / "index.db-wal")
    await documents.batch(DICOM, "s", [Create({"id": "st"})])
    disk.fails = True
    with pytest.raises(StoreUnavailable):
        await documents.flush()
    disk.fails = False
    later = SqliteDocuments(tmp_path / "index") if restarted else documents
    await later.batch(DICOM, "s", [Create({"id": "later"})])
    await later.flush()
    on_disk = tmp_path / "after the power came back"
    on_disk.mkdir()
    (on_disk / "index.db").write_bytes((tmp_path / "index" / "index.db").read_bytes())
    (on_disk / "index.db-wal").write_bytes(disk.content)
    for each in {documents, later}:
        await each.close()
    recovered = SqliteDocuments(on_disk)
    assert await recovered.read(DICOM, "s", "later") is not None
    await recovered.close()


class Disk:
    """What is of a file on the disk: pages that a failed sync let go stay behind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.fails = False
        self.content = path.read_bytes()
        self._path = path
        self._lost = b""
        self._again = False
        real = os.pwrite
        monkeypatch.setattr(os, "fdatasync", self._sync)

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            self._again = True
            return real(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)

    def _sync(self, descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") != str(self._path.resolve()):
            return
        now = self._path.read_bytes()
        if self.fails:
            self._lost = now
            raise OSError(5, "Input/output error")
        if self._again:
            self._lost = b""
        gap = len(self._lost) - len(self.content)
        lost = slice(len(self.content), len(self._lost))
        self.content = now
        if gap > 0:  # clean pages as far as Linux knows: not written
            self.content = now[: lost.start] + bytes(gap) + now[lost.stop :]


async def test_the_log_is_moved_into_the_database_before_it_grows_large(
    tmp_path: Path,
) -> None:
    documents = SqliteDocuments(tmp_path)
    for number in range(40):
        rows = [Upsert({"id": f"i{n}", "z": bytes(20_000)}) for n in range(50)]
        await documents.batch(DICOM, f"p{number}", rows)
    deadline = time.monotonic() + 10
    while (tmp_path / FILE_NAME).stat().st_size < 30_000_000:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await documents.batch(DICOM, "p", [Create({"id": "after"})])
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size < 64_000_000
    await documents.close()


async def test_checkpoints_of_two_processes_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = SqliteDocuments(tmp_path)
    checkpointer, copied = documents._writer._checkpointer, []
    monkeypatch.setattr(checkpointer, "_copy", lambda: copied.append("copied"))
    other = WriterLock(tmp_path / CHECKPOINT_LOCK_NAME)
    with other.held():
        checkpointer._checkpoint()
    assert copied == []
    checkpointer._checkpoint()
    assert copied
    other.close()
    await documents.close()


async def test_without_the_writers_lock_no_checkpoint_starts_on_a_log_that_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = SqliteDocuments(tmp_path)
    await documents.batch(DICOM, "p", [Create({"id": "i"})])
    checkpointer, held = documents._writer._checkpointer, []
    lock = WriterLock(tmp_path / LOCK_NAME)

    def copy() -> None:
        with lock.held_if_free() as free:
            held.append((checkpointer._pages_to_copy(), free))

    monkeypatch.setattr(checkpointer, "_copy", copy)
    for pages, wanted in ((5, [(5, False)]), (500, [(500, True)] * 3 + [(500, False)])):
        held.clear()
        monkeypatch.setattr(checkpointer, "_pages_to_copy", lambda pages=pages: pages)
        checkpointer._checkpoint()
        assert held == wanted
    lock.close()
    monkeypatch.undo()
    await documents.close()


def test_a_killed_writer_leaves_whole_batches_and_all_that_it_acknowledged(
    tmp_path: Path,
) -> None:
    chance = random.Random(1)
    acknowledged: set[tuple[str, int]] = set()
    for round_number in range(4):
        writer = start_writer(tmp_path, f"r{round_number}", 4, 60)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(chance.uniform(0.05, 0.3))
        writer.send_signal(signal.SIGKILL)
        lines += writer.communicate()[0].splitlines()
        for line in lines:
            if len(words := line.split()) == 2:
                acknowledged.add((words[0], int(words[1])))
    asyncio.run(_check_whole(tmp_path, acknowledged))


async def _check_whole(folder: Path, acknowledged: set[tuple[str, int]]) -> None:
    documents = SqliteDocuments(folder)
    keys = {key for key, _ in acknowledged}
    found: set[tuple[str, int]] = set()
    for key in keys:
        study = await documents.read(DICOM, key, "st")
        assert study is not None
        for number in range(study["ni"]):
            for id in (f"ev:{number}", f"i:{number}"):
                assert await documents.read(DICOM, key, id) is not None
            found.add((key, number))
        for id in (f"ev:{study['ni']}", f"i:{study['ni']}"):
            assert await documents.read(DICOM, key, id) is None
    assert acknowledged <= found
    await documents.close()


@pytest.mark.slow
def test_no_process_starves_and_no_write_waits_long(tmp_path: Path) -> None:
    tries = []
    for turn in range(3):  # the best of three: other things run on the machine
        counts, longest = four_writers(tmp_path / str(turn))
        tries.append((counts, longest))
        if min(counts) >= sum(counts) / len(counts) / 2 and max(longest) < 1:
            return
    pytest.fail(json.dumps(tries))


def four_writers(folder: Path) -> tuple[list[int], list[float]]:
    """The writes of each of four processes, and the longest wait in seconds."""
    folder.mkdir()
    writers = [start_writer(folder, str(n), 16, 4.0) for n in range(4)]
    counts, longest = [], []
    for writer in writers:
        output, _ = writer.communicate(timeout=100)
        assert writer.returncode == 0
        _, done, worst = output.splitlines()[-1].split()
        counts.append(int(done))
        longest.append(float(worst))
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    return counts, longest
