"""QIDO-RS requests: from query parameters to a search that any index can answer.

Knows which attributes each resource can be searched by, how values of each VR are
matched and which attributes come back. Values leave in the form in which they are
indexed (`dicomweb.matching`). Refuses to know what an index is.

Source: PS3.18 8.3.4, 10.6; PS3.4 C.2.2.2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from dicomweb import attributes
from dicomweb.attributes import Attribute
from dicomweb.errors import InvalidRequest, quoted
from dicomweb.identifiers import check_uid
from dicomweb.matching import (
    DECIMAL_VRS,
    INTEGER_VRS,
    PADDING,
    Scalar,
    date_form,
    date_time_form,
    fold,
    fold_name,
    name_words,
    search_form,
    time_form,
)
from dicomweb.parameters import flag, whole_number
from dicomweb.query_tags import Level, QueryTag, TagStatus

DEFAULT_LIMIT = 100
MAX_LIMIT = 200
MAX_OFFSET = 10_000
MAX_CURSOR_CHARACTERS = 128
MAX_CODES = 500
"""Of a list: an index compares the modalities of a study with each of them."""

STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"

_LISTED_VRS = frozenset({"UI", "CS"})  # `,` and `\` cannot stand in their values
_NUMBER_VRS = INTEGER_VRS | DECIMAL_VRS
_LITERAL_VRS = frozenset({"DA", "TM", "DT", "UI"})  # `*` and `?` mean nothing in them


class Resource(Enum):
    """What is searched for, as the path says it."""

    ALL_STUDIES = "studies"
    ALL_SERIES = "series"
    ALL_INSTANCES = "instances"
    STUDY_SERIES = "series of a study"
    STUDY_INSTANCES = "instances of a study"
    STUDY_SERIES_INSTANCES = "instances of a series"

    @property
    def level(self) -> Level:
        """Whether each result is a study, a series or an instance."""
        return _SHAPES[self][0]

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels whose attributes may be searched by and are returned."""
        return _SHAPES[self][1]


_STUDY, _SERIES, _INSTANCE = Level.STUDY, Level.SERIES, Level.INSTANCE
_SHAPES = {
    Resource.ALL_STUDIES: (_STUDY, (_STUDY,)),
    Resource.ALL_SERIES: (_SERIES, (_STUDY, _SERIES)),
    Resource.ALL_INSTANCES: (_INSTANCE, (_STUDY, _SERIES, _INSTANCE)),
    Resource.STUDY_SERIES: (_SERIES, (_SERIES,)),
    Resource.STUDY_INSTANCES: (_INSTANCE, (_SERIES, _INSTANCE)),
    Resource.STUDY_SERIES_INSTANCES: (_INSTANCE, (_INSTANCE,)),
}
_DEFAULTS = {
    1: {
        _STUDY: attributes.STUDY_V1,
        _SERIES: attributes.SERIES_V1,
        _INSTANCE: attributes.INSTANCE_V1,
    },
    2: {
        _STUDY: attributes.STUDY_V2,
        _SERIES: attributes.SERIES_V2,
        _INSTANCE: attributes.INSTANCE_V2,
    },
}
_ALL = {
    _STUDY: attributes.STUDY_ALL,
    _SERIES: attributes.SERIES_ALL,
    _INSTANCE: attributes.INSTANCE_ALL,
}
_CORE = {attribute.tag: attribute for attribute in attributes.CORE}


# --- matches -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exact:
    """The indexed value is this one."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """The indexed value is one of these, two or more."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The whole indexed text fits: `*` is any run of characters, `?` exactly one."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Words:
    """Consecutive words of the name start with these, in order; one or more."""

    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """low <= indexed value <= high; one of the bounds may be None."""

    low: Scalar | None
    high: Scalar | None


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Everything matches, even where the attribute is absent; it is only returned."""


Match = Exact | OneOf | Wildcard | Words | Between | AnyValue


@dataclass(frozen=True, slots=True)
class Filter:
    """One attribute and what it must match."""

    attribute: Attribute | QueryTag
    match: Match


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search.

    Attributes:
        version: Of the API, 1 or 2.
        study_instance_uid: From the path, as typed.
        series_instance_uid: From the path, as typed.
        return_tags: Everything that is returned where present; 8 upper-case hex
            digits each, none twice.
        offset: Results to leave out, 0 with a cursor.
        cursor: Where the page before ended, as a `next` link said it.
        erroneous_tags: Attributes searched by whose index is known to be incomplete,
            as typed.
    """

    resource: Resource
    version: int
    filters: tuple[Filter, ...]
    return_tags: tuple[str, ...]
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0
    cursor: str | None = None
    erroneous_tags: tuple[str, ...] = ()


