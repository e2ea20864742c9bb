"""Windows of the change feed hold exactly the entries that a plain list says."""

from datetime import UTC, datetime, timedelta
from random import Random

from services.feed import Feed

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """Stands still at times, and goes back once in a while."""

    def __init__(self, random):
        self._random = random
        self.now = START

    def __call__(self):
        self.now += timedelta(microseconds=self._random.choice([0, 0, 1, 7, 500, -3]))
        return self.now


def event(revision, count):
    entries = [["1.2", f"1.2.{revision}.{n}", revision] for n in range(count)]
    return {
        "rev": revision,
        "action": "Create",
        "p": "Microsoft.Default",
        "uid": "1",
        "entries": entries,
    }


async def filled(runtime, random):
    """A feed, and all its entries in order."""
    feed = Feed(runtime.documents, Clock(random))
    revision = 0
    for _ in range(60):
        events = []
        for _ in range(random.choice([1, 1, 1, 3])):
            revision += 1
            events.append(event(revision, random.choice([0, 1, 1, 2, 9])))
        await feed.append("study", events)
    every = []
    while page := await feed.by_sequence(len(every), 50):
        every += page
    return feed, every


async def test_windows_by_sequence_and_by_time_are_exact(runtime):
    random = Random(5)
    feed, every = await filled(runtime, random)
    assert [entry.sequence for entry in every] == list(range(1, len(every) + 1))
    assert len({entry.sop_instance_uid for entry in every}) == len(every) > 100
    times = [entry.timestamp for entry in every]
    assert times == sorted(times)
    for _ in range(200):
        offset, limit = random.randint(0, len(every) + 3), random.randint(1, 100)
        assert await feed.by_sequence(offset, limit) == every[offset : offset + limit]
        start, end = sorted(random.choices(times, k=2))
        end += timedelta(microseconds=random.choice([0, 1, 2]))
        inside = [entry for entry in every if start <= entry.timestamp < end]
        offset, limit = random.randint(0, 12), random.randint(1, 20)
        found = await feed.by_time(start, end, offset, limit)
        assert found == inside[offset : offset + limit]


async def test_what_comes_later_is_later_than_every_window_that_was_read(runtime):
    random = Random(6)
    feed, every = await filled(runtime, random)
    for revision in range(1000, 1040):
        end = every[-1].timestamp + timedelta(microseconds=random.randint(-5, 5))
        end = min(end, feed._now())
        before = await feed.by_time(START, end, 0, 10_000)
        await feed.append("study", [event(revision, 1)])
        assert await feed.by_time(START, end, 0, 10_000) == before
        every += await feed.by_sequence(len(every), 10)
