"""Thousands of requests that nobody means well, beside clients that do.

The cases come from `hostile.py`; `FULL=1` sends 12,000 of them instead of 1,000. What
once failed stands at the end as a test of its own.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import pytest
from blackbox import hostile
from blackbox.hostile import Hostile
from blackbox.hosts import Running
from blackbox.loads import (
    FULL,
    JSON_HEADERS,
    LOST,
    STOW_HEADERS,
    Answer,
    FeedReader,
    Sent,
    Uids,
    acknowledged,
    agree,
    connected,
    head,
    healthy,
    load_file,
    stow_body,
)
from pydicom.uid import RLELossless

CASES = 12_000 if FULL else 1_000
ATTACKERS = 6
IDLE = 200
MAX_BYTES = 300_000_000
HONEST_SECONDS = 20 if FULL else 4
NOISE_SECONDS = 0.1
"""What the machine itself may add to a p95 while other things run on it."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if FULL else 600)]


@pytest.fixture
def sandbox(serve: Callable[..., Running], tmp_path: Path) -> Iterator[Running]:
    """A server whose folders are all below one that is otherwise empty."""
    for name in ("a/b/c/data", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    running = serve(
        data=tmp_path / "a/b/c/data",
        TMPDIR=str(tmp_path / "tmp"),
        DICOM_DATA=str(tmp_path / "a/b/c/data/dicom"),
        DICOM_STORE="embedded",
        PYTHONFAULTHANDLER="1",
    )
    yield running
    running.stop()


def peak_bytes(running: Running) -> int:
    """The most memory that the process ever held."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    (line,) = [row for row in status.splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@dataclass
class Attack:
    """What came of the cases.

    Attributes:
        failed: Number, kind and answer of cases that were answered with 5xx.
        stored: Study, series and instance of hostile files that were let in.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str, Answer]] = field(default_factory=list)
    stored: int = 0

    async def run(self, port: int, numbers: Iterator[int]) -> None:
        """One attacker; several share the numbers."""
        for number in numbers:
            kind, case = hostile.case(number)
            answers = await send(port, case)
            if case.read_back and answers:
                answers += await self._read_back(port, answers[0])
            for answer in answers:
                self.statuses[f"{kind}: {answer.status}"] += 1
                if answer.status >= 500:
                    self.failed.append((number, kind, answer))
            if not answers:
                self.statuses[f"{kind}: no answer"] += 1

    async def _read_back(self, port: int, answer: Answer) -> list[Answer]:
        answers: list[Answer] = []
        for uids in let_in(answer):
            self.stored += 1
            for path, headers in hostile.read_backs(uids):
                async with connected(port) as connection:
                    with contextlib.suppress(*LOST):
                        answers.append(await connection.request("GET", path, headers))
        return answers


def let_in(answer: Answer) -> list[tuple[str, str, str]]:
    """Study, series and instance of what the answer to a store says is stored."""
    if answer.status not in {200, 202}:
        return []
    found = []
    for row in answer.json().get("00081199", {}).get("Value", []):
        url = row["00081190"]["Value"][0]
        study, _, rest = url.rpartition("/studies/")[2].partition("/series/")
        series, _, sop = rest.partition("/instances/")
        found.append((study, series, sop))
    return found


async def send(port: int, case: Hostile) -> list[Answer]:
    """What the server answers, if it does before it hangs up."""
    with contextlib.suppress(*LOST):
        async with connected(port) as connection:
            writer = connection.writer
            with contextlib.suppress(ConnectionError):  # it may answer and hang up
                for piece in case.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(case.pause_seconds)
            if not case.vanish:
                async with asyncio.timeout(60):
                    return [await connection.answer(case.method)]
    return []


async def honest(
    port: int, sent: Sent, uids: Uids, until: Callable[[], bool]
) -> list[float]:
    """Seconds of each request of a client that stores, searches and reads."""
    times: list[float] = []
    study, series = uids.next(), uids.next()
    async with connected(port) as connection:

        async def timed(*request: Any) -> Answer:
            started = time.perf_counter()
            answer = await connection.request(*request)
            times.append(time.perf_counter() - started)
            assert answer.status in {200, 204}, answer
            return answer

        while not until():
            sop = uids.next()
            sent.files[study][sop] = load_file(study, series, sop)
            body = stow_body([sent.files[study][sop]])
            answer = await timed("POST", "/v2/studies", STOW_HEADERS, body)
            sent.acknowledged |= acknowledged(answer)
            await timed("GET", f"/v2/studies?StudyInstanceUID={study}", JSON_HEADERS)
            place = f"/v2/studies/{study}/series/{series}/instances/{sop}"
            await timed("GET", f"{place}/metadata", JSON_HEADERS)
            await timed("GET", f"{place}/frames/1", {"Accept": "*/*"})
            await asyncio.sleep(0.01)
    return times


