"""All instances of the archive, from the newest down, page by page.

They go by the watermark of their first version, which never changes: by the current
one a bulk update could lift an instance over the pages that are still to come.
"""

from collections.abc import Sequence

from dicomweb.identifiers import DEFAULT_PARTITION, partition_key
from services import documents as doc
from services import partitions
from stores import containers
from stores.ports import And, Document, Documents, Equals, Order, Query, Range, Scalar

HIGHEST = 10**18
"""Above every watermark."""
_PAGE = 1000


async def newest_first(
    documents: Documents,
    end: int,
    *,
    limit: int,
    start: int = 1,
    fields: Sequence[str] = ("pk", "sk"),
) -> list[Document]:
    """Instances with a first watermark from start to end, newest first.

    One seek for each data partition, however large the archive.

    Args:
        documents: The index.
        end: Highest watermark wanted.
        limit: How many; fewer are returned only where there are no more.
        start: Lowest watermark wanted.
        fields: Of the instances, `sk` among them.
    """
    found: list[Document] = []
    for key in await _partition_keys(documents):
        found += await _of_partition(documents, key, (start, end), limit, fields)
    return sorted(found, key=lambda row: str(row["sk"]), reverse=True)[:limit]


async def highest_first_watermark(documents: Documents) -> int:
    """First watermark of the newest instance, 0 in an empty archive."""
    rows = await newest_first(documents, HIGHEST, limit=1)
    return int(rows[0]["sk"]) if rows else 0


async def _of_partition(
    documents: Documents,
    key: str,
    bounds: tuple[int, int],
    limit: int,
    fields: Sequence[str],
) -> list[Document]:
    low, high = bounds
    query = Query(
        And(
            (
                Equals(("k",), f"i|{key}"),
                Range(("sk",), low=doc.sort_key(low), high=doc.sort_key(high)),
            )
        ),
        (Order(("sk",), descending=True),),
        tuple(fields),
    )
    rows: list[Document] = []
    after: tuple[Scalar, ...] | None = None
    while len(rows) < limit:
        page = await documents.query(
            containers.DICOM, query, limit=limit - len(rows), after=after
        )
        rows += page.documents
        if page.after is None:
            break
        after = page.after
    return rows


async def _partition_keys(documents: Documents) -> list[str]:
    keys = [partition_key(DEFAULT_PARTITION)]
    after: tuple[Scalar, ...] | None = None
    query = Query(None, fields=("k",))
    while True:
        page = await documents.query(
            containers.SYSTEM,
            query,
            partition_key=partitions.PARTITION_KEY,
            limit=_PAGE,
            after=after,
        )
        keys += [row["id"] for row in page.documents if row["k"] == "partition"]
        if page.after is None:
            return keys
        after = page.after
