"""What every `Documents` adapter keeps. No case relies on an empty store."""

import asyncio
import itertools
from typing import Any

import pytest

from stores.containers import CATALOG, CLEANUP, DICOM, FEED, SYSTEM
from stores.ports import (
    MAX_BATCH_OPERATIONS,
    And,
    AnyWordStartsWith,
    ArrayContains,
    Committed,
    Create,
    Delete,
    Document,
    Documents,
    Equals,
    Exists,
    In,
    Like,
    Or,
    Order,
    Patch,
    Prefix,
    Query,
    Range,
    Rejected,
    Rejection,
    Replace,
    Upsert,
)

pytestmark = pytest.mark.contract

_numbers = itertools.count(1)


@pytest.fixture
def key() -> str:
    """A partition key of its own for each test."""
    return f"p~|1.2.{next(_numbers)}"


def committed(result: object) -> Committed:
    assert isinstance(result, Committed), result
    return result


async def put(
    documents: Documents, container: str, key: str, *bodies: Document
) -> None:
    for start in range(0, len(bodies), 100):
        part = bodies[start : start + 100]
        committed(await documents.batch(container, key, [Upsert(b) for b in part]))


def plain(document: Document | None) -> Document:
    assert document is not None
    return {k: v for k, v in document.items() if k not in ("pk", "_etag")}


async def ids(
    documents: Documents, container: str, query: Query, **more: Any
) -> list[str]:
    page = await documents.query(container, query, **{"limit": 100} | more)
    return [document["id"] for document in page.documents]


# --- reading and writing ---------------------------------------------------------


async def test_a_created_document_is_read_back_whole(
    documents: Documents, key: str
) -> None:
    body = {
        "id": "i:1",
        "t": "i",
        "text": "é\u0000漢😀",
        "n": [1, -2.5, 1e300, True, False, None, {"deep": []}],
        "z": bytes(range(256)),
    }
    result = committed(await documents.batch(DICOM, key, [Create(body)]))
    found = await documents.read(DICOM, key, "i:1")
    assert found == body | {"pk": key, "_etag": result.etags[0]}
    assert result.documents[0] is not None
    assert result.documents[0]["id"] == "i:1"
    assert result.documents[0]["_etag"] == result.etags[0]


async def test_nothing_is_read_where_nothing_was_written(
    documents: Documents, key: str
) -> None:
    assert await documents.read(DICOM, key, "st") is None


async def test_the_same_id_in_two_partitions_is_two_documents(
    documents: Documents, key: str
) -> None:
    await put(documents, DICOM, key, {"id": "st", "a": 1})
    await put(documents, DICOM, key + "x", {"id": "st", "a": 2})
    assert plain(await documents.read(DICOM, key, "st")) == {"id": "st", "a": 1}
    assert plain(await documents.read(DICOM, key + "x", "st")) == {"id": "st", "a": 2}


async def test_a_rejected_batch_leaves_no_trace(documents: Documents, key: str) -> None:
    await put(documents, DICOM, key, {"id": "b", "v": 1}, {"id": "c", "v": 1})
    result = await documents.batch(
        DICOM,
        key,
        [
            Create({"id": "a"}),
            Upsert({"id": "b", "v": 2}),
            Delete("c"),
            Create({"id": "b"}),
        ],
    )
    assert result == Rejected(3, Rejection.EXISTS)
    assert await documents.read(DICOM, key, "a") is None
    assert plain(await documents.read(DICOM, key, "b")) == {"id": "b", "v": 1}
    assert plain(await documents.read(DICOM, key, "c")) == {"id": "c", "v": 1}


@pytest.mark.parametrize(
    "operation",
    [Replace({"id": "x"}), Delete("x"), Patch("x", sets={("a",): 1})],
    ids=lambda operation: type(operation).__name__,
)
async def test_an_operation_on_a_missing_document_is_rejected(
    documents: Documents, key: str, operation: Any
) -> None:
    result = await documents.batch(DICOM, key, [Create({"id": "ev:1"}), operation])
    assert result == Rejected(1, Rejection.MISSING)


