"""What of a document goes into the index, by the container's indexing policy.

Docs: index-policy.md (include and exclude, `/?` for a scalar, `/*` for all below, `/[]`
for elements; the more precise path wins; `id` and `_ts` are always indexed, the
partition key is not unless included; composite indexes must match the ORDER BY exactly
or be its exact opposite).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emulators.cosmos.errors import bad_request
from emulators.cosmos.sql_tree import Path, SortKey
from emulators.cosmos.values import UNDEFINED, at, encode

Entry = tuple[str, bytes]
"""Name of the index (a path such as `mods/[]`, or `composite 0`) and the key in it."""

_SYSTEM = frozenset({("id",), ("_ts",)})


@dataclass(frozen=True, slots=True)
class _Pattern:
    names: Path
    scalar_only: bool

    def matches(self, path: Path) -> bool:
        """Whether the policy's path is, or is above, this one."""
        if self.scalar_only:
            return path == self.names
        return path[: len(self.names)] == self.names


def _pattern(text: str) -> _Pattern:
    names = tuple(part.strip('"') for part in text.strip("/").split("/"))
    if not text.startswith("/") or names[-1] not in {"?", "*"}:
        raise bad_request(
            f"The indexing path '{text}' must start with / and end ? or *."
        )
    return _Pattern(names[:-1], names[-1] == "?")


def _composite(parts: Sequence[Mapping[str, str]]) -> tuple[SortKey, ...]:
    if len(parts) < 2:
        raise bad_request("A composite index has two paths or more.")
    return tuple(
        SortKey(
            tuple(part["path"].strip("/").split("/")),
            part.get("order", "ascending") == "descending",
        )
        for part in parts
    )


@dataclass(frozen=True, slots=True)
class IndexPolicy:
    """A container's indexing policy.

    Attributes:
        composites: Keys of each composite index.
    """

    included: tuple[_Pattern, ...]
    excluded: tuple[_Pattern, ...]
    composites: tuple[tuple[SortKey, ...], ...]

    @classmethod
    def parse(cls, policy: Mapping[str, Any]) -> "IndexPolicy":
        """The policy from its JSON; a 400 for what the service or we do not take."""
        unknown = set(policy) - {
            "indexingMode", "automatic", "includedPaths", "excludedPaths",
            "compositeIndexes",
        }  # fmt: skip
        if unknown or policy.get("indexingMode", "consistent") != "consistent":
            raise bad_request(
                f"The indexing policy is not emulated: {sorted(unknown)}."
            )
        included = [_pattern(each["path"]) for each in policy.get("includedPaths", [])]
        excluded = [
            _pattern(each["path"])
            for each in policy.get("excludedPaths", [])
            if each["path"] != '/"_etag"/?'
        ]
        if not any(pattern.names == () for pattern in [*included, *excluded]):
            raise bad_request("The root path /* must be included or excluded.")
        return cls(
            tuple(included),
            tuple(excluded),
            tuple(_composite(each) for each in policy.get("compositeIndexes", [])),
        )

    def indexes(self, path: Path) -> bool:
        """Whether values at this path are indexed; elements of lists are `[]`."""
        if path in _SYSTEM:
            return True
        best, answer = -1, False
        for patterns, verdict in ((self.included, True), (self.excluded, False)):
            for pattern in patterns:
                precision = 2 * len(pattern.names) + pattern.scalar_only
                if pattern.matches(path) and precision > best:
                    best, answer = precision, verdict
        return answer

    def composite_for(self, order: Sequence[SortKey]) -> tuple[str, bool] | None:
        """Name of the index that serves this order, and whether it is read backwards."""
        wanted = tuple(order)
        opposite = tuple(SortKey(key.path, not key.descending) for key in order)
        for position, keys in enumerate(self.composites):
            if keys == wanted:
                return composite_name(position), False
            if keys == opposite:
                return composite_name(position), True
        return None

    def entries(self, document: Mapping[str, Any]) -> Iterator[Entry]:
        """Every index entry of the document, without repetitions."""
        seen: set[Entry] = set()
        for path, value in _leaves(document, ()):
            if path == ("_ts",) or not self.indexes(path):
                continue
            entry = ("/".join(path), encode(value))
            if entry not in seen:
                seen.add(entry)
                yield entry
        for position, keys in enumerate(self.composites):
            parts = [
                encode(_scalar(at(document, key.path)), descending=key.descending)
                for key in keys
            ]
            yield composite_name(position), b"".join(parts)


def composite_name(position: int) -> str:
    """The name of the n-th composite index among the indexes of a container."""
    return f"composite {position}"


def _scalar(value: Any) -> Any:
    """The value if a composite index can hold it (docs: scalars only)."""
    return UNDEFINED if isinstance(value, list | dict) else value


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, (*path, "[]"))
    else:
        yield path, value
