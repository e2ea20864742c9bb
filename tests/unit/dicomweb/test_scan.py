"""The scanner against pydicom on real files, and on what no real file is."""

import mmap
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from corpus import (
    NOT_JSON_IN_PYDICOM,
    TRUNCATED,
    as_we_write_it,
    element_at,
    part_10_files,
    pydicom_json,
)
from data import data_set, file_of, instance
from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from dicomweb import part10, scan
from dicomweb.errors import MalformedInstance

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@pytest.fixture(autouse=True)
def _no_private_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datadict, "private_dictionaries", {})


def explicit(
    tag: int, vr: bytes, value: bytes, *, length: int | None = None, order: str = "<"
) -> bytes:
    length = len(value) if length is None else length
    header = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in part10.LONG_VRS:
        return header + b"\0\0" + struct.pack(f"{order}I", length) + value
    return header + struct.pack(f"{order}H", length) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length) + value


def part10_file(body: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\0" * 128 + b"DICM" + explicit(0x00020010, b"UI", uid) + body


UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


# --- real files ------------------------------------------------------------------


@pytest.mark.parametrize("path", part_10_files(), ids=lambda path: path.name)
def test_a_real_file_has_the_json_and_the_bulk_data_pydicom_finds(path: Path) -> None:
    file = path.read_bytes()
    if path.name in TRUNCATED:
        with pytest.raises(MalformedInstance):
            scan.scan(file)
        return
    found = scan.scan(file)
    if path.name in NOT_JSON_IN_PYDICOM:
        with pytest.raises(ValueError, match="1A"):
            pydicom_json(file)
        return
    dataset, elements = pydicom_json(file)
    assert found.elements == as_we_write_it(elements)
    for bulk in found.bulk:
        value = found.buffer[bulk.offset : bulk.offset + bulk.length]
        assert value == element_at(dataset, bulk.path).value, bulk.path


def test_the_corpus_is_there_and_hardly_a_file_is_excused() -> None:
    assert len(part_10_files()) > 230
    assert len(TRUNCATED | NOT_JSON_IN_PYDICOM) == 5


# --- transfer syntaxes -----------------------------------------------------------


def nested_data_set() -> Dataset:
    """Every VR, private elements, sequences in sequences, empty ones too."""
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "Größe"
    inner.add_new(0x00091001, "OB", b"\1\2\3\4")
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = Sequence([inner, Dataset()])
    outer.ReferencedFrameNumber = [1, 2, 3]
    dataset = data_set(SpecificCharacterSet="ISO_IR 100", PatientName="Möller^Ö")
    dataset.ReferencedImageSequence = Sequence([outer, Dataset()])
    dataset.ReferencedStudySequence = Sequence([])
    dataset.PixelSpacing = ["0.5", "1.25"]
    dataset.FrameIncrementPointer = [0x00181063, 0x00280008]
    dataset.PixelRepresentation = 1
    dataset.SmallestImagePixelValue = -5
    dataset.EventElapsedTimes = ["1", "2.5"]
    dataset.RecommendedDisplayFrameRateInFloat = 0.25
    dataset.TableAngle = -12.5
    dataset.LongCodeValue = "u" * 100
    dataset.RetrieveURL = "http://example.org/a%20b"
    dataset.TextValue = " kept \\ as is"
    dataset.add_new(0x00090010, "LO", "ACME 1")
    dataset.add_new(0x00091001, "SH", "private")
    dataset.add_new(0x00091002, "SV", -(2**40))
    dataset.add_new(0x00091003, "UV", 2**63 + 1)
    dataset.add_new(0x00091004, "OV", struct.pack("<Q", 5))
    dataset.add_new(0x00091005, "UN", b"whatever")
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("delimited", [False, True])
def test_every_native_syntax_reads_as_pydicom_does(
    syntax: str, delimited: bool
) -> None:
    dataset = nested_data_set()
    for sequence in ("ReferencedImageSequence", "ReferencedStudySequence"):
        dataset[sequence].value.is_undefined_length = delimited
        for item in dataset[sequence].value:
            item.is_undefined_length_sequence_item = delimited
    file = file_of(dataset, transfer_syntax=syntax)
    found = scan.scan(file)
    assert found.elements == as_we_write_it(pydicom_json(file)[1])
    assert found.transfer_syntax_uid == syntax
    assert found.deflated is (syntax == DeflatedExplicitVRLittleEndian)
    assert found.little_endian is (syntax != ExplicitVRBigEndian)
    assert found.elements["00280106"] == {"vr": "SS", "Value": [-5]}
    for bulk in found.bulk:
        value = found.buffer[bulk.offset : bulk.offset + bulk.length]
        assert value == element_at(pydicom_json(file)[0], bulk.path).value


def test_bytes_bytearray_memoryview_and_mmap_read_alike() -> None:
    file = instance(frames=2)
    expected = scan.scan(file).elements
    with tempfile.TemporaryFile() as stored:
        stored.write(b"x" + file)
        stored.flush()
        with mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert scan.scan(memoryview(mapped)[1:]).elements == expected
        stored.seek(0)
        stored.write(file)
        stored.truncate()
        stored.flush()
        with mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert scan.scan(mapped).elements == expected
            assert scan.scan(memoryview(mapped)).buffer is mapped
    assert scan.scan(bytearray(file)).elements == expected
    assert scan.scan(memoryview(file)).buffer is file
    assert scan.scan(memoryview(file + b"1234567")[:-7]).elements == expected
    assert scan.scan(memoryview(file[::-1])[::-1]).elements == expected


def test_encapsulated_pixel_data_ends_before_its_delimiter() -> None:
    file = instance(transfer_syntax=JPEGBaseline8Bit, frames=[b"ab", b"cdef"])
    (bulk,) = scan.scan(file).bulk
    assert (bulk.path, bulk.vr, bulk.encapsulated) == ("7FE00010", "OB", True)
    value = file[bulk.offset : bulk.offset + bulk.length]
    assert value.endswith(b"cdef")
    assert file[bulk.offset + bulk.length :] == implicit(SEQUENCE_END, b"")


def test_elements_after_the_pixel_data_and_padding_are_read() -> None:
    body = (
        explicit(0x00080060, b"CS", b"CT")
        + explicit(0x7FE00010, b"OW", b"\1\2")
        + explicit(0x7FE11001, b"LO", b"late")
        + explicit(0xFFFCFFFC, b"OB", b"\0" * 8)
    )
    found = scan.scan(part10_file(body))
    assert list(found.elements) == ["00080060", "7FE00010", "7FE11001", "FFFCFFFC"]
    assert [bulk.path for bulk in found.bulk] == ["7FE00010", "FFFCFFFC"]


@pytest.mark.parametrize("syntax", SYNTAXES[:2], ids=lambda uid: uid.name)
def test_a_delimiter_that_strayed_into_the_root_hides_nothing(syntax: str) -> None:
    if syntax == ImplicitVRLittleEndian:
        sequence = implicit(0x00081140, implicit(ITEM, b""))
        patient = implicit(0x00100020, b"P1")
    else:
        sequence = explicit(0x00081140, b"SQ", implicit(ITEM, b""))
        patient = explicit(0x00100020, b"LO", b"P1")
    for delimiters in ((ITEM_END,), (SEQUENCE_END,), (ITEM_END, SEQUENCE_END)):
        strays = b"".join(implicit(tag, b"") for tag in delimiters)
        found = scan.scan(part10_file(sequence + strays + patient, syntax))
        assert found.elements == {
            "00081140": {"vr": "SQ", "Value": [{}]},
            "00100020": {"vr": "LO", "Value": ["P1"]},
        }


def test_elements_come_out_by_ascending_tag() -> None:
    body = explicit(0x00100020, b"LO", b"P1") + explicit(0x00080060, b"CS", b"CT")
    assert list(scan.scan(part10_file(body)).elements) == ["00080060", "00100020"]


# --- values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        (b"DS", b"1.50", [1.5]),
        (b"DS", b" 1 \\+2.5\\.5\\-0\\01 ", [1, 2.5, 0.5, 0, 1]),
        (b"DS", b"1e3\\1E-2", [1000.0, 0.01]),
        (b"DS", b"1,5", ["1,5"]),
        (b"DS", b"1_0", ["1_0"]),
        (b"DS", b"nan\\inf\\1e999", ["nan", "inf", "1e999"]),
        (b"DS", b"true\\null\\[1]\\{}", ["true", "null", "[1]", "{}"]),
        (b"DS", b"1-2", ["1-2"]),
        (b"DS", b"1\\\\2", [1, None, 2]),
        (b"DS", b"\\", [None, None]),
        (b"DS", b"  \0", None),
        (b"IS", b"0007", [7]),
        (b"IS", b"+7\\-7\\1.0\\1.5\\x", [7, -7, 1, 1.5, "x"]),
        (b"IS", b"1e300", [1e300]),
        (b"IS", b"\xb2", ["²"]),
        (b"CS", b"A\\\\B ", ["A", None, "B"]),
        (b"CS", b"\\\\", None),
        (b"AE", b" ONE \\TWO", ["ONE", "TWO"]),
        (b"UI", b"1.2\\1.3\0", ["1.2", "1.3"]),
        (b"DA", b"", None),
        (b"LT", b" a\\b ", [" a\\b"]),
        (b"UR", b"http://a\\b  ", ["http://a\\b"]),
        (b"PN", b"A^B", [{"Alphabetic": "A^B"}]),
        (b"PN", b"=I", [{"Ideographic": "I"}]),
        (b"PN", b"A=I=P=X", [{"Alphabetic": "A", "Ideographic": "I", "Phonetic": "P"}]),
        (b"PN", b"A\\\\B", [{"Alphabetic": "A"}, None, {"Alphabetic": "B"}]),
        (b"PN", b"==", None),
        (b"AT", b"\x08\x00\x05\x00\xe0\x7f\x10\x00", ["00080005", "7FE00010"]),
        (b"US", b"\xff\xff\1\0", [65535, 1]),
        (b"SS", b"\xff\xff", [-1]),
        (b"FD", struct.pack("<d", -0.1), [-0.1]),
    ],
)
def test_a_value_becomes_json(
    vr: bytes, value: bytes, expected: list[Any] | None
) -> None:
    found = scan.scan(part10_file(explicit(0x00091001, vr, value))).elements
    element: dict[str, Any] = {"vr": vr.decode()}
    if expected is not None:
        element["Value"] = expected
    assert found == {"00091001": element}


