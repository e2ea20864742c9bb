"""Which way a query takes through SQLite: the work must not grow with the store."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stores.containers import CATALOG, DICOM, FEED
from stores.ports import (
    And,
    ArrayContains,
    Condition,
    Document,
    Equals,
    Exists,
    In,
    Like,
    Order,
    Prefix,
    Query,
    Range,
    Upsert,
)
from stores.sqlite_connection import FILE_NAME, LAYOUTS
from stores.sqlite_documents import SqliteDocuments
from stores.sqlite_search import Search, run

# Of a page of 100 one more tells that more follow; sqlite3 fetches one row ahead.
STUDIES = 3_000
NEWEST = (Order(("k",)), Order(("sk",), descending=True))
K = Equals(("k",), "st|p~")


def study(number: int) -> Document:
    return {
        "id": "st",
        "k": "st|p~",
        "sk": f"{number:019d}",
        "f": {"PatientID": f"p{number}", "StudyDate": str(20_000_000 + number)},
        "mods": ["ct"] if number % 2 else ["mr"],
    }


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    asyncio.run(fill(folder))
    return folder / FILE_NAME


async def fill(folder: Path) -> None:
    documents = SqliteDocuments(folder, survives_power_loss=False)
    await asyncio.gather(
        *(
            documents.batch(CATALOG, f"p~|{number}", [Upsert(study(number))])
            for number in range(STUDIES)
        )
    )
    for start in range(0, 2_000, 100):
        numbers = range(start, start + 100)
        rows = [
            {"id": f"i:{n}", "t": "i", "k": "i|p~", "sk": f"{n:019d}"} for n in numbers
        ]
        await documents.batch(DICOM, "p~|big", [Upsert(row) for row in rows])
        pages = [{"id": f"{n:019d}", "last": n, "ts": n} for n in numbers]
        await documents.batch(FEED, "global:0", [Upsert(page) for page in pages])
    event = {"id": "ev:1", "t": "ev", "rev": 1, "pending": "1"}
    await documents.batch(DICOM, "p~|big", [Upsert(event)])
    await documents.close()


@pytest.fixture
async def connection(index: Path) -> AsyncIterator[sqlite3.Connection]:
    connection = sqlite3.connect(index, isolation_level=None)
    yield connection
    connection.close()


def documents_read(
    connection: sqlite3.Connection, container: str, query: Query, **more: Any
) -> tuple[int, int]:
    """How many documents came back and how many bodies were read for them."""
    read = []
    connection.create_function("seen", 1, lambda body: read.append(1) or body)
    arguments = {"partition_key": None, "limit": 100, "after": None, "offset": 0}
    search = Search(LAYOUTS[container], query, **arguments | more)

    class Counting:
        def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
            return connection.execute(
                statement.replace("d.body", "seen(d.body)"), parameters
            )

    page = run(Counting(), search, 0.0)  # type: ignore[arg-type]
    return len(page.documents), len(read)


@pytest.mark.parametrize(
    ("where", "found", "most"),
    [
        (And(()), 100, 102),
        (Equals(("f", "PatientID"), "p7"), 1, 1),
        (In(("f", "PatientID"), ("p7", "p8")), 2, 2),
        (In(("pk",), ("p~|3", "p~|4")), 2, 2),
        (Range(("f", "StudyDate"), "20000100", "20000119"), 20, 20),
        (Range(("f", "StudyDate"), "20000100", "20001599"), 100, 102),
        (Prefix(("f", "PatientID"), "p29"), 100, 102),
        (Like(("f", "PatientID"), "*99"), 30, 90),
        (ArrayContains(("mods",), "ct"), 100, 102),
        (And((ArrayContains(("mods",), "ct"), Equals(("f", "PatientID"), "p7"))), 1, 1),
        (
            And((ArrayContains(("mods",), "ct"), Range(("f", "StudyDate"), high="20002399"))),
            100,
            102 + 600,
        ),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_search_reads_hardly_more_documents_than_it_returns(
    connection: sqlite3.Connection, where: Condition, found: int, most: int
) -> None:
    query = Query(And((K, where)), NEWEST)
    count, read = documents_read(connection, CATALOG, query)
    assert count == found
    assert read <= most


async def test_a_deep_page_by_keyset_reads_no_more_than_the_first(
    connection: sqlite3.Connection,
) -> None:
    query = Query(And((K, ArrayContains(("mods",), "ct"))), NEWEST)
    after = ("st|p~", f"{1_000:019d}")
    assert documents_read(connection, CATALOG, query, after=after) == (100, 102)


@pytest.mark.parametrize(
    ("container", "query", "found", "most"),
    [
        (DICOM, Query(Equals(("k",), "i|p~"), NEWEST), 100, 102),
        (DICOM, Query(Prefix(("id",), "i:19")), 100, 102),
        (DICOM, Query(In(("id",), ("st", "i:7"))), 1, 1),
        (DICOM, Query(Exists(("pending",)), (Order(("rev",)),)), 1, 1),
    ],
    ids=repr,
)
async def test_a_query_in_a_large_partition_reads_what_it_needs(
    connection: sqlite3.Connection,
    container: str,
    query: Query,
    found: int,
    most: int,
) -> None:
    assert documents_read(connection, container, query, partition_key="p~|big") == (
        found,
        most,
    )


async def test_the_feed_is_read_from_any_sequence_without_what_is_before(
    connection: sqlite3.Connection,
) -> None:
    for where in (Range(("last",), low=1_500), Range(("ts",), 1_500, 1_900)):
        query = Query(where, (Order(("last",)),))
        count, read = documents_read(
            connection, FEED, query, partition_key="global:0", limit=10
        )
        assert (count, read) == (10, 12)
