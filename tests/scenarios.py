"""Work on a store that may be cut short anywhere, and what must hold afterwards.

A scenario prepares a folder, then does one thing whose every call to a store may fail
(`tests/faults.py`). `check` reads the whole store back and compares index, catalog,
change feed, cleanup list and blobs with each other and with what was acknowledged.
"""

import hashlib
import io
import json
import os
import secrets
import tempfile
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pydicom
from data import instance
from faults import Faults, FaultyBlobs, FaultyDocuments

from dicomweb.errors import DicomwebError, NotFound
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.store_response import FailureReason, Refused, Stored
from services import delete, event_parts, retrieve, startup, store, update
from services import documents as doc
from services.retrieve import Scope
from services.runtime import Runtime
from services.settings import Settings
from stores import connect, containers
from stores.ports import Document, Order, Query, Range

HERE = Partition("Microsoft.Default")
OLD, NEW, OTHER = "1.2.826.0.1.70.1", "1.2.826.0.1.70.2", "1.2.826.0.1.70.3"
JOB = "f" * 32
CHANGE = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "After^The^Update"}]}}
MANY = 8
SETTINGS = "settings.json"


def open_runtime(
    folder: Path, faults: Faults | None = None, *, durability: str = "process-crash"
) -> Runtime:
    """The services on the stores of the folder, faults in front of them.

    They are embedded unless the folder has a file of other settings.
    """
    others: dict[str, Any] = {}
    if (folder / SETTINGS).exists():
        others = json.loads((folder / SETTINGS).read_text())
    settings = Settings(data=folder, durability=durability, **others)
    stores = connect.connect(settings)
    if faults is not None:
        stores = replace(
            stores,
            documents=FaultyDocuments(stores.documents, faults),
            blobs=FaultyBlobs(stores.blobs, faults),
        )
    return startup.build(
        settings,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: secrets.token_hex(16),
    )


# --- files -----------------------------------------------------------------------


def file(study: str, series: int, number: int, **attributes: Any) -> bytes:
    """A file whose UIDs say where it belongs: the same one for the same numbers."""
    return instance(
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.{series}",
        SOPInstanceUID=f"{study}.{series}.{number}",
        PatientName="Before^The^Update",
        **attributes,
    )


STORED_BEFORE = (file(OLD, 1, 1), file(OLD, 1, 2, Modality="MR"), file(OTHER, 1, 1))
TO_STORE = (
    file(NEW, 1, 1),
    file(NEW, 2, 2, Modality="MR"),
    file(OLD, 1, 3),
    file(OLD, 2, 4, Modality="US"),
)
LARGE_STUDY = tuple(file(OLD, 1 + n % 2, n) for n in range(1, MANY + 1))


def uids(content: bytes) -> tuple[str, str, str]:
    """Study, series and SOP instance UID of a file."""
    ds = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    return ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID


async def _events(files: Sequence[bytes]) -> Any:
    for content in files:
        yield PartBegin({})
        yield PartData(content)
        yield PartEnd()


async def put(runtime: Runtime, files: Sequence[bytes]) -> list[Stored | Refused]:
    """Stores the files in one request."""
    outcome = await store.store_instances(
        runtime, HERE, _events(files), study_instance_uid=None, version=2
    )
    return outcome.results


# --- scenarios -------------------------------------------------------------------


@dataclass
class Expected:
    """What must be there, by SOP Instance UID.

    Attributes:
        files: Acknowledged as stored and not asked to be deleted.
        gone: Acknowledged as deleted.
        updated: Whether a bulk update was acknowledged.
        steps: Those of the bulk update that are done.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    updated: bool = False
    steps: list[str] = field(default_factory=list)


Act = Callable[[Runtime, Expected], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One thing done to a store.

    Attributes:
        before: Files that are there before it begins.
        act: Does it and records what was acknowledged; may be repeated.
        touched: Start of the UIDs whose fate is open until it is acknowledged.
    """

    before: tuple[bytes, ...]
    act: Act
    touched: str = "-"

    def stored(self) -> dict[str, bytes]:
        """What is there before, by SOP Instance UID."""
        return {uids(content)[2]: content for content in self.before}

    def untouched(self) -> dict[str, bytes]:
        """What must be there however far the act came."""
        kept = self.stored().items()
        return {s: content for s, content in kept if not s.startswith(self.touched)}


