"""Requests to answers: which resource, which operation, which rules.

Paths and headers: REST reference (rest/api/cosmos-db/) and what azure-cosmos 4.17.1
sends, captured by running it. A header or query string that is not listed here is an
error, so that no option passes unnoticed.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from emulators.cosmos import documents, queries
from emulators.cosmos.errors import CosmosError, bad_request
from emulators.cosmos.partitioning import effective_partition_key
from emulators.cosmos.planner import Scope
from emulators.cosmos.resources import Container, Resources
from emulators.cosmos.sql_filter import compile_filter
from emulators.cosmos.sql_parser import parse
from emulators.cosmos.storage import Storage

_KNOWN_HEADERS = frozenset(
    """
    accept accept-encoding authorization cache-control connection content-length
    content-type host user-agent if-match if-none-match a-im x-ms-activity-id
    x-ms-client-id x-ms-client-request-id x-ms-consistency-level x-ms-continuation
    x-ms-cosmos-batch-atomic x-ms-cosmos-batch-continue-on-error
    x-ms-cosmos-correlated-activityid x-ms-cosmos-intended-collection-rid
    x-ms-cosmos-is-batch-request x-ms-cosmos-is-query-plan-request
    x-ms-cosmos-offer-autopilot-settings x-ms-cosmos-query-version
    x-ms-cosmos-sdk-supportedcapabilities x-ms-cosmos-supported-query-features
    x-ms-date x-ms-documentdb-isquery x-ms-documentdb-is-upsert
    x-ms-documentdb-partitionkey x-ms-documentdb-partitionkeyrangeid
    x-ms-documentdb-query-enablecrosspartition
    x-ms-documentdb-query-iscontinuationexpected x-ms-end-epk x-ms-max-item-count
    x-ms-offer-throughput x-ms-read-key-type x-ms-session-token x-ms-start-epk
    x-ms-thinclient-proxy-operation-type x-ms-thinclient-proxy-resource-type
    x-ms-version x-ms-cosmos-changefeed-wire-format-version prefer
    """.split()  # noqa: SIM905 - sixty names read better so
)
_VERSION = "2020-07-15"
_QUERY_JSON = "application/query+json"


@dataclass(slots=True)
class Request:
    """An HTTP request taken apart.

    Attributes:
        segments: Parts of the path, unquoted.
        headers: Names in lower case.
    """

    method: str
    segments: list[str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; a 400 when it is not."""
        try:
            return orjson.loads(self.body)
        except ValueError as error:
            raise bad_request("The request body is not JSON.") from error

    def flag(self, name: str) -> bool:
        """Whether a header says true."""
        return self.headers.get(name, "").lower() == "true"


@dataclass(slots=True)
class Answer:
    """What is sent back.

    Attributes:
        charge: Modelled request units.
        unindexed: Paths for which a query had to scan.
    """

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    charge: float = 0.0
    unindexed: tuple[str, ...] = ()


def operation_kind(request: Request) -> str:
    """What is counted: `read`, `batch`, `query-partition`, `query-range`, …"""
    segments, headers = request.segments, request.headers
    if not segments:
        return "account"
    kind = segments[-1] if len(segments) % 2 else segments[-2]
    if kind != "docs":
        return f"{kind}-{request.method.lower()}"
    if request.method == "POST":
        if request.flag("x-ms-cosmos-is-batch-request"):
            return "batch"
        if request.flag("x-ms-cosmos-is-query-plan-request"):
            return "query-plan"
        if request.flag("x-ms-documentdb-isquery"):
            if "x-ms-documentdb-partitionkey" in headers:
                return "query-partition"
            ranged = "x-ms-documentdb-partitionkeyrangeid" in headers
            return "query-range" if ranged else "query-all"
        return "upsert" if request.flag("x-ms-documentdb-is-upsert") else "create"
    if request.method == "GET" and len(segments) % 2:
        return "change-feed"
    return {"GET": "read", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}[
        request.method
    ]


