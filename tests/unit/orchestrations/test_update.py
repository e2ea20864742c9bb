"""The orchestrator of bulk updates, driven by the client library's own wrapper."""

from collections import Counter

import pytest
from scripted import INSTANCE_ID, Failed, generations, run

from dicomweb.identifiers import Partition
from orchestrations import update
from orchestrations.retries import STEPS
from services import update_operation
from services.update_operation import (
    ABANDON,
    CANCELED,
    FAILED,
    FOLD,
    LANES,
    PATIENT_TRIES,
    STAGE,
    TRIES,
    UNKNOWN,
    UPDATED,
)

CREATED = "2026-01-01T00:00:00+00:00"
HERE = Partition("Microsoft.Default")


def first(total):
    return update_operation.first_state(HERE, total, CREATED)


class Studies:
    """What becomes of each study by its index, and how many steps that takes."""

    def __init__(self, outcomes, steps=1):
        self.outcomes = outcomes
        self.steps = steps
        self.taken = Counter()
        self.at_once = 0
        self.failures = Counter()
        self.waits = Counter()

    def step(self, payload):
        operation_id, partition, lane = payload
        assert (operation_id, partition) == (INSTANCE_ID, HERE.name)
        study = lane["study"]
        if self.failures[study] > 0:
            self.failures[study] -= 1
            return {"ok": False}
        if self.waits[study] > 0:
            self.waits[study] -= 1
            return {"ok": True, "value": lane | {"waiting": True}}
        self.taken[study] += 1
        lane = lane | {"tries": 0, "waiting": False, "phase": STAGE}
        if self.taken[study] == self.steps:
            lane |= {"outcome": self.outcomes[study], "count": 10}
        return {"ok": True, "value": lane}

    @property
    def answers(self):
        return {
            update.RECORD: lambda _: {"ok": True},
            update.STEP: self.step,
            update.END: lambda _: None,
        }


def test_every_study_is_updated_a_few_at_once():
    studies = Studies([UPDATED] * 10, steps=2)
    done = run(update.update_orchestrator, first(10), studies.answers)
    assert done.output == {"status": "succeeded"}
    assert studies.taken == dict.fromkeys(range(10), 2)
    steps = done.activities(update.STEP)
    assert [lane["study"] for _, _, lane in steps[:LANES]] == list(range(LANES))
    [ended] = done.activities(update.END)
    assert ended["id"] == INSTANCE_ID
    assert done.statuses[-1]["percent"] == 100
    assert done.statuses[-1]["results"] == {
        "studyProcessed": 10,
        "studyUpdated": 10,
        "studyFailed": 0,
        "instanceUpdated": 100,
    }
    percents = [status["percent"] for status in done.statuses]
    assert percents == sorted(percents)


def test_unknown_studies_are_processed_and_a_failed_one_fails_the_operation():
    studies = Studies([UPDATED, UNKNOWN, FAILED, UPDATED, UPDATED])
    done = run(update.update_orchestrator, first(5), studies.answers)
    assert isinstance(done.error, RuntimeError)
    assert done.statuses[-1]["results"] == {
        "studyProcessed": 5,
        "studyUpdated": 3,
        "studyFailed": 1,
        "instanceUpdated": 30,
    }
    assert len(done.activities(update.END)) == 1


def test_a_canceled_one_begins_no_further_study():
    studies = Studies([UPDATED, CANCELED, *[UPDATED] * 20])
    done = run(update.update_orchestrator, first(22), studies.answers)
    assert done.output == {"status": "canceled"}
    assert sum(studies.taken.values()) == LANES


def test_long_work_goes_on_in_further_generations():
    studies = Studies([UPDATED] * 1000, steps=1)
    done = generations(update.update_orchestrator, first(1000), studies.answers)
    assert len(done) == 1000 // LANES // STEPS + 1
    assert studies.taken == dict.fromkeys(range(1000), 1)
    assert done[-1].output == {"status": "succeeded"}
    assert done[-1].statuses[-1]["results"]["instanceUpdated"] == 10_000
    assert all(len(each.activities(update.RECORD)) == 1 for each in done)
    assert all(each.waits <= STEPS + 2 for each in done)
    assert all(each.following["created"] == CREATED for each in done[:-1])
    assert all(each.following["schema_version"] == 1 for each in done[:-1])


def test_a_failed_step_is_repeated_after_pauses_that_grow():
    studies = Studies([UPDATED])
    studies.failures[0] = 3
    done = run(update.update_orchestrator, first(1), studies.answers)
    assert done.output == {"status": "succeeded"}
    assert done.pauses == [4, 8, 16]


def test_a_study_that_gets_nowhere_is_taken_back():
    studies = Studies([UPDATED])
    studies.failures[0] = TRIES
    done = run(update.update_orchestrator, first(1), studies.answers)
    last = done.activities(update.STEP)[-1][2]
    assert last["phase"] == ABANDON
    assert last["details"] == ("The stores could not be used for too long.",)


def test_a_study_that_is_current_already_counts_whatever_tidying_up_says():
    state = first(1)
    state["lanes"][0] |= {"phase": FOLD, "count": 7}
    studies = Studies([UPDATED])
    studies.failures[0] = PATIENT_TRIES
    done = run(update.update_orchestrator, state, studies.answers)
    assert done.statuses[-1]["results"]["instanceUpdated"] == 7
    assert done.output == {"status": "succeeded"}


def test_a_study_that_another_update_has_is_waited_for():
    studies = Studies([UPDATED])
    studies.waits[0] = 2
    done = run(update.update_orchestrator, first(1), studies.answers)
    assert done.pauses == [5, 5]
    assert done.output == {"status": "succeeded"}


def test_a_record_that_cannot_be_written_stops_nothing():
    studies = Studies([UPDATED])
    answers = studies.answers | {update.RECORD: lambda _: {"ok": False}}
    done = run(update.update_orchestrator, first(1), answers)
    assert done.output == {"status": "succeeded"}


def test_an_end_that_cannot_be_recorded_is_a_failure():
    def fail(_):
        raise Failed("journal")

    studies = Studies([UPDATED])
    done = run(
        update.update_orchestrator, first(1), studies.answers | {update.END: fail}
    )
    assert isinstance(done.error, Failed)


@pytest.mark.parametrize("total", [1, LANES, LANES + 1, 1000])
def test_the_first_checkpoint_is_small(total):
    import json

    assert len(json.dumps(first(total))) < 2000
