"""The real files of pydicom and pydicom-data through a server, against pydicom.

Files with the same UIDs go to partitions of their own, so that each is stored as it is.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import imagecodecs
import numpy as np
import pytest
from blackbox.api import (
    AS_STORED,
    ONE_AS_STORED,
    Api,
    comments,
    failed_items,
    first,
    made,
    parts,
    stored_items,
)
from blackbox.stacks import STACK
from corpus import (
    NAMES,
    TRUNCATED,
    as_we_write_it,
    completed,
    element_at,
    files,
    is_complete,
    is_part_10,
    part_10_files,
    pydicom_json,
    read,
)
from pydicom import Dataset, datadict
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

LEAST_FILES = 150
EXPLICIT = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"
LOSSLESS_JPEG = {"1.2.840.10008.1.2.4.57": 6, "1.2.840.10008.1.2.4.70": 1}
"""Those that no decoder of pydicom reads, with the predictor they are made with."""
SOURCES = [
    "1.2.840.10008.1.2",
    EXPLICIT,
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    *LOSSLESS_JPEG,
    J2K,
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
]
STORED_FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
STORED_BYTES = "application/octet-stream; transfer-syntax=*"
FRAMES = 'multipart/related; type="application/octet-stream"'


@dataclass
class Kept:
    """A file of the corpus that the server has.

    Attributes:
        path: Of the instance, with version and partition.
        dropped: Tags of the root that the store's answer warns of.
    """

    name: str
    file: bytes = field(repr=False)
    dataset: Dataset = field(repr=False)
    path: str
    dropped: frozenset[str]

    @property
    def syntax(self) -> str:
        return str(self.dataset.file_meta.TransferSyntaxUID)


@dataclass
class Corpus:
    """A server with all files.

    Attributes:
        kept: What it has.
        as_it_is: How many of them nothing was added to.
        refused: Reasons for files that were not stored before they were completed.
        blobs: How many files there are in the server's data folder.
    """

    api: Api
    kept: list[Kept]
    as_it_is: int
    refused: list[int]
    blobs: int


def layers() -> dict[int, list[tuple[str, bytes, Dataset]]]:
    """All DICOM files that pydicom reads, with equal UIDs in different layers."""
    seen: Counter[object] = Counter()
    found = defaultdict(list)
    for path in part_10_files():
        if path.name in TRUNCATED:
            continue
        file = path.read_bytes()
        dataset = read(file)
        uid = dataset.get("SOPInstanceUID")
        found[seen[uid]].append((path.name, file, dataset))
        seen[uid] += 1
    return found


@pytest.fixture(scope="module")
def corpus(serve) -> Iterator[Corpus]:
    """All files stored; those that lack what every instance must have are completed.

    Whether an index survives power loss is not shown here.
    """
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    durability = {} if STACK == "emulated" else {"DICOM_DURABILITY": "process-crash"}
    running = serve(DICOM_DATA_PARTITIONS="true", **durability)
    with Api(running.url) as api:
        kept, as_it_is, refused = [], 0, []
        for number, layer in layers().items():
            path = f"/v2/partitions/layer-{number}/studies"
            bad = [entry for entry in layer if not is_complete(entry[2])]
            if bad:
                answer = api.store(*(file for _, file, _ in bad), path=path)
                assert answer.status_code == 409
                refused += [first(i["00081197"]) for i in failed_items(answer)]
            entries = [entry for entry in layer if is_complete(entry[2])]
            as_it_is += len(entries)
            for name, _, dataset in bad:
                file = completed(dataset)
                entries.append((name, file, read(file)))
            answer = api.store(*(file for _, file, _ in entries), path=path)
            items = stored_items(answer)
            assert len(items) == len(entries), failed_items(answer)
            kept += map(kept_of, entries, items)
        blobs = len(list((running.data / "dicom").rglob("*.dcm")))
        yield Corpus(api, kept, as_it_is, refused, blobs)
    running.stop()


def kept_of(entry: tuple[str, bytes, Dataset], item: dict) -> Kept:
    name, file, dataset = entry
    path = "/v2/" + first(item["00081190"]).split("/v2/")[1]
    tags = [text.split("(")[1].split(")")[0] for text in comments(item)]
    dropped = frozenset(tag.replace(",", "").upper() for tag in tags)
    return Kept(name, file, dataset, path, dropped)


# --- files ---------------------------------------------------------------------------


def test_every_readable_file_comes_back_bit_by_bit(corpus, capsys):
    for one in corpus.kept:
        answer = corpus.api.read(one.path, ONE_AS_STORED)
        assert answer.status_code == 200
        assert answer.content == one.file, one.name
        syntax = answer.headers["content-type"].partition("transfer-syntax=")[2]
        assert syntax == one.syntax
    with capsys.disabled():
        print(f"\n{corpus.as_it_is} files of pydicom and pydicom-data came back")
    assert corpus.as_it_is >= LEAST_FILES


def test_what_lacks_a_required_attribute_is_refused_and_leaves_nothing(corpus):
    assert len(corpus.kept) == len(part_10_files()) - len(TRUNCATED)
    assert len(corpus.refused) == len(corpus.kept) - corpus.as_it_is > 20
    assert set(corpus.refused) == {43264}
    counts = Counter(one.path.split("/")[3] for one in corpus.kept)
    for partition, count in counts.items():
        rows = corpus.api.search(f"/v2/partitions/{partition}/instances?limit=200")
        assert len(rows) == count
    if STACK == "embedded":
        assert corpus.blobs == len(corpus.kept)


def test_broken_files_are_refused_with_43264_and_leave_nothing(corpus):
    broken = [
        path.read_bytes()
        for path in files()
        if path.name in TRUNCATED or not is_part_10(path)
    ]
    by_syntax = {one.syntax: one for one in corpus.kept if "PixelData" in one.dataset}
    assert len(by_syntax) >= 9
    cut = [one.file[: len(one.file) * 2 // 3] for one in by_syntax.values()]
    assert len(broken) >= 20
    answer = corpus.api.store(*broken, *cut, path="/v2/partitions/broken/studies")
    assert answer.status_code == 409
    reasons = [first(item["00081197"]) for item in failed_items(answer)]
    assert reasons == [43264] * len(broken + cut)
    assert corpus.api.search("/v2/partitions/broken/instances") == []


# --- metadata ------------------------------------------------------------------------


def bulk_elements(elements: dict) -> Iterator[dict]:
    for element in elements.values():
        if "BulkDataURI" in element:
            yield element
        elif element["vr"] == "SQ":
            for item in element.get("Value", []):
                yield from bulk_elements(item)


def test_metadata_are_those_of_pydicom_and_uris_lead_to_the_exact_bytes(
    corpus, monkeypatch
):
    monkeypatch.setattr(datadict, "private_dictionaries", {})
    fetched = 0
    for one in corpus.kept:
        dataset, elements = pydicom_json(one.file, one.dropped)
        base = f"{corpus.api.base_url}{one.path}/bulkdata/"
        [metadata] = corpus.api.metadata(one.path)
        assert metadata == as_we_write_it(elements, base), one.name
        for element in bulk_elements(metadata):
            uri = element["BulkDataURI"]
            value = element_at(dataset, uri.removeprefix(base)).value
            answer = corpus.api.read(uri, STORED_BYTES)
            assert answer.status_code == 200
            assert answer.content == value, (one.name, uri)
            fetched += 1
    assert fetched > 250


def test_hardly_an_attribute_is_left_out(corpus):
    """Difference 5: only what the file itself has wrong, or empty where it must not."""
    dropped = Counter(tag for one in corpus.kept for tag in one.dropped)
    assert dropped == {
        "00080008": 2,  # small letters in Image Type
        "00080020": 3,  # dates with dots
        "00080023": 2,
        "00080030": 3,  # times with colons
        "00081155": 7,  # in sequences: stays
        "00100020": 15,  # no patient
        "00101010": 1,
        "00200010": 1,
        "00280008": 1,  # badVR.dcm: no number
    }


# --- frames --------------------------------------------------------------------------


def stored_frames(dataset: Dataset) -> list[bytes]:
    """The frames as they stand in the file, as pydicom takes them apart."""
    count = int(dataset.get("NumberOfFrames") or 1)
    if dataset["PixelData"].is_undefined_length:
        return list(generate_frames(dataset.PixelData, number_of_frames=count))
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    bits *= dataset.BitsAllocated
    if "422" in dataset.PhotometricInterpretation:
        bits = bits * 2 // 3
    if bits % 8:
        flat = np.unpackbits(np.frombuffer(dataset.PixelData, "u1"), bitorder="little")
        pages = flat[: bits * count].reshape(count, bits)
        return [np.packbits(page, bitorder="little").tobytes() for page in pages]
    size = bits // 8
    return [dataset.PixelData[n * size : (n + 1) * size] for n in range(count)]


def images(corpus: Corpus) -> list[Kept]:
    """Those whose pixel data are described."""
    return [
        one
        for one in corpus.kept
        if "PixelData" in one.dataset and "Rows" in one.dataset
    ]


def test_every_frame_is_what_pydicom_takes_out_of_the_file(corpus):
    frames = many = 0
    for one in images(corpus):
        if one.name == "badVR.dcm":  # no image: its Number of Frames is no number
            continue
        expected = stored_frames(one.dataset)
        numbers = ",".join(str(n + 1) for n in range(len(expected)))
        answer = corpus.api.read(f"{one.path}/frames/{numbers}", STORED_FRAMES)
        assert answer.status_code == 200, one.name
        assert [content for _, content in parts(answer)] == expected, one.name
        frames += len(expected)
        many += len(expected) > 1
    assert many >= 20
    assert frames >= 400


# --- transcoding ---------------------------------------------------------------------

UNDECODABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "mlut_18.dcm",  # pydicom extends the sign of 12 bits even when asked for raw ones
    "SC_rgb_small_odd_big_endian.dcm",  # its last byte lies behind the padding
    "badVR.dcm",
}
FILES_OF_A_SYNTAX = 3


def pixels(dataset: Dataset) -> np.ndarray | None:
    """What pydicom decodes; None where it cannot or where that is no plain image."""
    if dataset.get("BitsAllocated") not in {8, 16}:
        return None
    if "422" in dataset.PhotometricInterpretation:
        return None
    try:
        return pixel_array(dataset, raw=True)
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return None


def lossless_jpeg(syntax: str) -> tuple[bytes, np.ndarray]:
    """A file in a transfer syntax that pydicom does not read, and its pixels."""
    ramp = np.add.outer(np.arange(40) * 50, np.arange(48) * 3).astype("<u2")
    frame = imagecodecs.jpeg8_encode(
        ramp, lossless=True, predictor=LOSSLESS_JPEG[syntax], bitspersample=16
    )
    one = made(
        transfer_syntax=syntax, frames=[frame], pixels={"rows": 40, "columns": 48}
    )
    plain = made(frames=[ramp.tobytes()], pixels={"rows": 40, "columns": 48})
    return one.file, pixel_array(read(plain.file), raw=True)


def sources(corpus: Corpus, syntax: str) -> list[tuple[str, np.ndarray]]:
    """Paths of a few images in the transfer syntax, with pydicom's pixels."""
    if syntax in LOSSLESS_JPEG:
        file, expected = lossless_jpeg(syntax)
        answer = corpus.api.store(file, path="/v2/partitions/lossless/studies")
        [item] = stored_items(answer)
        return [("/v2/" + first(item["00081190"]).split("/v2/")[1], expected)]
    found = []
    for one in sorted(images(corpus), key=lambda one: len(one.file)):
        if one.syntax != syntax or one.name in UNDECODABLE:
            continue
        expected = pixels(one.dataset)
        if expected is not None:
            found.append((one.path, expected))
        if len(found) == FILES_OF_A_SYNTAX:
            break
    return found


