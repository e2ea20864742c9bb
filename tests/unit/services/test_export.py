"""Export on embedded stores: what is copied, counted, logged and forgotten."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from data import instance, new_uid
from unit_update import run as run_update

from dicomweb.errors import InvalidRequest, StoreUnavailable
from dicomweb.export import ExportRequest, Identifier
from dicomweb.export_destination import BlobContainer, Folder
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from services import cleanup, operations, store, update
from services import export_operation as operation
from services.export_operation import Lane
from services.operations import OperationStatus, OperationType
from stores import connect
from stores.ports import DestinationRefused

HERE = Partition("Microsoft.Default")
ID = "a" * 32
HOST = "https://account.blob.core.windows.net"
SECRET_CONTAINER = BlobContainer(HOST, "container", sas="sv=1&sig=CANARY")


class Sink:
    """A destination in memory.

    Attributes:
        puts: How often each file was stored.
        failures: What the next puts raise.
    """

    def __init__(self):
        self.files = {}
        self.puts = []
        self.failures = []
        self.opened_with = []

    def open(self, destination):
        self.opened_with.append(destination)
        return self

    async def put(self, name, source):
        data = b"".join([bytes(chunk) async for chunk in source.chunks()])
        if self.failures:
            raise self.failures.pop(0)
        assert len(data) == source.size_bytes
        self.puts.append(name)
        self.files[name] = data

    async def write_log(self, name, data):
        if self.failures:
            raise self.failures.pop(0)
        self.files[name] = data

    async def close(self):
        pass


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def here(runtime, sink):
    return replace(runtime, open_sink=sink.open)


async def stored(runtime, count, **values):
    """Files of one study by their name in an export."""
    study, series = new_uid(), new_uid()
    found = {}
    for _ in range(count):
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        sop = new_uid()
        file = instance(**uids, SOPInstanceUID=sop, **values)
        found[f"{ID}/results/{study}/{series}/{sop}.dcm"] = file
    await put(runtime, *found.values())
    return study, found


async def put(runtime, *files):
    async def events():
        for file in files:
            yield PartBegin({})
            yield PartData(file)
            yield PartEnd()

    await store.store_instances(
        runtime, HERE, events(), study_instance_uid=None, version=2
    )


def request(*identifiers):
    return ExportRequest(
        tuple(
            each if isinstance(each, Identifier) else Identifier(tuple(each.split("/")))
            for each in identifiers
        ),
        "azureblob",
        {},
    )


async def begun(runtime, *identifiers, destination=SECRET_CONTAINER):
    return await operation.prepare(
        runtime, ID, HERE, request(*identifiers), destination
    )


async def all_steps(runtime, state):
    """What the orchestrator does, without pauses; the last checkpoint."""
    while state["lanes"]:
        results = []
        for lane in state["lanes"]:
            try:
                done = await operation.step(runtime, ID, HERE, Lane(**lane))
                results.append({"ok": True, "lane": vars_of(done)})
            except StoreUnavailable:
                results.append({"ok": False})
        state = operation.advance(state, results)
    return state


def vars_of(lane):
    return {name: getattr(lane, name) for name in Lane.__slots__}


def log_of(sink):
    return [json.loads(line) for line in sink.files[f"{ID}/errors.log"].splitlines()]


async def test_a_large_study_takes_several_steps_and_each_file_goes_once(
    here, sink, monkeypatch
):
    monkeypatch.setattr(operation, "FILES_A_STEP", 10)
    monkeypatch.setattr(operation, "FILES_A_PAGE", 4)
    study, files = await stored(here, 37)
    state = await all_steps(here, await begun(here, study, "1.2.404"))
    assert (state["exported"], state["skipped"]) == (37, 1)
    await operation.end(here, ID, state)
    log = sink.files.pop(f"{ID}/errors.log")
    assert sink.files == files
    assert len(sink.puts) == 37
    assert [json.loads(line)["identifier"] for line in log.splitlines()] == ["1.2.404"]


async def test_identifiers_of_many_pages_all_get_their_turn(here, sink, monkeypatch):
    monkeypatch.setattr(operation, "PAGE", 6)
    monkeypatch.setattr(operation, "PIECE", 3)
    study, files = await stored(here, 2)
    unknown = [f"1.2.404.{n}" for n in range(20)]
    state = await all_steps(
        here, await begun(here, *unknown[:11], study, *unknown[11:])
    )
    assert (state["exported"], state["skipped"]) == (2, 20)
    await operation.end(here, ID, state)
    assert [row["identifier"] for row in log_of(sink)] == unknown
    assert files.items() <= sink.files.items()


async def test_a_step_whose_answer_was_lost_is_repeated_without_a_trace(here, sink):
    study, files = await stored(here, 5)
    state = await begun(here, study, "1.2.404")
    lost = await operation.step(here, ID, HERE, Lane(**state["lanes"][0]))
    assert lost.exported == 5
    state = await all_steps(here, state)
    assert (state["exported"], state["skipped"]) == (5, 1)
    await operation.end(here, ID, state)
    assert len(log_of(sink)) == 1
    assert len(sink.files) == 6
    assert files.items() <= sink.files.items()


async def test_damaged_and_missing_files_are_skipped_and_named(here, sink):
    study, files = await stored(here, 4)
    names = [b.name async for b in here.blobs.list("") if b.name.endswith(".dcm")]
    folder = here.settings.data / "blobs"
    damaged, missing, short = (folder / name for name in names[:3])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    short.write_bytes(short.read_bytes()[:-1])
    missing.unlink()
    state = await all_steps(here, await begun(here, study))
    assert (state["exported"], state["skipped"]) == (1, 3)
    await operation.end(here, ID, state)
    assert sorted(row["error"] for row in log_of(sink)) == [
        "The stored file is damaged.",
        "The stored file is damaged.",
        "The stored file is missing.",
    ]
    log = sink.files.pop(f"{ID}/errors.log")
    assert log
    assert sink.files.items() <= files.items()
    assert len(sink.files) == 1


async def test_a_version_that_an_update_took_away_is_looked_up_again(
    here, sink, monkeypatch
):
    study, files = await stored(here, 1, PatientID="OLD")
    change = {"00100020": {"vr": "LO", "Value": ["SECOND"]}}
    await run_update(update.Job(here, HERE, study, "b" * 32, change))
    waiting = [True]
    read = here.blobs.read

    def updated_first(name, **more):
        async def chunks():
            if waiting:
                waiting.clear()
                third = {"00100020": {"vr": "LO", "Value": ["THIRD"]}}
                await run_update(update.Job(here, HERE, study, "c" * 32, third))
                later = here.now() + 2 * update.REPLACED_DELAY
                await cleanup.clean_up(replace(here, now=lambda: later))
            async for chunk in read(name, **more):
                yield chunk

        return chunks()

    state = await begun(here, study)
    monkeypatch.setattr(here.blobs, "read", updated_first)
    state = await all_steps(here, state)
    assert (state["exported"], state["skipped"]) == (1, 0)
    [name] = files
    assert b"THIRD" in sink.files[name]


async def test_a_destination_that_refuses_three_times_ends_it_and_says_why(here, sink):
    study, _ = await stored(here, 1)
    state = await begun(here, study)
    sink.failures = [DestinationRefused("No more.") for _ in range(9)]
    state = await all_steps(here, state)
    assert state["failure"] == "No more."
    assert operation.status(state) is OperationStatus.FAILED
    await operation.end(here, ID, state)
    assert await here.secrets.get(ID) is None
    [listed] = await operations.listed(
        here, type=OperationType.EXPORT, status=None, limit=10, offset=0
    )
    assert listed.status is OperationStatus.FAILED
    assert listed.progress.results["error"] == "No more."


async def test_a_passing_fault_is_repeated_and_counted_once(here, sink):
    study, files = await stored(here, 3)
    state = await begun(here, study)
    sink.failures = [StoreUnavailable("busy")] * 2
    state = await all_steps(here, state)
    assert (state["exported"], state["skipped"]) == (3, 0)
    assert files.items() <= sink.files.items()


async def test_the_secret_is_in_the_store_of_secrets_alone_until_the_end(here, sink):
    study, _ = await stored(here, 1)
    state = await begun(here, study)
    assert await here.secrets.get(ID) == "sas:sv=1&sig=CANARY"
    kept = await operations.request_of(here, ID)
    assert "CANARY" not in json.dumps([kept, state])
    await all_steps(here, state)
    assert sink.opened_with[-1] == SECRET_CONTAINER
    await operation.end(here, ID, await all_steps(here, state))
    assert await here.secrets.get(ID) is None
    assert await operations.request_of(here, ID) is None
    page = await here.documents.read("system", "operations", f"identifiers:{ID}:0")
    assert page is None


async def test_an_export_whose_secret_is_gone_fails_with_a_word(here):
    study, _ = await stored(here, 1)
    state = await begun(here, study)
    await here.secrets.delete(ID)
    state = await all_steps(here, state)
    assert state["failure"] == "The credentials of the destination are gone."
    await operation.end(here, ID, state)


async def test_a_destination_that_takes_nothing_keeps_nothing(here, sink):
    for failure in (DestinationRefused("No."), StoreUnavailable("away")):
        sink.failures = [failure]
        with pytest.raises(InvalidRequest):
            await begun(here, "1.2")
    assert await here.secrets.operations() == []
    assert await operations.request_of(here, ID) is None


@pytest.mark.parametrize(
    ("started", "ended", "age", "forgotten"),
    [
        (True, False, timedelta(days=9), False),
        (True, True, timedelta(), True),
        (False, False, timedelta(minutes=14), False),
        (False, False, timedelta(minutes=16), True),
    ],
)
async def test_secrets_of_exports_that_no_longer_run_are_forgotten(
    here, started, ended, age, forgotten
):
    await begun(here, "1.2")
    now = here.now() + age

    async def is_started(id):
        assert id == ID
        return started

    async def is_ended(_):
        return ended

    later = replace(here, now=lambda: now)
    count = await operation.forget_secrets(later, is_started, is_ended)
    assert count == forgotten
    assert (await here.secrets.get(ID) is None) is forgotten


async def test_a_secret_without_a_request_is_forgotten_where_nothing_runs(here):
    await here.secrets.put(ID, "sas:x")

    async def no(_):
        return False

    assert await operation.forget_secrets(here, no, no) == 1
    assert await here.secrets.operations() == []


async def test_a_folder_of_the_server(runtime, tmp_path):
    root = tmp_path / "exports"
    settings = replace(runtime.settings, export_root=str(root))
    here = replace(
        runtime, open_sink=lambda where: connect.export_sink(settings, where)
    )
    study, files = await stored(here, 3)
    state = await begun(here, study, "1.2.404", destination=Folder("a/b"))
    await operation.end(here, ID, await all_steps(here, state))
    found = {
        str(path.relative_to(root / "a/b")): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }
    assert b"1.2.404" in found.pop(f"{ID}/errors.log")
    assert found == files


async def test_a_folder_that_cannot_be_made_is_told(runtime, tmp_path):
    (tmp_path / "file").write_text("in the way")
    settings = replace(runtime.settings, export_root=str(tmp_path / "file"))
    here = replace(
        runtime, open_sink=lambda where: connect.export_sink(settings, where)
    )
    with pytest.raises(InvalidRequest, match="Failed to write"):
        await begun(here, "1.2", destination=Folder())


async def test_a_server_without_a_way_out_says_so(runtime):
    with pytest.raises(InvalidRequest, match="exports nothing"):
        await begun(runtime, "1.2")


async def test_the_page_of_a_study_that_is_deleted_meanwhile_ends_it(here, monkeypatch):
    monkeypatch.setattr(operation, "FILES_A_STEP", 2)
    monkeypatch.setattr(operation, "FILES_A_PAGE", 2)
    study, _ = await stored(here, 5)
    state = await begun(here, study)
    lane = await operation.step(here, ID, HERE, Lane(**state["lanes"][0]))
    assert (lane.exported, lane.after is not None) == (2, True)
    from services import delete
    from services.retrieve import Scope

    await delete.delete(here, Scope(HERE, study))
    done = await operation.step(here, ID, HERE, replace(lane, exported=0))
    assert (done.exported, done.skipped, done.done) == (0, 0, True)
