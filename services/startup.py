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
from services.workers import Workers, memory_bytes
from stores.ports import DestinationRefused, ExportSink, OpenSink, Stores


def build(
    settings: Settings,
    stores: Stores,
    *,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
    open_sink: OpenSink | None = None,
) -> Runtime:
    """A runtime on these stores.

    Args:
        settings: Of this process.
        stores: All of them.
        now: The time, UTC.
        new_id: Makes 32 hex digits that nobody else gets.
        open_sink: Opens the destination of an export; None where there are none.
    """
    documents = stores.documents
    catalog = Catalog(documents)
    feed = Feed(documents, now)
    tags = TagRegistry(documents)
    publisher = Publisher(
        documents, catalog, feed, tags, now, settings.delete_delay_seconds
    )
    runtime = Runtime(
        settings=settings,
        documents=documents,
        blobs=stores.blobs,
        journal=stores.journal,
        secrets=stores.secrets,
        now=now,
        new_id=new_id,
        watermarks=Watermarks(documents, now),
        catalog=catalog,
        feed=feed,
        publisher=publisher,
        commits=StudyCommits(documents, publisher, now, new_id),
        partitions=Partitions(documents, now, new_id, enabled=settings.data_partitions),
        tags=tags,
        spool=_spool(stores),
        workers=Workers(memory_bytes(settings.max_transcode_bytes)),
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


def _spool(stores: Stores) -> Spool:
    """Where large parts wait: where the blob store may rename them, if it can."""
    folder = stores.spool_folder
    if folder is None:
        return Spool(Path(tempfile.gettempdir()), movable=False)
    return Spool(folder, movable=True)


def _nowhere(_destination: Destination) -> ExportSink:
    raise DestinationRefused("This server exports nothing.")
