"""One pass over a DICOM file: its header as DICOM JSON and the places of its bulk data.

Reads every transfer syntax of PS3.5 Annex A. It forgives what pydicom forgives (wrong
VR encoding, unknown VRs, missing delimiters at the end of a sequence), and refuses what
would store less than the sender meant: bytes missing at the end. All limits are the
constants below, so memory and time are bounded by the length of the file.

Source: PS3.5 7, Annex A; PS3.10 7; PS3.18 F.2.
"""

import re
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from typing_extensions import override

from dicomweb import character_sets, dictionary
from dicomweb.element_values import (
    BINARY_VRS,
    LARGE_VRS,
    Readers,
    WrongLength,
    readers,
)
from dicomweb.errors import MalformedInstance
from dicomweb.part10 import (
    LONG_VRS,
    Buffer,
    Gather,
    Part10,
    Sliceable,
    has_vr,
    open_file,
)
from dicomweb.transfer_syntaxes import EXPLICIT_BIG_ENDIAN, IMPLICIT_LITTLE_ENDIAN

MAX_DEPTH = 64
"""Sequences within sequences; System.Text.Json and others stop at the same depth."""
MAX_ELEMENTS = 300_000
"""Per file, at all levels; an enhanced MR of 2,000 frames has about 120,000."""
MAX_LEVEL_ELEMENTS = 20_000
"""Of the root or of one item; real ones have hundreds."""
MAX_FRAGMENTS = 4_000_000
"""Of one encapsulated value; they are stepped over one by one."""
LARGE_VALUE_BYTES = 1024 * 1024
"""A text or a list of numbers longer than this is bulk data."""
MAX_INLINE_BYTES = 16 * 1024 * 1024
"""Of all values together that stand in the JSON."""

UNDEFINED = 0xFFFFFFFF
_SMALL_VALUE_BYTES = 64
_ITEM = "FFFEE000"
_ITEM_END = "FFFEE00D"
_SEQUENCE_END = "FFFEE0DD"
_CHARACTER_SET = "00080005"
_PIXEL_REPRESENTATION = "00280103"
_LUT_DATA = "00283006"
_CAPITALS = re.compile(rb"[A-Z]{2}")
_KEYS_KEPT = 20_000
_PACKED_ELEMENTS = 4096
"""So many of a sequence are kept as text rather than as objects of ten times its size.

It is more than a search returns, so nobody misses the objects.
"""

Json = dict[str, Any]
Visit = tuple[str, str, int, int]
"""An element that was met: tag, VR, first and last (exclusive) byte of its value."""