@pytest.mark.parametrize("vr", [b"US", b"AT", b"FD"])
def test_a_number_of_the_wrong_length_is_kept_as_unknown_bytes(vr: bytes) -> None:
    found = scan.scan(part10_file(explicit(0x00091001, vr, b"\1\2\3")))
    assert found.elements == {"00091001": {"vr": "UN", "BulkDataURI": "00091001"}}
    assert found.bulk[0].length == 3
    implicit_rows = part10_file(implicit(0x00280010, b"abc"), ImplicitVRLittleEndian)
    found = scan.scan(implicit_rows)
    assert found.elements == {"00280010": {"vr": "UN", "BulkDataURI": "00280010"}}


def test_a_long_text_is_bulk_data_and_a_long_list_of_labels_is_refused_later() -> None:
    long = scan.LARGE_VALUE_BYTES + 2
    found = scan.scan(part10_file(explicit(0x00091001, b"UT", b"x" * long)))
    assert found.elements == {"00091001": {"vr": "UT", "BulkDataURI": "00091001"}}
    found = scan.scan(
        part10_file(implicit(0x00280030, b"1\\" * (long // 2)), ImplicitVRLittleEndian)
    )
    assert found.elements == {"00280030": {"vr": "DS", "BulkDataURI": "00280030"}}
    labels = implicit(0x00080008, b"x" * (scan.MAX_INLINE_BYTES + 2))
    with pytest.raises(MalformedInstance, match="values"):
        scan.scan(part10_file(labels, ImplicitVRLittleEndian))


# --- character sets --------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (b"", b"Ren\xe9", "René"),
        (b"ISO_IR 192", "Ωμέγα 日本 👍".encode(), "Ωμέγα 日本 👍"),
        (b"ISO_IR 192", b"\xff\xfeA", "��A"),
        (b"ISO_IR 100", b"\xc4neas", "Äneas"),
        (b"ISO_IR 101", "Łódź".encode("iso8859-2"), "Łódź"),
        (b"ISO_IR 109", "Ċetta".encode("iso8859-3"), "Ċetta"),
        (b"ISO_IR 110", "Ķēniņš".encode("iso8859-4"), "Ķēniņš"),
        (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
        (b"ISO_IR 127", "قباني".encode("iso8859-6"), "قباني"),
        (b"ISO_IR 138", "שרון".encode("iso8859-8"), "שרון"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        (b"ISO_IR 148", "Çavuşoğlu".encode("iso8859-9"), "Çavuşoğlu"),
        (b"ISO_IR 166", "นามสกุล".encode("iso8859-11"), "นามสกุล"),
        (b"ISO_IR 203", b"\xa4uro", "€uro"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"GB18030", "王小东㐀".encode("gb18030"), "王小东㐀"),
        (b"GBK", "王小東".encode("gbk"), "王小東"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B^x", "山田^x"),
        (b"\\ISO 2022 IR 159", b"\x1b$(D0!\x1b(B", "丂"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "王"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xe9\x1b-L\xbb", "éЛ"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xbb\n\xe9", "Л\né"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4=\x1b$B;3\x1b(J", "ﾔ=山"),
        (b"ISO 2022 GBK", "王".encode("gbk"), "王"),
        (b"ISO-IR 101", "Ł".encode("iso8859-2"), "Ł"),
        (b"ISO_IR 192\\ISO 2022 IR 87", "é".encode(), "é"),
        (b"ISO 2022 IR 100\\ISO_IR 192", b"\xe9", "é"),
        (b"ISO_IR 999", b"\xe9", "é"),
        (b"utf_7", b"+AGE-", "+AGE-"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"a\x1b%Gb", "a\x1b%Gb"),
        (b"ISO 2022 IR 6", b"\x1b-L\xbb", "\x1b-L»"),
        (b"ISO_IR 166", b"\x1b-A\xbb", "\x1b-Aป"),
        (b"ISO 2022 IR 166\\ISO 2022 IR 100", b"\x1b-A\xbb", "»"),
        (b"ISO_IR 166", b"\x1b(Bx", "x"),
    ],
)
def test_a_text_is_decoded_by_its_character_set(
    terms: bytes, raw: bytes, text: str
) -> None:
    body = explicit(0x00080005, b"CS", terms) + explicit(0x0040A160, b"UT", raw)
    assert scan.scan(part10_file(body)).elements["0040A160"]["Value"] == [text]


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        (
            b"PN",
            b"\x1b-L\xbb^\xe9=\x1b-L\xbb=\xe9",
            [{"Alphabetic": "Л^é", "Ideographic": "Л", "Phonetic": "é"}],
        ),
        (
            b"PN",
            b"\x1b-L\xbb\\\xe9",
            [{"Alphabetic": "Л"}, {"Alphabetic": "é"}],
        ),
        (b"LO", b"\x1b-L\xbb^\xe9=\xe9\\\xe9", ["Л^щ=щ", "é"]),
        (b"UT", b"\x1b-L\xbb^\xe9\\\xe9\r\xe9", ["Л^щ\\щ\ré"]),
    ],
)
def test_a_code_extension_ends_where_a_value_or_part_of_a_name_ends(
    vr: bytes, raw: bytes, expected: list[Any]
) -> None:
    terms = b"ISO 2022 IR 100\\ISO 2022 IR 144"
    body = explicit(0x00080005, b"CS", terms) + explicit(0x00091001, vr, raw)
    assert scan.scan(part10_file(body)).elements["00091001"]["Value"] == expected


def test_backslashes_within_multibyte_characters_do_not_separate_values() -> None:
    raw = "表\\王".encode("gb18030")
    body = explicit(0x00080005, b"CS", b"GB18030") + explicit(0x00091001, b"LO", raw)
    found = scan.scan(part10_file(body)).elements
    assert found["00091001"]["Value"] == ["表", "王"]
    raw = b"\x1b$B%\\\x1b(B\\b"  # 5C is the second byte of ソ... in JIS X 0208
    body = explicit(0x00080005, b"CS", b"\\ISO 2022 IR 87")
    found = scan.scan(part10_file(body + explicit(0x00091001, b"LO", raw))).elements
    assert len(found["00091001"]["Value"]) == 2


@pytest.mark.parametrize(
    ("vr", "value", "text"),
    [
        (b"UN", b"ISO_IR 144", "щ"),
        (b"LO", b"ISO_IR 144", "щ"),
        (b"US", b"\1\0", "é"),
        (b"PN", b"ISO_IR 144", "é"),
        (b"OB", b"ISO_IR 144", "é"),
        (b"SQ", b"", "é"),
        (b"US", b"\1", "é"),
    ],
)
def test_a_character_set_of_another_vr_counts_if_it_is_text(
    vr: bytes, value: bytes, text: str
) -> None:
    body = explicit(0x00080005, vr, value) + explicit(0x00091001, b"LO", b"\xe9")
    found = scan.scan(part10_file(body)).elements
    assert found["00091001"]["Value"] == [text]


def test_items_inherit_the_character_set_and_may_have_their_own() -> None:
    text = explicit(0x00080104, b"LO", b"\xe9")
    own = explicit(0x00080005, b"CS", b"ISO_IR 144") + text
    items = implicit(ITEM, text) + implicit(ITEM, own) + implicit(ITEM, text)
    body = (
        explicit(0x00080005, b"CS", b"ISO_IR 101")
        + explicit(0x00081140, b"SQ", items)
        + explicit(0x00091001, b"LO", b"\xea")
    )
    found = scan.scan(part10_file(body)).elements
    values = [item["00080104"]["Value"] for item in found["00081140"]["Value"]]
    assert values == [["é"], ["щ"], ["é"]]
    assert found["00091001"]["Value"] == ["ę"]


# --- elements that come twice ----------------------------------------------------


def test_of_an_element_that_comes_twice_the_last_counts_also_for_bulk_data() -> None:
    twice = explicit(0x7FE00010, b"OB", b"old!") + explicit(0x7FE00010, b"OB", b"new!")
    found = scan.scan(part10_file(twice))
    assert [found.buffer[b.offset : b.offset + b.length] for b in found.bulk] == [
        b"new!"
    ]
    text = explicit(0x00091001, b"OB", b"old!") + explicit(0x00091001, b"LO", b"new!")
    found = scan.scan(part10_file(text))
    assert found.elements == {"00091001": {"vr": "LO", "Value": ["new!"]}}
    assert found.bulk == ()


def test_bulk_data_of_a_sequence_that_another_replaces_are_forgotten() -> None:
    binary = explicit(0x00091001, b"OB", b"old!")
    nested = explicit(0x00081140, b"SQ", implicit(ITEM, binary))
    first = implicit(ITEM, binary + nested) + implicit(ITEM, binary)
    other = implicit(ITEM, explicit(0x00091001, b"LO", b"new!"))
    for vr, second in ((b"SQ", other), (b"SQ", b""), (b"LO", b"a\\b\\")):
        body = explicit(0x00081140, b"SQ", first) + explicit(0x00081140, vr, second)
        found = scan.scan(part10_file(body))
        assert found.elements["00081140"]["vr"] == vr.decode()
        assert found.bulk == ()


# --- what the VR leaves open -----------------------------------------------------


@pytest.mark.parametrize(
    ("representation", "vr", "value"), [(1, "SS", -2), (0, "US", 65534)]
)
def test_the_nearest_pixel_representation_decides_us_or_ss(
    representation: int, vr: str, value: int
) -> None:
    own = implicit(0x00280103, struct.pack("<H", 1 - representation))
    smallest = implicit(0x00280106, b"\xfe\xff")
    items = implicit(ITEM, smallest) + implicit(ITEM, own + smallest)
    body = (
        implicit(0x00189810, b"\xfe\xff")  # comes before what decides it
        + implicit(0x00280103, struct.pack("<H", representation))
        + implicit(0x00289145, items)
    )
    found = scan.scan(part10_file(body, ImplicitVRLittleEndian)).elements
    assert found["00189810"] == {"vr": vr, "Value": [value]}
    first, second = found["00289145"]["Value"]
    assert first["00280106"] == {"vr": vr, "Value": [value]}
    assert second["00280106"]["vr"] == ("SS" if vr == "US" else "US")


def test_without_pixel_representation_values_are_unsigned() -> None:
    body = implicit(0x00280106, b"\xfe\xff") + implicit(0x00280107, b"")
    found = scan.scan(part10_file(body, ImplicitVRLittleEndian)).elements
    assert found["00280106"] == {"vr": "US", "Value": [65534]}
    assert found["00280107"] == {"vr": "US"}


def test_implicit_vr_takes_the_vr_of_the_dictionary() -> None:
    body = (
        implicit(0x00090010, b"ACME")
        + implicit(0x00091001, b"what")
        + implicit(0x00283006, b"\1\0")
        + implicit(0x60023000, b"\1\0")
        + implicit(0x7FE00010, b"\1\0")
    )
    found = scan.scan(part10_file(body, ImplicitVRLittleEndian)).elements
    assert {tag: element["vr"] for tag, element in found.items()} == {
        "00090010": "LO",
        "00091001": "UN",
        "00283006": "US",
        "60023000": "OW",
        "7FE00010": "OW",
    }


def test_unknown_vr_of_a_known_attribute_is_read_by_the_dictionary() -> None:
    sequence = implicit(ITEM, implicit(0x00081150, b"1.2\0"))
    body = (
        explicit(0x00080060, b"UN", b"CT")
        + explicit(0x00081140, b"UN", sequence)
        + explicit(0x00090010, b"UN", b"ACME")
        + explicit(
            0x00091001,
            b"UN",
            sequence + implicit(SEQUENCE_END, b""),
            length=UNDEFINED,
        )
        + explicit(0x00091002, b"UN", b"bytes")
    )
    item = {"00081150": {"vr": "UI", "Value": ["1.2"]}}
    assert scan.scan(part10_file(body)).elements == {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00081140": {"vr": "SQ", "Value": [item]},
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091001": {"vr": "SQ", "Value": [item]},
        "00091002": {"vr": "UN", "BulkDataURI": "00091002"},
    }


def test_an_unknown_value_that_is_no_sequence_although_it_should_be_stays_bytes() -> (
    None
):
    whole = implicit(ITEM, implicit(0x00091001, b"1234"))
    body = (
        explicit(0x00081140, b"UN", whole + b"garbage")
        + explicit(0x00081150, b"UI", b"1.2\0")
        + explicit(0x00081250, b"UN", b"\1\2\3")
    )
    found = scan.scan(part10_file(body))
    assert found.elements == {
        "00081140": {"vr": "UN", "BulkDataURI": "00081140"},
        "00081150": {"vr": "UI", "Value": ["1.2"]},
        "00081250": {"vr": "UN", "BulkDataURI": "00081250"},
    }
    assert [bulk.length for bulk in found.bulk] == [len(whole) + 7, 3]
    assert list(found.nested_visits) == []


def test_a_vr_that_nobody_knows_and_an_implicit_stray_are_stepped_over() -> None:
    body = (
        explicit(0x00091001, b"ZZ", b"1234")
        + implicit(0x00100020, b"P1")
        + explicit(0x00100040, b"CS", b"F ")
    )
    assert scan.scan(
        part10_file(explicit(0x00080060, b"CS", b"CT") + body)
    ).elements == {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00091001": {"vr": "UN", "BulkDataURI": "00091001"},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
    }


@pytest.mark.parametrize(
    "promised", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ""]
)
@pytest.mark.parametrize("written", ["implicit", "explicit"])
def test_the_data_set_is_read_as_it_is_written_whatever_is_promised(
    promised: str, written: str
) -> None:
    if written == "implicit":
        body = implicit(0x00080060, b"CT")
    else:
        body = explicit(0x00080060, b"CS", b"CT")
    found = scan.scan(part10_file(body, promised))
    assert found.elements == {"00080060": {"vr": "CS", "Value": ["CT"]}}


def test_a_deflated_data_set_may_be_empty() -> None:
    file = part10_file(zlib.compress(b"", wbits=-15), DeflatedExplicitVRLittleEndian)
    assert scan.scan(file).elements == {}


def test_a_missing_transfer_syntax_is_found_by_looking() -> None:
    for syntax in SYNTAXES[:3]:
        file = instance(transfer_syntax=syntax)
        body = file[part10.open_file(file).data_set_offset :]
        found = scan.scan(b"\0" * 128 + b"DICM" + body)
        assert found.transfer_syntax_uid == syntax
        assert found.elements == scan.scan(file).elements


# --- hostile input ---------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"DICM",
        b"\0" * 128,
        b"\0" * 128 + b"DICX" + b"\0" * 64,
        instance()[132:],
    ],
)
def test_what_is_no_part_10_file_is_refused(file: bytes) -> None:
    with pytest.raises(MalformedInstance):
        scan.scan(file)


def test_a_transfer_syntax_that_is_no_uid_is_refused() -> None:
    with pytest.raises(MalformedInstance, match="UID"):
        scan.scan(part10_file(b"", 'x"\r\nSet-Cookie: a'))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_a_file_cut_anywhere_is_refused_unless_cut_between_elements(
    syntax: str,
) -> None:
    file = file_of(nested_data_set(), transfer_syntax=syntax)
    whole = scan.scan(file).elements
    start = part10.open_file(file).data_set_offset
    read = 0
    for stop in range(start, len(file)):
        try:
            found = scan.scan(file[:stop]).elements
        except MalformedInstance:
            continue
        read += 1
        assert found == {tag: whole[tag] for tag in found}
    if syntax == DeflatedExplicitVRLittleEndian:
        assert read <= 1  # without the byte that makes the length even
    else:
        assert read <= 8 * (len(whole) + 1)  # trailing bytes too few for a header


def test_sequences_may_nest_only_so_deep() -> None:
    def nested(depth: int) -> bytes:
        opening = explicit(0x00081140, b"SQ", b"", length=UNDEFINED)
        opening += implicit(ITEM, b"", length=UNDEFINED)
        closing = implicit(ITEM_END, b"") + implicit(SEQUENCE_END, b"")
        return part10_file(opening * depth + closing * depth)

    found = scan.scan(nested(scan.MAX_DEPTH)).elements
    for _ in range(scan.MAX_DEPTH):
        (found,) = found["00081140"]["Value"]
    assert found == {}
    for depth in (scan.MAX_DEPTH + 1, 1000, 100_000):
        with pytest.raises(MalformedInstance, match="nested"):
            scan.scan(nested(depth))


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 100])
@pytest.mark.parametrize("vr", [b"OB", b"UT", b"SQ", b"UN", b"OW"])
def test_a_length_beyond_the_file_is_refused(vr: bytes, length: int) -> None:
    with pytest.raises(MalformedInstance):
        scan.scan(part10_file(explicit(0x7FE00010, vr, b"1234", length=length)))


