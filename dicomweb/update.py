"""Bulk update: which attributes may be changed, and how a file's header is rewritten.

Only whole elements of the root are replaced, added or removed; every other byte of
the file stays as it is, so pixel data are copied and never read.

Source: PS3.5 7.1 (element encoding); PS3.10 7.1 (file meta information).
"""

import io
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb import attributes, dictionary, validation
from dicomweb.element_values import readers
from dicomweb.errors import InvalidRequest, MalformedInstance
from dicomweb.identifiers import check_uid
from dicomweb.matching import name_text
from dicomweb.part10 import has_vr, open_file
from dicomweb.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, IMPLICIT_LITTLE_ENDIAN

MAX_STUDIES = 1000
IMPLEMENTATION_CLASS_UID = "1.3.6.1.4.1.311.129"
IMPLEMENTATION_VERSION_NAME = "DICOM-FUNCTIONS"
LAST_TAG = 0x00403001
"""The highest tag that may be changed: nothing after it has to be read."""

UPDATABLE = frozenset(
    attributes.tag_of(keyword) or keyword
    for keyword in (
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "TypeOfPatientID",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientSex",
        "QualityControlSubject",
        "OtherPatientIDs",
        "OtherPatientNames",
        "PatientBirthName",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "PatientAddress",
        "PatientMotherBirthName",
        "MilitaryRank",
        "BranchOfService",
        "00101090",  # MedicalRecordLocator (retired)
        "CountryOfResidence",
        "RegionOfResidence",
        "PatientTelephoneNumbers",
        "EthnicGroup",
        "Occupation",
        "PatientReligiousPreference",
        "PatientComments",
        "PatientSpeciesDescription",
        "PatientBreedDescription",
        "BreedRegistrationNumber",
        "ResponsiblePerson",
        "ResponsiblePersonRole",
        "ResponsibleOrganization",
        "ConfidentialityConstraintOnPatientDataDescription",
    )
)

NAME_GROUPS = frozenset(("Alphabetic", "Ideographic", "Phonetic"))

Change = Mapping[str, Mapping[str, Any] | None]
"""DICOM JSON elements by tag; None removes the attribute."""


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What a bulk update asks for.

    Attributes:
        study_instance_uids: As typed, at least one.
        change: Checked elements by tag.
    """

    study_instance_uids: tuple[str, ...]
    change: dict[str, dict[str, Any] | None]


class RefusedChange(Exception):
    """Attributes that cannot be changed so; one sentence each in `problems`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)

    def dataset(self) -> dict[str, Any]:
        """The problems as a DICOM JSON data set, as clients know it."""
        items = [{"00000902": {"vr": "LO", "Value": [text]}} for text in self.problems]
        return {"00741048": {"vr": "SQ", "Value": items}}


