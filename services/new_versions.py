"""The new version of one instance in a bulk update: its file, metadata and document.

The header of the file is rewritten; what follows the last attribute that may change is
copied by the store and never read here.
"""

import hashlib
from dataclasses import replace
from typing import Any

from dicomweb import attributes, dataset_json
from dicomweb.update import Change, Rewritten, rewrite
from services import documents as doc
from services import retrieve
from services.runtime import Runtime
from services.workers import ALONE
from stores.ports import BytesSource, Document

WHOLE_FILE_BYTES = 4 * 1024 * 1024
LARGE_VALUE_BYTES = 64 * 1024


async def with_new_version(
    runtime: Runtime,
    pk: str,
    row: Document,
    watermark: int,
    job_id: str,
    change: Change,
) -> Document:
    """The document with `next`, whose blobs are stored.

    Args:
        runtime: The stores.
        pk: Logical partition of the study.
        row: Of an instance; its current version is changed.
        watermark: Of the new version.
        job_id: Of the update.
        change: What is new.

    Raises:
        BlobMissing: The current file is not there.
        MalformedInstance: It cannot be read.
        InvalidRequest: A value cannot be written in its character set.
    """
    current = await retrieve.with_metadata(runtime, pk, row)
    old_name = doc.current_blob_name(pk, row)
    name = doc.blob_name(pk, row["id"], watermark, row["ow"])
    header = await runtime.blobs.read_range(old_name, 0, _header_bytes(current))
    needed = ALONE if current.get("defl") else 2 * len(header)
    elements = retrieve.metadata_object(current, "")
    rewritten = await runtime.workers.run(
        needed, rewrite, header, change, present=elements.keys()
    )
    size = len(rewritten.head) + row["len"] - rewritten.offset
    sha = None
    if row["len"] <= WHOLE_FILE_BYTES or rewritten.offset >= row["len"]:
        whole = rewritten.head + header[rewritten.offset :]
        sha = hashlib.sha256(whole).hexdigest()
        await runtime.blobs.put([(name, BytesSource(whole))])
    else:
        await runtime.blobs.splice(name, rewritten.head, old_name, rewritten.offset)
    version = _new_metadata(current, elements, rewritten, change)
    for blob, data in doc.move_large_fields(name, version):
        await runtime.blobs.put([(blob, BytesSource(data))])
    document = {k: v for k, v in row.items() if k not in {"_etag", "pk", "zn"}}
    document["next"] = {
        "job": job_id,
        "w": watermark,
        "len": size,
        "sha": sha,
        "a": version["a"],
        "m": version.get("m"),
        "b": version.get("b", ""),
        "mb": bool(version.get("mb")),
    }
    if "z" in version:
        document["zn"] = version["z"]
    return document


def _header_bytes(row: Document) -> int:
    """How much of the file has every element that may change."""
    length: int = row["len"]
    if row.get("defl") or length <= WHOLE_FILE_BYTES:
        return length
    large: list[int] = [
        bulk.offset
        for bulk in doc.bulk_of(row)
        if bulk.length >= LARGE_VALUE_BYTES and bulk.path[:8] > "00403001"
    ]
    return min([length, *large])


def _new_metadata(
    current: Document, elements: dict[str, Any], rewritten: Rewritten, change: Change
) -> Document:
    """`m`, `z`, `b` and `a` of the new version; `elements` are those of the old."""
    study, series, sop = current["u"]
    _shorten_uris(elements)
    for tag, element in change.items():
        if element is None:
            elements.pop(tag, None)
        else:
            elements[tag] = dict(element)
    elements = dict(sorted(elements.items()))
    metadata = dataset_json.encode(
        elements, f"/studies/{study}/series/{series}/instances/{sop}/bulkdata/"
    )
    bulk = (
        replace(bulk, offset=rewritten.moved(bulk.offset))
        for bulk in doc.bulk_of(current)
        if bulk.path[:8] not in change
    )
    return {
        "m": metadata.to_json(),
        "z": metadata.data,
        "b": doc.bulk_text(bulk),
        "a": doc.level_elements(elements, attributes.INSTANCE_ALL),
    }


def _shorten_uris(elements: dict[str, Any]) -> None:
    """Makes each BulkDataURI the path it was before it was stored."""
    for element in elements.values():
        uri = element.get("BulkDataURI")
        if uri is not None:
            element["BulkDataURI"] = uri.split("/bulkdata/", 1)[1]
        elif element.get("vr") == "SQ":
            for item in element.get("Value", ()):
                _shorten_uris(item)
