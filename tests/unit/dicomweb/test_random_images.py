"""Random images: the display pipeline against one written pixel by pixel.

The other one follows the text of PS3.3 C.7.6.3, C.11.1, C.11.2 and PS3.4 N.2 in plain
Python, without tables and arrays. `RANDOM_IMAGES` says how many.
"""

import math
import os
import random
from dataclasses import dataclass

import numpy as np

from dicomweb import codecs, display
from dicomweb.pixels import (
    PALETTE_TAGS,
    LookupTable,
    PaletteDescriptor,
    PixelDescription,
    Window,
)

COUNT = int(os.environ.get("RANDOM_IMAGES", "300"))
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
TOLERANCE = {"MONOCHROME1": 0.51, "MONOCHROME2": 0.51, "YBR_FULL": 3.5}
"""By how much a level may be off; colours of few bits are rounded before they are
converted."""

Cell = int
Pixel = tuple[Cell, ...]


@dataclass(frozen=True)
class Picture:
    """Cells are unsigned, with whatever lies around the stored bits."""

    description: PixelDescription
    rows: list[list[Pixel]]
    palette: list[bytes] | None

    def frame(self) -> bytes:
        """The bytes of the frame in little endian."""
        description = self.description
        pixels = [pixel for row in self.rows for pixel in row]
        if description.bits_allocated == 1:
            number = sum(bit << i for i, (bit,) in enumerate(pixels))
            return number.to_bytes((len(pixels) + 7) // 8, "little")
        by_plane = description.planar_configuration and len(pixels[0]) > 1
        groups = zip(*pixels, strict=True) if by_plane else pixels
        size = description.bits_allocated // 8
        return b"".join(c.to_bytes(size, "little") for group in groups for c in group)


# --- pixel by pixel ------------------------------------------------------------------


def stored(cell: Cell, description: PixelDescription) -> int:
    """The value in the stored bits of a cell."""
    bits = description.bits_stored
    number = cell >> (description.high_bit - bits + 1) & (1 << bits) - 1
    is_negative = description.signed and number >> (bits - 1)
    return number - (1 << bits) if is_negative else number


def entry(table: LookupTable, number: float) -> int:
    index = round(number) - table.first
    return table.data[min(max(index, 0), len(table.data) - 1)]


def modality(number: int, description: PixelDescription) -> float:
    if description.modality_lut is not None:
        return entry(description.modality_lut, number)
    return number * description.slope + description.intercept


def through_window(x: float, window: Window) -> float:
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (x - center) / width, 700)))
    exact = window.function == "LINEAR_EXACT"
    middle = center if exact else center - 0.5
    span = width if exact else max(width - 1, 0)
    if x <= middle - span / 2:
        return 0
    return 1 if x > middle + span / 2 else (x - middle) / span + 0.5


def grey(picture: Picture) -> list[list[Pixel]]:
    description = picture.description
    if description.bits_allocated == 1:
        return [[(255 * pixel[0],) for pixel in row] for row in picture.rows]
    rows = [[stored(pixel[0], description) for pixel in row] for row in picture.rows]
    numbers = [number for row in rows for number in row]
    if description.padding is not None:
        low, high = description.padding
        numbers = [n for n in numbers if not low <= n <= high] or numbers
    ends = sorted(modality(f(numbers), description) for f in (min, max))

    def level(number: int) -> float:
        x = modality(number, description)
        if description.window is not None:
            return through_window(x, description.window)
        if description.voi_lut is not None:
            top = (1 << description.voi_lut.bits) - 1
            return entry(description.voi_lut, x) / top
        return (x - ends[0]) / ((ends[1] - ends[0]) or 1)

    return [[(255 * min(max(level(n), 0), 1),) for n in row] for row in rows]


def palette(picture: Picture) -> list[list[Pixel]]:
    description = picture.description
    channels = []
    for data, descriptor in zip(picture.palette, description.palette, strict=True):
        size = descriptor.bits // 8
        pieces = [data[i * size : (i + 1) * size] for i in range(descriptor.entries)]
        words = [int.from_bytes(piece, "little") for piece in pieces]
        divisor = 257 if size == 2 and max(words) > 255 else 1
        table = LookupTable(descriptor.first, 16, tuple(words))
        channels.append((table, divisor))
    return [
        [
            tuple(
                entry(table, stored(pixel[0], description)) / divisor
                for table, divisor in channels
            )
            for pixel in row
        ]
        for row in picture.rows
    ]


