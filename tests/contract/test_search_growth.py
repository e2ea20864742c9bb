"""Searches cost the same in a small and in a larger archive, on both stacks.

`SEARCH_SIZES=1000,10000,100000` fills more studies, and then compares times too; those
of a few thousand say nothing on a busy machine.
"""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from emulators.processes import Emulated, control, counters
from scenarios import open_runtime

from dicomweb.identifiers import Partition
from dicomweb.query import Resource, parse
from services import documents as doc
from services import search
from services.runtime import Runtime
from stores.containers import CATALOG
from stores.cosmos_documents import CosmosDocuments
from stores.ports import Documents, Upsert

# From the first size on each of four physical partitions has a page of 100 of its own.
SIZES = [int(size) for size in os.environ.get("SEARCH_SIZES", "1000,2000").split(",")]
TIMED = SIZES[-1] >= 10_000
GROWTH = 1.5
LEAST_MS = 4.0
"""Times below are noise."""
WRITERS = 16
HERE = Partition("Growth")
PER_DAY = 20
FIRST_DAY = date(1990, 1, 1)
# Whatever the size, these match the same studies: those of the first hundred.
SEARCHES = {
    "StudyInstanceUID": "StudyInstanceUID=1.2.3.77",
    "PatientID": "PatientID=P-77",
    "AccessionNumber": "AccessionNumber=A-77",
    "StudyDate range": "StudyDate=19900102-19900103",
    "name prefix": "PatientName=family0000077%5E*",
    "fuzzy name": "PatientName=given%20fam0000077&fuzzymatching=true",
    "ModalitiesInStudy, page of 100": "ModalitiesInStudy=CT&limit=100",
    "no filter, page of 100": "limit=100",
}


def study(number: int) -> dict[str, Any]:
    """The search form of a study with one series."""
    uid = f"1.2.3.{number}"
    day = FIRST_DAY + timedelta(days=number // PER_DAY)
    elements = {
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00080020": {"vr": "DA", "Value": [day.strftime("%Y%m%d")]},
        "00080050": {"vr": "SH", "Value": [f"A-{number}"]},
        "00100020": {"vr": "LO", "Value": [f"P-{number}"]},
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": f"Family{number:07}^Given^Fam{number:07}"}],
        },
    }
    return doc.catalog_study(
        {
            "id": doc.STUDY,
            "p": HERE.name,
            "uid": uid,
            "sk": doc.sort_key(number + 1),
            "a": elements,
            "mods": {"CT": 1} if number % 2 else {"MR": 1},
            "ns": 1,
            "ni": 1,
            "n": 1,
        }
    )


async def fill(documents: Documents, numbers: Sequence[int]) -> None:
    waiting = iter(numbers)

    async def write() -> None:
        for number in waiting:
            pk = doc.study_pk(HERE, f"1.2.3.{number}")
            await documents.batch(CATALOG, pk, [Upsert(study(number))])

    await asyncio.gather(*(write() for _ in range(WRITERS)))


@pytest.fixture
async def runtime(documents: Documents, tmp_path: Path) -> AsyncIterator[Runtime]:
    """The services; their index is the adapter under test."""
    made = open_runtime(tmp_path / "data")
    yield replace(made, documents=documents)
    await made.close()


async def found(runtime: Runtime, text: str) -> int:
    pairs = [tuple(pair.split("=")) for pair in text.replace("%5E", "^").split("&")]
    query = parse(
        Resource.ALL_STUDIES,
        [(name, value.replace("%20", " ")) for name, value in pairs],
        version=2,
        query_tags=(),
    )
    return len((await search.search(runtime, HERE, query, "http://host/v2")).rows)


async def least_ms(runtime: Runtime, text: str) -> float:
    """The least of several times, which others on the machine disturb least."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        await found(runtime, text)
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


async def measured(runtime: Runtime, emulated: Emulated | None) -> dict[str, Any]:
    """Per search: rows, what it cost, and how long it took."""
    seen = {}
    await found(runtime, "limit=1")  # the SDK learns the physical partitions
    for name, text in SEARCHES.items():
        if emulated is not None:
            control(emulated, "reset", {})
        rows = await found(runtime, text)
        cost: dict[str, float] = {}
        if emulated is not None:
            after = counters(emulated)
            assert after["scans"] == []
            cost = {**after["requests"], "RU": sum(after["charges_modelled"].values())}
        seen[name] = (rows, cost, await least_ms(runtime, text) if TIMED else 0.0)
    return seen


@pytest.mark.timeout(3600)
async def test_a_search_costs_the_same_in_a_larger_archive(
    runtime: Runtime, documents: Documents, request: pytest.FixtureRequest
) -> None:
    is_cosmos = isinstance(documents, CosmosDocuments)
    emulated = request.getfixturevalue("emulated") if is_cosmos else None
    seen = {}
    for start, size in itertools.pairwise([0, *SIZES]):
        await fill(documents, range(start, size))
        seen[size] = await measured(runtime, emulated)
    first, last = seen[SIZES[0]], seen[SIZES[-1]]
    if TIMED:
        print(*(f"{size}: {each}" for size, each in seen.items()), sep="\n")
    for name in SEARCHES:
        (rows, cost, before), (rows_later, cost_later, after) = first[name], last[name]
        assert rows == rows_later > 0, name
        for kind, amount in cost.items():
            assert cost_later.get(kind, 0) <= amount * GROWTH, (name, kind)
        assert after <= max(before, LEAST_MS) * GROWTH, name
