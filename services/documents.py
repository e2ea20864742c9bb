"""The documents of the index: ids, keys and fields, in one place.

Container `dicom` is the authority, one logical partition per study (`study_pk`):

    st                    the study: state, revision, counts, merged attributes
    se:{series}           a series: count, merged attributes
    i:{series}:{sop}      an instance: versions, frame index, metadata
    ev:{rev}              what one commit did; outbox of catalog, feed and cleanup
    en:{token}:{number}   entries of an `ev` that has too many for one document

Container `catalog` repeats `st` and `se` in search form. Renaming a field or an id is
a breaking change of the data format (`stores.containers.DATA_FORMAT`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from dicomweb import attributes, matching
from dicomweb import frames as frame_index
from dicomweb.dataset_json import Metadata
from dicomweb.frames import FrameIndex
from dicomweb.identifiers import Partition, uid_key
from dicomweb.instance import ReadInstance
from dicomweb.query_tags import Level, QueryTag
from dicomweb.scan import BulkElement
from stores.ports import Document, Scalar

STUDY = "st"
LIVE, DELETING, GONE = "live", "deleting", "gone"
CREATE_ACTION, UPDATE_ACTION, DELETE_ACTION = "Create", "Update", "Delete"

INLINE_METADATA_BYTES = 16 * 1024
INLINE_FRAMES_BYTES = 8 * 1024
_LARGE = 16 * 1024
"""Bytes of an element that only the metadata keep, so no search returns it."""
GONE_SECONDS = 7 * 24 * 3600
DONE_SECONDS = 2 * 3600

MODALITY = "00080060"
STUDY_CORE = tuple(
    a for a in attributes.CORE if a.level is Level.STUDY and not a.computed
)
SERIES_CORE = tuple(a for a in attributes.CORE if a.level is Level.SERIES)
STUDY_CORE_TAGS = tuple(attribute.tag for attribute in STUDY_CORE)
SERIES_CORE_TAGS = tuple(attribute.tag for attribute in SERIES_CORE)

STUDY_RETURNED = frozenset(attributes.STUDY_ALL)

Elements = dict[str, Any]
"""DICOM JSON elements by tag (8 hex digits, upper case)."""


# --- keys ------------------------------------------------------------------------


def study_pk(partition: Partition, study_instance_uid: str) -> str:
    """Logical partition of a study."""
    return f"{partition.key}|{uid_key(study_instance_uid)}"


def series_id(series_instance_uid: str) -> str:
    """Id of a series document."""
    return f"se:{uid_key(series_instance_uid)}"


def instance_id(series_instance_uid: str, sop_instance_uid: str) -> str:
    """Id of an instance document."""
    return f"i:{uid_key(series_instance_uid)}:{uid_key(sop_instance_uid)}"


def event_id(revision: int) -> str:
    """Id of the event document of a commit."""
    return f"ev:{revision}"


def sort_key(watermark: int) -> str:
    """Watermark as text that sorts as the number does."""
    return f"{watermark:019d}"


def scope_key(kind: str, partition: Partition) -> str:
    """Value of `k`: what a search across studies runs on (`st`, `se`, `i`)."""
    return f"{kind}|{partition.key}"


# --- blob names ------------------------------------------------------------------


def study_folder(partition_key: str, study_key: str) -> str:
    """Prefix of all blobs of a study, ending with `/`."""
    digest = hashlib.sha256(f"{partition_key}{study_key}".encode()).hexdigest()
    return f"{digest[:3]}/{partition_key}/{study_key}/"


def blob_name(pk: str, instance_document_id: str, watermark: int, original: int) -> str:
    """Name of the file of one version of an instance.

    Args:
        pk: Logical partition of the study.
        instance_document_id: `i:{series}:{sop}`.
        watermark: Of the version.
        original: Of the first version; equal to `watermark` before any update.
    """
    partition_key, study_key = pk.split("|", 1)
    _, series_key, sop_key = instance_document_id.split(":")
    version = str(watermark) if watermark == original else f"{original}_{watermark}"
    return (
        f"{study_folder(partition_key, study_key)}{series_key}/{sop_key}_{version}.dcm"
    )


def metadata_blob_name(file_name: str) -> str:
    """Name of the side blob that holds metadata too large for the document."""
    return file_name.removesuffix(".dcm") + ".metadata"


def frames_blob_name(file_name: str) -> str:
    """Name of the side blob that holds a frame index too large for the document."""
    return file_name.removesuffix(".dcm") + ".frames"


def deleted_manifest_name(pk: str, event: Document) -> str:
    """Name of the blob that lists what a delete commit removed.

    The token keeps apart two commits that compete for the same revision.
    """
    partition_key, study_key = pk.split("|", 1)
    folder = study_folder(partition_key, study_key)
    return f"{folder}deleted/{event['rev']}_{event['token']}.json"


def is_manifest(name: str) -> bool:
    """Whether the blob of this name lists what a delete commit removed."""
    return name.endswith(".json") and "/deleted/" in name


def current_blob_name(pk: str, instance: Document) -> str:
    """Name of the file of the current version."""
    return blob_name(pk, instance["id"], instance["w"], instance["ow"])


def original_blob_name(pk: str, instance: Document) -> str:
    """Name of the file as first stored; frames are always read from it."""
    return blob_name(pk, instance["id"], instance["ow"], instance["ow"])


# --- instance --------------------------------------------------------------------


def instance_document(
    partition: Partition,
    read: ReadInstance,
    watermark: int,
    *,
    size_bytes: int,
    sha256: str,
    created: str,
    query_tags: Iterable[QueryTag],
) -> Document:
    """Document of a new instance, metadata inline."""
    document: Document = {
        "id": instance_id(read.series_instance_uid, read.sop_instance_uid),
        "t": "i",
        "k": scope_key("i", partition),
        "sk": sort_key(watermark),
        "w": watermark,
        "ow": watermark,
        "se": uid_key(read.series_instance_uid),
        "u": [
            read.study_instance_uid,
            read.series_instance_uid,
            read.sop_instance_uid,
        ],
        "ts": read.transfer_syntax_uid,
        "len": size_bytes,
        "sha": sha256,
        "at": created,
        "nf": read.number_of_frames,
        "a": level_elements(read.elements, attributes.INSTANCE_ALL),
        "f": {
            "SOPInstanceUID": uid_key(read.sop_instance_uid),
            "SOPClassUID": uid_key(read.sop_class_uid),
        },
        "m": read.metadata.to_json(),
        "z": read.metadata.data,
    }
    if read.bulk:
        document["b"] = bulk_text(read.bulk)
    if read.frames is not None:
        document["fx"] = read.frames.to_json()
    if read.deflated:
        document["defl"] = True
    put_tag_values(document, read.tag_values, query_tags, Level.INSTANCE, watermark)
    return document


def level_elements(elements: Mapping[str, Any], tags: Iterable[str]) -> Elements:
    """Those elements whose tag is one of these, without very large ones."""
    return {
        tag: element
        for tag in tags
        if (element := elements.get(tag)) and _fits(element)
    }


def _fits(element: Mapping[str, Any]) -> bool:
    """Whether documents that are read and cached for a search may have the element."""
    value = element.get("Value")
    if not value:
        return True
    if len(value) == 1 and element["vr"] != "SQ":  # the usual case, at little cost
        only = value[0]
        if not isinstance(only, str):
            return not isinstance(only, dict) or sum(map(len, only.values())) < _LARGE
        return len(only) < _LARGE
    return len(orjson.dumps(element)) < _LARGE


def version_of(study: Document, instance: Document, *, original: bool) -> Document:
    """The version to be read: current, staged and flipped, or the original.

    A bulk update stages `next` beside the current version; it counts as current once
    `st.flipped` names its job. `cw` is the watermark of the current version, `pw` that
    of the one before.
    """
    staged = instance.get("next")
    if staged and staged["job"] == study.get("flipped"):
        previous = {"z": instance.get("zn", b""), "pw": instance["w"]}
        if "first" not in instance:
            previous["first"] = _as_first_stored(instance)
        instance = instance | staged | previous
    if original and instance["w"] != instance["ow"]:
        first: Document = instance.get("first", {})
        return instance | first | {"cw": instance["w"], "w": instance["ow"]}
    return instance


def _as_first_stored(instance: Document) -> Document:
    """What tells a version that was never updated from those that follow."""
    names = ("len", "sha", "a", "m", "z")
    first = {name: instance[name] for name in names if name in instance}
    return first | {"b": instance.get("b", ""), "mb": bool(instance.get("mb"))}


def metadata_of(instance: Document) -> Metadata:
    """Metadata of the current version; `z` must have been read or filled in."""
    return Metadata.from_json(instance["m"], instance["z"])


def bulk_text(bulk: Iterable[BulkElement]) -> str:
    """Where binary values lie, as one text: most who read the document need none."""
    return ";".join(f"{b.path} {b.vr} {b.offset} {b.length}" for b in bulk)


def bulk_of(instance: Document) -> Iterator[BulkElement]:
    """Where the binary values lie; `b` must have been read or filled in."""
    value = instance.get("b", "")
    if not isinstance(value, str):  # a list of lists before 26 November 2026
        value = ";".join(" ".join(map(str, one)) for one in value)
    for text in filter(None, value.split(";")):
        path, vr, offset, length = text.split(" ")
        yield BulkElement(path, vr, int(offset), int(length))


def frames_of(instance: Document) -> FrameIndex | None:
    """Frame index; `fx` must have been read or filled in."""
    value = instance.get("fx")
    return None if value is None else frame_index.from_json(value)


# --- side blobs ------------------------------------------------------------------


def blobs_of(file_name: str, instance: Document) -> list[str]:
    """Names of all blobs of the version with this file."""
    names = [file_name]
    if instance.get("mb"):
        names.append(metadata_blob_name(file_name))
    if instance.get("fb"):
        names.append(frames_blob_name(file_name))
    return names


def move_large_fields(
    file_name: str, instance: Document
) -> Iterator[tuple[str, bytes]]:
    """Takes out of the document what is too large for it; names and bytes of blobs.

    A frames blob is the JSON of the frame index.
    """
    metadata = metadata_blob(instance)
    if len(metadata) > INLINE_METADATA_BYTES:
        yield metadata_blob_name(file_name), metadata
        for name in ("m", "z", "b"):
            instance.pop(name, None)
        instance["mb"] = True
    if "fx" in instance:
        frames = orjson.dumps(instance["fx"])
        if len(frames) > INLINE_FRAMES_BYTES:
            yield frames_blob_name(file_name), frames
            del instance["fx"]
            instance["fb"] = True


def metadata_blob(instance: Document) -> bytes:
    """One line of JSON (`m`, `b`), followed by the compressed metadata."""
    described = orjson.dumps({"m": instance["m"], "b": instance.get("b", "")})
    return b"\n".join((described, instance["z"]))


def put_back_metadata(instance: Document, blob: bytes) -> Document:
    """The document with what its metadata blob holds."""
    line, _, data = blob.partition(b"\n")
    described: Document = orjson.loads(line)
    return instance | described | {"z": data}


# --- query tags ------------------------------------------------------------------


def put_tag_values(
    document: Document,
    values: Mapping[int, Scalar],
    query_tags: Iterable[QueryTag],
    level: Level,
    watermark: int,
) -> bool:
    """Writes the values of this level's query tags, newer watermark wins.

    Fields: `x.t{key}` value in search form, `xw.t{key}` watermark it came from,
    `words.t{key}` words of a person name.

    Returns:
        Whether anything changed.
    """
    changed = False
    for tag in query_tags:
        if tag.level is not level or tag.key not in values:
            continue
        name = f"t{tag.key}"
        if document.get("xw", {}).get(name, -1) >= watermark:
            continue
        value = values[tag.key]
        document.setdefault("x", {})[name] = value
        document.setdefault("xw", {})[name] = watermark
        if tag.vr == "PN":
            words = matching.name_words(str(value))
            document.setdefault("words", {})[name] = words
        changed = True
    return changed


def tag_value(vr: str, element: Mapping[str, Any] | None) -> Scalar:
    """Search form of an element's first value; None where it has none."""
    return matching.search_form(vr, (element or {}).get("Value", []))