async def _store(runtime: Runtime, expected: Expected) -> None:
    results = await put(runtime, TO_STORE)
    for content, result in zip(TO_STORE, results, strict=True):
        known = (
            isinstance(result, Refused)
            and result.reason is FailureReason.INSTANCE_ALREADY_EXISTS
        )
        if isinstance(result, Stored) or known:
            expected.files[uids(content)[2]] = content


def _delete(scope: Scope) -> Act:
    async def act(runtime: Runtime, expected: Expected) -> None:
        doomed = [s for s in expected.files if s.startswith(_prefix(scope))]
        kept = {s: expected.files.pop(s) for s in doomed}
        try:
            await delete.delete(runtime, scope)
        except NotFound:
            pass
        except DicomwebError:
            for sop in kept:
                expected.files.pop(sop, None)  # it may be there or not
            raise
        expected.gone |= set(kept)

    return act


def _prefix(scope: Scope) -> str:
    if scope.sop_instance_uid is not None:
        return scope.sop_instance_uid
    return f"{scope.series_instance_uid or scope.study_instance_uid}."


async def _update(runtime: Runtime, expected: Expected) -> None:
    """The steps one after the other, as the orchestration; it repeats only the last."""
    job = update.Job(runtime, HERE, OLD, JOB, CHANGE)
    for sop in [s for s in expected.files if s.startswith(f"{OLD}.")]:
        del expected.files[sop]  # old or new from here on, see `_check_update`
    for step in (_begin, _stage, update.flip, _fold, update.finish):
        if step.__name__ not in expected.steps:
            await step(job)
            expected.steps.append(step.__name__)
    expected.updated = True


async def _update_in_parts(runtime: Runtime, expected: Expected) -> None:
    """As of a study with too many instances for one event."""
    with patch.object(event_parts, "ENTRIES", 1):
        await _update(runtime, expected)


async def _begin(job: update.Job) -> None:
    assert await update.begin(job)


async def _stage(job: update.Job) -> None:
    staged = await update.stage(job, None)
    assert staged.errors == []
    assert staged.after is None


async def _fold(job: update.Job) -> None:
    assert await update.fold(job, None) is None


def _deletion(before: tuple[bytes, ...], *scope: str) -> Scenario:
    act = _delete(Scope(HERE, *scope))
    return Scenario(before, act, _prefix(Scope(HERE, *scope)))


