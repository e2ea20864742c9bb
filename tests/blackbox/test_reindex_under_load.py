"""A reindex while clients store and delete and the server is killed twice.

Afterwards an instance-level tag finds exactly the live instances that have a valid
value, and what could not be indexed is told exactly; studies and series have the value
of the newest instance that had one. `REINDEX_INSTANCES=10000` is the full size,
`REINDEX_SEED` another run of events.
"""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blackbox.hosts import Running
from blackbox.loads import (
    JSON_HEADERS,
    LOST,
    SOP_INSTANCE_UID,
    STOW_HEADERS,
    Connection,
    Uids,
    acknowledged,
    connected,
    healthy,
    stow_body,
    template,
    with_uids,
)

COUNT = int(os.environ.get("REINDEX_INSTANCES", "600"))
STUDIES, VOLATILE, CLIENTS, KILLS = 12, 4, 4, 2
NUMBERS, AGES, PROTOCOLS = 40, 60, 60
SEED = int(os.environ.get("REINDEX_SEED", "20260303"))
NUMBER, AGE, PROTOCOL = "AcquisitionNumber", "PatientAge", "ProtocolName"
TAGS = [
    {"path": NUMBER, "level": "Instance"},
    {"path": PROTOCOL, "level": "Series"},
    {"path": AGE, "level": "Study"},
]
STUDY, SERIES = "0020000D", "0020000E"
_NUMBER_MARK, _AGE_MARK, _PROTOCOL_MARK = "000007777777", "777Y", "PROTOCOL777"
_TEMPLATE = template(
    PatientAge=_AGE_MARK,
    ProtocolName=_PROTOCOL_MARK,
    AcquisitionNumber=_NUMBER_MARK,
)


@dataclass(frozen=True)
class Sent:
    """An instance that a client sent.

    Attributes:
        number: Of the acquisition; None where it is none that can be indexed.
        valid: Whether there is no number at all, or one that can be indexed.
        age: None where it has none, like `protocol`.
    """

    study: str
    series: str
    sop: str
    number: int | None
    valid: bool
    age: str | None
    protocol: str | None

    @property
    def path(self) -> str:
        return f"/v2/studies/{self.study}/series/{self.series}/instances/{self.sop}"

    def file(self) -> bytes:
        content = with_uids(_TEMPLATE, self.study, self.series, self.sop)
        if self.number is not None:
            number = f"{self.number:012d}"
        else:
            number = " " * 12 if self.valid else "twelve, or so"[:12]
        for mark, text in (
            (_NUMBER_MARK, number),
            (_AGE_MARK, self.age or "    "),
            (_PROTOCOL_MARK, self.protocol or " " * len(_PROTOCOL_MARK)),
        ):
            content = content.replace(mark.encode(), text.encode())
        return content


@dataclass
class World:
    """The server as it is now, and all that was sent to it.

    Attributes:
        sent: By SOP Instance UID.
        stored: Acknowledged, and no delete of it was tried.
        deleted: Whose delete was acknowledged.
        volatile: Studies that are deleted as a whole now and then.
        deletes: How often that was begun, by study.
        leaving: Those that are being deleted now.
    """

    random: Random
    port: int = 0
    is_over: bool = False
    sent: dict[str, Sent] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    studies: list[str] = field(default_factory=list)
    volatile: list[str] = field(default_factory=list)
    series: dict[str, list[str]] = field(default_factory=dict)
    deletes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    leaving: list[str] = field(default_factory=list)
    uids: Uids = field(default_factory=Uids)
    requests: int = 0

    def new(self, *, study: str | None = None, valid: bool = True) -> Sent:
        chance = self.random.random
        study = study or self.random.choice(self.studies)
        one = Sent(
            study,
            self.random.choice(self.series[study]),
            self.uids.next(),
            self.random.randrange(NUMBERS) if valid and chance() < 0.8 else None,
            valid,
            f"{self.random.randrange(AGES):03d}Y" if chance() < 0.5 else None,
            f"PROTOCOL{self.random.randrange(PROTOCOLS):03d}"
            if chance() < 0.5
            else None,
        )
        self.sent[one.sop] = one
        return one


async def store(
    connection: Connection, world: World, files: Sequence[Sent], version: str = "v2"
) -> None:
    body = stow_body(one.file() for one in files)
    before = dict(world.deletes)
    answer = await connection.request("POST", f"/{version}/studies", STOW_HEADERS, body)
    assert answer.status == 200, answer
    world.requests += 1
    for sop in acknowledged(answer):
        study = world.sent[sop].study
        if world.deletes[study] == before.get(study, 0) and study not in world.leaving:
            world.stored.add(sop)


async def seed(world: World) -> None:
    """Version 1 stores numbers of any form; one in 25 cannot be indexed."""
    async with asyncio.TaskGroup() as clients:
        for n in range(CLIENTS):
            clients.create_task(_seed_part(world, n))


