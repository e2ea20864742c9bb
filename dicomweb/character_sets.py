"""Specific Character Set: bytes of a text value to characters.

Undecodable bytes become U+FFFD; nothing here refuses a value.

Source: PS3.3 C.12.1.1.2; PS3.5 6.1.
"""

import re
from functools import lru_cache

DEFAULT = "latin-1"
"""Codec of ISO-IR 6. One byte, one character: ASCII, and no byte is lost."""

_LATIN_1 = "iso8859-1"
"""The same codec by another name, so that its escape sequence must be announced."""

_TERMS = {
    "": DEFAULT,
    "ISO_IR 6": DEFAULT,
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": _LATIN_1,
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "iso8859-11",
    "ISO_IR 203": "iso8859-15",
    "ISO_IR 149": "euc_kr",
    "ISO_IR 87": "iso2022_jp",
    "ISO_IR 159": "iso2022_jp_2",
    "ISO_IR 58": "gb2312",
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}

_ALONE = frozenset(("utf-8", "gb18030", "gbk"))
"""Codecs that know no code extensions (PS3.3 Table C.12-5)."""

_ESCAPES = {
    b"\x1b(B": DEFAULT,
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": _LATIN_1,
    b"\x1b-B": "iso8859-2",
    b"\x1b-C": "iso8859-3",
    b"\x1b-D": "iso8859-4",
    b"\x1b-F": "iso8859-7",
    b"\x1b-G": "iso8859-6",
    b"\x1b-H": "iso8859-8",
    b"\x1b-L": "iso8859-5",
    b"\x1b-M": "iso8859-9",
    b"\x1b-T": "iso8859-11",
    b"\x1b-b": "iso8859-15",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
}
"""Codec by escape sequence (PS3.3 Tables C.12-3 and C.12-4)."""

_KEEP_ESCAPE = frozenset(("iso2022_jp", "iso2022_jp_2"))
"""Python's codecs for these read the escape sequence themselves."""

MAX_ESCAPES = 1_000
"""In one value; text with more is decoded as if code extensions were not in use."""

_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
_ESCAPE = re.compile(rb"\x1b(?:\$[()][A-Z]|..)", re.DOTALL)

LINES = re.compile(rb"[\t\n\f\r]")
"""Where a code extension ends in a text of one value (PS3.5 6.1.2.5.3)."""
VALUES = re.compile(rb"[\t\n\f\r\\]")
"""The same where there may be several values."""
NAMES = re.compile(rb"[\t\n\f\r\\^=]")
"""The same in person names."""


@lru_cache(maxsize=256)
def codecs_of(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Python codecs of the values of Specific Character Set.

    An unknown term counts as the default repertoire; a term that knows no code
    extensions stands alone when first and is ignored when not.

    Source: PS3.3 C.12.1.1.2.
    """
    first, *rest = (_codec(term) for term in terms or ("",))
    if first in _ALONE:
        return (first,)
    return (first, *(codec for codec in rest if codec not in _ALONE))


def decode(
    value: bytes | bytearray,
    codecs: tuple[str, ...],
    ends: re.Pattern[bytes] = LINES,
) -> str:
    """The characters of a text value.

    Args:
        value: As in the file, any number of values and name component groups.
        codecs: From `codecs_of`.
        ends: `LINES`, `VALUES` or `NAMES`: where the first set counts again.

    Source: PS3.5 6.1.2.4, 6.1.2.5.
    """
    if b"\x1b" not in value or value.count(b"\x1b") > MAX_ESCAPES:
        return value.decode(codecs[0], "replace")
    return "".join(
        _decode_fragment(fragment, codecs, ends)
        for fragment in _FRAGMENT.findall(value)
    )


def _codec(term: str) -> str:
    spelled = term.strip().upper()
    if spelled not in _TERMS:
        number = re.fullmatch(r"ISO.?(?:2022)?.?(?:IR.)?(\w+)", spelled)
        spelled = f"ISO_IR {number[1]}" if number else spelled
        spelled = "GBK" if spelled == "ISO_IR GBK" else spelled
    return _TERMS.get(spelled, DEFAULT)


def _decode_fragment(
    fragment: bytes | bytearray, codecs: tuple[str, ...], ends: re.Pattern[bytes]
) -> str:
    escape = _ESCAPE.match(fragment)
    codec = _ESCAPES.get(bytes(escape[0])) if escape else None
    if escape is None or codec is None:
        return fragment.decode(codecs[0], "replace")
    if codec != DEFAULT and codec not in codecs:
        return fragment.decode(codecs[0], "replace")
    if codec in _KEEP_ESCAPE:
        return fragment.decode(codec, "replace")
    text = fragment[escape.end() :]
    end = ends.search(text)
    extended = len(text) if end is None else end.start()
    first = text[extended:].decode(codecs[0], "replace")
    return text[:extended].decode(codec, "replace") + first
