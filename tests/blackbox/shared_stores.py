"""Clients of several servers on one store whose calls fail, and what must come of it.

Each client owns its studies and remembers what was acknowledged. It asks again, another
server perhaps, until it gets an answer that settles the matter; so at the end it is
known exactly what must be there.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import quote

from blackbox.loads import (
    JSON_HEADERS,
    LOST,
    SERIES_COUNT,
    STOW_HEADERS,
    STUDY_COUNT,
    Answer,
    Connection,
    Uids,
    acknowledged,
    connected,
    contents,
    load_file,
    search,
    stow_body,
)

BUSY = 503
SETTLE_SECONDS = 90


@dataclass
class Truth:
    """What the clients know.

    Attributes:
        files: What must be there, by study and SOP Instance UID.
        gone: Deleted instances.
        statuses: How often each was answered, by method.
    """

    files: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    gone: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass
class Client:
    """One client that talks to any of the servers, a new connection each time."""

    ports: Sequence[int]
    truth: Truth
    random: Random

    async def once(self, method: str, path: str, *rest: Any) -> Answer | None:
        """One request; None when the answer was lost."""
        with suppress(*LOST):
            async with connected(self.random.choice(self.ports)) as connection:
                answer = await connection.request(method, path, *rest)
                self._note(method, answer)
                return answer
        self.truth.statuses[f"{method} lost"] += 1
        return None

    def _note(self, method: str, answer: Answer) -> None:
        self.truth.statuses[f"{method} {answer.status}"] += 1
        assert answer.status < 500 or answer.status == BUSY, answer
        if answer.status == BUSY:
            assert int(answer.headers["retry-after"]) > 0, answer

    async def settled(self, method: str, path: str, *rest: Any) -> Answer:
        """Asks until there is an answer other than 503."""
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            answer = await self.once(method, path, *rest)
            if answer is not None and answer.status != BUSY:
                return answer
            assert time.monotonic() < end, f"{method} {path} never succeeds"
            await asyncio.sleep(0.1)

    async def store(self, study: str, series: str, sops: Sequence[str]) -> None:
        """Stores the instances, again until all are acknowledged."""
        waiting = {sop: load_file(study, series, sop) for sop in sops}
        end = time.monotonic() + SETTLE_SECONDS
        while waiting:
            body = stow_body(waiting.values())
            answer = await self.settled("POST", "/v2/studies", STOW_HEADERS, body)
            for sop in acknowledged(answer):
                self.truth.files[study][sop] = waiting.pop(sop)
            assert time.monotonic() < end, answer

    async def delete(self, path: str, study: str, sops: Sequence[str]) -> None:
        """Deletes; 404 is right too after an answer was lost."""
        for sop in sops:
            del self.truth.files[study][sop]
        answer = await self.settled("DELETE", path)
        assert answer.status in {204, 404}, answer
        self.truth.gone |= set(sops)

    async def work(self, uids: Uids, shared: str, until: Callable[[], bool]) -> None:
        """Stores, deletes and reads until the time is over."""
        random, own = self.random, uids.next()
        mine: dict[tuple[str, str], list[str]] = {}
        while not until():
            act = random.random()
            if act < 0.5 or not mine:
                study = shared if random.random() < 0.3 else own
                series = uids.next() if random.random() < 0.5 or not mine else None
                if series is None:
                    study, series = random.choice(list(mine))
                sops = [uids.next() for _ in range(random.randint(1, 4))]
                await self.store(study, series, sops)
                mine.setdefault((study, series), []).extend(sops)
            elif act < 0.62:
                await self._delete_some(mine, own)
            else:
                await self._read(mine)

    async def _delete_some(
        self, mine: dict[tuple[str, str], list[str]], own: str
    ) -> None:
        study, series = key = self.random.choice(list(mine))
        scope = self.random.random()
        if scope < 0.2 and study == own:
            sops = [sop for (of, _), each in mine.items() if of == own for sop in each]
            for gone in [each for each in mine if each[0] == own]:
                del mine[gone]
            await self.delete(f"/v2/studies/{study}", study, sops)
        elif scope < 0.5:
            path = f"/v2/studies/{study}/series/{series}"
            await self.delete(path, study, mine.pop(key))
        else:
            sop = mine[key].pop()
            if not mine[key]:
                del mine[key]
            path = f"/v2/studies/{study}/series/{series}/instances/{sop}"
            await self.delete(path, study, [sop])

    async def _read(self, mine: dict[tuple[str, str], list[str]]) -> None:
        """What was acknowledged can be read at once."""
        study, series = self.random.choice(list(mine))
        sop = self.random.choice(mine[study, series])
        place = f"/v2/studies/{study}/series/{series}/instances/{sop}"
        if self.random.random() < 0.5:
            answer = await self.settled(
                "GET", place, {"Accept": "application/dicom; transfer-syntax=*"}
            )
            assert answer.status == 200, answer
            assert answer.body == self.truth.files[study][sop]
        else:
            answer = await self.settled("GET", f"{place}/metadata", JSON_HEADERS)
            assert answer.status == 200, answer


# --- readers of the change feed --------------------------------------------------


@dataclass
class History:
    """What the feed told, each entry once and without a gap.

    Attributes:
        actions: Create and delete by SOP Instance UID, in order.
    """

    actions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sequence: int = 0

    def take(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            fields = {name.lower(): value for name, value in entry.items()}
            assert fields["sequence"] == self.sequence + 1, "a gap in the feed"
            self.sequence += 1
            actions = self.actions[fields["sopinstanceuid"]]
            action = fields["action"].lower()
            assert action != (actions[-1:] or ["delete"])[0], f"{actions} {action}"
            actions.append(action)

    def alive(self) -> set[str]:
        return {sop for sop, acts in self.actions.items() if acts[-1] == "create"}


async def follow_sequence(client: Client, history: History) -> None:
    """Reads on from where it was to the end of the feed."""
    while True:
        path = f"/v1/changefeed?offset={history.sequence}&limit=100"
        entries = (await client.settled("GET", path)).json()
        history.take(entries)
        if len(entries) < 100:
            return


@dataclass
class TimeReader:
    """Polls window after window of time, as a reader of version 2 does."""

    history: History = field(default_factory=History)
    since: datetime = field(
        default_factory=lambda: datetime.now(UTC) - timedelta(minutes=5)
    )

    async def follow(self, client: Client) -> None:
        now = datetime.now(UTC)
        window = f"startTime={_text(self.since)}&endTime={_text(now)}"
        offset = 0
        while True:
            path = f"/v2/changefeed?{window}&offset={offset}&limit=200"
            entries = (await client.settled("GET", path)).json()
            self.history.take(entries)
            offset += len(entries)
            if len(entries) < 200:
                break
        self.since = now


def _text(moment: datetime) -> str:
    return quote(moment.isoformat())


# --- the end ---------------------------------------------------------------------


async def agree_with(truth: Truth, connection: Connection) -> None:
    """Retrieval and all searches give exactly what the clients know."""
    for study, files in truth.files.items():
        assert await contents(connection, study) == files, study
        rows = await search(
            connection,
            f"/v2/studies?StudyInstanceUID={study}&includefield={STUDY_COUNT}",
        )
        counted = [row[STUDY_COUNT]["Value"][0] for row in rows]
        assert counted == ([len(files)] if files else []), study
        found: list[dict[str, Any]] = []
        place = f"/v2/studies/{study}/series?includefield={SERIES_COUNT}&limit=200"
        while page := await search(connection, f"{place}&offset={len(found)}"):
            found += page
        assert sum(row[SERIES_COUNT]["Value"][0] for row in found) == len(files)