async def test_an_etag_changes_with_every_write_and_guards_the_next(
    documents: Documents, key: str
) -> None:
    seen = []
    for operation in (
        Create({"id": "st"}),
        Upsert({"id": "st"}),
        Replace({"id": "st"}),
        Patch("st", sets={("a",): 1}),
    ):
        seen.append(committed(await documents.batch(DICOM, key, [operation])).etags[0])
    assert len(set(seen)) == 4
    for guarded in (
        Replace({"id": "st"}, if_etag=seen[0]),
        Delete("st", if_etag=seen[0]),
    ):
        result = await documents.batch(DICOM, key, [guarded])
        assert result == Rejected(0, Rejection.CONDITION)
    result = await documents.batch(DICOM, key, [Delete("st", if_etag=seen[3])])
    assert committed(result).etags == (None,)
    assert await documents.read(DICOM, key, "st") is None


async def test_a_patch_adds_sets_and_removes(documents: Documents, key: str) -> None:
    await put(
        documents, DICOM, key, {"id": "st", "ni": 1, "mods": {}, "old": 1, "z": b"z"}
    )
    result = committed(
        await documents.batch(
            DICOM,
            key,
            [
                Patch(
                    "st",
                    increments={("ni",): 2, ("mods", "CT"): 1},
                    sets={("a",): {"b": [1]}, ("rev",): 5},
                    removes=(("old",),),
                )
            ],
        )
    )
    wanted = {"id": "st", "ni": 3, "mods": {"CT": 1}, "a": {"b": [1]}, "rev": 5}
    assert plain(await documents.read(DICOM, key, "st")) == wanted | {"z": b"z"}
    left = result.documents[0]
    assert left is not None
    assert (left["ni"], left["mods"]["CT"], left["_etag"]) == (3, 1, result.etags[0])


async def test_a_patch_changes_binary_fields(documents: Documents, key: str) -> None:
    await put(documents, DICOM, key, {"id": "i", "z": b"first", "zn": b"next"})
    patch = Patch("i", sets={("z",): b"second"}, removes=(("zn",),))
    committed(await documents.batch(DICOM, key, [patch]))
    assert plain(await documents.read(DICOM, key, "i")) == {"id": "i", "z": b"second"}


async def test_a_patch_condition_is_judged_before_the_change(
    documents: Documents, key: str
) -> None:
    await put(documents, DICOM, key, {"id": "st", "rev": 4, "state": "live"})
    guard = And((Equals(("rev",), 4), Equals(("state",), "live")))
    patch = Patch("st", sets={("rev",): 5}, condition=guard)
    committed(await documents.batch(DICOM, key, [patch]))
    result = await documents.batch(DICOM, key, [Create({"id": "a"}), patch])
    assert result == Rejected(1, Rejection.CONDITION)


async def test_operations_of_a_batch_see_those_before(
    documents: Documents, key: str
) -> None:
    result = committed(
        await documents.batch(
            DICOM,
            key,
            [
                Create({"id": "st", "n": 1}),
                Patch("st", increments={("n",): 1}),
                Delete("st"),
                Create({"id": "st", "n": 9}),
            ],
        )
    )
    assert result.etags[2] is None
    assert plain(await documents.read(DICOM, key, "st")) == {"id": "st", "n": 9}


async def test_concurrent_increments_lose_nothing(
    documents: Documents, key: str
) -> None:
    await put(documents, SYSTEM, key, {"id": "watermark", "value": 0})
    results = await asyncio.gather(
        *(
            documents.batch(
                SYSTEM, key, [Patch("watermark", increments={("value",): 3})]
            )
            for _ in range(40)
        )
    )
    values = sorted(
        document["value"]
        for result in results
        for document in committed(result).documents
        if document is not None
    )
    assert values == list(range(3, 123, 3))


async def test_of_concurrent_creates_one_wins(documents: Documents, key: str) -> None:
    results = await asyncio.gather(
        *(documents.batch(DICOM, key, [Create({"id": "ev:1"})]) for _ in range(20))
    )
    assert sum(isinstance(result, Committed) for result in results) == 1


