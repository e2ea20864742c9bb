"""Blobs of deleted instances go after the delay, and nothing else does."""

import dataclasses
import secrets
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from data import data_set, file_of, instance
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from dicomweb.errors import StoreUnavailable
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from functions import timers
from services import cleanup, delete, operations, retrieve, statistics, store, update
from services.operations import OperationStatus, OperationType, Progress
from services.retrieve import Scope

HERE = Partition("Microsoft.Default")


async def put(runtime, *files):
    async def events():
        for file in files:
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


async def updated(runtime, study, job):
    change = {"00100020": {"vr": "LO", "Value": [f"P-{job}"]}}
    job = update.Job(runtime, HERE, study, job * 32, change)
    assert await update.begin(job)
    assert (await update.stage(job, None)).after is None
    assert await update.flip(job)
    await update.fold(job, None)
    await update.finish(job)


def large():
    """Metadata and frame index too large for a document: two side blobs."""
    sizes = [2 + 2 * (n * 7919 % 500) for n in range(3000)]
    return file_of(
        data_set(
            StudyInstanceUID="1.2.3",
            NumberOfFrames=len(sizes),
            Rows=8,
            Columns=8,
            BitsAllocated=8,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            SelectorUTValue="".join(secrets.token_hex(4) for _ in range(5000)),
            PixelData=encapsulate([bytes(size) for size in sizes], has_bot=False),
        ),
        transfer_syntax=JPEG2000Lossless,
    )


async def test_every_version_and_every_side_blob_goes(runtime):
    await put(runtime, large())
    await put(runtime, instance(StudyInstanceUID="1.2.4"))
    kept = {name for name in await names(runtime) if "/1.2.4/" in name}
    endings = {name.rpartition(".")[2] for name in await names(runtime)}
    assert endings == {"dcm", "metadata", "frames"}
    for job in "ab":
        await updated(runtime, "1.2.3", job)
    assert len(await names(runtime) - kept) == 7  # readers may be at the one between
    await cleanup.clean_up(later(runtime, hours=1))
    assert len(await names(runtime) - kept) == 5  # original and current, one index
    await delete.delete(runtime, Scope(HERE, "1.2.3"))
    await cleanup.clean_up(later(runtime, days=4))
    assert await names(runtime) == kept


async def test_an_instance_stored_again_is_not_touched(runtime):
    file = instance(StudyInstanceUID="1.2.3")
    await put(runtime, file)
    await delete.delete(runtime, Scope(HERE, "1.2.3"))
    await put(runtime, file)
    await cleanup.clean_up(later(runtime, days=4))
    assert len(await names(runtime)) == 1
    [found] = await retrieve.files(runtime, Scope(HERE, "1.2.3"), "*")
    content = [bytes(each) async for each in retrieve.read_file(runtime, found)]
    assert b"".join(content) == file


async def test_the_list_of_the_deleted_stays_as_long_as_one_of_their_files(runtime):
    await put(runtime, instance(StudyInstanceUID="1.2.3"))
    await delete.delete(runtime, Scope(HERE, "1.2.3"))

    class Stuck:
        async def delete(self, name):
            if name.endswith(".dcm"):
                raise StoreUnavailable("no")
            return await runtime.blobs.delete(name)

    stuck = dataclasses.replace(runtime, blobs=Stuck())
    assert (await cleanup.clean_up(later(stuck, days=4))).failed == 1
    assert {name.rpartition(".")[2] for name in await names(runtime)} == {
        "dcm",
        "json",
    }


async def test_statistics_and_report_say_what_waits_and_what_is_given_up(runtime):
    await put(runtime, instance(StudyInstanceUID="1.2.3"))
    await delete.delete(runtime, Scope(HERE, "1.2.3"))
    waiting = (await statistics.read(later(runtime, days=4))).cleanup
    assert (waiting.length, waiting.due) == (1, 1)
    assert waiting.oldest == (await cleanup.clean_up(runtime)).oldest

    class Broken:
        async def delete(self, name):
            raise StoreUnavailable("no")

    broken = dataclasses.replace(runtime, blobs=Broken())
    for day in range(4, 4 + 6):
        await cleanup.clean_up(later(broken, days=day, hours=day))
    found = await statistics.read(runtime)
    assert (found.cleanup.length, found.given_up) == (0, 1)


# --- operations of long ago ----------------------------------------------------------


class Client:
    """What the timer needs of a client of Durable Functions."""

    def __init__(self):
        self.purged = []

    async def get_status(self, id, show_input=False):
        """Only `long` has an orchestration, which runs."""
        del show_input
        if id != "long":
            return None
        return SimpleNamespace(
            name="BulkUpdate",
            runtime_status=SimpleNamespace(name="Running"),
            input_={"created": datetime.now(UTC).isoformat()},
            output=None,
            custom_status={"percent": 1},
            last_updated_time=datetime.now(UTC),
        )

    async def purge_instance_history_by(self, since, until, statuses):
        self.purged.append((since, until, {status.name for status in statuses}))


async def recorded(runtime, id, status, **ago):
    created = (runtime.now() - timedelta(**ago)).isoformat()
    await operations.record(
        runtime, id, OperationType.UPDATE, status, created, Progress()
    )
    await operations.add_errors(runtime, id, "1", ["wrong"])


async def test_old_operations_are_forgotten_and_those_that_run_are_not(runtime):
    succeeded, running = OperationStatus.SUCCEEDED, OperationStatus.RUNNING
    await recorded(runtime, "new", succeeded, days=6)
    await recorded(runtime, "old", succeeded, days=8)
    await recorded(runtime, "long", running, days=8)
    await recorded(runtime, "dead", running, days=40)
    client = Client()
    before = runtime.now() - timedelta(days=7)
    await timers.purge_history(runtime, client)
    left = await operations.listed(runtime, type=None, status=None, limit=9, offset=0)
    assert [each.id for each in left] == ["new", "long"]
    errors = {id: await operations.errors(runtime, id) for id in ("new", "old", "long")}
    assert errors == {"new": ["wrong"], "old": [], "long": ["wrong"]}
    [(_, until, statuses)] = client.purged
    assert timedelta(0) <= until - before < timedelta(minutes=1)
    assert statuses == {"Completed", "Failed", "Terminated", "Canceled"}
    await timers.purge_history(runtime, client)
    assert len(client.purged) == 2
    left = await operations.listed(runtime, type=None, status=None, limit=9, offset=0)
    assert [each.id for each in left] == ["new", "long"]


async def test_a_run_goes_on_while_there_is_more_than_it_takes_at_once(runtime):
    for study in range(5):
        uid = f"1.2.3.{study}"
        await put(
            runtime, instance(StudyInstanceUID=uid), instance(StudyInstanceUID=uid)
        )
        for _ in range(2):
            await delete.delete(runtime, await first_instance(runtime, uid))
    report = await cleanup.clean_up(later(runtime, days=4), pages=1)
    assert (report.pages, report.blobs) == (10, 20)
    assert await names(runtime) == set()


async def first_instance(runtime, study):
    found = (await retrieve.files(runtime, Scope(HERE, study), "*"))[0]
    return Scope(HERE, study, found.series_instance_uid, found.sop_instance_uid)