async def _seed_part(world: World, n: int) -> None:
    async with connected(world.port) as connection:
        for start in range(n, COUNT, 50 * CLIENTS):
            study = world.studies[start // CLIENTS % len(world.studies)]
            files = [
                world.new(study=study, valid=world.random.random() >= 0.04)
                for _ in range(start, min(start + 50 * CLIENTS, COUNT), CLIENTS)
            ]
            await store(connection, world, files, "v1")


# --- load ----------------------------------------------------------------------------


async def client(world: World) -> None:
    """Stores and deletes until it is over, whatever becomes of the server."""
    while not world.is_over:
        with suppress(*LOST):
            async with connected(world.port) as connection:
                while not world.is_over:
                    await _act(connection, world)
        await asyncio.sleep(0.02)


async def _act(connection: Connection, world: World) -> None:
    chance = world.random.random()
    if chance < 0.5:
        study = world.random.choice(world.studies)
        count = world.random.randint(1, 4)
        await store(connection, world, [world.new(study=study) for _ in range(count)])
    elif chance < 0.97:
        await _delete_one(connection, world)
    else:
        await _delete_study(connection, world)


async def _delete_one(connection: Connection, world: World) -> None:
    if not world.stored:
        return
    sop = world.random.choice(sorted(world.stored)[:200])
    world.stored.discard(sop)
    answer = await connection.request("DELETE", world.sent[sop].path)
    assert answer.status in {204, 404}, answer
    world.requests += 1
    world.deleted.add(sop)


async def _delete_study(connection: Connection, world: World) -> None:
    study = world.random.choice(world.volatile)
    inside = {sop for sop in world.stored if world.sent[sop].study == study}
    world.stored -= inside
    world.deletes[study] += 1
    world.leaving.append(study)
    try:
        answer = await connection.request("DELETE", f"/v2/studies/{study}")
    finally:
        world.leaving.remove(study)
    assert answer.status in {204, 404}, answer
    world.requests += 1
    world.deleted |= inside


async def add_tags(world: World) -> str:
    async with connected(world.port) as connection:
        answer = await connection.request(
            "POST",
            "/v2/extendedquerytags",
            {"Content-Type": "application/json"},
            json.dumps(TAGS).encode(),
        )
    assert answer.status == 202, answer
    id: str = answer.json()["id"]
    return id


async def status_of(world: World, operation_id: str) -> dict[str, Any]:
    async with connected(world.port) as connection:
        answer = await connection.request("GET", f"/v2/operations/{operation_id}")
    assert answer.status in {200, 202}, answer
    found: dict[str, Any] = answer.json()
    return found


async def is_under_way(world: World, operation_id: str) -> bool:
    found = await status_of(world, operation_id)
    return found["status"] in {"notStarted", "running"}


# --- the test ------------------------------------------------------------------------


@pytest.mark.timeout(400 + COUNT // 20)
async def test_a_reindex_under_load_and_two_kills_misses_and_invents_nothing(
    serve: Callable[..., Running], tmp_path: Path
) -> None:
    def start() -> Running:
        return serve(data=tmp_path, DICOM_DURABILITY="process-crash")

    running = start()
    world = World(Random(SEED), running.port)
    world.studies = [world.uids.next() for _ in range(STUDIES + VOLATILE)]
    world.volatile = world.studies[:VOLATILE]
    world.series = {s: [world.uids.next() for _ in range(3)] for s in world.studies}
    began = time.monotonic()
    await seed(world)
    seeded = time.monotonic() - began
    clients = [asyncio.create_task(client(world)) for _ in range(CLIENTS)]
    await asyncio.sleep(0.3)
    operation = await add_tags(world)
    began, interrupted = time.monotonic(), 0
    for _ in range(KILLS):
        await asyncio.sleep(world.random.uniform(0.05, 0.25) * max(1, COUNT / 1000))
        interrupted += await is_under_way(world, operation)
        running.kill()
        running = start()
        world.port = running.port
        await healthy(running.port)
    while await is_under_way(world, operation):
        await asyncio.sleep(0.1)
    took = time.monotonic() - began
    await asyncio.sleep(0.5)
    world.is_over = True
    await asyncio.gather(*clients)

    assert (await status_of(world, operation))["status"] == "succeeded"
    assert interrupted, "the reindex was over before the first kill"
    try:
        async with connected(running.port) as connection:
            live = await live_instances(connection, world)
            await check_instances(connection, world, live)
            await check_errors(connection, world, live)
            await check_studies_and_series(connection, world, live)
    except AssertionError as error:
        error.add_note(running.log()[-3000:])
        raise
    print(
        f"{COUNT} instances seeded in {seeded:.1f} s, brought in in {took:.1f} s,"
        f" {interrupted} kills under way, {world.requests} requests, {len(live)} live"
    )
    running.stop()


# --- what must hold ------------------------------------------------------------------


async def all_rows(connection: Connection, path: str) -> list[dict[str, Any]]:
    """All pages of a search."""
    rows: list[dict[str, Any]] = []
    joint = "&" if "?" in path else "?"
    target = f"{path}{joint}limit=200"
    while True:
        answer = await connection.request("GET", target, JSON_HEADERS)
        assert answer.status in {200, 204}, answer
        rows += answer.json() if answer.status == 200 else []
        link = answer.headers.get("link")
        if link is None:
            return rows
        target = "/" + link[1:].partition(">")[0].split("/", 3)[3]


async def live_instances(connection: Connection, world: World) -> dict[str, Sent]:
    """Those that the server has, newest first in each study.

    They agree with what it acknowledged.
    """
    found: list[str] = []
    for study in world.studies:
        rows = await all_rows(connection, f"/v2/studies/{study}/instances")
        found += [row[SOP_INSTANCE_UID]["Value"][0] for row in rows]
    live = {sop: world.sent[sop] for sop in found}
    assert len(live) == len(found), "an instance twice"
    assert world.stored - live.keys() == set(), "acknowledged but lost"
    assert world.deleted & live.keys() == set(), "deleted but there"
    return live


async def check_instances(
    connection: Connection, world: World, live: dict[str, Sent]
) -> None:
    """Each number finds exactly the live instances that have it."""
    enabled = await connection.request(
        "PATCH",
        f"/v2/extendedquerytags/{NUMBER}",
        {"Content-Type": "application/json"},
        b'{"queryStatus": "enabled"}',
    )
    assert enabled.status == 200
    for number in range(NUMBERS):
        rows = await all_rows(connection, f"/v2/instances?{NUMBER}={number}")
        found = [row[SOP_INSTANCE_UID]["Value"][0] for row in rows]
        expected = {sop for sop, one in live.items() if one.number == number}
        assert len(found) == len(set(found)), "an instance twice"
        assert set(found) - expected == set(), "found without having it"
        assert expected - set(found) == set(), "has it and is not found"


async def check_errors(
    connection: Connection, world: World, live: dict[str, Sent]
) -> None:
    """Errors are those of the live instances that cannot be indexed."""
    expected = {sop for sop, one in live.items() if not one.valid}
    path = f"/v2/extendedquerytags/{NUMBER}"
    entry = (await connection.request("GET", path)).json()
    told: list[str] = []
    while True:
        query = f"?limit=200&offset={len(told)}"
        errors = (await connection.request("GET", f"{path}/errors{query}")).json()
        told += [error["sopInstanceUid"] for error in errors]
        if len(errors) < 200:
            break
    assert set(told) == expected
    assert len(told) == len(expected) == entry.get("errors", {}).get("count", 0)


async def check_studies_and_series(
    connection: Connection, world: World, live: dict[str, Sent]
) -> None:
    """One value each, of an instance that was sent there; a newer one replaces it."""
    ages = await _values(connection, "studies", STUDY, AGE, _ages())
    protocols = await _values(connection, "series", SERIES, PROTOCOL, _protocols())
    for study in set(world.studies) - set(world.volatile):
        inside = [one for one in world.sent.values() if one.study == study]
        _check_value(ages[study], live, [(one.sop, one.age) for one in inside])
        for series in {one.series for one in live.values() if one.study == study}:
            part = [one for one in inside if one.series == series]
            pairs = [(one.sop, one.protocol) for one in part]
            _check_value(protocols[series], live, pairs)
    newest = {}
    for study in world.studies:
        last = Sent(
            study, world.series[study][0], world.uids.next(), 1, True, "099Y",
            "PROTOCOL999",
        )  # fmt: skip
        world.sent[last.sop] = newest[study] = last
        await store(connection, world, [last])
    ages = await _values(connection, "studies", STUDY, AGE, [*_ages(), "099Y"])
    protocols = await _values(
        connection, "series", SERIES, PROTOCOL, [*_protocols(), "PROTOCOL999"]
    )
    for study, last in newest.items():
        assert ages[study] == ["099Y"]
        assert protocols[last.series] == ["PROTOCOL999"]


def _check_value(
    found: list[str], live: dict[str, Sent], pairs: list[tuple[str, str | None]]
) -> None:
    """The value of the newest instance that had one, deleted or not.

    Args:
        found: Values by which the study or series is found.
        live: Newest first in each study.
        pairs: All instances ever sent to it, and their values.
    """
    values = dict(pairs)
    newest = next((values[sop] for sop in live if values.get(sop)), None)
    gone = {value for sop, value in pairs if value and sop not in live}
    assert len(found) <= 1, f"{len(found)} values"
    if newest is not None:
        assert found, "an instance has a value and the study or series has none"
    assert set(found) <= gone | {newest}, "not of the newest"


def _ages() -> list[str]:
    return [f"{n:03d}Y" for n in range(AGES)]


def _protocols() -> list[str]:
    return [f"PROTOCOL{n:03d}" for n in range(PROTOCOLS)]


async def _values(
    connection: Connection, resource: str, key: str, name: str, values: Sequence[str]
) -> dict[str, list[str]]:
    """The values that find each study or series."""
    found: dict[str, list[str]] = defaultdict(list)
    for value in values:
        for row in await all_rows(connection, f"/v2/{resource}?{name}={value}"):
            found[row[key]["Value"][0]].append(value)
    return found
