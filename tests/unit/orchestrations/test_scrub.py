"""The scrub orchestrator, driven by the client library's own wrapper."""

from scripted import INSTANCE_ID, Failed, generations, run

from orchestrations import scrub
from orchestrations.retries import STEPS
from services.scrub_operation import DONE, INSTANCES, Options, first_state

CREATED = "2026-01-01T00:00:00+00:00"
FIRST = first_state(Options(), CREATED, 100)


class Archive:
    """Takes so many steps; `failing` never succeeds, `canceled` at that step."""

    def __init__(self, steps: int, *, canceled: int = 0, failing: int = 0) -> None:
        self.steps = steps
        self.done = 0
        self.canceled = canceled
        self.failing = failing
        self.ended: list[dict[str, object]] = []

    def step(self, payload):
        assert payload["id"] == INSTANCE_ID
        if self.done + 1 == self.failing:
            raise Failed("step")
        self.done += 1
        state = {name: value for name, value in payload.items() if name != "id"}
        ends = self.done in {self.steps, self.canceled}
        return state | {
            "phase": DONE if ends else INSTANCES,
            "position": max(0, 100 - self.done),
            "canceled": self.done == self.canceled,
        }

    @property
    def answers(self):
        return {scrub.STEP: self.step, scrub.END: self.ended.append}


def test_it_goes_on_until_all_is_done_and_records_how_it_ended():
    archive = Archive(5)
    done = run(scrub.scrub_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "succeeded"}
    assert archive.done == 5
    [ended] = archive.ended
    assert (ended["id"], ended["status"]) == (INSTANCE_ID, "succeeded")
    percents = [status["percent"] for status in done.statuses]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)


def test_a_large_archive_takes_several_generations():
    archive = Archive(2 * STEPS + 3)
    done = generations(scrub.scrub_orchestrator, FIRST, archive.answers)
    assert [len(each.activities(scrub.STEP)) for each in done] == [STEPS, STEPS, 3]
    assert done[0].following["position"] == 100 - STEPS
    assert len(archive.ended) == 1


def test_a_canceled_one_says_so():
    archive = Archive(9, canceled=3)
    done = run(scrub.scrub_orchestrator, FIRST, archive.answers)
    assert done.output == {"status": "canceled"}
    assert archive.ended[0]["status"] == "canceled"


def test_a_step_that_never_succeeds_ends_it_as_failed():
    archive = Archive(9, failing=3)
    done = run(scrub.scrub_orchestrator, FIRST, archive.answers)
    assert isinstance(done.error, Failed)
    assert archive.ended[0]["status"] == "failed"
    assert archive.ended[0]["position"] == 98
