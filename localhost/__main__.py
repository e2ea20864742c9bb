"""`python -m localhost APPDIR`: run a Functions app folder."""

import argparse
import ipaddress
import logging
import os
import resource
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from localhost import indexing, keys, process, server, sockets
from localhost.accepting import Load
from localhost.claim import claim, unusable
from localhost.errors import HostError
from localhost.process import Role, Setup
from localhost.supervisor import Supervisor

_DESCRIPTORS = 8192
_MOST_WORKERS = 64
_LONGEST_DRAIN_SECONDS = 3600
_DESCRIPTION = """\
Runs an Azure Functions app (Python, v2 programming model) without Azure: HTTP with
the real host's routes and function keys, timers, and Durable Functions.
"""
_EPILOG = """\
Settings are environment variables; those of local.settings.json (Values) are added
where the environment does not have them. host.json is followed as far as it speaks of
extensions.http.routePrefix, functionTimeout and extensions.durableTask.
SIGTERM and Ctrl-C let running requests finish; a second one ends at once.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the host; the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return _run(options)
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    folder = options.app.resolve()
    data = options.data.resolve() if options.data else _own_folder(folder)
    indexing.apply_local_settings(folder)
    os.environ.setdefault("AZURE_FUNCTIONS_ENVIRONMENT", "Development")
    os.environ.setdefault("FUNCTIONS_WORKER_RUNTIME", "python")
    if options.show_keys:
        _show_keys(folder, _keys(data))
        return 0
    _raise_descriptor_limit()
    setup = _setup(options, folder, data)
    workers = options.workers

    def announce() -> None:
        if options.quiet:
            return
        plural = "process" if workers == 1 else "processes"
        sys.stdout.write(f"Ready at {setup.public_url} ({workers} HTTP {plural})\n")
        sys.stdout.flush()

    if workers > 1:
        return Supervisor(setup, workers, announce).run()
    process.run(setup, Role.HTTP | Role.JOBS, announce, lifeline=None)
    return 0


def _raise_descriptor_limit() -> None:
    """Connections and open files share one limit, and its default is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _own_folder(app: Path) -> Path:
    """The data folder inside the app's; keys in it must not be committed."""
    if not (app / "function_app.py").is_file():
        raise HostError(f"{app} has no function_app.py")
    folder = app / ".localhost"
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


def _keys(data: Path) -> keys.Keys:
    try:
        return keys.load(data)
    except OSError as error:
        raise unusable(data, error) from error


def _setup(options: argparse.Namespace, folder: Path, data: Path) -> Setup:
    if options.key and not options.cert:
        raise HostError("--key needs --cert")
    serving = server.Serving(
        cert=options.cert.resolve() if options.cert else None,
        key=options.key.resolve() if options.key else None,
        access_log=options.verbose,
        drain_seconds=options.drain_seconds,
    )
    try:
        server.check_certificate(serving)
    except OSError as error:
        named = (
            options.cert if options.key is None else f"{options.cert}, {options.key}"
        )
        raise HostError(f"cannot use the certificate ({named}): {error}") from error
    listener = sockets.listen(options.host, options.port)
    scheme = "https" if serving.cert else "http"
    port = listener.getsockname()[1]
    return Setup(
        app_folder=folder,
        data_folder=data,
        claimed=claim(data),
        keys=_keys(data),
        listener=listener,
        rpc_listener=sockets.listen("127.0.0.1", 0),
        rpc_secret=secrets.token_urlsafe(24),
        public_url=f"{scheme}://{_reachable(options.host)}:{port}",
        serving=serving,
        load=Load(options.workers),
    )


def _reachable(host: str) -> str:
    """A name for a URL: wildcard addresses as localhost, IPv6 in brackets."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "localhost"
    return f"[{host}]" if address.version == 6 else host


def _show_keys(folder: Path, access: keys.Keys) -> None:
    app = indexing.load(folder)
    rows = [("master", access.master), ("host", access.host)]
    rows += [
        (function.name, access.function(function.name))
        for function in app.functions
        if function.trigger.properties.get("authLevel") == "FUNCTION"
    ]
    sys.stdout.writelines(f"{name}\t{key}\n" for name, key in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localhost",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("app", type=Path, help="folder with function_app.py")
    parser.add_argument("--host", default="127.0.0.1", help="address (%(default)s)")
    parser.add_argument(
        "--port",
        type=_number(0, 65535),
        default=8080,
        help="port, 0 for any (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_number(1, _MOST_WORKERS),
        default=min(4, os.cpu_count() or 1),
        help="HTTP processes; 1 runs everything in one process (%(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder for keys, timers and orchestrations (APP/.localhost)",
    )
    parser.add_argument("--cert", type=Path, help="PEM certificate chain: serve HTTPS")
    parser.add_argument("--key", type=Path, help="PEM private key of --cert")
    parser.add_argument(
        "--drain-seconds",
        type=_number(1, _LONGEST_DRAIN_SECONDS),
        default=30,
        help="time for running requests after SIGTERM (%(default)s)",
    )
    parser.add_argument(
        "--show-keys", action="store_true", help="print the access keys and exit"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="do not say when it is ready"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log requests and informational messages"
    )
    return parser


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, not {text!r}"
            )
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
