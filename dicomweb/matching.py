"""Forms in which values are indexed and searched, so that both sides always agree.

Knows how a value of each VR is compared: strings without case and trailing padding,
names also without accents, dates and times as sortable text or numbers. Refuses to know
where values come from and which index compares them.

Source: PS3.4 C.2.2.2 (attribute matching), PS3.5 6.2 (value representations).
"""

import math
import re
import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

Scalar = str | int | float

PADDING = " \0"
INTEGER_VRS = frozenset({"IS", "SL", "SS", "UL", "US"})
DECIMAL_VRS = frozenset({"DS", "FL", "FD"})

_ACCENTS = re.compile("[\u0300-\u036f]")  # not Japanese voicing marks, U+3099
_NAME_SEPARATORS = str.maketrans("^=", "  ")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_INTEGER_BOUND = 1 << 63
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_DATE = re.compile(r"[0-9]{8}", re.ASCII)
_TIME = re.compile(
    r"([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?",
    re.ASCII,
)
_DATE_TIME = re.compile(
    r"([0-9]{4})(?:(0[1-9]|1[0-2])(?:(0[1-9]|[12][0-9]|3[01])"
    r"([0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?)?)?"
    r"([+-][0-9]{4})?",
    re.ASCII,
)


def fold(text: str) -> str:
    """The text as strings are compared: no trailing blanks or NULs, no case."""
    trimmed = text.rstrip(PADDING)
    if trimmed.isascii():
        return trimmed.lower()
    return unicodedata.normalize("NFC", trimmed).casefold()


def fold_name(text: str) -> str:
    """The text as person names are compared: as `fold`, also without accents."""
    trimmed = text.rstrip(PADDING)
    if trimmed.isascii():
        return trimmed.lower()
    folded = unicodedata.normalize("NFD", trimmed).casefold()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    return unicodedata.normalize("NFC", bare)


def name_words(text: str) -> list[str]:
    """The folded words of a person name in order; `^`, `=` and blanks separate them."""
    return fold_name(text).translate(_NAME_SEPARATORS).replace("\0", " ").split()


def consecutive_words(words: Sequence[str], prefixes: Sequence[str]) -> bool:
    """Whether consecutive words start with these prefixes, in this order.

    True when there are no prefixes. Both sides are expected folded.
    """
    last_start = len(words) - len(prefixes)
    return any(
        all(
            word.startswith(prefix)
            for word, prefix in zip(words[start:], prefixes, strict=False)
        )
        for start in range(last_start + 1)
    )


def fits_wildcard(text: str, pattern: str) -> bool:
    """Whether the whole text fits: `*` is any run of characters, `?` exactly one.

    Both sides are expected folded. Takes at most pattern times text, however many `*`
    a client sends: of each piece between two of them the first place is taken.

    Source: PS3.4 C.2.2.2.4.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return _fits_at(text, first, 0) and len(text) == len(first)
    if not _fits_at(text, first, 0):
        return False
    at = len(first)
    for piece in rest[:-1]:
        places = range(at, len(text) - len(piece) + 1)
        found = next((p for p in places if _fits_at(text, piece, p)), None)
        if found is None:
            return False
        at = found + len(piece)
    end = len(text) - len(rest[-1])
    return end >= at and _fits_at(text, rest[-1], end)


def _fits_at(text: str, piece: str, start: int) -> bool:
    part = text[start : start + len(piece)]
    return len(part) == len(piece) and all(
        mark in {"?", character} for mark, character in zip(piece, part, strict=True)
    )


def name_text(value: object) -> str:
    """A DICOM JSON person name as text: its groups joined by `=`, no `=` at the end.

    Source: PS3.18 F.2.2, PS3.5 6.2.1.
    """
    if not isinstance(value, Mapping):
        return str(value)
    groups = [str(value.get(group) or "") for group in _NAME_GROUPS]
    return "=".join(groups).rstrip("=")


def date_form(text: str) -> str | None:
    """A DA value as `YYYYMMDD`, or None where it is no date of the calendar.

    Source: PS3.5 6.2 (DA).
    """
    trimmed = text.strip(PADDING)
    if _DATE.fullmatch(trimmed) is None:
        return None
    return trimmed if _is_calendar_date(trimmed) else None


def time_form(text: str) -> int | None:
    """A TM value as microseconds since midnight, or None where it is no time.

    Missing minutes and seconds count as 0; second 60 is allowed.

    Source: PS3.5 6.2 (TM).
    """
    match = _TIME.fullmatch(text.strip(PADDING))
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    whole = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole * 1_000_000 + int((fraction or "0").ljust(6, "0"))


def date_time_form(text: str) -> str | None:
    """A DT value as local `YYYYMMDDHHMMSS.ffffff`, or None where it is no date-time.

    Missing parts stand for the first instant they allow; an offset from UTC is checked
    and left out: the local value is what is compared.

    Source: PS3.5 6.2 (DT).
    """
    match = _DATE_TIME.fullmatch(text.strip(PADDING))
    if match is None:
        return None
    year, month, day, time, offset = match.groups()
    digits = f"{year}{month or '01'}{day or '01'}"
    microseconds = time_form(time or "00")
    if microseconds is None or not _is_calendar_date(digits):
        return None
    if offset and not (int(offset[1:3]) <= 14 and int(offset[3:]) <= 59):
        return None
    whole, fraction = (time or "").partition(".")[::2]
    return f"{digits}{whole.ljust(6, '0')}.{fraction.ljust(6, '0')}"


def integer_form(value: object) -> int | None:
    """A whole number of at most 64 bits, given as number or text, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and _INTEGER.fullmatch(value.strip(PADDING)):
        number = int(value.strip(PADDING))
    else:
        return None
    return number if -_INTEGER_BOUND <= number < _INTEGER_BOUND else None


def decimal_form(value: object, vr: str) -> float | None:
    """A finite number, given as number or text, or None where it is none.

    FL is rounded to single precision, so that `1.1` finds what a file calls 1.1.
    """
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value.strip(PADDING) if isinstance(value, str) else value)  # type: ignore[arg-type]
        if vr == "FL":
            number = struct.unpack("<f", struct.pack("<f", number))[0]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def search_form(vr: str, json_values: Sequence[Any]) -> Scalar | None:
    """What the index holds for an element.

    Args:
        vr: Two letters.
        json_values: The element's `Value` of DICOM JSON; only the first one counts.

    Returns:
        Strings folded (PN without accents, groups joined by `=`), DA `YYYYMMDD`, TM
        microseconds since midnight, DT local `YYYYMMDDHHMMSS.ffffff`, whole numbers of
        IS SL SS UL US, floats of DS FL FD. None where there is nothing to index: no
        value, an empty one, or one that its VR does not allow.

    Source: PS3.4 C.2.2.2.
    """
    if not json_values or json_values[0] is None:
        return None
    form = _FORMS.get(vr)
    if form is None:
        return fold(str(json_values[0])) or None
    return form(json_values[0])


def _is_calendar_date(digits: str) -> bool:
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return True


_FORMS: Mapping[str, Callable[[Any], Scalar | None]] = {
    "PN": lambda value: fold_name(name_text(value)) or None,
    "DA": lambda value: date_form(str(value)),
    "TM": lambda value: time_form(str(value)),
    "DT": lambda value: date_time_form(str(value)),
    **dict.fromkeys(INTEGER_VRS, integer_form),
    **{vr: partial(decimal_form, vr=vr) for vr in DECIMAL_VRS},
}
