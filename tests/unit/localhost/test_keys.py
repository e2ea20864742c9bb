"""Function keys: made once, opening what their level allows."""

import pytest

from localhost import keys
from localhost.keys import Keys


def test_keys_are_made_once_and_only_the_owner_reads_them(tmp_path):
    first = keys.load(tmp_path / "new")
    assert keys.load(tmp_path / "new") == first
    assert keys.load(tmp_path / "other") != first
    [file] = (tmp_path / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_all_derived_keys_differ():
    some = Keys("secret")
    derived = [
        some.master,
        some.host,
        some.function("host"),
        some.function("A"),
        some.function("B"),
        some.system("A"),
    ]
    assert len(set(derived)) == len(derived)


@pytest.mark.parametrize(
    ("level", "kind", "admitted"),
    [
        ("ANONYMOUS", None, True),
        ("FUNCTION", None, False),
        ("FUNCTION", "function", True),
        ("FUNCTION", "other", False),
        ("FUNCTION", "host", True),
        ("FUNCTION", "master", True),
        ("FUNCTION", "system", False),
        ("ADMIN", "function", False),
        ("ADMIN", "host", False),
        ("ADMIN", "master", True),
    ],
)
def test_a_key_opens_what_its_kind_allows(level, kind, admitted):
    some = Keys("secret")
    shown = {
        None: None,
        "function": some.function("F"),
        "other": some.function("G"),
        "host": some.host,
        "master": some.master,
        "system": some.system("F"),
    }[kind]
    assert some.admits(level, "F", shown) is admitted


def test_a_key_outside_of_ascii_is_refused():
    assert not Keys("secret").admits("ADMIN", "F", "schlüssel")
