"""kill -9 in the middle of a bulk update and of an export.

`FULL=1`: 20 studies of 50 instances and one of 400, an export of 1,000 instances.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from blackbox.api import AS_STORED, DICOM_JSON, Api, parts
from blackbox.destinations import running_azurite
from blackbox.hosts import Running
from blackbox.loads import Uids, load_file
from blackbox.operations import ended_at

FULL = os.environ.get("FULL") == "1"
STUDIES, INSTANCES, LARGE = (20, 50, 400) if FULL else (5, 12, 60)
EXPORTED, UNKNOWN = (1000, 40) if FULL else (150, 12)
UPDATE_KILLS = EXPORT_KILLS = 4 if FULL else 2
SECONDS = 600 if FULL else 240
OLD, SEED = "Load^Test", 20260202
NAME = "00100010"


@dataclass
class Studies:
    """What was stored: file by SOP Instance UID, by study."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, uids: Uids, count: int) -> str:
        study, series = uids.next(), [uids.next() for _ in range(1 + count // 40)]
        self.files[study] = {}
        for n in range(count):
            sop = uids.next()
            self.files[study][sop] = load_file(study, series[n % len(series)], sop)
        return study

    def store(self, api: Api) -> None:
        for files in self.files.values():
            contents = list(files.values())
            for start in range(0, len(contents), 50):
                answer = api.store(*contents[start : start + 50])
                assert answer.status_code == 200, answer.text


def update(api: Api, studies: list[str], name: str) -> str:
    """Starts an update of the patient's name; the id of the operation."""
    body = {
        "studyInstanceUids": studies,
        "changeDataset": {NAME: {"vr": "PN", "Value": [{"Alphabetic": name}]}},
    }
    answer = api.post("/v2/studies/$bulkUpdate", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def names_in_metadata(api: Api, study: str, expected: int) -> set[str]:
    answer = api.read(f"/v2/studies/{study}/metadata", DICOM_JSON)
    assert answer.status_code == 200, answer.text
    rows = answer.json()
    assert len(rows) == expected
    return {row[NAME]["Value"][0]["Alphabetic"] for row in rows}


def names_in_files(contents: list[bytes]) -> set[str]:
    """Of the patient; read by eye, because a parser would take minutes."""
    names = set()
    for content in contents:
        start = content.index(b"\x10\x00\x10\x00PN") + 8
        length = int.from_bytes(content[start - 2 : start], "little")
        names.add(content[start : start + length].rstrip(b" ").decode())
    return names


def files_of(api: Api, study: str, **headers: str) -> list[bytes]:
    answer = api.read(f"/v2/studies/{study}", AS_STORED, **headers)
    assert answer.status_code == 200, answer.text
    return [content for _, content in parts(answer)]


class Readers:
    """Clients that read studies all the time and note what is neither old nor new.

    Attributes:
        lose: Whether a connection may be lost, because the server is killed.
    """

    def __init__(self, studies: Studies, url: str, *, lose: bool) -> None:
        self.url = url
        self.lose = lose
        self.reads = 0
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self._studies = studies
        self._stop = threading.Event()

    @contextmanager
    def at_work(self, count: int) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._run, args=(Random(SEED + n),))
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait_until_seen(self, name: str, *, reads: int) -> None:
        """Returns when a reader has seen the name, and so many reads are done."""
        deadline = time.monotonic() + SECONDS
        while name not in self.seen or self.reads < reads:
            assert time.monotonic() < deadline, (self.seen, self.reads, self.wrong)
            time.sleep(0.01)

    def _run(self, random: Random) -> None:
        while not self._stop.is_set():
            study = random.choice(list(self._studies.files))
            try:
                with Api(self.url) as api:
                    self._read(api, study, random.random() < 0.5)
            except httpx.TransportError as error:
                if not self.lose:
                    self.wrong.append(f"{study}: {error!r}")

    def _read(self, api: Api, study: str, whole: bool) -> None:
        try:
            if whole:
                names = names_in_files(files_of(api, study))
            else:
                names = names_in_metadata(api, study, len(self._studies.files[study]))
        except AssertionError as error:
            self.wrong.append(f"{study}: {error}")
            return
        self.reads += 1
        self.seen |= names
        if len(names) != 1:
            self.wrong.append(f"{study}: {names}")


def wait_for_progress(api: Api, href: str, member: str, least: int) -> bool:
    """Returns when the operation has done that much: whether it goes on."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        answer = api.get(href)
        results = answer.json().get("results") or {}
        if answer.status_code == 200 or results.get(member, 0) >= least:
            return answer.status_code == 202
        time.sleep(0.01)
    raise AssertionError("no progress")


@pytest.mark.timeout(2 * SECONDS)
def test_a_killed_bulk_update_leaves_every_study_old_or_new_and_ends_new(
    serve: Callable[..., Running], tmp_path: Path
) -> None:
    random, uids, studies = Random(SEED), Uids(), Studies()
    for _ in range(STUDIES):
        studies.add(uids, INSTANCES)
    studies.add(uids, LARGE)
    running = serve(data=tmp_path)
    in_the_middle = 0
    readers = Readers(studies, running.url, lose=True)
    with Api(running.url) as api:
        studies.store(api)
        with readers.at_work(2):
            readers.wait_until_seen(OLD, reads=10)
            id = update(api, list(studies.files), "New^Name")
            for kill in range(UPDATE_KILLS):
                href = f"{running.url}/v2/operations/{id}"
                done = kill * STUDIES // UPDATE_KILLS
                with Api(running.url) as client:
                    goes_on = wait_for_progress(client, href, "studyUpdated", done)
                in_the_middle += goes_on
                time.sleep(random.uniform(0, 0.3))
                running.kill()
                running = serve(data=tmp_path)
                readers.url = running.url
            with Api(running.url) as client:
                href = f"{running.url}/v2/operations/{id}"
                operation = ended_at(client, href, seconds=SECONDS)
            readers.wait_until_seen("New^Name", reads=21)
    assert in_the_middle > 0
    assert readers.wrong == []
    assert readers.reads > 20
    assert readers.seen == {OLD, "New^Name"}
    assert operation["status"] == "succeeded"
    assert operation["results"] == {
        "studyProcessed": STUDIES + 1,
        "studyUpdated": STUDIES + 1,
        "studyFailed": 0,
        "instanceUpdated": STUDIES * INSTANCES + LARGE,
    }
    with Api(running.url) as api:
        check_all_updated(api, studies, "New^Name")
        later = Readers(studies, running.url, lose=False)
        with later.at_work(2):
            second = update(api, list(studies.files), "Third^Name")
            href = f"{running.url}/v2/operations/{second}"
            assert ended_at(api, href, seconds=SECONDS)["status"] == "succeeded"
        assert later.wrong == []
        assert later.seen <= {"New^Name", "Third^Name"}
        check_all_updated(api, studies, "Third^Name")
    running.stop()
    print(f"{readers.reads} reads during {UPDATE_KILLS} kills")


def check_all_updated(api: Api, studies: Studies, name: str) -> None:
    for study, files in studies.files.items():
        assert names_in_metadata(api, study, len(files)) == {name}
        assert names_in_files(files_of(api, study)) == {name}
        originals = files_of(api, study, msdicom_request_original="true")
        assert sorted(originals) == sorted(files.values())
        events = api.search(f"/v2/studies/{study}/instances?limit=200")
        assert len(events) == min(len(files), 200)


@pytest.mark.timeout(2 * SECONDS)
def test_a_killed_export_has_each_file_once_and_counts_right(
    serve: Callable[..., Running], tmp_path: Path
) -> None:
    random, uids, studies = Random(SEED), Uids(), Studies()
    for _ in range(5):
        studies.add(uids, EXPORTED // 5)
    unknown = [uids.next() for _ in range(UNKNOWN)]
    with running_azurite() as azurite:
        container = azurite.container("exports")
        settings = {"DICOM_EXPORT_HOSTS": azurite.origin}
        running = serve(data=tmp_path, **settings)
        with Api(running.url) as api:
            studies.store(api)
            values = [*studies.files, *unknown]
            random.shuffle(values)
            source = {"type": "identifiers", "settings": {"values": values}}
            uri = azurite.uri("exports")
            destination = {"type": "azureBlob", "settings": {"blobContainerUri": uri}}
            body = {"source": source, "destination": destination}
            answer = api.post("/v2/export", json=body)
            assert answer.status_code == 202, answer.text
        id = answer.json()["id"]
        for kill in range(EXPORT_KILLS):
            wait_for_files(container, EXPORTED * (kill + 1) // (EXPORT_KILLS + 2))
            running.kill()
            running = serve(data=tmp_path, **settings)
        with Api(running.url) as api:
            href = f"{running.url}/v2/operations/{id}"
            operation = ended_at(api, href, seconds=SECONDS)
        found = {
            blob.name: container.download_blob(blob.name).readall()
            for blob in container.list_blobs()
        }
        running.stop()
    assert operation["status"] == "succeeded"
    results = operation["results"]
    assert (results["exported"], results["skipped"]) == (EXPORTED, UNKNOWN)
    log = [json.loads(line) for line in found.pop(f"{id}/errors.log").splitlines()]
    assert sorted(row["identifier"] for row in log) == sorted(unknown)
    expected = {
        sop: content
        for files in studies.files.values()
        for sop, content in files.items()
    }
    assert len(found) == len(expected) == EXPORTED
    assert {name.rpartition("/")[2]: c for name, c in found.items()} == {
        f"{sop}.dcm": content for sop, content in expected.items()
    }
    sas = uri.rpartition("sig=")[2]
    assert not [path for path in tmp_path.rglob("*") if holds(path, sas.encode())]


def wait_for_files(container: Any, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while len(list(container.list_blobs())) < count:
        assert time.monotonic() < deadline, "the export does not get on"
        time.sleep(0.01)


def holds(path: Path, text: bytes) -> bool:
    return path.is_file() and text in path.read_bytes()
