"""What is wrong with GitHub's workflows, as far as it can be told without GitHub."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deployment.compose import Loader

TOP = {"name", "on", "permissions", "concurrency", "jobs", "env", "defaults"}
JOB = {
    "concurrency", "env", "if", "name", "needs", "outputs", "permissions", "runs-on",
    "services", "steps", "strategy", "timeout-minutes",
}  # fmt: skip
STEP = {"env", "id", "if", "name", "run", "shell", "uses", "with", "working-directory"}
EVENTS = {"push", "pull_request", "schedule", "workflow_dispatch", "release"}
SCOPES = {
    "actions", "attestations", "checks", "contents", "deployments", "id-token",
    "issues", "packages", "pull-requests", "security-events", "statuses",
}  # fmt: skip
CONTEXTS = {"env", "github", "inputs", "job", "matrix", "needs", "runner", "secrets",
            "steps", "strategy", "vars"}  # fmt: skip
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
VERSION = re.compile(r"@[0-9a-f]{40} # v\d+(\.\d+\.\d+)?$")
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
# Texts that whoever opens a pull request chooses.
CHOSEN = re.compile(r"github\.(head_ref|event\.)|inputs\.")


class WorkflowLoader(Loader):
    """`on` is a name here, not a truth."""


WorkflowLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in Loader.yaml_implicit_resolvers.items()
}


def load(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(text, WorkflowLoader)
    return found


def check(text: str, root: Path) -> list[str]:
    """Every mistake, a sentence each."""
    try:
        content = load(text)
    except yaml.YAMLError as error:
        return [f"this is no YAML: {error}"]
    return [*_top(content), *_texts(text), *_jobs(content.get("jobs") or {}, root)]


def _top(content: dict[str, Any]) -> Iterator[str]:
    for name in sorted(content.keys() - TOP):
        yield f"{name} is unknown"
    events = content.get("on") or {}
    for name in sorted(set(events) - EVENTS):
        yield f"there is no event {name}, or it is not for us"
    if content.get("permissions") != {"contents": "read"}:
        yield "without further ado a job may only read the repository"
    if not content.get("jobs"):
        yield "there are no jobs"


def _texts(text: str) -> Iterator[str]:
    for line in text.splitlines():
        uses = re.match(r"\s*(?:- )?uses:\s*(.*)", line)
        if uses and not VERSION.search(uses[1]):
            yield f"{uses[1]} is not pinned, or does not say its version"
    for match in EXPRESSION.finditer(text):
        yield from _expression(match[1])


def _expression(text: str) -> Iterator[str]:
    bare = re.sub(r"'[^']*'", "", text)
    if bare.count("(") != bare.count(")") or not bare.strip():
        yield f"{text.strip()!r} is no expression"
    for name in re.findall(r"(?<![\w.])([a-z]\w*)\.", bare):
        if name not in CONTEXTS:
            yield f"there is no context {name}"


def _jobs(jobs: dict[str, Any], root: Path) -> Iterator[str]:
    for name, job in jobs.items():
        for sentence in _job(job, jobs, root):
            yield f"{name}: {sentence}"


def _job(job: dict[str, Any], jobs: dict[str, Any], root: Path) -> Iterator[str]:
    for name in sorted(job.keys() - JOB):
        yield f"{name} is unknown"
    if not re.fullmatch(r"ubuntu-\d\d\.\d\d", job.get("runs-on", "")):
        yield "runs-on is no fixed version"
    if not job.get("timeout-minutes"):
        yield "it may hang for hours: no timeout-minutes"
    needs = job.get("needs", [])
    for other in [needs] if isinstance(needs, str) else needs:
        if other not in jobs:
            yield f"it needs {other}, which is no job"
    for scope, right in job.get("permissions", {}).items():
        if scope not in SCOPES or right not in {"read", "write", "none"}:
            yield f"there is no permission {scope}: {right}"
    matrix = set(job.get("strategy", {}).get("matrix", {}))
    used = set(re.findall(r"matrix\.(\w+)", str(job)))
    for name in sorted(used ^ matrix):
        yield f"matrix.{name} is not given, or never used"
    for position, step in enumerate(job.get("steps") or [{}]):
        for sentence in _step(step, root):
            yield f"step {position + 1}: {sentence}"


def _step(step: dict[str, Any], root: Path) -> Iterator[str]:
    for name in sorted(step.keys() - STEP):
        yield f"{name} is unknown"
    if ("run" in step) == ("uses" in step):
        yield "a step either runs or uses something"
    keeps = step.get("with", {}).get("persist-credentials") != "false"
    if keeps and step.get("uses", "").startswith("actions/checkout@"):
        yield "the token stays behind in .git: persist-credentials"
    command = step.get("run", "")
    for match in EXPRESSION.finditer(command):
        yield f"{match[0]} becomes part of the command; hand it over in env"
    for match in EXPRESSION.finditer(str(step.get("with", ""))):
        if CHOSEN.search(match[1]):
            yield f"{match[0]} is a stranger's choice"
    if command:
        yield from _command(command, root)


def _command(command: str, root: Path) -> Iterator[str]:
    ended = subprocess.run(
        ["bash", "-n"], input=command, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        yield f"bash: {ended.stderr.strip()}"
    for path in re.findall(
        r"(?<![\w/])((?:infra|docker|tests)/[\w./-]+\.\w+)", command
    ):
        if not (root / path).exists() and path != "infra/main.json":
            yield f"there is no {path}"
    for name in re.findall(r"\./dev (\w+)", command):
        if f"  {name}) " not in (root / "dev").read_text(encoding="utf-8"):
            yield f"there is no command ./dev {name}"
    for tool in re.findall(r"pipx run --spec (\S+)", command):
        if "==" not in tool:
            yield f"{tool} has no fixed version"
