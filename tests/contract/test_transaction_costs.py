"""What each transaction asks of Cosmos DB and Blob Storage, counted at the emulators.

The table in docs/azure-costs.md is made by this test: `UPDATE_DOCS=1` writes it, any
other run compares. Request units are the emulator's model.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from blackbox.hosts import ROOT, boot
from data import instance, multipart
from emulators.processes import Emulated, control, counters
from emulators.proxy import Proxy, counted

pytestmark = [pytest.mark.contract, pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = ROOT / "docs" / "azure-costs.md"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
NAMES = {
    "read": "point read", "batch": "batch", "query-partition": "query in a study",
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
    """What one transaction took."""

    requests: dict[str, int]
    charge: float
    blobs: int

    def row(self, name: str) -> str:
        asked = ", ".join(
            f"{count} × {NAMES[kind]}" for kind, count in sorted(self.requests.items())
        )
        return (
            f"| {name} | {asked or '–'} | {self.charge:.0f} | {self.blobs or '–'} |\n"
        )


@dataclass(slots=True)
class Site:
    """A server on the emulators and what counts its requests."""

    client: httpx.AsyncClient
    emulated: Emulated
    proxy: Proxy

    async def cost(self, transaction: Callable[[], Awaitable[Any]]) -> Cost:
        """What the transaction takes, once its own work is all done."""
        await self.settled()
        control(self.emulated, "reset", {})
        self.proxy.requests.clear()
        await transaction()
        found = await self.settled()
        assert found["scans"] == []
        return Cost(
            found["requests"],
            sum(found["charges_modelled"].values()),
            len(self.proxy.requests),
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


@pytest.fixture
async def site(emulated: Emulated, tmp_path: Path) -> AsyncIterator[Site]:
    control(emulated, "reset", {})
    async with counted(emulated.blobs) as (blobs, proxy):
        settings = Emulated(emulated.cosmos, blobs).environment() | {
            "DICOM_SAMPLE": "0",
            "DICOM_DATA": str(tmp_path / "dicom"),
            "DICOM_PUBLISH_SCHEDULE": "0 0 0 1 1 *",
            "DICOM_CLEANUP_SCHEDULE": "0 0 0 1 1 *",
            "DICOM_PURGE_SCHEDULE": "0 0 0 1 1 *",
        }
        warm, one = (sys.executable, "-c", WARM), ("--workers", "1")
        running = await asyncio.to_thread(
            lambda: boot(ROOT, tmp_path, *one, command=warm, **settings)
        )
        try:
            async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
                yield Site(client, emulated, proxy)
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


async def measured(site: Site) -> dict[str, Cost]:
    base = "1.2.826.0.1.3680043.10.1"
    await site.store(file(f"{base}.1", 1))
    for path in ("studies?limit=1", f"studies/{base}.1/metadata", "changefeed?limit=1"):
        await site.get(path)
    await site.delete(f"studies/{base}.1")
    small, large = f"{base}.2", f"{base}.3"
    one = f"studies/{large}/series/{large}.1/instances/{large}.1.7"
    any_syntax = "multipart/related; type=application/dicom; transfer-syntax=*"
    native = 'multipart/related; type="application/octet-stream"'
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "Store 1 instance of a new study": lambda: site.store(file(small, 1)),
        "Store 1 instance more of it": lambda: site.store(file(small, 2)),
        "Store 90 instances of a new study": lambda: site.store(
            *(file(large, n, frames=2) for n in range(1, 91))
        ),
        "Search for studies by PatientID": lambda: site.get("studies?PatientID=COST-1"),
        "Search for a study by its UID": lambda: site.get(
            f"studies?StudyInstanceUID={large}"
        ),
        "Search for the series of a study": lambda: site.get(f"studies/{large}/series"),
        "Search for the instances of a series (90)": lambda: site.get(
            f"studies/{large}/series/{large}.1/instances?limit=100"
        ),
        "Metadata of a study (90)": lambda: site.get(f"studies/{large}/metadata"),
        "Retrieve an instance": lambda: site.get(
            one, "application/dicom; transfer-syntax=*"
        ),
        "Retrieve a frame": lambda: site.get(f"{one}/frames/2", native),
        "Retrieve a study (90)": lambda: site.get(f"studies/{large}", any_syntax),
        "Read 90 entries of the change feed": lambda: site.get(
            "changefeed?limit=90&includemetadata=false"
        ),
        "Delete an instance": lambda: site.delete(one),
        "Delete a study (89)": lambda: site.delete(f"studies/{large}"),
    }
    return {name: await site.cost(step) for name, step in steps.items()}


async def test_the_costs_are_those_of_the_table(site: Site) -> None:
    costs = await measured(site)
    table = (
        "| transaction | requests to Cosmos DB | modelled RU | requests to Blob Storage |\n"
        "| --- | --- | --- | --- |\n"
    )
    table += "".join(cost.row(name) for name, cost in costs.items())
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    committed, _, after = rest.partition(END)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(before + START + table + END + after, encoding="utf-8")
        committed = table
    assert without_units(committed) == without_units(table)
    for cost, units in zip(costs.values(), units_of(committed), strict=True):
        assert cost.charge == pytest.approx(units, rel=TOLERANCE, abs=2)
    check_budget(costs)


def without_units(table: str) -> list[list[str]]:
    cells = [line.split("|") for line in table.splitlines()]
    return [row[:3] + row[4:] for row in cells]


def units_of(table: str) -> list[float]:
    return [float(line.split("|")[3]) for line in table.splitlines()[2:]]


def check_budget(costs: dict[str, Cost]) -> None:
    """The round trips that design.md allows without contention and with warm caches."""
    for name, instances in (
        ("Store 1 instance of a new study", 1),
        ("Store 1 instance more of it", 1),
        ("Store 90 instances of a new study", 90),
    ):
        assert costs[name].blobs == instances
        assert sum(costs[name].requests.values()) <= 6 + 2, name
    assert costs["Metadata of a study (90)"] == Cost(
        {"query-partition": 1}, costs["Metadata of a study (90)"].charge, 0
    )
    frame = costs["Retrieve a frame"]
    assert (sum(frame.requests.values()), frame.blobs) == (1, 1)
