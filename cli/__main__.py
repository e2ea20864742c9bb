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
PROGRAMS = {"sample": "./dev sample"}  # that people start by another name


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
    answering = {
        name: subparsers.add_parser(
            name, help=meaning, description=meaning, prog=PROGRAMS.get(name)
        )
        for name, meaning in COMMANDS.items()
    }
    chosen = next((word for word in words if word in COMMANDS), None)
    command = load(chosen) if chosen else None
    if chosen and command:
        command.add_arguments(answering[chosen])
    arguments, unknown = parser.parse_known_args(words)
    assert chosen
    assert command
    if unknown:
        answering[chosen].error(f"there is no {' '.join(unknown)}")
    try:
        return command.run(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
