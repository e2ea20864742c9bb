"""Random DICOM files, written byte by byte, so that no library has a say in them.

Every VR, odd lengths, undefined lengths, nested sequences also in UN, private blocks
with and without creators, group lengths, fragments, escape sequences of any character
set under any other, numbers that are none; sometimes tags twice or out of order.
"""

import random
import struct
import zlib
from functools import cache

from pydicom import datadict
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomweb import part10

MAX_DEPTH = 3
CHARACTER_SET, PIXEL_REPRESENTATION, PIXEL_DATA = 0x00080005, 0x00280103, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF

SYNTAXES = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    *(DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian),
)
LONG_VRS = frozenset(vr.decode() for vr in part10.LONG_VRS)
NUMBERS = {
    "FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H",
    "UV": "Q",
}  # fmt: skip
WORDS = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
CHOICES = {
    "AE": (b"ONE", b" TWO ", b""),
    "AS": (b"010Y", b"3D  ", b""),
    "CS": (b"A", b" B", b"lower", b"X_1", b""),
    "DA": (b"20240229", b"2024.02.29", b"19000101-"),
    "DS": (
        *(b"1", b"-0", b"+.5", b"1e5 ", b" 1.50", b"0001", b"5.", b"-.5e-3", b""),
        *(b"12345678901234567890", b"3.141592653589793", b"1 2", b"x", b"0x1"),
    ),
    "DT": (b"20240229101500.5+0100", b"2024-0500"),
    "IS": (b"1", b"-0", b"+7", b"0001", b"2147483648", b"1.0", b"", b"x"),
    "TM": (b"101500.25", b"10", b"10:15:00"),
    "UI": (b"1.2.3", b"1.2.840.10008.1.2", b""),
    "UR": (b"http://a/b",),
}
SEVERAL = ("AE", "CS", "DS", "IS", "UI")
VRS = (*TEXTS, *CHOICES, *NUMBERS, *WORDS, "AT")
CHARACTER_SETS = (
    *(b"", b"ISO_IR 100", b"ISO_IR 192", b"GB18030", b"GBK", b"ISO_IR 13"),
    *(b"ISO_IR 144", b"ISO_IR 127", b"ISO_IR 166", b"\\ISO 2022 IR 87"),
    *(b"\\ISO 2022 IR 149", b"\\ISO 2022 IR 58", b"ISO 2022 IR 13\\ISO 2022 IR 87"),
    b"ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144",
    b"ISO 2022 IR 100\\ISO 2022 IR 144",
    b"\\ISO 2022 IR 87\\ISO 2022 IR 159",
)
PIECES = (
    *(b"\x1b$B;3ED\x1b(B", b"\x1b$)C\xfb\xf3\x1b(B", b"\x1b-L\xbb\xd8", b"\x1b"),
    *(b"\x1b$(D0!\x1b(B", b"\x1b-A\xe9", b"\\", b"\r\n", b"\t", b"\0", b"  "),
    *(b"^", b"=", "Ωé日本王".encode(), "日本".encode("euc_jp"), b"\xe9\xc4"),
)
SIGN_DEPENDENT = (0x00189810, 0x00280106, 0x00280107, 0x00280120)
CREATORS = (b"ACME", b"SIEMENS MR HEADER ", b"GEMS_IDEN_01")
UPDATABLE = (
    *(0x00080050, 0x00080090, 0x00081030, 0x00100010, 0x00100020, 0x00100030),
    *(0x00100040, 0x00101000, 0x00101010, 0x00104000),
)


@cache
def standard_tags() -> tuple[int, ...]:
    """Tags of the dictionary whose VR it says."""
    excluded = (CHARACTER_SET, PIXEL_DATA, PIXEL_REPRESENTATION)
    return tuple(
        tag
        for tag, (vr, *_) in datadict.DicomDictionary.items()
        if 8 <= tag >> 16 < 0xFFFE and len(vr) == 2 and tag not in excluded
    )