def parse(body: object) -> UpdateRequest:
    """The checked request.

    Args:
        body: Decoded JSON: `studyInstanceUids` and `changeDataset`.

    Raises:
        InvalidRequest: The body has not that form.
        RefusedChange: Attributes or values that may not be set.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest("The request body must be a JSON object.")
    fields = {str(name).lower(): value for name, value in body.items()}
    return UpdateRequest(
        _studies(fields.get("studyinstanceuids")), _change(fields.get("changedataset"))
    )


def _studies(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            "The required field 'StudyInstanceUids' is missing or empty."
        )
    if len(value) > MAX_STUDIES:
        raise InvalidRequest(f"At most {MAX_STUDIES} studies can be updated at once.")
    for uid in value:
        check_uid(uid if isinstance(uid, str) else "", "StudyInstanceUID")
    return tuple(dict.fromkeys(value))


def _change(value: object) -> dict[str, dict[str, Any] | None]:
    if not isinstance(value, Mapping) or not value:
        raise InvalidRequest("The field 'ChangeDataset' is missing or empty.")
    change: dict[str, dict[str, Any] | None] = {}
    problems = []
    for name, element in value.items():
        tag = attributes.tag_of(str(name)) or str(name).upper()
        try:
            change[tag] = _element(tag, element)
        except ValueError as error:
            shown = f"({tag[:4].lower()},{tag[4:].lower()})"
            problems.append(f"DICOM100: {shown} - {error}")
    if problems:
        raise RefusedChange(problems)
    return change


# ruff: noqa: TRY004 - a wrong JSON type is a wrong value of the client here
def _element(tag: str, element: object) -> dict[str, Any] | None:
    """The element with its VR, or None to remove it; ValueError says what is wrong."""
    if tag not in UPDATABLE:
        raise ValueError("Updating the tag is not supported")
    if element is None:
        return None
    if not isinstance(element, Mapping):
        raise ValueError("An element is an object with vr and Value")
    expected = attributes.vr_of(tag) or "LO"
    vr = str(element.get("vr", expected)).upper()
    if vr != expected:
        raise ValueError(f"The VR of the attribute is {expected}")
    if not element.keys() <= {"vr", "Value"}:
        raise ValueError("An element has no members but vr and Value")
    values = element.get("Value", [])
    if not isinstance(values, list):
        raise ValueError("Value must be an array")
    text = "\\".join(_value_text(vr, value) for value in values)
    read = readers(("utf-8",), little_endian=True).by_vr[vr]
    shown = read(text.encode()) if text else None
    return {"vr": vr, "Value": shown} if shown else {"vr": vr}


def _value_text(vr: str, value: object) -> str:
    """The value as it stands in a file; ValueError says what is wrong with it."""
    if vr == "PN" and isinstance(value, Mapping):
        if not value.keys() <= NAME_GROUPS:
            raise ValueError("A name has Alphabetic, Ideographic and Phonetic groups")
    elif isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"A value of VR {vr} is a text or a number")
    text = name_text(value) if vr == "PN" else str(value)
    if "\\" in text and vr not in {"LT", "ST", "UT"}:
        raise ValueError("A value cannot contain a backslash")
    reason = validation.value_breach(vr, text) if text else None
    if reason is not None:
        raise ValueError(f"The value {reason}")
    return text


# --- rewriting a header --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes of the old file that others take the place of.

    Attributes:
        start: First byte that goes.
        stop: First byte that stays; equal to `start` where bytes are added.
    """

    start: int
    stop: int
    replacement: bytes


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A changed header.

    Attributes:
        head: New bytes up to `offset` of the old file.
        offset: From here on the old bytes follow unchanged.
        edits: In file order.
    """

    head: bytes
    offset: int
    edits: tuple[Edit, ...]

    def moved(self, position: int) -> int:
        """Where a byte of the old file lies in the new one."""
        return position + sum(
            len(edit.replacement) - (edit.stop - edit.start)
            for edit in self.edits
            if edit.stop <= position
        )


def rewrite(
    header: bytes, change: Change, *, present: Collection[str] = ()
) -> Rewritten:
    """The header with the change applied.

    Args:
        header: The file from its start to behind the last element that may change; of
            a deflated file the whole file (the answer is the whole file then).
        change: As `parse` returns it.
        present: Tags that the file is known to have in its root.

    Raises:
        MalformedInstance: The file cannot be read, or an element that is to change
            stands behind those that never do, against the order of tags.
        InvalidRequest: A value cannot be written in the file's character set.

    Source: PS3.5 7.1, 6.1.2.
    """
    file = open_file(header)
    data_set = bytes(file.buffer[file.data_set_offset :])
    promised = file.transfer_syntax_uid != IMPLICIT_LITTLE_ENDIAN
    explicit = has_vr(data_set, 0, expected=promised)
    little = file.transfer_syntax_uid != EXPLICIT_BIG_ENDIAN
    layout = _layout(data_set, explicit=explicit, little_endian=little)
    hidden = change.keys() & set(present) - {f"{e[0]:08X}" for e in layout.elements}
    if hidden:
        raise MalformedInstance("The elements of the file are not in ascending order.")
    encoder = _Encoder(layout, explicit=explicit, little_endian=little)
    base = file.data_set_offset
    edits = [
        Edit(edit.start + base, edit.stop + base, edit.replacement)
        for edit in _edits(layout, change, encoder)
    ]
    meta = _file_meta(header[:base])
    edits = [Edit(0, base, meta), *edits]
    end = max(edit.stop for edit in edits)
    head = _applied(bytes(file.buffer[:end]), edits)
    if not file.deflated:
        return Rewritten(head, end, tuple(edits))
    whole = head + bytes(file.buffer[end:])
    return Rewritten(_deflated(whole, len(meta)), len(header), tuple(edits))


def _applied(old: bytes, edits: Sequence[Edit]) -> bytes:
    pieces = []
    position = 0
    for edit in edits:
        pieces += [old[position : edit.start], edit.replacement]
        position = edit.stop
    return b"".join([*pieces, old[position:]])


def _deflated(whole: bytes, data_set_offset: int) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflater.compress(whole[data_set_offset:]) + deflater.flush()
    return whole[:data_set_offset] + body + b"\0" * (len(body) % 2)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the elements of the root lie.

    Attributes:
        elements: Tag, first byte and first byte after, in file order.
        end: First byte after the last of them.
        character_sets: Values of Specific Character Set.
    """

    elements: tuple[tuple[int, int, int], ...]
    end: int
    character_sets: tuple[str, ...]


