"""The orchestrator of exports, driven by the client library's own wrapper."""

import json
from collections import Counter

import pytest
from scripted import INSTANCE_ID, Failed, generations, run

from dicomweb.identifiers import Partition
from orchestrations import export
from orchestrations.retries import STEPS
from services import export_operation
from services.export_operation import LANES, PIECE, REFUSALS, TRIES

CREATED = "2026-01-01T00:00:00+00:00"
HERE = Partition("Microsoft.Default")
HREF = "https://account.blob.core.windows.net/container/x/errors.log"


def first(total):
    state = export_operation.first_state(HERE, total, HREF)
    return state | {"created": CREATED}


class Destination:
    """Copies `size` identifiers a step, every seventh of them unknown."""

    def __init__(self, size=PIECE):
        self.size = size
        self.copied = Counter()
        self.failures = 0
        self.refusals = 0
        self.canceled = False
        self.ended = []

    def step(self, payload):
        operation_id, partition, lane = payload
        assert (operation_id, partition) == (INSTANCE_ID, HERE.name)
        if self.canceled:
            return {"ok": True, "value": lane | {"canceled": True}}
        if self.failures:
            self.failures -= 1
            return {"ok": False}
        if self.refusals:
            self.refusals -= 1
            refusals = lane["refusals"] + 1
            return {
                "ok": True,
                "value": lane | {"refusals": refusals, "refusal": "No."},
            }
        at = min(lane["at"] + self.size, lane["stop"])
        indexes = range(lane["at"], at)
        self.copied.update(indexes)
        skipped = sum(index % 7 == 0 for index in indexes)
        done = lane | {"at": at, "skipped": skipped, "tries": 0, "refusals": 0}
        return {"ok": True, "value": done | {"exported": len(indexes) - skipped}}

    @property
    def answers(self):
        return {
            export.CHECKPOINT: lambda state: {"ok": True, "value": state["skipped"]},
            export.STEP: self.step,
            export.END: self.ended.append,
        }


@pytest.mark.parametrize("total", [1, PIECE - 1, PIECE, LANES * PIECE + 1, 2345])
@pytest.mark.parametrize("size", [PIECE, 30])
def test_every_identifier_is_exported_once_and_counted(total, size):
    there = Destination(size)
    done = generations(export.export_orchestrator, first(total), there.answers)
    assert there.copied == dict.fromkeys(range(total), 1)
    skipped = len(range(0, total, 7))
    assert done[-1].output == {"status": "succeeded"}
    assert done[-1].statuses[-1] == {
        "percent": None,
        "resources": [],
        "results": {
            "exported": total - skipped,
            "skipped": skipped,
            "errorHref": HREF,
        },
    }
    [ended] = there.ended[-1:]
    assert ended["id"] == INSTANCE_ID


def test_long_work_goes_on_in_further_generations():
    there = Destination(size=5)
    done = generations(export.export_orchestrator, first(3000), there.answers)
    assert len(done) > 3
    assert all(each.waits <= STEPS + 2 for each in done)
    assert all(each.following["created"] == CREATED for each in done[:-1])
    logged = [each.activities(export.CHECKPOINT)[0]["logged"] for each in done]
    assert logged == sorted(logged)
    assert there.copied == dict.fromkeys(range(3000), 1)


def test_a_failed_step_is_repeated_after_pauses_that_grow_and_counts_once():
    there = Destination()
    there.failures = 3
    done = run(export.export_orchestrator, first(10), there.answers)
    assert done.output == {"status": "succeeded"}
    assert done.pauses == [2, 4, 8]
    assert done.statuses[-1]["results"]["exported"] == 8


@pytest.mark.parametrize(
    ("failures", "refusals", "text"),
    [(TRIES, 0, "did not answer"), (0, REFUSALS, "No.")],
)
def test_a_destination_that_takes_nothing_ends_it_as_failed(failures, refusals, text):
    there = Destination()
    there.failures, there.refusals = failures, refusals
    done = run(export.export_orchestrator, first(10), there.answers)
    assert isinstance(done.error, RuntimeError)
    [ended] = there.ended
    assert text in ended["failure"]
    assert text in done.statuses[-1]["results"]["error"]


def test_a_canceled_one_ends_at_its_next_step():
    there = Destination()
    there.canceled = True
    done = run(export.export_orchestrator, first(5000), there.answers)
    assert done.output == {"status": "canceled"}
    assert len(done.activities(export.STEP)) == LANES
    assert len(there.ended) == 1


def test_a_checkpoint_that_cannot_be_written_stops_nothing():
    there = Destination()
    answers = there.answers | {export.CHECKPOINT: lambda _: {"ok": False}}
    done = run(export.export_orchestrator, first(10), answers)
    assert done.output == {"status": "succeeded"}


def test_an_end_that_fails_is_tried_as_the_end_of_a_failure():
    there = Destination()
    tried = []

    def fail_once(state):
        tried.append(state["failure"])
        if len(tried) == 1:
            raise Failed("log")

    answers = there.answers | {export.END: fail_once}
    done = run(export.export_orchestrator, first(10), answers)
    assert tried == [None, "The export could not be finished."]
    assert isinstance(done.error, Failed)


def test_the_first_checkpoint_is_small():
    assert len(json.dumps(first(100_000))) < 2000
