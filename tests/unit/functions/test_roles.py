"""The roles file and its mistakes."""

import json
from pathlib import Path

import pytest

from dicomweb.identifiers import partition_key
from functions import roles
from functions.call import Permission
from functions.roles import EVERYWHERE
from services.settings import SettingsError

ROOT = Path(__file__).parents[3]


def file_with(*rows) -> bytes:
    return json.dumps({"roles": rows}).encode()


def role(**fields):
    return {"name": "r", "dataActions": ["read"], "scopes": ["/"], **fields}


def test_the_sample_file_is_right():
    sample = roles.load(ROOT / "roles.sample.json")
    assert sample.allow(["globalAdmin"], Permission.ALL, EVERYWHERE)
    assert not sample.allow(["globalReader"], Permission.WRITE, EVERYWHERE)
    radiology = partition_key("Radiology")
    assert sample.allow(["radiologyWriter"], Permission.WRITE, radiology)
    assert not sample.allow(["radiologyWriter"], Permission.READ, EVERYWHERE)


def test_rights_of_several_roles_add_up_and_refusals_stay_within_their_role():
    parsed = roles.parse(
        file_with(
            role(name="a", dataActions=["*"], notDataActions=["delete", "export"]),
            role(name="b", dataActions=["delete"], scopes=["/partitions/x"]),
        )
    )
    x = partition_key("x")
    assert not parsed.allow(["a"], Permission.DELETE, x)
    assert parsed.allow(["a", "b"], Permission.DELETE, x)
    assert not parsed.allow(["a", "b"], Permission.DELETE, EVERYWHERE)
    assert not parsed.allow(["a", "b"], Permission.EXPORT, x)
    assert not parsed.allow([], Permission.READ, x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", '"roles" must be a list'),
        (b'{"roles": []}', "at least one role"),
        (file_with(7), "role 1 must be an object"),
        (file_with(role(name="")), '"name" must be a text'),
        (file_with(role(name="two words")), '"name" must be a text without blanks'),
        (file_with(role(dataActions=[])), '"dataActions" must not be empty'),
        (file_with(role(dataActions="read")), '"dataActions" must be a list of texts'),
        (file_with(role(dataActions=["raed"])), "'raed', not one of read, write"),
        (file_with(role(notDataActions=["none"])), "\"notDataActions\" has 'none'"),
        (file_with(role(scopes=[])), '"scopes" must not be empty'),
        (file_with(role(scopes=["radiology"])), "'radiology' is neither / nor"),
        (file_with(role(scopes=["/partitions/"])), "is neither / nor"),
        (file_with(role(scopes=["/partitions/a/b"])), "is neither / nor"),
        (file_with(role(scopes=["/partitions/é"])), "is neither / nor"),
        (file_with(role(action=["read"])), "unknown field 'action'"),
        (file_with(role(), role(name="R")), "there are 2 roles with the name 'r'"),
    ],
)
def test_a_mistake_is_named(text, message):
    with pytest.raises(SettingsError) as caught:
        roles.parse(text)
    assert message in str(caught.value)


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(SettingsError) as caught:
        roles.parse(file_with(role(scopes=["x"]), role(dataActions=["y"]), 3))
    assert len(str(caught.value).splitlines()) == 5  # a title, 3 errors, the double


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"roles\.sample\.json"):
        roles.load(tmp_path / "no.json")
