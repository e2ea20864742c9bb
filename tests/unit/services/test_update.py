"""Bulk update of a study: staged, flipped at once, folded, original kept."""

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import orjson
import pydicom
import pytest
from data import data_set, file_of, instance
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian

from dicomweb import update as rules
from dicomweb.errors import Conflict
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query import Resource, parse
from services import (
    bulk_data,
    changes,
    cleanup,
    delete,
    event_parts,
    retrieve,
    search,
    store,
    update,
)
from services import documents as doc
from services.retrieve import Scope
from stores import containers
from stores.ports import Delete, Equals, Query

HERE = Partition("Microsoft.Default")
CHANGE = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "New^Name^Of^Patient"}]},
    "00100020": {"vr": "LO", "Value": ["NEW-ID"]},
    "00101010": {"vr": "AS", "Value": ["045Y"]},
}


async def events(files):
    for file in files:
        yield PartBegin({})
        yield PartData(file)
        yield PartEnd()


async def put(runtime, *files):
    return await store.store_instances(
        runtime, HERE, events(files), study_instance_uid=None, version=2
    )


def job_of(runtime, study, id="a" * 32, change=CHANGE):
    return update.Job(runtime, HERE, study, id, change)


async def run(job):
    assert await update.begin(job)
    await stage_all(job)
    count = await update.flip(job)
    await fold_all(job)
    await update.finish(job)
    return count


async def stage_all(job):
    after = None
    while True:
        staged = await update.stage(job, after)
        assert staged.errors == []
        after = staged.after
        if after is None:
            return


async def fold_all(job):
    after = await update.fold(job, None)
    while after is not None:
        after = await update.fold(job, after)


async def read_all(runtime, study, *, original=False):
    found = await retrieve.files(runtime, Scope(HERE, study), "*", original=original)
    return {
        file.sop_instance_uid: b"".join(
            [bytes(c) async for c in retrieve.read_file(runtime, file)]
        )
        for file in found
    }


async def names_in_metadata(runtime, study, *, original=False):
    answer = await retrieve.metadata(runtime, Scope(HERE, study), original=original)
    filled = await retrieve.filled(runtime, Scope(HERE, study).pk, answer.documents)
    rows = [retrieve.metadata_object(row, "http://t/v2") for row in filled]
    return {row["00100010"]["Value"][0]["Alphabetic"] for row in rows}


@pytest.fixture
async def study(runtime):
    uid = "1.2.826.0.1.77"
    files = [
        instance(StudyInstanceUID=uid, InstanceNumber=n, PatientName="Old^Name")
        for n in range(30)
    ]
    await put(runtime, *files)
    return uid, files


async def test_every_reader_sees_the_old_study_until_the_flip_and_the_new_after(
    runtime, study
):
    uid, files = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    assert await names_in_metadata(runtime, uid) == {"Old^Name"}
    assert set((await read_all(runtime, uid)).values()) == set(files)
    assert await update.flip(job) == 30
    assert await names_in_metadata(runtime, uid) == {"New^Name^Of^Patient"}
    before_fold = await read_all(runtime, uid)
    assert set((await read_all(runtime, uid, original=True)).values()) == set(files)
    assert await names_in_metadata(runtime, uid, original=True) == {"Old^Name"}
    await fold_all(job)
    await update.finish(job)
    assert await read_all(runtime, uid) == before_fold
    for file in before_fold.values():
        ds = pydicom.dcmread(io.BytesIO(file))
        assert ds.PatientName == "New^Name^Of^Patient"
        assert ds.PatientID == "NEW-ID"
        assert ds.PatientAge == "045Y"
        assert ds.StudyDescription == "Chest"
    assert set((await read_all(runtime, uid, original=True)).values()) == set(files)
    assert await names_in_metadata(runtime, uid, original=True) == {"Old^Name"}


