"""From decoded pixel values to 8-bit grey or RGB: the display pipeline of DICOM.

Import it only where pixels are needed: it brings numpy in. Grey values of up to 16
bits go through one table, so the cost hardly depends on the steps in it. PS3.3 C.11.1,
C.11.2, C.7.6.3.1.2, C.7.9.2; PS3.4 N.2.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dicomweb.codecs import Decoded, Samples
from dicomweb.errors import NotAcceptable
from dicomweb.pixels import (
    SEGMENTED_PALETTE_TAGS,
    LookupTable,
    PaletteDescriptor,
    PixelDescription,
    Window,
)

Values = NDArray[np.float64]
Conversion = Callable[[Samples], Samples]

_TABLE_BITS = 16
_STRIP_PIXELS = 1 << 18
_DISCRETE, _LINEAR, _INDIRECT = range(3)

# Rows: R, G, B; columns: Y, Cb, Cr less their offsets.
_FULL_RANGE = np.array(
    ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0)), np.float32
)
_PARTIAL_RANGE = np.array(
    (
        (1.164384, 0.0, 1.596027),
        (1.164384, -0.391762, -0.812968),
        (1.164384, 2.017232, 0),
    ),
    np.float32,
)


def display_values(
    decoded: Decoded,
    description: PixelDescription,
    palette: Sequence[bytes] | None,
    *,
    big_endian: bool = False,
) -> Samples:
    """What a screen shows: shape (rows, columns, 1 or 3), one byte each.

    A large frame is shown in its own memory where the values have one byte and may be
    overwritten; after the call nothing else should be done with it.

    Args:
        decoded: The frame.
        description: Of the frame.
        palette: Red, green, blue Palette Color Lookup Table Data, if PALETTE COLOR.
        big_endian: Byte order of the words in `palette`.

    Raises:
        NotAcceptable: The photometric interpretation cannot be shown, or its palette
            is missing.

    Source: PS3.3 C.7.6.3.1.2.
    """
    convert = _conversion(decoded, description, palette, big_endian=big_endian)
    rows, columns, _ = decoded.samples.shape
    step = max(1, _STRIP_PIXELS // columns)
    first = convert(_stored_values(decoded.samples[:step], description))
    if rows <= step:
        return first
    # In strips: the steps between need many times the bytes of what they work on.
    whole = _canvas(decoded.samples, (rows, columns, first.shape[2]))
    whole[:step] = first
    for row in range(step, rows, step):
        strip = decoded.samples[row : row + step]
        whole[row : row + step] = convert(_stored_values(strip, description))
    return whole


def _canvas(samples: Samples, shape: tuple[int, int, int]) -> Samples:
    """Memory for the bytes to show: that of the samples where it can be."""
    flags = samples.flags
    own = flags.writeable and flags.c_contiguous and samples.dtype == np.uint8
    return samples if own and samples.shape == shape else np.empty(shape, np.uint8)


def _conversion(
    decoded: Decoded,
    description: PixelDescription,
    palette: Sequence[bytes] | None,
    *,
    big_endian: bool,
) -> Conversion:
    """What makes bytes to show of the stored values of any rows of the frame."""
    samples_per_pixel = decoded.samples.shape[2]
    match decoded.photometric_interpretation:
        case "MONOCHROME1" | "MONOCHROME2" as meaning if samples_per_pixel == 1:
            grey = _grey(decoded.samples, description)
            if meaning == "MONOCHROME2":
                return grey
            return lambda samples: 255 - grey(samples)
        case "PALETTE COLOR" if samples_per_pixel == 1:
            return _palette_color(description, palette, big_endian=big_endian)
        case "RGB" | "YBR_FULL" | "YBR_PARTIAL" as meaning if samples_per_pixel == 3:
            return lambda samples: _colour(samples, description, meaning)
    raise NotAcceptable("Images of this photometric interpretation cannot be rendered.")


def _stored_values(samples: Samples, description: PixelDescription) -> Samples:
    """Cells without the bits around the stored ones (overlays), the sign extended."""
    allocated, stored = samples.dtype.itemsize * 8, description.bits_stored
    if stored == allocated or description.bits_allocated == 1:
        return samples
    above = allocated - 1 - description.high_bit
    shifted = samples << above if above else samples
    return shifted >> (allocated - stored)


def _grey(frame: Samples, description: PixelDescription) -> Conversion:
    """Grey levels of monochrome values.

    Source: PS3.4 N.2.
    """
    if description.bits_allocated == 1:
        return lambda samples: samples * np.uint8(255)
    needs_range = description.window is None and description.voi_lut is None
    limits = _limits(frame, description) if needs_range else (0.0, 0.0)
    if description.bits_stored > _TABLE_BITS:
        return lambda samples: _levels(samples.astype(np.float64), description, limits)
    bits = description.bits_stored
    start = -(1 << bits - 1) if description.signed else 0
    values = np.arange(start, start + (1 << bits), dtype=np.float64)
    table = _levels(values, description, limits)
    # Two's complement: rolled, a negative value's own bits are its index.
    table = np.roll(table, start)
    mask = (1 << bits) - 1
    return lambda samples: np.take(
        table, samples.view(f"u{samples.dtype.itemsize}") & mask
    )


def _limits(frame: Samples, description: PixelDescription) -> tuple[float, float]:
    """Lowest and highest stored value, padding left aside; 0 where none is a number."""
    rows, columns, _ = frame.shape
    step = max(1, _STRIP_PIXELS // columns)
    all_ends: list[float] = []
    measured_ends: list[float] = []
    for row in range(0, rows, step):
        samples = _stored_values(frame[row : row + step], description)
        if description.floating:
            samples = samples[np.isfinite(samples)]
        all_ends += _ends(samples)
        if description.padding is not None:
            low, high = description.padding
            measured_ends += _ends(samples[(samples < low) | (samples > high)])
    ends = measured_ends or all_ends or [0.0]
    return min(ends), max(ends)


def _ends(samples: Samples) -> list[float]:
    return [float(samples.min()), float(samples.max())] if samples.size else []


@np.errstate(over="ignore", invalid="ignore")
def _levels(
    stored: Values, description: PixelDescription, limits: tuple[float, float]
) -> Samples:
    """Grey levels, 0 to 255, of stored values; what is no number is black."""
    values = _modality(stored, description)
    if description.window is not None:
        levels = _windowed(values, description.window)
    elif description.voi_lut is not None:
        table = description.voi_lut
        levels = _looked_up(values, table) / ((1 << table.bits) - 1)
    else:
        ends = _modality(np.array(limits, np.float64), description)
        low, high = float(ends.min()), float(ends.max())
        levels = (values - low) / ((high - low) or 1)
    levels = np.nan_to_num(levels, copy=False)
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)


def _modality(stored: Values, description: PixelDescription) -> Values:
    """Stored values in modality units.

    Source: PS3.3 C.11.1.
    """
    if description.modality_lut is not None:
        return _looked_up(stored, description.modality_lut)
    return stored * description.slope + description.intercept


def _looked_up(values: Values, table: LookupTable) -> Values:
    """Table entries; values outside take the first or last entry.

    Source: PS3.3 C.11.1.1.1.
    """
    entries: Values = np.array(table.data, np.float64)
    indexes = np.clip(np.rint(values) - table.first, 0, len(entries) - 1)
    found: Values = entries[np.nan_to_num(indexes, copy=False).astype(np.intp)]
    return found


def _windowed(values: Values, window: Window) -> Values:
    """Values on a scale where black is 0 and white is 1, not yet clipped.

    Source: PS3.3 C.11.2.1.2, C.11.2.1.3.
    """
    center, width = window.center, window.width
    match window.function:
        case "SIGMOID":
            # The logistic function, in the form that cannot overflow.
            return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)
        case "LINEAR_EXACT":
            return (values - center) / width + 0.5
    if width <= 1:  # a threshold; below 1 it is not allowed but found in files
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _colour(samples: Samples, description: PixelDescription, meaning: str) -> Samples:
    """RGB, 8 bits, of RGB or YCbCr of any depth."""
    bits = description.bits_stored
    if samples.dtype.kind == "i":
        raise NotAcceptable("Colour images of signed values cannot be rendered.")
    if bits > 8:
        samples = samples >> (bits - 8)
    elif bits < 8:
        samples = samples.astype(np.uint16) * 255 // ((1 << bits) - 1)
    pixels = samples.astype(np.uint8, copy=False)
    return pixels if meaning == "RGB" else _rgb(pixels, meaning)


def _rgb(pixels: Samples, meaning: str) -> Samples:
    """RGB of 8-bit YCbCr, full or studio range.

    Source: PS3.3 C.7.6.3.1.2.
    """
    is_full = meaning == "YBR_FULL"
    offsets = np.array((0 if is_full else 16, 128, 128), np.float32)
    matrix = _FULL_RANGE if is_full else _PARTIAL_RANGE
    colours = (pixels.astype(np.float32) - offsets) @ matrix.T
    return np.rint(np.clip(colours, 0, 255)).astype(np.uint8)


def _palette_color(
    description: PixelDescription,
    palette: Sequence[bytes] | None,
    *,
    big_endian: bool,
) -> Conversion:
    """RGB of palette indexes.

    Source: PS3.3 C.7.6.3.1.5, C.7.6.3.1.6.
    """
    if description.palette is None or palette is None or len(palette) != 3:
        raise NotAcceptable("The image's palette is missing.")
    is_segmented = description.palette_tags == SEGMENTED_PALETTE_TAGS
    expand = _segmented_entries if is_segmented else _entries
    tables = []
    for data, descriptor in zip(palette, description.palette, strict=True):
        entries = expand(data, descriptor, big_endian=big_endian)
        tables.append((descriptor.first, _entry_levels(entries, descriptor)))

    def convert(samples: Samples) -> Samples:
        indexes = samples[:, :, 0].astype(np.int64)
        planes = [
            levels[np.clip(indexes - first, 0, len(levels) - 1)]
            for first, levels in tables
        ]
        return np.stack(planes, axis=2)

    return convert


def _entries(
    data: bytes, descriptor: PaletteDescriptor, *, big_endian: bool
) -> Samples:
    """The entries of one channel's table; those of 8 bits may be stored in words."""
    if len(data) < descriptor.entries:
        raise NotAcceptable("The image's palette is incomplete.")
    if len(data) < 2 * descriptor.entries:
        return np.frombuffer(data, np.uint8, descriptor.entries)
    return np.frombuffer(data, ">u2" if big_endian else "<u2", descriptor.entries)


