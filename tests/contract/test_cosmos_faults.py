"""CosmosDocuments when the service throttles, stalls, splits or loses its answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from emulators.processes import Emulated, control, cosmos_emulator, counters, provision

from dicomweb.errors import StoreUnavailable
from stores.containers import CATALOG, DICOM, SYSTEM
from stores.cosmos_account import CosmosAddress
from stores.cosmos_documents import CosmosDocuments
from stores.ports import (
    And,
    Committed,
    Create,
    Document,
    Equals,
    Operation,
    Order,
    Patch,
    Query,
    Rejected,
    Rejection,
    Replace,
    Upsert,
)

pytestmark = pytest.mark.contract

NEWEST = (Order(("k",)), Order(("sk",), descending=True))
NOT_APPLIED = ["429", "449"]
UNKNOWN = [
    "408-before",
    "408-after",
    "503-before",
    "503-after",
    "cut-before",
    "cut-after",
]
_numbers = itertools.count(1)


@pytest.fixture
def quiet(emulated: Emulated) -> Iterator[Emulated]:
    """The emulators without faults, before and after; scans are kept for the end."""
    assert counters(emulated)["scans"] == []
    control(emulated, "reset", {})
    yield emulated
    control(emulated, "faults", {"fault": "latency", "count": 0})
    assert counters(emulated)["scans"] == []
    control(emulated, "reset", {})


@pytest.fixture
async def documents(quiet: Emulated) -> AsyncIterator[CosmosDocuments]:
    opened = CosmosDocuments(quiet.cosmos, patience_seconds=3)
    await warmed(opened)
    control(quiet, "reset", {})
    yield opened
    await opened.close()


async def warmed(documents: CosmosDocuments) -> None:
    """What a process asks for once: account, containers, physical partitions."""
    for container in (DICOM, CATALOG, SYSTEM):
        await documents.batch(container, "warm", [Upsert({"id": "warm"})])
        await documents.read(container, "warm", "warm")
        await documents.query(container, Query(Equals(("id",), "warm")), limit=1)


@pytest.fixture
def key() -> str:
    return f"faults|{next(_numbers)}"


def commit(token: str) -> list[Operation]:
    return [
        Create({"id": "ev:1", "token": token}),
        Create({"id": "i:1", "w": 7}),
        Patch("st", increments={("ni",): 1}),
    ]


def asked(emulated: Emulated) -> dict[str, int]:
    found: dict[str, int] = counters(emulated)["requests"]
    return found


@pytest.mark.parametrize("fault", [*NOT_APPLIED, *UNKNOWN])
async def test_a_batch_with_a_token_is_applied_exactly_once(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str
) -> None:
    await documents.batch(DICOM, key, [Create({"id": "st", "ni": 0})])
    control(quiet, "faults", {"fault": fault, "kind": "batch", "count": 1})
    result = await documents.batch(DICOM, key, commit("mine"))
    assert isinstance(result, Committed)
    assert counters(quiet)["faults"] == {fault: 1}
    study = await documents.read(DICOM, key, "st")
    assert study is not None
    assert study["ni"] == 1
    assert result.etags[2] == study["_etag"]
    left = result.documents[2]
    assert left is not None
    assert (left["ni"], left["_etag"]) == (1, study["_etag"])


@pytest.mark.parametrize("changed", [False, True])
async def test_after_a_lost_answer_only_what_is_as_it_was_written_has_an_etag(
    documents: CosmosDocuments, quiet: Emulated, key: str, *, changed: bool
) -> None:
    """With the etag of another's commit the caller would undo it at its next one."""
    created = await documents.batch(DICOM, key, [Create({"id": "st", "ni": 0})])
    assert isinstance(created, Committed)
    read = documents.read

    async def after_another_commit(*arguments: str) -> Document | None:
        if changed:
            await documents.batch(DICOM, key, [Upsert({"id": "st", "ni": 2})])
        return await read(*arguments)

    documents.read = after_another_commit  # type: ignore[method-assign]
    control(quiet, "faults", {"fault": "cut-after", "kind": "batch", "count": 1})
    operations = [
        Create({"id": "ev:1", "token": "mine", "n": (1, 1, 9)}),
        Replace({"id": "st", "ni": 1, "z": b"1"}, if_etag=created.etags[0]),
    ]
    result = await documents.batch(DICOM, key, operations)
    assert isinstance(result, Committed)
    study = await read(DICOM, key, "st")
    assert study is not None
    assert result.etags[1] == (None if changed else study["_etag"])