def replace_tag_value(
    document: Document, tag: QueryTag, value: Scalar, watermark: int
) -> None:
    """Writes a query tag's value whatever was there; None removes it."""
    name = f"t{tag.key}"
    document["xw"] = document.get("xw", {}) | {name: watermark}
    document["x"] = {k: v for k, v in document.get("x", {}).items() if k != name}
    words = {k: v for k, v in document.get("words", {}).items() if k != name}
    if value is not None:
        document["x"][name] = value
        if tag.vr == "PN":
            words[name] = matching.name_words(str(value))
    document["words"] = words


# --- study and series ------------------------------------------------------------


def new_study(partition: Partition, read: ReadInstance, watermark: int) -> Document:
    """A study without instances."""
    return {
        "id": STUDY,
        "t": STUDY,
        "state": LIVE,
        "uid": read.study_instance_uid,
        "p": partition.name,
        "sk": sort_key(watermark),
        "w": 0,
        "nw": 0,
        "ni": 0,
        "ns": 0,
        "mods": {},
        "a": {},
        "n": {},
    }


def gone_study(study: Document) -> Document:
    """What stays of a deleted study: its revision.

    It goes a week after the delete was published (`services.publishing`): until then a
    server that comes back after a long time must still find what it has to publish.
    """
    return {
        "id": STUDY,
        "t": STUDY,
        "state": GONE,
        "uid": study["uid"],
        "p": study["p"],
        "rev": study["rev"],
    }


