"""A stored file becomes an instance: all that index, metadata and retrieval need of it.

One pass over the header (`scan`), the rules of the API's version (`validation`), the
place of every frame (`frames`), the metadata as they are kept (`dataset_json`).
Whatever the bytes are, the outcome is a `ReadInstance` or a `Refused`.

Source: PS3.18 10.5, Annex F; PS3.10 7.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dicomweb import (
    attributes,
    dataset_json,
    frames,
    matching,
    part10,
    scan,
    validation,
)
from dicomweb.dataset_json import Metadata
from dicomweb.errors import MalformedInstance
from dicomweb.frames import FrameIndex
from dicomweb.identifiers import is_valid_uid
from dicomweb.query_tags import QueryTag
from dicomweb.scan import BulkElement, Json, Scan
from dicomweb.store_response import FailureReason, Refused, WarningReason
from dicomweb.transfer_syntaxes import IMPLICIT_LITTLE_ENDIAN

PIXEL_DATA = ("7FE00010", "7FE00008", "7FE00009")
"""Pixel Data, Float Pixel Data, Double Float Pixel Data: a file has at most one."""

_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = "7FE00001", "7FE00002"
_SAMPLES_PER_PIXEL, _NUMBER_OF_FRAMES = "00280002", "00280008"
_ROWS, _COLUMNS, _BITS_ALLOCATED = "00280010", "00280011", "00280100"
_RETURNED = tuple(sorted(attributes.RETURNED))

Scalar = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInstance:
    """What is known of a file that may be stored.

    Attributes:
        study_instance_uid: As in the file but for padding; so the other UIDs.
        transfer_syntax_uid: As in the file meta information; where that is missing,
            the one found.
        elements: Root elements (DICOM JSON Model) that some search returns
            (`attributes.RETURNED`), without those that validation dropped, without
            binary values and very long sequences.
        tag_values: Search form by query tag key, only for tags with a value.
        tag_errors: Code of `validation.ErrorCode` by query tag key.
        comments: Validation warnings, one sentence each.
        multiple_values: An indexed attribute has several values; the first counts.
        metadata: The whole data set, without what validation dropped.
        bulk: Binary elements and large values, all levels, in file order.
        frames: None without pixel data or where frames cannot be told apart.
        number_of_frames: How many can be told apart; 0 without pixel data.
        deflated: Offsets are those of the inflated file.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    elements: dict[str, Json]
    tag_values: dict[int, Scalar]
    tag_errors: dict[int, int]
    warning_reason: WarningReason | None
    comments: tuple[str, ...]
    multiple_values: bool
    metadata: Metadata
    bulk: tuple[BulkElement, ...]
    frames: FrameIndex | None
    number_of_frames: int
    deflated: bool


def read(
    buffer: part10.Buffer,
    *,
    study_instance_uid: str | None,
    version: int,
    query_tags: Sequence[QueryTag] = (),
    full_validation: bool = False,
    gather: part10.Gather | None = None,
) -> ReadInstance | Refused:
    """Read a Part 10 file that a client wants stored.

    Args:
        buffer: The whole file.
        study_instance_uid: Of the request's path; instances of other studies are
            refused. None if the path names no study.
        version: Of the API, 1 or 2; see `validation`.
        query_tags: Whose values are wanted.
        full_validation: See `validation.validate`.
        gather: What keeps an inflated file, see `part10.open_file`.

    Returns:
        Refused with `DATA_SET_DOES_NOT_MATCH` for anything that is not a DICOM file,
        is damaged, or breaks a rule; with the UIDs as far as they can be read.

    Source: PS3.18 10.5.
    """
    try:
        found = scan.scan(buffer, gather=gather)
    except MalformedInstance:
        return Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)
    findings = validation.validate(
        found,
        study_instance_uid=study_instance_uid,
        version=version,
        query_tags=query_tags,
        full_validation=full_validation,
    )
    if findings.refusals:
        return Refused(
            FailureReason.DATA_SET_DOES_NOT_MATCH,
            _uid(found.elements, validation.SOP_CLASS_UID),
            _uid(found.elements, validation.SOP_INSTANCE_UID),
            tuple(problem.comment for problem in findings.refusals),
        )
    return _accept(found, findings, query_tags)


def _accept(
    found: Scan, findings: validation.Findings, query_tags: Sequence[QueryTag]
) -> ReadInstance:
    elements = found.elements
    study, series, sop_instance, sop_class = (
        str(elements[tag]["Value"][0])
        for tag in (*validation.IDENTIFYING, validation.SOP_CLASS_UID)
    )
    number_of_frames, frame_index = _frames(found)
    tag_errors = _tag_errors(found, query_tags)
    for problem in findings.warnings:
        if problem.tag not in validation.IDENTIFYING:
            elements.pop(problem.tag, None)
    return ReadInstance(
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop_instance,
        sop_class_uid=sop_class,
        transfer_syntax_uid=found.transfer_syntax_uid,
        elements=_returned(found),
        tag_values=_tag_values(elements, query_tags, tag_errors),
        tag_errors=tag_errors,
        warning_reason=_warning_reason(found, findings),
        comments=tuple(problem.comment for problem in findings.warnings),
        multiple_values=findings.multiple_values,
        metadata=dataset_json.encode(
            elements,
            f"/studies/{study}/series/{series}/instances/{sop_instance}/bulkdata/",
        ),
        bulk=found.bulk,
        frames=frame_index,
        number_of_frames=number_of_frames,
        deflated=found.deflated,
    )