SCENARIOS: dict[str, Scenario] = {
    "store": Scenario(STORED_BEFORE, _store),
    "delete an instance": _deletion(STORED_BEFORE, OLD, f"{OLD}.1", f"{OLD}.1.2"),
    "delete a series": _deletion(LARGE_STUDY, OLD, f"{OLD}.2"),
    "delete a study": _deletion(STORED_BEFORE, OLD),
    "delete a large study": _deletion(LARGE_STUDY, OLD),
    "update": Scenario(STORED_BEFORE, _update, f"{OLD}."),
    "update in parts": Scenario(STORED_BEFORE, _update_in_parts, f"{OLD}."),
}


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is one: closing SQLite waits for the disk."""
    shared = Path("/dev/shm")
    parent = shared if os.access(shared, os.W_OK) else otherwise
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def smaller_limits(monkeypatch: Any) -> None:
    """Makes a study of `MANY` instances a large one and events done at once."""
    monkeypatch.setattr(delete, "MAX_OPERATIONS", 7)
    monkeypatch.setattr("services.publishing.FINISH_DELAY_SECONDS", 0)


async def prepare(folder: Path, scenario: Scenario) -> Expected:
    """Stores what is there before; the runtime is closed again."""
    runtime = open_runtime(folder)
    results = await put(runtime, scenario.before)
    assert all(isinstance(result, Stored) for result in results)
    await runtime.close()
    return Expected(scenario.stored())


async def act_until_acknowledged(
    runtime: Runtime, scenario: Scenario, expected: Expected
) -> None:
    """What a client does that got an error: it asks again."""
    for _ in range(3):
        try:
            await scenario.act(runtime, expected)
        except DicomwebError:
            continue
        return
    raise AssertionError("it never succeeds")


# --- what must hold --------------------------------------------------------------


@dataclass
class _Study:
    pk: str
    st: Document | None = None
    series: dict[str, Document] = field(default_factory=dict)
    instances: dict[str, Document] = field(default_factory=dict)
    events: list[Document] = field(default_factory=list)
    parts: list[Document] = field(default_factory=list)


async def check(runtime: Runtime, expected: Expected) -> None:
    """Heals, then compares everything with everything."""
    await runtime.publisher.heal(minimum_age_seconds=-1)
    await runtime.publisher.close()
    studies = [await _read(runtime, pk) for pk in _pks()]
    for study in studies:
        await _check_counts(study)
        await _check_blobs(runtime, study)
        await _check_catalog(runtime, study)
        for event in study.events:
            assert event.get("pending") is None, "an event stays pending"
        for part in study.parts:
            assert "ttl" in part or not expected.updated, "a part stays for good"
    await _check_feed(runtime, studies)
    await _check_acknowledged(runtime, studies, expected)
    await _check_cleanup(runtime, studies)


def _pks() -> list[str]:
    return [doc.study_pk(HERE, uid) for uid in (OLD, NEW, OTHER)]


async def _all(
    runtime: Runtime, container: str, pk: str | None, where: Any
) -> list[Document]:
    query = Query(where, (Order(("id",)),))
    page = await runtime.documents.query(container, query, partition_key=pk, limit=1000)
    assert page.after is None
    return list(page.documents)


async def _read(runtime: Runtime, pk: str) -> _Study:
    study = _Study(pk)
    for document in await _all(runtime, containers.DICOM, pk, Range(("id",), low="")):
        match document["t"]:
            case "st":
                study.st = document
            case "se":
                study.series[document["id"]] = document
            case "i":
                study.instances[document["id"]] = document
            case "ev":
                study.events.append(document)
            case "en":
                study.parts.append(document)
    return study


def _is_live(study: _Study) -> bool:
    assert study.st is None or study.st["state"] != doc.DELETING, "half deleted"
    return study.st is not None and study.st["state"] == doc.LIVE


async def _check_counts(study: _Study) -> None:
    if not _is_live(study):
        assert not study.series
        assert not study.instances
        return
    assert study.st is not None
    per_series = Counter(f"se:{row['se']}" for row in study.instances.values())
    assert {id: row["ni"] for id, row in study.series.items()} == per_series
    assert study.st["ni"] == len(study.instances) > 0
    assert study.st["ns"] == len(study.series)
    modalities = Counter(doc.modality_of(row) for row in study.series.values())
    assert study.st["mods"] == modalities
    assert study.st["nid"] in study.instances


async def _check_blobs(runtime: Runtime, study: _Study) -> None:
    assert study.st is not None or not study.instances
    for row in study.instances.values():
        assert study.st is not None
        current = doc.version_of(study.st, row, original=False)
        name = doc.current_blob_name(study.pk, current)
        content = await runtime.blobs.read_range(name, 0, 1 << 30)
        assert len(content) == current["len"]
        if current["sha"] is not None:  # a spliced version has none
            assert hashlib.sha256(content).hexdigest() == current["sha"]
        for blob in doc.blobs_of(name, current):
            assert await runtime.blobs.properties(blob) is not None
        original = doc.original_blob_name(study.pk, row)
        assert await runtime.blobs.properties(original) is not None


async def _check_catalog(runtime: Runtime, study: _Study) -> None:
    rows = await _all(runtime, containers.CATALOG, study.pk, Range(("id",), low=""))
    found = {row["id"]: row for row in rows}
    if study.st is None:
        assert not found
        return
    row = found.pop(doc.STUDY)
    assert row["rev"] == study.st["rev"], "the catalog is behind"
    if _is_live(study):
        assert (row["ni"], row["ns"]) == (study.st["ni"], study.st["ns"])
        assert row["n"] == study.st["n"]
        assert row["modalities"] == sorted(study.st["mods"])
    else:
        assert row["gone"]
    listed = {id: (row["ni"], row["rev"]) for id, row in found.items()}
    wanted = {id: (row["ni"], row["rev"]) for id, row in study.series.items()}
    assert listed == wanted


async def _check_feed(runtime: Runtime, studies: Sequence[_Study]) -> None:
    entries = await runtime.feed.by_sequence(0, 10_000)
    sequence = [entry.sequence for entry in entries]
    assert sequence == list(range(1, len(entries) + 1)), "a gap in the feed"
    told: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for entry in entries:
        told[entry.sop_instance_uid].append((entry.action, entry.watermark))
    current = {}
    for study in studies:
        for row in study.instances.values():
            assert study.st is not None
            version = doc.version_of(study.st, row, original=False)
            current[row["u"][2]] = version["w"]
    assert current.keys() <= told.keys(), "an instance the feed does not know"
    for sop, events in told.items():
        assert len(events) == len(set(events)), f"doubled: {events}"
        actions = [action for action, _ in events]
        assert _is_possible(actions), actions
        if sop in current:
            assert actions[-1] != doc.DELETE_ACTION
            assert events[-1][1] == current[sop]
        else:
            assert actions[-1] == doc.DELETE_ACTION


def _is_possible(actions: Sequence[str]) -> bool:
    """Each life is one Create, any Updates, at most one Delete at its end."""
    alive = False
    for action in actions:
        if alive == (action == doc.CREATE_ACTION):
            return False
        alive = action != doc.DELETE_ACTION
    return True


async def _check_acknowledged(
    runtime: Runtime, studies: Sequence[_Study], expected: Expected
) -> None:
    there: dict[str, bytes] = {}
    for study in studies:
        if _is_live(study):
            assert study.st is not None
            there |= await contents(runtime, study.st["uid"])
    lost = {s for s, content in expected.files.items() if there.get(s) != content}
    assert not lost, f"acknowledged but lost or changed: {lost}"
    assert not expected.gone & there.keys(), "deleted but there"
    await _check_update(runtime, there, expected)


async def contents(
    runtime: Runtime, study: str, *, original: bool = False
) -> dict[str, bytes]:
    """The study's files by SOP Instance UID."""
    found = await retrieve.files(runtime, Scope(HERE, study), "*", original=original)
    return {
        each.sop_instance_uid: b"".join(
            [bytes(chunk) async for chunk in retrieve.read_file(runtime, each)]
        )
        for each in found
    }


