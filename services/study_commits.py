"""Commits to studies: atomic, one after another per study, merged while they wait.

Every commit creates `ev:{rev}` and replaces `st` under its etag, so commits of one
study are serial whoever makes them. Stores that wait for the same study share one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

import orjson

from dicomweb import attributes
from dicomweb.errors import StoreUnavailable
from dicomweb.identifiers import Partition
from dicomweb.instance import ReadInstance
from dicomweb.query_tags import Level, QueryTag
from services import documents as doc
from services.merging import Merger
from services.publishing import Commit, Publisher
from services.watermarks import MAX_AGE
from stores import containers
from stores.ports import (
    Committed,
    Create,
    Document,
    Documents,
    In,
    Operation,
    Order,
    Query,
    Rejected,
    Replace,
    Upsert,
)

MAX_OPERATIONS = 100
MAX_JSON_BYTES = 1_500_000
_TRIES = 100
_CACHED_STUDIES = 1000

HEADER_FIELDS = ("t", "state", "rev")


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance whose blobs are durable and that waits to be committed.

    Attributes:
        document: Its `i` document.
        json_bytes: Size of the document as Cosmos DB counts it.
        reserved: When its watermark was drawn.
        tags_version: Of the query tags it was indexed with.
    """

    partition: Partition
    read: ReadInstance
    document: Document
    json_bytes: int
    reserved: datetime
    query_tags: tuple[QueryTag, ...] = ()
    tags_version: int = 0


class StoreResult(Enum):
    """What became of a NewInstance."""

    COMMITTED = "committed"
    EXISTS = "exists"


@dataclass(slots=True)
class StudyState:
    """What is known of a study: `st`, some `se`, and which instances exist.

    Attributes:
        series: By id.
        existing: Ids of instances that were asked for and are there.
        asked: Ids of series that were asked for, there or not.
    """

    study: Document | None = None
    series: dict[str, Document] = field(default_factory=dict)
    existing: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    @property
    def live(self) -> bool:
        """Whether the study can be read and written."""
        return self.study is not None and self.study["state"] == doc.LIVE


