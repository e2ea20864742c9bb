"""What the names of blobs say, and which blobs an instance document refers to.

A name is `{h}/{partition}/{study}/{series}/{sop}_{version}.dcm`, beside it a version's
`.metadata` and `.frames`; `{h}/{partition}/{study}/deleted/{rev}_{token}.json` is the
list of what a commit deleted. `services.documents` makes the names; this reads them.

Source: design decision 4.4.
"""

import re
from dataclasses import dataclass

from services import documents as doc
from stores.ports import Document

_SEGMENT = r"[^/]+"
_FILE = re.compile(
    rf"(?P<study>[0-9a-f]{{3}}/(?P<p>{_SEGMENT}~)/(?P<s>{_SEGMENT})/)"
    rf"(?P<se>{_SEGMENT})/(?P<sop>[^/_]+)_(?:(?P<ow>[0-9]+)_)?(?P<w>[0-9]+)"
    r"\.(?P<kind>dcm|metadata|frames)"
)
_MANIFEST = re.compile(
    rf"(?P<study>[0-9a-f]{{3}}/(?P<p>{_SEGMENT}~)/(?P<s>{_SEGMENT})/)"
    r"deleted/(?P<rev>[0-9]+)_[0-9a-f]+\.json"
)
FILE, METADATA, FRAMES, MANIFEST = "dcm", "metadata", "frames", "json"


@dataclass(frozen=True, slots=True)
class StoredName:
    """The name of a blob of the archive.

    Attributes:
        kind: FILE, METADATA, FRAMES or MANIFEST.
        instance_id: Id of the instance document; empty for a manifest.
        original: Watermark of the first version; 0 for a manifest.
        watermark: Of this version; 0 for a manifest.
    """

    name: str
    partition_key: str
    study_key: str
    kind: str
    instance_id: str = ""
    original: int = 0
    watermark: int = 0

    @property
    def pk(self) -> str:
        """Logical partition of the study."""
        return f"{self.partition_key}|{self.study_key}"


def parsed(name: str) -> StoredName | None:
    """What the name says; None where it is none of the archive's."""
    found = _MANIFEST.fullmatch(name) or _FILE.fullmatch(name)
    if found is None or found["study"] != doc.study_folder(found["p"], found["s"]):
        return None
    if found.re is _MANIFEST:
        return StoredName(name, found["p"], found["s"], MANIFEST)
    watermark = int(found["w"])
    return StoredName(
        name,
        found["p"],
        found["s"],
        found["kind"],
        f"i:{found['se']}:{found['sop']}",
        int(found["ow"] or watermark),
        watermark,
    )


@dataclass(frozen=True, slots=True)
class Version:
    """A version of an instance as its document describes it.

    Attributes:
        name: Of the file.
        sha256: Of the file, hex; None where it was never taken.
        has_metadata: Whether the metadata are in a side blob.
        has_frames: Whether the frame index is in a side blob of this version.
        is_current: Whether the document's own fields describe it.
    """

    name: str
    watermark: int
    size_bytes: int
    sha256: str | None
    has_metadata: bool
    has_frames: bool
    is_current: bool = False

    @property
    def names(self) -> list[str]:
        """Names of all its blobs."""
        names = [self.name]
        if self.has_metadata:
            names.append(doc.metadata_blob_name(self.name))
        if self.has_frames:
            names.append(doc.frames_blob_name(self.name))
        return names


VERSION_FIELDS = ("w", "ow", "len", "sha", "mb", "fb", "first", "next")


def versions(pk: str, row: Document) -> list[Version]:
    """Every version that the document refers to: its own, the original, a staged one.

    Args:
        pk: Logical partition of the study.
        row: With VERSION_FIELDS.
    """
    id, original = row["id"], row["ow"]
    is_original = row["w"] == original
    has_frames = bool(row.get("fb"))
    found = [
        Version(
            doc.blob_name(pk, id, row["w"], original),
            row["w"],
            row["len"],
            row["sha"],
            bool(row.get("mb")),
            has_frames and is_original,
            is_current=True,
        )
    ]
    if not is_original:
        first = row["first"]
        found.append(
            Version(
                doc.blob_name(pk, id, original, original),
                original,
                first["len"],
                first["sha"],
                bool(first.get("mb")),
                has_frames,
            )
        )
    staged = row.get("next")
    if staged:
        found.append(
            Version(
                doc.blob_name(pk, id, staged["w"], original),
                staged["w"],
                staged["len"],
                staged["sha"],
                bool(staged.get("mb")),
                has_frames=False,
            )
        )
    return found


def referenced(pk: str, row: Document) -> set[str]:
    """Names of all blobs that the document refers to."""
    return {name for version in versions(pk, row) for name in version.names}
