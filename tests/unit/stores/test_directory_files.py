"""The directory of blobs as files: order of syncs, leftovers, failures of the disk."""

import asyncio
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomweb.errors import StoreUnavailable
from stores.directory_blobs import DirectoryBlobs
from stores.directory_files import copy_range
from stores.disk import sync_data
from stores.ports import BlobMissing, BytesSource
from stores.staging import FOLDER_NAME, Staging


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    )


class Calls:
    """The system calls that matter for durability, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.seen: list[tuple[str, str]] = []
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._sync(name))
        rename = os.rename

        def renamed(source: str, target: str) -> None:
            rename(source, target)
            self.seen.append(("rename", os.path.relpath(target, root)))

        monkeypatch.setattr(os, "rename", renamed)
        self._root = root

    def _sync(self, name: str):
        real = getattr(os, name)

        def synced(descriptor: int) -> None:
            real(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            relative = os.path.relpath(path, self._root)
            staged = relative.startswith(FOLDER_NAME)
            self.seen.append(("sync", "staged" if staged else relative))

        return synced


async def test_a_put_is_durable_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobs(tmp_path)
    calls = Calls(monkeypatch, tmp_path)
    await blobs.put([("a/p/study/series/1.dcm", BytesSource(b"1"))])
    assert calls.seen == [
        ("sync", "staged"),
        ("rename", "a/p/study/series/1.dcm"),
        *(
            ("sync", name)
            for name in ("a/p/study/series", "a/p/study", "a/p", "a", ".")
        ),
    ]
    calls.seen.clear()
    await blobs.put([("a/p/study/series/2.dcm", BytesSource(b"2"))])
    assert calls.seen == [
        ("sync", "staged"),
        ("rename", "a/p/study/series/2.dcm"),
        ("sync", "a/p/study/series"),
    ]
    await blobs.close()


async def test_folders_are_synced_once_and_after_all_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobs(tmp_path)
    calls = Calls(monkeypatch, tmp_path)
    await blobs.put([(f"a/s{n % 2}/{n}", BytesSource(b"1")) for n in range(20)])
    folders = [name for kind, name in calls.seen if kind == "sync" and name != "staged"]
    assert sorted(folders) == [".", "a", "a/s0", "a/s1"]
    last_rename = max(n for n, (kind, _) in enumerate(calls.seen) if kind == "rename")
    assert all(
        kind == "rename" or name == "staged" for kind, name in calls.seen[:last_rename]
    )
    await blobs.close()


async def test_a_folder_made_again_by_another_is_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, other = DirectoryBlobs(tmp_path), DirectoryBlobs(tmp_path)
    await blobs.put([("a/b/1", BytesSource(b"1"))])
    await other.delete("a/b/1")
    assert not (tmp_path / "a").exists()
    (tmp_path / "keep").mkdir()  # so that the inode is not used again at once
    os.makedirs(tmp_path / "a/b")
    calls = Calls(monkeypatch, tmp_path)
    await blobs.put([("a/b/2", BytesSource(b"2"))])
    assert ("sync", "a/b") in calls.seen
    await blobs.close()
    await other.close()


async def test_nothing_is_synced_when_only_crashes_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobs(tmp_path, survives_power_loss=False)
    calls = Calls(monkeypatch, tmp_path)
    await blobs.put([("a/b", BytesSource(b"1"))])
    assert calls.seen == [("rename", "a/b")]
    await blobs.close()


@pytest.mark.parametrize("count", [1, 5])
async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, count: int) -> None:
    blobs = DirectoryBlobs(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreUnavailable, match="full"):
            await blobs.put(
                [(f"a/{n}", BytesSource(bytes(200_000))) for n in range(count)]
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_below(tmp_path) == []
    await blobs.put([("a/0", BytesSource(bytes(200_000)))])
    assert files_below(tmp_path) == ["a/0"]
    await blobs.close()


async def test_deleting_the_last_blob_removes_its_folders(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    await blobs.put([("a/b/1", BytesSource(b"1")), ("a/c/2", BytesSource(b"2"))])
    await blobs.delete("a/b/1")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["c"]
    await blobs.close()


async def test_what_a_dead_process_staged_is_removed_and_a_living_one_keeps_its_own(
    tmp_path: Path,
) -> None:
    dead = tmp_path / FOLDER_NAME / "dead"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "7").write_bytes(b"half")
    living = Staging(tmp_path)
    Path(living.new_path()).write_bytes(b"under way")
    blobs = DirectoryBlobs(tmp_path)
    assert not dead.exists()
    assert [path.read_bytes() for path in living.folder.glob("0")] == [b"under way"]
    assert [each async for each in blobs.list("")] == []
    await blobs.close()
    living.close()
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []


async def test_names_of_the_store_itself_are_refused(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    for name in (".tmp/x", "a/" + "b" * 256, "a/" * 600 + "b"):
        with pytest.raises(ValueError, match="name"):
            await blobs.put([(name, BytesSource(b"1"))])
    await blobs.close()


def test_a_system_without_linux_calls_copies_and_syncs_all_the_same(
    tmp_path, monkeypatch
):
    for name in ("fdatasync", "copy_file_range"):
        monkeypatch.delattr(os, name)
    content = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(content)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    copy_range(source, target, 5)
    sync_data(target)
    for each in (source, target):
        os.close(each)
    assert (tmp_path / "target").read_bytes() == content[5:]


@pytest.mark.parametrize("instead", ["nothing", "file", "empty disk"])
async def test_no_blob_is_called_missing_while_the_whole_folder_is_gone(
    tmp_path, instead
):
    root = tmp_path / "blobs"
    blobs = DirectoryBlobs(root)
    await blobs.put([("a/b", BytesSource(b"1"))])
    root.rename(tmp_path / "hidden")
    if instead == "file":
        root.touch()
    elif instead == "empty disk":
        root.mkdir()
    with pytest.raises(StoreUnavailable):
        await blobs.properties("a/b")
    with pytest.raises(StoreUnavailable):
        [chunk async for chunk in blobs.read("a/b")]
    if instead == "file":
        root.unlink()
    elif instead == "empty disk":
        root.rmdir()
    (tmp_path / "hidden").rename(root)
    assert await blobs.properties("a/c") is None
    with pytest.raises(BlobMissing):
        [chunk async for chunk in blobs.read("a/c")]
    assert [bytes(chunk) async for chunk in blobs.read("a/b")] == [b"1"]
    await blobs.close()


async def test_a_long_list_has_every_blob_once(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path, survives_power_loss=False)
    wanted = [f"{n // 700:03x}/{n:05d}" for n in range(1777)]
    await blobs.put([(name, BytesSource(b"")) for name in wanted])
    assert [each.name async for each in blobs.list("")] == wanted
    await blobs.close()


SERIES, STUDY = "a/p/study/series", "a/p/study"


def failing_once(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    """Lets the first fsync fail of a path that is chosen."""
    real, failed = os.fsync, []

    def sync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if fails(path) and not failed:
            failed.append(path)
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)


async def test_a_folder_whose_parent_could_not_be_synced_is_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobs(tmp_path)
    failing_once(monkeypatch, lambda path: path.endswith(STUDY))
    calls = Calls(monkeypatch, tmp_path)
    with pytest.raises(StoreUnavailable):
        await blobs.put([(f"{SERIES}/1.dcm", BytesSource(b"1"))])
    calls.seen.clear()
    await blobs.put([(f"{SERIES}/2.dcm", BytesSource(b"2"))])
    assert ("sync", STUDY) in calls.seen, "the entry of the series may be lost"
    assert ("sync", "a") in calls.seen
    await blobs.close()


async def test_nobody_relies_on_a_sync_of_a_parent_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobs(tmp_path)
    begun, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def slow(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(STUDY) and not begun.is_set():
            begun.set()
            assert go_on.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    calls = Calls(monkeypatch, tmp_path)
    first = asyncio.create_task(
        blobs.put([(f"{SERIES}/1.dcm", BytesSource(b"1"))]),
    )
    await asyncio.to_thread(begun.wait, 10)
    await blobs.put([(f"{SERIES}/2.dcm", BytesSource(b"2"))])
    assert ("sync", STUDY) in calls.seen
    go_on.set()
    await first
    await blobs.close()


async def test_a_folder_that_was_made_again_is_new_also_by_its_old_inode_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process cleaned up and stored again; file systems reuse numbers."""
    blobs = DirectoryBlobs(tmp_path)
    await blobs.put([(f"{SERIES}/1.dcm", BytesSource(b"1"))])
    (tmp_path / SERIES).rename(tmp_path / "same inode")
    (tmp_path / "same inode").rename(tmp_path / SERIES)
    calls = Calls(monkeypatch, tmp_path)
    await blobs.put([(f"{SERIES}/2.dcm", BytesSource(b"2"))])
    assert ("sync", STUDY) in calls.seen
    await blobs.close()