async def _check_update(
    runtime: Runtime, there: dict[str, bytes], expected: Expected
) -> None:
    """All instances of the study are updated or none is; originals stay."""
    names = {
        str(pydicom.dcmread(io.BytesIO(content)).PatientName)
        for sop, content in there.items()
        if sop.startswith(f"{OLD}.")
    }
    assert len(names) <= 1, f"a half updated study: {names}"
    if expected.updated:
        assert names == {"After^The^Update"}
    if names == {"After^The^Update"}:
        originals = await contents(runtime, OLD, original=True)
        before = {uids(each)[2]: each for each in STORED_BEFORE}
        assert originals == {s: before[s] for s in originals}


async def _check_cleanup(runtime: Runtime, studies: Sequence[_Study]) -> None:
    """What was deleted waits for cleanup, once; nothing that is in use does."""
    pages = await _all(runtime, containers.CLEANUP, None, Range(("after",), low="0"))
    waiting = Counter(name for page in pages for name in page["names"])
    assert max(waiting.values(), default=1) == 1
    assert set(waiting) == {
        name
        for study in studies
        for event in study.events
        if event["action"] == doc.DELETE_ACTION
        for name in event["blobs"]
    }
    for study in studies:
        for row in study.instances.values():
            assert doc.current_blob_name(study.pk, row) not in waiting
            assert doc.original_blob_name(study.pk, row) not in waiting