@pytest.mark.parametrize("fault", ["408-after", "cut-after"])
async def test_another_ones_token_is_a_conflict(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str
) -> None:
    await documents.batch(DICOM, key, [Create({"id": "st", "ni": 0})])
    assert isinstance(await documents.batch(DICOM, key, commit("other")), Committed)
    control(quiet, "faults", {"fault": fault, "kind": "batch", "count": 1})
    result = await documents.batch(DICOM, key, commit("mine"))
    assert result == Rejected(0, Rejection.EXISTS)


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_increment_alone_is_never_sent_twice(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str
) -> None:
    await documents.batch(SYSTEM, key, [Create({"id": "watermark", "value": 0})])
    control(quiet, "faults", {"fault": fault, "kind": "batch", "count": 1})
    with pytest.raises(StoreUnavailable) as caught:
        await documents.batch(
            SYSTEM, key, [Patch("watermark", increments={("value",): 5})]
        )
    assert caught.value.outcome_unknown
    found = await documents.read(SYSTEM, key, "watermark")
    assert found is not None
    assert found["value"] == (5 if fault.endswith("after") else 0)


@pytest.mark.parametrize("fault", NOT_APPLIED)
async def test_an_increment_that_was_not_applied_is_sent_again(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str
) -> None:
    await documents.batch(SYSTEM, key, [Create({"id": "watermark", "value": 0})])
    control(quiet, "faults", {"fault": fault, "kind": "batch", "count": 3})
    patch = Patch("watermark", increments={("value",): 5})
    result = await documents.batch(SYSTEM, key, [patch])
    assert isinstance(result, Committed)
    assert result.documents[0] is not None
    assert result.documents[0]["value"] == 5


@pytest.mark.parametrize(
    ("fault", "known"), [("cut-before", True), ("cut-after", False)]
)
async def test_a_guarded_replace_is_sent_again_but_its_refusal_says_nothing(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str, known: bool
) -> None:
    made = await documents.batch(DICOM, key, [Create({"id": "head", "next": 1})])
    assert isinstance(made, Committed)
    replace = Replace({"id": "head", "next": 2}, if_etag=made.etags[0])
    control(quiet, "faults", {"fault": fault, "kind": "batch", "count": 1})
    if known:
        assert isinstance(await documents.batch(DICOM, key, [replace]), Committed)
    else:
        with pytest.raises(StoreUnavailable) as caught:
            await documents.batch(DICOM, key, [replace])
        assert caught.value.outcome_unknown
    found = await documents.read(DICOM, key, "head")
    assert found is not None
    assert found["next"] == 2


@pytest.mark.parametrize("fault", [*NOT_APPLIED, *UNKNOWN])
async def test_reads_queries_and_upserts_outlive_faults(
    documents: CosmosDocuments, quiet: Emulated, key: str, fault: str
) -> None:
    control(quiet, "faults", {"fault": fault, "count": 2})
    row = {"id": "st", "k": key, "sk": "1"}
    assert isinstance(await documents.batch(CATALOG, key, [Upsert(row)]), Committed)
    control(quiet, "faults", {"fault": fault, "count": 2})
    assert await documents.read(CATALOG, key, "st") is not None
    control(quiet, "faults", {"fault": fault, "count": 3})
    page = await documents.query(CATALOG, Query(Equals(("k",), key), NEWEST), limit=5)
    assert [document["id"] for document in page.documents] == ["st"]
    assert counters(quiet)["faults"] == {fault: 7}


