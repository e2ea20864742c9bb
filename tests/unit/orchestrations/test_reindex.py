"""The reindex orchestrator, driven by the client library's own wrapper."""

import pytest
from scripted import INSTANCE_ID, Failed, generations, run

from orchestrations import reindex
from orchestrations.retries import BACK_OFF_SECONDS, STEPS

CREATED = "2026-01-01T00:00:00+00:00"
FIRST = {"schema_version": 1, "created": CREATED, "paths": ["00101010"]}


class Archive:
    """Watermarks from 1; each range has `batch` of them, four ranges at once."""

    def __init__(self, highest: int, batch: int = 10) -> None:
        self.highest = highest
        self.batch = batch
        self.indexed: list[int] = []
        self.ended: list[dict[str, object]] = []
        self.failures: dict[tuple[int, int], int] = {}
        self.canceled_below = 0

    def ranges(self, state):
        if state["next"] < self.canceled_below:
            return {"ranges": [], "canceled": True}
        found = []
        high = state["next"]
        while high > 0 and len(found) < 4:
            low = max(1, high - self.batch + 1)
            found.append([low, high])
            high = low - 1
        return {"ranges": found, "canceled": False}

    def index(self, payload):
        operation_id, low, high = payload
        assert operation_id == INSTANCE_ID
        left = self.failures.get((low, high), 0)
        if left:
            self.failures[low, high] = left - 1
            return {"ok": False}
        self.indexed += range(low, high + 1)
        return {"ok": True, "value": high - low + 1}

    @property
    def answers(self):
        return {
            reindex.HIGHEST: lambda _: self.highest,
            reindex.RANGES: self.ranges,
            reindex.BATCH: self.index,
            reindex.END: self.ended.append,
        }


def percents(done):
    return [status["percent"] for status in done.statuses]


def test_every_instance_is_indexed_once_from_the_newest_down():
    archive = Archive(95)
    done = run(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "succeeded"}
    assert sorted(archive.indexed) == list(range(1, 96))
    batches = done.activities(reindex.BATCH)
    assert [high for _, _, high in batches] == list(range(95, 0, -10))
    [ended] = done.activities(reindex.END)
    assert (ended["id"], ended["status"]) == (INSTANCE_ID, "succeeded")
    assert percents(done) == [0, 42, 84, 100, 100]
    assert done.statuses[-1]["resources"] == ["extendedquerytags/00101010"]


def test_an_empty_archive_is_done_at_once():
    archive = Archive(0)
    done = run(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "succeeded"}
    assert percents(done)[-1] == 100
    assert archive.indexed == []


def test_long_work_goes_on_in_further_generations_that_know_where_they_are():
    archive = Archive(40 * STEPS, batch=10)
    done = generations(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert len(done) == 3
    assert sorted(archive.indexed) == list(range(1, 40 * STEPS + 1))
    assert len(archive.indexed) == 40 * STEPS
    assert [len(each.activities(reindex.HIGHEST)) for each in done] == [1, 0, 0]
    assert all(each.following["created"] == CREATED for each in done[:-1])
    assert all(each.following["schema_version"] == 1 for each in done[:-1])
    assert [percents(each)[0] for each in done] == [0, 50, 100]
    assert done[-1].output == {"status": "succeeded"}


def test_no_generation_has_more_steps_than_replay_can_bear():
    archive = Archive(200, batch=1)
    for done in generations(reindex.reindex_orchestrator, FIRST, archive.answers):
        waits = len(done.activities(reindex.RANGES)) * 2 + 2
        assert waits <= STEPS + 2


def test_failed_batches_are_repeated_alone_after_pauses_that_grow():
    archive = Archive(35)
    archive.failures = {(26, 35): 1, (6, 15): 2}
    done = run(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "succeeded"}
    assert sorted(archive.indexed) == list(range(1, 36))
    assert done.pauses == list(BACK_OFF_SECONDS[:2])
    batches = [tuple(payload[1:]) for payload in done.activities(reindex.BATCH)]
    assert batches[4:] == [(26, 35), (6, 15), (6, 15)]


def test_a_batch_that_never_succeeds_ends_the_operation_as_failed():
    archive = Archive(35)
    archive.failures = {(26, 35): 99}
    done = run(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert isinstance(done.error, RuntimeError)
    assert done.pauses == list(BACK_OFF_SECONDS)
    [ended] = archive.ended
    assert ended["status"] == "failed"
    assert percents(done)[-1] < 100


@pytest.mark.parametrize("name", [reindex.HIGHEST, reindex.RANGES])
def test_a_step_that_never_succeeds_ends_the_operation_as_failed(name):
    archive = Archive(35)

    def fail(_):
        raise Failed(name)

    answers = archive.answers | {name: fail}
    done = run(reindex.reindex_orchestrator, FIRST, answers)
    assert isinstance(done.error, Failed)
    [ended] = archive.ended
    assert ended["status"] == "failed"


def test_a_canceled_one_stops_before_its_next_batches():
    archive = Archive(200)
    archive.canceled_below = 150
    done = run(reindex.reindex_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "canceled"}
    assert sorted(archive.indexed) == list(range(121, 201))
    [ended] = archive.ended
    assert ended["status"] == "canceled"


def test_the_wrapper_would_notice_an_orchestrator_that_changes_its_mind():
    played = []

    def fickle(context):
        played.append(1)
        yield context.call_activity("A", len(played))
        yield context.call_activity("B", None)

    with pytest.raises(AssertionError, match="not deterministic"):
        run(fickle, {}, {"A": lambda _: 1, "B": lambda _: 2})