def colour(picture: Picture) -> list[list[Pixel]]:
    description = picture.description
    top = (1 << description.bits_stored) - 1

    def levels(pixel: Pixel) -> Pixel:
        a, b, c = (stored(cell, description) / top * 255 for cell in pixel)
        if description.photometric_interpretation == "YBR_FULL":
            b, c = b - 128, c - 128
            a, b, c = a + 1.402 * c, a - 0.344136 * b - 0.714136 * c, a + 1.772 * b
        return tuple(min(max(level, 0), 255) for level in (a, b, c))

    return [[levels(pixel) for pixel in row] for row in picture.rows]


def expected(picture: Picture) -> np.ndarray:
    meaning = picture.description.photometric_interpretation
    if meaning == "PALETTE COLOR":
        return np.array(palette(picture), float)
    if picture.description.samples_per_pixel == 3:
        return np.array(colour(picture), float)
    levels = np.array(grey(picture), float)
    return 255 - levels if meaning == "MONOCHROME1" else levels


# --- random pictures -----------------------------------------------------------------


def picture_of(seed: int) -> Picture:
    chosen = random.Random(seed)
    meaning = chosen.choice(
        ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR")
    )
    is_grey = meaning.startswith("MONOCHROME")
    allocated = chosen.choice((1, 8, 16, 16, 32) if is_grey else (8, 16))
    bits = chosen.choice((allocated, chosen.randrange(1, allocated + 1)))
    if not is_grey:
        bits = max(bits, 2)
    high_bit = chosen.choice((bits - 1, chosen.randrange(bits - 1, allocated)))
    samples = 3 if meaning in ("RGB", "YBR_FULL") else 1
    has_levels = is_grey and allocated > 1
    description = PixelDescription(
        rows=chosen.randrange(1, 9),
        columns=chosen.randrange(1, 9),
        samples_per_pixel=samples,
        bits_allocated=allocated,
        bits_stored=bits,
        high_bit=high_bit,
        signed=has_levels and chosen.random() < 0.4,
        photometric_interpretation=meaning,
        planar_configuration=chosen.randrange(2),
        **(random_levels(chosen) if has_levels else {}),
        **(random_palette(chosen) if meaning == "PALETTE COLOR" else {}),
    )
    used = chosen.choice((allocated, min(allocated, 9)))
    rows = [
        [
            tuple(chosen.getrandbits(used) for _ in range(samples))
            for _ in range(description.columns)
        ]
        for _ in range(description.rows)
    ]
    tables = [
        chosen.randbytes(d.entries * d.bits // 8) for d in description.palette or ()
    ]
    return Picture(description, rows, tables or None)


def random_levels(chosen: random.Random) -> dict[str, object]:
    levels: dict[str, object] = {}
    kind = chosen.random()
    if kind < 0.3:
        levels["slope"] = chosen.choice((1, 2, 0.5, -1, -0.25, 3.7))
        levels["intercept"] = chosen.choice((0, -1024, 10.5))
    elif kind < 0.5:
        levels["modality_lut"] = random_table(chosen)
    kind = chosen.random()
    if kind < 0.6:
        levels["window"] = Window(
            chosen.choice((0, 40, 127.5, 1000, -3.3)),
            chosen.choice((0.5, 1, 2, 3.5, 80, 400, 4096)),
            chosen.choice(("LINEAR", "LINEAR_EXACT", "SIGMOID")),
        )
    elif kind < 0.8:
        levels["voi_lut"] = random_table(chosen)
    if chosen.random() < 0.2:
        levels["padding"] = tuple(sorted(chosen.choices(range(-50, 300), k=2)))
    return levels


def random_table(chosen: random.Random) -> LookupTable:
    bits = chosen.choice((8, 10, 16))
    data = tuple(chosen.getrandbits(bits) for _ in range(chosen.randrange(1, 300)))
    return LookupTable(chosen.randrange(-100, 300), bits, data)


def random_palette(chosen: random.Random) -> dict[str, object]:
    entries, bits = chosen.choice((1, 2, 16, 256, 300)), chosen.choice((8, 16))
    first = chosen.choice((0, 5, 100))
    channels = (PaletteDescriptor(entries, first, bits),) * 3
    return {"palette": channels, "palette_tags": PALETTE_TAGS}


def test_a_random_image_is_shown_as_the_standard_says() -> None:
    for seed in range(COUNT):
        picture = picture_of(seed)
        description, frame = picture.description, picture.frame()
        decoded = codecs.decode(frame, EXPLICIT_LITTLE, description)
        assert codecs.to_native(decoded.samples, description) == frame, seed
        shown = display.display_values(decoded, description, picture.palette)
        wanted = expected(picture)
        assert shown.shape == wanted.shape, seed
        meaning = description.photometric_interpretation
        off = np.abs(shown.astype(float) - wanted).max()
        assert off <= TOLERANCE.get(meaning, 1.01), (seed, description)
