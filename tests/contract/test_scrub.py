"""Scrub and rebuild, on the embedded stores and on the emulators of Azure's."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import Archive, large, later, names, opened, small
from data import new_uid
from emulators.processes import AZURITE, Emulated, both, counters
from faults import Faults

from dicomweb.errors import Conflict, StoreUnavailable
from dicomweb.query import Resource
from services import (
    cleanup,
    delete,
    new_versions,
    rebuild,
    scrub_operation,
    scrub_repair,
)
from services import documents as doc
from services.operations import OperationStatus, OperationType, errors, listed
from services.runtime import Runtime
from services.scrub import Finding, Problem
from services.scrub_operation import Options
from services.scrub_repair import Outcome, Repairs
from services.stored_names import parsed
from stores import containers
from stores.ports import BytesSource
from stores.provision import Throughput, provision

NAME = {"vr": "PN", "Value": [{"Alphabetic": "After^The^Update"}]}
ID = {"vr": "LO", "Value": ["AFTER"]}
SCRUB = "5" * 32
embedded_only = pytest.mark.parametrize("open_stores", ["embedded"], indirect=True)
"""Nothing in the test depends on how the stores work."""

Open = Callable[..., AbstractAsyncContextManager[Runtime]]


@pytest.fixture(autouse=True)
def _updates_are_spliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of large files, of whose new version nobody knows the hash."""
    monkeypatch.setattr(new_versions, "WHOLE_FILE_BYTES", 0)


@pytest.fixture(scope="module")
def apart() -> Iterator[Emulated]:
    """Emulators of our own: a scrub looks at everything there is."""
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with both() as running:
        yield running
        assert counters(running)["scans"] == [], "queries that no index serves"