async def test_an_expired_document_is_not_there(documents: Documents, key: str) -> None:
    await put(
        documents,
        CATALOG,
        key,
        {"id": "gone", "ttl": 1, "k": key, "sk": "1", "f": {"A": "x"}},
        {"id": "kept", "ttl": -1, "k": key, "sk": "2", "f": {"A": "x"}},
    )
    await asyncio.sleep(2.1)
    assert await documents.read(CATALOG, key, "gone") is None
    newest = (Order(("sk",), descending=True),)
    for where in (
        Equals(("k",), key),
        And((Equals(("k",), key), Equals(("f", "A"), "x"))),
    ):
        assert await ids(documents, CATALOG, Query(where, newest)) == ["kept"]
    assert await ids(documents, CATALOG, Query(None), partition_key=key) == ["kept"]
    result = await documents.batch(CATALOG, key, [Delete("gone")])
    assert result == Rejected(0, Rejection.MISSING)
    committed(await documents.batch(CATALOG, key, [Create({"id": "gone"})]))


# --- what is refused -------------------------------------------------------------


@pytest.mark.parametrize("id", ["", "a/b", "a\\b", "a?b", "a#b", "x" * 1024, None, 7])
async def test_an_id_that_cosmos_db_refuses_is_refused(
    documents: Documents, key: str, id: Any
) -> None:
    with pytest.raises(ValueError):
        await documents.batch(DICOM, key, [Create({"id": id})])


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [Create({"id": str(n)}) for n in range(MAX_BATCH_OPERATIONS + 1)],
        [Create({"id": "a", "text": "x" * 2_000_001})],
        [Create({"id": "a", "z": bytes(1_600_000)})],
        [Create({"id": str(n), "text": "x" * 700_000}) for n in range(3)],
        [Create({"id": "a", "z": "text"})],
        [Create({"id": "a", "set": {1}})],
        [Create({"id": "a", "ttl": 0})],
        [Patch("a", sets={(f"f{n}",): n for n in range(11)})],
        [Patch("a")],
        [Patch("a", sets={("id",): "b"})],
    ],
    ids=[
        "empty", "101 operations", "document over 2 MB", "binary over 2 MB as base64",
        "batch over 2 MB", "text in a binary field", "not JSON", "ttl 0", "11 changes",
        "no change", "change of the id",
    ],
)  # fmt: skip
async def test_a_batch_that_cosmos_db_refuses_is_refused(
    documents: Documents, key: str, operations: Any
) -> None:
    with pytest.raises(ValueError):
        await documents.batch(DICOM, key, operations)


@pytest.mark.parametrize(
    "patch",
    [
        Patch("st", increments={("no", "n"): 1}),
        Patch("st", increments={("text",): 1}),
        Patch("st", sets={("no", "n"): 1}),
        Patch("st", removes=(("no",),)),
    ],
    ids=[
        "increment without parent",
        "increment of text",
        "set without parent",
        "remove",
    ],
)
async def test_a_patch_that_does_not_fit_is_refused_and_leaves_no_trace(
    documents: Documents, key: str, patch: Patch
) -> None:
    await put(documents, DICOM, key, {"id": "st", "text": "a"})
    with pytest.raises(ValueError):
        await documents.batch(DICOM, key, [Create({"id": "ev:1"}), patch])
    assert await documents.read(DICOM, key, "ev:1") is None
    assert plain(await documents.read(DICOM, key, "st")) == {"id": "st", "text": "a"}


async def test_a_cross_partition_query_on_a_path_without_index_is_refused(
    documents: Documents,
) -> None:
    with pytest.raises(ValueError):
        await documents.query(DICOM, Query(Equals(("secret",), 1)), limit=1)


# --- queries ---------------------------------------------------------------------