def new_series(read: ReadInstance, watermark: int) -> Document:
    """A series without instances."""
    return {
        "id": series_id(read.series_instance_uid),
        "t": "se",
        "uid": read.series_instance_uid,
        "sk": sort_key(watermark),
        "w": 0,
        "nw": 0,
        "ni": 0,
        "a": {},
        "n": {},
    }


def merge_elements(
    merged: Elements, elements: Mapping[str, Any], tags: Iterable[str]
) -> None:
    """Takes over every element that has a value: an absent one never erases."""
    for tag in tags:
        element = elements.get(tag)
        if element and element.get("Value") and _fits(element):
            merged[tag] = element


def modality_of(series: Document) -> str | None:
    """Modality of a series, trailing blanks cut."""
    value = series["a"].get(MODALITY, {}).get("Value")
    return str(value[0]).rstrip() if value else None


def count_modality(study: Document, modality: str | None, change: int) -> None:
    """Adds to the number of series of a modality; none left removes it."""
    if modality is None:
        return
    mods = study["mods"]
    count = mods.get(modality, 0) + change
    if count > 0:
        mods[modality] = count
    else:
        mods.pop(modality, None)


# --- catalog ---------------------------------------------------------------------


def catalog_study(study: Document) -> Document:
    """Search form of a study."""
    document = _catalog_row(study, "st", Partition(study["p"]))
    document["f"] = search_fields(study["a"], STUDY_CORE)
    document["f"]["StudyInstanceUID"] = uid_key(study["uid"])
    document["words"] |= search_words(study["a"], STUDY_CORE)
    document["mods"] = [matching.fold(name) for name in study["mods"]]
    document["modalities"] = sorted(study["mods"])
    document["ns"] = study["ns"]
    return document


