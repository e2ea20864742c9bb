"""Blobs of deleted instances go after the delay, and nothing else does."""

import dataclasses
from datetime import timedelta

from data import instance

from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from services import cleanup, delete, store
from services.retrieve import Scope

HERE = Partition("Microsoft.Default")


async def put(runtime, file):
    async def events():
        yield PartBegin({})
        yield PartData(file)
        yield PartEnd()

    await store.store_instances(
        runtime, HERE, events(), study_instance_uid=None, version=2
    )


async def names(runtime):
    return {blob.name async for blob in runtime.blobs.list("")}


def later(runtime, **delta):
    now = runtime.now
    return dataclasses.replace(runtime, now=lambda: now() + timedelta(**delta))


async def test_blobs_stay_until_the_delay_is_over_and_others_stay_for_good(runtime):
    await put(runtime, instance(StudyInstanceUID="1.2.3"))
    await put(runtime, instance(StudyInstanceUID="1.2.4"))
    kept = {name for name in await names(runtime) if "/1.2.4/" in name}
    await delete.delete(runtime, Scope(HERE, "1.2.3"))
    assert len(await names(runtime)) == 3  # with the manifest
    report = await cleanup.clean_up(runtime)
    assert report.blobs == 0
    assert report.oldest is not None
    report = await cleanup.clean_up(later(runtime, days=4))
    assert (report.pages, report.blobs, report.failed) == (1, 2, 0)
    assert await names(runtime) == kept
    assert (await cleanup.clean_up(later(runtime, days=4))).pages == 0


async def test_a_page_that_fails_comes_back_and_is_given_up_in_the_end(runtime):
    from dicomweb.errors import StoreUnavailable

    await put(runtime, instance(StudyInstanceUID="1.2.3"))
    await delete.delete(runtime, Scope(HERE, "1.2.3"))

    class Broken:
        async def delete(self, name):
            raise StoreUnavailable("no")

    broken = dataclasses.replace(runtime, blobs=Broken())
    for day in range(4, 4 + 6):
        report = await cleanup.clean_up(later(broken, days=day, hours=day))
        assert report.failed == 1
    assert report.exhausted == 1
    assert (await cleanup.clean_up(later(runtime, days=99))).pages == 0
