"""Command line of the emulator: `python tests/emulators/cosmos --port 8081`."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from emulators.cosmos.server import EMULATOR_KEY, Emulator, Options  # noqa: E402


async def _run(options: Options) -> None:
    emulator = Emulator(options)
    await emulator.start()
    print(f"Cosmos DB emulator on {emulator.endpoint} (key {options.key})", flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await emulator.stop()


def main() -> None:
    """Reads the options and serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--key", default=EMULATOR_KEY)
    parser.add_argument("--file", default=":memory:", help="SQLite file to keep")
    parser.add_argument("--physical-partitions", type=int, default=4)
    parser.add_argument("--consistency", default="Session")
    parser.add_argument("--certificate", default="", help="PEM file, to serve https")
    arguments = parser.parse_args()
    asyncio.run(
        _run(
            Options(
                arguments.host,
                arguments.port,
                arguments.key,
                arguments.file,
                arguments.physical_partitions,
                arguments.consistency,
                arguments.certificate,
            )
        )
    )


if __name__ == "__main__":
    main()