@pytest.fixture(params=["embedded", "azure"])
def open_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same blobs again and again; `index` names an index."""
    blobs = new_uid().replace(".", "-")

    @asynccontextmanager
    async def open_(index: str = "first", **settings: Any) -> AsyncIterator[Runtime]:
        if request.param == "embedded":
            async with opened(folder_of(tmp_path, index), **settings) as runtime:
                yield runtime
            return
        emulated = request.getfixturevalue("apart")
        mine = replace(
            emulated,
            cosmos=replace(emulated.cosmos, database=f"{blobs}-{index}"),
            blobs=replace(emulated.blobs, container=blobs),
        )
        await provision(mine.cosmos, mine.blobs, Throughput(0))
        values = {
            name.removeprefix("DICOM_").lower(): value
            for name, value in mine.environment().items()
        }
        values["table"] = "t" + "".join(c for c in blobs if c.isdigit())[-40:]
        async with opened(tmp_path / index, **(values | settings)) as runtime:
            yield runtime

    return open_


def folder_of(parent: Path, index: str) -> Path:
    """A data folder of its own that shares the blobs."""
    folder = parent / index
    (parent / "blobs").mkdir(exist_ok=True)
    if not folder.exists():
        folder.mkdir()
        (folder / "blobs").symlink_to(parent / "blobs")
    return folder


@pytest.fixture
async def runtime(open_stores: Open) -> AsyncIterator[Runtime]:
    async with open_stores() as first:
        yield first


async def scrub(
    runtime: Runtime,
    *,
    id: str | None = None,
    backup: Any = None,
    **options: bool,
) -> dict[str, Any]:
    """The results of a scrub from beginning to end."""
    id = id or runtime.new_id()
    created = runtime.now().isoformat()
    state = await scrub_operation.prepare(runtime, id, Options(**options), created)
    while state["phase"] != scrub_operation.DONE:
        json.dumps(state)
        state = await scrub_operation.step(
            runtime, id, state, repairs=Repairs(backup=backup)
        )
    await scrub_operation.end(runtime, id, state, scrub_operation.status(state))
    return scrub_operation.progress(state).results


def nonzero(results: dict[str, Any]) -> dict[str, Any]:
    """The counters of what is not as it should be."""
    good = {"instances", "blobs", "bytes", "listed", *Options().to_json()}
    return {k: v for k, v in results.items() if v and k not in good}


async def filled(runtime: Runtime) -> Archive:
    """Three studies, one of them updated; an instance and a study deleted."""
    here = Archive(runtime)
    await here.put(
        *(small("1.2.3", n) for n in range(4)), large(StudyInstanceUID="1.2.3")
    )
    await here.put(*(small("1.2.4", n) for n in range(3)))
    await here.put(*(small("1.2.5", n) for n in range(2)))
    await here.update("1.2.3", "a", t00100010=NAME)
    await here.update("1.2.3", "b", t00100020=ID)
    await here.delete("1.2.4", "1.2.4.2", "1.2.4.9.1")
    await here.delete("1.2.5")
    return here


async def flip_byte(runtime: Runtime, name: str) -> bytes:
    """Changes one byte of a blob in place; the blob as it was."""
    before = await read(runtime, name)
    after = bytearray(before)
    after[len(after) // 2] ^= 1
    await write(runtime, name, bytes(after))
    return before


async def read(runtime: Runtime, name: str) -> bytes:
    return b"".join([bytes(chunk) async for chunk in runtime.blobs.read(name)])


async def write(runtime: Runtime, name: str, data: bytes) -> None:
    await runtime.blobs.put([(name, BytesSource(data))])


# --- scrub ---------------------------------------------------------------------------


async def test_nothing_is_found_in_an_archive_that_is_whole(runtime):
    here = await filled(runtime)
    before = await here.seen(), await names(runtime)
    results = await scrub(later(runtime, days=8))
    assert nonzero(results) == {"unhashed": 5}
    assert results["instances"] == 7
    assert results["listed"] == len(before[1])
    assert results["bytes"] > 10_000
    assert (await here.seen(), await names(runtime)) == before
    assert nonzero(await scrub(later(runtime, days=8))) == {}, "its hash is known now"


async def test_a_flipped_byte_is_found_and_repaired_from_a_backup_only(runtime):
    here = await filled(runtime)
    before = await here.seen()
    [doomed] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
    good = await flip_byte(runtime, doomed)
    assert nonzero(await scrub(runtime, hashes=False)) == {"unhashed": 5}
    assert nonzero(await scrub(runtime, dry_run=True))["damaged"] == 1
    found = nonzero(await scrub(runtime, id=SCRUB, remove_lost=True))
    assert (found["damaged"], found["left"]) == (1, 1)
    assert f"another size or hash than recorded: {doomed}" in "".join(
        await errors(runtime, SCRUB)
    )
    assert await read(runtime, doomed) != good, "what is there is kept"

    class Backup:
        async def read(self, name):
            yield good if name == doomed else b""

    found = nonzero(await scrub(runtime, backup=Backup()))
    assert (found["damaged"], found["repaired"]) == (1, 1)
    assert await here.seen() == before
    assert "damaged" not in nonzero(await scrub(runtime))


async def test_a_lost_file_is_reported_and_on_request_taken_out_of_the_index(runtime):
    here = await filled(runtime)
    file = small("1.2.4", 0)
    [lost] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
    await runtime.blobs.delete(lost)
    found = nonzero(await scrub(runtime))
    assert (found["lost"], found["left"], "removed" in found) == (1, 1, False)
    assert len(await here.search(Resource.ALL_INSTANCES)) == 7
    found = nonzero(await scrub(runtime, remove_lost=True, dry_run=True))
    assert (found["lost"], "removed" in found) == (1, False)
    found = nonzero(await scrub(runtime, remove_lost=True))
    assert (found["lost"], found["removed"]) == (1, 1)
    left = await here.search(Resource.ALL_INSTANCES)
    assert len(left) == 6
    [last] = (await runtime.feed.by_sequence(0, 1000))[-1:]
    assert (last.action, last.sop_instance_uid) == ("Delete", "1.2.4.9.0")
    assert "lost" not in nonzero(await scrub(runtime))
    await here.put(file)
    files, _, _ = await here.content("1.2.4")
    assert files["1.2.4.9.0"] == file


@embedded_only
async def test_a_lost_file_comes_back_from_another_upload_of_the_same(runtime):
    here = await filled(runtime)
    before = await here.seen()
    [lost] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
    twin = lost.rpartition("_")[0] + "_999999.dcm"
    await write(runtime, twin, await read(runtime, lost))
    await runtime.blobs.delete(lost)
    found = nonzero(await scrub(runtime, remove_lost=True))
    assert (found["lost"], found["repaired"]) == (1, 1)
    assert await here.seen() == before


@embedded_only
async def test_an_update_whose_original_is_there_is_never_removed(runtime):
    here = await filled(runtime)
    current = next(n for n in await names(runtime, ".dcm") if n.count("_") == 2)
    await runtime.blobs.delete(current)
    found = nonzero(await scrub(runtime, remove_lost=True))
    assert (found["lost"], found["left"], "removed" in found) == (1, 1, False)
    assert len(await here.search(Resource.ALL_INSTANCES)) == 7


async def test_side_blobs_are_made_anew(runtime):
    here = await filled(runtime)
    before = await here.seen()
    gone = [*await names(runtime, ".frames"), *await names(runtime, ".metadata")]
    # Metadata of the original and of the current version, and one index for both;
    # those of the small originals stand beside them since the update.
    assert len(gone) == 1 + 2 + 4
    content = {name: await read(runtime, name) for name in gone}
    for name in gone[:-1]:
        await runtime.blobs.delete(name)
    await flip_byte(runtime, gone[-1])
    found = nonzero(await scrub(runtime))
    assert (found["sideBlobs"], found["repaired"]) == (len(gone), len(gone))
    assert await here.seen() == before
    for name in gone:
        if name.endswith(".frames"):
            assert await read(runtime, name) == content[name]
    assert "sideBlobs" not in nonzero(await scrub(runtime))


async def test_an_orphan_goes_when_it_is_old_and_everything_else_stays(runtime):
    here = await filled(runtime)
    before = await here.seen(), set(await names(runtime))
    [known] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
    start = known.rpartition("_")[0]
    unknown = doc.study_folder("microsoft.default~", "1.2.99") + "1.2/1.3_2.dcm"
    orphans = [f"{start}_3.dcm", f"{start}_3.metadata", unknown]
    foreign = ["abc/readme.txt", "0" * 32 + "/results/1/2/3.dcm"]
    for name in (*orphans, *foreign):
        await write(runtime, name, b"anything")
    found = nonzero(await scrub(runtime))
    assert (found["foreign"], "orphans" in found) == (2, False)
    found = nonzero(await scrub(later(runtime, days=8), dry_run=True))
    assert (found["orphans"], found["unindexed"], "deleted" in found) == (3, 1, False)
    assert set(await names(runtime)) == {*before[1], *orphans, *foreign}
    found = nonzero(await scrub(later(runtime, days=8)))
    assert (found["orphans"], found["deleted"], found["foreign"]) == (3, 3, 2)
    assert set(await names(runtime)) == {*before[1], *foreign}
    assert await here.seen() == before[0]


async def test_what_waits_for_cleanup_is_no_orphan_however_old(runtime, monkeypatch):
    here = await filled(runtime)
    waiting = set(await names(runtime))
    assert "orphans" not in nonzero(await scrub(later(runtime, days=30)))
    assert set(await names(runtime)) == waiting
    await cleanup.clean_up(later(runtime, days=30))
    assert len(await names(runtime)) < len(waiting)

    async def unreachable(*_: object) -> None:
        raise StoreUnavailable("not now")

    # The pages are not written yet: the events alone know.
    monkeypatch.setattr(runtime.feed, "append", unreachable)
    await here.delete("1.2.4")
    assert "orphans" not in nonzero(await scrub(later(runtime, days=30)))


@embedded_only
async def test_a_list_of_the_deleted_without_its_delete_goes(runtime):
    here = await filled(runtime)
    folder = doc.study_folder("microsoft.default~", "1.2.4")
    stale = f"{folder}deleted/17_abc.json"
    await write(runtime, stale, b"[]")
    found = nonzero(await scrub(later(runtime, days=8)))
    assert (found["oldLists"], found["deleted"]) == (1, 1)
    assert stale not in await names(runtime)
    assert (await here.seen())["studies"]


async def test_an_index_older_than_its_blobs_makes_scrub_delete_nothing(
    runtime, monkeypatch
):
    here = await filled(runtime)
    newer = doc.study_folder("microsoft.default~", "1.2.99") + "1.2/1.3_999999.dcm"
    await write(runtime, newer, small("1.2.99", 1))
    found = nonzero(await scrub(later(runtime, days=8)))
    assert (found["orphans"], found["ahead"], found["left"]) == (1, 1, 1)
    assert found["warnings"][0].startswith("Blobs are newer than the index")
    assert newer in await names(runtime)
    await runtime.blobs.delete(newer)

    # An index that lacks many of the instances is not the index of these blobs.
    monkeypatch.setattr(scrub_operation, "TOLERATED", 1)
    for number in (1, 2):
        name = (
            doc.study_folder("microsoft.default~", "1.2.98") + f"1.2/1.3.{number}_2.dcm"
        )
        await write(runtime, name, b"x")
    found = nonzero(await scrub(later(runtime, days=8)))
    assert (found["unindexed"], found["left"]) == (2, 2)
    assert found["warnings"][0].startswith("The index lacks many")
    # A store that lacks many of the files is not the store of this index.
    files = [n for n in await names(runtime, ".dcm") if "/1.2.4/" in n]
    for name in files:
        await runtime.blobs.delete(name)
    found = nonzero(await scrub(runtime, remove_lost=True))
    assert (found["lost"], "removed" in found) == (2, False)
    assert len(await here.search(Resource.ALL_INSTANCES)) == 7


@embedded_only
async def test_steps_are_bounded_may_be_repeated_and_end_when_canceled(
    runtime, monkeypatch
):
    from services import operations
    from services import scrub as looks

    await filled(runtime)
    monkeypatch.setattr(looks, "PAGE", 2)
    monkeypatch.setattr(looks, "STEP_INSTANCES", 2)
    monkeypatch.setattr(looks, "LISTED", 3)
    monkeypatch.setattr(scrub_operation, "PREFIXES_A_STEP", 400)
    monkeypatch.setattr(looks.look_at_instances, "__kwdefaults__", {"limit": 2})
    [lost] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
    await runtime.blobs.delete(lost)
    options = Options(hashes=False)
    state = await scrub_operation.prepare(
        runtime, SCRUB, options, runtime.now().isoformat()
    )
    seen = [scrub_operation.progress(state).percent]
    while state["phase"] != scrub_operation.DONE:
        again = await scrub_operation.step(runtime, SCRUB, state)
        assert again == await scrub_operation.step(runtime, SCRUB, state)
        state = again
        seen.append(scrub_operation.progress(state).percent)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 100)
    assert len(seen) > 5
    assert state["counts"]["instances"] == 7
    assert state["counts"]["listed"] == len(await names(runtime))
    assert len(await errors(runtime, SCRUB)) == 1

    other = "6" * 32
    state = await scrub_operation.prepare(
        runtime, other, options, runtime.now().isoformat()
    )
    await operations.cancel(runtime, other)
    state = await scrub_operation.step(runtime, other, state)
    assert state["phase"] == scrub_operation.DONE
    assert scrub_operation.status(state) is OperationStatus.CANCELED


@embedded_only
async def test_the_report_is_in_the_journal(runtime):
    await filled(runtime)
    await scrub(runtime, id=SCRUB)
    [record] = await listed(
        runtime, type=OperationType.SCRUB, status=None, limit=9, offset=0
    )
    assert (record.id, record.status) == (SCRUB, OperationStatus.SUCCEEDED)
    assert record.progress.results["instances"] == 7
    assert record.progress.percent == 100


@embedded_only
async def test_one_scrub_after_the_other(runtime):
    assert await scrub_operation.active(runtime) is None
    await scrub_operation.take_turn(runtime, "one", None)
    with pytest.raises(scrub_operation.ScrubActive, match="operation one"):
        await scrub_operation.take_turn(runtime, "two", None)
    assert await scrub_operation.active(runtime) == "one"
    await scrub_operation.take_turn(runtime, "two", "one")
    await scrub(runtime, id="two")
    assert await scrub_operation.active(runtime) is None


# --- rebuild -------------------------------------------------------------------------


def told(_: str) -> None:
    pass


async def test_a_lost_index_comes_back_from_the_blobs_alone(open_stores):
    async with open_stores() as runtime:
        here = await filled(runtime)
        before = await here.seen()
        totals = await runtime.feed.totals()
        newest = max(
            int(n[:-4].rpartition("_")[2]) for n in await names(runtime, ".dcm")
        )
    async with open_stores("second") as runtime:
        here = Archive(runtime)
        assert await here.search(Resource.ALL_STUDIES) == []
        report = await rebuild.rebuild(runtime, told)
        assert (report.studies, report.instances, report.updated) == (2, 7, 5)
        assert (report.deleted, report.known, report.problems) == (3, 0, [])
        assert await here.seen() == before
        after = await runtime.feed.totals()
        assert (after.studies, after.instances, after.size_bytes) == (
            totals.studies,
            totals.instances,
            totals.size_bytes,
        )
        entries = await runtime.feed.by_sequence(rebuild.FEED_START - 1, 100)
        assert [e.sequence for e in entries] == [10**12 + n for n in range(7)]
        assert {e.action for e in entries} == {"Create"}
        assert (await runtime.watermarks.reserve(1)).first > newest
        # Nothing but what was deleted is left over, and all goes on as before.
        found = nonzero(await scrub(later(runtime, days=8), dry_run=True))
        assert found == {"orphans": 3, "oldLists": 2}
        await here.update("1.2.4", "c", t00100020=ID)
        await here.put(small("1.2.4", 7))
        await here.delete("1.2.3")
        assert {
            row["00100020"]["Value"][0]
            for row in await here.search(Resource.ALL_STUDIES)
        } == {"P-0001"}


async def test_data_partitions_come_back_by_their_blobs(open_stores):
    async with open_stores(data_partitions=True) as runtime:
        second, first = Archive(runtime, "Second"), Archive(runtime, "first")
        await first.put(small("1.2.3", 1, PatientID="FIRST"))
        await second.put(small("1.2.3", 1, PatientID="SECOND"))
        before = await first.seen(), await second.seen()
    async with open_stores("second") as runtime:
        with pytest.raises(Conflict, match="DICOM_DATA_PARTITIONS"):
            await rebuild.rebuild(runtime, told)
    async with open_stores("second", data_partitions=True) as runtime:
        report = await rebuild.rebuild(runtime, told)
        assert report.partitions == ["first", "second"]
        second, first = Archive(runtime, "SECOND"), Archive(runtime, "first")
        assert (await first.seen(), await second.seen()) == before
        numbers = [p.partition.number for p in await runtime.partitions.all()]
        assert numbers == [1, 2, 3]


async def test_an_interrupted_rebuild_goes_on_and_a_finished_one_is_not_repeated(
    open_stores, monkeypatch
):
    async with open_stores() as runtime:
        before = await (await filled(runtime)).seen()
    async with open_stores("second") as runtime:
        real = rebuild._Study.restore

        async def interrupted(self):
            if self._pk.endswith("1.2.4"):
                raise StoreUnavailable("in the middle")
            await real(self)

        monkeypatch.setattr(rebuild._Study, "restore", interrupted)
        with pytest.raises(StoreUnavailable):
            await rebuild.rebuild(runtime, told)
        monkeypatch.undo()
        report = await rebuild.rebuild(runtime, told)
        assert 0 < report.known < 7
        assert report.instances == 7 - report.known
        here = Archive(runtime)
        assert await here.seen() == before
        sequences = [e.sequence for e in await runtime.feed.by_sequence(0, 2 * 10**12)]
        assert sequences == [10**12 + n for n in range(7)]
        with pytest.raises(Conflict, match="--merge"):
            await rebuild.rebuild(runtime, told)
        report = await rebuild.rebuild(runtime, told, merge=True)
        assert (report.known, report.instances) == (7, 0)
        assert await here.seen() == before


async def test_an_older_index_gets_what_it_lacks(open_stores):
    """What `--merge` is for: the index was restored to a moment of the past."""
    async with open_stores() as runtime:
        await Archive(runtime).put(small("1.2.3", 1), small("1.2.3", 2))
    async with open_stores("second") as runtime:
        here = Archive(runtime)
        await rebuild.rebuild(runtime, told)
    async with open_stores() as runtime:
        here = Archive(runtime)
        await here.put(small("1.2.3", 3), small("1.2.4", 1))
        await here.delete("1.2.3", "1.2.3.2", "1.2.3.9.1")
        await here.update("1.2.3", "a", t00100020=ID)
        after = await here.seen()
    async with open_stores("second") as runtime:
        here = Archive(runtime)
        report = await rebuild.rebuild(runtime, told, merge=True)
        assert (report.known, report.instances) == (2, 2)
        assert report.revived == ["microsoft.default~|1.2.3 i:1.2.3.2:1.2.3.9.1"]
        [behind] = report.behind
        assert "/1.2.3.9.2_" in behind
        assert behind in await names(runtime, ".dcm")
        await here.delete("1.2.3", "1.2.3.2", "1.2.3.9.1")
        await here.update("1.2.3", "b", t00100020=ID)
        found = await here.seen()
        assert found["instances"] == after["instances"]
        assert found["1.2.4 False"] == after["1.2.4 False"]
        entries = await runtime.feed.by_sequence(2 * 10**12 - 1, 100)
        actions = [e.action for e in entries]
        assert actions == ["Create", "Create", "Delete", "Update", "Update"]


@embedded_only
async def test_what_cannot_be_brought_back_is_said(open_stores):
    async with open_stores() as runtime:
        here = await filled(runtime)
        files = await names(runtime, ".dcm")
        [broken] = [n for n in files if "1.2.4.9.0_" in n]
        await write(runtime, broken, b"no DICOM at all")
        [other] = [n for n in files if "1.2.4.9.2_" in n]
        await write(runtime, other, small("1.2.4", 3))
        original = next(n for n in files if "1.2.3.9.0_" in n and n.count("_") == 1)
        await runtime.blobs.delete(original)
        before = await here.search(Resource.ALL_INSTANCES)
    async with open_stores("second") as runtime:
        report = await rebuild.rebuild(runtime, told)
        here = Archive(runtime)
        assert report.instances == len(before) - 3
        assert sorted(problem.partition(":")[0] for problem in report.problems) == [
            "A file is no valid instance",
            "A file is of another instance",
            "The original of an updated instance is missing",
        ]
        assert len(await here.search(Resource.ALL_INSTANCES)) == 4


@embedded_only
async def test_of_several_uploads_the_committed_one_comes_back(open_stores):
    async with open_stores() as runtime:
        here = Archive(runtime)
        await here.put(small("1.2.3", 1), small("1.2.3", 2))
        await here.update("1.2.3", "a", t00100020=ID)
        files = await names(runtime, ".dcm")
        first, second = (
            next(name for name in files if f"1.2.3.9.{i}_" in name) for i in (1, 2)
        )
        # A later upload that was refused, and an earlier one whose process died.
        await write(
            runtime,
            first.rpartition("/")[0] + "/1.2.3.9.1_999.dcm",
            small("1.2.3", 1, PatientID="LATER"),
        )
        await write(
            runtime,
            second.rpartition("/")[0] + "/1.2.3.9.2_0.dcm",
            small("1.2.3", 2, PatientID="EARLIER"),
        )
        before = await here.seen()
    async with open_stores("second") as runtime:
        report = await rebuild.rebuild(runtime, told)
        assert (report.instances, report.others) == (2, 2)
        assert await Archive(runtime).seen() == before


@embedded_only
async def test_of_uploads_that_were_never_updated_the_newest_comes_back(open_stores):
    """The process died before the commit of the first, and the client sent another."""
    async with open_stores() as runtime:
        here = Archive(runtime)
        await here.put(small("1.2.3", 1), small("1.2.3", 2))
        files = await names(runtime, ".dcm")
        first, second = (
            next(name for name in files if f"1.2.3.9.{i}_" in name) for i in (1, 2)
        )
        rival = first.rpartition("/")[0] + "/1.2.3.9.1_0.dcm"
        await write(runtime, rival, small("1.2.3", 1, PatientID="NEVER-COMMITTED"))
        same = second.rpartition("/")[0] + "/1.2.3.9.2_0.dcm"
        await write(runtime, same, small("1.2.3", 2))
        before = await here.seen()
    async with open_stores("second") as runtime:
        report = await rebuild.rebuild(runtime, told)
        assert (report.instances, report.others) == (2, 2)
        assert report.rivals == [rival]
        assert await Archive(runtime).seen() == before


@embedded_only
async def test_a_deleting_study_is_nobody_s_loss(runtime, monkeypatch):
    """A study on its way out is not reported, whatever of it is gone already."""
    here = await filled(runtime)
    monkeypatch.setattr(delete, "MAX_OPERATIONS", 4)
    study = await runtime.documents.read(
        containers.DICOM, "microsoft.default~|1.2.4", doc.STUDY
    )
    await delete._mark_deleting(runtime, "microsoft.default~|1.2.4", study)
    for name in [n for n in await names(runtime, ".dcm") if "/1.2.4/" in n]:
        await runtime.blobs.delete(name)
    assert "lost" not in nonzero(await scrub(runtime))
    assert len(await here.search(Resource.ALL_STUDIES)) == 1


async def test_the_last_look_before_a_delete_spares_what_is_in_use(runtime):
    here = await filled(runtime)
    before = await here.seen(), await names(runtime)
    old = later(runtime, days=30)
    pk = "microsoft.default~|1.2.4"
    for name in before[1]:
        found = parsed(name)
        finding = Finding(Problem.ORPHAN, found.pk, found.instance_id, name)
        outcome = await scrub_repair.repair(old, finding, Repairs())
        assert outcome is Outcome.STALE, name
    young = before[1][0].rpartition("_")[0] + "_1.dcm"
    await write(runtime, young, b"just uploaded, not committed yet")
    finding = Finding(Problem.ORPHAN, pk, parsed(young).instance_id, young)
    assert await scrub_repair.repair(runtime, finding, Repairs()) is Outcome.STALE
    held = Repairs(delete_orphans=False)
    assert await scrub_repair.repair(old, finding, held) is Outcome.HELD
    assert await names(runtime) == sorted([*before[1], young])
    assert await scrub_repair.repair(old, finding, Repairs()) is Outcome.DELETED
    assert (await here.seen(), await names(runtime)) == before


@pytest.mark.parametrize("seed", range(4))
async def test_stores_that_fail_make_no_findings_and_lose_nothing(tmp_path, seed):
    faults = Faults()
    async with opened(tmp_path, faults=faults) as runtime:
        here = await filled(runtime)
        [lost] = [n for n in await names(runtime, ".dcm") if "1.2.4.9.0_" in n]
        [frames] = await names(runtime, ".frames")
        before = await here.content("1.2.3")
        for name in (lost, frames):
            await runtime.blobs.delete(name)
        blobs = set(await names(runtime))
        old = later(runtime, days=8)
        state = await scrub_operation.prepare(
            old, SCRUB, Options(remove_lost=True), old.now().isoformat()
        )
        faults.random(seed=seed, share=0.05)
        while state["phase"] != scrub_operation.DONE:
            with suppress(StoreUnavailable):
                state = await scrub_operation.step(old, SCRUB, state)
        faults.stop()
        counts = state["counts"]
        found = [counts[name] for name in ("lost", "sideBlobs", "damaged", "orphans")]
        assert found == [1, 1, 0, 0]
        await runtime.publisher.heal(minimum_age_seconds=-1)
        assert await here.content("1.2.3") == before
        assert set(await names(runtime)) >= blobs | {frames}
        assert len(await here.search(Resource.ALL_INSTANCES)) == 6
        # A hash that could not be recorded then is now.
        assert nonzero(await scrub(runtime)).keys() <= {"unhashed"}
        assert nonzero(await scrub(runtime)) == {}