async def test_what_does_not_pass_ends_in_store_unavailable(
    quiet: Emulated, key: str
) -> None:
    documents = CosmosDocuments(quiet.cosmos, patience_seconds=0.3)
    await documents.batch(DICOM, key, [Create({"id": "st"})])
    control(quiet, "faults", {"fault": "429", "retry_after_ms": 50})
    for attempt in (
        documents.read(DICOM, key, "st"),
        documents.query(DICOM, Query(None), partition_key=key, limit=1),
        documents.batch(DICOM, key, [Create({"id": "ev:1", "token": "t"})]),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await attempt
        assert not caught.value.outcome_unknown
    await documents.close()


async def test_the_services_wait_is_kept(
    documents: CosmosDocuments, quiet: Emulated, key: str
) -> None:
    control(
        quiet,
        "faults",
        {"fault": "429", "kind": "read", "count": 1, "retry_after_ms": 400},
    )
    started = asyncio.get_running_loop().time()
    await documents.read(DICOM, key, "st")
    assert asyncio.get_running_loop().time() - started >= 0.4
    assert documents.counters.repeated["read"] == 1


# --- round trips -----------------------------------------------------------------


async def test_each_operation_is_one_request(
    documents: CosmosDocuments, quiet: Emulated, key: str
) -> None:
    await documents.batch(DICOM, key, [Create({"id": f"i:{n}"}) for n in range(100)])
    assert asked(quiet) == {"batch": 1}
    await documents.read(DICOM, key, "i:1")
    await documents.read(DICOM, key, "none")
    assert asked(quiet) == {"batch": 1, "read": 2}
    await documents.query(DICOM, Query(None), partition_key=key, limit=100)
    assert asked(quiet) == {"batch": 1, "read": 2, "query-partition": 1}
    await documents.query(CATALOG, Query(Equals(("k",), key), NEWEST), limit=10)
    await documents.query(
        CATALOG, Query(Equals(("k",), key), NEWEST), limit=10, after=(key, "5")
    )
    assert asked(quiet)["query-range"] == 2 * 4
    charges = documents.counters.charge
    assert all(charges[kind] > 0 for kind in ("batch", "read", "query"))


async def test_a_new_process_asks_for_little_before_its_first_answer(
    quiet: Emulated, key: str
) -> None:
    documents = CosmosDocuments(quiet.cosmos)
    await documents.read(DICOM, key, "st")
    await documents.read(DICOM, key, "st")
    found = asked(quiet)
    assert found.pop("read") == 3  # one of them is the record of the data format
    assert sum(found.values()) <= 6, found
    await documents.close()


async def test_pages_of_4_mb_are_merged_in_order(
    documents: CosmosDocuments, key: str
) -> None:
    rows: list[Document] = [
        {"id": "st", "k": key, "sk": f"{n:04d}", "text": "x" * 700_000}
        for n in range(40)
    ]
    for n, row in enumerate(rows):
        await documents.batch(CATALOG, f"{key}|{n}", [Create(row)])
    found: list[str] = []
    after: tuple[Any, ...] | None = None
    pages = 0
    while True:
        page = await documents.query(
            CATALOG, Query(Equals(("k",), key), NEWEST), limit=100, after=after
        )
        found += [document["sk"] for document in page.documents]
        pages += 1
        if page.after is None:
            break
        after = page.after
    assert found == [f"{n:04d}" for n in reversed(range(40))]
    assert pages > 1
    query = Query(Equals(("k",), key), NEWEST, ("sk",))
    page = await documents.query(CATALOG, query, limit=3, offset=35)
    assert [document["sk"] for document in page.documents] == ["0004", "0003", "0002"]


# --- the service changes under us -------------------------------------------------


@pytest.fixture
def alone() -> Iterator[Emulated]:
    """A Cosmos emulator of this test alone; its blobs are not used."""
    from stores.azure_blobs import BlobAddress

    with cosmos_emulator("--physical-partitions", "2") as address:
        yield Emulated(address, BlobAddress())


async def test_no_row_is_lost_when_a_physical_partition_is_split(
    emulated: Emulated, alone: Emulated
) -> None:
    here = Emulated(alone.cosmos, emulated.blobs)
    provision(here)
    documents = CosmosDocuments(here.cosmos)
    for n in range(60):
        row = {"id": "st", "k": "st", "sk": f"{n:04d}"}
        await documents.batch(CATALOG, f"p{n}", [Create(row)])
    query = Query(Equals(("k",), "st"), NEWEST)
    wanted = [f"{n:04d}" for n in reversed(range(60))]
    for range_id in (None, "0", "1", "2"):
        if range_id is not None:
            control(
                here,
                "split",
                {"database": "dicom", "container": CATALOG, "range": range_id},
            )
        page = await documents.query(CATALOG, query, limit=60)
        assert [document["sk"] for document in page.documents] == wanted
        assert await documents.read(CATALOG, "p7", "st") is not None
        page = await documents.query(CATALOG, query, limit=5, offset=20)
        assert [document["sk"] for document in page.documents] == wanted[20:25]
    await documents.close()


async def test_an_account_that_was_not_provisioned_says_so(alone: Emulated) -> None:
    documents = CosmosDocuments(alone.cosmos, patience_seconds=0.5)
    with pytest.raises(StoreUnavailable, match="provisioned"):
        await documents.read(DICOM, "p", "st")
    await documents.close()


async def test_a_wrong_key_is_store_unavailable(quiet: Emulated) -> None:
    address = CosmosAddress(quiet.cosmos.endpoint, "dicom", "d3Jvbmc=")
    documents = CosmosDocuments(address, patience_seconds=0.5)
    with pytest.raises(StoreUnavailable, match="access was refused"):
        await documents.read(DICOM, "p", "st")
    await documents.close()


async def test_nobody_listens_is_store_unavailable() -> None:
    address = CosmosAddress("http://127.0.0.1:9/", "dicom", "a2V5")
    documents = CosmosDocuments(address, patience_seconds=0.5)
    with pytest.raises(StoreUnavailable) as caught:
        await documents.batch(DICOM, "p", [Create({"id": "st"})])
    assert not caught.value.outcome_unknown
    await documents.close()


async def test_documents_expire_by_the_services_clock(
    alone: Emulated, emulated: Emulated
) -> None:
    here = Emulated(alone.cosmos, emulated.blobs)
    provision(here)
    documents = CosmosDocuments(here.cosmos)
    row = {"id": "gone", "ttl": 600, "k": "st", "sk": "1"}
    await documents.batch(CATALOG, "p", [Create(row)])
    query = Query(And((Equals(("k",), "st"),)), NEWEST)
    control(here, "clock", {"advance_seconds": 599})
    assert (await documents.query(CATALOG, query, limit=1)).documents
    control(here, "clock", {"advance_seconds": 2})
    assert not (await documents.query(CATALOG, query, limit=1)).documents
    assert await documents.read(CATALOG, "p", "gone") is None
    await documents.close()


# --- many writers, many faults ----------------------------------------------------

WRITERS, COMMITS = 12, 15


async def writer(documents: CosmosDocuments, key: str, name: str) -> list[str]:
    """Commits with a token each, as a study's commits are; those that succeeded."""
    done = []
    for number in range(COMMITS):
        token = f"{name}-{number}"
        operations: list[Operation] = [
            Create({"id": f"ev:{token}", "token": token}),
            Create({"id": f"i:{token}"}),
            Patch("st", increments={("ni",): 1}),
        ]
        while True:
            try:
                result = await documents.batch(DICOM, key, operations)
            except StoreUnavailable:
                continue  # as a client would, with the same token
            break
        if isinstance(result, Rejected):
            found = await documents.read(DICOM, key, f"ev:{token}")
            assert found is not None, "refused although nothing was there"
        done.append(token)
    return done


async def test_counts_are_exact_after_faults_before_and_after_commits(
    quiet: Emulated, key: str
) -> None:
    first = CosmosDocuments(quiet.cosmos, patience_seconds=2)
    second = CosmosDocuments(quiet.cosmos, patience_seconds=2)
    await first.batch(DICOM, key, [Create({"id": "st", "ni": 0})])
    for fault, rate in (
        ("429", 0.05), ("449", 0.05), ("408-before", 0.02), ("408-after", 0.04),
        ("cut-before", 0.02), ("cut-after", 0.04), ("503-after", 0.02),
    ):  # fmt: skip
        control(quiet, "faults", {"fault": fault, "rate": rate, "seed": 5})
    done = await asyncio.gather(
        *(
            writer(documents, key, f"{n}-{m}")
            for n, documents in enumerate((first, second))
            for m in range(WRITERS // 2)
        )
    )
    struck = counters(quiet)["faults"]
    assert sum(struck.values()) > 20, struck
    control(quiet, "reset", {})
    committed = {token for tokens in done for token in tokens}
    assert len(committed) == WRITERS * COMMITS
    study = await first.read(DICOM, key, "st")
    assert study is not None
    assert study["ni"] == len(committed)
    found: set[str] = set()
    after = None
    while True:
        page = await first.query(
            DICOM, Query(None), partition_key=key, limit=1000, after=after
        )
        found |= {document["id"] for document in page.documents}
        if page.after is None:
            break
        after = page.after
    assert found == {"st"} | {
        f"{kind}:{token}" for token in committed for kind in ("ev", "i")
    }
    await first.close()
    await second.close()
