"""QIDO-RS: searches of studies, series and instances, newest first.

Studies and series are found in the catalog, instances in `dicom`. Filters of a higher
level are answered first; where they match too much to be listed, the lower level is
walked newest first and its parents are checked page by page.

Source: PS3.18 10.6.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from dicomweb import attributes
from dicomweb.attributes import Attribute
from dicomweb.errors import InvalidRequest
from dicomweb.identifiers import Partition, uid_key
from dicomweb.matching import consecutive_words, fits_wildcard
from dicomweb.query import (
    AnyValue,
    Between,
    Exact,
    Filter,
    OneOf,
    Resource,
    SearchQuery,
    Wildcard,
    Words,
)
from dicomweb.query_tags import Level
from services import documents as doc
from services import retrieve
from services.runtime import Runtime
from stores import containers
from stores.ports import (
    And,
    AnyWordStartsWith,
    ArrayContains,
    Condition,
    Document,
    Equals,
    FieldPath,
    In,
    Like,
    Or,
    Order,
    Prefix,
    Query,
    Range,
    Scalar,
)

MAX_PARENTS = 500
_PAGE = 200
_NEWEST_FIRST = (Order(("k",)), Order(("sk",), descending=True))

STUDY_INDEX = frozenset({*attributes.STUDY_V2, "00080061", "00201208"})
SERIES_INDEX = frozenset({*attributes.SERIES_V2, "00201209"})
COMPUTED = frozenset({"00080061", "00201206", "00201208", "00201209"})
_UID_TAGS = ("0020000D", "0020000E", "00080018")
_IN_NEWEST_OF_STUDY = frozenset({*attributes.STUDY_ALL, *COMPUTED, *_UID_TAGS})
_IN_NEWEST_OF_SERIES = _IN_NEWEST_OF_STUDY.union(attributes.SERIES_ALL)
_IN_INSTANCE = frozenset({*attributes.INSTANCE_ALL, *COMPUTED, *_UID_TAGS})


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page of results.

    Attributes:
        rows: DICOM JSON datasets.
        next_cursor: Where the next page starts; None at the end.
    """

    rows: list[dict[str, Any]]
    next_cursor: str | None


@dataclass(slots=True)
class _Hit:
    """A result: the index rows it is made of."""

    pk: str
    sk: str
    study: Document | None = None
    series: Document | None = None
    instance: Document | None = None


async def search(
    runtime: Runtime, partition: Partition, query: SearchQuery, base_url: str
) -> SearchResult:
    """The page of results that the query asks for.

    Args:
        runtime: The stores.
        partition: Where to search.
        query: Parsed and checked.
        base_url: Start of the BulkDataURIs of included binary attributes.

    Raises:
        InvalidRequest: The cursor is not one of ours.

    Source: PS3.18 10.6.3.
    """
    searcher = _Searcher(runtime, partition, query)
    hits = await searcher.page()
    more = len(hits) > query.limit
    hits = hits[: query.limit]
    rows = await searcher.rows(hits, base_url)
    return SearchResult(rows, hits[-1].sk if more else None)


