"""WADO-RS: instances, metadata, frames, bulk data and rendered images.

Everything is found with one in-partition request that also returns `st`, so that a
reader sees whole states; pixel data are range reads of the file as first stored.

Source: PS3.18 10.4.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from dicomweb import dataset_json, image_memory, part10, rendering, transcoding
from dicomweb.errors import (
    InvalidRequest,
    NotAcceptable,
    NotFound,
    StoreUnavailable,
)
from dicomweb.frames import FrameIndex
from dicomweb.identifiers import Partition, uid_key
from dicomweb.transfer_syntaxes import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    LITTLE_ENDIAN,
)
from services import documents as doc
from services import results
from services.results import Result
from services.runtime import Runtime
from services.workers import ALONE
from stores import containers
from stores.ports import (
    Condition,
    Document,
    Equals,
    In,
    Or,
    Order,
    Prefix,
    Query,
    Scalar,
)

AS_STORED = "*"
_PAGE = 5000
_TRIES = 20
_CHECKED_AT_ONCE = 50

FILE_FIELDS = ("w", "ow", "u", "ts", "len", "sha", "defl", "next", "first", "nf")
METADATA_FIELDS = (*FILE_FIELDS, "m", "z", "mb", "b", "zn")
FRAME_FIELDS = (*FILE_FIELDS, "fx", "fb")
RENDER_FIELDS = (*FRAME_FIELDS, "m", "z", "mb", "b")


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a study is meant; UIDs as the client wrote them."""

    partition: Partition
    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None

    @property
    def pk(self) -> str:
        """Logical partition of the study."""
        return doc.study_pk(self.partition, self.study_instance_uid)

    def not_found(self) -> NotFound:
        """The error that names the level."""
        if self.sop_instance_uid is not None:
            return NotFound(
                "The specified instance cannot be found.", code="InstanceNotFound"
            )
        if self.series_instance_uid is not None:
            return NotFound(
                "The specified series cannot be found.", code="SeriesNotFound"
            )
        return NotFound("The specified study cannot be found.", code="StudyNotFound")

    def condition(self) -> Condition:
        """Its instances and the study document."""
        study = Equals(("id",), doc.STUDY)
        if self.sop_instance_uid is not None and self.series_instance_uid is not None:
            id = doc.instance_id(self.series_instance_uid, self.sop_instance_uid)
            return In(("id",), (doc.STUDY, id))
        prefix = "i:"
        if self.series_instance_uid is not None:
            prefix += uid_key(self.series_instance_uid) + ":"
        return Or((study, Prefix(("id",), prefix)))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A version of an instance as it lies in the blob store.

    Attributes:
        name: Of the blob.
        document: What was read of its index document.
        work_bytes: Memory for the work on a frame, where it is to be transcoded.
    """

    name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    sha256: str
    watermark: int
    document: Document
    work_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FrameData:
    """Frames of one instance, ready to be read.

    Attributes:
        transfer_syntax_uid: Of what `frames` yields.
        frames: The frames in the order asked for.
        sizes_bytes: Their lengths in that order; None where not known beforehand.
    """

    transfer_syntax_uid: str
    frames: AsyncIterator[Result]
    etag: str
    sizes_bytes: tuple[int | None, ...]


# --- finding -----------------------------------------------------------------------


async def find_instances(
    runtime: Runtime,
    scope: Scope,
    fields: Sequence[str] = FILE_FIELDS,
    *,
    original: bool = False,
) -> list[Document]:
    """Documents of the instances, current or original version, by id descending.

    Raises:
        NotFound: None there.
    """
    for _ in range(_TRIES):
        found = await _whole_state(runtime, scope, fields, original=original)
        if found is not None:
            break
    else:
        raise StoreUnavailable("The study is being updated. Please retry.")
    if not found:
        raise scope.not_found()
    return found


async def _whole_state(
    runtime: Runtime, scope: Scope, fields: Sequence[str], *, original: bool
) -> list[Document] | None:
    """The instances of a live study, none when it is not live.

    None in place of a list when an update became current between two pages: what was
    read then would be part old, part new.
    """
    order = (Order(("id",), descending=True),)
    query = Query(scope.condition(), order, ("state", "flipped", "updated", *fields))
    after: tuple[Scalar, ...] | None = None
    study: Document | None = None
    found: list[Document] = []
    while True:
        page = await runtime.documents.query(
            containers.DICOM, query, partition_key=scope.pk, limit=_PAGE, after=after
        )
        rows = page.documents
        if study is None:
            # `st` sorts after every `i:…`, so descending it is the first row.
            if not rows or rows[0]["id"] != doc.STUDY or rows[0]["state"] != doc.LIVE:
                return []
            study, rows = rows[0], rows[1:]
        found += [doc.version_of(study, row, original=original) for row in rows]
        if page.after is None:
            break
        after = page.after
    if after is not None:
        now = await runtime.documents.read(containers.DICOM, scope.pk, doc.STUDY)
        if now is None or now.get("updated") != study.get("updated"):
            return None
    return found


async def find_instance(
    runtime: Runtime, scope: Scope, fields: Sequence[str], *, original: bool = False
) -> Document:
    """The document of the one instance of the scope.

    Raises:
        NotFound: It is not there.
    """
    return (await find_instances(runtime, scope, fields, original=original))[0]


def file_of(pk: str, document: Document) -> StoredFile:
    """The file of an instance document, read with `FILE_FIELDS` at least."""
    study, series, sop = document["u"]
    return StoredFile(
        name=doc.blob_name(pk, document["id"], document["w"], document["ow"]),
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop,
        transfer_syntax_uid=document["ts"],
        size_bytes=document["len"],
        sha256=document["sha"],
        watermark=document["w"],
        document=document,
    )


# --- instances ---------------------------------------------------------------------


async def files(
    runtime: Runtime, scope: Scope, transfer_syntax: str, *, original: bool = False
) -> list[StoredFile]:
    """The files of the scope, each servable in the transfer syntax.

    Raises:
        NotFound: No such study, series or instance.
        NotAcceptable: A file can neither be sent as it is nor be transcoded.
    """
    documents = await find_instances(runtime, scope, original=original)
    found = [file_of(scope.pk, document) for document in documents]
    if transfer_syntax != AS_STORED:
        for file in found:
            _check_transcodable(runtime, file, transfer_syntax)
        found = await _with_work(runtime, scope, found, transfer_syntax)
    return found


async def files_after(
    runtime: Runtime, scope: Scope, after: str | None, *, limit: int
) -> tuple[list[StoredFile], str | None]:
    """A page of the scope's files in their current version.

    Args:
        runtime: The stores.
        scope: What to look at.
        after: From the call before; None at first.
        limit: How many files.

    Returns:
        The files, none where the scope has no more, and where the next page starts;
        None at the end.
    """
    study = await runtime.documents.read(containers.DICOM, scope.pk, doc.STUDY)
    if study is None or study["state"] != doc.LIVE:
        return [], None
    page = await runtime.documents.query(
        containers.DICOM,
        Query(scope.condition(), (Order(("id",)),), FILE_FIELDS),
        partition_key=scope.pk,
        limit=limit,
        after=None if after is None else (after,),
    )
    rows = [row for row in page.documents if row["id"] != doc.STUDY]
    found = [
        file_of(scope.pk, doc.version_of(study, row, original=False)) for row in rows
    ]
    more = page.after is not None and len(rows) == len(page.documents)
    return found, rows[-1]["id"] if more and rows else None


async def _with_work(
    runtime: Runtime, scope: Scope, found: Sequence[StoredFile], target: str
) -> list[StoredFile]:
    """The files, with the memory that the decoding of their frames will take.

    Raises:
        NotAcceptable: An image is too large or too deep; no byte has been sent yet.
    """
    ids = [
        file.document["id"]
        for file in found
        if file.document.get("nf")
        and transcoding.decodes(file.transfer_syntax_uid, target)
    ]
    needed: dict[str, int] = {}
    for first in range(0, len(ids), _CHECKED_AT_ONCE):
        chosen = tuple(ids[first : first + _CHECKED_AT_ONCE])
        page = await runtime.documents.query(
            containers.DICOM,
            Query(In(("id",), chosen), (Order(("id",)),), METADATA_FIELDS),
            partition_key=scope.pk,
            limit=_CHECKED_AT_ONCE,
        )
        documents = await filled(runtime, scope.pk, page.documents)
        needed |= await runtime.workers.run(0, _work_of, documents, target)
    checked = [
        replace(file, work_bytes=needed.get(file.document["id"], 0)) for file in found
    ]
    for file in checked:
        if not is_as_stored(file, target):
            check_memory(runtime, file.size_bytes + file.work_bytes)
    return checked


def _work_of(documents: Sequence[Document], target: str) -> dict[str, int]:
    needed = {}
    for document in documents:
        description = rendering.describe(metadata_object(document, ""))
        transcoding.check_image(description, target)
        frame_bytes = document["len"] // description.number_of_frames
        work = image_memory.transcoding(
            description, document["ts"], target, frame_bytes
        )
        if target == transcoding.JPEG_2000_LOSSLESS:
            work += min(transcoding.GATHERED_BYTES, description.decoded_bytes)
        needed[document["id"]] = work
    return needed


def check_memory(runtime: Runtime, needed: int) -> None:
    """Refuses work on an image that would need too much memory.

    Raises:
        NotAcceptable: It is more than all such work together may have.
    """
    limit = runtime.workers.memory_bytes
    if needed > limit:
        raise NotAcceptable(
            f"Images are decoded in at most {limit} bytes of memory, and this one needs"
            " more; transfer-syntax=* gets it as stored."
        )


def _check_transcodable(runtime: Runtime, file: StoredFile, target: str) -> None:
    if file.transfer_syntax_uid == target:
        return
    if not transcoding.can_transcode(file.transfer_syntax_uid, target):
        raise NotAcceptable(
            f"An instance in transfer syntax {file.transfer_syntax_uid} cannot be sent"
            f" as {target}; transfer-syntax=* gets it as stored."
        )
    if target == transcoding.JPEG_2000_LOSSLESS and not file.document.get("nf"):
        raise NotAcceptable(
            "An instance that is no image cannot be compressed; transfer-syntax=* gets"
            " it as stored."
        )
    limit = runtime.settings.max_transcode_bytes
    if file.size_bytes > limit:
        raise NotAcceptable(
            f"An instance of more than {limit} bytes is not transcoded;"
            " transfer-syntax=* gets it as stored."
        )


def sent_syntax(file: StoredFile, transfer_syntax: str) -> str:
    """The transfer syntax in which the file is sent."""
    return file.transfer_syntax_uid if transfer_syntax == AS_STORED else transfer_syntax


def is_as_stored(file: StoredFile, transfer_syntax: str) -> bool:
    """Whether the file is sent byte for byte."""
    return transfer_syntax in {AS_STORED, file.transfer_syntax_uid}


def read_file(
    runtime: Runtime, file: StoredFile, *, offset: int = 0, length: int | None = None
) -> AsyncIterator[bytes | memoryview]:
    """Bytes of the file as stored, from `offset`."""
    return runtime.blobs.read(file.name, offset=offset, length=length)


async def transcoded_file(runtime: Runtime, file: StoredFile, target: str) -> Result:
    """The whole file in another transfer syntax.

    Raises:
        NotAcceptable: The codec failed.
    """
    workers, folder = runtime.workers, runtime.spool.folder
    is_deflated = bool(file.document.get("defl"))
    needed = file.size_bytes + file.work_bytes
    async with workers.room(ALONE if is_deflated else needed):
        data = await runtime.blobs.read_range(file.name, 0, file.size_bytes)
        limit = runtime.settings.max_transcode_bytes
        if is_deflated:
            limit = min(limit, max(1, workers.memory_bytes - needed))
        pieces = transcoding.transcoded_pieces(data, target, max_bytes=limit)
        return await workers.run(0, results.written, pieces, folder)


# --- metadata ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetadataAnswer:
    """Metadata of a scope.

    Attributes:
        etag: `{highest watermark}-{count}`, for one instance its watermark.
        documents: Pages of instance documents, side blobs filled in when read.
    """

    etag: str
    documents: list[Document]


async def metadata(
    runtime: Runtime, scope: Scope, *, original: bool = False
) -> MetadataAnswer:
    """Instances with their metadata.

    Raises:
        NotFound: No such study, series or instance.
    """
    documents = await find_instances(runtime, scope, METADATA_FIELDS, original=original)
    newest = max(_current_watermark(document) for document in documents)
    if scope.sop_instance_uid is not None:
        return MetadataAnswer(str(newest), documents)
    return MetadataAnswer(f"{newest}-{len(documents)}", documents)


def _current_watermark(document: Document) -> int:
    watermark: int = document["cw"] if "cw" in document else document["w"]
    return watermark


async def with_metadata(runtime: Runtime, pk: str, document: Document) -> Document:
    """The document with metadata inline, read from the side blob if needed."""
    if not document.get("mb"):
        return document
    name = doc.blob_name(pk, document["id"], document["w"], document["ow"])
    blob = await _side_blob(runtime, doc.metadata_blob_name(name))
    return doc.put_back_metadata(document, blob)


async def _side_blob(runtime: Runtime, name: str) -> bytes:
    chunks = [bytes(chunk) async for chunk in runtime.blobs.read(name)]
    return b"".join(chunks)


async def filled(
    runtime: Runtime, pk: str, documents: Sequence[Document]
) -> list[Document]:
    """The documents, all with metadata inline."""
    return [await with_metadata(runtime, pk, document) for document in documents]


def metadata_array(documents: Sequence[Document], base: str) -> bytes:
    """The DICOM JSON array as a zlib stream (`Content-Encoding: deflate`)."""
    stored = (doc.metadata_of(document) for document in documents)
    return b"".join(dataset_json.deflate_array(stored, base))


def metadata_object(document: Document, base: str) -> dict[str, Any]:
    """The DICOM JSON of one instance, decoded; its metadata must be inline."""
    decoded: dict[str, Any] = orjson.loads(
        dataset_json.inflate(doc.metadata_of(document), base)
    )
    return decoded


# --- frames ------------------------------------------------------------------------


def _no_frame() -> NotFound:
    return NotFound("The specified frame cannot be found.", code="FrameNotFound")


async def frames(
    runtime: Runtime,
    scope: Scope,
    frame_numbers: Sequence[int],
    *,
    media_type: str,
    transfer_syntax: str,
) -> FrameData:
    """The frames, transcoded where another transfer syntax is asked for.

    Args:
        runtime: The stores.
        scope: One instance.
        frame_numbers: 1-based; order and repetitions are kept.
        media_type: For messages.
        transfer_syntax: A UID or `*`.

    Raises:
        NotFound: No such instance, or a number beyond its frames.
        NotAcceptable: The frames cannot be sent in that transfer syntax.
        InvalidRequest: A number below 1.
    """
    if not frame_numbers or min(frame_numbers) < 1:
        raise InvalidRequest(
            "The frame list is not valid: at least one number, all greater than 0."
        )
    fields = FRAME_FIELDS if transfer_syntax == AS_STORED else RENDER_FIELDS
    document = await find_instance(runtime, scope, fields)
    if max(frame_numbers) > document.get("nf", 0):
        raise _no_frame()
    source = document["ts"]
    target = source if transfer_syntax == AS_STORED else transfer_syntax
    pixel = _FrameReader(runtime, scope.pk, document)
    await pixel.open()
    if _same_frames(source, target):
        return FrameData(
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN
            if source in LITTLE_ENDIAN
            else source,
            frames=pixel.read_all(frame_numbers),
            etag=f"{document['w']}-{frame_numbers[0]}",
            sizes_bytes=tuple(map(pixel.size, frame_numbers)),
        )
    if not transcoding.can_transcode(source, target):
        raise NotAcceptable(
            f"Frames in transfer syntax {source} cannot be sent as {target} in"
            f" {media_type}; transfer-syntax=* gets them as stored."
        )
    description = await pixel.describe()
    first = await pixel.transcode(frame_numbers[0], target, description)
    return FrameData(
        transfer_syntax_uid=target,
        frames=pixel.transcode_rest(first, frame_numbers, target, description),
        etag=f"{document['w']}-{frame_numbers[0]}-{target}",
        sizes_bytes=(first.size_bytes, *(None for _ in frame_numbers[1:])),
    )


def _same_frames(source: str, target: str) -> bool:
    """Whether a frame is the same bytes in both transfer syntaxes."""
    return source == target or (source in LITTLE_ENDIAN and target in LITTLE_ENDIAN)


class _FrameReader:
    """Reads frames of one instance from the file as first stored."""

    def __init__(self, runtime: Runtime, pk: str, document: Document) -> None:
        self._runtime = runtime
        self._pk = pk
        self._document = document
        self._name = doc.original_blob_name(pk, document)
        self._index: FrameIndex | None = None
        self._whole: Result | None = None

    async def open(self) -> None:
        """Gets the frame index; reads the whole file where there is none.

        Raises:
            NotFound: The frames cannot be told apart.
            NotAcceptable: The file is too large to be searched for frames.
        """
        document = self._document
        if document.get("fb"):
            blob = await _side_blob(self._runtime, doc.frames_blob_name(self._name))
            document = document | {"fx": orjson.loads(blob)}
        self._index = doc.frames_of(document)
        if self._index is None:
            raise _no_frame()
        if document.get("defl"):
            size_bytes = document.get("first", document)["len"]
            self._check_size(size_bytes)
            self._whole = await inflated(self._runtime, self._name, size_bytes)

    def _check_size(self, size_bytes: int) -> None:
        limit = self._runtime.settings.max_transcode_bytes
        if size_bytes > limit:
            raise NotAcceptable(
                f"Frames of an instance of more than {limit} bytes cannot be taken"
                " out of its deflated file; transfer-syntax=* gets it as stored."
            )

    def size(self, frame_number: int) -> int | None:
        """Length of the frame in bytes when it needs no work to tell."""
        assert self._index is not None
        if self._index.bit_shift(frame_number - 1):
            return None
        return sum(length for _, length in self._index.ranges(frame_number - 1))

    async def read(self, frame_number: int) -> bytes:
        """One frame as stored: one range read."""
        assert self._index is not None
        offset, length = self._index.cover(frame_number - 1)
        if self._whole is not None:
            covering = await self._whole.part(offset, length)
        else:
            covering = await self._runtime.blobs.read_range(self._name, offset, length)
        return self._index.extract(frame_number - 1, covering)

    async def read_all(self, frame_numbers: Sequence[int]) -> AsyncIterator[Result]:
        """Frames as stored, in that order; large ones are read while they are sent."""
        for frame_number in frame_numbers:
            size_bytes = self.size(frame_number)
            if size_bytes is None or size_bytes <= results.MEMORY_BYTES:
                yield results.in_memory(await self.read(frame_number))
            else:
                yield Result(size_bytes, partial(self._stream, frame_number))

    async def _stream(
        self, frame_number: int, offset: int, length: int
    ) -> AsyncIterator[bytes | memoryview]:
        """Bytes of a frame that starts on a byte, fragment by fragment."""
        assert self._index is not None
        blobs, whole = self._runtime.blobs, self._whole
        for start, size in self._index.ranges(frame_number - 1):
            taken = max(0, min(size - offset, length))
            if taken:
                at = start + offset
                async for chunk in (
                    blobs.read(self._name, offset=at, length=taken)
                    if whole is None
                    else whole.read(at, taken)
                ):
                    yield chunk
            offset = max(0, offset - size)
            length -= taken

    async def describe(self) -> dict[str, Any]:
        """DICOM JSON of the instance, with what codecs need to know."""
        document = await with_metadata(self._runtime, self._pk, self._document)
        self._document = document
        return metadata_object(document, "")

    async def transcode(
        self, frame_number: int, target: str, dataset: dict[str, Any]
    ) -> Result:
        """One frame in another transfer syntax."""
        description = rendering.describe(dataset)
        source = self._document["ts"]
        needed = image_memory.transcoding(
            description, source, target, self._stored_bytes(frame_number)
        )
        return await self._worked(
            frame_number,
            needed,
            lambda frame: transcoding.transcode_frame(
                frame, source, target, description
            ),
        )

    async def render(
        self,
        frame_number: int,
        description: rendering.PixelDescription,
        media_type: rendering.MediaType,
        quality: int,
    ) -> Result:
        """One frame as a picture."""
        source = self._document["ts"]
        needed = image_memory.rendering(
            description,
            source,
            self._stored_bytes(frame_number),
            as_png=media_type == "image/png",
        )
        palette = [await self.bulk_value(tag) for tag in description.palette_tags]
        return await self._worked(
            frame_number,
            needed,
            lambda frame: rendering.render(
                frame,
                source,
                description,
                media_type=media_type,
                quality=quality,
                palette=palette or None,
            ),
        )

    def _stored_bytes(self, frame_number: int) -> int:
        assert self._index is not None
        return self._index.cover(frame_number - 1)[1]

    async def _worked(
        self, frame_number: int, needed: int, work: Callable[[bytes], bytes]
    ) -> Result:
        """What the work makes of the frame; both in memory only while there is room.

        Raises:
            NotAcceptable: It needs more memory than all such work may have.
        """
        workers, folder = self._runtime.workers, self._runtime.spool.folder
        check_memory(self._runtime, needed)
        async with workers.room(needed):
            frame = await self.read(frame_number)
            return await workers.run(0, lambda: results.put_aside(work(frame), folder))

    async def transcode_rest(
        self,
        first: Result,
        frame_numbers: Sequence[int],
        target: str,
        dataset: dict[str, Any],
    ) -> AsyncIterator[Result]:
        """The first frame, which is done already, and the others."""
        yield first
        for frame_number in frame_numbers[1:]:
            yield await self.transcode(frame_number, target, dataset)

    async def tables(self, uris: Iterable[str]) -> dict[str, bytes]:
        """Values of lookup tables, words in little endian, by their BulkDataURI."""
        words = 2 if self._document["ts"] == EXPLICIT_BIG_ENDIAN else 1
        return {
            uri: transcoding.reversed_words(
                await self.bulk_value(uri.rpartition("/bulkdata/")[2]), words
            )
            for uri in uris
        }

    async def bulk_value(self, path: str) -> bytes:
        """Bytes of a table (a palette), at most `_TABLE_BYTES`; none where absent."""
        for bulk in doc.bulk_of(self._document):
            if bulk.path == path:
                offset, length = bulk.offset, min(bulk.length, _TABLE_BYTES)
                name = doc.current_blob_name(self._pk, self._document)
                if not self._document.get("defl"):
                    return await self._runtime.blobs.read_range(name, offset, length)
                whole = self._whole
                if whole is None or name != self._name:
                    whole = await inflated(self._runtime, name, self._document["len"])
                return await whole.part(offset, length)
        return b""


_TABLE_BYTES = 1 << 20
"""More than any lookup table or palette needs, also one in segments."""


# --- rendered ----------------------------------------------------------------------


async def rendered(
    runtime: Runtime,
    scope: Scope,
    frame_number: int,
    *,
    media_type: rendering.MediaType,
    quality: int,
) -> Result:
    """One frame as JPEG or PNG; exactly that frame is read and decoded.

    Args:
        runtime: The stores.
        scope: One instance.
        frame_number: 1-based.
        media_type: `image/jpeg` or `image/png`.
        quality: 1 to 100, for JPEG.

    Raises:
        NotFound: No such instance or frame.
        NotAcceptable: Too large, or it cannot be decoded.
    """
    document = await find_instance(runtime, scope, RENDER_FIELDS)
    if not 1 <= frame_number <= document.get("nf", 0):
        raise _no_frame()
    reader = _FrameReader(runtime, scope.pk, document)
    await reader.open()
    dataset = await reader.describe()
    tables = await reader.tables(rendering.tables_elsewhere(dataset, frame_number - 1))
    description = rendering.describe(dataset, frame_number - 1, tables)
    if description.decoded_bytes > runtime.settings.max_transcode_bytes:
        raise NotAcceptable("The frame is too large to be rendered.")
    return await reader.render(frame_number, description, media_type, quality)


async def inflated(runtime: Runtime, name: str, size_bytes: int) -> Result:
    """The file with its data set inflated, as frame and bulk offsets count it."""
    async with runtime.workers.room(2 * size_bytes):
        data = await runtime.blobs.read_range(name, 0, size_bytes)
        return await runtime.workers.run(
            0,
            lambda: results.written(part10.inflated_pieces(data), runtime.spool.folder),
        )
