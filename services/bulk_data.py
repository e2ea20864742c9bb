"""Bulk data: the values of binary elements, and texts too large for metadata.

Each is one range read of the file. Words of a big endian file are turned around unless
they are asked for as stored, since octets have no byte order of their own.

Source: PS3.18 8.7.3.3.1, 10.4.1.1.5.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from dicomweb import transcoding
from dicomweb.errors import NotFound
from dicomweb.transfer_syntaxes import EXPLICIT_BIG_ENDIAN
from services import documents as doc
from services.retrieve import (
    AS_STORED,
    METADATA_FIELDS,
    Scope,
    StoredFile,
    file_of,
    find_instance,
    inflated,
    metadata_object,
    with_metadata,
)
from services.runtime import Runtime
from stores.ports import Document

_PIXEL_DATA, _BITS_ALLOCATED = "7FE00010", "00280100"


@dataclass(frozen=True, slots=True)
class BulkData:
    """The value of a binary element.

    Attributes:
        size_bytes: Of the value.
        etag: Without quotes.
        word_bytes: Of the words that are to be reversed; 1 where none is.
    """

    file: StoredFile
    offset: int
    size_bytes: int
    etag: str
    word_bytes: int = 1


async def find(
    runtime: Runtime, scope: Scope, path: str, transfer_syntax: str
) -> BulkData:
    """Where the value of a binary element lies.

    Args:
        runtime: The stores.
        scope: One instance.
        path: Tag path as in the BulkDataURI: `7FE00010`, `00081140/0/00880200`.
        transfer_syntax: `*`, or Explicit VR Little Endian: words are little endian.

    Raises:
        NotFound: No such instance or element.

    Source: PS3.18 8.7.3.3.1.
    """
    document = await find_instance(runtime, scope, METADATA_FIELDS)
    document = await with_metadata(runtime, scope.pk, document)
    for bulk in doc.bulk_of(document):
        if bulk.path == path.upper():
            file = file_of(scope.pk, document)
            etag = f"{file.watermark}-{bulk.path.replace('/', '.')}"
            words = 1
            is_big = file.transfer_syntax_uid == EXPLICIT_BIG_ENDIAN
            if is_big and transfer_syntax != AS_STORED:
                words = _word_bytes(document, bulk.path, bulk.vr)
                etag += "-little"
            if bulk.length % words:
                words = 1
            return BulkData(file, bulk.offset, bulk.length, etag, words)
    raise NotFound("The specified bulk data cannot be found.", code="BulkDataNotFound")


def _word_bytes(document: Document, path: str, vr: str) -> int:
    bits = 16
    if path == _PIXEL_DATA:
        described = metadata_object(document, "").get(_BITS_ALLOCATED, {})
        bits = next((v for v in described.get("Value", ()) if isinstance(v, int)), bits)
    return transcoding.word_bytes(path, vr, bits)


async def read(
    runtime: Runtime, bulk: BulkData, offset: int, length: int
) -> AsyncIterator[bytes | memoryview]:
    """Bytes of the value from `offset`."""
    words = bulk.word_bytes
    if words == 1:
        async for chunk in _as_stored(runtime, bulk, offset, length):
            yield chunk
        return
    skipped = offset % words
    whole = -(-(skipped + length) // words) * words
    carried = b""
    async for chunk in _as_stored(runtime, bulk, offset - skipped, whole):
        carried += chunk
        ready = len(carried) // words * words
        turned = transcoding.reversed_words(carried[:ready], words)
        carried = carried[ready:]
        sent = turned[skipped : skipped + length]
        skipped = max(0, skipped - ready)
        length -= len(sent)
        yield sent


async def _as_stored(
    runtime: Runtime, bulk: BulkData, offset: int, length: int
) -> AsyncIterator[bytes | memoryview]:
    start = bulk.offset + offset
    if bulk.file.document.get("defl"):
        whole = await inflated(runtime, bulk.file.name, bulk.file.size_bytes)
        async for chunk in whole.read(start, length):
            yield chunk
        return
    async for chunk in runtime.blobs.read(bulk.file.name, offset=start, length=length):
        yield chunk