def catalog_series(study: Document, series: Document) -> Document:
    """Search form of a series."""
    document = _catalog_row(series, "se", Partition(study["p"]))
    document["study"] = study["uid"]
    document["f"] = search_fields(series["a"], SERIES_CORE)
    document["f"]["SeriesInstanceUID"] = uid_key(series["uid"])
    document["words"] |= search_words(series["a"], SERIES_CORE)
    return document


def _catalog_row(source: Document, kind: str, partition: Partition) -> Document:
    document = {
        "id": source["id"],
        "k": scope_key(kind, partition),
        "words": dict(source.get("words", {})),
    }
    for name in ("sk", "uid", "ni", "a", "n", "nw", "nid"):
        if name in source:
            document[name] = source[name]
    if "x" in source:
        document["x"] = source["x"]
    return document


def search_fields(
    elements: Elements, searchable: Iterable[attributes.Attribute]
) -> dict[str, Scalar]:
    """Values by keyword as searches compare them; those without a value are missing."""
    fields: dict[str, Scalar] = {}
    for attribute in searchable:
        element = elements.get(attribute.tag)
        if element is not None:
            value = matching.search_form(attribute.vr, element.get("Value", []))
            if value is not None:
                fields[attribute.keyword] = value
    return fields


def search_words(
    elements: Elements, searchable: Iterable[attributes.Attribute]
) -> dict[str, list[str]]:
    """Words of person names by keyword."""
    words = {}
    for attribute in searchable:
        if attribute.vr == "PN" and attribute.tag in elements:
            name = matching.search_form("PN", elements[attribute.tag].get("Value", []))
            if name is not None:
                words[attribute.keyword] = matching.name_words(str(name))
    return words
