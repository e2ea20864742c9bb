"""Both emulators, provisioned, until SIGINT or SIGTERM: `python tests/emulators`.

Prints the settings of a server that is to use them, one `NAME=value` a line, then
`ready`.
"""

import argparse
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from emulators.processes import both  # noqa: E402


def main() -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cosmos-port", type=int, default=8081)
    parser.add_argument("--blob-port", type=int, default=10000)
    parser.add_argument("--table-port", type=int, default=10002)
    parser.add_argument("--data", type=Path, help="folder to keep; memory without")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    ports = arguments.cosmos_port, arguments.blob_port, arguments.table_port
    with both(*ports, arguments.data) as emulated:
        for name, value in emulated.environment().items():
            print(f"{name}={value}")
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
