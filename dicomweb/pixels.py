"""What the attributes of an image say about its pixels.

Reads the DICOM JSON of an instance (as /metadata shows it) and nothing else: no pixel
data, no bulk data. Values that cannot be used as they are (a window of width 0) are
left out; attributes without which there is no image are an error. PS3.3 C.7.6.3,
C.7.6.16, C.11.1, C.11.2; PS3.18 annex F.
"""

import math
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb.errors import NotAcceptable

MAX_DECODED_BYTES = 256 << 20
"""Most bytes of pixel values that are decoded at a time."""

JPEG_2000_BITS = 24
"""Bits of the deepest sample that is compressed as JPEG 2000."""

PALETTE_TAGS = ("00281201", "00281202", "00281203")
"""Red, green, blue Palette Color Lookup Table Data."""

SEGMENTED_PALETTE_TAGS = ("00281221", "00281222", "00281223")
"""The same, written as segments."""

_DESCRIPTOR_TAGS = ("00281101", "00281102", "00281103")
_WORD_BITS = (1, 8, 16, 32, 64)
_FLOAT_BITS = (32, 64)

_FLOATS, _DOUBLES = "7FE00008", "7FE00009"
_PADDING = ("00280120", "00280121")
_FLOAT_PADDING = {_FLOATS: ("00280122", "00280124"), _DOUBLES: ("00280123", "00280125")}
"""Padding value and range limit by the element that holds the pixels."""

_MODALITY_LUT, _VOI_LUT, _LUT_DATA = "00283000", "00283010", "00283006"

Json = Mapping[str, Any]
Tables = Mapping[str, bytes]
"""Values of LUT Data, words in little endian, by their BulkDataURI."""

_NO_TABLES: Tables = {}


