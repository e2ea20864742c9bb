"""Route templates against paths, as the Azure host decides them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhost.errors import LoadError
from localhost.routing import Route, Router, parse, split


def route(name, template, *methods):
    return Route(name, frozenset(methods), parse(template))


def values(template, path):
    matched = Router([route("F", template)]).match("GET", path.encode())
    return None if matched is None else matched[1]


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("studies", "/studies", {}),
        ("studies", "/STUDIES/", {}),
        ("studies", "/studies//", None),
        ("studies", "/studies/1", None),
        ("studies/{study}", "/studies/1.2", {"study": "1.2"}),
        ("studies/{study}", "/studies/", None),
        ("studies/{study}", "/studies/A%20b", {"study": "A b"}),
        ("studies/{study}", "/studies/a%2Fb", {"study": "a%2Fb"}),
        ("%24bulk", "/$bulk", None),
        ("$bulk", "/%24BULK", {}),
        ("a/{b?}", "/a", {}),
        ("a/{b?}", "/a/1", {"b": "1"}),
        ("a/{b=7}", "/a", {"b": "7"}),
        ("a/{b=7}", "/a/8", {"b": "8"}),
        ("a/{b:int=7}", "/a/x", None),
        ("a/{*rest}", "/a", {}),
        ("a/{*rest}", "/a/b/c", {"rest": "b/c"}),
        ("a/{*rest}", "/a/b//c", {"rest": "b//c"}),
        ("{*rest}", "/", {}),
        ("", "/", {}),
        ("", "/x", None),
        ("{ignored:maxlength(0)?}", "/", {}),
        ("{ignored:maxlength(0)?}", "/x", None),
        ("v{version:int}/x", "/V12/X", {"version": "12"}),
        ("v{version:int}/x", "/v1a/x", None),
        ("{a}-{b}", "/1-2-3", {"a": "1-2", "b": "3"}),
        ("{name}.{ext?}", "/file", {"name": "file"}),
        ("{name}.{ext?}", "/file.tar.gz", {"name": "file.tar", "ext": "gz"}),
        ("a{{b}}", "/a{b}", {}),
        ("a/{b}/c", "/a//c", None),
    ],
)
def test_a_template_takes_the_paths_that_azure_gives_it(template, path, expected):
    assert values(template, path) == expected


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ("int", ["1", "-5", "2147483647"], ["x", "1.5", "2147483648", "1_0"]),
        ("long", ["9223372036854775807"], ["9223372036854775808"]),
        ("guid", ["0f8fad5b-d9cb-469f-a165-70867728950e"], ["0f8fad5b"]),
        ("bool", ["true", "FALSE"], ["1", "yes"]),
        ("alpha", ["Abc"], ["a1"]),
        ("double", ["1.5", "1e3"], ["x"]),
        ("length(3)", ["abc"], ["ab", "abcd"]),
        ("length(1,2)", ["a", "ab"], ["abc"]),
        ("minlength(2)", ["ab"], ["a"]),
        ("maxlength(2)", ["ab"], ["abc"]),
        ("min(3)", ["3"], ["2", "x"]),
        ("max(3)", ["3"], ["4"]),
        ("range(1,3)", ["1", "3"], ["0", "4"]),
        ("required", ["a"], []),
        (r"regex(^\d{{2}}-(a|b)$)", ["12-a", "12-B"], ["1-a", "12-c"]),
        ("regex(^a:b$)", ["a:b"], ["ab"]),
        ("int:min(3)", ["3"], ["1", "x"]),
    ],
)
def test_constraints_accept_and_refuse(constraint, good, bad):
    template = f"x/{{p:{constraint}}}"
    assert [values(template, f"/x/{text}") for text in good] == [
        {"p": text} for text in good
    ]
    assert [values(template, f"/x/{text}") for text in bad] == [None for _ in bad]


@pytest.mark.parametrize(
    "template",
    ["{", "}x{", "{}", "a//b", "{a:nope}", "{*a}/b", "x{*a}", "{a:regex(}", "{a:int!}"],
)
def test_a_wrong_template_is_a_load_error(template):
    with pytest.raises(LoadError, match="route"):
        parse(template)


def test_the_first_function_by_name_wins_whatever_is_more_precise():
    router = Router([route("B", "a/b"), route("A", "a/{x}")])
    assert router.match("GET", b"/a/b")[0].name == "A"


def test_a_refused_constraint_leaves_the_path_to_the_next_function():
    router = Router([route("A", "a/{x:int}"), route("B", "a/{y}")])
    assert router.match("GET", b"/a/1")[0].name == "A"
    assert router.match("GET", b"/a/x") == (router.routes[1], {"y": "x"})


def test_a_method_that_no_route_lists_is_no_match():
    router = Router([route("A", "a", "GET"), route("B", "a", "POST", "PUT")])
    assert router.match("PUT", b"/a")[0].name == "B"
    assert router.match("DELETE", b"/a") is None


def test_a_route_without_methods_takes_all_of_them():
    router = Router([route("A", "a", "GET"), route("B", "a")])
    assert router.match("GET", b"/a")[0].name == "A"
    assert router.match("PURGE", b"/a")[0].name == "B"


def naive(routes, method, path):
    for candidate in sorted(routes, key=lambda r: r.name):
        only = Router([candidate])
        found = only.match(method, path)
        if found:
            return found
    return None


segments = st.sampled_from(["a", "b", "{x}", "{y:int}", "v{z:int}", "{w?}"])
templates = st.lists(segments, max_size=4).map(
    lambda parts: (
        "/".join(part for part in parts if part != "{w?}")
        + ("/{w?}" if "{w?}" in parts else "")
    )
)
paths = st.lists(st.sampled_from(["a", "b", "1", "v1", "q"]), max_size=5).map(
    lambda parts: ("/" + "/".join(parts)).encode()
)


@given(st.lists(templates, max_size=8), paths, st.sampled_from(["GET", "POST"]))
def test_the_table_finds_what_trying_one_after_the_other_finds(texts, path, method):
    routes = [
        route(f"F{number}", text, *(["GET"] if number % 3 else []))
        for number, text in enumerate(texts)
    ]
    assert Router(routes).match(method, path) == naive(routes, method, path)


def test_splitting_keeps_an_encoded_slash_and_drops_one_slash_at_the_end():
    assert split(b"/") == []
    assert split(b"/a/b/") == ["a", "b"]
    assert split(b"/a%2fb/%C3%A9") == ["a%2Fb", "é"]
