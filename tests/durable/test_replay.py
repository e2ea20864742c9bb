"""The framework's side of task numbering, rule by rule, without SDK and engine."""

from typing import Any

import pytest

from localhost.durable.history import EventKind
from localhost.durable.replay import (
    NonDeterministic,
    Outcome,
    Past,
    RunActivity,
    SendToEntity,
    SetTimer,
    StartChild,
    UnsupportedAction,
    replay,
)

NOW = 1_000_000_000_000_000
NOON = "2026-11-22T12:00:00.000000Z"
NOON_MICROSECONDS = 1_795_348_800_000_000

STARTED = Past(EventKind.EXECUTION_STARTED, None, "Flow")


def activity(name: str) -> dict[str, Any]:
    return {"actionType": 0, "functionName": name, "input": "1"}


def retrying(name: str, attempts: int, wait: int = 5000) -> dict[str, Any]:
    options = {
        "firstRetryIntervalInMilliseconds": wait,
        "maxNumberOfAttempts": attempts,
    }
    return {
        "actionType": 1,
        "functionName": name,
        "input": "1",
        "retryOptions": options,
    }


def timer(*, canceled: bool = False) -> dict[str, Any]:
    return {"actionType": 5, "fireAt": NOON, "isCanceled": canceled}


def event(name: str) -> dict[str, Any]:
    return {"actionType": 6, "externalEventName": name, "reason": "ExternalEvent"}


def any_of(*of: dict[str, Any]) -> dict[str, Any]:
    return {"actionType": 11, "compoundActions": list(of)}


def all_of(*of: dict[str, Any]) -> dict[str, Any]:
    return {"actionType": 12, "compoundActions": list(of)}


def scheduled(task: int, name: str) -> Past:
    return Past(EventKind.TASK_SCHEDULED, task, name)


def completed(task: int) -> Past:
    return Past(EventKind.TASK_COMPLETED, task, None)


def failed(task: int) -> Past:
    return Past(EventKind.TASK_FAILED, task, None)


def timer_set(task: int) -> Past:
    return Past(EventKind.TIMER_CREATED, task, None)


def fired(task: int) -> Past:
    return Past(EventKind.TIMER_FIRED, task, None)


def raised(name: str) -> Past:
    return Past(EventKind.EVENT_RAISED, None, name)


def play(actions: list[dict[str, Any]], *past: Past) -> Outcome:
    return replay(actions, [STARTED, *past], NOW, "run")


def work(outcome: Outcome) -> list[tuple[int, str]]:
    """New work as pairs of id and what it is."""
    return [
        (decision.task, decision.name if isinstance(decision, RunActivity) else "timer")
        for decision in outcome.decisions
    ]


def test_actions_are_awaited_one_after_another() -> None:
    actions = [activity("A"), activity("B")]
    first = play(actions)
    assert (work(first), first.awaited_all) == ([(0, "A")], False)
    second = play(actions, scheduled(0, "A"), completed(0))
    assert (work(second), second.awaited_all) == ([(1, "B")], False)
    last = play(actions, scheduled(0, "A"), completed(0), scheduled(1, "B"), failed(1))
    assert (work(last), last.awaited_all) == ([], True)
    assert last.final_failures == {1}


def test_children_of_compounds_take_ids_in_order_whatever_their_depth() -> None:
    outcome = play(
        [all_of(activity("A"), any_of(activity("B"), timer()), activity("C"))]
    )
    assert work(outcome) == [(0, "A"), (1, "B"), (2, "timer"), (3, "C")]
    assert outcome.decisions[2] == SetTimer(2, NOON_MICROSECONDS)


def test_external_events_take_no_id() -> None:
    actions = [all_of(event("e"), activity("A"))]
    assert work(play(actions)) == [(0, "A")]


def test_a_when_all_waits_for_all_even_after_a_failure() -> None:
    actions = [all_of(activity("A"), activity("B")), activity("C")]
    begun = (scheduled(0, "A"), scheduled(1, "B"), failed(0))
    assert work(play(actions, *begun)) == []
    assert work(play(actions, *begun, completed(1))) == [(2, "C")]


def test_a_when_any_ends_with_its_first_child() -> None:
    actions = [any_of(activity("A"), activity("B")), activity("C")]
    begun = (scheduled(0, "A"), scheduled(1, "B"))
    assert work(play(actions, *begun, failed(1))) == [(2, "C")]


def test_an_empty_compound_is_awaited_at_once() -> None:
    assert work(play([all_of(), any_of(), activity("A")])) == [(0, "A")]


