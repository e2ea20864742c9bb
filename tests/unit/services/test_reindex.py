"""Reindex: values of new query tags at every level, newest wins, errors told."""

import io

import pydicom
import pytest
from data import instance

from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query import Resource, parse
from dicomweb.query_tags import Level, QueryTag, TagStatus
from dicomweb.validation import ErrorCode
from services import reindex, search, store, update
from services.tag_registry import Registry

HERE = Partition("Microsoft.Default")


def tag(key, path, vr, level, **more):
    return QueryTag(key, path, vr, level, TagStatus.READY, **more)


async def put(runtime, *files):
    async def events():
        for file in files:
            yield PartBegin({})
            yield PartData(file)
            yield PartEnd()

    await store.store_instances(
        runtime, HERE, events(), study_instance_uid=None, version=2
    )


async def found(runtime, tags, resource=Resource.ALL_STUDIES, **params):
    query = parse(resource, list(params.items()), version=2, query_tags=tags)
    return len((await search.search(runtime, HERE, query, "")).rows)


async def test_instances_stored_before_the_tag_are_found_by_it(runtime):
    tags = (
        tag(1, "00101010", "AS", Level.STUDY),
        tag(2, "00180015", "CS", Level.SERIES),
        tag(3, "00200013", "IS", Level.INSTANCE),
        tag(4, "00081070", "PN", Level.STUDY),
    )
    for n in range(7):
        await put(
            runtime,
            instance(
                PatientAge=f"0{n}0Y",
                BodyPartExamined="HEAD",
                InstanceNumber=n,
                OperatorsName="Doe^Joe",
            ),
        )
    end = await reindex.highest_watermark(runtime)
    while end:
        report = await reindex.batch(runtime, tags, end, limit=3)
        assert report.errors == []
        end = report.lowest - 1 if report.lowest else 0
    assert await found(runtime, tags, **{"00101010": "030Y"}) == 1
    assert await found(runtime, tags, Resource.ALL_SERIES, BodyPartExamined="HEAD") == 7
    assert await found(runtime, tags, Resource.ALL_INSTANCES, InstanceNumber="05") == 1
    assert await found(runtime, tags, OperatorsName="do", fuzzymatching="true") == 7


async def test_a_study_value_comes_from_the_newest_instance_whatever_the_order(runtime):
    age = tag(1, "00101010", "AS", Level.STUDY)
    study = "1.2.3.9"
    for n in (1, 2, 3):
        await put(runtime, instance(StudyInstanceUID=study, PatientAge=f"00{n}Y"))
    for end in (1, 3, 2):
        await reindex.batch(runtime, (age,), end, limit=1)
    assert await found(runtime, (age,), **{"00101010": "003Y"}) == 1
    assert await found(runtime, (age,), **{"00101010": "001Y"}) == 0


async def test_new_stores_index_the_tags_of_the_registry(runtime):
    age = tag(1, "00101010", "AS", Level.STUDY)
    await runtime.tags.change(lambda _: Registry(tags=(age,), next_key=2))
    await put(runtime, instance(PatientAge="044Y"))
    assert await found(runtime, (age,), **{"00101010": "044Y"}) == 1


async def test_a_store_that_did_not_know_a_new_tag_is_indexed_by_its_publisher(runtime):
    age = tag(1, "00101010", "AS", Level.STUDY)
    await runtime.tags.current()
    other = type(runtime.tags)(runtime.documents)
    await other.change(lambda _: Registry(tags=(age,), next_key=2))
    await put(runtime, instance(PatientAge="044Y"))
    await runtime.publisher.close()
    assert await found(runtime, (age,), **{"00101010": "044Y"}) == 1


async def test_values_that_cannot_be_indexed_are_errors(runtime):
    ds = pydicom.dcmread(io.BytesIO(instance()))
    with pydicom.config.disable_value_validation():
        ds.PatientAge = "ancient"
        target = io.BytesIO()
        ds.save_as(target)
    wrong = (
        tag(1, "00101010", "AS", Level.STUDY),
        tag(2, "00100020", "SH", Level.STUDY),
    )
    await put(runtime, target.getvalue(), instance())
    report = await reindex.batch(runtime, wrong, 10)
    codes = {(error.tag_key, error.code) for error in report.errors}
    # v2 dropped the malformed age from the metadata, so only the VR is wrong.
    assert codes == {(2, ErrorCode.UNEXPECTED_VR)}
    assert len(report.errors) == 2


async def test_a_private_tag_is_found_in_the_block_of_its_creator(runtime):
    ds = pydicom.dcmread(io.BytesIO(instance()))
    block = ds.private_block(0x0011, "ACME 1", create=True)
    block.add_new(0x05, "LO", "Rocket")
    target = io.BytesIO()
    ds.save_as(target)
    await put(runtime, target.getvalue())
    private = tag(1, "00111005", "LO", Level.INSTANCE, private_creator="ACME 1")
    report = await reindex.batch(runtime, (private,), 10)
    assert report.errors == []
    rows = await found(
        runtime, (private,), Resource.ALL_INSTANCES, **{"00111005": "rocket"}
    )
    assert rows == 1


@pytest.mark.parametrize("early", [False, True])
async def test_between_flip_and_fold_of_an_update_the_new_version_is_indexed(
    runtime, early
):
    """`early`: the old value was indexed before the update became current."""
    study = "1.2.826.0.1.78"
    await put(runtime, instance(StudyInstanceUID=study, PatientAge="011Y"))
    tags = (
        tag(1, "00101010", "AS", Level.STUDY),
        tag(2, "00101010", "AS", Level.SERIES),
        tag(3, "00101010", "AS", Level.INSTANCE),
    )
    if early:
        await reindex.batch(runtime, tags, 1 << 40)
    change = {"00101010": {"vr": "AS", "Value": ["045Y"]}}
    job = update.Job(runtime, HERE, study, "a" * 32, change)
    assert await update.begin(job)
    assert (await update.stage(job, None)).after is None
    await update.flip(job)
    await reindex.batch(runtime, tags, 1 << 40)

    async def check():
        for one, resource in zip(
            tags,
            (Resource.ALL_STUDIES, Resource.ALL_SERIES, Resource.ALL_INSTANCES),
            strict=True,
        ):
            for age, count in (("045Y", 1), ("011Y", 0)):
                assert await found(runtime, (one,), resource, PatientAge=age) == count

    await check()
    assert await update.fold(job, None) is None
    await update.finish(job)
    await check()
