""".github is right as far as it can be told without GitHub, and mistakes are seen."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from deployment import workflows

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def jobs(name):
    return workflows.load(read(name))["jobs"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_is_right(path):
    assert workflows.check(path.read_text(encoding="utf-8"), ROOT) == []


MUTATIONS = {
    "it is no YAML": ("ci.yml", "jobs:\n", "jobs: [\n", "no YAML"),
    "a name is given twice": ("ci.yml", "permissions:\n", "name: CI\npermissions:\n", "given twice"),
    "an action is not pinned": ("ci.yml", "checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "checkout@v5", "not pinned"),
    "an action does not say its version": ("ci.yml", " # v6.0.0", "", "does not say its version"),
    "every job may write": ("ci.yml", "  contents: read\n", "  contents: write\n", "may only read"),
    "a permission does not exist": ("release.yml", "attestations: write", "attestation: write", "no permission attestation"),
    "strangers' code runs with our token": ("ci.yml", "  pull_request:\n", "  pull_request_target:\n", "no event pull_request_target"),
    "a job may hang": ("ci.yml", "    timeout-minutes: 20\n", "", "no timeout-minutes"),
    "a runner moves": ("ci.yml", "ubuntu-24.04", "ubuntu-latest", "no fixed version"),
    "a job needs nobody": ("release.yml", "needs: build", "needs: builds", "it needs builds"),
    "the matrix is misspelt": ("ci.yml", "${{ matrix.stack }}\n      REQUIRE", "${{ matrix.stak }}\n      REQUIRE", "matrix.stak"),
    "a context does not exist": ("ci.yml", "${{ github.ref }}", "${{ githb.ref }}", "no context githb"),
    "a parenthesis is lost": ("ci.yml", "${{ github.ref }}", "${{ format('{0}', github.ref }}", "no expression"),
    "a text becomes a command": ("ci.yml", "smoke-test.sh $OVERLAY", "smoke-test.sh ${{ matrix.overlay }}", "becomes part of the command"),
    "the token stays behind": ("ci.yml", "          persist-credentials: false\n", "          fetch-depth: 1\n", "persist-credentials"),
    "a word is misspelt": ("ci.yml", "    runs-on: ubuntu", "    run-on: ubuntu", "run-on is unknown"),
    "a step does nothing": ("ci.yml", "      - run: ./dev check\n", "      - name: x\n", "either runs or uses"),
    "a script does not exist": ("ci.yml", "docker/smoke-test.sh", "docker/smoke.sh", "no docker/smoke.sh"),
    "a command of dev does not exist": ("ci.yml", "./dev check", "./dev chek", "no command ./dev chek"),
    "a command is no shell": ("release.yml", "          done\n", "", "bash:"),
    "a tool has no version": ("ci.yml", "zizmor==1.32.0", "zizmor", "no fixed version"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_a_workflow_is_seen(name):
    file, there, instead, words = MUTATIONS[name]
    text = read(file)
    assert there in text
    found = workflows.check(text.replace(there, instead, 1), ROOT)
    assert any(words in each for each in found), found


def test_every_version_of_python_is_tested_on_both_stacks():
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert supported["requires-python"] == ">=3.11,<3.14"
    matrix = jobs("ci.yml")["test"]["strategy"]["matrix"]
    assert matrix == {
        "python": ["3.11", "3.12", "3.13"],
        "stack": ["embedded", "emulated"],
    }


def test_every_overlay_of_compose_is_started():
    overlays = jobs("ci.yml")["containers"]["strategy"]["matrix"]["overlay"]
    found = {p.name.split(".")[1] for p in (ROOT / "docker").glob("compose.*.yaml")}
    assert set(overlays) == {"", *found} - {"ports"}
    script = (ROOT / "docker/smoke-test.sh").read_text(encoding="utf-8")
    assert all(
        re.search(rf"^  {name or chr(39) * 2}\)", script, re.MULTILINE)
        for name in overlays
    )


def test_a_release_has_all_its_parts():
    text = read("release.yml")
    for part in (
        "infra/release/package.py",
        "dist/main.json",
        "sbom.cdx.json",
        "SHA256SUMS",
        "THIRD-PARTY-NOTICES.txt",
        "attest-build-provenance",
        "gh release create",
        "cli viewer",
    ):
        assert part in text
    assert ".parameters.releaseUrl.defaultValue" in text


def test_the_button_leads_where_a_browser_may_fetch_the_template():
    """Addresses of releases have no CORS headers; those of branches have."""
    text = read("release.yml")
    [url] = re.findall(r"^ +url=(\S+)", text, re.MULTILINE)
    host, *_, branch, version, file = url.removeprefix("https://").split("/")
    assert host == "raw.githubusercontent.com"
    assert f"git push --quiet origin {branch}" in text
    assert f'"{version}/{file}"' in text


def test_the_template_is_compiled_by_one_version_of_the_compiler():
    versions = re.findall(r"bicep install --version (\S+)", read("ci.yml"))
    versions += re.findall(r"bicep install --version (\S+)", read("release.yml"))
    assert len(versions) == 2
    assert len(set(versions)) == 1


def test_renovate_keeps_what_must_not_move():
    content = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
    rules = {name: rule for rule in content["packageRules"]
             for name in rule.get("matchPackageNames", ())}  # fmt: skip
    assert rules["azure-functions-durable"]["allowedVersions"] == "<2"
    assert rules["@ohif/app"]["enabled"] is False
    assert "helpers:pinGitHubActionDigests" in content["extends"]
    [pattern] = {p[1:-1] for p in content["pip_requirements"]["managerFilePatterns"]}
    assert re.fullmatch(pattern, "requirements.txt")
    assert re.fullmatch(pattern, "requirements-dev.txt")


def test_the_secret_scan_passes_only_what_everybody_may_know():
    content = tomllib.loads((ROOT / ".gitleaks.toml").read_text(encoding="utf-8"))
    assert content["extend"] == {"useDefault": True}
    keys = [rule["regexes"] for rule in content["allowlists"] if "regexes" in rule]
    compose = (ROOT / "docker/compose.azure.yaml").read_text(encoding="utf-8")
    assert all(re.search(regex, compose) for regex in keys[0])
    assert len(keys) == 1