class _Searcher:
    """One search under way."""

    def __init__(
        self, runtime: Runtime, partition: Partition, query: SearchQuery
    ) -> None:
        self._runtime = runtime
        self._partition = partition
        self._query = query
        self._level = query.resource.level
        self._pk = (
            doc.study_pk(partition, query.study_instance_uid)
            if query.study_instance_uid is not None
            else None
        )
        self._tags = sorted(set(query.return_tags))
        self._index_only = self._known_to_index().issuperset(self._tags)
        self._needs_metadata = not _IN_INSTANCE.issuperset(self._tags)

    # --- finding -----------------------------------------------------------------

    async def page(self) -> list[_Hit]:
        """The results of this page, and one more if there is one."""
        wanted = self._query.limit + 1
        skip = 0 if self._query.cursor else self._query.offset
        hits = []
        async for hit in self._hits(skip + wanted):
            if skip > 0:
                skip -= 1
                continue
            hits.append(hit)
            if len(hits) == wanted:
                break
        return hits

    def _hits(self, wanted: int) -> AsyncIterator[_Hit]:
        match self._query.resource:
            case Resource.ALL_STUDIES:
                return self._studies(wanted)
            case Resource.ALL_SERIES | Resource.STUDY_SERIES:
                return self._series(wanted)
            case _:
                return self._instances(wanted)

    async def _studies(self, wanted: int) -> AsyncIterator[_Hit]:
        where = self._where("st", self._filters(Level.STUDY))
        async for row in self._walk(containers.CATALOG, where, wanted):
            if self._is_match(row, Level.STUDY):
                yield _Hit(row["pk"], row["sk"], study=row)

    async def _series(self, wanted: int) -> AsyncIterator[_Hit]:
        conditions = self._filters(Level.SERIES)
        parents = await self._matching_studies()
        if parents is not None:
            conditions.append(In(("pk",), parents))
        where = self._where("se", conditions)
        check = parents is None and bool(self._filters(Level.STUDY))
        async for row in self._walk(
            containers.CATALOG, where, wanted, check=self._parents if check else None
        ):
            if self._is_match(row, Level.SERIES):
                yield _Hit(row["pk"], row["sk"], series=row)

    async def _instances(self, wanted: int) -> AsyncIterator[_Hit]:
        conditions = self._filters(Level.INSTANCE)
        query = self._query
        if query.series_instance_uid is not None:
            conditions.append(Equals(("se",), uid_key(query.series_instance_uid)))
        check = None
        if self._filters(Level.SERIES) or self._filters(Level.STUDY):
            series = await self._matching_series()
            if series is None:
                check = self._series_parents
            else:
                conditions.append(_in_series(series))
        where = self._where("i", conditions)
        async for row in self._walk(
            containers.DICOM, where, wanted, check=check, fields=self._instance_fields()
        ):
            if self._is_match(row, Level.INSTANCE):
                yield _Hit(row["pk"], row["sk"], instance=row)

    async def _walk(
        self,
        container: str,
        where: Condition,
        wanted: int,
        *,
        check: Any = None,
        fields: tuple[str, ...] = (),
    ) -> AsyncIterator[Document]:
        """Rows newest first; with `check`, only those whose parents match."""
        after = self._start()
        size = min(wanted, _PAGE + 1) if check is None else _PAGE
        while True:
            page = await self._runtime.documents.query(
                container,
                Query(where, _NEWEST_FIRST, fields),
                partition_key=self._pk,
                limit=size,
                after=after,
            )
            rows: Sequence[Document] = page.documents
            if container == containers.DICOM:
                rows = await self._visible(rows)
            if check is not None:
                rows = await check(rows)
            for row in rows:
                yield row
            if page.after is None:
                return
            after = page.after
            size = _PAGE

    def _start(self) -> tuple[Scalar, ...] | None:
        cursor = self._query.cursor
        if cursor is None:
            return None
        if not (cursor.isascii() and cursor.isdigit()):
            raise InvalidRequest("The cursor is not one that this server gave.")
        kind = {Level.STUDY: "st", Level.SERIES: "se", Level.INSTANCE: "i"}[self._level]
        return (doc.scope_key(kind, self._partition), cursor)

    async def _visible(self, rows: Sequence[Document]) -> list[Document]:
        """Those of studies that are live, in the version that is current.

        `st` is read after the instances: live now means that they were not being
        deleted when they were read.
        """
        keys = list({row["pk"] for row in rows})
        read = self._runtime.documents.read
        found = await asyncio.gather(
            *(read(containers.DICOM, pk, doc.STUDY) for pk in keys)
        )
        studies = dict(zip(keys, found, strict=True))
        visible = []
        for row in rows:
            study = studies[row["pk"]]
            if study is not None and study["state"] == doc.LIVE:
                visible.append(doc.version_of(study, row, original=False))
        return visible

    # --- parents -----------------------------------------------------------------

    async def _matching_studies(self) -> tuple[str, ...] | None:
        """Partition keys of the matching studies; None without filter or too many."""
        filters = self._filters(Level.STUDY)
        if not filters or self._pk is not None:
            return None
        rows = await self._first(self._where("st", filters), Level.STUDY)
        return None if rows is None else tuple(row["pk"] for row in rows)

    async def _matching_series(self) -> list[Document] | None:
        """The matching series; None where there are too many to list."""
        filters = self._filters(Level.SERIES)
        if self._filters(Level.STUDY) and self._pk is None:
            studies = await self._matching_studies()
            if studies is None:
                return None
            filters.append(In(("pk",), studies))
        return await self._first(self._where("se", filters), Level.SERIES)

    async def _first(self, where: Condition, level: Level) -> list[Document] | None:
        """All rows that match, or None where they are more than MAX_PARENTS."""
        found = await self._up_to(MAX_PARENTS + 1, where, level)
        return None if len(found) > MAX_PARENTS else found

    async def _up_to(
        self, most: float, where: Condition, level: Level
    ) -> list[Document]:
        """Keys of the rows that match.

        Args:
            most: How many are enough; there may be a few more.
            where: What the index can tell.
            level: Of the rows.
        """
        found: list[Document] = []
        after: tuple[Scalar, ...] | None = None
        while True:
            page = await self._runtime.documents.query(
                containers.CATALOG,
                Query(where, _NEWEST_FIRST, ("pk", "words", "mods")),
                partition_key=self._pk,
                limit=MAX_PARENTS + 1,
                after=after,
            )
            found += [row for row in page.documents if self._is_match(row, level)]
            if page.after is None or len(found) >= most:
                return found
            after = page.after

    async def _parents(self, rows: Sequence[Document]) -> list[Document]:
        """Rows whose study matches the study filters."""
        if not rows:
            return []
        keys = tuple({row["pk"] for row in rows})
        conditions = [*self._filters(Level.STUDY), In(("pk",), keys)]
        where = self._where("st", conditions)
        studies = await self._up_to(inf, where, Level.STUDY)
        matching = {row["pk"] for row in studies}
        return [row for row in rows if row["pk"] in matching]

    async def _series_parents(self, rows: Sequence[Document]) -> list[Document]:
        """Instances whose series and study match the filters."""
        if self._filters(Level.STUDY) and self._pk is None:
            rows = await self._parents(rows)
        if not self._filters(Level.SERIES) or not rows:
            return list(rows)
        keys = tuple({row["pk"] for row in rows})
        ids = tuple({f"se:{row['se']}" for row in rows})
        conditions = [
            *self._filters(Level.SERIES),
            In(("pk",), keys),
            In(("id",), ids),
        ]
        series = await self._up_to(inf, self._where("se", conditions), Level.SERIES)
        matching = {(row["pk"], row["id"]) for row in series}
        return [row for row in rows if (row["pk"], f"se:{row['se']}") in matching]

    # --- conditions --------------------------------------------------------------

    def _where(self, kind: str, conditions: Sequence[Condition]) -> Condition:
        scope = Equals(("k",), doc.scope_key(kind, self._partition))
        return And((scope, *conditions))

    def _filters(self, level: Level) -> list[Condition]:
        return [
            _condition(item)
            for item in self._query.filters
            if item.attribute.level is level and not isinstance(item.match, AnyValue)
        ]

    def _is_match(self, row: Document, level: Level) -> bool:
        """Whether a row that the index found matches in what the index cannot tell."""
        return all(
            _is_matched(row, item)
            for item in self._query.filters
            if item.attribute.level is level
        )

    # --- rows --------------------------------------------------------------------

    def _instance_fields(self) -> tuple[str, ...]:
        fields = ("pk", "t", "sk", "u", "se", "a", "w", "ow", "next", "words")
        if self._needs_metadata:
            return (*fields, "m", "z", "mb", "zn")
        return fields

    async def rows(self, hits: Sequence[_Hit], base_url: str) -> list[dict[str, Any]]:
        """The datasets of these results."""
        await self._add_parents(hits)
        elements: Sequence[doc.Elements]
        if self._index_only:
            elements = [_merged_elements(hit) for hit in hits]
        elif self._level is Level.INSTANCE and not self._needs_metadata:
            elements = [hit.instance["a"] for hit in hits if hit.instance is not None]
        else:
            elements = await asyncio.gather(
                *(self._newest_elements(hit, base_url) for hit in hits)
            )
        return [
            self._row(hit, found) for hit, found in zip(hits, elements, strict=True)
        ]

    def _row(self, hit: _Hit, elements: doc.Elements) -> dict[str, Any]:
        elements = elements | _computed(hit) | _identifiers(hit)
        return {tag: elements[tag] for tag in self._tags if tag in elements}

    async def _add_parents(self, hits: Sequence[_Hit]) -> None:
        """Reads the study rows, and series rows, that the answer is made of."""
        tags = set(self._tags)
        if self._level is Level.STUDY or not hits:
            return
        if self._index_only or tags & {"00080061", "00201206", "00201208"}:
            studies = await self._rows_of(hits, "st")
            for hit in hits:
                hit.study = studies.get((hit.pk, doc.STUDY))
        if self._level is Level.INSTANCE and tags & {"00201209"}:
            series = await self._rows_of(hits, "se")
            for hit in hits:
                assert hit.instance is not None
                hit.series = series.get((hit.pk, f"se:{hit.instance['se']}"))

    async def _rows_of(
        self, hits: Sequence[_Hit], kind: str
    ) -> dict[tuple[str, str], Document]:
        keys = tuple({hit.pk for hit in hits})
        conditions: list[Condition] = [In(("pk",), keys)]
        if kind == "se":
            ids = {f"se:{hit.instance['se']}" for hit in hits if hit.instance}
            conditions.append(In(("id",), tuple(ids)))
        found: dict[tuple[str, str], Document] = {}
        after: tuple[Scalar, ...] | None = None
        while True:
            page = await self._runtime.documents.query(
                containers.CATALOG,
                Query(self._where(kind, conditions), _NEWEST_FIRST),
                partition_key=self._pk,
                limit=_PAGE,
                after=after,
            )
            found |= {(row["pk"], row["id"]): row for row in page.documents}
            if page.after is None:
                return found
            after = page.after

    def _known_to_index(self) -> frozenset[str]:
        """Tags that need no single instance."""
        levels = self._query.resource.levels
        if self._level is Level.INSTANCE:
            return frozenset()
        known = COMPUTED | {"0020000D"}
        if Level.STUDY in levels:
            known |= STUDY_INDEX
        return known | SERIES_INDEX if Level.SERIES in levels else known

    async def _newest_elements(self, hit: _Hit, base_url: str) -> doc.Elements:
        """Elements of the newest instance of the result, or of the instance itself."""
        if hit.instance is not None:
            return await self._metadata(hit.pk, hit.instance, base_url)
        row = hit.series or hit.study
        assert row is not None
        newest = await self._newest_instance(hit, row, base_url)
        return newest if COMPUTED.isdisjoint(self._tags) else newest | row["a"]

    async def _newest_instance(
        self, hit: _Hit, row: Document, base_url: str
    ) -> doc.Elements:
        known = _IN_NEWEST_OF_STUDY if hit.series is None else _IN_NEWEST_OF_SERIES
        if known.issuperset(self._tags):
            return dict(row["n"])
        document = await self._runtime.documents.read(
            containers.DICOM, hit.pk, row["nid"]
        )
        if document is not None and "next" in document:
            visible = await self._visible([document])
            document = visible[0] if visible else None
        if document is None:
            return dict(row["n"])
        return await self._metadata(hit.pk, document, base_url)

    async def _metadata(
        self, pk: str, document: Document, base_url: str
    ) -> doc.Elements:
        document = await retrieve.with_metadata(self._runtime, pk, document)
        return retrieve.metadata_object(document, base_url)


