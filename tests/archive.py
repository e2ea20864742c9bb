"""A small archive on any stores, for scrub and rebuild: stored, updated, deleted.

`opened` gives the services on stores that are handed in; `Archive` does to them what
clients do and says what they see.
"""

import dataclasses
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from data import data_set, file_of, instance
from faults import Faults, FaultyBlobs, FaultyDocuments
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from dicomweb.identifiers import DEFAULT_PARTITION
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query import Resource, parse
from services import cleanup, delete, retrieve, search, startup, store, update
from services.retrieve import Scope
from services.runtime import Runtime
from services.settings import Settings
from stores import connect


@asynccontextmanager
async def opened(
    folder: Path, *, faults: Faults | None = None, **settings: Any
) -> AsyncIterator[Runtime]:
    """The services on the stores that the settings name; embedded in the folder."""
    chosen = Settings(data=folder, durability="process-crash", **settings)
    stores = connect.connect(chosen)
    if faults is not None:
        stores = dataclasses.replace(
            stores,
            documents=FaultyDocuments(stores.documents, faults),
            blobs=FaultyBlobs(stores.blobs, faults),
        )
    runtime = startup.build(
        chosen,
        stores,
        now=lambda: datetime.now(UTC),
        new_id=lambda: secrets.token_hex(16),
    )
    try:
        yield runtime
    finally:
        await runtime.publisher.close()
        await runtime.documents.close()
        await runtime.blobs.close()
        await stores.journal.close()
        await stores.secrets.close()


def later(runtime: Runtime, **delta: float) -> Runtime:
    """The same with a clock that is ahead."""
    now = runtime.now
    return dataclasses.replace(runtime, now=lambda: now() + timedelta(**delta))


def large(**values: Any) -> bytes:
    """Metadata and frame index too large for a document: two side blobs."""
    sizes = [2 + 2 * (n * 7919 % 500) for n in range(3000)]
    pixels = {
        "NumberOfFrames": len(sizes),
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 8,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "SelectorUTValue": "".join(secrets.token_hex(4) for _ in range(5000)),
        "PixelData": encapsulate([bytes(size) for size in sizes], has_bot=False),
    }
    return file_of(data_set(**(pixels | values)), transfer_syntax=JPEG2000Lossless)


def small(study: str, number: int, **values: Any) -> bytes:
    """A file whose UIDs say where it belongs."""
    uids = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{1 + number % 2}",
        "SOPInstanceUID": f"{study}.9.{number}",
        "InstanceNumber": number,
    }
    return instance(**(uids | values))


class Archive:
    """One partition of an archive, as a client."""

    def __init__(self, runtime: Runtime, partition: str | None = None) -> None:
        self.runtime = runtime
        self._name = partition

    async def partition(self) -> Any:
        return await self.runtime.partitions.resolve(self._name, create=True)

    async def put(self, *files: bytes) -> None:
        async def events() -> AsyncIterator[Any]:
            for file in files:
                yield PartBegin({})
                yield PartData(file)
                yield PartEnd()

        outcome = await store.store_instances(
            self.runtime,
            await self.partition(),
            events(),
            study_instance_uid=None,
            version=2,
        )
        assert all(hasattr(each, "comments") for each in outcome.results)

    async def delete(self, *scope: str) -> None:
        await delete.delete(self.runtime, Scope(await self.partition(), *scope))

    async def update(self, study: str, job: str, **change: Any) -> None:
        """A bulk update, replaced versions gone; keywords are tags after a `t`."""
        elements = {tag[1:]: value for tag, value in change.items()}
        work = update.Job(
            self.runtime, await self.partition(), study, job * 32, elements
        )
        assert await update.begin(work)
        after = None
        while (staged := await update.stage(work, after)).after is not None:
            assert staged.errors == []
            after = staged.after
        assert await update.flip(work)
        after = await update.fold(work, None)
        while after is not None:
            after = await update.fold(work, after)
        await update.finish(work)
        await cleanup.clean_up(later(self.runtime, hours=1))

    async def search(self, resource: Resource, *pairs: tuple[str, str]) -> list[Any]:
        """All results with all attributes, in the order of the answer."""
        options = [("includefield", "all"), ("limit", "200"), *pairs]
        query = parse(resource, options, version=2, query_tags=())
        found = await search.search(
            self.runtime, await self.partition(), query, "http://t/v2"
        )
        assert found.next_cursor is None
        return found.rows

    async def seen(self) -> dict[str, Any]:
        """Everything that a client sees of the partition."""
        studies = await self.search(Resource.ALL_STUDIES)
        view: dict[str, Any] = {
            "studies": studies,
            "series": await self.search(Resource.ALL_SERIES),
            "instances": await self.search(Resource.ALL_INSTANCES),
        }
        for row in studies:
            uid = row["0020000D"]["Value"][0]
            for original in (False, True):
                view[f"{uid} {original}"] = await self.content(uid, original=original)
        return view

    async def content(self, study: str, *, original: bool = False) -> Any:
        """Files, metadata and frames of a study by SOP Instance UID."""
        scope = Scope(await self.partition(), study)
        runtime = self.runtime
        found = await retrieve.files(runtime, scope, "*", original=original)
        files = {
            each.sop_instance_uid: b"".join(
                [bytes(c) async for c in retrieve.read_file(runtime, each)]
            )
            for each in found
        }
        answer = await retrieve.metadata(runtime, scope, original=original)
        filled = await retrieve.filled(runtime, scope.pk, answer.documents)
        metadata = [retrieve.metadata_object(row, "http://t/v2") for row in filled]
        return files, metadata, [await self.frames(each) for each in found]

    async def frames(self, file: Any) -> list[bytes]:
        """The first frames of an instance, or none."""
        count = min(3, file.document.get("nf", 0))
        if not count:
            return []
        scope = Scope(
            await self.partition(),
            file.study_instance_uid,
            file.series_instance_uid,
            file.sop_instance_uid,
        )
        data = await retrieve.frames(
            self.runtime,
            scope,
            range(1, count + 1),
            media_type="application/octet-stream",
            transfer_syntax="*",
        )
        return [await frame.part(0, frame.size_bytes) async for frame in data.frames]


async def names(runtime: Runtime, ending: str = "") -> list[str]:
    """Names of all blobs with that ending."""
    found = [blob.name async for blob in runtime.blobs.list("")]
    return [name for name in found if name.endswith(ending)]


HERE = DEFAULT_PARTITION
