"""`./dev scrub`: the scrub of `POST operations/scrub`, and the rebuild of an index."""

import argparse
from contextlib import AsyncExitStack
from pathlib import Path

from maintenance.stores import CannotDo, check_archive, check_idle, opened, say
from services import operations, rebuild, scrub_operation
from services.runtime import Runtime
from services.scrub_operation import COUNTS, DONE, Options
from services.scrub_repair import Repairs
from services.settings import Settings
from stores import connect
from stores.directory_blobs import DirectoryBlobs

WRONG = ("lost", "damaged", "sideBlobs", "orphans", "oldLists")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what can be chosen."""
    parser.add_argument(
        "--dry-run", action="store_true", help="only look, change nothing"
    )
    parser.add_argument(
        "--no-hashes", action="store_true", help="compare sizes, do not read the files"
    )
    parser.add_argument(
        "--remove-lost",
        action="store_true",
        help="take instances out of the index whose files are lost",
    )
    parser.add_argument(
        "--backup", type=Path, help="backup to take missing and damaged files from"
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="make a lost index anew from the files alone; stop the server first",
    )
    parser.add_argument(
        "--merge", action="store_true", help="with --rebuild: add to an older index"
    )


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0: all is well or was repaired; 1: something is left.

    Raises:
        CannotDo: There is no archive, or no backup.
    """
    check_archive(settings)
    if arguments.rebuild:
        if arguments.dry_run:
            raise CannotDo("--rebuild has no --dry-run")
        check_idle(settings)
        async with opened(settings) as runtime:
            return await _rebuild(runtime, merge=arguments.merge)
    if arguments.merge:
        raise CannotDo("--merge goes with --rebuild")
    async with opened(settings) as runtime:
        return await _scrub(runtime, arguments)


async def _scrub(runtime: Runtime, arguments: argparse.Namespace) -> int:
    options = Options(
        dry_run=arguments.dry_run,
        hashes=not arguments.no_hashes,
        remove_lost=arguments.remove_lost,
    )
    operation_id = runtime.new_id()
    created = runtime.now().isoformat()
    state = await scrub_operation.prepare(runtime, operation_id, options, created)
    async with AsyncExitStack() as stack:
        repairs = Repairs()
        if arguments.backup is not None:
            backup = _backup(arguments.backup)
            stack.push_async_callback(backup.close)
            repairs = Repairs(backup=backup)
        shown = -1
        while state["phase"] != DONE:
            state = await scrub_operation.step(
                runtime, operation_id, state, repairs=repairs
            )
            percent = scrub_operation.progress(state).percent or 0
            if percent // 10 > shown // 10:
                shown = percent
                say(f"{percent} %")
    await scrub_operation.end(
        runtime, operation_id, state, scrub_operation.status(state)
    )
    return await _report(runtime, operation_id, state)


def _backup(folder: Path) -> DirectoryBlobs:
    blobs = folder / connect.BLOB_FOLDER
    if not blobs.is_dir():
        raise CannotDo(f"There is no backup in {folder}")
    return DirectoryBlobs(blobs, survives_power_loss=False)


async def _report(
    runtime: Runtime, operation_id: str, state: scrub_operation.State
) -> int:
    counts = state["counts"]
    for name, meaning in COUNTS.items():
        if counts[name]:
            say(f"{counts[name]:>15,}  {meaning}")
    for text in await operations.errors(runtime, operation_id):
        say(text)
    for text in scrub_operation.warnings(state):
        say(f"Warning: {text}")
    wrong = sum(counts[name] for name in WRONG)
    left = wrong if state["options"]["dryRun"] else counts["left"]
    say("All is well." if not wrong else f"{wrong} findings, {left} of them are left.")
    return 1 if left else 0


async def _rebuild(runtime: Runtime, *, merge: bool) -> int:
    report = await rebuild.rebuild(runtime, say, merge=merge)
    for count, meaning in (
        (report.studies, "studies that instances came back to"),
        (report.instances, "instances that came back"),
        (report.updated, "of these were updated once"),
        (report.known, "instances that the index had"),
        (report.deleted, "files of deleted instances, left to scrub"),
        (report.others, "files of further uploads of an instance, left to scrub"),
        (report.foreign, "blobs whose names are not the archive's"),
    ):
        if count:
            say(f"{count:>15,}  {meaning}")
    for name in report.revived:
        say(f"In the index, but listed as deleted: delete it again: {name}")
    for name in report.behind:
        say(f"An update newer than the index is stored: repeat it: {name}")
    for name in report.rivals:
        say(f"Not restored, a newer upload of the instance was: look at it: {name}")
    for problem in report.problems:
        say(problem)
    say("Not restored, because the files do not tell:")
    for phrase in rebuild.NOT_RESTORED:
        say(f"- {phrase}")
    doubts = (report.problems, report.revived, report.behind, report.rivals)
    return 1 if any(doubts) else 0
