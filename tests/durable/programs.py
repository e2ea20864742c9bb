"""Random orchestrations as data: how to make, run, and independently judge them.

A program is a list of steps; each step adds one value to the result. The orchestrator
`Program` runs it with the SDK; `judge` knows the language alone, without Durable, and
says what is wrong with a result. Every activity echoes a number of its own, so an
answer that reaches the wrong task shows in the result.

Left out on purpose, because SDK and framework number tasks differently there in Azure
too: while retries are still going on (in the same fan-out, or left over from a race),
catching the failure of a `task_all`, and canceling a timer that was waited for.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df

Step = dict[str, Any]
Tasks = Generator[Any, Any, Any]

ATTEMPTS: Counter[str] = Counter()


class Maker:
    """Makes random programs; one seed, one program."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._number = 0
        self._loose = False  # a race may have left retries behind

    def program(self, depth: int = 2) -> list[Step]:
        outer, self._loose = self._loose, False
        steps = [self._step(depth) for _ in range(self._random.randint(1, 5))]
        self._loose = outer
        if self._random.random() < 0.15:
            steps.append(
                {"do": "again", "rest": self._simple(self._random.randint(1, 3))}
            )
        return steps

    def _key(self) -> str:
        self._number += 1
        return f"{self._seed}.{self._number}"

    def _simple(self, count: int) -> list[Step]:
        return [self._atom() for _ in range(count)]

    def _atom(self) -> Step:
        return {
            "do": "act",
            "key": self._key(),
            "sleep": self._random.choice([0, 0, 1, 4]),
        }

    def _retry(self, *, succeeds: bool) -> Step:
        attempts = self._random.randint(1, 3)
        fails = self._random.randrange(attempts) if succeeds else attempts
        return {
            "do": "retry",
            "key": self._key(),
            "sleep": self._random.choice([0, 2]),
            "attempts": attempts,
            "fails": fails,
            "wait": self._random.choice([1, 5]),
        }

    def _step(self, depth: int) -> Step:
        kinds = ["act", "fail", "live", "dead", "timer", "event", "entity"]
        kinds += ["all", "race"] * 2 + ["limit", "broken"] * (not self._loose)
        if depth:
            kinds += ["child", "child", "family", "dead child", "child retry"]
        return getattr(self, f"_{self._random.choice(kinds).replace(' ', '_')}")(depth)

    def _act(self, _: int) -> Step:
        return self._atom()

    def _fail(self, _: int) -> Step:
        return {"do": "fail", "key": self._key(), "sleep": 0}

    def _live(self, _: int) -> Step:
        return self._retry(succeeds=True)

    def _dead(self, _: int) -> Step:
        return self._retry(succeeds=False)

    def _timer(self, _: int) -> Step:
        return {"do": "timer", "wait": self._random.choice([0, 1, 10])}

    def _parallel(self, depth: int) -> Step:
        """Something that can stand in a fan-out and succeeds."""
        kind = self._random.choice(["act", "act", "retry", "all", "child"])
        if kind == "retry":
            return self._retry(succeeds=True)
        if kind == "all" and depth:
            return self._all(depth - 1)
        if kind == "child" and depth:
            return self._child(depth)
        return self._atom()

    def _all(self, depth: int) -> Step:
        count = self._random.randint(0, 4)
        return {"do": "all", "of": [self._parallel(depth) for _ in range(count)]}

    _family = _all

    def _race(self, depth: int) -> Step:
        """Losers go on, retries and all, while the program does other things."""
        count = self._random.randint(1, 3)
        of = [self._parallel(0) for _ in range(count)]
        if self._random.random() < 0.3:
            of.append(self._retry(succeeds=False))
        if self._random.random() < 0.3:
            of.append({"do": "fail", "key": self._key(), "sleep": 1})
        self._random.shuffle(of)
        self._loose = self._loose or any(item["do"] == "retry" for item in of)
        return {
            "do": "race",
            "of": of,
            "then": self._simple(self._random.randint(0, 2)),
        }

    def _limit(self, _: int) -> Step:
        return {"do": "limit", "work": self._atom()}

    def _broken(self, _: int) -> Step:
        """A fan-out without retries in which some members fail."""
        of = [*self._simple(self._random.randint(0, 2)), self._fail(0)]
        if self._random.random() < 0.5:
            of.append(self._fail(0))
        self._random.shuffle(of)
        return {"do": "broken", "of": of, "then": self._simple(1)}

    def _event(self, _: int) -> Step:
        return {
            "do": "event",
            "key": self._key(),
            "early": self._random.random() < 0.5,
        }

    def _entity(self, _: int) -> Step:
        adds = [self._random.randint(1, 9) for _ in range(self._random.randint(1, 3))]
        return {
            "do": "entity",
            "key": self._key(),
            "add": adds,
            "signal": self._random.random() < 0.5,
        }

    def _child(self, depth: int) -> Step:
        return {"do": "child", "program": self.program(depth - 1)}

    def _dead_child(self, depth: int) -> Step:
        end = {"do": "throw", "key": self._key()}
        return {"do": "dead child", "program": [*self.program(depth - 1)[:1], end]}

    def _child_retry(self, _: int) -> Step:
        attempts = self._random.randint(1, 3)
        return {
            "do": "child retry",
            "attempts": attempts,
            "fails": self._random.randint(0, attempts),
            "key": self._key(),
            "wait": 2,
        }