def _entry_levels(entries: Samples, descriptor: PaletteDescriptor) -> Samples:
    """8-bit levels; some files declare 16 bits although their entries use 8."""
    is_wide = descriptor.bits > 8 and int(entries.max()) > 255
    return (entries >> 8 if is_wide else entries).astype(np.uint8)


def _segmented_entries(
    data: bytes, descriptor: PaletteDescriptor, *, big_endian: bool
) -> Samples:
    """The entries that the segments of one channel stand for.

    Source: PS3.3 C.7.9.2.
    """
    word = "u1" if descriptor.bits == 8 else ">u2" if big_endian else "<u2"
    width = np.dtype(word).itemsize
    words = np.frombuffer(data, word, len(data) // width).tolist()
    entries: list[int] = []
    position = 0
    while len(entries) < descriptor.entries and position + 2 < len(words):
        if words[position] == _INDIRECT:
            count, low, high = words[position + 1 : position + 4]
            start = (low | high << 8 * width) // width
            for _ in range(count):
                start = _append_segment(words, start, entries, descriptor.entries)
            position += 4
        else:
            position = _append_segment(words, position, entries, descriptor.entries)
    if len(entries) < descriptor.entries:
        raise NotAcceptable("The image's palette is incomplete.")
    return np.array(entries[: descriptor.entries], np.uint16)


def _append_segment(
    words: list[int], position: int, entries: list[int], wanted: int
) -> int:
    """Adds one discrete or linear segment; where the next one starts.

    Raises:
        ValueError: It is neither, or it adds no entry or too many.
    """
    kind, count = words[position : position + 2]
    if not 0 < count <= wanted - len(entries):
        raise ValueError("not as many entries as declared")
    if kind == _DISCRETE:
        entries += words[position + 2 : position + 2 + count]
        return position + 2 + count
    if kind == _LINEAR and entries:
        # The line starts after the entry before it and ends with the given value.
        line = np.linspace(entries[-1], words[position + 2], count + 1)[1:]
        entries += np.rint(line).astype(int).tolist()
        return position + 3
    raise ValueError("unknown kind of segment")