def _field_name(item: Filter) -> str:
    if isinstance(item.attribute, Attribute):
        return item.attribute.keyword
    return f"t{item.attribute.key}"


def _condition(item: Filter) -> Condition:  # noqa: PLR0911 - one for each match
    if _is_modalities(item):
        return _modalities(item)
    group = "f" if isinstance(item.attribute, Attribute) else "x"
    path: FieldPath = (group, _field_name(item))
    match item.match:
        case Exact(value=value):
            return Equals(path, value)
        case OneOf(values=values):
            return In(path, values)
        case Wildcard(pattern=pattern):
            return _wildcard(path, pattern)
        case Words(prefixes=prefixes):
            words = ("words", _field_name(item))
            return And(tuple(AnyWordStartsWith(words, word) for word in prefixes))
        case Between(low=low, high=high):
            return Range(path, low, high)
        case AnyValue():
            return And(())


def _is_matched(row: Document, item: Filter) -> bool:
    """Words must follow each other, and a wildcard must fit one modality as a whole."""
    name = _field_name(item)
    match item.match:
        case Words(prefixes=prefixes) if len(prefixes) > 1:
            return consecutive_words(row.get("words", {}).get(name, ()), prefixes)
        case Wildcard(pattern=pattern) if _is_modalities(item):
            return any(fits_wildcard(value, pattern) for value in row["mods"])
        case _:
            return True


