"""Builds the packages of a release: the app as Azure Functions wants it, zipped.

    python infra/release/package.py DIST
    python infra/release/package.py DIST --ready 312=FOLDER

Without `--ready`: `released-package.zip`, whose requirements Azure installs (flex).
With it: `ready-package-py312.zip`, with the packages that FOLDER holds, for the plans
that run from a package. Each comes a second time as `…-scheduler…`, with a host.json
for Durable Task Scheduler. The same files give the same bytes.
"""

import argparse
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = ".python_packages/lib/site-packages"
SCHEDULER = {
    "type": "azureManaged",
    "connectionStringName": "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
}
EPOCH = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = ("__pycache__", "*.pyc")


def ignored(path: str, patterns: Iterable[str]) -> bool:
    """Whether .funcignore leaves out a file, by its path from the root."""
    parts = path.split("/")
    for pattern in patterns:
        names = parts[:-1] if pattern.endswith("/") else parts[:1] + parts[-1:]
        if any(fnmatch(name, pattern.rstrip("/")) for name in names):
            return True
    return False


def patterns(root: Path) -> list[str]:
    """The lines of .funcignore that are no comments."""
    lines = (root / ".funcignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and line[0] != "#"]


def app_files(root: Path) -> list[str]:
    """What git knows, less what .funcignore names, and the viewer if it is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607
        cwd=root,
        capture_output=True,
        check=True,
    )
    rules = patterns(root)
    tracked = [name for name in listed.stdout.decode().split("\0") if name]
    viewer = [
        path.relative_to(root).as_posix()
        for path in (root / "viewer").rglob("*")
        if path.is_file()
    ]
    return sorted({each for each in tracked if not ignored(each, rules)} | {*viewer})


def contents(root: Path, packages: Path | None) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of a package."""
    for name in app_files(root):
        yield name, (root / name).read_bytes()
    if packages is None:
        return
    for path in sorted(packages.rglob("*")):
        name = path.relative_to(packages).as_posix()
        if path.is_file() and not ignored(name, LEFT_OUT) and "__pycache__" not in name:
            yield f"{SITE_PACKAGES}/{name}", path.read_bytes()


def with_scheduler(host: bytes) -> bytes:
    """host.json with Durable Task Scheduler as the backend of Durable Functions."""
    content = json.loads(host)
    content["extensions"]["durableTask"]["storageProvider"] = SCHEDULER
    return json.dumps(content, indent=2).encode() + b"\n"


def build(root: Path, target: Path, packages: Path | None, *, scheduler: bool) -> None:
    """Writes one package."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in contents(root, packages):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            is_host = scheduler and name == "host.json"
            archive.writestr(entry, with_scheduler(content) if is_host else content)


def main(words: list[str]) -> int:
    """Builds what the words ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument(
        "--ready", action="append", default=[], metavar="VERSION=FOLDER"
    )
    options = parser.parse_args(words)
    options.dist.mkdir(parents=True, exist_ok=True)
    wanted: list[tuple[str, str, Path | None]] = [("released-package", "", None)]
    for each in options.ready:
        version, _, folder = each.partition("=")
        wanted.append(("ready-package", f"-py{version}", Path(folder)))
    for name, suffix, packages in wanted:
        for variant in ("", "-scheduler"):
            target = options.dist / f"{name}{variant}{suffix}.zip"
            build(ROOT, target, packages, scheduler=bool(variant))
            print(f"{target} {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
