"""What each transaction asks of Cosmos DB and Blob Storage, counted at the emulators.

The first table of docs/azure-costs.md is made by this test.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from contract.costing import (
    TOLERANCE,
    Cost,
    Site,
    committed_table,
    file,
    served,
    table_of,
)
from emulators.processes import Emulated

pytestmark = [pytest.mark.contract, pytest.mark.slow, pytest.mark.timeout(400)]

COLUMNS = (
    "transaction",
    "requests to Cosmos DB",
    "modelled RU",
    "requests to Blob Storage",
)


@pytest.fixture
async def site(emulated: Emulated, tmp_path: Path) -> AsyncIterator[Site]:
    async with served(emulated, tmp_path) as site:
        yield site


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
    rows = [[name, *cost.cells()] for name, cost in costs.items()]
    committed = committed_table("table", table_of(COLUMNS, rows))
    assert [without_units(row) for row in committed] == [
        without_units(row) for row in rows
    ]
    for cost, row in zip(costs.values(), committed, strict=True):
        assert cost.charge == pytest.approx(float(row[2]), rel=TOLERANCE, abs=2)
    check_budget(costs)


def without_units(row: list[str]) -> list[str]:
    return row[:2] + row[3:]


def check_budget(costs: dict[str, Cost]) -> None:
    """The round trips that design.md allows without contention and with warm caches."""
    for name, instances in (
        ("Store 1 instance of a new study", 1),
        ("Store 1 instance more of it", 1),
        ("Store 90 instances of a new study", 90),
    ):
        assert costs[name].blobs == instances
        assert costs[name].asked <= 6 + 2, name
    assert costs["Metadata of a study (90)"] == Cost(
        {"query-partition": 1}, costs["Metadata of a study (90)"].charge, 0
    )
    frame = costs["Retrieve a frame"]
    assert (frame.asked, frame.blobs) == (1, 1)