def _is_modalities(item: Filter) -> bool:
    return (
        item.attribute.level is Level.STUDY and _field_name(item) == "ModalitiesInStudy"
    )


def _wildcard(path: FieldPath, pattern: str) -> Condition:
    fixed = pattern.rstrip("*")
    if fixed != pattern and "*" not in fixed and "?" not in fixed:
        return Prefix(path, fixed)
    return Like(path, pattern)


def _modalities(item: Filter) -> Condition:
    path: FieldPath = ("mods",)
    match item.match:
        case Exact(value=value):
            return ArrayContains(path, value)
        case OneOf(values=values):
            return Or(tuple(ArrayContains(path, value) for value in values))
        case Wildcard(pattern=pattern):
            return AnyWordStartsWith(path, pattern.split("*")[0].split("?")[0])
        case _:
            raise InvalidRequest("ModalitiesInStudy is matched by whole values.")


def _in_series(series: Sequence[Document]) -> Condition:
    """Instances of exactly these series."""
    by_study: dict[str, list[Scalar]] = {}
    for row in series:
        by_study.setdefault(row["pk"], []).append(row["id"].removeprefix("se:"))
    if len(by_study) <= 1:
        keys = tuple(key for values in by_study.values() for key in values)
        studies: tuple[Condition, ...] = tuple(Equals(("pk",), pk) for pk in by_study)
        return And((*studies, In(("se",), keys)))
    return Or(
        tuple(
            And((Equals(("pk",), pk), In(("se",), tuple(keys))))
            for pk, keys in by_study.items()
        )
    )