class RandomFile:
    """One file.

    Attributes:
        is_tidy: Whether its tags ascend, none comes twice and no length is odd.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.syntax = self._random.choice(SYNTAXES)
        self.is_tidy = self._random.random() < 0.6
        self._order = ">" if self.syntax == ExplicitVRBigEndian else "<"

    def written(self) -> bytes:
        """The file."""
        body = self._data_set(0, implicit=self.syntax == ImplicitVRLittleEndian)
        if self.syntax == DeflatedExplicitVRLittleEndian:
            body = zlib.compress(body, wbits=-zlib.MAX_WBITS)
        uid = self.syntax.encode() + b"\0" * (len(self.syntax) % 2)
        meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
        return bytes(128) + b"DICM" + meta + body

    def _data_set(self, depth: int, *, implicit: bool) -> bytes:
        chosen = self._random
        elements: list[tuple[int, bytes]] = []
        for _ in range(chosen.randrange(5 if depth else 14)):
            self._add(elements, depth, implicit=implicit)
        if self.is_tidy:
            elements = sorted(dict(elements).items())
        elif chosen.random() < 0.5:
            elements.sort(key=lambda element: element[0])
        first = b""
        if chosen.random() < (0.3 if depth else 0.8):
            term = chosen.choice(CHARACTER_SETS)
            first = self._element(CHARACTER_SET, "CS", _even(term), implicit)
        if chosen.random() < 0.4 and not depth:
            sign = struct.pack(f"{self._order}H", chosen.randrange(2))
            first += self._element(PIXEL_REPRESENTATION, "US", sign, implicit)
        return first + b"".join(written for _, written in elements)

    def _add(
        self, elements: list[tuple[int, bytes]], depth: int, *, implicit: bool
    ) -> None:
        """One more element, with its creator where it is private."""
        chosen = self._random
        kind = chosen.random()
        if kind < 0.2:
            group, block = chosen.choice((9, 0x19, 0x7FE1)), chosen.choice((16, 255))
            creator = group << 16 | block
            if chosen.random() < 0.7:
                name = chosen.choice(CREATORS)
                vr = chosen.choice(("LO", "LO", "UN"))
                written = self._element(creator, vr, name, implicit)
                elements.append((creator, written))
            tag = group << 16 | block << 8 | chosen.randrange(4)
            vr = chosen.choice((*VRS, "SQ"))
        elif kind < 0.3:
            tag, vr = chosen.choice(SIGN_DEPENDENT), chosen.choice(("US", "SS"))
            if depth:
                return
        elif kind < 0.35:
            tag, vr = chosen.choice((8, 0x10, 0x28)) << 16, "UL"
        elif kind < 0.4 and not implicit:
            elements.append((PIXEL_DATA, self._fragments()))
            return
        elif kind < 0.55:
            tag = chosen.choice(UPDATABLE)
            vr = datadict.dictionary_VR(tag)
        else:
            tag = chosen.choice(standard_tags())
            vr = datadict.dictionary_VR(tag)
        if vr == "SQ" and depth == MAX_DEPTH:
            return
        elements.append((tag, self._any_element(tag, vr, depth, implicit=implicit)))

    def _any_element(self, tag: int, vr: str, depth: int, *, implicit: bool) -> bytes:
        if vr == "SQ":
            return self._sequence(tag, depth, implicit=implicit)
        is_unknown = self._random.random() < 0.05
        return self._element(tag, "UN" if is_unknown else vr, self._value(vr), implicit)

    def _sequence(self, tag: int, depth: int, *, implicit: bool) -> bytes:
        chosen = self._random
        vr, inner = "SQ", implicit
        if not implicit and self._order == "<" and chosen.random() < 0.15:
            vr, inner = "UN", True
        body = b""
        for _ in range(chosen.randrange(4)):
            item = self._data_set(depth + 1, implicit=inner)
            if chosen.random() < 0.5:
                body += self._head(ITEM, len(item)) + item
            else:
                body += self._head(ITEM, UNDEFINED) + item + self._head(ITEM_END, 0)
        is_private_unknown = vr == "UN" and tag >> 16 & 1
        if chosen.random() < 0.5 and not is_private_unknown:
            return self._element(tag, vr, body, implicit)
        body += self._head(SEQUENCE_END, 0)
        return self._element(tag, vr, body, implicit, length=UNDEFINED)

    def _fragments(self) -> bytes:
        body = b""
        for _ in range(self._random.randrange(1, 4)):
            fragment = self._random.randbytes(2 * self._random.randrange(3))
            body += self._head(ITEM, len(fragment)) + fragment
        body += self._head(SEQUENCE_END, 0)
        return self._element(PIXEL_DATA, "OB", body, False, length=UNDEFINED)

    def _element(
        self,
        tag: int,
        vr: str,
        value: bytes,
        implicit: bool,
        *,
        length: int | None = None,
    ) -> bytes:
        length = len(value) if length is None else length
        head = struct.pack(f"{self._order}HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            return head + struct.pack(f"{self._order}I", length) + value
        if vr in LONG_VRS:
            form = f"{self._order}2sHI"
            return head + struct.pack(form, vr.encode(), 0, length) + value
        return head + struct.pack(f"{self._order}2sH", vr.encode(), length) + value

    def _head(self, tag: int, length: int) -> bytes:
        return struct.pack(f"{self._order}HHI", tag >> 16, tag & 0xFFFF, length)

    def _value(self, vr: str) -> bytes:
        chosen = self._random
        if chosen.random() < 0.1:
            return b""
        if vr in NUMBERS or vr == "AT":
            value = b"".join(self._number(vr) for _ in range(chosen.randrange(1, 5)))
        elif vr in WORDS:
            value = chosen.randbytes(WORDS[vr] * chosen.randrange(1, 9))
        elif vr in TEXTS:
            value = b"".join(self._piece() for _ in range(chosen.randrange(1, 5)))
        else:
            count = chosen.randrange(1, 4) if vr in SEVERAL else 1
            value = b"\\".join(chosen.choice(CHOICES[vr]) for _ in range(count))
        if not self.is_tidy and chosen.random() < 0.1:
            return value[:-1]
        return _even(value, b"\0" if vr == "UI" else b" ")

    def _number(self, vr: str) -> bytes:
        if vr == "AT":
            return self._random.randbytes(4)
        code = self._order + NUMBERS[vr]
        if vr in ("FD", "FL"):
            return struct.pack(code, self._random.choice((0, 1.5, -2.25, 1e30, 0.1)))
        return self._random.randbytes(struct.calcsize(code))

    def _piece(self) -> bytes:
        if self._random.random() < 0.6:
            return bytes(self._random.choices(b"ABC abz019-.", k=4))
        return self._random.choice(PIECES)


def _even(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad * (len(value) % 2)