@pytest.mark.parametrize("syntax", SOURCES)
def test_each_source_syntax_is_transcoded_with_the_pixels_of_pydicom(corpus, syntax):
    found = sources(corpus, syntax)
    assert found
    for path, expected in found:
        for target in (EXPLICIT, J2K):
            if target == J2K and expected.shape[-1] == 3 and expected.itemsize > 1:
                continue  # no decoder of pydicom reads deep colour
            accept = f"application/dicom; transfer-syntax={target}"
            answer = corpus.api.read(path, accept)
            assert answer.status_code == 200, answer.text
            dataset = read(answer.content)
            assert str(dataset.file_meta.TransferSyntaxUID) == target
            decoded = pixel_array(dataset, raw=True)
            assert np.array_equal(decoded.reshape(expected.shape), expected), path
        if expected.ndim == 2:
            [(_, frame)] = parts(corpus.api.read(f"{path}/frames/1", FRAMES))
            little = expected.astype(expected.dtype.newbyteorder("<")).tobytes()
            assert frame[: len(little)] == little


# --- names ---------------------------------------------------------------------------

WORDS = {
    "chrArab.dcm": ["قباني", "لنزار", "قبا", "قباني لنزار"],
    "chrGreek.dcm": ["Διονυσιος", "Διον", "διονυσιοσ"],
    "chrH31.dcm": ["山田", "太郎", "やまだ", "たろう", "Yamada", "山田 太郎", "tarou"],
    "chrH32.dcm": ["山田", "ﾔﾏﾀﾞ", "ﾀﾛｳ", "やまだ たろう"],
    "chrHbrw.dcm": ["שרון", "דבורה", "שרון דב"],
    "chrI2.dcm": ["洪", "吉洞", "홍", "길동", "hong gil", "홍 길동"],
    "chrJapMulti.dcm": ["やまだ", "たろ"],
    "chrKoreanMulti.dcm": ["김희중", "김희"],
    "chrRuss.dcm": ["Люкceмбypг", "люкc"],
    "chrX1.dcm": ["王", "小東", "wang xiao"],
    "chrX2.dcm": ["王", "小东", "王 小"],
}


