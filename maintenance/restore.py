"""`./dev restore DIR`: a data folder made of a backup, and checked.

All is copied into a folder below it first and moved once it is complete, the index
last. Nothing is ever overwritten.
"""

import argparse
import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from maintenance.backup import DESCRIPTION, FORMAT, check_free
from maintenance.stores import CannotDo, opened, say
from services import scrub
from services.instances import HIGHEST
from services.settings import Settings
from stores import connect, sqlite_connection, sqlite_journal, sqlite_snapshot

RESTORING = ".restoring"
IGNORED = frozenset({RESTORING, "lost+found"})
FOLDERS = (connect.BLOB_FOLDER, connect.JOURNAL_FOLDER, connect.INDEX_FOLDER)
DATABASES = (
    Path(connect.INDEX_FOLDER, sqlite_connection.FILE_NAME),
    Path(connect.JOURNAL_FOLDER, sqlite_journal.FILE_NAME),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares where from and how."""
    parser.add_argument("source", type=Path, metavar="DIR", help="a backup")
    parser.add_argument(
        "--no-hashes", action="store_true", help="compare sizes, do not read the files"
    )


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0: the archive is whole; 1: it is in place, but something is wrong with it.

    Raises:
        CannotDo: It is no backup, or the data folder is not empty.
    """
    source: Path = arguments.source
    data = settings.data
    description = _description(source)
    check_free(data, ignored=IGNORED)
    new = data / RESTORING
    await asyncio.to_thread(_copy, source, new)
    wrong = [
        f"{path}: {problem}"
        for path in DATABASES
        for problem in sqlite_snapshot.problems(new / path)
    ]
    if wrong:
        raise CannotDo("The backup is damaged:\n" + "\n".join(wrong))
    found, count = await _check(
        replace(settings, data=new), hashes=not arguments.no_hashes
    )
    await asyncio.to_thread(_put_in_place, new, data)
    say(f"{count:,} of {description['instances']:,} instances are in {data}")
    for finding in found:
        known = (
            " as before the backup" if finding.name in description["missing"] else ""
        )
        say(f"{finding.text}{known}")
    return 1 if found or count != description["instances"] else 0


def _description(source: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = orjson.loads((source / DESCRIPTION).read_bytes())
    except FileNotFoundError as error:
        raise CannotDo(f"{source} is no backup, or one that was cut short") from error
    if description["format"] > FORMAT:
        raise CannotDo(f"{source} was made by a newer version")
    return description


def _copy(source: Path, new: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)  # left by a restore that was cut short
    for folder in FOLDERS:
        shutil.copytree(source / folder, new / folder)


async def _check(
    settings: Settings, *, hashes: bool
) -> tuple[list[scrub.Finding], int]:
    """What is wrong with the files, and how many instances there are."""
    found: list[scrub.Finding] = []
    count = 0
    end: int | None = HIGHEST
    async with opened(settings) as runtime:
        while end is not None:
            look = await scrub.look_at_instances(
                runtime, end, hashes=hashes, record_hashes=False
            )
            found += look.findings
            count += look.instances
            end = look.following
    return found, count


def _put_in_place(new: Path, data: Path) -> None:
    os.sync()
    for folder in FOLDERS:
        (new / folder).rename(data / folder)
    shutil.rmtree(new)
    os.sync()