def value(key: str) -> str:
    """What the activity with this key answers."""
    return f"<{key}>"


# Running a program with the SDK


def register(app: df.DFApp) -> None:
    """Add the orchestrator, its activities and its entity to an app."""

    @app.function_name("Echo")
    @app.activity_trigger(input_name="step")
    async def echo(step: dict) -> str:
        await asyncio.sleep(step["sleep"] / 1000)
        ATTEMPTS[step["key"]] += 1
        if step["do"] == "fail" or ATTEMPTS[step["key"]] <= step.get("fails", 0):
            raise RuntimeError(f"no {step['key']}")
        return value(step["key"])

    @app.function_name("Raise")
    @app.activity_trigger(input_name="step")
    async def raise_event(step: dict) -> None:
        await SENDER["send"](step["instance"], step["name"], step["name"])

    @app.function_name("Count")
    @app.entity_trigger(context_name="context", entity_name="Count")
    def count(context: df.DurableEntityContext) -> None:
        total = context.get_state(lambda: 0)
        if context.operation_name == "add":
            total += context.get_input()
            context.set_state(total)
        context.set_result(total)

    @app.function_name("FailFirst")
    @app.orchestration_trigger(context_name="context")
    def fail_first(context: df.DurableOrchestrationContext) -> Tasks:
        step = context.get_input()
        return (yield context.call_activity("Echo", {**step, "do": "act", "sleep": 0}))

    @app.function_name("Program")
    @app.orchestration_trigger(context_name="context")
    def program(context: df.DurableOrchestrationContext) -> Tasks:
        given = context.get_input()
        results = given["before"]
        for step in given["steps"]:
            if step["do"] == "again":
                context.continue_as_new({"before": results, "steps": step["rest"]})
                return None
            results.append((yield from run(context, step)))
        return results


SENDER: dict[str, Any] = {}
"""`send(instance, name, data)`: how the activity `Raise` raises events."""


def task_of(context: df.DurableOrchestrationContext, step: Step) -> Any:
    """The SDK's task for a step that is one task."""
    match step["do"]:
        case "act" | "fail":
            return context.call_activity("Echo", step)
        case "retry":
            options = df.RetryOptions(step["wait"], step["attempts"])
            return context.call_activity_with_retry("Echo", options, step)
        case "all":
            return context.task_all([task_of(context, item) for item in step["of"]])
        case "child" | "dead child":
            given = {"before": [], "steps": step["program"]}
            return context.call_sub_orchestrator("Program", given)
        case "child retry":
            options = df.RetryOptions(step["wait"], step["attempts"])
            return context.call_sub_orchestrator_with_retry("FailFirst", options, step)
    raise AssertionError(step)