@dataclass(frozen=True, slots=True)
class BulkElement:
    """A value that stands in the file only.

    Attributes:
        path: Tags and 0-based item numbers: `7FE00010`, `00081140/0/00880200`.
        vr: As in the file.
        offset: Of the first byte of the value, from the start of the (inflated) file.
        length: Bytes of the value. Of an encapsulated one: items with their tags, the
            sequence delimiter not counted.
        encapsulated: Whether the value has undefined length (PS3.5 A.4).
    """

    path: str
    vr: str
    offset: int
    length: int
    encapsulated: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass found.

    Attributes:
        buffer: The bytes that offsets refer to: the file, or its inflated form.
        transfer_syntax_uid: As the file meta information says; where that is missing,
            the one found.
        elements: The data set in the DICOM JSON Model; each `BulkDataURI` holds the
            path of its `BulkElement` only. In the `Value` of a very long sequence an
            `orjson.Fragment` stands for thousands of items.
        root_visits: The root's elements in file order, but for sequences.
        nested_visits: The same of all items of all sequences.
        codecs: Of the root's character set.
        little_endian: Byte order of binary values.
        deflated: Whether `buffer` is an inflated copy.
    """

    buffer: Sliceable
    transfer_syntax_uid: str
    elements: dict[str, Json]
    bulk: tuple[BulkElement, ...]
    root_visits: list[Visit]
    nested_visits: Iterable[Visit]
    codecs: tuple[str, ...]
    little_endian: bool
    deflated: bool


def scan(file: Buffer, *, gather: Gather | None = None) -> Scan:
    """The header of a DICOM file.

    `bytes`, `bytearray` and `mmap` are read in place; a memoryview of a part of an
    object is copied first.

    Args:
        file: The whole of it.
        gather: What keeps an inflated file, see `part10.open_file`.

    Raises:
        MalformedInstance: It is not a Part 10 file, is damaged, ends too early or
            exceeds one of the limits of this module and of `part10`.

    Source: PS3.5 7.
    """
    try:
        return _scan_data_set(open_file(file, gather=gather))
    except struct.error as error:
        raise MalformedInstance("The file ends inside a data element.") from error


def _scan_data_set(file: Part10) -> Scan:
    buffer, start = file.buffer, file.data_set_offset
    little_endian = file.transfer_syntax_uid != EXPLICIT_BIG_ENDIAN
    scanner = _Scanner(buffer, little_endian=little_endian)
    promised = file.transfer_syntax_uid != IMPLICIT_LITTLE_ENDIAN
    implicit = not has_vr(buffer, start, expected=promised)
    root = _Level("", character_sets.codecs_of(()), len(buffer), 0, implicit=implicit)
    scanner.data_set(root, start)
    scanner.settle_signed(root, None)
    scanner.packed_visits.take(scanner.nested_visits)
    return Scan(
        buffer=buffer,
        transfer_syntax_uid=file.transfer_syntax_uid,
        elements=_in_order(root.elements),
        bulk=_shown(scanner.bulk, root.elements),
        root_visits=scanner.root_visits,
        nested_visits=scanner.packed_visits,
        codecs=root.codecs,
        little_endian=little_endian,
        deflated=file.deflated,
    )


def _in_order(elements: dict[str, Json]) -> dict[str, Json]:
    """The elements by ascending tag, as PS3.18 F.2.2 wants them."""
    tags = list(elements)
    ordered = sorted(tags)
    return elements if tags == ordered else {tag: elements[tag] for tag in ordered}


def _shown(
    bulk: list[BulkElement], elements: dict[str, Json]
) -> tuple[BulkElement, ...]:
    """What the JSON refers to: of elements that come twice the last counts."""
    last = {element.path: element for element in bulk}
    items = _Items({"": elements})
    return tuple(element for path, element in last.items() if items.refer_to(path))


class _Items(dict[str, dict[str, Json]]):
    """Items of sequences by their path, each found by way of the one that holds it.

    One that is not there, as another element took the place of its sequence, is empty.
    """

    def refer_to(self, path: str) -> bool:
        """Whether the element at the path is still one of bulk data."""
        item, _, tag = path.rpartition("/")
        return "BulkDataURI" in self[item].get(tag, ())

    def __missing__(self, path: str) -> dict[str, Json]:
        *outer, sequence, number = path.rsplit("/", 2)
        element = self["".join(outer)].get(sequence, {})
        items = element.get("Value", ()) if element.get("vr") == "SQ" else ()
        if items and isinstance(items[0], orjson.Fragment):
            return _ANY_ITEM  # kept as text: nobody looks
        item = items[int(number)] if int(number) < len(items) else {}
        self[path] = item
        return item


class _AnyItem(dict[str, Json]):
    """An item that seems to have every element."""

    @override
    def get(self, _key: str, _default: object = None) -> Json:
        return {"vr": "SQ", "Value": [orjson.Fragment(b"")], "BulkDataURI": ""}


_ANY_ITEM = _AnyItem()


class _Visits:
    """Visits in a fifth of the memory of a list of them."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._names: list[str] = []
        self._bounds = array("Q")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Visit]:
        bounds = iter(self._bounds)
        return zip(self._keys, self._names, bounds, bounds, strict=True)

    def cut(self, count: int) -> None:
        """Forgets all after the first `count`."""
        del self._keys[count:], self._names[count:], self._bounds[2 * count :]

    def take(self, visits: list[Visit]) -> None:
        """Moves the visits here; the list is empty then."""
        self._keys += [visit[0] for visit in visits]
        self._names += [visit[1] for visit in visits]
        for visit in visits:
            self._bounds.extend(visit[2:])
        visits.clear()


