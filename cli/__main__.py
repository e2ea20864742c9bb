"""`python -m cli COMMAND`: the commands, each in the module of its name."""

import argparse
import importlib
import sys
from typing import Protocol

COMMANDS = {
    "ready": "wait for a server that starts, then load samples and fetch the viewer",
    "sample": "load the sample studies into a running server, or take them out",
    "viewer": "fetch the OHIF viewer",
}


class Command(Protocol):
    """What a module of this package offers to be a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """The exit status, after doing the work."""


def load(name: str) -> Command:
    """The command's module; only the one that runs is imported."""
    module: Command = importlib.import_module(f"cli.{name}")
    return module


def main(words: list[str]) -> int:
    """The exit status of the command that the words name."""
    parser = argparse.ArgumentParser(prog="python -m cli", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    chosen = next((word for word in words if word in COMMANDS), None)
    command = load(chosen) if chosen else None
    for name, meaning in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=meaning, description=meaning)
        if command and name == chosen:
            command.add_arguments(subparser)
    arguments = parser.parse_args(words)
    assert command
    try:
        return command.run(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