@pytest.fixture(scope="module")
def named(corpus) -> str:
    """A partition with one study for each name."""
    root = "/v2/partitions/names"
    chosen = {one.name: one.file for one in corpus.kept if one.name in NAMES}
    assert set(chosen) == set(NAMES)
    for file in chosen.values():
        answer = corpus.api.store(file, path=f"{root}/studies")
        assert answer.status_code in {200, 202}, answer.text
    return root


def found_names(corpus: Corpus, path: str) -> set[str]:
    rows = corpus.api.search(path)
    names = [first(row["00100010"]) for row in rows]
    groups = ("Alphabetic", "Ideographic", "Phonetic")
    texts = {"=".join(name.get(g, "") for g in groups).rstrip("=") for name in names}
    assert len(texts) == len(rows)
    return texts


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_letters_is_found_exactly_and_by_its_words(corpus, named, name):
    text = NAMES[name]
    exact = f"{named}/studies?PatientName={quote(text)}"
    assert found_names(corpus, exact) == {text}
    [row] = corpus.api.search(exact)
    assert first(row["0020000D"])
    for word in WORDS[name]:
        query = f"PatientName={quote(word)}&fuzzymatching=true"
        found = found_names(corpus, f"{named}/studies?{query}")
        assert text in found, word
        assert len(found) <= 3, word
    for wrong in (text[1:3] + "x", "田山", "희중"):
        query = f"PatientName={quote(wrong)}&fuzzymatching=true"
        assert corpus.api.search(f"{named}/studies?{query}") == []


def test_studies_of_the_corpus_come_whole(corpus):
    by_study = defaultdict(set)
    for one in corpus.kept:
        by_study[one.path.split("/series/")[0]].add(one.file)
    largest = sorted(by_study, key=lambda path: len(by_study[path]))[-5:]
    for path in largest:
        answer = corpus.api.read(path, AS_STORED)
        assert {content for _, content in parts(answer)} == by_study[path]
    assert max(map(len, by_study.values())) > 1
