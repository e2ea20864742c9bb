"""The emulated account, asked without a network."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from azure.cosmos.partition_key import PartitionKey
from emulators.cosmos import authorization
from emulators.cosmos.errors import CosmosError
from emulators.cosmos.faults import Counters, Faults, Moment
from emulators.cosmos.gateway import Answer, Gateway, Request, operation_kind
from emulators.cosmos.index_policy import IndexPolicy
from emulators.cosmos.partitioning import effective_partition_key, evenly
from emulators.cosmos.patching import patched
from emulators.cosmos.resources import Resources
from emulators.cosmos.storage import Storage
from emulators.identity import ISSUER, token
from hypothesis import given
from hypothesis import strategies as st

POLICY = {
    "indexingMode": "consistent",
    "includedPaths": [
        {"path": "/k/?"}, {"path": "/sk/?"}, {"path": "/f/*"}, {"path": "/mods/[]/?"},
    ],
    "excludedPaths": [{"path": "/*"}, {"path": "/f/secret/?"}],
    "compositeIndexes": [
        [{"path": "/k", "order": "ascending"}, {"path": "/sk", "order": "descending"}]
    ],
}  # fmt: skip
COLLECTION = {
    "id": "c", "indexingPolicy": POLICY, "defaultTtl": -1,
    "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
}  # fmt: skip


class Account:
    """A gateway with a database `d` and a container `c`."""

    def __init__(self) -> None:
        self.storage = Storage(":memory:")
        self.resources = Resources(self.storage, 4)
        self.gateway = Gateway(self.storage, self.resources, "http://e/", "Session")
        self.send("POST", "dbs", {"id": "d"})
        self.send("POST", "dbs/d/colls", COLLECTION)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(
            method,
            [part for part in path.split("/") if part],
            {"x-ms-version": "2020-07-15"} | named,
            b"" if body is None else json.dumps(body).encode(),
        )
        return self.gateway.answer(request)

    def create(self, key: str, **document: Any) -> Answer:
        return self.send(
            "POST", "dbs/d/colls/c/docs", {"pk": key} | document, **of(key)
        )

    def batch(self, key: str, *operations: Any) -> Answer:
        return self.send(
            "POST",
            "dbs/d/colls/c/docs",
            operations,
            **of(key),
            x_ms_cosmos_is_batch_request="True",
            x_ms_cosmos_batch_atomic="True",
        )

    def query(self, text: str, parameters: Any = None, **headers: str) -> Answer:
        listed = [{"name": k, "value": v} for k, v in (parameters or {}).items()]
        return self.send(
            "POST",
            "dbs/d/colls/c/docs",
            {"query": text, "parameters": listed},
            x_ms_documentdb_isquery="true",
            content_type="application/query+json",
            **headers,
        )


def of(key: str) -> dict[str, str]:
    return {"x_ms_documentdb_partitionkey": json.dumps([key])}


def rows(answer: Answer) -> Any:
    return json.loads(answer.body)["Documents"]


@pytest.fixture
def account() -> Iterator[Account]:
    made = Account()
    yield made
    made.storage.close()


def refused(status: int, substatus: int = 0) -> Any:
    def check(error: CosmosError) -> bool:
        return (error.status, error.substatus) == (status, substatus)

    return pytest.raises(CosmosError, check=check)


# --- strictness -------------------------------------------------------------------


def test_an_unknown_header_is_refused(account: Account) -> None:
    with refused(400):
        account.send("GET", "dbs", x_ms_new_option="1")


def test_an_unknown_resource_is_refused(account: Account) -> None:
    with refused(405):
        account.send("POST", "dbs/d/colls/c/sprocs", {})
    with refused(404, 1003):
        account.send("GET", "dbs/d/colls/none")


@pytest.mark.parametrize(
    "change",
    [
        {"uniqueKeyPolicy": {}},
        {"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 1}},
        {"partitionKey": {"paths": ["/a/b"], "kind": "Hash", "version": 2}},
        {"defaultTtl": 0},
        {"indexingPolicy": POLICY | {"vectorIndexes": []}},
        {"indexingPolicy": POLICY | {"excludedPaths": []}},
        {"indexingPolicy": POLICY | {"includedPaths": [{"path": "/k"}]}},
    ],
    ids=str,
)
def test_container_settings_we_do_not_use_are_refused(
    account: Account, change: Any
) -> None:
    with refused(400):
        account.send("POST", "dbs/d/colls", COLLECTION | {"id": "other"} | change)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"id": ""},
        {"id": "a/b"},
        {"id": "a#"},
        {"id": "x" * 1024},
        {"id": "a", "ttl": 0},
    ],
    ids=lambda document: str(document)[:20],
)
def test_a_bad_document_is_refused(account: Account, document: Any) -> None:
    with refused(400):
        account.create("p", **document)


def test_a_document_of_another_partition_is_refused(account: Account) -> None:
    with refused(400, 1001):
        account.send("POST", "dbs/d/colls/c/docs", {"id": "a", "pk": "q"}, **of("p"))


def test_a_document_over_2_mb_is_refused(account: Account) -> None:
    with refused(413):
        account.create("p", id="a", text="x" * (2 * 1024 * 1024))


def test_a_large_integer_becomes_a_double(account: Account) -> None:
    answer = account.create("p", id="a", n=2**63 + 1)
    assert json.loads(answer.body)["n"] == float(2**63)


# --- batches and patches ----------------------------------------------------------


def test_a_batch_is_undone_whole_and_names_its_failure(account: Account) -> None:
    account.create("p", id="b")
    answer = account.batch(
        "p",
        {"operationType": "Create", "resourceBody": {"id": "a", "pk": "p"}},
        {"operationType": "Create", "resourceBody": {"id": "b", "pk": "p"}},
        {"operationType": "Delete", "id": "none"},
    )
    assert answer.status == 207
    assert [each["statusCode"] for each in json.loads(answer.body)] == [424, 409, 424]
    with refused(404):
        account.send("GET", "dbs/d/colls/c/docs/a", **of("p"))


def test_the_limits_of_a_batch(account: Account) -> None:
    upsert = {"operationType": "Upsert", "resourceBody": {"id": "a", "pk": "p"}}
    assert account.batch("p", *[upsert] * 100).status == 200
    with refused(400):
        account.batch("p", *[upsert] * 101)
    with refused(400):
        account.batch("p")
    large = {"operationType": "Upsert", "resourceBody": {"id": "a", "pk": "p", "t": "x" * 700_000}}  # fmt: skip
    with refused(413):
        account.batch("p", large, large, large)


def test_the_writes_of_a_batch_have_one_lsn(account: Account) -> None:
    account.create("p", id="z")
    operations = [
        {"operationType": "Create", "resourceBody": {"id": str(n), "pk": "p"}}
        for n in range(3)
    ]
    answer = account.batch("p", *operations)
    assert answer.headers["x-ms-session-token"].endswith("#2")


@pytest.mark.parametrize(
    ("operations", "wanted"),
    [
        ([{"op": "incr", "path": "/n", "value": 2}], {"n": 3}),
        ([{"op": "incr", "path": "/new", "value": 2}], {"n": 1, "new": 2}),
        ([{"op": "set", "path": "/o/x", "value": 1}], {"n": 1, "o": {"x": 1}}),
        ([{"op": "add", "path": "/l/-", "value": 9}], {"n": 1, "l": [1, 9]}),
        ([{"op": "add", "path": "/l/0", "value": 9}], {"n": 1, "l": [9, 1]}),
        ([{"op": "set", "path": "/l/0", "value": 9}], {"n": 1, "l": [9]}),
        ([{"op": "incr", "path": "/l/0", "value": 9}], {"n": 1, "l": [10]}),
        ([{"op": "remove", "path": "/l/0"}], {"n": 1, "l": []}),
        ([{"op": "replace", "path": "/n", "value": 7}], {"n": 7}),
        ([{"op": "set", "path": "/a~1b~0c", "value": 7}], {"n": 1, "a/b~c": 7}),
    ],
    ids=str,
)
def test_a_patch_changes_fields(operations: Any, wanted: Any) -> None:
    found = patched({"n": 1, "o": {}, "l": [1]}, operations)
    assert found == {"o": {}, "l": [1]} | wanted


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [{"op": "incr", "path": "/n", "value": 1}] * 11,
        [{"op": "move", "path": "/n", "from": "/m"}],
        [{"op": "incr", "path": "/t", "value": 1}],
        [{"op": "incr", "path": "/n", "value": "1"}],
        [{"op": "set", "path": "/none/x", "value": 1}],
        [{"op": "set", "path": "/t/x", "value": 1}],
        [{"op": "set", "path": "n", "value": 1}],
        [{"op": "set", "path": "/id", "value": 1}],
        [{"op": "set", "path": "/pk", "value": 1}],
        [{"op": "set", "path": "/n"}],
        [{"op": "remove", "path": "/none"}],
        [{"op": "replace", "path": "/none", "value": 1}],
        [{"op": "set", "path": "/l/5", "value": 1}],
    ],
    ids=str,
)
def test_a_patch_that_does_not_fit_is_refused(operations: Any) -> None:
    with refused(400):
        patched({"n": 1, "t": "x", "l": []}, operations)


def test_a_condition_guards_a_patch(account: Account) -> None:
    account.create("p", id="a", n=1)
    patch = {"operations": [{"op": "incr", "path": "/n", "value": 1}]}
    path = "dbs/d/colls/c/docs/a"
    account.send(
        "PATCH", path, patch | {"condition": "from c where c.n = 1"}, **of("p")
    )
    with refused(412):
        account.send(
            "PATCH", path, patch | {"condition": "from c where c.n = 1"}, **of("p")
        )
    with refused(412):
        account.send("PATCH", path, patch, if_match='"old"', **of("p"))


# --- queries ----------------------------------------------------------------------


def fill(account: Account, count: int = 12) -> None:
    for n in range(count):
        account.create(
            f"p{n}", id="st", k="st", sk=f"{n:03d}", f={"A": f"a{n % 3}", "secret": n},
            mods=["CT"], other=n,
        )  # fmt: skip


NEWEST = " ORDER BY c.k, c.sk DESC"


def per_range(account: Account, text: str, parameters: Any = None) -> list[Answer]:
    return [
        account.query(text, parameters, x_ms_documentdb_partitionkeyrangeid=str(n))
        for n in range(4)
    ]


def test_the_ranges_hold_every_document_once(account: Account) -> None:
    fill(account)
    found = per_range(account, "SELECT * FROM c")
    assert sorted(row["sk"] for answer in found for row in rows(answer)) == [
        f"{n:03d}" for n in range(12)
    ]


@pytest.mark.parametrize(
    ("where", "unindexed"),
    [
        ("c.k = 'st'", ()),
        ("c.f.A = 'a1'", ()),
        ("ARRAY_CONTAINS(c.mods, 'CT')", ()),
        ("c.id = 'st'", ()),
        ("c.other = 1", ("other",)),
        ("c.f.secret = 1", ("f/secret",)),
        ("c.pk = 'p1'", ("pk",)),
        ("c.k = 'st' AND (c.sk = '1' OR c.other < 5)", ("other",)),
        ("c.mods = 'CT'", ("mods",)),
    ],
)
def test_a_filter_no_index_serves_is_a_scan_across_partitions(
    account: Account, where: str, unindexed: tuple[str, ...]
) -> None:
    fill(account)
    text = f"SELECT * FROM c WHERE {where}"
    assert {answer.unindexed for answer in per_range(account, text)} == {unindexed}
    assert account.query(text, **of("p1")).unindexed == ()


@pytest.mark.parametrize(
    "order",
    [
        "c.other",
        "c.k, c.sk",
        "c.sk DESC, c.k",
        "c.k, c.sk DESC, c.id",
        "c.k DESC, c.sk DESC",
    ],
)
def test_an_order_no_index_serves_is_refused(account: Account, order: str) -> None:
    with refused(400):
        account.query(
            f"SELECT * FROM c ORDER BY {order}", x_ms_documentdb_partitionkeyrangeid="0"
        )
    with refused(400):
        account.query(f"SELECT * FROM c ORDER BY {order}", **of("p"))


def test_a_composite_index_is_read_both_ways(account: Account) -> None:
    fill(account)
    newest = [
        row["sk"]
        for row in rows(
            per_range(account, "SELECT * FROM c WHERE c.k='st'" + NEWEST)[0]
        )
    ]
    text = "SELECT * FROM c WHERE c.k = 'st' ORDER BY c.k DESC, c.sk"
    oldest = [row["sk"] for row in rows(per_range(account, text)[0])]
    assert newest == sorted(newest, reverse=True) == oldest[::-1]


def test_the_gateway_leaves_ordered_queries_to_the_client(account: Account) -> None:
    text = "SELECT TOP 5 * FROM c WHERE c.k = 'st'" + NEWEST
    with refused(400, 1004):
        account.query(text, x_ms_documentdb_query_enablecrosspartition="True")
    with refused(400):
        account.query("SELECT * FROM c")
    plan = json.loads(
        account.query(text, x_ms_cosmos_is_query_plan_request="True").body
    )["queryInfo"]
    assert plan["top"] == 5
    assert plan["orderBy"] == ["Ascending", "Descending"]
    assert plan["rewrittenQuery"] == (
        'SELECT TOP 5 c._rid, [{"item": c["k"]}, {"item": c["sk"]}] AS orderByItems,'
        " c AS payload FROM c WHERE (c.k = 'st') AND"
        " ({documentdb-formattableorderbyquery-filter}) ORDER BY c.k, c.sk DESC"
    )
    fill(account)
    found = rows(per_range(account, plan["rewrittenQuery"])[0])
    assert set(found[0]) == {"_rid", "orderByItems", "payload"}


def test_pages_join_and_a_token_is_of_its_query_only(account: Account) -> None:
    for n in range(7):
        account.create("p", id=f"i{n}", k="i", sk=str(n))
    text = "SELECT c.id FROM c WHERE c.k = @k ORDER BY c.sk DESC"
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = account.query(
            text, {"@k": "i"}, **of("p"), x_ms_max_item_count="3", **token
        )
        found += [row["id"] for row in rows(page)]
        if "x-ms-continuation" not in page.headers:
            break
        token = {"x_ms_continuation": page.headers["x-ms-continuation"]}
    assert found == [f"i{n}" for n in reversed(range(7))]
    with refused(400):
        account.query(text, {"@k": "other"}, **of("p"), **token)


def test_offset_and_limit_skip(account: Account) -> None:
    for n in range(7):
        account.create("p", id=f"i{n}")
    page = account.query(
        "SELECT * FROM c ORDER BY c.id OFFSET @o LIMIT @l",
        {"@o": 2, "@l": 3},
        **of("p"),
    )
    assert [row["id"] for row in rows(page)] == ["i2", "i3", "i4"]


def test_a_large_container_is_read_by_its_indexes(account: Account) -> None:
    for n in range(400):
        account.create(f"p{n}", id="st", k="st", sk=f"{n:04d}", f={"A": f"a{n}"})
    for where, most in (("c.f.A = 'a7'", 1), ("STARTSWITH(c.f.A, 'a39')", 11)):
        text = f"SELECT * FROM c WHERE c.k = 'st' AND {where}{NEWEST}"
        assert sum(answer.charge - 2.8 for answer in per_range(account, text)) < most


# --- change feed, sessions, time to live ------------------------------------------


def test_a_large_partition_has_what_only_an_unindexed_path_tells(
    account: Account,
) -> None:
    for each in range(301):
        account.create("p", id=f"{each:03}", k=each, other=each)
    for text, expected in (
        ("c.other <= 2", [0, 1, 2]),
        ("c.k >= 299 AND c.other <= 299", [299]),
        ("c.k >= 1 AND c.other >= 1 AND c.other <= 2", [1, 2]),
        ("ARRAY_CONTAINS(c.others, 1)", []),
    ):
        answer = account.query(f"SELECT * FROM c WHERE {text} ORDER BY c.k", **of("p"))
        assert [row["k"] for row in rows(answer)] == expected


def test_no_number_of_wildcards_takes_long(account: Account) -> None:
    account.create("p", id="1", k="a" * 5_000)
    for pattern, expected in (("%a" * 200 + "b", 0), ("%" * 200 + "_a", 1)):
        text = "SELECT * FROM c WHERE c.k LIKE @p"
        answer = account.query(text, {"@p": pattern}, **of("p"))
        assert len(rows(answer)) == expected


def feed(account: Account, range_id: str, after: str = "") -> Answer:
    more = {"if_none_match": after} if after else {}
    return account.send(
        "GET",
        "dbs/d/colls/c/docs",
        x_ms_documentdb_partitionkeyrangeid=range_id,
        a_im="Incremental Feed",
        **more,
    )


def test_the_change_feed_has_the_latest_versions_in_order(account: Account) -> None:
    account.create("p", id="a")
    account.create("p", id="b")
    path = "dbs/d/colls/c/docs/a"
    account.send("PUT", path, {"id": "a", "pk": "p", "n": 2}, **of("p"))
    home = next(
        each.id for each in evenly(4) if each.holds(effective_partition_key("p"))
    )
    answer = feed(account, home)
    assert [(row["id"], row["_lsn"]) for row in rows(answer)] == [("b", 2), ("a", 3)]
    assert feed(account, home, answer.headers["etag"]).status == 304
    account.send("DELETE", "dbs/d/colls/c/docs/b", **of("p"))
    assert feed(account, home, answer.headers["etag"]).status == 304


def test_a_session_that_knows_more_is_told_so(account: Account) -> None:
    answer = account.create("p", id="a")
    home, _, _ = answer.headers["x-ms-session-token"].partition(":")
    path = "dbs/d/colls/c/docs/a"
    account.send("GET", path, **of("p"), x_ms_session_token=f"{home}:-1#1")
    with refused(404, 1002):
        account.send("GET", path, **of("p"), x_ms_session_token=f"{home}:-1#2")


def test_documents_end_at_their_time(account: Account) -> None:
    account.create("p", id="a", ttl=10, k="st", sk="1")
    account.gateway.clock_offset_seconds = 11
    assert rows(account.query("SELECT * FROM c", **of("p"))) == []
    with refused(404):
        account.send("GET", "dbs/d/colls/c/docs/a", **of("p"))
    assert account.create("p", id="a").status == 201


def test_a_split_keeps_documents_and_tells_stale_clients(account: Account) -> None:
    fill(account)
    container = account.resources.container("d", "c")
    before = rows(per_range(account, "SELECT * FROM c")[1])
    account.resources.split(container, "1")
    with refused(410, 1002):
        account.query("SELECT * FROM c", x_ms_documentdb_partitionkeyrangeid="1")
    after = [
        row
        for n in ("4", "5")
        for row in rows(
            account.query("SELECT * FROM c", x_ms_documentdb_partitionkeyrangeid=n)
        )
    ]
    assert sorted(row["sk"] for row in after) == sorted(row["sk"] for row in before)
    ranges = json.loads(account.send("GET", "dbs/d/colls/c/pkranges").body)
    found = {each["id"]: each["parents"] for each in ranges["PartitionKeyRanges"]}
    assert found == {"0": [], "4": ["1"], "5": ["1"], "2": [], "3": []}


def test_a_new_policy_indexes_what_is_there(account: Account) -> None:
    fill(account)
    policy = POLICY | {"includedPaths": [{"path": "/other/?"}], "compositeIndexes": []}
    account.send("PUT", "dbs/d/colls/c", COLLECTION | {"indexingPolicy": policy})
    found = per_range(account, "SELECT * FROM c WHERE c.other = 3")
    assert [row["sk"] for answer in found for row in rows(answer)] == ["003"]
    assert {answer.unindexed for answer in found} == {()}


# --- the rest ---------------------------------------------------------------------


@given(st.text(min_size=1, max_size=60))
def test_effective_partition_keys_are_the_sdks(key: str) -> None:
    definition = PartitionKey("/pk")
    assert effective_partition_key(key) == (
        definition._get_effective_partition_key_string([key])
    )


def test_the_more_precise_path_of_a_policy_wins() -> None:
    policy = IndexPolicy.parse(POLICY)
    assert policy.indexes(("f", "A"))
    assert not policy.indexes(("f", "secret"))
    assert not policy.indexes(("k", "deeper"))
    assert policy.indexes(("id",))


KEY = base64.b64encode(b"secret").decode()


def signed(verb: str, kind: str, link: str, date: str) -> dict[str, str]:
    text = f"{verb}\n{kind}\n{link}\n{date.lower()}\n\n"
    digest = hmac.new(b"secret", text.encode(), sha256).digest()
    token = f"type=master&ver=1.0&sig={base64.b64encode(digest).decode()}"
    return {"x-ms-date": date, "authorization": quote(token, safe="")}


def test_only_the_keys_signature_of_now_is_accepted() -> None:
    key = base64.b64decode(KEY)
    segments = ["dbs", "d", "colls", "c", "docs", "A"]
    now = formatdate(usegmt=True)
    good = signed("get", "docs", "dbs/d/colls/c/docs/A", now)
    authorization.verify(key, "GET", segments, good)
    with refused(401):
        authorization.verify(key, "PUT", segments, good)
    with refused(401):
        authorization.verify(key, "GET", [*segments[:-1], "B"], good)
    with refused(401):
        authorization.verify(key, "GET", segments, {})
    old = formatdate(0, usegmt=True)
    with refused(403):
        authorization.verify(key, "GET", segments, signed("get", "docs", "x", old))


def with_token(audience: str, *, lasts: float = 60, issuer: str = ISSUER) -> Any:
    text = token(audience, expires=time.time() + lasts, issuer=issuer)
    return {"authorization": quote(f"type=aad&ver=1.0&sig={text}", safe="")}


def test_a_token_of_the_account_gives_data_but_makes_no_container() -> None:
    good = with_token("https://127.0.0.1")
    document = ["dbs", "d", "colls", "c", "docs"]
    authorization.verify(None, "POST", document, good)
    authorization.verify(None, "GET", ["dbs", "d", "colls", "c"], good)
    authorization.verify(None, "GET", [], with_token("https://cosmos.azure.com"))
    with refused(403):
        authorization.verify(None, "POST", ["dbs", "d", "colls"], good)
    for bad in (
        with_token("https://storage.azure.com"),
        with_token("https://127.0.0.1", lasts=-1),
        with_token("https://127.0.0.1", issuer="https://example.org/"),
        {"authorization": "type=aad&ver=1.0&sig=x"},
    ):
        with refused(401):
            authorization.verify(None, "GET", document, bad)
    key_signed = signed("get", "docs", "dbs/d/colls/c", formatdate(usegmt=True))
    with refused(401):
        authorization.verify(None, "GET", document, key_signed)


def test_a_fault_strikes_as_often_as_it_is_told() -> None:
    faults = Faults()
    faults.add(
        {"fault": "429", "kind": "batch", "skip": 1, "count": 2, "container": "c"}
    )
    struck = [faults.strike("batch", "c") is not None for _ in range(5)]
    assert struck == [False, True, True, False, False]
    faults.add({"fault": "cut-after", "rate": 0.5, "seed": 7})
    share = sum(faults.strike("read", "x") is not None for _ in range(1000))
    assert 400 < share < 600
    with refused(400):
        faults.add({"fault": "none"})
    with refused(400):
        faults.add({"fault": "429", "unknown": 1})


def test_counters_add_up() -> None:
    counters = Counters()
    counters.requests["read"] += 1
    counters.charge("read", 1.0)
    counters.charge("read", 0.25)
    counters.struck[Moment.THROTTLE.value] += 1
    assert counters.as_json() == {
        "requests": {"read": 1}, "charges_modelled": {"read": 1.25}, "scans": [],
        "faults": {"429": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "headers", "kind"),
    [
        ("GET", "", {}, "account"),
        ("GET", "dbs/d", {}, "dbs-get"),
        ("GET", "dbs/d/colls/c/pkranges", {}, "pkranges-get"),
        ("PUT", "offers/x", {}, "offers-put"),
        ("DELETE", "dbs/d/colls/c/docs/a", {}, "delete"),
        ("GET", "dbs/d/colls/c/docs", {}, "change-feed"),
        ("POST", "dbs/d/colls/c/docs", {"x-ms-documentdb-is-upsert": "True"}, "upsert"),
    ],
)
def test_requests_are_counted_by_kind(
    method: str, path: str, headers: dict[str, str], kind: str
) -> None:
    segments = [part for part in path.split("/") if part]
    assert operation_kind(Request(method, segments, headers, b"")) == kind
