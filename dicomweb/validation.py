"""Rules an instance must meet to be stored, and those that only earn a warning.

Version 1 of the API refuses what breaks a rule of an indexed attribute. Version 2
refuses only what it cannot identify an instance by; every other breach of PS3.5 is a
comment, and the attribute is left out of metadata and index.

Source: PS3.5 6.2 (value representations), PS3.6 (multiplicities); PS3.18 10.5.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from typing import Any

from dicomweb import attributes, character_sets, dictionary, matching
from dicomweb.element_values import NUMBER_BYTES
from dicomweb.errors import QUOTED_CHARACTERS
from dicomweb.identifiers import is_valid_uid, uid_key
from dicomweb.query_tags import QueryTag
from dicomweb.scan import LARGE_VALUE_BYTES, Json, Scan, Visit

SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
PATIENT_ID = "00100020"
STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"

IDENTIFYING = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
REQUIRED = (SOP_CLASS_UID, *IDENTIFYING)
CORE_V2 = (*IDENTIFYING, PATIENT_ID, SOP_CLASS_UID)
CORE_V1 = tuple(a.tag for a in attributes.CORE if not a.computed)


class ErrorCode(IntEnum):
    """Why a value cannot be indexed; numbers that clients of query tags know."""

    TOO_LONG = 2
    WRONG_LENGTH = 3
    INVALID_CHARACTERS = 4
    UNEXPECTED_VR = 5
    PERSON_NAME_GROUPS = 1000
    PERSON_NAME_GROUP_LENGTH = 1001
    PERSON_NAME_COMPONENTS = 1002
    DATE = 1100
    UID = 1200
    DATE_TIME = 1300
    TIME = 1400
    INTEGER_STRING = 1500
    DECIMAL_STRING = 1501  # ours: the .NET server has no query tags of this VR


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an element.

    Attributes:
        tag: 8 upper-case hex digits of the element's own tag.
        comment: A sentence for the client, with the tag in front.
        code: None where only the general rules of PS3.5 are broken.
    """

    tag: str
    comment: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What validation says of an instance.

    Attributes:
        refusals: Any of these and the instance is not stored.
        warnings: At most one per tag.
        multiple_values: An indexed attribute has several values.
    """

    refusals: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    multiple_values: bool = False


def validate(
    scan: Scan,
    *,
    study_instance_uid: str | None,
    version: int,
    query_tags: Sequence[QueryTag] = (),
    full_validation: bool = False,
) -> Findings:
    """Whether an instance may be stored, and what is to be said of it.

    Args:
        scan: The instance.
        study_instance_uid: Of the request's path, None where it names no study.
        version: 1 or 2.
        query_tags: In version 1 their rules count like those of core attributes.
        full_validation: Hold every root element to the rules of its VR: refuse in
            version 1, warn in version 2.
    """
    missing = _missing(scan.elements, study_instance_uid)
    if missing is not None:
        return Findings(refusals=(missing,))
    blank = _blank_patient_id(scan.elements)
    if blank is not None and version == 1:
        return Findings(refusals=(blank,))
    warnings = {} if blank is None else {PATIENT_ID: blank}
    if version == 1:
        tags = dict.fromkeys(CORE_V1) | resolve(scan.elements, query_tags)
    else:
        tags = dict.fromkeys(CORE_V2)
    checked = IDENTIFYING if full_validation else tuple(tags)
    refusals = minimum_problems(
        scan, {tag: tags.get(tag) for tag in checked}, lenient=version > 1
    )
    if full_validation:
        general = general_problems(scan, scan.root_visits)
        (refusals if version == 1 else warnings).update(general)
    elif version > 1:
        general = general_problems(scan, scan.root_visits)
        for tag in CORE_V2:
            general.pop(tag, None)
        warnings |= general_problems(scan, scan.nested_visits) | general
    return Findings(
        tuple(refusals.values()),
        tuple(warnings.values()),
        any(len(scan.elements.get(tag, {}).get("Value", ())) > 1 for tag in tags),
    )


def resolve(
    elements: Mapping[str, Json], query_tags: Iterable[QueryTag]
) -> dict[str, QueryTag]:
    """Query tags by the tag their value has in this instance.

    A private attribute lies in whatever block its creator reserved; where the creator
    reserved none the attribute is absent and left out.

    Source: PS3.5 7.8.1.
    """
    resolved: dict[str, QueryTag] = {}
    for query_tag in query_tags:
        path = query_tag.path
        if query_tag.private_creator is None:
            resolved[path] = query_tag
            continue
        for block in range(0x10, 0x100):
            creator = elements.get(f"{path[:4]}00{block:02X}", {}).get("Value")
            if creator and creator[0] == query_tag.private_creator:
                resolved[f"{path[:4]}{block:02X}{path[6:]}"] = query_tag
                break
    return resolved


def minimum_problems(
    scan: Scan, tags: Mapping[str, QueryTag | None], *, lenient: bool
) -> dict[str, Problem]:
    """What keeps attributes from being indexed, by tag.

    Args:
        scan: The instance.
        tags: With the query tag where it is none of the core attributes.
        lenient: Cut NULs at the end of a value first.
    """
    visits = {visit[0]: visit for visit in scan.root_visits if visit[0] in tags}
    problems = {}
    for tag, query_tag in tags.items():
        if tag not in scan.elements:
            continue
        vr = query_tag.vr if query_tag else attributes.vr_of(tag) or "UN"
        found = _minimum(scan, tag, vr, visits.get(tag), lenient=lenient)
        if found is not None:
            code, text = found
            problems[tag] = _problem(scan.elements, tag, text, code)
    return problems


def general_problems(scan: Scan, visits: Iterable[Visit]) -> dict[str, Problem]:
    """The first breach of PS3.5 of each tag.

    Looked at are characters, length and format of each value, and how many there are.
    Binary, large and empty values pass.

    Source: PS3.5 6.2; PS3.6.
    """
    problems: dict[str, Problem] = {}
    buffer, obvious, several = (
        scan.buffer,
        _obviously_valid(),
        dictionary.tags_of_several_values(),
    )
    for tag, vr, start, stop in visits:
        if start == stop:
            continue
        matches = obvious.get(vr)
        if matches is None or (matches(buffer, start, stop) and tag not in several):
            continue
        if tag in problems or stop - start > LARGE_VALUE_BYTES:
            continue
        text = _breach(scan, tag, vr, start, stop)
        if text is not None:
            problems[tag] = _problem(scan.elements, tag, text)
    return problems


# --- required attributes -----------------------------------------------------------


def _missing(
    elements: Mapping[str, Json], study_instance_uid: str | None
) -> Problem | None:
    for tag in REQUIRED:
        values = elements.get(tag, {}).get("Value", ())
        if len(values) != 1 or not isinstance(values[0], str):
            return _required(elements, tag)
    if study_instance_uid is not None:
        own = elements[STUDY_INSTANCE_UID]["Value"][0]
        if uid_key(own) != uid_key(study_instance_uid):
            return _problem(
                elements,
                STUDY_INSTANCE_UID,
                "The StudyInstanceUid in the payload does not match the specified"
                " StudyInstanceUid.",
            )
    if PATIENT_ID not in elements:
        return _required(elements, PATIENT_ID)
    return None


def _blank_patient_id(elements: Mapping[str, Json]) -> Problem | None:
    values = elements[PATIENT_ID].get("Value")
    if values and str(values[0] or "").strip():
        return None
    return _required(elements, PATIENT_ID)


def _required(elements: Mapping[str, Json], tag: str) -> Problem:
    name = f"({tag[:4]},{tag[4:]})".lower()
    return _problem(elements, tag, f"The required tag '{name}' is missing.")


def _problem(
    elements: Mapping[str, Json], tag: str, text: str, code: ErrorCode | None = None
) -> Problem:
    group, element = tag[:4].lower(), tag[4:].lower()
    if dictionary.is_private(tag) and not dictionary.is_private_creator(tag):
        creator = elements.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or [""]
        element = f"xx{element[2:]}:{creator[0]}"
    return Problem(tag, f"DICOM100: ({group},{element}) - {text}", code)


# --- what an indexed value must be -------------------------------------------------

# Clients and their tests know the texts on required tags, dates and UIDs from the .NET
# server, word for word.
_KNOWN_TEXTS = {
    "DA": "Value cannot be parsed as a valid date.",
    "UI": (
        "DICOM Identifier is invalid. Value length should not exceed the maximum length"
        " of 64 characters. Value should contain characters in '0'-'9' and '.'. Each"
        " component must start with non-zero number."
    ),
}

_Found = tuple[ErrorCode, str]
_LONGEST = {"AE": 16, "CS": 16, "SH": 16, "LO": 64}
_CONTROL = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f]")


def _minimum(
    scan: Scan, tag: str, vr: str, visit: Visit | None, *, lenient: bool
) -> _Found | None:
    in_file = "SQ" if visit is None else visit[1]
    if in_file.islower():  # left open by implicit VR, decided by another attribute
        in_file = scan.elements[tag]["vr"]
    if in_file != vr:
        return (
            ErrorCode.UNEXPECTED_VR,
            f"{_name(tag)} should have the VR {vr} and has {in_file}.",
        )
    assert visit is not None
    start, stop = visit[2], visit[3]
    if vr in NUMBER_BYTES:
        size = NUMBER_BYTES[vr]
        if stop == start or (stop - start) % size:
            text = f"A value of {_name(tag)} ({vr}) has {size} bytes."
            return ErrorCode.WRONG_LENGTH, text
        return None
    raw = bytes(scan.buffer[start:stop])
    text = _decoded(scan, vr, raw).split("\\")[0]
    text = text.rstrip(" \0" if lenient or vr == "UI" else " ")
    found = minimum_text(vr, text)
    if found is None:
        return None
    detail = _KNOWN_TEXTS.get(vr, f"Value {found[1]}.")
    return (
        found[0],
        f"Dicom element '{_name(tag)}' failed validation for VR '{vr}': {detail}",
    )


def minimum_text(vr: str, text: str) -> _Found | None:
    """The code and the end of a sentence, None for a value that may be indexed."""
    found: _Found | None = None
    limit = _LONGEST.get(vr, len(text))
    rule = _FORMATS.get(vr)
    if vr == "AS":
        if len(text) != 4:
            found = ErrorCode.WRONG_LENGTH, "is not 4 characters long"
    elif len(text) > limit:
        found = ErrorCode.TOO_LONG, f"is longer than {limit} characters"
    elif vr in ("LO", "PN") and _CONTROL.search(text):
        found = ErrorCode.INVALID_CHARACTERS, "has control characters"
    elif vr == "PN":
        found = _minimum_name(text)
    elif text and rule is not None and ("\0" in text or not rule[0](text)):
        found = rule[1:]
    return found


def _minimum_name(text: str) -> _Found | None:
    groups = text.split("=")
    if len(groups) > 3:
        code = ErrorCode.PERSON_NAME_GROUPS
        return code, "has more than 3 component groups"
    if any(len(group) > 64 for group in groups):
        code = ErrorCode.PERSON_NAME_GROUP_LENGTH
        return code, "has a component group of more than 64 characters"
    if any(group.count("^") > 4 for group in groups):
        code = ErrorCode.PERSON_NAME_COMPONENTS
        return code, "has more than 5 components in a group"
    return None


def _is_integer_string(text: str) -> bool:
    number = matching.integer_form(text)
    return number is not None and -(1 << 31) <= number < 1 << 31


_FORMATS: dict[str, tuple[Callable[[str], bool], ErrorCode, str]] = {
    "DA": (
        lambda text: matching.date_form(text) is not None,
        ErrorCode.DATE,
        "is not a date YYYYMMDD",
    ),
    "DT": (
        lambda text: matching.date_time_form(text) is not None,
        ErrorCode.DATE_TIME,
        "is not a date and time YYYYMMDDHHMMSS.FFFFFF&ZZXX",
    ),
    "TM": (
        lambda text: matching.time_form(text) is not None,
        ErrorCode.TIME,
        "is not a time HHMMSS.FFFFFF",
    ),
    "IS": (
        _is_integer_string,
        ErrorCode.INTEGER_STRING,
        "is not an integer of 32 bits",
    ),
    "DS": (
        lambda text: matching.decimal_form(text, "DS") is not None,
        ErrorCode.DECIMAL_STRING,
        "is not a decimal number",
    ),
    "UI": (
        is_valid_uid,
        ErrorCode.UID,
        "is not a UID of at most 64 digits and dots that ends with a digit",
    ),
}


# --- the general rules of PS3.5 ----------------------------------------------------


_FullMatch = Callable[[Any, int, int], re.Match[bytes] | None]


def _fullmatch(pattern: bytes) -> _FullMatch:
    return re.compile(pattern + rb"[ \0]*+", re.DOTALL).fullmatch


_PLAIN = rb"[^\\\x00-\x1f\x7f]"
_LAYOUT = rb"[^\x00-\x08\x0b\x0e-\x1f]"


@cache
def _obviously_valid() -> dict[str, _FullMatch]:
    """By VR what matches a single value that no rule can object to.

    All else is looked at closely; VRs without an entry are not validated. Compiled at
    first use: it takes as long as the rest of the package's import. Repetitions are
    possessive, so that no value takes more than one pass.
    """
    return {
        "AE": _fullmatch(_PLAIN + rb"{0,16}+"),
        "AS": _fullmatch(rb"[0-9]{3}[DWMY]"),
        "CS": _fullmatch(rb"[A-Z0-9_ ]{0,16}+"),
        "DA": _fullmatch(rb"[12][0-9]{3}(?:0[1-9]|1[0-2])(?:0[1-9]|1[0-9]|2[0-8])"),
        "DS": _fullmatch(rb" ?[+-]?[0-9]{1,7}(?:\.[0-9]{0,6})?+"),
        "DT": _fullmatch(rb"(?!)"),
        "IS": _fullmatch(rb" ?[+-]?[0-9]{1,9}"),
        "LO": _fullmatch(_PLAIN + rb"{0,64}+"),
        "LT": _fullmatch(_LAYOUT + rb"{0,10240}+"),
        "PN": _fullmatch(
            rb"[^\\^=\x00-\x1f\x7f]{0,30}+(?:\^[^\\^=\x00-\x1f\x7f]{0,30}+)?+"
        ),
        "SH": _fullmatch(_PLAIN + rb"{0,16}+"),
        "ST": _fullmatch(_LAYOUT + rb"{0,1024}+"),
        "TM": _fullmatch(rb"(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}(?:\.[0-9]{1,6})?+"),
        "UI": _fullmatch(rb"(?![0-9.]{65})[012](?:\.(?:0|[1-9][0-9]*+))++"),
        **{
            vr: re.compile(rb".{%d}" % size, re.DOTALL).fullmatch
            for vr, size in NUMBER_BYTES.items()
        },
    }


_PATIENT_GROUP = "0010"
_SINGLE_TEXTS = frozenset(("LT", "ST"))
_CUSTOM_CHARACTERS = {
    **dict.fromkeys(("LO", "SH"), character_sets.VALUES),
    **dict.fromkeys(("LT", "ST"), character_sets.LINES),
    "PN": character_sets.NAMES,
}
"""VRs that the character set is about, with where its code extensions end."""


def _breach(scan: Scan, tag: str, vr: str, start: int, stop: int) -> str | None:
    """A sentence on the first rule that the element breaks."""
    if vr in NUMBER_BYTES:
        count, rest = divmod(stop - start, NUMBER_BYTES[vr])
        if rest:
            return f"{_name(tag)} ({vr}) is not a whole number of values long."
        return _wrong_count(tag, count)
    text = _decoded(scan, vr, bytes(scan.buffer[start:stop])).rstrip(" \0")
    if not text:
        return None
    values = [text] if vr in _SINGLE_TEXTS else text.split("\\")
    for value in values:
        reason = value_breach(vr, value.rstrip(" ")) if value else None
        if reason is not None and vr == "DA" and not tag.startswith(_PATIENT_GROUP):
            return (  # the one value that is quoted: clients know the text so
                f'Content "{value[:QUOTED_CHARACTERS]}" does not validate VR DA: one of'
                " the date values does not match the pattern YYYYMMDD"
            )
        if reason is not None:
            return f"A value of {_name(tag)} ({vr}) {reason}."
    return _wrong_count(tag, len(values))


def value_breach(vr: str, value: str) -> str | None:
    """What is wrong with one value of the VR, as the end of a sentence; or None.

    Source: PS3.5 6.2.
    """
    rule = _rules().get(vr)
    if rule is not None:
        return rule(value)
    found = minimum_text(vr, value)
    return None if found is None else found[1]


def _text_breach(limit: int, characters: str) -> Callable[[str], str | None]:
    allowed = re.compile(characters, re.ASCII).fullmatch

    def breach(value: str) -> str | None:
        if len(value.strip(" ")) > limit:
            return f"is longer than {limit} characters"
        if allowed(value) is None:
            return "has characters that its VR does not allow"
        return None

    return breach


def _format_breach(limit: int, pattern: str, text: str) -> Callable[[str], str | None]:
    allowed = re.compile(pattern, re.ASCII).fullmatch

    def breach(value: str) -> str | None:
        if len(value) > limit:
            return f"is longer than {limit} characters"
        return None if allowed(value) else text

    return breach


_NO_CONTROL = r"[^\x00-\x1a\x1c-\x1f\x7f]*"
_LAYOUT_CONTROL = r"[^\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]*"


@cache
def _rules() -> dict[str, Callable[[str], str | None]]:
    """By VR what is wrong with a value, for VRs stricter than when indexed."""
    return {
        "AE": _text_breach(16, r"[^\x00-\x1f\x7f\\]*"),
        "CS": _text_breach(16, r"[A-Z0-9_ ]*"),
        "SH": _text_breach(16, _NO_CONTROL),
        "LO": _text_breach(64, _NO_CONTROL),
        "ST": _text_breach(1024, _LAYOUT_CONTROL),
        "LT": _text_breach(10240, _LAYOUT_CONTROL),
        "AS": _format_breach(
            4, r"[0-9]{3}[DWMY]", "is not an age nnnD, nnnW, nnnM, nnnY"
        ),
        "DS": _format_breach(
            16,
            r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *",
            "is not a decimal number",
        ),
        "UI": _format_breach(
            64, r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*", "is not a UID"
        ),
    }


def _decoded(scan: Scan, vr: str, raw: bytes) -> str:
    ends = _CUSTOM_CHARACTERS.get(vr)
    if ends is None:
        return raw.decode("latin-1")
    return character_sets.decode(raw, scan.codecs, ends)


def _wrong_count(tag: str, count: int) -> str | None:
    found = dictionary.entry(tag)
    if found is None or found.vr == "na":
        return None
    low, high, step = _multiplicity(found.multiplicity)
    if low <= count <= (high or count) and count % step == 0:
        return None
    return f"{_name(tag)} has {count} values where {found.multiplicity} may be."


@lru_cache(maxsize=64)
def _multiplicity(text: str) -> tuple[int, int | None, int]:
    """Least and most values (None: any number) and what their number divides by."""
    low, _, high = text.partition("-")
    if not high:
        return int(low), int(low), 1
    if high.endswith("n"):
        return int(low), None, int(high[:-1] or 1)
    return int(low), int(high), 1


def _name(tag: str) -> str:
    return attributes.keyword_of(tag) or f"({tag[:4]},{tag[4:]})"
