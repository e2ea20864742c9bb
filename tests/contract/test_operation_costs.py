"""What each operation and timer asks of the stores, counted at the emulators.

The second table of docs/azure-costs.md is made by this test. How
many steps an operation takes depends on time, so most numbers have a bound.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.storage.blob import ContainerClient
from blackbox.destinations import Azurite
from contract.costing import (
    TOLERANCE,
    Cost,
    Site,
    committed_table,
    file,
    served,
    table_of,
)
from emulators.processes import AZURITE, Emulated, both

from functions import timers
from services import startup
from services.runtime import Runtime
from services.settings import Settings
from stores import connect

pytestmark = [pytest.mark.contract, pytest.mark.slow, pytest.mark.timeout(400)]

COLUMNS = (
    "operation",
    "requests to Cosmos DB",
    "modelled RU",
    "requests to Blob Storage",
    "requests to Table Storage",
)
COUNT = 90
STUDY = "1.2.826.0.1.3680043.10.2"
EXPORTS = "exports"
TAG = "00081010"
"""StationName."""


@pytest.fixture
def alone() -> Iterator[Emulated]:
    """Emulators of this test's own: reindex and scrub look at the whole store."""
    if not AZURITE.exists():
        pytest.skip("azurite is not installed: run npm ci")
    with both() as running:
        yield running


@pytest.fixture
async def site(alone: Emulated, tmp_path: Path) -> AsyncIterator[Site]:
    async with served(
        alone,
        tmp_path,
        DICOM_DELETE_DELAY_SECONDS="0",
        DICOM_EXPORT_HOSTS=lambda origin: origin,
    ) as site:
        yield site


@asynccontextmanager
async def timer_process(site: Site, folder: Path) -> AsyncIterator[Runtime]:
    """The services in this process, as a timer has them."""
    settings = Settings.from_environment(
        site.emulated.environment() | {"DICOM_DATA": str(folder)}
    )
    stores = connect.connect(settings)
    runtime = startup.build(
        settings,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: uuid4().hex,
    )
    yield runtime
    await runtime.close()


def make_container(connection: str) -> None:
    with ContainerClient.from_connection_string(connection, EXPORTS) as container:
        container.create_container()


def update_of(study: str, value: str) -> dict[str, Any]:
    change = {"00100020": {"vr": "LO", "Value": [value]}}
    return {"studyInstanceUids": [study], "changeDataset": change}


def export_to(site: Site) -> dict[str, Any]:
    connection = site.emulated.blobs.connection
    origin = connection.split("BlobEndpoint=")[1].split("/devstore")[0]
    uri = Azurite(connection, origin).uri(EXPORTS)
    return {
        "source": {"type": "identifiers", "settings": {"values": [STUDY]}},
        "destination": {"type": "azureBlob", "settings": {"blobContainerUri": uri}},
    }


async def warm(site: Site, timer: Runtime) -> None:
    """Has both processes open their connections and look at every container."""
    study = f"{STUDY}.1"
    await site.store(file(study, 1))
    await site.operation("studies/$bulkUpdate", update_of(study, "WARM"))
    await site.get("series?limit=1")
    await site.delete(f"studies/{study}")
    await timers.publish_pending(timer)
    await timers.clean_up_deleted(timer)


async def measured(site: Site, timer: Runtime) -> dict[str, Cost]:
    await asyncio.to_thread(make_container, site.emulated.blobs.connection)
    await warm(site, timer)
    await site.store(*(file(STUDY, n, StationName="CT1") for n in range(COUNT)))
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "Update a study (90)": lambda: site.operation(
            "studies/$bulkUpdate", update_of(STUDY, "COST-2")
        ),
        "Update it again": lambda: site.operation(
            "studies/$bulkUpdate", update_of(STUDY, "COST-3")
        ),
        "Export a study (90)": lambda: site.operation("export", export_to(site)),
        "Add a query tag and reindex (90)": lambda: site.operation(
            "extendedquerytags", [{"path": TAG, "level": "Series"}]
        ),
        "Search for series by a query tag": lambda: site.get("series?StationName=CT1"),
        "Delete a query tag": lambda: site.delete(f"extendedquerytags/{TAG}"),
        "Scrub (90)": lambda: site.operation("operations/scrub"),
        "Delete a study (90)": lambda: site.delete(f"studies/{STUDY}"),
        "Clean up after it": lambda: timers.clean_up_deleted(timer),
        "Clean up when there is nothing": lambda: timers.clean_up_deleted(timer),
        "Publish pending when there is nothing": lambda: timers.publish_pending(timer),
    }
    return {name: await site.cost(step) for name, step in steps.items()}


async def test_the_costs_are_those_of_the_table(site: Site, tmp_path: Path) -> None:
    async with timer_process(site, tmp_path / "timer") as timer:
        costs = await measured(site, timer)
    rows = [
        [name, *cost.cells(), str(cost.tables or "–")] for name, cost in costs.items()
    ]
    committed = committed_table("operations", table_of(COLUMNS, rows))
    for cost, row, known in zip(costs.values(), rows, committed, strict=True):
        assert (known[0], known[3]) == (row[0], row[3])
        asked = sum(int(each.split(" ×")[0]) for each in known[1].split(", "))
        assert cost.asked == pytest.approx(asked, rel=TOLERANCE, abs=3), row
        assert cost.charge == pytest.approx(float(known[2]), rel=TOLERANCE, abs=30), row
        tables = 0 if known[4] == "–" else int(known[4])
        assert cost.tables == pytest.approx(tables, rel=TOLERANCE, abs=6), row
    check_budget(costs)


def check_budget(costs: dict[str, Cost]) -> None:
    """What grows with the instances, and by how much at most."""
    first, again = costs["Update a study (90)"], costs["Update it again"]
    # Each file is read and written; the first time the original is described and cooled.
    assert (first.blobs, again.blobs) == (4 * COUNT, 2 * COUNT)
    assert first.asked < COUNT
    assert again.asked < COUNT
    export = costs["Export a study (90)"]
    assert (export.blobs, export.asked < COUNT / 2) == (2 * COUNT + 2, True)
    reindex = costs["Add a query tag and reindex (90)"]
    assert (reindex.blobs, reindex.asked < COUNT) == (0, True)
    assert costs["Delete a query tag"].asked <= 5
    scrub = costs["Scrub (90)"]
    # Current version, original and what describes it; one list of all blobs.
    assert (scrub.blobs, scrub.asked < COUNT / 2) == (3 * COUNT + 1, True)
    cleanup, idle = costs["Clean up after it"], costs["Clean up when there is nothing"]
    assert (cleanup.blobs, idle.blobs) == (3 * COUNT + 1, 0)
    assert cleanup.asked <= idle.asked + 3
    assert costs["Publish pending when there is nothing"].asked == 4
