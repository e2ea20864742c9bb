"""The journal: the same cases on SQLite and on Azure Tables."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from stores.ports import Journal, JournalRow
from stores.sqlite_journal import SqliteJournal
from stores.table_journal import TableAddress, TableJournal

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "tables"])
async def journal(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Journal]:
    opened: Journal
    if request.param == "sqlite":
        opened = SqliteJournal(tmp_path)
    else:
        emulated = request.getfixturevalue("emulated")
        address = TableAddress(
            connection=emulated.blobs.connection, table=f"t{uuid4().hex}"
        )
        opened = TableJournal(address)
    yield opened
    await opened.close()


def row(n: int, **data: int) -> JournalRow:
    return JournalRow(NOON + n * SECOND, f"row{n}", data or {"n": n})


async def numbers(journal: Journal, kind: str = "k", **options: object) -> list[int]:
    page = await journal.page(kind, **({"limit": 1000} | options))
    return [found.data["n"] for found in page]


async def test_a_kind_that_nobody_wrote_is_empty(journal: Journal) -> None:
    assert await journal.page("k", limit=10) == []
    assert await journal.count("k") == 0
    assert await journal.purge("k") == 0
    assert await journal.delete("k", [(NOON, "row0")]) == 0


async def test_rows_come_newest_first_or_oldest_first_page_by_page(
    journal: Journal,
) -> None:
    await journal.put("k", [row(n) for n in (3, 1, 4, 0, 2)])
    assert await numbers(journal) == [4, 3, 2, 1, 0]
    assert await numbers(journal, oldest_first=True) == [0, 1, 2, 3, 4]
    assert await numbers(journal, limit=2, offset=3) == [1, 0]
    assert await numbers(journal, limit=2, offset=5) == []


async def test_a_row_written_again_is_replaced(journal: Journal) -> None:
    await journal.put("k", [row(1)])
    await journal.put("k", [row(1, seen=2)])
    assert await journal.page("k", limit=10) == [row(1, seen=2)]
    assert await journal.count("k") == 1


async def test_kinds_do_not_see_each_other(journal: Journal) -> None:
    await journal.put("k", [row(1)])
    await journal.put("k2", [row(2)])
    assert await journal.purge("k") == 1
    assert await numbers(journal, "k2") == [2]


async def test_what_is_older_is_purged(journal: Journal) -> None:
    await journal.put("k", [row(n) for n in range(130)])
    assert await journal.purge("k", NOON + 127 * SECOND) == 127
    assert await numbers(journal) == [129, 128, 127]


async def test_rows_are_counted_however_many_and_deleted_by_key(
    journal: Journal,
) -> None:
    await journal.put("k", [row(n) for n in range(1100)])
    assert await journal.count("k") == 1100
    doomed = [(NOON + n * SECOND, f"row{n}") for n in (2, 5, 5000)]
    assert await journal.delete("k", doomed) == 2
    assert await journal.count("k") == 1098
    assert await numbers(journal, limit=5, oldest_first=True) == [0, 1, 3, 4, 6]
    assert await journal.delete("k", doomed) == 0


async def test_the_same_time_holds_rows_of_several_ids(journal: Journal) -> None:
    rows = [JournalRow(NOON, id, {"n": n}) for n, id in enumerate("abc")]
    await journal.put("k", rows)
    assert await numbers(journal, oldest_first=True) == [0, 1, 2]
    assert await journal.delete("k", [(NOON, "b")]) == 1
    assert await numbers(journal, oldest_first=True) == [0, 2]
