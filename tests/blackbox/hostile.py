"""Requests that nobody means well: the same ones for the same seed.

`case(number)` gives the name of a kind and what to send, byte by byte; the kinds are in
`KINDS` with their shares. Files are damaged as real ones are (cut, flipped) and as an
attacker would (lengths, depth, bombs, paths in UIDs).
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random
from urllib.parse import quote

import corpus
import imagecodecs
import numpy as np
from blackbox.loads import BOUNDARY, STOW_HEADERS, head, stow_body
from data import file_of, instance, item
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

SEED = 20260217
PATHS = (
    "../../../../outside",
    "..",
    ".",
    "/etc/passwd",
    "1.2/../../../outside",
    "1.2\\..\\..\\outside",
    "%2e%2e%2foutside",
    "1.2.3/",
    "1.2.3\0/../outside",
    "~",
    "1" * 200,
    ".tmp/1",
    "CON",
    "1.2.3\n",
)
REAL = (
    *("JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEG-LL.dcm"),
    *("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
    *("examples_palette.dcm", "examples_ybr_color.dcm", "liver_1frame.dcm"),
    *(
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "nested_priv_SQ.dcm",
        "UN_sequence.dcm",
    ),
    *("SC_rgb_rle_2frame.dcm", "rtdose_rle.dcm", "chrH31.dcm", "reportsi.dcm"),
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One case.

    Attributes:
        pieces: What to send, with a pause between two of them.
        vanish: Hang up after the last piece without reading.
        method: Of the request; an answer to HEAD has no body.
        read_back: Fetch what was stored, if anything was.
    """

    pieces: list[bytes]
    vanish: bool = False
    method: str = "POST"
    read_back: bool = False
    pause_seconds: float = field(default=0.0)


def case(number: int) -> tuple[str, Hostile]:
    """The kind and the request of this number."""
    random = Random(SEED * 1_000_003 + number)
    name = random.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
    return name, KINDS[name][1](random)


# --- files -----------------------------------------------------------------------


@cache
def bases() -> tuple[bytes, ...]:
    """Whole files: ours in each syntax, and small real ones."""
    made = [
        instance(transfer_syntax=syntax, frames=frames)
        for syntax, frames in (
            (ExplicitVRLittleEndian, 2),
            (ImplicitVRLittleEndian, 1),
            (ExplicitVRBigEndian, 1),
            (DeflatedExplicitVRLittleEndian, 1),
            (RLELossless, [b"\x01" + bytes(63) + b"\x02abc"] * 2),
            (JPEG2000Lossless, [b"\xff\x4f\xff\x51" + bytes(80)]),
            (JPEGBaseline8Bit, [b"\xff\xd8\xff\xe0" + bytes(80)] * 3),
        )
    ]
    real = [path.read_bytes() for path in corpus.files() if path.name in REAL]
    assert len(real) > 10
    return (*made, *(content for content in real if len(content) < 300_000))


def cut(random: Random) -> bytes:
    content = random.choice(bases())
    return content[: random.randrange(len(content))]


def flipped(random: Random) -> bytes:
    """Some bytes differ; more often near the start, where headers are."""
    content = bytearray(random.choice(bases()))
    for _ in range(random.choice((1, 2, 8, 64))):
        reach = random.choice((400, 2_000, len(content)))
        at = random.randrange(132, max(133, min(reach, len(content))))
        content[at % len(content)] = random.randrange(256)
    return bytes(content)


def spliced(random: Random) -> bytes:
    """The start of one file and the end of another."""
    one, other = random.choice(bases()), random.choice(bases())
    return one[: random.randrange(len(one))] + other[random.randrange(len(other)) :]


