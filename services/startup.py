"""Puts a process's services together."""

import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from dicomweb.export_destination import Destination
from dicomweb.query_tags import QueryTag
from services import delete, query_tags, reindex
from services.catalog import Catalog
from services.feed import Feed
from services.metrics import Metrics
from services.partitions import Partitions
from services.publishing import Publisher
from services.runtime import Runtime
from services.settings import Settings
from services.spool import Spool
from services.study_commits import StudyCommits
from services.tag_registry import TagRegistry
from services.watermarks import Watermarks
from services.workers import Workers
from stores.ports import (
    Blobs,
    DestinationRefused,
    Documents,
    ExportSink,
    Journal,
    OpenSink,
    Secrets,
)


def build(  # noqa: PLR0913 - every store and source of a process, by name
    settings: Settings,
    documents: Documents,
    blobs: Blobs,
    *,
    journal: Journal,
    secrets: Secrets,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
    spool_folder: Path | None,
    open_sink: OpenSink | None = None,
) -> Runtime:
    """A runtime on these stores.

    Args:
        settings: Of this process.
        documents: The index.
        blobs: The instances.
        journal: Records of operations and errors.
        secrets: Of operations.
        now: The time, UTC.
        new_id: Makes 32 hex digits that nobody else gets.
        spool_folder: Where large parts wait when the blob store may rename them into
            place; None where it cannot, they wait in the temporary folder then.
        open_sink: Opens the destination of an export; None where there are none.
    """
    catalog = Catalog(documents)
    feed = Feed(documents, now)
    tags = TagRegistry(documents)
    publisher = Publisher(
        documents, catalog, feed, tags, now, settings.delete_delay_seconds
    )
    runtime = Runtime(
        settings=settings,
        documents=documents,
        blobs=blobs,
        journal=journal,
        secrets=secrets,
        now=now,
        new_id=new_id,
        watermarks=Watermarks(documents, now),
        catalog=catalog,
        feed=feed,
        publisher=publisher,
        commits=StudyCommits(documents, publisher, now, new_id),
        partitions=Partitions(documents, now, new_id, enabled=settings.data_partitions),
        tags=tags,
        spool=Spool(
            spool_folder or Path(tempfile.gettempdir()),
            movable=spool_folder is not None,
        ),
        workers=Workers(),
        metrics=Metrics(),
        open_sink=open_sink or _nowhere,
    )
    publisher.finish_delete = lambda pk: delete.finish(runtime, pk)

    async def index_again(
        pk: str, ids: Sequence[str], tags: Sequence[QueryTag]
    ) -> None:
        await reindex.index_instances(runtime, pk, ids, tags, wait=False)

    publisher.index_again = index_again

    async def forget_errors(watermarks: Sequence[int]) -> None:
        await query_tags.forget_errors(runtime, watermarks)

    publisher.forget_errors = forget_errors
    return runtime


def _nowhere(_destination: Destination) -> ExportSink:
    raise DestinationRefused("This server exports nothing.")
