"""Copies of what `./dev` needs, so that a test writes nothing beside these files."""

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = (
    *("dev", "requirements.txt", "requirements-dev.txt"),
    "local.settings.sample.json",
)


def copy_to(folder: Path) -> Path:
    """The folder, now with a `./dev` to which this environment is its own."""
    environment = folder / ".venv"
    environment.mkdir(parents=True)
    for name in COPIED:
        shutil.copy(ROOT / name, folder / name)
    for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
        if (real := Path(sys.prefix) / name).exists():
            (environment / name).symlink_to(real)
    files = ["requirements.txt"], ["requirements.txt", "requirements-dev.txt"]
    levels = zip(("runtime", "dev"), files, strict=True)
    lines = [f"{level} {stamp(*names)}\n" for level, names in levels]
    (environment / "stamp").write_text("".join(lines))
    return folder


def stamp(*names: str) -> str:
    """What ./dev writes down of an environment that has what these files want."""
    seen = hashlib.sha256(repr((sys.version_info[:3], sys.platform)).encode())
    for name in names:
        seen.update((ROOT / name).read_bytes())
    return seen.hexdigest()
