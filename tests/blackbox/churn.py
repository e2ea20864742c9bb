"""Clients that store and delete at the same time, and know what was acknowledged."""

import asyncio
from random import Random

from blackbox.loads import (
    STOW_HEADERS,
    Connection,
    Uids,
    acknowledged,
    connected,
    load_file,
    stow_body,
)

ONE = {"Accept": "application/dicom; transfer-syntax=*"}
"""Asks for one instance as it was stored."""


class Client:
    """Stores instances and deletes some of its own; knows what was acknowledged.

    Attributes:
        stored: Files by study, series and SOP Instance UID.
        doomed: Instances that were asked to be deleted, whatever came of it.
        gone: Those whose delete was acknowledged.
    """

    def __init__(self, uids: Uids, seed: int) -> None:
        self.stored: dict[tuple[str, str, str], bytes] = {}
        self.doomed: set[tuple[str, str, str]] = set()
        self.gone: set[tuple[str, str, str]] = set()
        self._uids = uids
        self._random = Random(seed)

    async def run(self, port: int, stop: asyncio.Event) -> None:
        studies = [self._uids.next() for _ in range(2)]
        async with connected(port) as connection:
            while not stop.is_set():
                study, series = self._random.choice(studies), self._uids.next()
                sent = {}
                for _ in range(self._random.randint(1, 4)):
                    sop = self._uids.next()
                    is_large = self._random.random() < 0.02
                    sent[study, series, sop] = load_file(
                        study, series, sop, large=is_large
                    )
                answer = await connection.request(
                    "POST", "/v2/studies", STOW_HEADERS, stow_body(sent.values())
                )
                known = acknowledged(answer)
                self.stored |= {key: sent[key] for key in sent if key[2] in known}
                if self._random.random() < 0.3:
                    await self._delete(connection)

    async def _delete(self, connection: Connection) -> None:
        left = [key for key in self.stored if key not in self.doomed]
        key = self._random.choice(left)
        self.doomed.add(key)
        answer = await connection.request("DELETE", path_of(*key))
        assert answer.status == 204, answer
        self.gone.add(key)


def path_of(study: str, series: str, sop: str) -> str:
    return f"/v2/studies/{study}/series/{series}/instances/{sop}"