ROWS = (
    {"id": "a", "n": 1, "text": "Doe^John", "list": ["doe", "john", 5], "none": None},
    {"id": "b", "n": 2.5, "text": "Doe%Jane", "list": ["jane"], "flag": True},
    {"id": "c", "n": "1", "text": "D_e", "list": [], "flag": False, "deep": {"x": 7}},
    {"id": "d", "n": True, "text": "[DOE]", "list": "doe"},
    {"id": "e", "text": ""},
)


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (None, "abcde"),
        (Equals(("n",), 1), "a"),
        (Equals(("n",), 1.0), "a"),
        (Equals(("n",), True), "d"),
        (Equals(("n",), "1"), "c"),
        (Equals(("none",), None), "a"),
        (Equals(("deep", "x"), 7), "c"),
        (Equals(("list",), "doe"), "d"),
        (In(("n",), (1, "1", False)), "ac"),
        (In(("n",), ()), ""),
        (In(("id",), ("e", "b", "nope")), "be"),
        (Range(("n",), 1, 3), "ab"),
        (Range(("n",), low=2), "b"),
        (Range(("n",), high=1), "a"),
        (Range(("n",), low=""), "c"),
        (Range(("text",), "D", "Doe~"), "abc"),
        (Range(("id",), low="d"), "de"),
        (Prefix(("text",), "Doe"), "ab"),
        (Prefix(("text",), ""), "abcde"),
        (Prefix(("n",), ""), "c"),
        (Prefix(("id",), "c"), "c"),
        (Like(("text",), "Doe?J*n*"), "ab"),
        (Like(("text",), "D_e"), "c"),
        (Like(("text",), "*%*"), "b"),
        (Like(("text",), "[D*]"), "d"),
        (Like(("text",), "d*"), ""),
        (Like(("text",), "*"), "abcde"),
        (Like(("text",), ""), "e"),
        (AnyWordStartsWith(("list",), "jo"), "a"),
        (AnyWordStartsWith(("list",), ""), "ab"),
        (ArrayContains(("list",), "jane"), "b"),
        (ArrayContains(("list",), 5), "a"),
        (ArrayContains(("list",), "doe"), "a"),
        (Exists(("none",)), "a"),
        (Exists(("deep", "x")), "c"),
        (And(()), "abcde"),
        (Or(()), ""),
        (Or((Equals(("id",), "e"), Prefix(("id",), "a"))), "ae"),
        (And((Prefix(("text",), "Doe"), Or((Equals(("n",), 1), Exists(("flag",)))))), "ab"),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_condition_in_a_partition(
    documents: Documents, key: str, where: Any, wanted: str
) -> None:
    await put(documents, DICOM, key, *ROWS)
    found = await ids(documents, DICOM, Query(where), partition_key=key)
    assert found == list(wanted)


def study(number: int, key: str, **more: Any) -> Document:
    return {"id": "st", "k": key, "sk": f"{number:019d}"} | more


async def put_studies(documents: Documents, key: str, count: int) -> None:
    for number in range(count):
        row = study(
            number,
            key,
            f={"PatientID": f"p{number % 3}", "StudyDate": f"202401{number + 1:02d}"},
            words={"PatientName": ["doe", f"john{number}"]},
            mods=["CT"] if number % 2 else ["CT", "SR"],
            x={"t17": number},
        )
        await put(documents, CATALOG, f"{key}|{number}", row)


NEWEST = (Order(("k",)), Order(("sk",), descending=True))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (And(()), [5, 4, 3, 2, 1, 0]),
        (Equals(("f", "PatientID"), "p1"), [4, 1]),
        (In(("f", "PatientID"), ("p1", "p2")), [5, 4, 2, 1]),
        (Range(("f", "StudyDate"), "20240102", "20240104"), [3, 2, 1]),
        (Prefix(("f", "PatientID"), "p"), [5, 4, 3, 2, 1, 0]),
        (Like(("f", "StudyDate"), "*05"), [4]),
        (AnyWordStartsWith(("words", "PatientName"), "john3"), [3]),
        (AnyWordStartsWith(("words", "PatientName"), ""), [5, 4, 3, 2, 1, 0]),
        (ArrayContains(("mods",), "SR"), [4, 2, 0]),
        (Range(("x", "t17"), low=4), [5, 4]),
        (Exists(("x", "nope")), []),
        (And((ArrayContains(("mods",), "SR"), Equals(("f", "PatientID"), "p1"))), [4]),
        (
            Or((Equals(("x", "t17"), 1), ArrayContains(("mods",), "SR"))),
            [4, 2, 1, 0],
        ),
    ],
    ids=repr,
)
async def test_a_condition_across_partitions_newest_first(
    documents: Documents, key: str, where: Any, wanted: list[int]
) -> None:
    await put_studies(documents, key, 6)
    query = Query(And((Equals(("k",), key), where)), NEWEST)
    page = await documents.query(CATALOG, query, limit=100)
    assert [int(document["sk"]) for document in page.documents] == wanted
    assert page.after is None


