"""What happens between the copy of the index and that of the files."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from archive import Archive, Runtime, later, names, opened, small

from dicomweb.query import Resource
from functions import timers
from maintenance import backup, restore
from maintenance.__main__ import main
from services import cleanup, leases
from services.settings import Settings

ID = {"vr": "LO", "Value": ["AFTER"]}


async def back_up(data: Path, target: Path) -> backup._Copied:
    target.mkdir()
    return await backup._archive(data, target, link=True)


def between(monkeypatch: pytest.MonkeyPatch, *works: object) -> None:
    """Lets each work happen after one copy of the index, before the files."""
    waiting = list(works)
    loop = asyncio.get_running_loop()
    copy = backup._index

    def copy_and_work(data: Path, target: Path) -> None:
        copy(data, target)
        if waiting:
            work = waiting.pop(0)
            asyncio.run_coroutine_threadsafe(work(), loop).result()

    monkeypatch.setattr(backup, "_index", copy_and_work)


async def files_of(folder: Path) -> dict[str, dict[str, bytes]]:
    """What a server on the folder would send, by study."""
    async with opened(folder) as runtime:
        here = Archive(runtime)
        return {
            row["0020000D"]["Value"][0]: (
                await here.content(row["0020000D"]["Value"][0])
            )[0]
            for row in await here.search(Resource.ALL_STUDIES)
        }


async def updated_again(here: Archive) -> None:
    """Removes the files of the version before, which the copy refers to."""
    await here.update("1.2.3", "b", t00100020=ID)


async def deleted_at_once(here: Archive) -> None:
    await here.delete("1.2.4")
    await cleanup.clean_up(later(here.runtime, days=4))


@pytest.mark.parametrize("work", [updated_again, deleted_at_once])
async def test_when_files_go_meanwhile_the_index_is_copied_again(
    tmp_path, monkeypatch, work
):
    data = tmp_path / "data"
    async with opened(data) as runtime:
        here = Archive(runtime)
        await here.put(*(small("1.2.3", n) for n in range(3)))
        await here.put(small("1.2.4", 1), small("1.2.5", 1))
        await here.update("1.2.3", "a", t00100020=ID)
        between(monkeypatch, lambda: work(here))
        copied = await back_up(data, tmp_path / "backup")
        assert copied.missing == set()
        view = await here.search(Resource.ALL_STUDIES)
        studies = [row["0020000D"]["Value"][0] for row in view]
        expected = {study: (await here.content(study))[0] for study in studies}
        assert copied.instances == sum(len(files) for files in expected.values())
    assert await files_of(tmp_path / "backup") == expected


async def test_what_is_stored_meanwhile_is_left_out_as_a_whole(tmp_path, monkeypatch):
    data = tmp_path / "data"
    async with opened(data) as runtime:
        here = Archive(runtime)
        first, second = small("1.2.3", 1), small("1.2.3", 2)
        await here.put(first)
        between(monkeypatch, lambda: here.put(second))
        await back_up(data, tmp_path / "backup")
        assert len(await names(runtime, ".dcm")) == 2
    assert await files_of(tmp_path / "backup") == {"1.2.3": {"1.2.3.9.1": first}}
    assert len(list((tmp_path / "backup" / "blobs").rglob("*.dcm"))) == 1


async def test_an_archive_that_never_rests_is_given_up(tmp_path, monkeypatch):
    data = tmp_path / "data"
    async with opened(data) as runtime:
        here = Archive(runtime)
        await here.put(small("1.2.3", 1))
        await here.update("1.2.3", "0", t00100020=ID)
        works = [
            lambda job=f"{n}": here.update("1.2.3", job, t00100020=ID)
            for n in range(1, 8)
        ]
        between(monkeypatch, *works)
        with pytest.raises(backup.CannotDo, match="changes too fast"):
            await back_up(data, tmp_path / "backup")


async def deleted(runtime: Runtime) -> Runtime:
    """The clock at which the blobs of a deleted study are due."""
    here = Archive(runtime)
    await here.put(small("1.2.3", 1))
    await here.delete("1.2.3")
    return later(runtime, days=4)


async def test_cleanup_waits_for_whoever_holds_its_lease(tmp_path):
    async with opened(tmp_path) as runtime:
        due = await deleted(runtime)
        async with leases.held(due, cleanup.LEASE, timedelta(minutes=2)):
            await timers.clean_up_deleted(due)
            assert len(await names(runtime)) == 2
        await timers.clean_up_deleted(due)
        assert await names(runtime) == []


async def test_a_lease_is_kept_longer_than_it_lasts_and_waited_for(
    tmp_path, monkeypatch
):
    async with opened(tmp_path) as runtime:
        monkeypatch.setattr(leases, "WAIT_SECONDS", 0.01)
        async with leases.held(runtime, "one", timedelta(seconds=0.3)):
            await asyncio.sleep(0.6)
            async with leases.lease(runtime, "one", timedelta(minutes=1)) as is_ours:
                assert not is_ours
            waiting = asyncio.create_task(first_of(runtime))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)


async def first_of(runtime: Runtime) -> None:
    async with leases.held(runtime, "one", timedelta(minutes=1)):
        pass


def test_a_restore_that_was_cut_short_is_begun_anew(tmp_path, monkeypatch):
    environment = {"DICOM_DATA": str(tmp_path / "data")}

    async def fill() -> None:
        async with opened(tmp_path / "data") as runtime:
            await Archive(runtime).put(small("1.2.3", 1))

    asyncio.run(fill())
    assert main(["backup", str(tmp_path / "backup")], environment) == 0
    words = ["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new")]

    async def cut_short(settings: Settings, *, hashes: bool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(restore, "_check", cut_short)
        with pytest.raises(KeyboardInterrupt):
            main(words, environment)
    assert not (tmp_path / "new" / "index").exists()
    assert main(words, environment) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "blobs",
        "index",
        "journal",
    ]


def test_the_blobs_of_a_backup_are_copied_where_links_are_not_possible(
    tmp_path, monkeypatch
):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"content")

    def refused(*_: object) -> None:
        raise OSError(18, "another file system")

    backup._place(source, target, link=True)
    assert target.stat().st_ino == source.stat().st_ino
    target.unlink()
    monkeypatch.setattr(backup.os, "link", refused)
    backup._place(source, target, link=True)
    assert target.stat().st_ino != source.stat().st_ino
    assert target.read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        backup._place(tmp_path / "none", tmp_path / "c", link=False)
    assert not list(tmp_path.glob("*.new"))


def test_settings_that_are_wrong_are_named(tmp_path, capsys):
    assert main(["scrub"], {"DICOM_STORE": "none", "DICOM_X": "1"}) == 2
    told = capsys.readouterr().err
    assert "DICOM_STORE" in told
    assert "DICOM_X" in told
    assert main(["scrub"], {"DICOM_DATA": str(tmp_path / "none")}) == 2
    assert "no archive" in capsys.readouterr().err