def test_a_retry_takes_an_id_for_each_timer_and_each_attempt() -> None:
    actions = [all_of(retrying("A", 2)), activity("B")]
    first = (scheduled(0, "A"), failed(0))
    assert play(actions, *first).decisions == (SetTimer(1, NOW + 5_000_000),)
    second = (*first, timer_set(1), fired(1))
    assert work(play(actions, *second)) == [(2, "A")]
    assert work(play(actions, *second, scheduled(2, "A"), completed(2))) == [(3, "B")]


def test_after_the_last_attempt_one_more_timer_is_due_at_once() -> None:
    actions = [all_of(retrying("A", 1)), activity("B")]
    past = (scheduled(0, "A"), failed(0))
    outcome = play(actions, *past)
    assert outcome.decisions == (SetTimer(1, NOW),)
    assert outcome.final_failures == {0, 1}
    assert work(play(actions, *past, timer_set(1), fired(1))) == [(2, "B")]


def test_a_retry_that_lost_a_race_goes_on_taking_ids() -> None:
    actions = [any_of(retrying("A", 3), activity("B")), activity("C"), activity("D")]
    past = [scheduled(0, "A"), scheduled(1, "B"), completed(1), scheduled(2, "C")]
    assert work(play(actions, *past, failed(0))) == [(3, "timer")]
    past += [failed(0), timer_set(3), completed(2)]
    assert work(play(actions, *past)) == [(4, "D")]


def test_only_failures_that_no_retry_followed_are_final() -> None:
    actions = [all_of(retrying("A", 3))]
    past = [scheduled(0, "A"), failed(0), timer_set(1), fired(1), scheduled(2, "A")]
    assert play(actions, *past).final_failures == frozenset()
    assert play(actions, *past, completed(2)).final_failures == frozenset()


def test_a_canceled_timer_keeps_its_id_and_holds_nobody() -> None:
    outcome = play([any_of(timer(canceled=True), activity("A")), activity("B")])
    assert work(outcome) == [(0, "timer"), (1, "A"), (2, "B")]
    assert outcome.canceled == {0}


def test_events_wait_for_their_wait_and_the_latest_wait_is_served_first() -> None:
    early = [raised("e"), scheduled(0, "A"), completed(0)]
    assert play([activity("A"), event("e")], *early).awaited_all
    twice = [any_of(event("e"), activity("A")), any_of(event("e"), event("x"))]
    begun = [scheduled(0, "A"), completed(0)]
    assert play(twice, *begun, raised("e")).awaited_all


def test_continue_as_new_and_signals_hold_nobody() -> None:
    signal = {"actionType": 9, "instanceId": "@a@b", "operation": "add", "input": "1"}
    outcome = play([signal, {"actionType": 4, "input": "[2]"}])
    assert outcome.awaited_all
    assert outcome.continue_as_new == "[2]"
    (sent,) = outcome.decisions
    assert isinstance(sent, SendToEntity)
    assert (sent.task, sent.entity, sent.operation, sent.signal) == (
        0,
        "@a@b",
        "add",
        True,
    )


def test_an_entity_call_waits_for_the_event_named_by_its_request() -> None:
    call = {"actionType": 7, "instanceId": "@a@b", "operation": "get", "input": "null"}
    (sent,) = play([call]).decisions
    assert isinstance(sent, SendToEntity)
    past = Past(EventKind.EVENT_SENT, 0, "@a@b")
    assert not play([call], past).awaited_all
    assert play([call], past, raised(sent.request_id)).awaited_all


def test_a_child_keeps_the_id_and_version_that_the_orchestrator_gave_it() -> None:
    child = {
        "actionType": 2,
        "functionName": "Child",
        "input": "{}",
        "instanceId": "mine",
        "version": "2",
    }
    assert play([child]).decisions == (StartChild(0, "Child", "{}", "mine", "2"),)


@pytest.mark.parametrize(
    ("actions", "past"),
    [
        ([activity("B")], [scheduled(0, "A")]),
        ([timer()], [scheduled(0, "A")]),
        ([], [scheduled(0, "A")]),
        ([], [completed(0)]),
    ],
)
def test_actions_that_contradict_the_history_are_an_error(
    actions: list[dict[str, Any]], past: list[Past]
) -> None:
    with pytest.raises(NonDeterministic, match="Non-deterministic orchestrator"):
        play(actions, *past)


def test_unknown_actions_are_an_error() -> None:
    with pytest.raises(UnsupportedAction, match="type 99"):
        play([{"actionType": 99}])
    with pytest.raises(UnsupportedAction, match="CallHttp"):
        play([{"actionType": 8}])