async def test_documents_of_named_partitions(documents: Documents, key: str) -> None:
    await put_studies(documents, key, 4)
    pks = (f"{key}|1", f"{key}|3", f"{key}|nope")
    query = Query(And((Equals(("k",), key), In(("pk",), pks))), NEWEST)
    page = await documents.query(CATALOG, query, limit=100)
    assert [document["pk"] for document in page.documents] == [f"{key}|3", f"{key}|1"]


async def test_a_document_without_an_order_key_is_not_returned(
    documents: Documents, key: str
) -> None:
    await put(documents, CATALOG, key, {"id": "a", "k": key}, study(1, key))
    assert await ids(documents, CATALOG, Query(Equals(("k",), key), NEWEST)) == ["st"]


async def test_pages_by_keyset_join_to_the_whole(
    documents: Documents, key: str
) -> None:
    await put_studies(documents, key, 7)
    query = Query(
        And((Equals(("k",), key), ArrayContains(("mods",), "CT"))), NEWEST, ("sk",)
    )
    found, after, pages = [], None, 0
    while True:
        page = await documents.query(CATALOG, query, limit=3, after=after)
        found += [int(document["sk"]) for document in page.documents]
        pages += 1
        if page.after is None:
            break
        after = page.after
        assert after == (key, page.documents[-1]["sk"])
    assert found == [6, 5, 4, 3, 2, 1, 0]
    assert pages == 3


async def test_an_offset_skips(documents: Documents, key: str) -> None:
    await put_studies(documents, key, 5)
    query = Query(Equals(("k",), key), NEWEST)
    page = await documents.query(CATALOG, query, limit=2, offset=2)
    assert [int(document["sk"]) for document in page.documents] == [2, 1]
    page = await documents.query(CATALOG, query, limit=2, offset=9)
    assert page.documents == ()


async def test_the_fields_asked_for_are_returned_and_the_id(
    documents: Documents, key: str
) -> None:
    await put(documents, DICOM, key, {"id": "i", "a": {"b": 1}, "z": b"1", "c": 2})
    for fields, wanted in (
        (("a", "none"), {"id": "i", "a": {"b": 1}}),
        (("z",), {"id": "i", "z": b"1"}),
        (("pk",), {"id": "i", "pk": key}),
    ):
        query = Query(None, fields=fields)
        page = await documents.query(DICOM, query, partition_key=key, limit=5)
        assert page.documents == (wanted,)


async def test_a_page_ends_at_4_mb(documents: Documents, key: str) -> None:
    for number in range(5):
        await put(documents, DICOM, key, {"id": f"i{number}", "text": "x" * 1_500_000})
    found, after, pages = [], None, 0
    while True:
        page = await documents.query(
            DICOM, Query(None), partition_key=key, limit=100, after=after
        )
        found += [document["id"] for document in page.documents]
        pages += 1
        if page.after is None:
            break
        after = page.after
    assert found == ["i0", "i1", "i2", "i3", "i4"]
    assert pages >= 3


async def test_feed_pages_in_order_from_a_sequence(
    documents: Documents, key: str
) -> None:
    pages = [{"id": f"{n:019d}", "last": n * 10, "ts": 1000 + n} for n in range(1, 8)]
    await put(documents, FEED, key, {"id": "head", "next": 71}, *pages)
    query = Query(Range(("last",), low=35), (Order(("last",)),))
    found = await ids(documents, FEED, query, partition_key=key, limit=2)
    assert found == [f"{4:019d}", f"{5:019d}"]
    newest = Query(Range(("last",), low=0), (Order(("last",), descending=True),))
    assert await ids(documents, FEED, newest, partition_key=key, limit=1) == [
        f"{7:019d}"
    ]
    window = And((Range(("ts",), 1003, 1005), Range(("last",), low=40)))
    query = Query(window, (Order(("last",)),))
    found = await ids(documents, FEED, query, partition_key=key)
    assert found == [f"{4:019d}", f"{5:019d}"]