class Gateway:
    """The emulated account."""

    def __init__(
        self, storage: Storage, resources: Resources, endpoint: str, consistency: str
    ) -> None:
        self._storage = storage
        self._resources = resources
        self._endpoint = endpoint
        self._consistency = consistency
        self.clock_offset_seconds = 0

    def now(self) -> int:
        """Unix time in seconds, moved by what a test asked for."""
        return int(time.time()) + self.clock_offset_seconds

    def answer(self, request: Request) -> Answer:
        """The answer; CosmosError for everything that is refused."""
        _check_headers(request.headers)
        match request.method, request.segments:
            case "GET", []:
                return _json(200, self._account())
            case _, ["dbs", *rest] if len(rest) <= 1:
                return self._database(request, rest)
            case _, ["dbs", database, "colls", *rest] if len(rest) <= 1:
                return self._collection(request, database, rest)
            case "GET", ["dbs", database, "colls", name, "pkranges"]:
                return self._ranges(request, self._resources.container(database, name))
            case _, ["dbs", database, "colls", name, "docs", *rest] if len(rest) <= 1:
                container = self._resources.container(database, name)
                _check_rid(request, container)
                return self._documents(request, container, rest)
            case _, ["offers", *rest]:
                return self._offers(request, rest)
        raise CosmosError(405, f"{request.method} {request.segments} is not emulated.")

    # --- account, databases, containers, offers

    def _account(self) -> dict[str, Any]:
        location = [{"name": "Emulated", "databaseAccountEndpoint": self._endpoint}]
        return {
            "id": "emulated", "_rid": "emulated", "_self": "", "_dbs": "//dbs/",
            "media": "//media/", "addresses": "//addresses/",
            "writableLocations": location, "readableLocations": location,
            "enableMultipleWriteLocations": False,
            "userConsistencyPolicy": {"defaultConsistencyLevel": self._consistency},
            "userReplicationPolicy": {"maxReplicasetSize": 4, "minReplicaSetSize": 3},
            "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
            "queryEngineConfiguration": "{}",
        }  # fmt: skip

    def _database(self, request: Request, rest: list[str]) -> Answer:
        match request.method, rest:
            case "GET", []:
                return _feed("Databases", self._resources.databases())
            case "POST", []:
                with self._storage.transaction():
                    made = self._resources.create_database(
                        request.json(), request.headers
                    )
                return _json(201, made)
            case "GET", [id]:
                return _json(200, self._resources.database(id))
            case "DELETE", [id]:
                with self._storage.transaction():
                    self._resources.drop_database(id)
                return Answer(204)
        raise CosmosError(405, f"{request.method} on databases is not emulated.")

    def _collection(self, request: Request, database: str, rest: list[str]) -> Answer:
        match request.method, rest:
            case "GET", []:
                return _feed(
                    "DocumentCollections", self._resources.containers(database)
                )
            case "POST", []:
                with self._storage.transaction():
                    made = self._resources.create_container(
                        database, request.json(), request.headers
                    )
                return _json(201, made)
            case "GET", [id]:
                return _json(200, self._resources.container(database, id).body)
            case "PUT", [id]:
                with self._storage.transaction():
                    made = self._resources.replace_container(
                        database, id, request.json()
                    )
                return _json(200, made)
            case "DELETE", [id]:
                with self._storage.transaction():
                    self._resources.drop_container(database, id)
                return Answer(204)
        raise CosmosError(405, f"{request.method} on containers is not emulated.")

    def _offers(self, request: Request, rest: list[str]) -> Answer:
        if request.method == "POST" and not rest:
            text, parameters = queries.read_query(request.json())
            test = compile_filter(parse(text).where, parameters)
            found = [offer for offer in self._resources.offers() if test(offer)]
            return _feed("Offers", found)
        if request.method == "PUT" and rest:
            with self._storage.transaction():
                made = self._resources.replace_offer(rest[0], request.json())
            return _json(200, made)
        raise CosmosError(405, f"{request.method} on offers is not emulated.")

    def _ranges(self, request: Request, container: Container) -> Answer:
        """Physical partitions; 304 when the client's list is the current one.

        Source: azure-cosmos 4.17.1, _routing/aio/routing_map_provider.py: it asks on
        with If-None-Match until it is answered 304.
        """
        etag = f'"{"-".join(each.id for each in container.partitions)}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(304, headers={"etag": etag})
        ranges = [
            {
                "id": each.id, "minInclusive": each.low, "maxExclusive": each.high,
                "_rid": container.rid, "_self": "", "_etag": etag, "_ts": self.now(),
                "ridPrefix": int(each.id), "status": "online",
                "throughputFraction": 1 / len(container.partitions),
                "parents": list(each.parents),
            }
            for each in container.partitions
        ]  # fmt: skip
        answer = _feed("PartitionKeyRanges", ranges)
        answer.headers["etag"] = etag
        return answer

    # --- documents

    def _documents(
        self, request: Request, container: Container, rest: list[str]
    ) -> Answer:
        kind = operation_kind(request)
        if kind.startswith("query"):
            return self._query(request, container, kind)
        if kind == "change-feed":
            return self._changes(request, container)
        key = _partition_key(request)
        if kind == "read":
            writer = documents.Writer(self._storage, container, key, self.now())
            _check_session(request, self._storage, container, key)
            return self._done(container, writer.read(rest[0]))
        with self._storage.transaction():
            self._purge()
        try:
            with self._storage.transaction():
                writer = documents.Writer(self._storage, container, key, self.now())
                if kind == "batch":
                    return self._batch(request, container, writer)
                return self._done(container, _write(request, kind, rest, writer))
        except documents.BatchRefused as refused:
            self._storage.forget_names()
            return Answer(
                207, documents.compact(refused.results), charge=refused.charge
            )
        except CosmosError:
            self._storage.forget_names()
            raise

    def _purge(self) -> None:
        """Removes documents whose time to live is over, as the service does later."""
        containers = {
            body["_rid"]: self._resources.container(database["id"], body["id"])
            for database in self._resources.databases()
            for body in self._resources.containers(database["id"])
        } if (expired := self._storage.expired(self.now())) else {}  # fmt: skip
        for rid, row in expired:
            entries = list(containers[rid].policy.entries(row.document))
            self._storage.unindex(rid, row.range, row.n, entries)
            self._storage.delete(row.n)

    def _batch(
        self, request: Request, container: Container, writer: documents.Writer
    ) -> Answer:
        if not request.flag("x-ms-cosmos-batch-atomic"):
            raise bad_request("Only atomic batches are emulated.")
        operations = request.json()
        documents.check_batch(operations, len(request.body))
        done = documents.run_batch(writer, operations)
        answer = Answer(done.status, documents.compact(done.results))
        answer.charge = done.charge
        answer.headers = self._session(container, done.range, done.lsn)
        return answer

    def _done(self, container: Container, done: documents.Done) -> Answer:
        answer = Answer(done.status, done.body or "", charge=done.charge)
        answer.headers = self._session(container, done.range, done.lsn)
        if done.etag is not None:
            answer.headers["etag"] = done.etag
        return answer

    def _session(self, container: Container, range: str, lsn: int) -> dict[str, str]:
        """Headers of the session (docs: consistency-levels.md, "Session").

        Source: azure-cosmos 4.17.1, _session.py (`{range}:{version}#{lsn}`).
        """
        return {
            "x-ms-session-token": f"{range}:-1#{lsn}",
            "x-ms-alt-content-path": container.link,
            "x-ms-documentdb-partitionkeyrangeid": range,
            "lsn": str(lsn),
        }

    # --- queries and the change feed

    def _query(self, request: Request, container: Container, kind: str) -> Answer:
        text, parameters = queries.read_query(request.json())
        if kind == "query-plan":
            return _json(200, queries.query_plan(text, container))
        if request.headers.get("content-type") != _QUERY_JSON:
            raise bad_request("A query is sent as application/query+json.")
        if kind == "query-all":
            if not request.flag("x-ms-documentdb-query-enablecrosspartition"):
                raise bad_request("Cross partition query is required but disabled.")
            queries.refuse_cross_partition(parse(text))
        scope, epk = self._scope(request, container)
        page = queries.run_query(
            self._storage,
            container,
            queries.QueryRequest(
                text, parameters, scope, epk,
                int(request.headers.get("x-ms-max-item-count", "-1")),
                request.headers.get("x-ms-continuation"),
            ),
            self.now(),
        )  # fmt: skip
        body = {
            "_rid": container.rid, "Documents": page.rows, "_count": len(page.rows)
        }  # fmt: skip
        answer = Answer(200, documents.compact(body), charge=page.charge)
        answer.unindexed = page.unindexed
        first = scope.ranges[0]
        lsn = self._storage.lsn(container.rid, first)
        answer.headers = self._session(container, first, lsn)
        answer.headers["x-ms-item-count"] = str(len(page.rows))
        if page.continuation is not None:
            answer.headers["x-ms-continuation"] = page.continuation
        return answer

    def _scope(
        self, request: Request, container: Container
    ) -> tuple[Scope, tuple[str, str] | None]:
        """Which documents a query covers, and the slice of effective keys."""
        headers = request.headers
        if "x-ms-documentdb-partitionkey" in headers:
            key = _partition_key(request)
            _check_session(request, self._storage, container, key)
            home = container.partition_of(effective_partition_key(key))
            return Scope((home.id,), key), None
        epk = None
        if "x-ms-start-epk" in headers:
            epk = (headers["x-ms-start-epk"], headers["x-ms-end-epk"])
        if "x-ms-documentdb-partitionkeyrangeid" in headers:
            asked = headers["x-ms-documentdb-partitionkeyrangeid"]
            return Scope((container.partition(asked).id,)), epk
        return Scope(tuple(each.id for each in container.partitions)), epk

    def _changes(self, request: Request, container: Container) -> Answer:
        """The latest-version change feed of one physical partition.

        Docs: nosql/change-feed-modes.md, rest/api/cosmos-db/list-documents (A-IM,
        If-None-Match, 304): deletes are absent, order is that of the last write.
        """
        headers = request.headers
        if headers.get("a-im") != "Incremental Feed":
            raise bad_request("Reading all documents by GET is not emulated.")
        scope, epk = self._scope(request, container)
        if len(scope.ranges) != 1:
            raise bad_request("The change feed is read range by range.")
        after = _lsn(headers.get("if-none-match"))
        most = int(headers.get("x-ms-max-item-count", "100"))
        rows = self._storage.changes(
            container.rid, scope.ranges[0], after, scope.partition_key, most + 100
        )
        while len(rows) > most and rows[-1].lsn != rows[most - 1].lsn:
            rows.pop()
        last = rows[-1].lsn if rows else after
        session = self._session(container, scope.ranges[0], last)
        session["etag"] = f'"{last}"'
        if not rows:
            return Answer(304, headers=session)
        found = [
            {**row.document, "_lsn": row.lsn}
            for row in rows
            if epk is None or epk[0] <= row.epk < epk[1]
        ]
        answer = _feed("Documents", found)
        answer.headers |= session
        return answer