class _Keys(dict[int, str]):
    """Tag as 8 hex digits by its 4 bytes read as one number; the usual ones are kept.

    Group Length (gggg,0000) has the empty text: PS3.18 F.2.2 keeps it out of the JSON.
    """

    def __init__(self, *, little_endian: bool) -> None:
        super().__init__()
        self._little_endian = little_endian

    def __missing__(self, raw: int) -> str:
        tag = (raw & 0xFFFF) << 16 | raw >> 16 if self._little_endian else raw
        key = f"{tag:08X}" if tag & 0xFFFF else ""
        if len(self) < _KEYS_KEPT:
            self[raw] = key
        return key


class _ImplicitVrs(dict[str, str]):
    """VR by tag where the file does not say it; those of the dictionary are kept."""

    def __missing__(self, key: str) -> str:
        if not key:
            return "UL"
        found = dictionary.entry(key)
        if found is not None:
            self[key] = found.vr
            return found.vr
        return "LO" if dictionary.is_private_creator(key) else "UN"


_LITTLE_KEYS = _Keys(little_endian=True)
_BIG_KEYS = _Keys(little_endian=False)
_IMPLICIT_VRS = _ImplicitVrs()
_UNSETTLED_VRS = frozenset(("ox", "xs", "xw", "na"))
_EXPLICIT = (struct.Struct(">I2sH").unpack_from, struct.Struct("<I2sH").unpack_from)
_IMPLICIT = (struct.Struct(">II").unpack_from, struct.Struct("<II").unpack_from)
_LENGTH = (struct.Struct(">I").unpack_from, struct.Struct("<I").unpack_from)


class _Level:
    """One data set: the root or an item of a sequence.

    Attributes:
        path: Of its elements, ending with `/` unless empty.
        end: First byte after it, or a bound of it where its length is undefined.
        unsettled: Elements whose VR, US or SS, hangs on Pixel Representation, with the
            first and last (exclusive) byte of their value.
    """

    __slots__ = ("codecs", "depth", "elements", "end", "implicit", "path", "unsettled")

    def __init__(
        self,
        path: str,
        codecs: tuple[str, ...],
        end: int,
        depth: int,
        *,
        implicit: bool,
    ) -> None:
        self.elements: dict[str, Json] = {}
        self.path = path
        self.codecs = codecs
        self.end = end
        self.depth = depth
        self.implicit = implicit
        self.unsettled: list[tuple[Json, int, int]] = []