def _layout(data_set: bytes, *, explicit: bool, little_endian: bool) -> _Layout:
    from pydicom.filereader import data_element_generator
    from pydicom.multival import MultiValue

    source = io.BytesIO(data_set)
    elements = []
    sets: tuple[str, ...] = ()
    start = 0
    walk = data_element_generator(
        source, not explicit, little_endian, stop_when=lambda tag, *_: tag > LAST_TAG
    )
    try:
        for element in walk:
            stop = source.tell()
            elements.append((int(element.tag), start, stop))
            start = stop
            if int(element.tag) == 0x00080005:
                value = element.value or b""
                text = value.decode("ascii") if isinstance(value, bytes) else value
                sets = tuple(
                    part.strip(" \0")
                    for part in (
                        text if isinstance(text, MultiValue) else text.split("\\")
                    )
                )
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise MalformedInstance("The header of the file cannot be read.") from error
    return _Layout(tuple(elements), start, sets)


def _edits(layout: _Layout, change: Change, encoder: "_Encoder") -> Iterator[Edit]:
    """Replacements in file order; group lengths of changed groups are taken out.

    Of an element that comes twice the last counts, so that one is replaced and the
    others go.
    """
    wanted = {int(tag, 16): element for tag, element in change.items()}
    groups = {tag >> 16 for tag in wanted}
    last = {tag: start for tag, start, _ in layout.elements}
    missing = sorted(wanted.keys() - last.keys())
    for tag, start, stop in layout.elements:
        while missing and missing[0] < tag:
            new = missing.pop(0)
            yield Edit(start, start, encoder.encode(new, wanted[new]))
        if tag in wanted:
            is_last = last[tag] == start
            new_bytes = encoder.encode(tag, wanted[tag]) if is_last else b""
            yield Edit(start, stop, new_bytes)
        elif tag & 0xFFFF == 0 and tag >> 16 in groups:
            yield Edit(start, stop, b"")
    for new in missing:
        yield Edit(layout.end, layout.end, encoder.encode(new, wanted[new]))


def _file_text(vr: str, value: object) -> str:
    return name_text(value) if vr == "PN" else str(value)


class _Encoder:
    """Writes elements in the encoding of one file."""

    def __init__(self, layout: _Layout, *, explicit: bool, little_endian: bool) -> None:
        from pydicom.charset import convert_encodings

        self._explicit = explicit
        self._little_endian = little_endian
        self._encodings: list[str] = convert_encodings(
            list(layout.character_sets) or [""]
        )

    def encode(self, tag: int, element: Mapping[str, Any] | None) -> bytes:
        """The element's bytes, none where it is to be removed."""
        if element is None:
            return b""
        from pydicom import config
        from pydicom.dataelem import DataElement
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_data_element

        vr = element["vr"]
        values = [
            "" if value is None else _file_text(vr, value)
            for value in element.get("Value", [])
        ]
        text = "\\".join(values)
        self._check_encodable(tag, vr, text)
        with config.disable_value_validation():
            made = DataElement(tag, vr, text)
            target = DicomBytesIO()
            target.is_implicit_VR = not self._explicit
            target.is_little_endian = self._little_endian
            write_data_element(target, made, self._encodings)
        return bytes(target.getvalue())

    def _check_encodable(self, tag: int, vr: str, text: str) -> None:
        """Refuses text that the file's character set cannot express."""
        from pydicom.charset import decode_bytes, encode_string

        if text.isascii() or vr not in {"PN", "LO", "SH", "LT", "ST", "UT", "UC"}:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoded = encode_string(text, self._encodings)
            if decode_bytes(encoded, self._encodings, set(b"\\^=")) == text:
                return
        found = dictionary.entry(f"{tag:08X}")
        name = found.keyword if found else f"{tag:08X}"
        raise InvalidRequest(
            f"The {len(text)} characters of {name} cannot be written in the character"
            " set of the file."
        )


def _file_meta(meta: bytes) -> bytes:
    """Preamble and file meta information with this server as their writer."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import _read_file_meta_info
    from pydicom.filewriter import write_file_meta_info

    source = DicomBytesIO(meta)
    source.seek(132)
    info: Any = _read_file_meta_info(source)  # type: ignore[arg-type]
    info.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    info.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    target = DicomBytesIO()
    write_file_meta_info(target, info, enforce_standard=False)
    return meta[:132] + bytes(target.getvalue())