async def crowd(port: int, uids: Uids, until: Callable[[], bool]) -> None:
    """Honest clients as many and as busy as the attackers: the p95 to compare with."""

    async def one(seed: int) -> None:
        random = Random(seed)
        while not until():
            async with connected(port) as connection:
                content = hostile.fresh(random.choice(hostile.bases()), random)
                answer = await connection.request(
                    "POST", "/v2/studies", STOW_HEADERS, stow_body([content])
                )
            for stored in let_in(answer):
                for path, headers in hostile.read_backs(stored):
                    async with connected(port) as connection:
                        await connection.request("GET", path, headers)

    await asyncio.gather(*(one(seed) for seed in range(ATTACKERS)))


def p95(times: list[float]) -> float:
    return quantiles(times, n=20)[-1]


async def test_hostile_input_harms_nobody(sandbox: Running, tmp_path: Path) -> None:
    port, uids, sent = sandbox.port, Uids(), Sent()
    await healthy(port)
    base = peak_bytes(sandbox)
    end = time.monotonic() + HONEST_SECONDS
    alone, _ = await asyncio.gather(
        honest(port, sent, uids, lambda: time.monotonic() > end),
        crowd(port, uids, lambda: time.monotonic() > end),
    )
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE):
            await stack.enter_async_context(connected(port))
        attack, numbers = Attack(), iter(range(CASES))
        attackers = asyncio.gather(
            *(attack.run(port, numbers) for _ in range(ATTACKERS))
        )
        beside = await honest(port, sent, uids, attackers.done)
        await attackers
    peak = peak_bytes(sandbox)
    print(
        f"{CASES} cases, {attack.stored} let in; peak {peak / 1e6:.0f} MB"
        f" ({base / 1e6:.0f} MB before); p95 of others {p95(beside) * 1000:.1f} ms,"
        f" without attackers {p95(alone) * 1000:.1f} ms"
    )
    for status, count in sorted(attack.statuses.items()):
        print(f"  {status:28} {count}")
    assert {status.partition(":")[0] for status in attack.statuses} == {*hostile.KINDS}
    assert attack.failed == []
    assert sandbox.process.poll() is None, sandbox.log()
    assert peak < MAX_BYTES
    assert p95(beside) < 2 * p95(alone) + NOISE_SECONDS
    await healthy(port)
    await agree(port, sent, FeedReader(), list(sent.files))
    await nothing_is_left(sandbox, tmp_path)
    assert "Traceback" not in sandbox.log()


async def nothing_is_left(running: Running, sandbox: Path) -> None:
    """Only the data folder holds files, and none of them is temporary."""
    end = time.monotonic() + 60
    while left := leftovers(sandbox) + nameless(running):
        assert time.monotonic() < end, left
        await asyncio.sleep(0.2)


def nameless(running: Running) -> list[Path]:
    """Files without a name that the process still holds."""
    held = []
    for link in Path(f"/proc/{running.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # just closed
            if str(link.readlink()).endswith("(deleted)"):
                held.append(link.readlink())
    return held


def leftovers(sandbox: Path) -> list[Path]:
    data = sandbox / "a/b/c/data"
    known = {data / "host", data / "host.log", data / "dicom"}
    outside = [
        path
        for path in sandbox.rglob("*")
        if path.is_file() and not known.intersection((path, *path.parents))
    ]
    top = {path.name for path in (data / "dicom").iterdir()}
    assert top <= {"index", "blobs", "journal", "secrets"}
    staged = (data / "dicom/blobs/.tmp").glob("*/*")
    return outside + [path for path in staged if path.name != "lock"]


async def test_clients_that_read_slowly_hold_no_memory(
    sandbox: Running, tmp_path: Path
) -> None:
    """Eight answers of 37 MB that nobody fetches; they used to take 400 MB."""
    port = sandbox.port
    await healthy(port)
    content = hostile.image_bomb(RLELossless, 3_500, "RGB")
    async with connected(port) as connection:
        answer = await connection.request(
            "POST", "/v2/studies", STOW_HEADERS, stow_body([content])
        )
    ((study, series, sop),) = let_in(answer)
    place = f"/v2/studies/{study}/series/{series}/instances/{sop}"
    explicit = "transfer-syntax=1.2.840.10008.1.2.1"
    asked = (
        (f"{place}/frames/1", f"application/octet-stream; {explicit}"),
        (place, f"application/dicom; {explicit}"),
    )
    async with contextlib.AsyncExitStack() as stack:
        for path, accept in asked * 4:
            slow = await stack.enter_async_context(connected(port))
            slow.writer.write(head("GET", path, {"Accept": accept}, None))
            status = await slow.reader.readuntil(b"\r\n")
            assert b" 200 " in status
        async with connected(port) as connection:
            answer = await connection.request(
                "GET", f"{place}/rendered", {"Accept": "image/jpeg"}
            )
            assert answer.status == 200
        peak = peak_bytes(sandbox)
    print(f"peak {peak / 1e6:.0f} MB")
    assert peak < MAX_BYTES
    await nothing_is_left(sandbox, tmp_path)
