"""The registry of extended query tags: one document with a version.

Tags that are added raise the version. Writers index with the registry they know, at
most five seconds old, and record its version in their event; who publishes the event
sees a newer one and indexes again (design decision 4.10). Other changes (a count of
errors, a tag that is ready or gone) ask nobody to index again.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dicomweb.errors import StoreUnavailable
from dicomweb.query_tags import Level, QueryTag, TagStatus
from stores import containers
from stores.ports import Committed, Create, Document, Documents, Replace

PARTITION_KEY = "tags"
DOCUMENT_ID = "registry"
CACHE_SECONDS = 5.0
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Registry:
    """All query tags at one moment.

    Attributes:
        version: 0 before the first change.
        next_key: Key of the next tag; keys are never used again.
        tags: By key, ascending.
    """

    version: int = 0
    next_key: int = 1
    tags: tuple[QueryTag, ...] = ()

    @property
    def indexed(self) -> tuple[QueryTag, ...]:
        """Tags that new instances are indexed with."""
        return tuple(t for t in self.tags if t.status is not TagStatus.DELETING)

    def find(self, path: str) -> QueryTag | None:
        """The tag with this path (8 upper-case hex digits)."""
        return next((tag for tag in self.tags if tag.path == path), None)

    def with_key(self, key: int) -> QueryTag | None:
        """The tag with this key; unlike a path it never means another one."""
        return next((tag for tag in self.tags if tag.key == key), None)


class TagRegistry:
    """Reads and changes the registry."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._cached = Registry()
        self._expires = 0.0

    async def current(self) -> Registry:
        """The registry, at most five seconds old."""
        if time.monotonic() >= self._expires:
            await self.read()
        return self._cached

    async def read(self) -> Registry:
        """The registry as it is now."""
        registry, _ = await self._read()
        return registry

    async def _read(self) -> tuple[Registry, str | None]:
        document = await self._documents.read(
            containers.SYSTEM, PARTITION_KEY, DOCUMENT_ID
        )
        registry = Registry() if document is None else _decoded(document)
        self._cached = registry
        self._expires = time.monotonic() + CACHE_SECONDS
        return registry, None if document is None else document["_etag"]

    async def change(self, change: Callable[[Registry], Registry | None]) -> Registry:
        """Applies `change` to the registry as it is now, whoever else changes it.

        Args:
            change: Returns the registry it wants, without regard to `version`, or None
                to leave it; may be called again and may raise.

        Returns:
            The registry afterwards.

        Raises:
            StoreUnavailable: Too many others change it.
        """
        for _ in range(_TRIES):
            registry, etag = await self._read()
            wanted = change(registry)
            if wanted is None:
                return registry
            known = {tag.key for tag in registry.tags}
            added = any(tag.key not in known for tag in wanted.tags)
            document = _encoded(wanted, registry.version + added)
            operation = (
                Create(document) if etag is None else Replace(document, if_etag=etag)
            )
            result = await self._documents.batch(
                containers.SYSTEM, PARTITION_KEY, [operation]
            )
            if isinstance(result, Committed):
                await self._documents.flush()
                return await self.read()
        raise StoreUnavailable("The query tags are being changed. Please retry.")


def _encoded(registry: Registry, version: int) -> Document:
    return {
        "id": DOCUMENT_ID,
        "k": "tags",
        "version": version,
        "next": registry.next_key,
        "tags": [_encoded_tag(tag) for tag in registry.tags],
    }


def _encoded_tag(tag: QueryTag) -> dict[str, Any]:
    return asdict(tag) | {"level": tag.level.value, "status": tag.status.value}


def _decoded(document: Document) -> Registry:
    tags = tuple(
        QueryTag(
            **row | {"level": Level(row["level"]), "status": TagStatus(row["status"])}
        )
        for row in document["tags"]
    )
    return Registry(document["version"], document["next"], tags)
