"""The packages of a release hold the app, the whole app and nothing else."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def module(name):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / f"infra/release/{name}.py"
    )
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


package = module("package")
notices = module("notices")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    target = tmp_path_factory.mktemp("dist") / "released-package.zip"
    package.build(ROOT, target, None, scheduler=False)
    return target


def names(path):
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_package_has_what_the_app_needs_and_nothing_of_the_workshop(released):
    found = names(released)
    assert {
        "function_app.py",
        "host.json",
        "requirements.txt",
        "roles.sample.json",
    } <= {*found}
    for folder in ("functions", "services", "stores", "dicomweb", "orchestrations"):
        assert any(each.startswith(f"{folder}/") for each in found)
    tops = {each.split("/")[0] for each in found}
    assert not tops & {
        "tests",
        "docs",
        "infra",
        "docker",
        "localhost",
        "cli",
        ".github",
    }
    assert not tops & {"local.settings.json", "local.settings.sample.json", "dev"}
    assert not any(each.endswith((".md", ".pyc")) for each in found)


def test_the_app_runs_from_the_package_alone(released, tmp_path):
    with zipfile.ZipFile(released) as archive:
        archive.extractall(tmp_path)
    script = "import function_app; print(len(function_app.app.get_functions()))"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "DICOM_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 50


def test_the_same_files_give_the_same_bytes(released, tmp_path):
    again = tmp_path / "again.zip"
    package.build(ROOT, again, None, scheduler=False)
    assert again.read_bytes() == released.read_bytes()


def test_the_variant_for_the_scheduler_differs_in_its_backend_only(released, tmp_path):
    variant = tmp_path / "variant.zip"
    package.build(ROOT, variant, None, scheduler=True)
    assert names(variant) == names(released)
    with zipfile.ZipFile(released) as one, zipfile.ZipFile(variant) as other:
        differing = [n for n in one.namelist() if one.read(n) != other.read(n)]
        host = json.loads(other.read("host.json"))
    assert differing == ["host.json"]
    provider = host["extensions"]["durableTask"]["storageProvider"]
    assert provider["type"] == "azureManaged"
    assert host["extensions"]["durableTask"]["hubName"] == "dicom"


def test_a_ready_package_has_its_libraries_where_the_worker_looks(tmp_path):
    folder = tmp_path / "site"
    (folder / "lib" / "__pycache__").mkdir(parents=True)
    (folder / "lib" / "__init__.py").write_text("x = 1\n")
    (folder / "lib" / "__pycache__" / "a.pyc").write_bytes(b"1")
    target = tmp_path / "ready.zip"
    package.build(ROOT, target, folder, scheduler=False)
    libraries = [each for each in names(target) if each.startswith(".python_packages/")]
    assert libraries == [".python_packages/lib/site-packages/lib/__init__.py"]


def test_names_of_the_packages_are_those_that_the_template_fetches():
    text = (ROOT / "infra/modules/app.bicep").read_text(encoding="utf-8")
    assert "/released-package${variant}.zip" in text
    assert "/ready-package${variant}-py${replace(pythonVersion, '.', '')}.zip" in text
    source = (ROOT / "infra/release/package.py").read_text(encoding="utf-8")
    assert 'f"{name}{variant}{suffix}.zip"' in source


def test_notices_name_every_package_and_its_licence(tmp_path):
    info = tmp_path / "some-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: some\nVersion: 1.0\n"
                                   "License-Expression: MIT\n")  # fmt: skip
    (info / "RECORD").write_text("some-1.0.dist-info/LICENSE,,\n")
    (info / "LICENSE").write_text("Do what you like.\n")
    text, silent = notices.notices(tmp_path)
    assert "some 1.0\nMIT" in text
    assert "Do what you like." in text
    assert silent == []


def test_a_package_without_a_licence_is_told(tmp_path):
    info = tmp_path / "some-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    assert notices.notices(tmp_path)[1] == ["some"]
