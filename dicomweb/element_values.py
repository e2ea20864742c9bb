"""Values of data elements as the DICOM JSON Model holds them, VR by VR.

A reader takes the bytes of a Value Field (never empty) and returns the members of
`Value`, or None where nothing is left once the padding is cut. Numbers that are not
numbers stay text, an empty value among several is None.

Source: PS3.5 6.2; PS3.18 F.2.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from dicomweb import character_sets

BINARY_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
LARGE_VRS = frozenset(
    "DS FL FD IS LT SL SS ST SV UC UL US UT UV".split()  # noqa: SIM905  a list of VRs
)
"""VRs that may be bulk data although they are not binary (PS3.18 F.2.2)."""

NUMBER_BYTES = {
    "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "AT": 4,
}  # fmt: skip
_FORMATS = {
    "FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H",
    "UV": "Q",
}  # fmt: skip
_EXACT = 1 << 53

Raw = bytes | bytearray
Reader = Callable[[Raw], list[Any] | None]


class WrongLength(ValueError):
    """The Value Field is not a whole number of values."""


class Readers(NamedTuple):
    """Readers for one character set and byte order.

    Attributes:
        short: By the VR's bytes, VRs with a 2-byte length: the VR's name and reader.
        by_vr: By the VR's name, all VRs but SQ and the binary ones.
    """

    short: dict[bytes, tuple[str, Reader]]
    by_vr: dict[str, Reader]


@lru_cache(maxsize=256)
def readers(codecs: tuple[str, ...], *, little_endian: bool) -> Readers:
    """The readers for data elements in this character set and byte order.

    Args:
        codecs: From `character_sets.codecs_of`.
        little_endian: Byte order of numbers and tags.
    """
    order = "<" if little_endian else ">"
    by_vr: dict[str, Reader] = {
        "AE": _application_entity,
        "AT": _tags(order),
        "DS": _decimals,
        "IS": _integers,
        "UR": _uri,
        **dict.fromkeys(("AS", "CS", "DA", "DT", "TM", "UI"), _strings),
        **dict.fromkeys(("LO", "SH", "UC"), _texts(codecs)),
        **dict.fromkeys(("LT", "ST", "UT"), _text(codecs)),
        "PN": _names(codecs),
    }
    for vr, code in _FORMATS.items():
        by_vr[vr] = _numbers(order, code, NUMBER_BYTES[vr])
    short = {
        vr.encode(): (vr, reader)
        for vr, reader in by_vr.items()
        if vr not in ("UC", "UR", "UT", "SV", "UV")
    }
    return Readers(short, by_vr)


def _several(values: list[str]) -> list[Any] | None:
    return [value or None for value in values] if any(values) else None


def _strings(value: Raw) -> list[Any] | None:
    text = value.decode("latin-1").rstrip(" \0")
    if "\\" in text:
        return _several(text.split("\\"))
    return [text] if text else None


def _application_entity(value: Raw) -> list[Any] | None:
    return _several([name.strip() for name in value.decode("latin-1").split("\\")])


def _uri(value: Raw) -> list[Any] | None:
    text = value.decode("latin-1").rstrip(" \0")
    return [text] if text else None


def _texts(codecs: tuple[str, ...]) -> Reader:
    first, alone, decode = codecs[0], len(codecs) == 1, character_sets.decode

    def read(value: Raw) -> list[Any] | None:
        if alone and b"\x1b" not in value:
            text = value.decode(first, "replace").rstrip(" \0")
        else:
            text = decode(value, codecs, character_sets.VALUES).rstrip(" \0")
        if "\\" in text:
            return _several([part.rstrip(" \0") for part in text.split("\\")])
        return [text] if text else None

    return read


def _text(codecs: tuple[str, ...]) -> Reader:
    def read(value: Raw) -> list[Any] | None:
        text = character_sets.decode(value, codecs).rstrip(" \0")
        return [text] if text else None

    return read


def _names(codecs: tuple[str, ...]) -> Reader:
    def read(value: Raw) -> list[Any] | None:
        value = value.rstrip(b" \0")
        text = character_sets.decode(value, codecs, character_sets.NAMES)
        if "\\" not in text and "=" not in text:
            return [{"Alphabetic": text}] if text else None
        names = [_name(name) for name in text.split("\\")]
        return names if any(names) else None

    return read


def _name(text: str) -> dict[str, str] | None:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="))  # noqa: B905  groups beyond three have no name
    return {group: part for group, part in groups if part} or None


def _decimals(value: Raw) -> list[Any] | None:
    text = value.decode("latin-1").strip(" \0")
    if not text:
        return None
    if "\\" not in text:
        return [_number(text)]
    return [_number(part) for part in text.split("\\")]


def _number(text: str) -> Any:
    """The number as JSON writes it, else the text.

    `orjson.loads` reads what JSON allows without a sign or zero in front, so `5` stays
    an integer; the rest of PS3.5's spellings (`+1`, `.5`, `01`) go through float.
    """
    try:
        number = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _spelled_number(text.strip(" \0"))
    kind = type(number)
    return number if kind is float or kind is int else text


def _spelled_number(text: str) -> Any:
    if not text:
        return None
    if text.strip("+-.0123456789eE"):
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    if abs(number) == float("inf"):
        return text
    return _whole(number)


def _whole(number: Any) -> Any:
    """An integer where a float holds one exactly."""
    if type(number) is float and number.is_integer() and abs(number) < _EXACT:
        return int(number)
    return number


def _integers(value: Raw) -> list[Any] | None:
    digits = value.strip(b" \0")
    if digits.isdigit() and len(digits) < 19:
        return [int(digits)]
    values = _decimals(value)
    if values is None:
        return None
    return [_whole(number) for number in values]


def _numbers(order: str, code: str, size: int) -> Reader:
    unpack_one = struct.Struct(order + code).unpack
    unpack = struct.unpack

    def read(value: Raw) -> list[Any] | None:
        if len(value) == size:
            return [*unpack_one(value)]
        count, rest = divmod(len(value), size)
        if rest:
            raise WrongLength
        return list(unpack(f"{order}{count}{code}", value))

    return read


def _tags(order: str) -> Reader:
    unpack = struct.Struct(f"{order}HH").iter_unpack

    def read(value: Raw) -> list[Any] | None:
        if len(value) % 4:
            raise WrongLength
        return [f"{group:04X}{element:04X}" for group, element in unpack(value)]

    return read
