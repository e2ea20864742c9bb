"""`./dev bench`: loads against our server, and against Orthanc where it is installed.

Prints a table with server CPU per operation, throughput and the ratio to the peer in
the same run. `--gate` exits 1 when a row needs more CPU than the peer, exceeds its
budget by more than half, or grows by more than half with the archive.
"""

import argparse
import platform
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import rows, servers
from benchmarks.loads import Measure
from benchmarks.rows import Material, Row
from benchmarks.servers import Server

BUDGET_SLACK = 1.5
GROWTH = 1.5
RUNS = 3
SIZES = "1000,10000"
GATE_SIZES = "1000,10000,100000"


@dataclass
class Line:
    """A row with what was measured."""

    row: Row
    ours: Measure
    peer: Measure | None = None

    @property
    def ratio(self) -> float | None:
        """Our CPU by the peer's."""
        if self.peer is None or self.peer.cpu_ms == 0 or self.peer.failed:
            return None
        return self.ours.cpu_ms / self.peer.cpu_ms

    def failures(self, slowness: float) -> list[str]:
        """Why the gate does not let it pass; see `Report.slowness`."""
        found = []
        if self.ours.failed:
            found.append(f"{self.ours.failed} requests failed")
        if self.row.beats_peer and self.ratio is not None and self.ratio > 1:
            found.append(f"{self.ratio:.2f} x the CPU of the peer")
        budget = self.row.budget_ms
        if budget is not None and self.ours.cpu_ms > budget * slowness * BUDGET_SLACK:
            over = self.ours.cpu_ms / budget / slowness
            found.append(f"{over:.2f} x its budget")
        return found