# --- parsing -------------------------------------------------------------------------


def parse(
    resource: Resource,
    pairs: Sequence[tuple[str, str]],
    *,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    version: int,
    query_tags: Sequence[QueryTag],
) -> SearchQuery:
    """The search that a request asks for.

    Args:
        resource: From the path.
        pairs: Query parameters in order, decoded.
        study_instance_uid: From the path.
        series_instance_uid: From the path.
        version: Of the API, 1 or 2.
        query_tags: All extended query tags there are, of any status.

    Raises:
        InvalidRequest: A parameter or a path UID is not allowed or malformed.

    Source: PS3.18 8.3.4, 10.6.1.
    """
    path_tags = _check_path(study_instance_uid, series_instance_uid)
    options, includes, conditions = _sort(pairs)
    is_fuzzy = flag(options, "FuzzyMatching", default=False)
    filters: dict[str, Filter] = {}
    erroneous = []
    tags = {tag.path: tag for tag in query_tags}
    for name, value in conditions.items():
        attribute = _searchable(resource, name, tags)
        path = attribute.path if isinstance(attribute, QueryTag) else attribute.tag
        if path in filters:
            raise _invalid(f"{quoted(name)} is given twice, as keyword and as number")
        shown = attributes.keyword_of(path) or path
        filters[path] = Filter(attribute, _match(shown, attribute.vr, value, is_fuzzy))
        if isinstance(attribute, QueryTag) and attribute.error_count:
            erroneous.append(name)
    cursor, offset = _position(options)
    return SearchQuery(
        resource=resource,
        version=version,
        filters=tuple(filters.values()),
        return_tags=_unique(
            _base_tags(resource, version, includes), includes, filters, path_tags
        ),
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        limit=whole_number(
            options, "Limit", default=DEFAULT_LIMIT, low=1, high=MAX_LIMIT
        ),
        offset=offset,
        cursor=cursor,
        erroneous_tags=tuple(erroneous),
    )


# Clients and their tests know the texts on what is not queryable, on dates and on
# limits from the .NET server, word for word.
_HINT = (
    "If the parameter is an attribute keyword, check the casing as they are"
    " case-sensitive. The conformance statement has a list of supported query"
    " parameters, attributes and the levels"
)


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid query: {detail}.", code="InvalidQuery")


def _check_path(study: str | None, series: str | None) -> tuple[str, ...]:
    """Tags of the UIDs in the path."""
    tags = []
    if study is not None:
        check_uid(study, "StudyInstanceUID")
        tags.append(STUDY_INSTANCE_UID)
    if series is not None:
        check_uid(series, "SeriesInstanceUID")
        tags.append(SERIES_INSTANCE_UID)
    return tuple(tags)


_OPTIONS = frozenset({"limit", "offset", "fuzzymatching", "cursor"})


def _sort(
    pairs: Sequence[tuple[str, str]],
) -> tuple[dict[str, str], tuple[str, ...], dict[str, str]]:
    """Options by lower-case name, fields to include (tags or `all`), conditions."""
    options: dict[str, str] = {}
    includes: list[str] = []
    conditions: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if lower == "includefield":
            includes += _included(value)
            continue
        target, key = (options, lower) if lower in _OPTIONS else (conditions, name)
        if key in target:
            raise _invalid(f"{quoted(name)} is given more than once")
        target[key] = value
    return options, tuple(includes), conditions


def _included(value: str) -> list[str]:
    tags = []
    for item in value.split(","):
        field = item.strip()
        if not field:
            continue
        tag = "all" if field.lower() == "all" else attributes.tag_of(field)
        if tag is None:
            raise _invalid(f"includefield has the unknown attribute {quoted(field)}")
        tags.append(tag)
    return tags


def _base_tags(
    resource: Resource, version: int, includes: Sequence[str]
) -> Iterable[str]:
    sets = _ALL if "all" in includes else _DEFAULTS[version]
    return (tag for level in resource.levels for tag in sets[level])


def _unique(*groups: Iterable[str]) -> tuple[str, ...]:
    tags = dict.fromkeys(tag for group in groups for tag in group)
    tags.pop("all", None)
    return tuple(tags)


def _searchable(
    resource: Resource, name: str, query_tags: dict[str, QueryTag]
) -> Attribute | QueryTag:
    if "." in name:
        raise _invalid(f"{quoted(name)}: attributes in sequences cannot be searched by")
    tag = attributes.tag_of(name)
    if tag is None:
        raise _invalid(f"unknown query parameter {quoted(name)}. {_HINT}")
    attribute = _CORE.get(tag) or query_tags.get(tag)
    if (
        attribute is None
        or attribute.level not in resource.levels
        or (isinstance(attribute, QueryTag) and attribute.status is not TagStatus.READY)
    ):
        raise _invalid(f"AttributeId {name} is not queryable.  {_HINT}")
    if isinstance(attribute, QueryTag) and not attribute.enabled:
        raise InvalidRequest(
            f"Query is disabled on specified attribute {quoted(name)}.",
            code="QueryTagDisabled",
        )
    return attribute