def test_an_item_longer_than_its_sequence_is_refused() -> None:
    item = implicit(ITEM, explicit(0x00080060, b"CS", b"CT"), length=100)
    for sequence_length in (len(item), UNDEFINED):
        sequence = explicit(0x00081140, b"SQ", item, length=sequence_length)
        with pytest.raises(MalformedInstance):
            scan.scan(part10_file(sequence))


def test_too_many_elements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_ELEMENTS", 1000)
    element = explicit(0x00080060, b"CS", b"")
    assert len(scan.scan(part10_file(element * 999)).root_visits) == 999
    with pytest.raises(MalformedInstance, match="elements"):
        scan.scan(part10_file(element * 1001))
    rows = part10_file(implicit(0x00280010, b"") * 1001, ImplicitVRLittleEndian)
    with pytest.raises(MalformedInstance, match="elements"):
        scan.scan(rows)
    items = implicit(ITEM, b"") * 2000
    with pytest.raises(MalformedInstance, match="elements"):
        scan.scan(part10_file(explicit(0x00081140, b"SQ", items)))


def test_the_element_budget_is_shared_by_all_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "MAX_ELEMENTS", 1000)
    element = explicit(0x00080060, b"CS", b"")
    sequence = explicit(0x00081140, b"SQ", implicit(ITEM, element * 600))
    assert scan.scan(part10_file(sequence + element * 300)).elements
    with pytest.raises(MalformedInstance, match="elements"):
        scan.scan(part10_file(sequence + element * 500))


