"""What is on the disk before an answer, and what writers do to one another."""

import asyncio
import re
import shutil
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from blackbox.hosts import LOCALHOST, ROOT, Running, boot
from blackbox.loads import (
    STOW_HEADERS,
    FeedReader,
    Sent,
    Uids,
    acknowledged,
    agree,
    connected,
    head,
    healthy,
    load_file,
    search,
    stow_body,
)
from blackbox.stacks import STACK

STRACE = shutil.which("strace")
TRACED = "fsync,fdatasync,rename,write,writev,pwrite64,sendto,sendmsg"
ANSWER = "HTTP/1.1 200"


# --- the order of system calls ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One line of strace.

    Attributes:
        begun: Place among all lines where it began.
        ended: Where it returned.
    """

    name: str
    arguments: str
    begun: int
    ended: int


def parse(log: str) -> list[SystemCall]:
    """The calls in the order in which they began; unfinished ones are left out."""
    calls: list[SystemCall] = []
    open_calls: dict[str, tuple[str, str, int]] = {}
    for number, line in enumerate(log.splitlines()):
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if match := re.fullmatch(r"(\w+)\((.*) <unfinished \.\.\.>", rest):
            open_calls[thread] = (match[1], match[2], number)
        elif re.match(r"<\.\.\. \w+ resumed>", rest):
            name, arguments, begun = open_calls.pop(thread)
            calls.append(SystemCall(name, arguments, begun, number))
        elif match := re.fullmatch(r"(\w+)\((.*)\) += .*", rest):
            calls.append(SystemCall(match[1], match[2], number, number))
    return sorted(calls, key=lambda call: call.begun)


def first(calls: list[SystemCall], name: str, pattern: str, after: int) -> SystemCall:
    """The first such call that began after that line."""
    for call in calls:
        is_later = call.begun > after and re.fullmatch(name, call.name)
        if is_later and re.search(pattern, call.arguments):
            return call
    raise AssertionError(f"no {name} of {pattern} after line {after}")


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    if STACK != "embedded":
        pytest.skip("only the embedded stack writes to this disk")
    if STRACE is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "strace.log"
    command = (STRACE, "-D", "-f", "-y", "-s", "64", "-e", f"trace={TRACED}")
    running = boot(
        ROOT,
        tmp_path / "server",
        "--workers",
        "1",
        command=(*command, "-o", str(log), *LOCALHOST),
        DICOM_DATA=str(tmp_path / "dicom"),
        DICOM_SAMPLE="0",
        DICOM_DURABILITY="power-loss",
    )
    yield running, log
    running.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="strace is a tool of Linux")
async def test_files_folders_and_index_are_on_the_disk_before_the_answer(
    traced: tuple[Running, Path],
) -> None:
    """File, name, folder, index, answer: for a part in memory and one in a file."""
    running, log = traced
    uids = Uids()
    study, series = uids.next(), uids.next()
    sent = {}
    async with connected(running.port) as connection:
        for large in (False, False, True):
            sop = uids.next()
            body = stow_body([load_file(study, series, sop, large=large)])
            answer = await connection.request("POST", "/v2/studies", STOW_HEADERS, body)
            assert acknowledged(answer) == {sop}
            sent[sop] = large
    running.stop()
    calls = parse(log.read_text())
    after = -1
    for sop in sent:
        renamed = first(calls, "rename", rf'"[^"]*{sop}_\d+\.dcm"', after)
        staged, target = re.findall(r'"([^"]*)"', renamed.arguments)
        synced = first(calls, "fsync|fdatasync", re.escape(f"<{staged}>"), after)
        assert synced.ended < renamed.begun, "renamed before it was on the disk"
        answered = first(calls, "write|writev|sendto|sendmsg", ANSWER, renamed.begun)
        folder = first(
            calls, "fsync", re.escape(f"<{Path(target).parent}>"), renamed.ended
        )
        commit = first(calls, "pwrite64", r"<.*index\.db-wal>", folder.ended)
        index = first(calls, "fdatasync", r"<.*index\.db-wal>", commit.ended)
        assert index.ended < answered.begun, "answered before the index was synced"
        after = answered.begun
    new_folders = Path(target).parents
    for folder_path in new_folders[: new_folders.index(blob_root(target))]:
        first(calls, "fsync", re.escape(f"<{folder_path}>"), -1)


def blob_root(name: str) -> Path:
    return next(path for path in Path(name).parents if path.name == "blobs")


# --- many writers ----------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processes(serve: Callable[..., Running]) -> Iterator[Running]:
    running = serve(workers=2)
    yield running
    running.stop()


async def stow(port: int, sent: Sent, study: str, series: str, sop: str) -> int:
    """Stores one instance; the status."""
    sent.files[study][sop] = load_file(study, series, sop)
    async with connected(port) as connection:
        body = stow_body([sent.files[study][sop]])
        answer = await connection.request("POST", "/v2/studies", STOW_HEADERS, body)
    sent.acknowledged |= acknowledged(answer)
    return answer.status


async def test_of_16_writers_of_one_instance_one_wins(two_processes: Running) -> None:
    port, uids, sent = two_processes.port, Uids(), Sent()
    await healthy(port)
    async with connected(port) as connection:
        feed = await FeedReader().begin(connection)
    for _ in range(10):
        study, series, sop = uids.next(), uids.next(), uids.next()
        statuses = await asyncio.gather(
            *(stow(port, sent, study, series, sop) for _ in range(16))
        )
        assert sorted(statuses) == [200] + [409] * 15
        await agree(port, sent, feed, [study])
        assert feed.told[study] == {sop}


async def test_50_writers_make_one_study_with_the_right_counts(
    two_processes: Running,
) -> None:
    port, uids, sent = two_processes.port, Uids(), Sent()
    await healthy(port)
    async with connected(port) as connection:
        feed = await FeedReader().begin(connection)
    study, series = uids.next(), [uids.next() for _ in range(5)]
    statuses = await asyncio.gather(
        *(stow(port, sent, study, series[n % 5], uids.next()) for n in range(50))
    )
    assert statuses == [200] * 50
    # On a busy machine publishing may be left to the timer, every 30 s.
    await agree(port, sent, feed, [study], seconds=45)
    async with connected(port) as connection:
        (row,) = await search(
            connection,
            f"/v2/studies?StudyInstanceUID={study}&includefield=00201206,00201208",
        )
        found = await search(
            connection, f"/v2/studies/{study}/series?includefield=00201209"
        )
    assert (row["00201206"]["Value"], row["00201208"]["Value"]) == ([5], [50])
    assert [each["00201209"]["Value"] for each in found] == [[10]] * 5


async def test_who_sends_again_after_a_lost_answer_has_stored_it_once(
    two_processes: Running,
) -> None:
    port, uids, sent = two_processes.port, Uids(), Sent()
    await healthy(port)
    random = Random(7)
    async with connected(port) as connection:
        feed = await FeedReader().begin(connection)
    study, series = uids.next(), uids.next()
    statuses: list[int] = []
    # Longer and longer: on a busy machine no request is done after 20 ms.
    for longest in (0.02, 0.02, 0.1, 0.5, 2.5):
        for _ in range(20):
            sop = uids.next()
            await send_and_vanish(
                port, load_file(study, series, sop), random.uniform(0, longest)
            )
            statuses.append(await stow(port, sent, study, series, sop))
        if len(statuses) >= 40 and 409 in statuses:
            break
    # 409: stored, and the answer lost; 200: a fast client was gone before the store.
    assert {409} <= set(statuses) <= {200, 409}, "no answer was lost"
    assert len(sent.acknowledged) == len(statuses)
    await agree(port, sent, feed, [study])
    assert len(feed.told[study]) == len(statuses)


async def send_and_vanish(port: int, content: bytes, seconds: float) -> None:
    """Sends a whole request and resets the connection without reading."""
    body = stow_body([content])
    async with connected(port) as connection:
        connection.writer.write(
            head("POST", "/v2/studies", STOW_HEADERS, len(body)) + body
        )
        await connection.writer.drain()
        await asyncio.sleep(seconds)
        opened: socket.socket = connection.writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
