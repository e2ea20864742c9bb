"""The change feed while it is written and read at once, in small segments.

Events are published by several processes, some of them twice, as after a lost answer
or by who heals. `FEEDS=1000` makes it so many instead of a few.
"""

import asyncio
import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scenarios import memory_folder

from services import feed as feeds
from services.feed import Feed
from stores.sqlite_documents import SqliteDocuments

SEEDS = int(os.environ.get("FEEDS", "3"))
WRITERS = 3
TURNS = 8
DAY = timedelta(days=1)


class Clock:
    """Time as several machines see it: now and then it goes back a little."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(microseconds=self._random.randint(-3, 50))
        return self.time


class World:
    """The stores, the clock, and what was published."""

    def __init__(self, documents: SqliteDocuments, random: Random) -> None:
        self.random = random
        self.clock = Clock(random)
        self.documents = documents
        self.feeds = [self.feed() for _ in range(WRITERS)]
        self.published: list[str] = []
        self.done = False
        self._numbers = itertools.count(1)

    def feed(self) -> Feed:
        return Feed(self.documents, self.clock)

    def event(self, study: str) -> dict[str, Any]:
        count = self.random.choice((0, 1, 1, 2, 94))
        sops = [f"i{next(self._numbers)}" for _ in range(count)]
        self.published += sops
        return {
            "rev": next(self._numbers),
            "at": self.clock.time.isoformat(),
            "entries": [["se", sop, 1] for sop in sops],
            "action": "Create",
            "p": "p",
            "uid": study,
            "n": (0, count, 0),
        }


async def write(world: World, own: Feed) -> None:
    random = world.random
    for _ in range(TURNS):
        study = f"s{random.randint(1, 4)}"
        events = [world.event(study) for _ in range(random.randint(1, 4))]
        publishers = world.feeds if random.random() < 0.3 else [own]
        await asyncio.gather(*(feed.append(study, events) for feed in publishers))
        await asyncio.sleep(random.choice((0, 0.001)))


async def follow_sequence(world: World) -> list[str]:
    feed, seen = world.feed(), list[str]()
    while True:
        done = world.done
        limit = world.random.choice((1, 3, 10, 100, 1000))
        found = await feed.by_sequence(len(seen), limit)
        numbers = [entry.sequence for entry in found]
        assert numbers == list(range(len(seen) + 1, len(seen) + len(found) + 1))
        assert len(found) <= limit
        seen += [entry.sop_instance_uid for entry in found]
        if done and not found:
            return seen
        await asyncio.sleep(0)


async def follow_time(world: World) -> list[str]:
    feed, seen = world.feed(), list[str]()
    start = world.clock.time - DAY
    while True:
        done = world.done
        if done:
            world.clock.time += DAY
        end = max(world.clock.time, start + timedelta(microseconds=1))
        offset, limit = 0, world.random.choice((1, 5, 200))
        while True:
            found = await feed.by_time(start, end, offset, limit)
            seen += [entry.sop_instance_uid for entry in found]
            offset += len(found)
            if len(found) < limit:
                break
        if done:
            return seen
        start = end
        await asyncio.sleep(0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as found:
        yield found


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_reader_sees_every_entry_once_and_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr(
        feeds, "SEGMENT_BYTES", (3_000, 20_000, feeds.SEGMENT_BYTES)[seed % 3]
    )
    monkeypatch.setattr(feeds, "MAX_PAGES", random.choice((2, 5, 40)))
    documents = SqliteDocuments(folder, survives_power_loss=False)
    world = World(documents, random)
    readers = [
        asyncio.create_task(follow_sequence(world)),
        asyncio.create_task(follow_time(world)),
    ]
    await asyncio.gather(*(write(world, feed) for feed in world.feeds))
    world.done = True
    by_sequence, by_time = await asyncio.gather(*readers)
    assert sorted(by_sequence) == sorted(world.published)
    assert by_time == by_sequence
    totals = await world.feed().totals()
    assert totals.instances == totals.sequence == len(world.published)
    latest = await world.feed().latest()
    assert latest is not None
    assert latest.sop_instance_uid == by_sequence[-1]
    await documents.close()