def test_a_deflate_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "MAX_INFLATED_BYTES", 1_000_000)
    monkeypatch.setattr(part10, "_INFLATE_BYTES", 65_536)
    value = explicit(0x7FE00010, b"OB", b"\0" * 20_000_000)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(value) + deflater.flush()
    file = part10_file(bomb, DeflatedExplicitVRLittleEndian)
    assert len(file) < 50_000
    with pytest.raises(MalformedInstance, match="inflates"):
        scan.scan(file)


def test_a_deflate_bomb_takes_no_memory() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = b"".join(deflater.compress(zeros) for _ in range(300)) + deflater.flush()
    file = part10_file(bomb, DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedInstance, match="inflates"):
            scan.scan(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_damaged_deflate_data_are_refused() -> None:
    file = instance(transfer_syntax=DeflatedExplicitVRLittleEndian)
    start = part10.open_file(file).data_set_offset
    for damaged in (file[:start], file[:-3], file[:start] + b"\xff" * 50):
        with pytest.raises(MalformedInstance):
            scan.scan(damaged)


def test_endless_command_elements_and_fragments_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zeros = part10_file(b"\0" * 80_000)
    assert scan.scan(zeros).elements == {}
    monkeypatch.setattr(scan, "MAX_FRAGMENTS", 100)
    fragments = explicit(
        0x7FE00010, b"OB", implicit(ITEM, b"") * 101, length=UNDEFINED
    ) + implicit(SEQUENCE_END, b"")
    with pytest.raises(MalformedInstance):
        scan.scan(part10_file(fragments, JPEGBaseline8Bit))


def long_sequence(items: int) -> bytes:
    element = explicit(0x00080100, b"SH", b"A ")
    inner = explicit(0x00081140, b"SQ", implicit(ITEM, element) * 3)
    content = element + inner + explicit(0x00091001, b"OB", b"\1\2")
    return part10_file(
        explicit(0x00400275, b"SQ", implicit(ITEM, content) * items)
        + explicit(0x00400280, b"ST", b"at the end")
    )


@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_a_sequence_that_is_kept_as_text_says_the_same(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    file = long_sequence(50)
    expected = scan.scan(file)
    monkeypatch.setattr(scan, "_PACKED_ELEMENTS", limit)
    found = scan.scan(file)
    assert any(
        isinstance(item, orjson.Fragment)
        for item in found.elements["00400275"]["Value"]
    )
    assert orjson.dumps(found.elements) == orjson.dumps(expected.elements)
    assert list(found.nested_visits) == list(expected.nested_visits)
    assert len(list(found.nested_visits)) == 50 * 5
    assert found.bulk == expected.bulk


@pytest.mark.slow
def test_many_items_take_little_memory() -> None:
    element = explicit(0x00080100, b"SH", b"A ")
    items = implicit(ITEM, element) * 60_000
    file = part10_file(explicit(0x00400275, b"SQ", items))
    tracemalloc.start()
    try:
        found = scan.scan(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(list(found.nested_visits)) == 60_000
    assert peak < 10_000_000  # 33 MB as objects


def test_more_elements_in_one_data_set_than_any_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "MAX_LEVEL_ELEMENTS", 100)
    element = explicit(0x00080060, b"CS", b"")
    assert scan.scan(part10_file(element * 99)).elements
    for content in (
        element * 101,
        explicit(0x00081140, b"SQ", implicit(ITEM, element * 101)),
    ):
        with pytest.raises(MalformedInstance, match="more than 100"):
            scan.scan(part10_file(content))


def test_too_many_values_that_wait_for_pixel_representation_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "MAX_LEVEL_ELEMENTS", 100)
    item = implicit(ITEM, implicit(0x00280106, b"\1\0"))

    def file(count: int) -> bytes:
        body = implicit(0x00081140, item * count)
        return part10_file(body, ImplicitVRLittleEndian)

    assert scan.scan(file(90)).elements
    with pytest.raises(MalformedInstance, match="more than 100"):
        scan.scan(file(110))


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_what_turns_out_to_be_no_sequence_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    item = implicit(ITEM, explicit(0x00081150, b"UI", b"1.2\0"))
    whole = implicit(ITEM, implicit(0x00080100, b"1234")) * 10
    body = explicit(0x00081110, b"SQ", item) + explicit(
        0x00081140, b"UN", whole + b"garbage"
    )
    monkeypatch.setattr(scan, "_PACKED_ELEMENTS", limit)
    found = scan.scan(part10_file(body))
    assert found.elements["00081140"] == {"vr": "UN", "BulkDataURI": "00081140"}
    assert [visit[0] for visit in found.nested_visits] == ["00081150"]