class Stream:
    """A source that is neither bytes nor a file: an export's."""

    size_bytes = 3 << 20
    movable_path = None

    async def chunks(self):
        for _ in range(3):
            yield b"p" * (1 << 20)


@pytest.mark.parametrize("way", ["put", "splice"])
async def test_a_thread_whose_caller_is_gone_writes_into_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The number of a closed descriptor is the next file's."""
    blobs = DirectoryBlobs(tmp_path / "blobs")
    await blobs.put([("a/source", BytesSource(b"p" * (1 << 20)))])
    begun, go_on = threading.Event(), threading.Event()
    name = "writev" if way == "put" else "copy_file_range"
    real = getattr(os, name)

    def late(*arguments: object) -> int:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(10)
        return real(*arguments)

    monkeypatch.setattr(os, name, late)
    if way == "put":
        under_way = asyncio.create_task(blobs.put([("a/b", Stream())]))
    else:
        under_way = asyncio.create_task(blobs.splice("a/b", b"head", "a/source", 0))
    await asyncio.to_thread(begun.wait, 10)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    others = [(tmp_path / str(n)).open("w+b") for n in range(20)]
    for other in others:
        other.write(b"another patient")
        other.flush()
    go_on.set()
    await asyncio.to_thread(blobs._threads.shutdown)
    for n, other in enumerate(others):
        other.close()
        assert (tmp_path / str(n)).read_bytes() == b"another patient"
    found = tmp_path / "blobs" / "a" / "b"
    assert not found.exists() or found.read_bytes() == b"head" + b"p" * (1 << 20)
    await blobs.close()
