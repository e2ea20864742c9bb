"""Extended query tags: attributes that a site wants searchable beyond the core ones."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """Whose attribute it is."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


class TagStatus(Enum):
    """Where a query tag is in its life."""

    ADDING = "adding"
    READY = "ready"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class QueryTag:
    """One extended query tag.

    Attributes:
        key: Number that is never used again; its values stand at `x.t{key}`.
        path: 8 upper-case hex digits.
        vr: Two letters.
        private_creator: Of a private tag, else None.
        enabled: Whether queries on it are answered.
        error_count: Instances whose value could not be indexed.
        operation_id: Of the reindex under way, else None.
    """

    key: int
    path: str
    vr: str
    level: Level
    status: TagStatus = TagStatus.ADDING
    private_creator: str | None = None
    enabled: bool = True
    error_count: int = 0
    operation_id: str | None = None
