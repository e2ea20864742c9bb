"""Query tags: one reindex at a time, errors recorded, counted and forgotten."""

from dataclasses import replace

import pytest
from data import instance, new_uid

from dicomweb.errors import Conflict, InvalidRequest, NotFound
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query_tags import Level, TagStatus
from dicomweb.tag_requests import NewTag
from services import (
    delete,
    operations,
    query_tags,
    reindex_operation,
    retrieve,
    store,
)
from services import documents as doc
from services.operations import OperationStatus
from services.query_tags import ReindexActive

HERE = Partition("Microsoft.Default")
AGE = NewTag("00101010", "AS", Level.STUDY)
# Files have it as SH, so every instance that has it is an error.
ETHNIC_AS_CS = NewTag("00102160", "CS", Level.INSTANCE)
BEGUN = "2026-01-01T00:00:00+00:00"


async def put(runtime, *files):
    async def events():
        for file in files:
            yield PartBegin({})
            yield PartData(file)
            yield PartEnd()

    await store.store_instances(
        runtime, HERE, events(), study_instance_uid=None, version=2
    )


async def bring_in(runtime, operation_id, status=OperationStatus.SUCCEEDED):
    """What the orchestration does, without one."""
    end = 1 << 40
    while True:
        found = await reindex_operation.ranges(runtime, operation_id, end)
        if not found.ranges:
            break
        for low, high in found.ranges:
            await reindex_operation.index(runtime, operation_id, low, high)
            end = low - 1
    progress = reindex_operation.progress({"paths": []}, done=True)
    await reindex_operation.end(runtime, operation_id, status, BEGUN, progress)


async def the_tag(runtime, new):
    return await query_tags.find(runtime, new.path)


async def test_tags_are_brought_in_by_one_operation_at_a_time(runtime):
    await query_tags.add(runtime, [AGE], "op1")
    with pytest.raises(ReindexActive) as refused:
        await query_tags.add(runtime, [ETHNIC_AS_CS], "op2")
    assert refused.value.operation_id == "op1"
    await query_tags.complete(runtime, "op1")
    assert (await the_tag(runtime, AGE)).status is TagStatus.READY
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op2")


async def test_a_tag_that_is_ready_is_not_added_again(runtime):
    await query_tags.add(runtime, [AGE], "op1")
    await query_tags.complete(runtime, "op1")
    with pytest.raises(Conflict, match="already exist"):
        await query_tags.add(runtime, [AGE], "op2")


async def test_a_tag_that_an_operation_let_go_of_is_replaced(runtime):
    (first,) = await query_tags.add(runtime, [AGE], "op1")
    await query_tags.release(runtime, "op1")
    assert (await the_tag(runtime, AGE)).status is TagStatus.ADDING
    (second,) = await query_tags.add(runtime, [AGE], "op2")
    assert second.key > first.key


async def test_only_tags_that_are_added_make_stores_index_again(runtime):
    """Each store since a new version is indexed twice; errors come by the thousand."""
    await query_tags.add(runtime, [AGE], "op1")
    added = (await runtime.tags.read()).version
    await query_tags.complete(runtime, "op1")
    await query_tags.set_enabled(runtime, AGE.path, enabled=False)
    await query_tags.delete(runtime, AGE.path)
    assert (await runtime.tags.read()).version == added
    await query_tags.add(runtime, [AGE, ETHNIC_AS_CS], "op2")
    assert (await runtime.tags.read()).version == added + 1


async def test_there_may_be_so_many_tags_and_no_more(runtime):
    runtime = replace(runtime, settings=replace(runtime.settings, max_query_tags=1))
    with pytest.raises(InvalidRequest, match="at most 1"):
        await query_tags.add(runtime, [AGE, ETHNIC_AS_CS], "op1")
    assert (await runtime.tags.read()).tags == ()


async def test_a_deleted_tag_takes_its_errors_with_it(runtime):
    await put(runtime, wrong())
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    await bring_in(runtime, "op1")
    tag = await the_tag(runtime, ETHNIC_AS_CS)
    await query_tags.delete(runtime, tag.path)
    with pytest.raises(NotFound):
        await query_tags.find(runtime, tag.path)
    assert await runtime.journal.count(query_tags.error_kind(tag)) == 0


def wrong(**values):
    """An instance that cannot be indexed by ETHNIC_AS_CS."""
    return instance(EthnicGroup="SHORT", **values)