def _uid(elements: Mapping[str, Json], tag: str) -> str | None:
    value = _first(elements, tag)
    return value if isinstance(value, str) and is_valid_uid(value) else None


def _first(elements: Mapping[str, Json], tag: str) -> Any:
    values = elements.get(tag, {}).get("Value")
    return values[0] if values else None


def _integer(elements: Mapping[str, Json], tag: str, default: int) -> int:
    value = _first(elements, tag)
    return value if isinstance(value, int) else default


def _warning_reason(found: Scan, findings: validation.Findings) -> WarningReason | None:
    if found.transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN:
        return WarningReason.IMPLICIT_VR
    return WarningReason.VALIDATION if findings.warnings else None


# --- query tags ------------------------------------------------------------------


def _tag_errors(found: Scan, query_tags: Sequence[QueryTag]) -> dict[int, int]:
    if not query_tags:
        return {}
    resolved = validation.resolve(found.elements, query_tags)
    problems = validation.minimum_problems(found, resolved, lenient=True)
    return {
        resolved[tag].key: int(problem.code)
        for tag, problem in problems.items()
        if problem.code is not None
    }


def _tag_values(
    elements: Mapping[str, Json],
    query_tags: Sequence[QueryTag],
    tag_errors: Mapping[int, int],
) -> dict[int, Scalar]:
    values: dict[int, Scalar] = {}
    for tag, query_tag in validation.resolve(elements, query_tags).items():
        json_values = elements.get(tag, {}).get("Value")
        if json_values and query_tag.key not in tag_errors:
            value = matching.search_form(query_tag.vr, json_values)
            if value is not None:
                values[query_tag.key] = value
    return values


# --- returned elements -----------------------------------------------------------


def _returned(found: Scan) -> dict[str, Json]:
    elements = found.elements
    returned = {
        tag: elements[tag]
        for tag in _RETURNED
        if tag in elements and not _is_packed(elements[tag])
    }
    with_bulk = {bulk.path[:8] for bulk in found.bulk}
    for tag in with_bulk.intersection(returned):
        pruned = _without_bulk({tag: returned[tag]})
        returned = {**returned, **pruned} if pruned else _without(returned, tag)
    return returned


def _is_packed(element: Json) -> bool:
    """Whether it is a sequence so long that `scan` kept the text of its items only."""
    values = element.get("Value") or (None,)
    return isinstance(values[0], orjson.Fragment)


def _without(elements: dict[str, Json], tag: str) -> dict[str, Json]:
    return {key: element for key, element in elements.items() if key != tag}


def _without_bulk(elements: dict[str, Json]) -> dict[str, Json]:
    """A copy without elements whose value is elsewhere, at all levels."""
    kept: dict[str, Json] = {}
    for tag, element in elements.items():
        if "BulkDataURI" in element:
            continue
        if element["vr"] == "SQ" and "Value" in element:
            items = [
                _without_bulk(item) if isinstance(item, dict) else item
                for item in element["Value"]
            ]
            kept[tag] = {"vr": "SQ", "Value": items}
        else:
            kept[tag] = element
    return kept


# --- frames ----------------------------------------------------------------------


def _frames(found: Scan) -> tuple[int, FrameIndex | None]:
    """How many frames can be had, 0 without pixel data, and where they lie."""
    at_root = {bulk.path: bulk for bulk in found.bulk if "/" not in bulk.path}
    pixel_data = next((at_root[tag] for tag in PIXEL_DATA if tag in at_root), None)
    if pixel_data is None:
        return 0, None
    elements = found.elements
    number_of_frames = max(1, _integer(elements, _NUMBER_OF_FRAMES, 1))
    index = frames.build(
        found.buffer,
        transfer_syntax_uid=found.transfer_syntax_uid,
        pixel_data=frames.Position(
            pixel_data.offset, None if pixel_data.encapsulated else pixel_data.length
        ),
        rows=_integer(elements, _ROWS, 0),
        columns=_integer(elements, _COLUMNS, 0),
        samples_per_pixel=_integer(elements, _SAMPLES_PER_PIXEL, 1),
        bits_allocated=_integer(elements, _BITS_ALLOCATED, 0),
        number_of_frames=number_of_frames,
        extended_offsets=_unsigned_64(found, at_root.get(_EXTENDED_OFFSETS)),
        extended_lengths=_unsigned_64(found, at_root.get(_EXTENDED_LENGTHS)),
    )
    # A video is one frame, whatever Number of Frames says.
    return number_of_frames if index is None else index.number_of_frames, index


def _unsigned_64(found: Scan, bulk: BulkElement | None) -> tuple[int, ...] | None:
    """Values of an Extended Offset Table or of its lengths. Source: PS3.3 C.7.6.3."""
    if bulk is None or bulk.length % 8:
        return None
    order = "<" if found.little_endian else ">"
    return struct.unpack_from(f"{order}{bulk.length // 8}Q", found.buffer, bulk.offset)