# --- options ----------------------------------------------------------------------


def _position(options: dict[str, str]) -> tuple[str | None, int]:
    """Cursor and offset; only one of them may say where the page starts."""
    offset = whole_number(options, "Offset", default=0, low=0, high=MAX_OFFSET)
    cursor = options.get("cursor")
    if cursor is None:
        return None, offset
    if not 0 < len(cursor) <= MAX_CURSOR_CHARACTERS or offset:
        raise _invalid("the cursor must be one of a 'next' link, without an offset")
    return cursor, 0


# --- values -----------------------------------------------------------------------


def _match(name: str, vr: str, value: str, is_fuzzy: bool) -> Match:
    """How the value is matched.

    Source: PS3.4 C.2.2.2.
    """
    if not value.strip(f"*{PADDING}" if vr in _NUMBER_VRS else PADDING):
        return AnyValue()
    if vr in {"DA", "DT", "TM"}:
        return _match_instant(name, vr, value)
    if vr == "PN" and is_fuzzy:
        return _match_words(name, value)
    if vr in _LISTED_VRS and any(mark in value for mark in ",\\"):
        return _match_list(vr, value)
    if vr not in _LITERAL_VRS | _NUMBER_VRS and ("*" in value or "?" in value):
        return _match_wildcard(vr, value)
    form = search_form(vr, [value])
    if form is None:
        raise _invalid(f"{quoted(value)} is not a valid value of {quoted(name)} ({vr})")
    return Exact(form)


def _match_wildcard(vr: str, value: str) -> Match:
    pattern = fold_name(value) if vr == "PN" else fold(value)
    return Wildcard(pattern) if pattern.strip("*") else AnyValue()


def _match_list(vr: str, value: str) -> Match:
    items = [item.strip(PADDING) for item in value.replace("\\", ",").split(",")]
    if vr == "CS" and any("*" in item or "?" in item for item in items):
        raise _invalid(f"a list of values {quoted(value)} cannot have wildcards")
    values = tuple(dict.fromkeys(fold(item) for item in items if item))
    if vr == "CS" and len(values) > MAX_CODES:
        raise _invalid(f"a list of codes has at most {MAX_CODES} values")
    if not values:
        return AnyValue()
    return OneOf(values) if len(values) > 1 else Exact(values[0])


def _match_words(name: str, value: str) -> Match:
    if '"' in value:
        raise _invalid(
            f"the value of {quoted(name)} has the unsupported character '\"'"
        )
    prefixes = [word.rstrip("*") for word in name_words(value)]
    if any("*" in prefix or "?" in prefix for prefix in prefixes):
        return _match_wildcard("PN", value)
    words = tuple(prefix for prefix in prefixes if prefix)
    return Words(words) if words else AnyValue()


def _match_instant(name: str, vr: str, value: str) -> Match:
    """A date, date-time or time, or a range of them with one end open.

    Source: PS3.4 C.2.2.2.5.
    """
    if "-" not in value:
        return Exact(_instant(name, vr, value))
    first, last = (part.strip() for part in value.split("-", 1))
    if not first and not last:
        raise _invalid(f"a range of {quoted(name)} needs one end at least")
    low = _instant(name, vr, first) if first else None
    high = _instant(name, vr, last) if last else None
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        raise _invalid(
            f"the range {quoted(value)} of {quoted(name)} ends before it starts"
        )
    return Between(low, high)


_INSTANT_FORMS = {"DA": date_form, "DT": date_time_form, "TM": time_form}
_INSTANT_RULES = {
    "DA": ("Date", "attribute", "Date should be valid and formatted as yyyyMMdd"),
    "DT": (
        "DateTime",
        "attribute",
        "DateTime should be valid, without offset, yyyyMMddHHmmss.FFFFFF from yyyy on",
    ),
    "TM": (
        "Time",
        "parameter",
        "Time should be valid and formatted as HHmmss.FFFFFF where HH is mandatory",
    ),
}


def _instant(name: str, vr: str, text: str) -> Scalar:
    form = None if "+" in text else _INSTANT_FORMS[vr](text)
    if form is None:
        kind, noun, rule = _INSTANT_RULES[vr]
        raise _invalid(
            f"specified {kind} value {quoted(text)} is invalid for {noun}"
            f" {quoted(name)}. {rule}"
        )
    return form