@pytest.mark.parametrize("read", ["metadata", "files"])
async def test_a_reader_of_several_pages_sees_no_half_of_an_update(
    runtime, study, monkeypatch, read
):
    """The update becomes current, and is folded, between two of its pages."""
    uid, _ = study
    monkeypatch.setattr(retrieve, "_PAGE", 10)
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    query = runtime.documents.query
    pages = []

    async def turning(*arguments, **options):
        page = await query(*arguments, **options)
        if options.get("limit") == 10:
            pages.append(page)
            if len(pages) == 2:
                await update.flip(job)
                await fold_all(job)
                await update.finish(job)
        return page

    monkeypatch.setattr(
        type(runtime.documents), "query", lambda _, *a, **o: turning(*a, **o)
    )
    if read == "metadata":
        assert len(await names_in_metadata(runtime, uid)) == 1
    else:
        found = await read_all(runtime, uid)
        names = {pydicom.dcmread(io.BytesIO(f)).PatientID for f in found.values()}
        assert names == {"NEW-ID"}
    assert len(pages) > 4


async def test_search_and_feed_follow_the_update(runtime, study):
    uid, _ = study
    await run(job_of(runtime, uid))
    query = parse(
        Resource.ALL_STUDIES, [("PatientID", "new-id")], version=1, query_tags=()
    )
    (row,) = (await search.search(runtime, HERE, query, "")).rows
    assert row["00100010"]["Value"] == [{"Alphabetic": "New^Name^Of^Patient"}]
    entries = await runtime.feed.by_sequence(0, 1000)
    states = await changes.with_states(
        runtime, entries, include_metadata=False, base_url=""
    )
    assert [s.action.value for s in states] == ["Create"] * 30 + ["Update"] * 30
    assert {s.state.value for s in states[:30]} == {"Replaced"}
    assert {s.state.value for s in states[30:]} == {"Current"}


async def test_a_second_update_keeps_the_first_original_and_drops_the_one_between(
    runtime, study
):
    uid, files = study
    await run(job_of(runtime, uid))
    second = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Third"}]}}
    await run(job_of(runtime, uid, "b" * 32, second))
    assert await names_in_metadata(runtime, uid) == {"Third"}
    assert set((await read_all(runtime, uid, original=True)).values()) == set(files)
    assert await clean_up_after(runtime, update.REPLACED_DELAY / 2) == 0
    assert len(await stored_files(runtime)) == 90
    assert await clean_up_after(runtime, update.REPLACED_DELAY * 2) > 0
    assert len(await stored_files(runtime)) == 60
    assert await names_in_metadata(runtime, uid) == {"Third"}
    assert set((await read_all(runtime, uid, original=True)).values()) == set(files)


async def stored_files(runtime):
    return [b.name async for b in runtime.blobs.list("") if b.name.endswith(".dcm")]


async def clean_up_after(runtime, time):
    """How many blobs a clean-up removes then."""
    now = runtime.now() + time
    return (await cleanup.clean_up(replace(runtime, now=lambda: now))).blobs


async def test_an_abandoned_update_leaves_nothing_behind(runtime, study):
    uid, files = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    await update.abandon(job)
    assert set((await read_all(runtime, uid)).values()) == set(files)
    names = [b.name async for b in runtime.blobs.list("")]
    assert len(names) == 30
    await run(job_of(runtime, uid, "c" * 32))


async def test_what_was_deleted_meanwhile_is_in_no_event(runtime, study):
    uid, files = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    gone = pydicom.dcmread(io.BytesIO(files[0]))
    scope = Scope(HERE, uid, gone.SeriesInstanceUID, gone.SOPInstanceUID)
    await delete.delete(runtime, scope)
    assert await update.flip(job) == 29
    entries = await runtime.feed.by_sequence(0, 1000)
    updated = [e for e in entries if e.action == "Update"]
    assert len(updated) == 29
    assert gone.SOPInstanceUID not in {e.sop_instance_uid for e in updated}


async def test_a_deflated_file_keeps_its_frames(runtime):
    path = get_testdata_file("image_dfl.dcm")
    file = Path(path).read_bytes()
    ds = pydicom.dcmread(io.BytesIO(file))
    await put(runtime, file)
    scope = Scope(HERE, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)

    async def frame():
        found = await retrieve.frames(
            runtime, scope, [1], media_type="application/octet-stream",
            transfer_syntax="*",
        )  # fmt: skip
        result = await anext(found.frames)
        return await result.part(0, result.size_bytes)

    before = await frame()
    short = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A"}]}}
    await run(job_of(runtime, ds.StudyInstanceUID, change=short))
    assert await frame() == before == ds.PixelData


