"""`./dev backup DIR`: the archive of this machine as it is at one moment.

First the index is copied, then every file that the copy refers to: whatever was
acknowledged before the backup began is in that copy, and its files were there before
it. Cleanup waits meanwhile; a bulk update may still drop the version that it replaces,
then the index is copied again.
"""

import argparse
import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import orjson

from maintenance.stores import CannotDo, check_archive, opened, say
from services import cleanup, scrub
from services.instances import HIGHEST
from services.leases import held
from services.runtime import Runtime
from services.settings import Settings
from services.stored_names import versions
from stores import connect, sqlite_connection, sqlite_journal, sqlite_snapshot
from stores.sqlite_documents import SqliteDocuments

DESCRIPTION = "backup.json"
FORMAT = 1
TRIES = 5
LEASE = timedelta(minutes=2)
CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


@dataclass(slots=True)
class _Copied:
    """What is in the backup.

    Attributes:
        missing: Names of files that the index refers to and that are not there.
    """

    instances: int = 0
    files: int = 0
    size_bytes: int = 0
    missing: set[str] = field(default_factory=set)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares where to and how."""
    parser.add_argument("target", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--copy",
        action="store_true",
        help="copy files even where a second name (hard link) would do",
    )


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0: everything is in it; 1: files were missing before, and are named.

    Raises:
        CannotDo: It is no archive of this machine, or the folder is not empty.
    """
    if settings.store != "embedded":
        raise CannotDo(
            "Cosmos DB and Blob Storage keep backups themselves: see docs/backup.md"
        )
    check_archive(settings)
    target: Path = arguments.target.resolve()
    _prepare(target)
    async with opened(settings) as runtime, held(runtime, cleanup.LEASE, LEASE):
        began = runtime.now().isoformat()
        copied = await _archive(settings.data, target, link=not arguments.copy)
        await asyncio.to_thread(_journal, settings.data, target)
        await asyncio.to_thread(_finish, runtime, target, began, copied)
    say(
        f"{copied.instances:,} instances in {copied.files:,} files,"
        f" {copied.size_bytes:,} bytes"
    )
    for name in sorted(copied.missing):
        say(f"A stored file is missing: {name}")
    return 1 if copied.missing else 0


def _prepare(target: Path) -> None:
    check_free(target)
    target.mkdir(parents=True, exist_ok=True)


def check_free(folder: Path, *, ignored: frozenset[str] = frozenset()) -> None:
    """Refuses a folder that has something in it.

    Args:
        folder: Which need not exist.
        ignored: Names that may be there.

    Raises:
        CannotDo: It has, or it is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or {each.name for each in folder.iterdir()} - ignored:
        raise CannotDo(f"{folder} is not empty")


async def _archive(data: Path, target: Path, *, link: bool) -> _Copied:
    missing: set[str] = set()
    for _ in range(TRIES):
        await asyncio.to_thread(_index, data, target)
        copied = await _files(data, target, link=link)
        if copied.missing <= missing:  # not there now, not there before: lost
            return copied
        missing |= copied.missing
    raise CannotDo("The archive changes too fast: bulk updates all the time")


def _index(data: Path, target: Path) -> None:
    folder = target / connect.INDEX_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = sqlite_connection.FILE_NAME
    sqlite_snapshot.snapshot(
        data.resolve() / connect.INDEX_FOLDER / name, folder / name
    )


def _journal(data: Path, target: Path) -> None:
    folder = target / connect.JOURNAL_FOLDER
    folder.mkdir()
    name = sqlite_journal.FILE_NAME
    source = data.resolve() / connect.JOURNAL_FOLDER / name
    sqlite_snapshot.snapshot(source, folder / name)


async def _files(data: Path, target: Path, *, link: bool) -> _Copied:
    copied = _Copied()
    source, to = data / connect.BLOB_FOLDER, target / connect.BLOB_FOLDER
    to.mkdir(exist_ok=True)
    async for count, names in referenced(target / connect.INDEX_FOLDER):
        copied.instances += count
        await asyncio.to_thread(_keep, source, to, names, copied, link)
    return copied


async def referenced(index: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """Page by page: how many instances, and the names of all their blobs."""
    documents = SqliteDocuments(index, survives_power_loss=False)
    try:
        end = HIGHEST
        while rows := await scrub.newest_instances(documents, end):
            yield (
                len(rows),
                [n for row in rows for v in versions(row["pk"], row) for n in v.names],
            )
            end = int(rows[-1]["sk"]) - 1
    finally:
        await documents.close()


def _keep(
    source: Path, target: Path, names: Iterable[str], copied: _Copied, link: bool
) -> None:
    for name in names:
        to = target / name
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                _place(source / name, to, link=link)
            except FileNotFoundError:
                copied.missing.add(name)
                continue
        copied.files += 1
        copied.size_bytes += to.stat().st_size


def _place(source: Path, target: Path, *, link: bool) -> None:
    """A second name for the file, which nobody ever changes, or a copy."""
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
        else:
            return
    copy = target.with_name(f"{target.name}.new")
    try:
        shutil.copy2(source, copy)
        copy.rename(target)
    except BaseException:
        with suppress(FileNotFoundError):
            copy.unlink()
        raise


def _finish(runtime: Runtime, target: Path, began: str, copied: _Copied) -> None:
    """Makes everything durable, then says that the backup is whole."""
    os.sync()
    description = {
        "format": FORMAT,
        "began": began,
        "ended": runtime.now().isoformat(),
        "instances": copied.instances,
        "files": copied.files,
        "bytes": copied.size_bytes,
        "missing": sorted(copied.missing),
    }
    path = target / DESCRIPTION
    path.write_bytes(orjson.dumps(description, option=orjson.OPT_INDENT_2))
    os.sync()
