"""`python -m maintenance COMMAND`: the commands, each in the module of its name.

They read the same DICOM_… variables as the server.
"""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dicomweb.errors import DicomwebError
from maintenance.stores import CannotDo
from services.settings import Settings, SettingsError

COMMANDS = {
    "scrub": "check the archive: every instance has its file and the other way round",
    "backup": "copy the archive of this machine, also while it is served",
    "restore": "make a data folder of a backup",
}
FAILED, MISUSED = 1, 2


class Command(Protocol):
    """What a module of this package offers to be a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's own arguments."""

    async def run(self, arguments: argparse.Namespace, settings: Settings) -> int:
        """The exit status, after doing the work."""


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the command that the words name.

    1: something is wrong with the archive; 2: nothing could be done.
    """
    parser = argparse.ArgumentParser(prog="./dev", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    chosen: Command | None = None
    for name, meaning in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=meaning, description=meaning)
        subparser.add_argument("--data", type=Path, help="data folder of the server")
        if name in words[:1]:
            chosen = importlib.import_module(f"maintenance.{name}")
            chosen.add_arguments(subparser)
    arguments = parser.parse_args(words)
    assert chosen is not None
    try:
        chosen_data = {"DICOM_DATA": str(arguments.data)} if arguments.data else {}
        settings = Settings.from_environment({**environment, **chosen_data})
        return asyncio.run(chosen.run(arguments, settings))
    except (CannotDo, DicomwebError, SettingsError) as error:
        sys.stderr.write(f"{arguments.command}: {error}\n")
        return MISUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
