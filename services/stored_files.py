"""Stored files read anew: for scrub, which checks them, and for a rebuild of the index.

Reading is what a store does, with the rules of version 2 of the API.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import orjson

from dicomweb import instance
from dicomweb.instance import ReadInstance
from dicomweb.query_tags import QueryTag
from dicomweb.store_response import Refused
from services import documents as doc
from services import results
from services.runtime import Runtime
from services.spool import SpooledPart
from stores.ports import Blobs

IN_LOOP_BYTES = 64 * 1024


async def digest(blobs: Blobs, name: str) -> tuple[int, str]:
    """Size and SHA-256 (hex) of a blob.

    Raises:
        BlobMissing: No such blob.
    """
    seen = hashlib.sha256()
    size_bytes = 0
    async for chunk in blobs.read(name):
        size_bytes += len(chunk)
        if len(chunk) > IN_LOOP_BYTES:
            await asyncio.to_thread(seen.update, chunk)
        else:
            seen.update(chunk)
    return size_bytes, seen.hexdigest()


@asynccontextmanager
async def spooled(
    runtime: Runtime, name: str, blobs: Blobs | None = None
) -> AsyncIterator[SpooledPart]:
    """The blob in memory, or in a file where it is large, until the end of the block.

    Args:
        runtime: The stores.
        name: Of the blob.
        blobs: Where it is, if not in the runtime's own store.

    Raises:
        BlobMissing: No such blob.
    """
    part = runtime.spool.part()
    try:
        async for chunk in (blobs or runtime.blobs).read(name):
            await part.append(chunk)
        await part.finish()
        yield part
    finally:
        part.discard()


async def read(
    runtime: Runtime, part: SpooledPart, query_tags: Sequence[QueryTag] = ()
) -> ReadInstance | Refused:
    """The instance of a file that is stored already."""

    def work() -> ReadInstance | Refused:
        return instance.read(
            part.buffer,
            study_instance_uid=None,
            version=2,
            query_tags=query_tags,
            full_validation=runtime.settings.full_validation,
            gather=partial(results.gathered, folder=runtime.spool.folder),
        )

    if part.size_bytes < IN_LOOP_BYTES:
        return work()
    return await runtime.workers.run(0, work)


def metadata_blob(read: ReadInstance) -> bytes:
    """The side blob of the metadata, whether or not they need one."""
    metadata = read.metadata
    described = {"m": metadata.to_json(), "b": doc.bulk_text(read.bulk)}
    return doc.metadata_blob(described | {"z": metadata.data})


def side_blobs(
    read: ReadInstance, name: str, *, metadata: bool, frames: bool
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the side blobs of a file."""
    if metadata:
        yield doc.metadata_blob_name(name), metadata_blob(read)
    if frames and read.frames is not None:
        yield doc.frames_blob_name(name), orjson.dumps(read.frames.to_json())
