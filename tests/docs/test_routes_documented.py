import re
from pathlib import Path

from functions.routes import ROUTES

PAGE = (Path(__file__).parents[2] / "docs" / "routes.md").read_text(encoding="utf-8")


def shown(path: str) -> str:
    """A template without its constraints, as people read it."""
    return re.sub(r"\{\*?(\w+)(:[^}]*\(.*\))?\??\}", r"{\1}", path)


def test_every_route_is_documented_as_it_is_and_no_other():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")][:5]
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]
    expected = []
    for route in ROUTES:
        path = shown(route.path.replace("{ignored:maxlength(0)?}", ""))
        prefix = "/{version}/" if route.versions else "/"
        expected.append(
            [
                f"`{route.name}`",
                route.method,
                f"`{prefix}{path}`",
                route.permission.name.lower(),
                "p" if route.in_partitions else "",
            ]
        )
    assert rows == expected


def test_every_route_says_what_it_does():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert all(len(row.strip("| ").split("|")[-1].strip()) > 3 for row in rows)