@dataclass(frozen=True, slots=True)
class Window:
    """The first window of an image.

    Attributes:
        center: In modality units.
        width: In modality units, above 0.
        function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.
    """

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A modality or VOI lookup table.

    Attributes:
        first: The value that maps to the first entry.
        bits: Bits of an entry.
        data: The entries, at least one.
    """

    first: int
    bits: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PaletteDescriptor:
    """How one channel of a palette is stored.

    Attributes:
        entries: How many, 1 to 65,536.
        first: The pixel value that maps to the first entry.
        bits: Bits of an entry, 8 or 16.
    """

    entries: int
    first: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelDescription:
    """How one frame's bytes become pixels, and pixels grey or colour.

    Attributes:
        rows: At least 1.
        columns: At least 1.
        samples_per_pixel: 1 or 3.
        bits_allocated: 1, 8, 16, 32 or 64.
        bits_stored: 1 to `bits_allocated`.
        high_bit: The highest of the stored bits.
        signed: Whether values are two's complement.
        photometric_interpretation: As in the file.
        planar_configuration: 0 or 1.
        number_of_frames: At least 1.
        pixel_data_vr: `OB` or `OW`; matters in big endian files.
        window: For this frame; None if the image has none that works.
        slope: Rescale Slope of this frame.
        intercept: Rescale Intercept of this frame.
        modality_lut: In place of slope and intercept.
        voi_lut: Used if there is no window.
        palette: Red, green, blue; None if it is not PALETTE COLOR or they are damaged.
        palette_tags: The elements that hold the tables and that `render` is given;
            empty if it is not PALETTE COLOR.
        padding: Lowest and highest value that is background and no measurement.
        floating: Whether values are floating point numbers (Float Pixel Data, Double
            Float Pixel Data); grey, 32 or 64 bits, all of them stored.
    """

    rows: int
    columns: int
    samples_per_pixel: int = 1
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool = False
    photometric_interpretation: str = "MONOCHROME2"
    planar_configuration: int = 0
    number_of_frames: int = 1
    pixel_data_vr: str = "OW"
    window: Window | None = None
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    palette: tuple[PaletteDescriptor, ...] | None = None
    palette_tags: tuple[str, ...] = ()
    padding: tuple[float, float] | None = None
    floating: bool = False

    @property
    def cell_bytes(self) -> int:
        """Bytes of a decoded sample; 1-bit samples take one."""
        return max(self.bits_allocated, 8) // 8

    @property
    def decoded_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.samples_per_pixel * self.cell_bytes

    @property
    def _is_usable_float(self) -> bool:
        return (
            self.bits_stored == self.bits_allocated in _FLOAT_BITS
            and self.samples_per_pixel == 1
            and self.photometric_interpretation.startswith("MONOCHROME")
        )

    def __post_init__(self) -> None:
        """Refuses what no decoder could make sense of.

        Raises:
            NotAcceptable: An attribute is outside its range.
        """
        if not (
            0 < self.rows < 1 << 16
            and 0 < self.columns < 1 << 16
            and self.samples_per_pixel in {1, 3}
            and self.bits_allocated in _WORD_BITS
            and 0 < self.bits_stored <= self.bits_allocated
            and self.bits_stored - 1 <= self.high_bit < self.bits_allocated
            and self.planar_configuration in {0, 1}
            and self.number_of_frames > 0
            and (not self.floating or self._is_usable_float)
        ):
            raise NotAcceptable("The image's pixel attributes are not usable.")


def describe(
    dataset_json: Json, frame_index: int = 0, tables: Tables = _NO_TABLES
) -> PixelDescription:
    """The pixel attributes of one frame.

    Args:
        dataset_json: DICOM JSON of the instance, tags as keys.
        frame_index: From 0; chooses the item of the per-frame functional groups.
        tables: What `tables_elsewhere` asked for; without it they are left out.

    Raises:
        NotAcceptable: An attribute that every image has is missing or out of range.

    Source: PS3.3 C.7.6.3, C.7.6.16.
    """
    bits_allocated = _integer(dataset_json, "00280100", 0)
    bits_stored = _integer(dataset_json, "00280101", bits_allocated)
    photometric_interpretation = _text(dataset_json, "00280004", "MONOCHROME2")
    voi = _group(dataset_json, frame_index, "00289132")
    values = _group(dataset_json, frame_index, "00289145")
    is_palette = photometric_interpretation == "PALETTE COLOR"
    floats = next((tag for tag in _FLOAT_PADDING if tag in dataset_json), None)
    return PixelDescription(
        rows=_integer(dataset_json, "00280010", 0),
        columns=_integer(dataset_json, "00280011", 0),
        samples_per_pixel=_integer(dataset_json, "00280002", 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=_integer(dataset_json, "00280102", bits_stored - 1),
        signed=_integer(dataset_json, "00280103", 0) == 1,
        photometric_interpretation=photometric_interpretation,
        planar_configuration=_integer(dataset_json, "00280006", 0),
        number_of_frames=_integer(dataset_json, "00280008", 1) or 1,
        pixel_data_vr=str(dataset_json.get("7FE00010", {}).get("vr", "OW")),
        window=_window(voi) or _window(dataset_json),
        slope=_number(values, "00281053", _number(dataset_json, "00281053", 1)) or 1,
        intercept=_number(values, "00281052", _number(dataset_json, "00281052", 0)),
        modality_lut=_lookup_table(dataset_json, _MODALITY_LUT, tables),
        voi_lut=_lookup_table(voi, _VOI_LUT, tables)
        or _lookup_table(dataset_json, _VOI_LUT, tables),
        palette=_palette(dataset_json) if is_palette else None,
        palette_tags=_palette_tags(dataset_json) if is_palette else (),
        padding=_padding(dataset_json, _FLOAT_PADDING.get(floats or "", _PADDING)),
        floating=floats is not None and "7FE00010" not in dataset_json,
    )


def tables_elsewhere(dataset_json: Json, frame_index: int = 0) -> tuple[str, ...]:
    """BulkDataURIs of the lookup tables that show the frame, of at most 128 KiB each.

    Args:
        dataset_json: As for `describe`.
        frame_index: As for `describe`.

    Source: PS3.3 C.11.1.1, C.11.2.1.1.
    """
    voi = _group(dataset_json, frame_index, "00289132")
    sequences = [(dataset_json, _MODALITY_LUT)]
    if _window(voi) is None and _window(dataset_json) is None:
        holder = voi if _item(voi, _VOI_LUT) else dataset_json
        sequences.append((holder, _VOI_LUT))
    data = [_item(holder, tag).get(_LUT_DATA, {}) for holder, tag in sequences]
    return tuple(element["BulkDataURI"] for element in data if "BulkDataURI" in element)


def _palette_tags(dataset_json: Json) -> tuple[str, ...]:
    """The elements that hold the palette."""
    is_plain = any(tag in dataset_json for tag in PALETTE_TAGS)
    is_segmented = any(tag in dataset_json for tag in SEGMENTED_PALETTE_TAGS)
    return SEGMENTED_PALETTE_TAGS if is_segmented and not is_plain else PALETTE_TAGS


def _values(dataset: Json, tag: str) -> Sequence[Any]:
    """The Value array; empty if there is none."""
    element = dataset.get(tag)
    value = element.get("Value") if isinstance(element, Mapping) else None
    return value if isinstance(value, list) else ()


def _number(dataset: Json, tag: str, default: float) -> float:
    """The first value if it is a finite number, else `default`."""
    values = _values(dataset, tag)
    try:
        number = float(values[0]) if values else default
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default


def _integer(dataset: Json, tag: str, default: int) -> int:
    """As `_number`, without a fraction."""
    return int(_number(dataset, tag, default))


def _text(dataset: Json, tag: str, default: str) -> str:
    """The first value without surrounding blanks."""
    values = _values(dataset, tag)
    text = values[0].strip(" \0") if values and isinstance(values[0], str) else ""
    return text or default


def _item(dataset: Json, tag: str, index: int = 0) -> Json:
    """An item of a sequence; empty if there is none."""
    items = _values(dataset, tag)
    item = items[index] if 0 <= index < len(items) else None
    return item if isinstance(item, Mapping) else {}


def _group(dataset: Json, frame_index: int, tag: str) -> Json:
    """The frame's item of a functional group, else the shared one, else empty.

    Source: PS3.3 C.7.6.16.
    """
    own = _item(_item(dataset, "52009230", frame_index), tag)
    return own or _item(_item(dataset, "52009229"), tag)


def _window(dataset: Json) -> Window | None:
    """The first window, unless its width is 0 or less."""
    center = _number(dataset, "00281050", math.nan)
    width = _number(dataset, "00281051", 0)
    if math.isnan(center) or width <= 0:
        return None
    return Window(center, width, _text(dataset, "00281056", "LINEAR"))


def _lookup_table(dataset: Json, tag: str, tables: Tables) -> LookupTable | None:
    """The first item of a LUT sequence, if its data are at hand.

    Source: PS3.3 C.11.1.1, C.11.2.1.1.
    """
    item = _item(dataset, tag)
    try:
        entries, first, bits = (int(n) for n in _values(item, "00283002"))
        entries = entries % (1 << 16) or 1 << 16
        words = _lut_words(item, entries, tables)
    except (TypeError, ValueError, OverflowError):
        return None
    if not words or not 0 < bits <= 16:
        return None
    return LookupTable(first, bits, words)


def _lut_words(item: Json, entries: int, tables: Tables) -> tuple[int, ...]:
    """The entries of a lookup table; those of 8 bits may come two in a word."""
    values = _values(item, _LUT_DATA)
    if values:
        return tuple(int(number) & 0xFFFF for number in values[:entries])
    element = item.get(_LUT_DATA, {})
    raw = tables.get(element.get("BulkDataURI", ""), b"") or _inline(item, _LUT_DATA)
    if entries <= len(raw) < 2 * entries:
        return tuple(raw[:entries])
    return tuple(memoryview(raw).cast("H")[:entries])


def _inline(dataset: Json, tag: str) -> bytes:
    """Binary data inside the JSON; empty if there is none."""
    element = dataset.get(tag)
    text = element.get("InlineBinary") if isinstance(element, Mapping) else None
    try:
        return b64decode(text) if isinstance(text, str) else b""
    except (Base64Error, ValueError):
        return b""


def _palette(dataset: Json) -> tuple[PaletteDescriptor, ...] | None:
    """The three descriptors; None if one is missing or has no meaning.

    Source: PS3.3 C.7.6.3.1.5.
    """
    descriptors = []
    for tag in _DESCRIPTOR_TAGS:
        try:
            entries, first, bits = (int(number) for number in _values(dataset, tag))
        except (TypeError, ValueError, OverflowError):
            return None
        entries = entries % (1 << 16) or 1 << 16
        descriptors.append(PaletteDescriptor(entries, first, bits))
    return tuple(descriptors)


def _padding(dataset: Json, tags: tuple[str, str]) -> tuple[float, float] | None:
    """Pixel Padding Value and Range Limit, in order.

    Source: PS3.3 C.7.5.1.1.2.
    """
    value_tag, limit_tag = tags
    if not _values(dataset, value_tag):
        return None
    value = _number(dataset, value_tag, 0)
    limit = _number(dataset, limit_tag, value)
    return min(value, limit), max(value, limit)