# --- parts of requests and answers ------------------------------------------------


def _write(
    request: Request, kind: str, rest: list[str], writer: documents.Writer
) -> documents.Done:
    if_match = request.headers.get("if-match")
    match kind, rest:
        case "create", []:
            return writer.create(request.json())
        case "upsert", []:
            return writer.upsert(request.json(), if_match)
        case "replace", [id]:
            return writer.replace(id, request.json(), if_match)
        case "patch", [id]:
            return writer.patch(id, request.json(), if_match)
        case "delete", [id]:
            return writer.delete(id, if_match)
    raise CosmosError(405, f"{request.method} on documents is not emulated.")


def _check_headers(headers: Mapping[str, str]) -> None:
    unknown = [name for name in headers if name not in _KNOWN_HEADERS]
    if unknown:
        raise bad_request(f"Headers that the emulator does not know: {unknown}.")
    if headers.get("x-ms-version") != _VERSION:
        raise bad_request(f"The emulator speaks x-ms-version {_VERSION} only.")


def _check_rid(request: Request, container: Container) -> None:
    """400/1024 when the client knows another container of that name.

    Source: azure-cosmos 4.17.1, _container_recreate_retry_policy.py.
    """
    intended = request.headers.get("x-ms-cosmos-intended-collection-rid")
    if intended not in {None, container.rid}:
        raise bad_request("The container was made anew.", substatus=1024)