async def test_cleanup_pages_that_are_due(documents: Documents, key: str) -> None:
    start = next(_numbers) * 1_000_000
    for number in range(4):
        page = {"id": f"{key}-{number}".replace("|", "-"), "after": start + number}
        await put(documents, CLEANUP, f"{key}{number % 2}", page)
    query = Query(
        Range(("after",), start, start + 2), (Order(("after",)), Order(("id",)))
    )
    first = await documents.query(CLEANUP, query, limit=2)
    rest = await documents.query(CLEANUP, query, limit=2, after=first.after)
    assert [d["after"] - start for d in (*first.documents, *rest.documents)] == [
        0,
        1,
        2,
    ]
    assert rest.after is None


async def test_events_of_a_study_by_revision(documents: Documents, key: str) -> None:
    events = [
        {"id": f"ev:{rev}", "t": "ev", "rev": rev, "pending": f"0|{rev}"}
        for rev in (9, 10, 11)
    ]
    del events[1]["pending"]
    instances = [{"id": f"i:{n}", "t": "i", "w": n} for n in range(20)]
    await put(documents, DICOM, key, *events, *instances)
    where = And((Equals(("t",), "ev"), Exists(("pending",)), Range(("rev",), high=11)))
    found = await ids(
        documents, DICOM, Query(where, (Order(("rev",)),)), partition_key=key
    )
    assert found == ["ev:9", "ev:11"]


async def test_instances_of_a_study_newest_first(
    documents: Documents, key: str
) -> None:
    rows = [{"id": f"i:{n}", "t": "i", "w": n * 7 % 20} for n in range(20)]
    await put(documents, DICOM, key, {"id": "st", "t": "st", "w": 0}, *rows)
    query = Query(Equals(("t",), "i"), (Order(("w",), descending=True),), ("w",))
    page = await documents.query(DICOM, query, partition_key=key, limit=3)
    assert [document["w"] for document in page.documents] == [19, 18, 17]
    page = await documents.query(
        DICOM, query, partition_key=key, limit=30, after=page.after
    )
    assert [document["w"] for document in page.documents] == list(range(16, -1, -1))


async def test_an_update_is_found_by_its_new_values_only(
    documents: Documents, key: str
) -> None:
    where = [
        And((Equals(("k",), key), Equals(("f", "PatientID"), id))) for id in ("a", "b")
    ]
    for value, wanted in (("a", [1, 0]), ("b", [0, 1]), ("a", [1, 0])):
        await put(documents, CATALOG, key, study(1, key, f={"PatientID": value}))
        found = [await ids(documents, CATALOG, Query(each, NEWEST)) for each in where]
        assert [len(each) for each in found] == wanted
    committed(await documents.batch(CATALOG, key, [Delete("st")]))
    for each in where:
        assert await ids(documents, CATALOG, Query(each, NEWEST)) == []


async def test_flush_ends(documents: Documents, key: str) -> None:
    await put(documents, DICOM, key, {"id": "st"})
    await asyncio.gather(*(documents.flush() for _ in range(5)))
    assert await documents.read(DICOM, key, "st") is not None


async def test_documents_of_no_scope_are_found_too(
    documents: Documents, key: str
) -> None:
    row = {"id": "ev:1", "t": "ev", "w": next(_numbers) + 10**9, "pending": key}
    await put(documents, DICOM, key, row, {"id": "ev:2", "t": "ev", "k": "ev"})
    for where in (
        Equals(("pending",), key),
        And((Equals(("pk",), key), Range(("id",), high="ev:1"))),
        And((Exists(("pending",)), Equals(("pk",), key))),
        And((Range(("w",), low=10**9), Equals(("pending",), key))),
    ):
        assert await ids(documents, DICOM, Query(where)) == ["ev:1"]
