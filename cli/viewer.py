"""Fetches the OHIF viewer from npm and makes it fit to be served below /viewer/.

OHIF is built to live at the root of a site; its own files name each other from there.
Everything is done in a folder beside the final one and renamed when complete, so a
viewer folder that exists is whole. A stamp in it says which version and which of our
changes it has.
"""

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
PREFIX = "/viewer/"
COMPRESSED = {".js", ".css", ".wasm", ".svg", ".json", ".html"}
LEFT_OUT = ("ort/", ".map")  # AI runtime of 136 MB and source maps: never requested
FETCH_SECONDS = 600

# By kind of file: where OHIF names its own files from the site's root, and a repair.
REWRITES = {
    ".html": ((r'((?:href|src|content|PUBLIC_URL)=")/(?!/)', rf"\g<1>{PREFIX}"),),
    ".css": ((r"url\((['\"]?)/(?!/)", rf"url(\g<1>{PREFIX}"),),
    ".json": ((r'("src": ")/(?!/)', rf"\g<1>{PREFIX}"),),
    ".js": (
        (r'(__webpack_require__\.p = ")/"', rf'\g<1>{PREFIX}"'),
        (r"(browserImportFunction\(')/(?!/)", rf"\g<1>{PREFIX}"),
        # The study list shows numbers of instances but does not ask for them: 0, NaN.
        # It asks for the modality, which a study does not have, not for all of them.
        (
            r"(commaSeparatedFields = \['00081030',)(\s*(?://.*\s*)?)'00080060'",
            r"\g<1> '00201208',\g<2>'00080061'",
        ),
        (r"(commaSeparatedFields = \['0008103E', '00080021')\]", r"\g<1>, '00201209']"),
        # OHIF 3.13.2 goes blank on a report with an item that has no concept name, as
        # image references have.
        (r"(CodeMeaning\s*\} = ConceptNameCodeSequence);", r"\g<1> ?? {};"),
    ),
}
CONFIGURATION = """\
// The viewer's settings; every one is explained at docs.ohif.org.
window.config = {
  routerBasename: '/viewer',
  extensions: [],
  modes: [],
  customizationService: [{ 'ohif.tours': { $set: [] } }],
  showStudyList: true,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'configure', days: 90 },
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'DICOM Functions',
        name: 'dicom-functions',
        qidoRoot: '/v2',
        wadoRoot: '/v2',
        wadoUriRoot: '/v2',
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        dicomUploadEnabled: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};
"""


STAMP = hashlib.sha256(f"{VERSION}{REWRITES}{CONFIGURATION}".encode()).hexdigest()


class FetchError(Exception):
    """The viewer is not there; the message says why in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--viewer", type=Path, default=Path("viewer"), help="where to")


def run(arguments: argparse.Namespace) -> int:
    """0 when the viewer is there."""
    try:
        print(f"dev: {fetch(arguments.viewer)}")
    except FetchError as error:
        print(f"dev: No viewer: {error}", file=sys.stderr)
        return 1
    return 0


def fetch(folder: Path) -> str:
    """What was done, as a sentence, once the folder holds the viewer.

    Raises:
        FetchError: It could not be had.
    """
    folder = folder.resolve()
    if is_current(folder):
        return f"The viewer is in {folder}"
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("npm was not found; install Node.js and start again")
    try:
        with tempfile.TemporaryDirectory(
            prefix=".viewer.", dir=folder.parent, ignore_cleanup_errors=True
        ) as scratch:
            unpacked = unpack(download(npm, Path(scratch)), Path(scratch) / "viewer")
            adapt(unpacked)
            (unpacked / "app-config.js").write_text(CONFIGURATION)
            compress(unpacked)
            (unpacked / "stamp").write_text(STAMP)
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            unpacked.rename(folder)
    except (OSError, tarfile.TarError) as error:
        if is_current(folder):  # another start was quicker
            return f"The viewer is in {folder}"
        raise FetchError(str(error)) from error
    return f"The viewer (OHIF {VERSION}) is installed in {folder}"


def is_current(folder: Path) -> bool:
    """Whether the folder holds this version of the viewer with these changes."""
    stamp = folder / "stamp"
    return stamp.is_file() and stamp.read_text() == STAMP


def download(npm: str, scratch: Path) -> Path:
    """The package as npm packs it. Not installed: its dependencies are built in."""
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--loglevel=error"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            [*command, "--pack-destination", str(scratch)],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"npm took more than {FETCH_SECONDS} s") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise FetchError(f"npm pack failed: {said}")
    return next(scratch.glob("*.tgz"))


def unpack(package: Path, folder: Path) -> Path:
    """The folder, with what the package's dist/ holds, less what is never used.

    Raises:
        FetchError: A name leads out of the folder.
    """
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            content = archive.extractfile(member) if member.isfile() else None
            if name == member.name or content is None or is_left_out(name):
                continue
            # By hand: Debian 12 has Python 3.11.2, whose tarfile knows no filters.
            target = (folder / name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise FetchError(f"the package has a file of the name {name[:80]!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
    return folder


def is_left_out(name: str) -> bool:
    """Whether a file of dist/ is not worth its place."""
    directory, suffix = LEFT_OUT
    return name.startswith(directory) or name.endswith(suffix)


def adapt(folder: Path) -> None:
    """Makes the files name each other below PREFIX."""
    for path in folder.rglob("*"):
        for pattern, replacement in REWRITES.get(path.suffix, ()):
            text = path.read_text(encoding="utf-8")
            changed = re.sub(pattern, replacement, text)
            if changed != text:
                path.write_text(changed, encoding="utf-8")


def compress(folder: Path) -> None:
    """Adds a .gz beside each file that gains by it, for browsers that take gzip."""
    for path in [each for each in folder.rglob("*") if each.suffix in COMPRESSED]:
        content = path.read_bytes()
        packed = gzip.compress(content, compresslevel=6, mtime=0)
        if len(packed) < len(content):
            path.with_name(f"{path.name}.gz").write_bytes(packed)