class StudyCommits:
    """Writes to `dicom`, merged per study."""

    def __init__(
        self,
        documents: Documents,
        publisher: Publisher,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._documents = documents
        self._publisher = publisher
        self._now = now
        self._new_id = new_id
        self._mergers: dict[str, Merger[NewInstance, StoreResult]] = {}
        self._states: OrderedDict[str, StudyState] = OrderedDict()

    async def load(
        self, pk: str, series_ids: Iterable[str], instance_ids: Iterable[str]
    ) -> StudyState:
        """State of the study in one request; remembered for the next commit."""
        series = tuple(series_ids)
        ids = (doc.STUDY, *series, *instance_ids)
        query = Query(
            In(("id",), tuple(dict.fromkeys(ids))),
            order=(Order(("id",), descending=True),),
            fields=_STATE_FIELDS,
        )
        state = StudyState(asked=set(series))
        after = None
        while True:
            page = await self._documents.query(
                containers.DICOM, query, partition_key=pk, limit=200, after=after
            )
            for document in page.documents:
                _sort_in(state, document)
            if page.after is None:
                break
            after = page.after
        self._remember(pk, state)
        return state

    def _remember(self, pk: str, state: StudyState) -> None:
        known = self._states.get(pk)
        if known and _etag(known) == _etag(state) is not None:
            state.series = known.series | state.series
            state.asked |= known.asked
        self._states[pk] = state
        self._states.move_to_end(pk)
        if len(self._states) > _CACHED_STUDIES:
            self._states.popitem(last=False)

    async def store(self, pk: str, new: NewInstance) -> StoreResult:
        """Commits the instance, together with others that wait for the same study.

        Raises:
            StoreUnavailable: The outcome is unknown, or nothing was written.
        """
        merger = self._mergers.get(pk)
        if merger is None:
            merger = Merger(
                lambda items: self._store_instances(pk, items), take=_fitting
            )
            self._mergers[pk] = merger
        try:
            return await merger.submit(new)
        finally:
            if merger.idle:
                self._mergers.pop(pk, None)

    async def _store_instances(
        self, pk: str, items: Sequence[NewInstance]
    ) -> list[StoreResult | Exception]:
        results: dict[int, StoreResult | Exception] = {}
        for _ in range(_TRIES):
            state = self._states.pop(pk, None)
            waiting = [i for i in range(len(items)) if i not in results]
            if state is None or not _covers(state, items, waiting):
                state = await self.load(pk, *_ids(items, waiting))
                self._states.pop(pk, None)
            self._refuse(items, waiting, state, results)
            waiting = [i for i in waiting if i not in results]
            if not waiting:
                break
            if state.study is not None and state.study["state"] == doc.DELETING:
                await self._publisher.finish_delete(pk)
                continue
            if await self._commit(pk, state, [items[i] for i in waiting]):
                results |= dict.fromkeys(waiting, StoreResult.COMMITTED)
                break
        else:
            raise StoreUnavailable("Too many writers of one study. Please retry.")
        return [results[i] for i in range(len(items))]

    def _refuse(
        self,
        items: Sequence[NewInstance],
        waiting: Sequence[int],
        state: StudyState,
        results: dict[int, StoreResult | Exception],
    ) -> None:
        """Settles those that exist, doubles within the call, and those too old."""
        seen: set[str] = set()
        oldest = self._now() - MAX_AGE
        for i in waiting:
            id = items[i].document["id"]
            if id in state.existing or id in seen:
                results[i] = StoreResult.EXISTS
            elif items[i].reserved < oldest:
                results[i] = StoreUnavailable("The upload took too long.")
            seen.add(id)

    async def _commit(
        self, pk: str, state: StudyState, items: Sequence[NewInstance]
    ) -> bool:
        """Whether the commit went through; the state is remembered then."""
        after = _with_instances(state, items, self._now())
        event = self.event(
            after,
            doc.CREATE_ACTION,
            [
                [new.document["u"][1], new.document["u"][2], new.document["w"]]
                for new in items
            ],
            tags_version=min(new.tags_version for new in items),
            counts=(
                0 if state.live else 1,
                len(items),
                sum(first_bytes(new.document) for new in items),
            ),
        )
        changed = {doc.series_id(new.read.series_instance_uid) for new in items}
        operations = [
            *guards(event, state.study, after.study),
            *(Upsert(after.series[id]) for id in sorted(changed)),
            *(Create(new.document) for new in items),
        ]
        return await self.apply(pk, state, after, event, operations, changed)

    async def apply(
        self,
        pk: str,
        before: StudyState,
        after: StudyState,
        event: Document,
        operations: Sequence[Operation],
        changed_series: Iterable[str],
        removed_series: Iterable[str] = (),
    ) -> bool:
        """Commits and starts publishing; False when another commit came first.

        Args:
            pk: Logical partition of the study.
            before: What the operations were computed from.
            after: What they leave behind; its `st` gets the new etag.
            event: The `ev` document, first of the operations.
            operations: `guards(…)` first.
            changed_series: Ids of series documents to publish.
            removed_series: Ids of series documents that are no more.
        """
        result = await self._documents.batch(containers.DICOM, pk, operations)
        if isinstance(result, Rejected):
            return False
        assert isinstance(result, Committed)
        assert after.study is not None
        if result.etags[1] is not None:  # else another commit has followed already
            after.study["_etag"] = result.etags[1]
            self._remember(pk, after)
        self._publisher.publish(
            Commit(
                pk=pk,
                event=event,
                previous_revision=before.study["rev"] if before.study else None,
                study=after.study,
                series=tuple(after.series[id] for id in changed_series),
                removed_series=tuple(removed_series),
            )
        )
        return True

    def event(
        self,
        after: StudyState,
        action: str,
        entries: list[list[object]],
        *,
        tags_version: int = 0,
        counts: tuple[int, int, int] = (0, 0, 0),
    ) -> Document:
        """The event document of a commit that leaves `after` behind.

        Args:
            after: The study afterwards.
            action: For the change feed.
            entries: Series, instance and watermark of each changed instance.
            tags_version: Of the query tags that the entries were indexed with.
            counts: How many studies, instances and bytes the archive has more; bytes
                as first stored, whatever updates made of them.
        """
        assert after.study is not None
        token = self._new_id()
        now = self._now()
        return {
            "id": doc.event_id(after.study["rev"]),
            "t": "ev",
            "rev": after.study["rev"],
            "token": token,
            "action": action,
            "p": after.study["p"],
            "uid": after.study["uid"],
            "entries": entries,
            "n": counts,
            "at": now.isoformat(),
            "tv": tags_version,
            "pending": f"{int(now.timestamp() * 1000):015d}|{token}",
        }


_STATE_FIELDS = (
    *HEADER_FIELDS,
    *("uid", "p", "sk", "w", "nw", "nid", "ni", "ns", "mods", "a", "n"),
    *("x", "xw", "words", "flipped", "updated", "job", "withdrawn", "_etag"),
)


def json_bytes(document: Document) -> int:
    """About the size of an instance's document as Cosmos DB counts it."""
    plain = {key: value for key, value in document.items() if key != "z"}
    return len(orjson.dumps(plain)) + len(document.get("z", b"")) * 4 // 3


def first_bytes(instance: Document) -> int:
    """Size of the file as first stored."""
    return int(instance.get("first", instance)["len"])


def guards(
    event: Document, before: Document | None, after: Document | None
) -> list[Operation]:
    """First two operations of every commit: the event, and `st` under its etag."""
    assert after is not None
    if before is None:
        return [Create(event), Create(after)]
    return [Create(event), Replace(after, if_etag=before["_etag"])]


def next_revision(study: Document | None, now: datetime) -> int:
    """Revision of the next commit: a new study starts at the time in microseconds."""
    if study is None:
        return int(now.timestamp() * 1_000_000)
    return int(study["rev"]) + 1


def copied(document: Document) -> Document:
    """A copy whose objects may get other fields; elements and words are shared."""
    return {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in document.items()
        if name not in _SYSTEM_FIELDS
    }


_SYSTEM_FIELDS = frozenset({"_etag", "pk", "ttl"})


def _sort_in(state: StudyState, document: Document) -> None:
    kind = document.get("t")
    if kind == doc.STUDY:
        state.study = document
    elif kind == "se":
        state.series[document["id"]] = document
    elif kind == "i":
        state.existing.add(document["id"])


def _fitting(items: Sequence[NewInstance]) -> int:
    """How many of the waiting instances one commit may hold."""
    total = 0
    series: set[str] = set()
    for count, new in enumerate(items):
        total += new.json_bytes
        series.add(new.document["se"])
        operations = 2 + len(series) + count + 1
        if operations > MAX_OPERATIONS or total > MAX_JSON_BYTES:
            return count
    return len(items)


def _ids(
    items: Sequence[NewInstance], waiting: Sequence[int]
) -> tuple[list[str], list[str]]:
    return (
        [doc.series_id(items[i].read.series_instance_uid) for i in waiting],
        [items[i].document["id"] for i in waiting],
    )


def _covers(
    state: StudyState, items: Sequence[NewInstance], waiting: Sequence[int]
) -> bool:
    """Whether the remembered state has what a commit of these needs.

    A series of a live study that was not asked for may still exist.
    """
    if state.study is None or state.study["state"] == doc.GONE:
        return True
    series, _ = _ids(items, waiting)
    return state.asked.issuperset(series)


def _etag(state: StudyState) -> str | None:
    return None if state.study is None else state.study.get("_etag")


def _with_instances(
    state: StudyState, items: Sequence[NewInstance], now: datetime
) -> StudyState:
    """State after the instances were added; `state` is left as it is."""
    first = items[0]
    study = _study_to_change(state, first, now)
    series = dict(state.series) if state.live else {}
    copied_ids: set[str] = set()
    for new in items:
        id = doc.series_id(new.read.series_instance_uid)
        if id not in series:
            series[id] = doc.new_series(new.read, new.document["ow"])
            study["ns"] += 1
        elif id not in copied_ids:
            series[id] = copied(series[id])
        copied_ids.add(id)
        _add_instance(study, series[id], new)
    for id in copied_ids:
        series[id]["rev"] = study["rev"]
    return StudyState(study, series, set(), state.asked | copied_ids)


def _study_to_change(state: StudyState, first: NewInstance, now: datetime) -> Document:
    if state.live:
        assert state.study is not None
        study = copied(state.study)
    else:
        study = doc.new_study(first.partition, first.read, first.document["ow"])
    study["rev"] = next_revision(state.study, now)
    return study


def _add_instance(study: Document, series: Document, new: NewInstance) -> None:
    elements = new.read.elements
    # They differ only when an index is rebuilt: the study grew by first versions.
    first, watermark = new.document["ow"], new.document["w"]
    before = doc.modality_of(series)
    doc.merge_elements(study["a"], elements, doc.STUDY_CORE_TAGS)
    doc.merge_elements(series["a"], elements, doc.SERIES_CORE_TAGS)
    after = doc.modality_of(series)
    if before != after or series["ni"] == 0:
        doc.count_modality(study, before if series["ni"] else None, -1)
        doc.count_modality(study, after, +1)
    for target, tags, level in (
        (study, attributes.STUDY_ALL, Level.STUDY),
        (series, (*attributes.STUDY_ALL, *attributes.SERIES_ALL), Level.SERIES),
    ):
        target["ni"] += 1
        target["w"] = max(target["w"], watermark)
        if first > target["nw"]:
            target["nw"] = first
            target["nid"] = new.document["id"]
            target["n"] = doc.level_elements(elements, tags)
        doc.put_tag_values(
            target, new.read.tag_values, new.query_tags, level, watermark
        )
