"""For every test: what REQUIRE demands, and the closing table of groups.

`REQUIRE=node,azurite,chromium` (set by .ci/run) turns each test that was skipped for lack
of one of these into a failure. A skip counts as such when its reason names it.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
GROUPS = ("unit", "contract", "blackbox", "emulated", "durable", "clients", "docs")
REQUIRED = tuple(name for name in os.environ.get("REQUIRE", "").split(",") if name)
# ./dev test runs pytest more than once; this file has what the earlier runs counted.
COUNTS = os.environ.get("DEV_GROUPS", "")
IS_LAST_PART = os.environ.get("DEV_GROUPS_PART", "last") == "last"

# The same examples on every machine, however slow; HYPOTHESIS=random tries new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS", "same"))

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def lacking(reason: str) -> str | None:
    """What the reason of a skip names that REQUIRE demands."""
    found = (n for n in REQUIRED if re.search(rf"\b{n}\b", reason, re.IGNORECASE))
    return next(found, None)


def fail_if_required(report: Report) -> Report:
    if report.skipped and isinstance(report.longrepr, tuple):
        _, _, reason = report.longrepr
        if name := lacking(reason):
            report.outcome = "failed"
            report.longrepr = f"REQUIRE names {name}, but: {reason}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_if_required((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_if_required((yield))


def group_of(nodeid: str) -> str:
    """The folder; black-box tests on the emulated Azure stack are apart."""
    if os.environ.get("TEST_STACK") == "emulated":
        return "emulated"
    return nodeid.removeprefix("tests/").split("/")[0]


def counted(reporter: pytest.TerminalReporter) -> list[tuple[str, str, str]]:
    """Group, outcome and reason of every test of this run."""
    rows = []
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in reporter.stats.get(outcome, []):
            why = report.longrepr
            reason = why[2] if outcome == "skipped" and isinstance(why, tuple) else ""
            rows.append((group_of(report.nodeid), outcome, reason))
    return rows


def pytest_unconfigure(config: pytest.Config) -> None:
    """Prints the table below everything else that pytest says."""
    terminalreporter = config.pluginmanager.get_plugin("terminalreporter")
    if terminalreporter is None or not COUNTS:  # a worker of pytest-xdist; pytest alone
        return
    rows = counted(terminalreporter)
    with open(COUNTS, "a+", encoding="utf-8") as file:
        file.seek(0)
        earlier = [tuple(json.loads(line)) for line in file]
        file.writelines(json.dumps(row) + "\n" for row in rows)
    if IS_LAST_PART:
        for line in table(earlier + rows):
            terminalreporter.write_line(line)


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    """The lines of the closing table: group, run, failed, skipped and why."""
    lines = ["", f"{'group':<10} {'run':>6} {'failed':>7} {'skipped':>8}  why"]
    groups = list(GROUPS) + sorted({row[0] for row in rows} - set(GROUPS))
    for group in groups:
        outcomes = Counter(outcome for of, outcome, _ in rows if of == group)
        reasons = Counter(
            reason.removeprefix("Skipped: ")
            for of, outcome, reason in rows
            if of == group and outcome == "skipped"
        )
        failed = outcomes["failed"] + outcomes["error"] + outcomes["xpassed"]
        run = failed + outcomes["passed"] + outcomes["xfailed"]
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        skipped = outcomes["skipped"]
        lines.append(f"{group:<10} {run:>6} {failed:>7} {skipped:>8}  {why}".rstrip())
    return lines
