"""The scripts for Entra ID ask the Azure CLI for the right things."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "infra" / "scripts"
# Stands for the Azure CLI: writes its arguments to a file and answers from a table.
FAKE = r"""#!/bin/bash
printf '%s\037' "$@" >>"$AZ_CALLS"
printf '\036' >>"$AZ_CALLS"
while IFS=$'\t' read -r words answer; do
  case "$* " in
    "$words "*)
      printf '%b\n' "$answer"
      exit
      ;;
  esac
done <<<"$AZ_ANSWERS"
"""


@pytest.fixture
def run(tmp_path):
    program = tmp_path / "az"
    program.write_text(FAKE)
    program.chmod(0o755)
    calls = tmp_path / "calls"

    def execute(script, *arguments, answers):
        ended = subprocess.run(
            [SCRIPTS / script, *arguments],
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "AZ_CALLS": str(calls),
                "AZ_ANSWERS": "\n".join(
                    " ".join(words) + "\t" + answer.replace("\n", "\\n")
                    for words, answer in answers
                ),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        text = calls.read_text() if calls.exists() else ""
        return ended, [line.split("\037")[:-1] for line in text.split("\036")[:-1]]

    return execute


NEW = [
    (["account", "show"], "tenant-1"),
    (["ad", "app", "list"], ""),
    (["ad", "app", "create"], "app-1"),
    (["ad", "app", "show"], "object-1"),
    (["ad", "sp", "list"], ""),
]


def option(call, name):
    return call[call.index(name) + 1]


def test_a_registration_is_made_closed_and_with_the_roles_of_the_file(run):
    ended, calls = run("create-app-registration.sh", "--name", "dicom", answers=NEW)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "authority=https://login.microsoftonline.com/tenant-1/v2.0",
        "audience=app-1,api://app-1",
    ]
    update = next(call for call in calls if call[:3] == ["ad", "app", "update"])
    roles = json.loads(option(update, "--app-roles"))
    sample = json.loads((ROOT / "roles.sample.json").read_text())["roles"]
    assert [role["value"] for role in roles] == [role["name"] for role in sample]
    assert len({role["id"] for role in roles}) == len(roles)
    [rest] = [call for call in calls if call[0] == "rest"]
    body = json.loads(option(rest, "--body"))
    assert body["api"]["requestedAccessTokenVersion"] == 2
    assert "spa" not in body
    assert ["ad", "sp", "create", "--id", "app-1", "--output", "none"] in calls
    assert calls[-1][-1] == "appRoleAssignmentRequired=true"


def test_running_it_again_makes_no_second_application(run):
    answers = [
        (["account", "show"], "tenant-1"),
        (["ad", "app", "list"], "app-1"),
        (["ad", "app", "show"], "object-1"),
        (["ad", "sp", "list"], "principal-1"),
    ]
    redirect = "https://x.example/viewer/callback"
    ended, calls = run(
        "create-app-registration.sh", "--name", "dicom", "--redirect", redirect,
        answers=answers,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert not [call for call in calls if "create" in call]
    [rest] = [call for call in calls if call[0] == "rest"]
    assert json.loads(option(rest, "--body"))["spa"] == {"redirectUris": [redirect]}


def test_the_azure_cli_may_get_tokens_only_when_asked_for(run):
    ended, calls = run(
        "create-app-registration.sh", "--name", "dicom", "--allow-cli", "yes",
        answers=NEW,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, second = [call for call in calls if call[0] == "rest"]
    [scope] = json.loads(option(first, "--body"))["api"]["oauth2PermissionScopes"]
    api = json.loads(option(second, "--body"))["api"]
    [allowed] = api["preAuthorizedApplications"]
    assert allowed["delegatedPermissionIds"] == [scope["id"]]


ASSIGN = [
    (["ad", "app", "list"], "app-1"),
    (["ad", "sp", "show", "--id", "app-1", "--query", "id"], "principal-1"),
    (["ad", "sp", "show"], "role-1"),
    (["rest", "--method", "GET"], "assignment-1"),
]


def test_a_role_is_given_and_taken(run):
    words = ("--name", "dicom", "--role", "globalReader", "--to", "user-1")
    ended, calls = run("assign-role.sh", *words, answers=ASSIGN)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(option(calls[-1], "--body")) == {
        "principalId": "user-1",
        "resourceId": "principal-1",
        "appRoleId": "role-1",
    }
    ended, calls = run("assign-role.sh", *words, "--remove", "yes", answers=ASSIGN)
    assert ended.returncode == 0, ended.stderr
    assert option(calls[-1], "--method") == "DELETE"
    assert option(calls[-1], "--url").endswith("/appRoleAssignedTo/assignment-1")


def test_an_unknown_role_is_told(run):
    answers = [*ASSIGN[:2], (["ad", "sp", "show"], "")]
    words = ("--name", "dicom", "--role", "nobody", "--to", "user-1")
    ended, calls = run("assign-role.sh", *words, answers=answers)
    assert ended.returncode == 1
    assert "has no role nobody" in ended.stderr
    assert not [call for call in calls if call[0] == "rest"]


@pytest.mark.parametrize(
    ("apps", "status"), [("", 1), ("app-1", 0), ("app-1\napp-2", 1)]
)
def test_only_the_one_application_of_that_name_is_removed(run, apps, status):
    answers = [(["ad", "app", "list"], apps)]
    ended, calls = run("remove-app-registration.sh", "--name", "dicom", answers=answers)
    assert ended.returncode == status
    deleted = [call for call in calls if call[:3] == ["ad", "app", "delete"]]
    assert deleted == ([] if status else [["ad", "app", "delete", "--id", "app-1"]])


@pytest.mark.parametrize("script", sorted(p.name for p in SCRIPTS.iterdir()))
def test_without_arguments_a_script_says_how_it_is_used(run, script):
    ended, calls = run(script, answers=[])
    assert ended.returncode == 2
    assert "Usage" in ended.stderr
    assert calls == []
