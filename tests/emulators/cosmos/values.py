"""JSON values as Cosmos DB compares and sorts them, and their order as bytes.

Order of the types: undefined, null, false, true, number, string, array, object (docs:
nosql/query/order-by.md, "Remarks"). Values of different types are never equal, smaller
or greater than each other in a filter.
"""

import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final


class Undefined(Enum):
    """The type of a field that is not there."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED

_UNDEFINED, _NULL, _FALSE, _TRUE, _NUMBER, _STRING, _ARRAY, _OBJECT = range(1, 9)


def at(document: Any, path: Sequence[str]) -> Any:
    """The value at the path, or UNDEFINED."""
    value = document
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return UNDEFINED
        value = value[name]
    return value


def type_rank(value: Any) -> int:
    """The place of the value's type in the order of types."""
    match value:
        case Undefined.UNDEFINED:
            return _UNDEFINED
        case None:
            return _NULL
        case bool():
            return _TRUE if value else _FALSE
        case int() | float():
            return _NUMBER
        case str():
            return _STRING
        case list():
            return _ARRAY
        case _:
            return _OBJECT


def is_number(value: Any) -> bool:
    """Whether it is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def comparable(left: Any, right: Any) -> bool:
    """Whether a filter may compare the two: both of one type, and defined."""
    ranks = {type_rank(left), type_rank(right)}
    return _UNDEFINED not in ranks and (len(ranks) == 1 or ranks == {_FALSE, _TRUE})


def equal(left: Any, right: Any) -> bool:
    """Whether the two are of one type and equal."""
    return comparable(left, right) and bool(left == right)


def _number(value: float) -> bytes:
    """Eight bytes whose order is the order of the numbers (IEEE double, big endian)."""
    bits = struct.unpack(">Q", struct.pack(">d", float(value) + 0.0))[0]
    bits = bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    return struct.pack(">Q", bits)


def string_prefix(text: str) -> bytes:
    """What the keys of all strings with this prefix start with."""
    return bytes((_STRING,)) + text.encode("utf-8", "surrogatepass").replace(
        b"\0", b"\0\xff"
    )


def encode(value: Any, *, descending: bool = False) -> bytes:
    """Bytes whose order is the order of the values; no key is another's prefix."""
    rank = type_rank(value)
    if rank == _NUMBER:
        key = bytes((rank,)) + _number(value)
    elif rank == _STRING:
        key = string_prefix(value) + b"\0\0"
    else:
        key = bytes((rank,))
    return key.translate(_INVERTED) if descending else key


_INVERTED = bytes(255 - byte for byte in range(256))


def successor(prefix: bytes) -> bytes:
    """The least bytes greater than all that start with the prefix."""
    kept = prefix.rstrip(b"\xff")
    if not kept:
        return b"\xff" * (len(prefix) + 1)
    return kept[:-1] + bytes((kept[-1] + 1,))


def as_stored(value: Any) -> Any:
    """The value after Cosmos DB kept it: numbers are IEEE doubles.

    Docs: nosql/query/constants.md ("double-precision 64-bit").
    """
    match value:
        case bool():
            return value
        case int() if abs(value) > 1 << 53:
            return float(value)
        case dict():
            return {name: as_stored(item) for name, item in value.items()}
        case list():
            return [as_stored(item) for item in value]
        case _:
            return value