@dataclass
class Report:
    """All lines of a run."""

    peer: str | None
    gate_needs_peer: bool = False
    lines: list[Line] = field(default_factory=list)
    growth: list[tuple[Row, list[tuple[int, Measure]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def slowness(self) -> float:
        """How much slower this machine is than the one that the budgets are of.

        Told by the peer, whose figures there are known; never less than 1.
        """
        found = [
            line.peer.cpu_ms / line.row.anchor_ms
            for line in self.lines
            if line.peer is not None and line.row.anchor_ms is not None
        ]
        return max(1.0, median(found)) if found else 1.0

    def failures(self) -> list[str]:
        """Every reason why the gate fails."""
        found = [
            f"{line.row.name}: {reason}"
            for line in self.lines
            for reason in line.failures(self.slowness)
        ]
        if self.gate_needs_peer and self.peer is None:
            found.append("Orthanc is not installed, so nothing was compared with it")
        for row, sizes in self.growth:
            first, last = sizes[0], sizes[-1]
            if row.is_broad:
                continue
            if last[1].p95_ms > max(first[1].p95_ms, 1.0) * GROWTH:
                found.append(
                    f"{row.name}: p95 {first[1].p95_ms:.1f} ms at {first[0]:,} studies,"
                    f" {last[1].p95_ms:.1f} ms at {last[0]:,}"
                )
        return found


def main() -> int:
    """Runs the loads that the arguments ask for."""
    arguments = _arguments()
    sizes = arguments.sizes or _sizes(GATE_SIZES if arguments.gate else SIZES)
    material = Material(scale=0.1 if arguments.quick else arguments.scale)
    with ExitStack() as stack:
        if arguments.url:
            own = Server("given", arguments.url.rstrip("/"))
        else:
            own = stack.enter_context(
                servers.ours(workers=arguments.workers, durability=arguments.durability)
            )
        peer = None
        if not arguments.no_peer and servers.orthanc_plugin():
            sync = arguments.durability == "power-loss"
            peer = stack.enter_context(servers.orthanc(sync=sync))
        report = Report(peer.name if peer else None, not arguments.no_peer)
        _run(report, material, own, peer, sizes)
    text = _markdown(report, arguments)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")
    failures = report.failures()
    for failure in failures:
        print(f"RED {failure}")
    return 1 if arguments.gate and failures else 0


def _sizes(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"must be numbers like {SIZES}, not {text!r}")
    return [int(number) for number in numbers]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--url", help="DICOMweb root of a running server on 127.0.0.1")
    parser.add_argument("--gate", action="store_true", help="exit 1 on a red row")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the load")
    parser.add_argument("--workers", type=int, default=1, help="our HTTP processes")
    parser.add_argument(
        "--durability",
        choices=("process-crash", "power-loss"),
        default="process-crash",
        help="of both servers",
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        help=f"studies in the archive to search ({SIZES}; with --gate {GATE_SIZES})",
    )
    parser.add_argument("--no-peer", action="store_true", help="do not start Orthanc")
    parser.add_argument("--out", help="write the table to this file")
    return parser.parse_args()


def _run(
    report: Report,
    material: Material,
    own: Server,
    peer: Server | None,
    sizes: list[int],
) -> None:
    for server in (own, peer):
        if server is not None:
            rows.warm_up(server, material)
    for row in rows.store_rows(material):
        _measure(report, row, own, peer)
    for server in (own, peer):
        if server is not None:
            rows.fill_for_reading(server, material)
    for row in rows.read_rows():
        _measure(report, row, own, peer)
    _measure(report, rows.delete_row(material), own, None)
    _search(report, material, own, peer, sizes)
    report.notes.append(f"Memory of ours at the end: {own.memory_bytes() >> 20} MiB.")
    if peer is not None:
        report.notes.append(
            f"Memory of the peer at the end: {peer.memory_bytes() >> 20} MiB."
        )


def _measure(report: Report, row: Row, own: Server, peer: Server | None) -> None:
    line = Line(row, _best(row, own))
    if peer is not None and row.beats_peer:
        line.peer = _best(row, peer)
    report.lines.append(line)
    ratio = "" if line.ratio is None else f"  ratio {line.ratio:.2f}"
    print(f"{row.name}: {line.ours.cpu_ms:.2f} ms CPU{ratio}", file=sys.stderr)


def _best(row: Row, server: Server) -> Measure:
    """The run that needed least CPU: what else the machine does only adds to it."""
    runs = [row.load(server) for _ in range(RUNS)]
    best = min(runs, key=lambda run: (run.failed, run.cpu_ms))
    return replace(best, p95_ms=min(run.p95_ms for run in runs))


def _search(
    report: Report,
    material: Material,
    own: Server,
    peer: Server | None,
    sizes: list[int],
) -> None:
    """Searches at each size; the peer is compared at the sizes up to 10,000."""
    growth: dict[str, tuple[Row, list[tuple[int, Measure]]]] = {}
    start = 0
    for size in sizes:
        compared = peer if size <= 10_000 else None
        for server in (own, compared):
            if server is not None:
                rows.grow(server, material, start, size)
                server.settle()
        start = size
        for row in (*rows.search_rows(), rows.deep_page_row(own, size)):
            at_size = replace(row, name=f"{row.name}, {size:,} studies")
            _measure(report, at_size, own, compared)
            _, measures = growth.setdefault(row.name, (row, []))
            measures.append((size, report.lines[-1].ours))
    if len(sizes) > 1:
        report.growth = list(growth.values())


def _markdown(report: Report, arguments: argparse.Namespace) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    lines = [
        "# Results of `./dev bench`",
        "",
        (
            f"{when} UTC, Python {platform.python_version()}, {arguments.workers} HTTP"
            f" process(es), durability {arguments.durability},"
            f" peer {report.peer or 'none'}."
        ),
        (
            "CPU is that of the server's processes per operation; times are those of a"
            f" client on the same machine. Of {RUNS} runs of a load, on both servers,"
            " the one with the least CPU and the lowest p95 are shown."
        ),
        (
            f"By the peer's figures this machine is {report.slowness:.2f} times slower"
            " than the one that the budgets are of; the gate takes that into account."
        ),
        "",
        (
            "| load | ours CPU ms | budget | peer CPU ms | ratio | ours p50 / p95 ms |"
            " ours per s | peer per s | |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in report.lines:
        ours, peer = line.ours, line.peer
        reasons = line.failures(report.slowness)
        cells = (
            line.row.name,
            f"{ours.cpu_ms:.2f}",
            "" if line.row.budget_ms is None else f"{line.row.budget_ms:g}",
            "" if peer is None else f"{peer.cpu_ms:.2f}",
            "" if line.ratio is None else f"{line.ratio:.2f}",
            f"{ours.p50_ms:.1f} / {ours.p95_ms:.1f}",
            f"{ours.per_second:.0f}",
            "" if peer is None else f"{peer.per_second:.0f}",
            "**red**: " + "; ".join(reasons) if reasons else _remark(peer),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += _growth_table(report.growth)
    lines += ["", *(f"- {note}" for note in report.notes), ""]
    return "\n".join(lines)


def _remark(peer: Measure | None) -> str:
    return f"the peer failed {peer.failed} times" if peer and peer.failed else ""


def _growth_table(growth: list[tuple[Row, list[tuple[int, Measure]]]]) -> list[str]:
    """p95 of each search by the number of studies."""
    if not growth:
        return []
    sizes = [size for size, _ in growth[0][1]]
    head = " | ".join(f"{size:,} studies" for size in sizes)
    lines = ["", f"| p95 in ms at | {head} |", "|---|" + "---|" * len(sizes)]
    for row, measures in growth:
        cells = " | ".join(f"{measure.p95_ms:.1f}" for _, measure in measures)
        remark = " (broad: not judged)" if row.is_broad else ""
        lines.append(f"| {row.name}{remark} | {cells} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