class _Scanner:
    """State of one pass. Offsets are from the start of the buffer."""

    __slots__ = (
        "_budget",
        "_explicit_header",
        "_implicit_header",
        "_inline_left",
        "_keys",
        "_little_endian",
        "buffer",
        "bulk",
        "nested_visits",
        "packed_visits",
        "root_visits",
    )

    def __init__(self, buffer: Sliceable, *, little_endian: bool) -> None:
        self.buffer = buffer
        self.bulk: list[BulkElement] = []
        self.root_visits: list[Visit] = []
        self.nested_visits: list[Visit] = []
        self.packed_visits = _Visits()
        # One tick per element, taken by all levels together.
        self._budget: Iterator[int] = iter(range(MAX_ELEMENTS))
        self._inline_left = MAX_INLINE_BYTES
        self._little_endian = little_endian
        self._keys = _LITTLE_KEYS if little_endian else _BIG_KEYS
        self._explicit_header = _EXPLICIT[little_endian]
        self._implicit_header = _IMPLICIT[little_endian]

    def data_set(self, level: _Level, position: int) -> int:
        """Read elements into the level until its end; the first byte after it."""
        if level.implicit:
            return self._read_implicit(level, position)
        return self._read_explicit(level, position)

    def _read_explicit(  # noqa: C901  one loop: calls would cost more than the work
        self, level: _Level, position: int
    ) -> int:
        buffer, end, elements = self.buffer, level.end, level.elements
        unpack, keys = self._explicit_header, self._keys
        short_vrs = self._readers(level).short
        visit = self._visits(level).append
        for _ in islice(self._budget, MAX_LEVEL_ELEMENTS):
            if end - position < 8:
                return position
            raw, vr, length = unpack(buffer, position)
            key = keys[raw]
            form = short_vrs.get(vr)
            if form is None:
                position = self._long_element(level, key, vr, position)
                if position < 0:
                    return -position
                if key == _CHARACTER_SET:
                    short_vrs = self._change_character_set(level).short
                continue
            name, read = form
            start = position + 8
            position = start + length
            if position > end:
                raise _cut(key)
            if not key:
                continue
            visit((key, name, start, position))
            if length > _SMALL_VALUE_BYTES:
                self._charge(length)
            # What follows is `_put`, written out: most elements come this way.
            try:
                values = read(buffer[start:position]) if length else None
            except WrongLength:
                self._add_bulk(level, key, "UN", start, position)
                continue
            elements[key] = {"vr": name, "Value": values} if values else {"vr": name}
            if key == _CHARACTER_SET:
                short_vrs = self._change_character_set(level).short
        raise _too_many()

    def _read_implicit(self, level: _Level, position: int) -> int:
        buffer, end = self.buffer, level.end
        unpack, keys, vrs = self._implicit_header, self._keys, _IMPLICIT_VRS
        by_vr = self._readers(level).by_vr
        visit = self._visits(level).append
        for _ in islice(self._budget, MAX_LEVEL_ELEMENTS):
            if end - position < 8:
                return position
            raw, length = unpack(buffer, position)
            key = keys[raw]
            name = vrs[key]
            start = position + 8
            read = by_vr.get(name)
            if read is None or length > LARGE_VALUE_BYTES:
                position = self._value(level, key, name, start, length)
                if position < 0:
                    return -position
                continue
            position = start + length
            if position > end:
                raise _cut(key)
            if not key:
                continue
            visit((key, name, start, position))
            self._put(level, key, name, start, position)
            if key == _CHARACTER_SET:
                by_vr = self._change_character_set(level).by_vr
        raise _too_many()

    def _long_element(self, level: _Level, key: str, vr: bytes, position: int) -> int:
        """Read an explicit element that has no 2-byte length; as `_value`."""
        name = LONG_VRS.get(vr)
        start = position + 8
        if name is not None:
            (length,) = self._length(self.buffer, start)
            start += 4
        elif _CAPITALS.fullmatch(vr):  # a VR of the future or a damaged one
            _, _, length = self._explicit_header(self.buffer, position)
            name = "UN"
        else:  # a single element in implicit VR, as some writers leave behind
            (length,) = self._length(self.buffer, position + 4)
            name = _IMPLICIT_VRS[key]
        return self._value(level, key, name, start, length)

    def _value(
        self, level: _Level, key: str, name: str, start: int, length: int
    ) -> int:
        """Read a value of any VR.

        Returns:
            The first byte after it; after a delimiter, which ends an item, that number
            negated (it is never 0). The root has no end: one that strayed there from a
            sequence of defined length is stepped over.
        """
        if key in (_ITEM_END, _SEQUENCE_END):
            return -start if level.depth else start
        is_unknown = name == "UN"
        if is_unknown:
            name = self._known_vr(key, length)
        if length == UNDEFINED:
            if name == "SQ":
                return self._sequence(level, key, start, None)
            return self._encapsulated(level, key, name, start)
        stop = start + length
        if stop > level.end:
            raise _cut(key)
        if key:
            if name == "SQ" and is_unknown:
                self._sequence_if_any(level, key, start, stop)
            elif name == "SQ":
                self._sequence(level, key, start, stop)
            else:
                self._visits(level).append((key, name, start, stop))
                self._put(level, key, name, start, stop)
        return stop

    def _put(self, level: _Level, key: str, name: str, start: int, stop: int) -> None:
        """Add an element of defined length that is not a sequence."""
        length = stop - start
        if name in _UNSETTLED_VRS:
            name = self._settle(level, key, name, start, stop)
            if name == "":
                return
        if name in BINARY_VRS or (length > LARGE_VALUE_BYTES and name in LARGE_VRS):
            self._add_bulk(level, key, name, start, stop)
            return
        self._charge(length)
        try:
            values = self._read(level, name, start, stop) if length else None
        except WrongLength:
            self._add_bulk(level, key, "UN", start, stop)
            return
        level.elements[key] = {"vr": name, "Value": values} if values else {"vr": name}

    def _settle(self, level: _Level, key: str, name: str, start: int, stop: int) -> str:
        """The VR of an element that implicit VR leaves open, empty if not yet known.

        Source: PS3.5 Annex A.1, PS3.3 C.11.1.1.1 (LUT Data of one entry is US).
        """
        if name == "ox":
            return "OW"
        if name == "xw":
            return "US" if key == _LUT_DATA and stop - start == 2 else "OW"
        self._charge(stop - start)
        element: Json = {"vr": "US"}
        level.elements[key] = element
        level.unsettled.append((element, start, stop))
        if len(level.unsettled) > MAX_LEVEL_ELEMENTS:
            raise _too_many()
        return ""

    def settle_signed(self, level: _Level, parent: _Level | None) -> None:
        """Decide US or SS by the nearest Pixel Representation, 0 where there is none.

        Source: PS3.3 C.7.6.3.1; PS3.5 Annex A.1.
        """
        nearest = level.elements.get(_PIXEL_REPRESENTATION, {}).get("Value")
        if nearest is None and parent is not None:
            parent.unsettled += level.unsettled
            if len(parent.unsettled) > MAX_LEVEL_ELEMENTS:
                raise _too_many()
            return
        vr = "SS" if nearest and nearest[0] else "US"
        for element, start, stop in level.unsettled:
            element["vr"] = vr
            whole = stop - (stop - start) % 2
            values = self._read(level, vr, start, whole) if whole > start else None
            if values:
                element["Value"] = values

    def _known_vr(self, key: str, length: int) -> str:
        """The VR of an element that the file calls UN.

        Only the standard's dictionary is asked: what a private element holds its
        creator alone defines.

        Source: PS3.5 6.2.2.
        """
        if length == UNDEFINED:
            return "SQ"
        if length >= 0xFFFF:
            return "UN"
        return _IMPLICIT_VRS[key]

    def _sequence_if_any(self, level: _Level, key: str, start: int, stop: int) -> None:
        """Read items out of a value that the file calls UN; else it stays bytes."""
        bulk, visits = len(self.bulk), self._nested()
        try:
            self._sequence(level, key, start, stop)
        except (MalformedInstance, struct.error):
            del self.bulk[bulk:]
            self._forget(visits)
            self._visits(level).append((key, "UN", start, stop))
            self._add_bulk(level, key, "UN", start, stop)

    def _sequence(self, level: _Level, key: str, start: int, stop: int | None) -> int:
        """Read the items of a sequence; the first byte after it.

        `stop` is where it ends, None for one of undefined length.

        Source: PS3.5 7.5.
        """
        if level.depth == MAX_DEPTH:
            raise MalformedInstance(f"Sequences are nested over {MAX_DEPTH} deep.")
        limit = level.end if stop is None else stop
        items: list[dict[str, Json] | orjson.Fragment] = []
        path, position = f"{level.path}{key}/", start
        count = packed = 0
        packed_at = self._nested()
        while position < limit:
            raw, length = self._implicit_header(self.buffer, position)
            tag = self._keys[raw]
            position += 8
            if tag == _SEQUENCE_END:
                stop = position if stop is None else stop
                break
            end = limit if length == UNDEFINED else position + length
            if tag != _ITEM or end > limit:
                raise _cut(key)
            explicit = has_vr(self.buffer, position, expected=True)
            item = _Level(
                f"{path}{count}/",
                level.codecs,
                end,
                level.depth + 1,
                implicit=level.implicit or not explicit,
            )
            after = self.data_set(item, position)
            position = after if length == UNDEFINED else end
            if item.unsettled:
                self.settle_signed(item, level)
            items.append(_in_order(item.elements))
            count += 1
            met = len(items) + self._nested() - packed_at
            if met > _PACKED_ELEMENTS + packed and not level.unsettled:
                self._pack(items, packed)
                packed, packed_at = len(items), self._nested()
        if stop is None:
            raise _cut(key)
        level.elements[key] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        return stop

    def _nested(self) -> int:
        """How many elements were met in items so far."""
        return len(self.packed_visits) + len(self.nested_visits)

    def _forget(self, count: int) -> None:
        """Keeps only the first `count` elements that were met in items."""
        self.packed_visits.cut(count)
        del self.nested_visits[count - len(self.packed_visits) :]

    def _pack(self, items: list[dict[str, Json] | orjson.Fragment], first: int) -> None:
        """Replaces the items from the first one on by their text."""
        text = orjson.dumps(items[first:])
        items[first:] = [orjson.Fragment(text[1:-1])]
        self.packed_visits.take(self.nested_visits)

    def _encapsulated(self, level: _Level, key: str, name: str, start: int) -> int:
        """Step over fragments; the first byte after the sequence delimiter.

        Source: PS3.5 A.4.
        """
        buffer, unpack, keys = self.buffer, self._implicit_header, self._keys
        position, end = start, level.end
        for _ in range(MAX_FRAGMENTS):
            if position >= end:
                break
            raw, length = unpack(buffer, position)
            if keys[raw] == _SEQUENCE_END:
                vr = name if name in BINARY_VRS else "OB"
                self._add_bulk(level, key, vr, start, position, encapsulated=True)
                return position + 8
            if keys[raw] != _ITEM:
                break
            position += 8 + length
        raise _cut(key)

    def _add_bulk(
        self,
        level: _Level,
        key: str,
        vr: str,
        start: int,
        stop: int,
        *,
        encapsulated: bool = False,
    ) -> None:
        if start == stop:
            level.elements[key] = {"vr": vr}
            return
        path = level.path + key
        level.elements[key] = {"vr": vr, "BulkDataURI": path}
        self.bulk.append(BulkElement(path, vr, start, stop - start, encapsulated))

    def _readers(self, level: _Level) -> Readers:
        return readers(level.codecs, little_endian=self._little_endian)

    def _read(self, level: _Level, vr: str, start: int, stop: int) -> list[Any] | None:
        return self._readers(level).by_vr[vr](self.buffer[start:stop])

    def _visits(self, level: _Level) -> list[Visit]:
        return self.nested_visits if level.depth else self.root_visits

    def _length(self, buffer: Any, position: int) -> tuple[int]:
        return _LENGTH[self._little_endian](buffer, position)

    def _change_character_set(self, level: _Level) -> Readers:
        terms = level.elements[_CHARACTER_SET].get("Value") or ()
        level.codecs = character_sets.codecs_of(
            tuple(term if isinstance(term, str) else "" for term in terms)
        )
        return self._readers(level)

    def _charge(self, length: int) -> None:
        self._inline_left -= length
        if self._inline_left < 0:
            raise MalformedInstance(
                f"The header holds more than {MAX_INLINE_BYTES} bytes of values."
            )


def _cut(key: str) -> MalformedInstance:
    return MalformedInstance(
        f"The element ({key[:4]},{key[4:]}) is damaged or longer than what holds it."
    )


def _too_many() -> MalformedInstance:
    return MalformedInstance(
        f"The file has more than {MAX_ELEMENTS} elements, or a data set or item more"
        f" than {MAX_LEVEL_ELEMENTS}."
    )
