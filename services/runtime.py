"""What every service is handed: settings, stores, a clock and shared writers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from services.catalog import Catalog
from services.feed import Feed
from services.metrics import Metrics
from services.partitions import Partitions
from services.publishing import Publisher
from services.settings import Settings
from services.spool import Spool
from services.study_commits import StudyCommits
from services.tag_registry import TagRegistry
from services.watermarks import Watermarks
from services.workers import Workers
from stores.ports import Blobs, Documents, Journal, OpenSink, Secrets


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process's services.

    Attributes:
        now: The time, UTC.
        new_id: 32 hex digits that nobody else gets.
        commits: Writes to studies, merged per study.
        spool: Where the parts of requests wait for their commit.
        workers: Threads for CPU work.
        metrics: What the requests of this process cost.
        open_sink: Opens the destination of an export.
    """

    settings: Settings
    documents: Documents
    blobs: Blobs
    journal: Journal
    secrets: Secrets
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    watermarks: Watermarks
    catalog: Catalog
    feed: Feed
    publisher: Publisher
    commits: StudyCommits
    partitions: Partitions
    tags: TagRegistry
    spool: Spool
    workers: Workers
    metrics: Metrics
    open_sink: OpenSink

    async def close(self) -> None:
        """Finishes what was begun and ends connections."""
        await self.publisher.close()
        await self.documents.close()
        await self.blobs.close()
        await self.journal.close()
        await self.secrets.close()
        self.workers.close()


Resolve = Callable[[], Awaitable[Runtime]]
"""Gives the runtime of this process; whoever comes first makes it."""
