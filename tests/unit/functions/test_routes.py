"""The table of routes as the host sees it."""

import os
import re
from pathlib import Path

import pytest

from functions.call import VERSIONS, Permission
from functions.routes import FALLBACK, ROUTES, fits, http_functions
from localhost.routing import Route, Router, parse

EXAMPLES = {
    "study": "1.2.3",
    "series": "1.2.4",
    "instance": "1.2.5%20",
    "frames": "1,2",
    "frame": "7",
    "partition": "my.partition",
    "document": "api.yaml",
    "path": "00081140/0/00880200",
    "tag": "00080070",
    "operation": "0123456789abcdef0123456789abcdef",
    "ignored": "",
}
FUNCTIONS = http_functions()
ROUTER = Router(
    [Route(f.name, frozenset(f.methods), parse(f.template)) for f in FUNCTIONS]
)


def example(template: str, version: str) -> str:
    """A path that the template is meant for."""
    segments = []
    for segment in template.split("/"):
        name = re.match(r"\{\*?([a-z]+)", segment)
        values = {**EXAMPLES, "version": version}
        segments.append(values[name[1]] if name else segment)
    return "/" + "/".join(segments)


def reached(method: str, path: str) -> str | None:
    matched = ROUTER.match(method, path.encode())
    return matched[0].name if matched else None


CASES = [
    (function, method, version)
    for function in FUNCTIONS
    for method in function.methods
    for version in (function.route.versions or ("",))
    if function.name not in {"Preflight", FALLBACK}
]


@pytest.mark.parametrize(
    ("function", "method", "version"),
    CASES,
    ids=[f"{f.name}-{m}-{v}" for f, m, v in CASES],
)
def test_every_method_and_path_reaches_its_own_handler(function, method, version):
    path = example(function.template, version)
    assert reached(method, path) == function.name
    if "viewer" not in path and "bulkdata" not in path:
        assert reached(method, path + "/") == function.name
    assert reached(method, path.upper().replace("%20", "%20")) == function.name


def test_functions_are_sorted_and_none_has_the_name_of_another():
    names = [function.name for function in FUNCTIONS]
    assert names == sorted(names)
    assert len({name.lower() for name in names}) == len(names)
    assert names[-1] == FALLBACK


def test_names_are_pascal_case_and_valid_in_azure():
    for function in FUNCTIONS:
        assert re.fullmatch(r"[A-Z][A-Za-z]{1,126}", function.name)


@pytest.mark.parametrize(
    "path", ["/v3/studies", "/v9/studies", "/studies", "/v1.0/studies", "/v1x/studies"]
)
def test_other_versions_reach_nothing(path):
    assert reached("GET", path) == FALLBACK


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_whatever_fits_no_route_reaches_the_fallback(method):
    assert reached(method, "/v2/nonsense/1/2/3") == FALLBACK


@pytest.mark.parametrize("path", ["/", "/v2/studies", "/a/b/c"])
def test_options_are_answered_everywhere(path):
    assert reached("OPTIONS", path) == "Preflight"


def test_every_path_fits_its_template_and_the_fallback_knows():
    for function in FUNCTIONS:
        if function.template in {"{*path}", "{ignored:maxlength(0)?}"}:
            continue
        for version in function.route.versions or ("",):
            path = example(function.template, version).removeprefix("/")
            assert fits(function.template, path)
            assert fits(function.template, path + "/")
            assert not fits(function.template, "x" + path)


def test_data_routes_exist_twice_and_all_need_a_permission():
    names = {function.name for function in FUNCTIONS}
    for route in ROUTES:
        assert (f"{route.name}InPartition" in names) is route.in_partitions
        if route.in_partitions:
            assert route.permission is not Permission.NONE
            assert set(route.versions) <= set(VERSIONS)
            assert route.audit is not None


GOLDEN = Path(__file__).with_name("functions.txt")


def test_names_methods_routes_and_order_are_those_that_were_agreed():
    """Azure knows a function by its name; `UPDATE_GOLDEN=1` writes the file."""
    lines = [f"{f.name} {','.join(f.methods)} {f.template}\n" for f in FUNCTIONS]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text("".join(lines), encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8").splitlines(keepends=True) == lines