def long_lengths(random: Random) -> bytes:
    """Length fields that say 4 GB, or a little too much, or nothing."""
    content = bytearray(random.choice(bases()))
    length = random.choice((0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0xFFFFFF00, 1 << 20))
    for _ in range(random.choice((1, 1, 3))):
        marks = (
            b"OW\0\0",
            b"SQ\0\0",
            b"UN\0\0",
            b"OB\0\0",
            b"UT\0\0",
            b"\xfe\xff\0\xe0",
        )
        found = content.find(random.choice(marks), random.randrange(1, 1500))
        at = found + 4 if found > 0 else random.randrange(140, len(content) - 4)
        content[at : at + 4] = struct.pack("<I", length)
    return bytes(content)


def header(syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Preamble, file meta information and what a store needs, without pixels."""
    return instance(transfer_syntax=syntax, frames=0)


def sequence(tag: int, content: bytes, *, undefined: bool) -> bytes:
    """Explicit VR little endian, one item."""
    start = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"SQ", 0)
    if undefined:
        return (
            start
            + b"\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
            + content
            + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        )
    return (
        start
        + struct.pack("<I", len(content) + 8)
        + b"\xfe\xff\0\xe0"
        + struct.pack("<I", len(content))
        + content
    )


def nested(random: Random) -> bytes:
    """Sequences in sequences, up to 1,000 deep, closed or not."""
    depth = random.choice((60, 63, 64, 65, 66, 200, 1000))
    undefined = random.random() < 0.5
    content = b""
    for _ in range(depth):
        content = sequence(0x00400275, content, undefined=undefined)
    if random.random() < 0.3:
        content = content[: random.randrange(len(content))]
    return header() + content


def deflated(random: Random) -> bytes:
    """A bomb: up to 1 GiB behind a few hundred kilobytes."""
    size = random.choice((1, 20, 100, 300, 300, 1024))
    start = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size << 20)
    if random.random() < 0.5:
        start = b"\0" * 8
    return meta_only(DeflatedExplicitVRLittleEndian) + bomb(size, start)


@cache
def bomb(size_mib: int, start: bytes) -> bytes:
    """A deflated data set, then zeros; blocks after a full flush are all alike."""
    whole = header()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(whole[len(meta_only(ExplicitVRLittleEndian)) :] + start)
    begin += packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + block * size_mib + packer.flush()


def meta_only(syntax: str) -> bytes:
    """Preamble and file meta information."""
    whole = header(syntax)
    length = int.from_bytes(whole[140:144], "little")
    return whole[: 144 + length]


SYNTAXES = (RLELossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless)
SIDES = (2_000, 4_000, 5_000, 7_000, 10_000)
MEANINGS = ("MONOCHROME2", "PALETTE COLOR", "RGB")


def large_image(random: Random) -> bytes:
    """A frame of up to 300 million samples behind a few kilobytes."""
    return image_bomb(
        random.choice(SYNTAXES), random.choice(SIDES), random.choice(MEANINGS)
    )


@cache
def image_bomb(syntax: str, side: int, meaning: str) -> bytes:
    """A black image of that many rows and columns."""
    samples = 3 if meaning == "RGB" else 1
    black = np.zeros((side, side, samples)[: 2 if samples == 1 else 3], np.uint8)
    if syntax == RLELossless:
        whole, rest = divmod(side * side, 128)
        runs = b"\x81\0" * whole + (bytes((257 - rest, 0)) if rest > 1 else b"")
        starts = [64 + number * len(runs) for number in range(samples)]
        frame = struct.pack("<16I", samples, *starts, *[0] * (15 - samples))
        frame += runs * samples
    elif syntax == JPEG2000Lossless:
        frame = imagecodecs.jpeg2k_encode(black, level=0, codecformat="j2k")
    elif syntax == JPEGBaseline8Bit:
        frame = imagecodecs.jpeg8_encode(black, level=50)
    else:
        frame = imagecodecs.jpegls_encode(black)
    pixels = {
        "rows": side,
        "columns": side,
        "bits_allocated": 8,
        "samples_per_pixel": samples,
        "photometric_interpretation": meaning,
    }
    palette: dict[str, object] = {}
    for colour in ("Red", "Green", "Blue") if meaning == "PALETTE COLOR" else ():
        name = f"{colour}PaletteColorLookupTable"
        palette |= {f"{name}Descriptor": [256, 0, 8], f"{name}Data": bytes(256)}
    return instance(
        transfer_syntax=syntax, frames=[bytes(frame)], pixels=pixels, **palette
    )


def many_elements(random: Random) -> bytes:
    """As many elements or items as fit, each of a few bytes."""
    count = random.choice((1_000, 50_000, 290_000, 320_000))
    which = random.random()
    if which < 0.2:
        element = struct.pack("<HH2sH", 0x0011, 0x0010, b"LO", 2) + b"A "
        return header() + element * count
    if which < 0.5:  # all different: at the root, or in one item
        count = min(count, 65_000)
        elements = b"".join(
            struct.pack("<HH2sH", 0x0011 + 2 * (tag >> 15), tag & 0xFFFF, b"LO", 2)
            + b"A "
            for tag in range(0x1000, 0x1000 + count)
        )
        start = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(elements) + 8)
        item_start = b"\xfe\xff\0\xe0" + struct.pack("<I", len(elements))
        start = start + item_start if which < 0.35 else b""
        return header() + start + elements
    value = random.choice((b"", struct.pack("<HH2sH", 8, 0x100, b"SH", 2) + b"A "))
    items = (b"\xfe\xff\0\xe0" + struct.pack("<I", len(value)) + value) * count
    start = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(items))
    return header() + start + items


def strange_uids(random: Random) -> bytes:
    """UIDs that are paths, too long, empty or no text."""
    name = random.choice(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    dataset = {name: random.choice(PATHS)}
    content = instance(SpecificCharacterSet="ISO_IR 192", frames=1)
    if random.random() < 0.5:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return instance(frames=1, **dataset)
    uid = random.choice(PATHS).encode()[:20]
    at = content.index(b"\x20\x00\x0d\x00UI") + 8
    return content[:at] + uid + content[at + len(uid) :]


STRANGE: tuple[dict[str, object], ...] = (
    {"NumberOfFrames": 2**31 - 1, "Rows": 65535, "Columns": 65535},
    {"NumberOfFrames": -1},
    {"Rows": 0, "Columns": 0},
    {"BitsAllocated": 1, "SamplesPerPixel": 4},
    {"BitsAllocated": 65535},
    {"PatientName": "=" * 5000},
    {"PatientName": "^" * 3000},
    {"SpecificCharacterSet": "\\ISO 2022 IR 87\\NOSUCH"},
    {"StudyDate": "99999999", "PatientBirthDate": "x" * 500},
    {"WindowWidth": "1e999", "WindowCenter": "-1e999"},
    {"RescaleSlope": "0", "RescaleIntercept": "1e300"},
    {"InstanceNumber": "9" * 400},
    {"PhotometricInterpretation": "PALETTE COLOR"},
    {"PhotometricInterpretation": "NOSUCH", "SamplesPerPixel": 3},
    {"Modality": "\0" * 64, "AccessionNumber": "\x1b$B" * 40},
    {"PixelSpacing": [], "ImagePositionPatient": ["nan", "inf", ""]},
    {"SOPClassUID": ""},
)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def strange_values(random: Random) -> bytes:
    """Values that do not fit their VR, or numbers that nobody could allocate."""
    return random.choice(strange_files())


@cache
def strange_files() -> tuple[bytes, ...]:
    """An image for each strange set of values, in either syntax."""
    plain = {
        "SOPClassUID": CTImageStorage,
        "StudyInstanceUID": "1.2.826.0.1.99.1",
        "SeriesInstanceUID": "1.2.826.0.1.99.1.1",
        "SOPInstanceUID": "1.2.826.0.1.99.1.1.100000",
        "PatientID": "H",
        "PatientName": "H^H",
        "Modality": "CT",
        "Rows": 16,
        "Columns": 16,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "SamplesPerPixel": 1,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": bytes(512),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says that they are strange
        return tuple(
            file_of(item(**(plain | values)), transfer_syntax=syntax)
            for values in STRANGE
            for syntax in NATIVE
        )


def broken_pixels(random: Random) -> bytes:
    """A real image whose compressed data are damaged."""
    content = bytearray(random.choice(bases()))
    at = content.rfind(b"\xe0\x7f\x10\x00")
    if at < 0:
        return bytes(content)
    for _ in range(random.choice((1, 4, 40))):
        content[random.randrange(at + 8, len(content))] = random.randrange(256)
    return bytes(content)


FILES: tuple[Callable[[Random], bytes], ...] = (
    *(cut, flipped, flipped, spliced, long_lengths, long_lengths, strange_uids),
    *(strange_values, broken_pixels, broken_pixels),
)


def random_file(random: Random) -> bytes:
    return random.choice(FILES)(random)


def fresh(content: bytes, random: Random) -> bytes:
    """The file under a SOP Instance UID of its own, if it has one."""
    for mark in (b"\x08\x00\x18\x00UI", b"\x00\x08\x00\x18UI"):
        at = content.find(mark)
        if at > 0:
            order = "little" if mark[0] == 8 else "big"
            length = int.from_bytes(content[at + 6 : at + 8], order)
            if 10 < length <= 64:
                uid = f"1.2.{random.randrange(10 ** (length - 5))}".encode()
                uid = uid.ljust(length, b"\0")
                return content[: at + 8] + uid + content[at + 8 + length :]
    return content


# --- requests --------------------------------------------------------------------


def post(body: bytes, headers: dict[str, str] | None = None) -> list[bytes]:
    path = "/v2/studies"
    return [head("POST", path, headers or STOW_HEADERS, len(body)) + body]


def stow_files(random: Random) -> Hostile:
    files = [
        fresh(random_file(random), random) for _ in range(random.choice((1, 1, 3)))
    ]
    return Hostile(post(stow_body(files)), read_back=True)


def stow_heavy(random: Random) -> Hostile:
    content = random.choice((nested, nested, many_elements))(random)
    return Hostile(post(stow_body([fresh(content, random)])), read_back=True)


def stow_bomb(random: Random) -> Hostile:
    return Hostile(post(stow_body([deflated(random)])), read_back=True)


def stow_large_image(random: Random) -> Hostile:
    content = fresh(large_image(random), random)
    return Hostile(post(stow_body([content])), read_back=True)


def single_part(random: Random) -> Hostile:
    kind = random.choice(
        ("application/dicom", 'application/dicom; x="', "text/plain", "")
    )
    body = random_file(random)
    return Hostile(
        post(body, {"Content-Type": kind, "Accept": "application/dicom+json"})
    )


def many_parts(random: Random) -> Hostile:
    count = random.choice((100, 1_000, 10_000))
    part = random.choice((b"", b"x", bases()[0][:300]))
    return Hostile(post(stow_body([part] * count)))


def part_headers(random: Random) -> Hostile:
    """One part whose header is 1 MB, has no colon, or is no text."""
    lines = random.choice(
        (
            b"X-Long: " + b"a" * (1 << 20),
            b"X: y\r\n" * 40_000,
            b"no colon at all",
            bytes(random.randrange(256) for _ in range(200)),
            b"Content-Length: -5",
            b"Content-Length: 99999999999999999999",
            b"Content-Type: application/dicom\r\n folded\r\n\tmore",
            b"Content-Type: " + b";".join([b"a=b"] * 5_000),
        )
    )
    body = b"--%b\r\n%b\r\n\r\nDATA\r\n--%b--\r\n" % (
        BOUNDARY.encode(), lines, BOUNDARY.encode(),
    )  # fmt: skip
    return Hostile(post(body))


def framing(random: Random) -> Hostile:
    """No final boundary, wrong ones, cut anywhere, text around."""
    body = stow_body([random.choice(bases())] * random.choice((1, 2)))
    which = random.randrange(6)
    if which == 0:
        body = body.removesuffix(f"--{BOUNDARY}--\r\n".encode())
    elif which == 1:
        body = body[: random.randrange(len(body))]
    elif which == 2:
        body = body.replace(BOUNDARY.encode(), b"other")
    elif which == 3:
        body = bytes(random.randrange(256) for _ in range(500)) + body
    elif which == 4:
        body = body + body
    else:
        body = body.replace(b"\r\n", b"\n")
    boundary = random.choice(
        (BOUNDARY, BOUNDARY, "", '"', "a" * 300, "\xe9", BOUNDARY + "x")
    )
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return Hostile(post(body, STOW_HEADERS | {"Content-Type": kind}))


def gone_in_mid_body(random: Random) -> Hostile:
    """The client hangs up, sometimes after megabytes."""
    large = bytes(random.choice((0, 100_000, 6_000_000)))
    body = stow_body([random.choice(bases()) + large])
    (whole,) = post(body)
    end = random.randrange(len(whole) - len(body), len(whole))
    return Hostile([whole[:end]], vanish=True)


def slow(random: Random) -> Hostile:
    """The body comes in drips."""
    (whole,) = post(stow_body([random.choice(bases())[:2000]]))
    step = max(1, len(whole) // 6)
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    return Hostile(pieces, pause_seconds=0.05)


GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v2/studies HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967295\r\n\r\nDICM",
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"GET /v2/studies HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET /v2/studies HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    b"GET /v2/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/studies HTTP/1.1\r\nHost: \x00\xff\r\n\r\n",
    b"\r\n\r\n\r\nGET /health/check HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 3000,
)


def garbage(random: Random) -> Hostile:
    pieces = [random.choice(GARBAGE)]
    if random.random() < 0.3:
        pieces = [bytes(random.randrange(256) for _ in range(400)) + b"\r\n\r\n"]
    return Hostile(pieces, vanish=random.random() < 0.5)


WORDS = (
    *(
        "*",
        "?",
        "",
        "\\",
        "'",
        '"',
        "%",
        "_",
        "%00",
        "-",
        "20200101-",
        "9" * 300,
        "a" * 2000,
    ),
    *(
        "^",
        "=",
        "Ä",
        "\u202e",
        "\ud83d\ude00",
        "1.2.3",
        "1.2,1.2",
        "0",
        "-1",
        "1e9",
        "true",
    ),
    *("' OR 1=1 --", "\x00", "[", "(" * 200, "*" * 100, "200001", "null", "2**31"),
)
KEYS = (
    *("PatientName", "StudyDate", "StudyInstanceUID", "ModalitiesInStudy", "limit"),
    *("offset", "includefield", "fuzzymatching", "cursor", "00100020", "0040A730"),
    *("nosuch", "00080020", "StudyTime", "PatientBirthDate", "starttime", "endtime"),
    *("includemetadata", "quality", "viewport", "SeriesDescription", "status"),
)
LEVELS = (
    "studies",
    "series",
    "instances",
    "studies/1.2.3/series",
    "studies/1.2.3/instances",
)


def search(random: Random) -> Hostile:
    count = random.choice((1, 2, 5, 200))
    pairs = (
        f"{random.choice(KEYS)}={quote(random.choice(WORDS), errors='replace')}"
        for _ in range(count)
    )
    level = random.choice((*LEVELS, "changefeed", "operations", "workitems"))
    path = f"/v2/{level}?{'&'.join(pairs)}"
    return get(path, random)


def get(path: str, random: Random, **headers: str) -> Hostile:
    accept = random.choice(
        (
            *(
                "application/dicom+json",
                "*/*",
                "",
                "a" * 5000,
                'multipart/related; type="*/*"',
            ),
            *(
                "application/dicom; transfer-syntax=1.2.3",
                "image/jpeg; q=2",
                ";;;;",
                "*",
            ),
            'multipart/related; type="application/dicom"; transfer-syntax=*',
        )
    )
    method = random.choice(("GET", "GET", "GET", "HEAD", "DELETE", "PATCH"))
    fields = {"Accept": accept} | headers
    return Hostile([head(method, path, fields, None)], method=method)


def paths(random: Random) -> Hostile:
    parts = [quote(random.choice(PATHS), safe="/%") for _ in range(3)]
    study, series, sop = parts
    tail = random.choice(
        ("", "/metadata", "/rendered", "/frames/1", "/bulkdata/7FE00010")
    )
    frames = random.choice(("0", "-1", "1,2,3", "9" * 30, ",", "1," * 3000, "x"))
    path = random.choice(
        (
            f"/v2/studies/{study}/series/{series}/instances/{sop}{tail}",
            f"/v2/studies/{study}{tail}",
            f"/v2/studies/1.2.3/series/1.2.3/instances/1.2.3/frames/{frames}",
            f"/v2/partitions/{study}/studies",
            f"/viewer/{study}",
            f"/viewer/../{series}",
            f"/v{random.randrange(99)}/studies",
            f"/v2/extendedquerytags/{study}",
            f"/v2/operations/{sop}",
        )
    )
    span = random.choice(
        ("bytes=0-", "bytes=9-1", "bytes=-0", "x", f"bytes=0-{'9' * 40}")
    )
    return get(path, random, Range=span)


JSON = (
    *(
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 5_000,
        "\xff",
        "1e999",
        '""',
        "[[[[]]]]",
    ),
    *(
        '[{"path":"0040A730","level":"Study"}]',
        '[{"path":5}]',
        '{"studyInstanceUids":["../x"]}',
    ),
    *(
        '{"studyInstanceUids":[],"changeDataset":{}}',
        '{"0020000D":{"vr":"UI","Value":[{}]}}',
    ),
)


def json_body(random: Random) -> Hostile:
    path = random.choice(
        (
            *("/v2/extendedquerytags", "/v2/studies/$bulkUpdate", "/v2/export"),
            *("/v2/workitems", "/v2/workitems/1.2.3/state", "/v2/studies"),
            "/v2/extendedquerytags/00101010",
        )
    )
    method = random.choice(("POST", "POST", "PUT", "PATCH"))
    body = random.choice(JSON).encode("latin-1")
    kind = random.choice(("application/json", "application/dicom+json", ""))
    fields = {"Content-Type": kind, "Accept": "application/dicom+json"}
    return Hostile([head(method, path, fields, len(body)) + body], method=method)


KINDS: dict[str, tuple[float, Callable[[Random], Hostile]]] = {
    "files": (40, stow_files),
    "heavy files": (2, stow_heavy),
    "deflate bombs": (0.5, stow_bomb),
    "large images": (0.4, stow_large_image),
    "single part": (5, single_part),
    "many parts": (0.5, many_parts),
    "part headers": (3, part_headers),
    "framing": (12, framing),
    "gone in mid-body": (6, gone_in_mid_body),
    "slow senders": (4, slow),
    "garbage": (6, garbage),
    "searches": (10, search),
    "paths": (8, paths),
    "JSON": (5, json_body),
}


def read_backs(uids: tuple[str, str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What a viewer would ask of an instance that was let in."""
    study, series, sop = (quote(uid, safe="") for uid in uids)
    place = f"/v2/studies/{study}/series/{series}/instances/{sop}"
    yield f"{place}/metadata", {"Accept": "application/dicom+json"}
    yield f"{place}/frames/1", {"Accept": "application/octet-stream; transfer-syntax=*"}
    yield f"{place}/frames/1", {"Accept": "application/octet-stream"}
    yield f"{place}/rendered", {"Accept": "image/png"}
    yield place, {"Accept": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"}
    yield place, {"Accept": "application/dicom; transfer-syntax=*"}