def run(context: df.DurableOrchestrationContext, step: Step) -> Tasks:
    """One step; failures of its tasks become the value `failed`."""
    match step["do"]:
        case "timer":
            due = context.current_utc_datetime + timedelta(milliseconds=step["wait"])
            yield context.create_timer(due)
            return "time"
        case "race":
            return (yield from _run_race(context, step))
        case "limit":
            return (yield from _run_limit(context, step))
        case "event":
            return (yield from _run_event(context, step))
        case "entity":
            return (yield from _run_entity(context, step))
        case "throw":
            raise RuntimeError(f"thrown {step['key']}")
    try:
        result = yield task_of(
            context, step if step["do"] != "broken" else {**step, "do": "all"}
        )
    except Exception as error:
        result = (
            "failed" if "no " in str(error) or "thrown" in str(error) else str(error)
        )
    if step["do"] == "broken":
        for item in step["then"]:
            result = [result, (yield task_of(context, item))]
    return result


def _run_race(context: df.DurableOrchestrationContext, step: Step) -> Tasks:
    tasks = [task_of(context, item) for item in step["of"]]
    winner = yield context.task_any(tasks)
    after = []
    for item in step["then"]:
        after.append((yield task_of(context, item)))
    failed = isinstance(winner.result, Exception)
    return [tasks.index(winner), "failed" if failed else winner.result, after]


def _run_limit(context: df.DurableOrchestrationContext, step: Step) -> Tasks:
    limit = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    work = task_of(context, step["work"])
    winner = yield context.task_any([limit, work])
    limit.cancel()
    return work.result if winner is work else "too late"


def _run_event(context: df.DurableOrchestrationContext, step: Step) -> Tasks:
    name = f"event{step['key']}"
    ask = context.call_activity(
        "Raise", {"instance": context.instance_id, "name": name}
    )
    wait = context.wait_for_external_event(name)
    if step["early"]:
        yield ask
        return (yield wait)
    return (yield context.task_all([wait, ask]))[0]


def _run_entity(context: df.DurableOrchestrationContext, step: Step) -> Tasks:
    entity = df.EntityId("Count", step["key"])
    for number in step["add"]:
        if step["signal"]:
            context.signal_entity(entity, "add", number)
        else:
            yield context.call_entity(entity, "add", number)
    return (yield context.call_entity(entity, "get"))


# Judging a result, without Durable


def judge(steps: list[Step], results: Any) -> str | None:
    """What is wrong with the results of a program, None if nothing is."""
    wanted = [
        item
        for step in steps
        for item in (step["rest"] if step["do"] == "again" else [step])
    ]
    if not isinstance(results, list) or len(results) != len(wanted):
        return f"{len(wanted)} results expected, got {results!r}"
    wrong = [judge_step(step, got) for step, got in zip(wanted, results, strict=True)]
    return next((text for text in wrong if text), None)


def judge_step(step: Step, got: Any) -> str | None:
    """What is wrong with the value of one step."""
    match step["do"]:
        case "child":
            return judge(step["program"], got)
        case "all":
            if not step["of"]:  # the SDK's own answer to an empty task_all
                return None if got is None else f"{step} gave {got!r}"
            if len(got) != len(step["of"]):
                return f"{got!r} has not {len(step['of'])} members"
            pairs = zip(step["of"], got, strict=True)
            return next(filter(None, (judge_step(*pair) for pair in pairs)), None)
        case "race":
            index, winner, after = got
            return judge_step(step["of"][index], winner) or judge(step["then"], after)
        case "limit":
            return judge_step(step["work"], got)
        case "event":
            expected: Any = f'"event{step["key"]}"'
        case "entity":
            expected = sum(step["add"])
        case "timer":
            expected = "time"
        case "broken":
            expected = ["failed", value(step["then"][0]["key"])]
        case "fail" | "dead child":
            expected = "failed"
        case "retry" | "child retry":
            lives = step["fails"] < step["attempts"]
            expected = value(step["key"]) if lives else "failed"
        case _:
            expected = value(step["key"])
    return None if got == expected else f"{step} gave {got!r}"