# --- elements of a row -------------------------------------------------------------


def _merged_elements(hit: _Hit) -> doc.Elements:
    elements: doc.Elements = {}
    for row in (hit.study, hit.series):
        if row is not None:
            elements |= row["a"]
    return elements


def _computed(hit: _Hit) -> doc.Elements:
    """Elements made of the index: counts and modalities."""
    elements: doc.Elements = {}
    if hit.study is not None:
        names = hit.study["modalities"]
        elements["00080061"] = {"vr": "CS", "Value": names} if names else {"vr": "CS"}
        elements["00201206"] = {"vr": "IS", "Value": [hit.study["ns"]]}
        elements["00201208"] = {"vr": "IS", "Value": [hit.study["ni"]]}
    if hit.series is not None:
        elements["00201209"] = {"vr": "IS", "Value": [hit.series["ni"]]}
    return elements


def _identifiers(hit: _Hit) -> doc.Elements:
    """The UIDs of the result, as first stored."""
    if hit.instance is not None:
        values = hit.instance["u"]
    elif hit.series is not None:
        values = [hit.series["study"], hit.series["uid"]]
    else:
        assert hit.study is not None
        values = [hit.study["uid"]]
    return {
        tag: {"vr": "UI", "Value": [value]}
        for tag, value in zip(_UID_TAGS, values, strict=False)
    }
