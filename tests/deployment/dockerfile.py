"""Rules for our Dockerfile that a linter of all Dockerfiles does not know."""

import json
import re
from collections.abc import Iterator
from pathlib import Path


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each instruction, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def check(text: str, root: Path, needed: set[str]) -> list[str]:
    """Mistakes; `needed` are the folders that the app is made of."""
    return list(_mistakes(instructions(text), root, needed))


def _mistakes(
    found: list[tuple[str, str]], root: Path, needed: set[str]
) -> Iterator[str]:
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    final = found[last:]
    by_name = dict(final)
    yield from _user(final)
    if "/health/check" not in by_name.get("HEALTHCHECK", ""):
        yield "HEALTHCHECK does not ask /health/check"
    for name in ("ENTRYPOINT", "VOLUME"):
        try:
            json.loads(by_name.get(name, ""))
        except ValueError:
            yield f"{name} is missing, or is a command line of a shell"
    if by_name.get("STOPSIGNAL") != "SIGTERM":
        yield "the server drains on SIGTERM"
    copied = set()
    for name, rest in found:
        if name == "ADD":
            yield "ADD fetches and unpacks; COPY does neither"
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                copied.add(source.strip("/"))
                if not (root / source).exists():
                    yield f"there is no {source}"
    for folder in sorted(needed - copied):
        yield f"the app needs {folder}/, which is not copied"
    for name, rest in found:
        if name in {"ARG", "ENV"} and re.search(
            r"(?i)(KEY|SECRET|PASSWORD|TOKEN)=", rest
        ):
            yield f"{name} holds a secret"
        if name in {"ARG", "FROM"} and ":latest" in rest:
            yield f"{name} {rest} has no fixed version"


def _user(final: list[tuple[str, str]]) -> Iterator[str]:
    names = [name for name, _ in final]
    user = dict(final).get("USER", "0").split(":")[0]
    if not user.isdigit() or int(user) == 0:
        yield "the server runs as root, or as a user without a number"
    elif "RUN" in names[names.index("USER") :]:
        yield "something is installed after USER"