async def test_of_a_large_file_only_the_header_is_read(runtime, monkeypatch):
    uid = "1.2.826.0.1.79"
    pixels = bytes(range(256)) * 256 * 100
    file = instance(
        StudyInstanceUID=uid,
        Rows=1280,
        Columns=1280,
        NumberOfFrames=2,
        BitsAllocated=16,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        PixelRepresentation=0,
        PixelData=pixels,
    )
    await put(runtime, file)
    read = []
    read_range = runtime.blobs.read_range

    async def counted(name, offset, length):
        read.append(length)
        return await read_range(name, offset, length)

    monkeypatch.setattr(runtime.blobs, "read_range", counted)
    await run(job_of(runtime, uid))
    assert sum(read) < 10_000
    monkeypatch.undo()
    [new] = (await read_all(runtime, uid)).values()
    ds = pydicom.dcmread(io.BytesIO(new))
    assert (ds.PatientID, ds.PixelData) == ("NEW-ID", pixels)
    [old] = (await read_all(runtime, uid, original=True)).values()
    assert old == file
    scope = Scope(HERE, uid, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    bulk = await bulk_data.find(runtime, scope, "7FE00010", "*")
    value = [bytes(c) async for c in bulk_data.read(runtime, bulk, 0, len(pixels))]
    assert b"".join(value) == pixels


async def test_a_text_that_was_bulk_data_is_so_no_more(runtime):
    uid = "1.2.826.0.1.80"
    dataset = data_set(StudyInstanceUID=uid, PatientComments="x" * (2 << 20))
    file = file_of(dataset, transfer_syntax=ImplicitVRLittleEndian)
    await put(runtime, file)
    change = {"00104000": {"vr": "LT", "Value": ["short"]}}
    await run(job_of(runtime, uid, change=change))
    answer = await retrieve.metadata(runtime, Scope(HERE, uid))
    [row] = await retrieve.filled(runtime, Scope(HERE, uid).pk, answer.documents)
    assert retrieve.metadata_object(row, "")["00104000"] == change["00104000"]
    assert "00104000" not in {bulk.path for bulk in doc.bulk_of(row)}
    [new] = (await read_all(runtime, uid)).values()
    assert pydicom.dcmread(io.BytesIO(new)).PatientComments == "short"


async def test_series_beyond_one_commit_follow(runtime, monkeypatch):
    monkeypatch.setattr(update, "MAX_SERIES", 2)
    uid = "1.2.826.0.1.78"
    files = [
        instance(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.{n}") for n in range(5)
    ]
    await put(runtime, *files)
    await run(job_of(runtime, uid))
    query = parse(Resource.ALL_SERIES, [("includefield", "all")], version=1,
                  query_tags=())  # fmt: skip
    rows = (await search.search(runtime, HERE, query, "")).rows
    assert [row["00100020"]["Value"] for row in rows] == [["NEW-ID"]] * 5


async def updates_in_the_feed(runtime):
    entries = await runtime.feed.by_sequence(0, 1_000_000)
    assert [e.sequence for e in entries] == list(range(1, len(entries) + 1))
    return [e.sop_instance_uid for e in entries if e.action == "Update"]


async def parts_of(runtime, uid):
    page = await runtime.documents.query(
        containers.DICOM,
        Query(Equals(("t",), "en")),
        partition_key=Scope(HERE, uid).pk,
        limit=1000,
    )
    return page.documents


async def test_more_instances_than_an_event_can_name_become_current_at_once(
    runtime, study, monkeypatch
):
    monkeypatch.setattr(event_parts, "ENTRIES", 7)
    uid, files = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    write, written = event_parts.write, []

    async def recorded(*arguments):
        written.append(await write(*arguments))
        return written[-1]

    monkeypatch.setattr(event_parts, "write", recorded)
    assert await update.flip(job) == 30
    assert [parts["count"] for parts in written] == [5]
    assert await names_in_metadata(runtime, uid) == {"New^Name^Of^Patient"}
    updated = await updates_in_the_feed(runtime)
    stored = [pydicom.dcmread(io.BytesIO(f)).SOPInstanceUID for f in files]
    assert sorted(updated) == sorted(stored)
    await fold_all(job)
    await update.finish(job)
    await runtime.publisher.close()
    assert all(part["ttl"] > 0 for part in await parts_of(runtime, uid))


async def test_parts_that_no_event_names_are_dropped(runtime, study, monkeypatch):
    monkeypatch.setattr(event_parts, "ENTRIES", 7)
    uid, _ = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    documents, pk = runtime.documents, job.pk
    await event_parts.write(documents, pk, job.id, "1" * 32, [["a", "b", 1]] * 20)
    await event_parts.write(documents, pk, "b" * 32, "2" * 32, [["a", "b", 1]])
    await update.flip(job)
    await fold_all(job)
    await update.finish(job)
    tokens = {part["token"] for part in await parts_of(runtime, uid)}
    assert "1" * 32 not in tokens
    assert "2" * 32 in tokens


async def test_a_lost_part_is_told_and_the_others_are_published(
    runtime, study, monkeypatch, caplog
):
    monkeypatch.setattr(event_parts, "ENTRIES", 7)
    uid, _ = study
    job = job_of(runtime, uid)
    await update.begin(job)
    await stage_all(job)
    monkeypatch.setattr(runtime.publisher, "publish", lambda commit: None)
    await update.flip(job)
    parts = await parts_of(runtime, uid)
    await runtime.documents.batch(containers.DICOM, job.pk, [Delete(parts[1]["id"])])
    monkeypatch.undo()
    await runtime.publisher.heal(minimum_age_seconds=-1)
    assert len(await updates_in_the_feed(runtime)) == 30 - 7
    assert "is lost" in caplog.text


@pytest.mark.parametrize("strict", [20, 0])
async def test_stores_into_the_study_go_on_meanwhile(
    runtime, study, monkeypatch, strict
):
    monkeypatch.setattr(update, "STRICT_TRIES", strict)
    uid, files = study
    added = []
    stop = asyncio.Event()

    async def keep_storing():
        while not stop.is_set():
            added.append(instance(StudyInstanceUID=uid, PatientName="Late^Name"))
            await put(runtime, added[-1])

    storing = asyncio.create_task(keep_storing())
    count = await run(job_of(runtime, uid))
    stop.set()
    await storing
    assert count >= len(files)
    assert len(await read_all(runtime, uid)) == len(files) + len(added)
    assert await names_in_metadata(runtime, uid) <= {
        "New^Name^Of^Patient",
        "Late^Name",
    }
    originals = await read_all(runtime, uid, original=True)
    assert set(originals.values()) == {*files, *added}


async def test_a_study_that_is_too_large_is_not_begun(runtime, study, monkeypatch):
    uid, _ = study
    monkeypatch.setattr(update, "MAX_INSTANCES", 29)
    with pytest.raises(Conflict, match="more than 29 instances"):
        await update.begin(job_of(runtime, uid))


async def test_two_jobs_do_not_work_on_one_study(runtime, study):
    uid, _ = study
    assert await update.begin(job_of(runtime, uid))
    with pytest.raises(Conflict):
        await update.begin(job_of(runtime, uid, "b" * 32))


async def test_an_unknown_study_is_not_begun(runtime):
    assert not await update.begin(job_of(runtime, "1.2.3"))


async def test_deleting_an_updated_study_lists_both_versions_for_cleanup(
    runtime, study
):
    uid, _ = study
    await run(job_of(runtime, uid))
    stored = {b.name async for b in runtime.blobs.list("")}
    await delete.delete(runtime, Scope(HERE, uid))
    listed = set()
    for bucket in range(16):
        page = await runtime.documents.query(
            "cleanup",
            doc_query(),
            partition_key=str(bucket),
            limit=100,
        )
        for row in page.documents:
            listed |= set(row["names"])
    assert stored <= listed


def doc_query():
    from stores.ports import Query

    return Query(None)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "rtplan.dcm",
        "JPEG2000.dcm",
        "US1_UNCI.dcm",
    ],
)
async def test_real_files_keep_every_other_element_and_their_pixels(runtime, name):
    path = get_testdata_file(name)
    file = Path(path).read_bytes()
    ds = pydicom.dcmread(io.BytesIO(file))
    await put(runtime, file)
    await run(job_of(runtime, ds.StudyInstanceUID))
    (new,) = (await read_all(runtime, ds.StudyInstanceUID)).values()
    changed = pydicom.dcmread(io.BytesIO(new))
    for tag, element in CHANGE.items():
        del element
        assert tag in {f"{int(e.tag):08X}" for e in changed}
        if int(tag, 16) in ds:
            del ds[int(tag, 16)]
        del changed[int(tag, 16)]
    for group in (0x0010,):
        ds.pop((group, 0), None)
    assert changed == ds
    scope = Scope(HERE, ds.StudyInstanceUID)
    answer = await retrieve.metadata(runtime, scope)
    (row,) = await retrieve.filled(runtime, scope.pk, answer.documents)
    for bulk in doc.bulk_of(row):
        path, offset, length = bulk.path, bulk.offset, bulk.length
        group, element = int(path[:4], 16), int(path[4:8], 16)
        if "/" not in path and (group, element) in changed:
            value = changed[group, element].value
            if (
                isinstance(value, bytes)
                and not changed[group, element].is_undefined_length
            ):
                assert bytes_of(row, new, offset, length) == value
    orjson.dumps(retrieve.metadata_object(row, "http://t/v2"))