async def test_the_first_error_disables_queries_and_all_are_counted(runtime):
    await put(runtime, *(wrong() for _ in range(3)), instance())
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    await bring_in(runtime, "op1")
    tag = await the_tag(runtime, ETHNIC_AS_CS)
    assert (tag.status, tag.enabled, tag.error_count) == (TagStatus.READY, False, 3)
    errors = await query_tags.errors(runtime, tag.path, limit=2, offset=0)
    more = await query_tags.errors(runtime, tag.path, limit=2, offset=2)
    assert len({e.sop_instance_uid for e in (*errors, *more)}) == 3
    assert {e.message for e in errors} == {"The extended query tag VR is not expected."}


async def test_indexing_again_neither_doubles_errors_nor_disables_again(runtime):
    await put(runtime, wrong())
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    await reindex_operation.index(runtime, "op1", 1, 1 << 40)
    await query_tags.set_enabled(runtime, ETHNIC_AS_CS.path, enabled=True)
    await reindex_operation.index(runtime, "op1", 1, 1 << 40)
    tag = await the_tag(runtime, ETHNIC_AS_CS)
    assert (tag.enabled, tag.error_count) == (True, 1)


async def test_deleting_an_erroneous_instance_lowers_the_count_only(runtime):
    study = new_uid()
    await put(runtime, wrong(StudyInstanceUID=study), wrong())
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    await bring_in(runtime, "op1")
    await delete.delete(runtime, retrieve.Scope(HERE, study))
    tag = await the_tag(runtime, ETHNIC_AS_CS)
    assert (tag.enabled, tag.error_count) == (False, 1)
    [left] = await query_tags.errors(runtime, tag.path, limit=10, offset=0)
    assert left.study_instance_uid != study


async def test_an_error_of_an_instance_deleted_meanwhile_is_not_kept(
    runtime, monkeypatch
):
    study = new_uid()
    await put(runtime, wrong(StudyInstanceUID=study))
    await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    put_rows = type(runtime.journal).put

    async def deleted_first(journal, kind, rows):
        monkeypatch.undo()
        await delete.delete(runtime, retrieve.Scope(HERE, study))
        await put_rows(journal, kind, rows)

    monkeypatch.setattr(type(runtime.journal), "put", deleted_first)
    await reindex_operation.index(runtime, "op1", 1, 1 << 40)
    tag = await the_tag(runtime, ETHNIC_AS_CS)
    assert tag.error_count == 0
    assert await runtime.journal.count(query_tags.error_kind(tag)) == 0


async def test_errors_of_a_tag_deleted_meanwhile_are_not_kept(runtime, monkeypatch):
    await put(runtime, wrong())
    (tag,) = await query_tags.add(runtime, [ETHNIC_AS_CS], "op1")
    put_rows = type(runtime.journal).put

    async def deleted_first(journal, kind, rows):
        monkeypatch.undo()
        await query_tags.delete(runtime, tag.path)
        await put_rows(journal, kind, rows)

    monkeypatch.setattr(type(runtime.journal), "put", deleted_first)
    await reindex_operation.index(runtime, "op1", 1, 1 << 40)
    assert await runtime.journal.count(query_tags.error_kind(tag)) == 0


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_study_deleted_and_stored_again_takes_nothing_of_the_old_one(
    runtime, monkeypatch, moment
):
    """Never a value of one patient in the study of another."""
    study, series = new_uid(), new_uid()
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    await put(runtime, instance(**uids, PatientAge="011Y"))
    (age,) = await query_tags.add(runtime, [AGE], "op1")
    load = type(runtime.commits).load

    async def replaced(commits, pk, *ids):
        monkeypatch.undo()
        state = await load(commits, pk, *ids) if moment == "after" else None
        await delete.delete(runtime, retrieve.Scope(HERE, study))
        await put(runtime, instance(**uids, PatientAge=None))
        return state or await load(commits, pk, *ids)

    monkeypatch.setattr(type(runtime.commits), "load", replaced)
    await bring_in(runtime, "op1")
    row = await runtime.documents.read("dicom", doc.study_pk(HERE, study), doc.STUDY)
    assert f"t{age.key}" not in row.get("x", {})


async def test_canceled_before_the_first_range_the_tags_are_let_go(runtime):
    await put(runtime, instance(PatientAge="011Y"))
    await query_tags.add(runtime, [AGE], "op1")
    await operations.cancel(runtime, "op1")
    found = await reindex_operation.ranges(runtime, "op1", 1 << 40)
    assert (found.ranges, found.canceled) == ((), True)
    await bring_in(runtime, "op1", OperationStatus.CANCELED)
    tag = await the_tag(runtime, AGE)
    assert (tag.status, tag.operation_id) == (TagStatus.ADDING, None)