def _partition_key(request: Request) -> str:
    text = request.headers.get("x-ms-documentdb-partitionkey")
    if text is None:
        raise bad_request("PartitionKey value must be supplied for this operation.")
    key = json.loads(text)
    if not isinstance(key, list) or len(key) != 1 or not isinstance(key[0], str):
        raise bad_request("Only one text as partition key is emulated.")
    value: str = key[0]
    if len(value.encode()) > 2048:
        raise bad_request("The partition key is longer than 2 KB.")
    return value


def _check_session(
    request: Request, storage: Storage, container: Container, key: str
) -> None:
    """404/1002 when the session has seen a later write than this replica."""
    home = container.partition_of(effective_partition_key(key)).id
    for part in filter(None, request.headers.get("x-ms-session-token", "").split(",")):
        range, _, token = part.partition(":")
        if range == home and _lsn(token.split("#")[1]) > storage.lsn(
            container.rid, home
        ):
            raise CosmosError(404, "The read session is not available.", substatus=1002)


def _lsn(text: str | None) -> int:
    return int(text.strip('"')) if text else 0


def _json(status: int, body: Mapping[str, Any]) -> Answer:
    answer = Answer(status, documents.compact(body), charge=1.0)
    if "_etag" in body:
        answer.headers["etag"] = body["_etag"]
    return answer


def _feed(name: str, rows: list[dict[str, Any]]) -> Answer:
    body = {"_rid": "", name: rows, "_count": len(rows)}
    answer = Answer(200, documents.compact(body), charge=1.0)
    answer.headers["x-ms-item-count"] = str(len(rows))
    return answer