def bytes_of(row, file, offset, length):
    from dicomweb import scan

    data = scan.scan(file).buffer if row.get("defl") else file
    return bytes(data[offset : offset + length])


def test_only_listed_attributes_may_be_changed_and_all_problems_are_told():
    with pytest.raises(rules.RefusedChange) as refused:
        rules.parse(
            {
                "studyInstanceUids": ["1.2"],
                "changeDataset": {
                    "0020000E": {"vr": "UI", "Value": ["1.2"]},
                    "00100030": {"vr": "DA", "Value": ["not a date"]},
                },
            }
        )
    assert len(refused.value.problems) == 2
    assert refused.value.problems[0].startswith("DICOM100: (0020,000e) - ")


@pytest.mark.parametrize(
    ("tag", "vr", "values"),
    [
        ("00101030", "DS", ["heavy"]),
        ("00101030", "DS", [True]),
        ("00100020", "LO", [True]),
        ("00100030", "DA", [20240230]),
        ("00100040", "CS", ["f"]),
        ("00101010", "AS", ["45"]),
        ("00100032", "TM", ["99"]),
        ("00100010", "PN", [{"Nickname": "x"}]),
        ("00100010", "PN", [["x"]]),
        ("00100020", "LO", ["a\\b"]),
        ("00100020", "LO", ["a\nb"]),
        ("00100020", "SH", ["a"]),
        ("00100020", "LO", "a"),
        ("00100020", "LO", [None]),
    ],
)
def test_a_value_that_does_not_fit_its_vr_is_refused(tag, vr, values):
    body = {
        "studyInstanceUids": ["1.2"],
        "changeDataset": {tag: {"vr": vr, "Value": values}},
    }
    with pytest.raises(rules.RefusedChange) as refused:
        rules.parse(body)
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("more", [{"InlineBinary": "QQ=="}, {"BulkDataURI": "x"}])
def test_a_value_that_is_not_in_the_request_is_refused(more):
    body = {
        "studyInstanceUids": ["1.2"],
        "changeDataset": {"00100020": {"vr": "LO", **more}},
    }
    with pytest.raises(rules.RefusedChange):
        rules.parse(body)


def test_values_take_the_form_that_metadata_have():
    request = rules.parse(
        {
            "studyInstanceUids": ["1.2"],
            "changeDataset": {
                "PatientWeight": {"vr": "DS", "Value": ["72.5"]},
                "00100010": {"vr": "PN", "Value": ["Doe^J=山田^太郎"]},
                "00100020": {"Value": [4711]},
                "00104000": {"vr": "LT", "Value": []},
                "00100040": None,
            },
        }
    )
    assert request.change == {
        "00101030": {"vr": "DS", "Value": [72.5]},
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Doe^J", "Ideographic": "山田^太郎"}],
        },
        "00100020": {"vr": "LO", "Value": ["4711"]},
        "00104000": {"vr": "LT"},
        "00100040": None,
    }


def test_there_are_36_updatable_attributes():
    assert len(rules.UPDATABLE) == 36


def test_a_name_that_the_character_set_cannot_express_is_refused(tmp_path):
    file = instance(SpecificCharacterSet="ISO_IR 100")
    with pytest.raises(rules.InvalidRequest):
        rules.rewrite(
            file, {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "山田"}]}}
        )
