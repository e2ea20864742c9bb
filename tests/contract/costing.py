"""Counts what a server on the emulators asks of Cosmos DB, blobs and tables.

Tables of docs/azure-costs.md are made of this; `UPDATE_DOCS=1` writes them. Request
units are the emulator's model.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from blackbox.hosts import ROOT, boot
from data import instance, multipart
from emulators.processes import Emulated, control, counters
from emulators.proxy import Proxy, counted

PAGE = ROOT / "docs" / "azure-costs.md"
NAMES = {
    "read": "point read", "batch": "batch", "query-partition": "query in a partition",
    "query-range": "query of one physical partition",
}  # fmt: skip
TOLERANCE = 0.15
QUIET_SECONDS = 0.4
WARM = """
import runpy, sys
from services import tag_registry
tag_registry.CACHE_SECONDS = 3600.0
sys.path[0] = ""
runpy.run_module("localhost", run_name="__main__")
"""
"""The server, with a cache of query tags that no slow machine lets grow cold."""
DICOM_JSON = {"Accept": "application/dicom+json"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one transaction took.

    Attributes:
        requests: To Cosmos DB, by kind.
        charge: Modelled RU.
        blobs: Requests to Blob Storage.
        tables: Requests to Table Storage.
    """

    requests: dict[str, int]
    charge: float
    blobs: int
    tables: int = 0

    @property
    def asked(self) -> int:
        """Requests to Cosmos DB in all."""
        return sum(self.requests.values())

    def cells(self) -> list[str]:
        """Of its row in a table, but for tables."""
        asked = ", ".join(
            f"{count} × {NAMES[kind]}" for kind, count in sorted(self.requests.items())
        )
        return [asked or "–", f"{self.charge:.0f}", str(self.blobs or "–")]


@dataclass(slots=True)
class Site:
    """A server on the emulators and what counts its requests.

    Attributes:
        emulated: As the server reaches them, by way of the proxies.
    """

    client: httpx.AsyncClient
    emulated: Emulated
    blobs: Proxy
    tables: Proxy

    async def cost(self, transaction: Callable[[], Awaitable[Any]]) -> Cost:
        """What the transaction takes, once its own work is all done."""
        await self.settled()
        control(self.emulated, "reset", {})
        self.blobs.requests.clear()
        self.tables.requests.clear()
        await transaction()
        found = await self.settled()
        assert found["scans"] == []
        return Cost(
            found["requests"],
            sum(found["charges_modelled"].values()),
            len(self.blobs.requests),
            len(self.tables.requests),
        )

    async def settled(self) -> Any:
        """The counters once nothing was asked for a while: work goes on after answers."""
        found = counters(self.emulated)
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            before, found = found, counters(self.emulated)
            if before == found:
                return found

    async def store(self, *files: bytes) -> None:
        body, kind = multipart(files)
        answer = await self.client.post(
            "/v2/studies", content=body, headers=DICOM_JSON | {"Content-Type": kind}
        )
        assert answer.status_code == 200, answer.text

    async def get(self, path: str, accept: str = "application/dicom+json") -> bytes:
        answer = await self.client.get(f"/v2/{path}", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer.content

    async def delete(self, path: str) -> None:
        answer = await self.client.delete(f"/v2/{path}")
        assert answer.status_code == 204, answer.text

    async def operation(self, path: str, body: Any = None) -> dict[str, Any]:
        """An operation, once it has succeeded; asking how it stands costs nothing."""
        answer = await self.client.post(f"/v2/{path}", json=body)
        assert answer.status_code == 202, answer.text
        while True:
            await asyncio.sleep(0.1)
            shown = await self.client.get(answer.json()["href"])
            if shown.status_code == 200:
                ended: dict[str, Any] = shown.json()
                assert ended["status"] == "succeeded", ended
                return ended
            assert shown.status_code == 202, shown.text


@asynccontextmanager
async def served(
    emulated: Emulated, folder: Path, **more: str | Callable[[str], str]
) -> AsyncIterator[Site]:
    """A site whose timers do nothing by themselves.

    Args:
        emulated: The emulators.
        folder: Of the server.
        more: Settings; one that is a function gets the origin of the blobs.
    """
    control(emulated, "reset", {})
    async with (
        counted(emulated.blobs) as (blobs, blob_proxy),
        counted(blobs, service="Table") as (both, table_proxy),
    ):
        here = Emulated(emulated.cosmos, both)
        origin = both.connection.split("BlobEndpoint=")[1].split("/devstore")[0]
        settings = here.environment() | {
            "DICOM_SAMPLE": "0",
            "DICOM_DATA": str(folder / "dicom"),
            "DICOM_PUBLISH_SCHEDULE": "0 0 0 1 1 *",
            "DICOM_CLEANUP_SCHEDULE": "0 0 0 1 1 *",
            "DICOM_PURGE_SCHEDULE": "0 0 0 1 1 *",
        }
        for name, value in more.items():
            settings[name] = value if isinstance(value, str) else value(origin)
        warm, one = (sys.executable, "-c", WARM), ("--workers", "1")
        running = await asyncio.to_thread(
            lambda: boot(ROOT, folder, *one, command=warm, **settings)
        )
        try:
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                yield Site(client, here, blob_proxy, table_proxy)
        finally:
            await asyncio.to_thread(running.stop)


def file(study: str, number: int, **more: Any) -> bytes:
    return instance(
        PatientID="COST-1",
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.{number}",
        InstanceNumber=number,
        **more,
    )


# --- tables of the page --------------------------------------------------------------


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    head = [columns, ["---"] * len(columns)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [*head, *rows])


def committed_table(name: str, table: str) -> list[list[str]]:
    """The rows of the table on the page; written first where the docs are updated."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(start)
    found, _, after = rest.partition(end)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(before + start + table + end + after, encoding="utf-8")
        found = table
    rows = [line.strip("| ").split(" | ") for line in found.splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]
