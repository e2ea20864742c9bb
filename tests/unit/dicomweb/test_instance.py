"""A file becomes a `ReadInstance` or a `Refused`, whatever its bytes are."""

import io
import json
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pydicom
import pytest
from data import data_set, file_of, instance, item, new_uid, series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG4HP41,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicomweb import attributes, dataset_json, scan
from dicomweb.instance import ReadInstance, read
from dicomweb.query_tags import Level, QueryTag
from dicomweb.store_response import FailureReason, Refused, WarningReason
from dicomweb.validation import ErrorCode

BASE = "https://dicom.example.org/v2"
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def accepted(file: bytes, *, version: int = 2, **options: Any) -> ReadInstance:
    options.setdefault("study_instance_uid", None)
    outcome = read(file, version=version, **options)
    assert isinstance(outcome, ReadInstance), outcome
    return outcome


def refused(file: bytes, *, version: int = 2, **options: Any) -> Refused:
    options.setdefault("study_instance_uid", None)
    outcome = read(file, version=version, **options)
    assert isinstance(outcome, Refused), outcome
    return outcome


def metadata(outcome: ReadInstance) -> dict[str, Any]:
    read_back: dict[str, Any] = json.loads(dataset_json.inflate(outcome.metadata, BASE))
    return read_back


def test_an_instance_has_its_uids_elements_metadata_bulk_data_and_frames() -> None:
    study, one_series, sop = new_uid(), new_uid(), new_uid()
    file = instance(
        StudyInstanceUID=study,
        SeriesInstanceUID=one_series,
        SOPInstanceUID=sop,
        frames=3,
    )
    found = accepted(file, study_instance_uid=study)
    assert (found.study_instance_uid, found.series_instance_uid) == (study, one_series)
    assert (found.sop_instance_uid, found.sop_class_uid) == (sop, CTImageStorage)
    assert found.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (found.warning_reason, found.comments) == (None, ())
    assert (found.multiple_values, found.deflated) == (False, False)
    assert found.elements["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "Doe^Jane"}],
    }
    assert set(found.elements) <= attributes.RETURNED
    elements = metadata(found)
    assert elements["7FE00010"]["BulkDataURI"] == (
        f"{BASE}/studies/{study}/series/{one_series}/instances/{sop}/bulkdata/7FE00010"
    )
    assert set(found.elements) == attributes.RETURNED & elements.keys()
    (bulk,) = found.bulk
    assert file[bulk.offset : bulk.offset + bulk.length] == (
        b"\1" * 512 + b"\2" * 512 + b"\3" * 512
    )
    assert found.number_of_frames == 3
    assert found.frames is not None
    ((offset, length),) = found.frames.ranges(1)
    assert file[offset : offset + length] == b"\2" * 512


def test_a_series_answers_as_one_stream() -> None:
    kept = [accepted(file).metadata for file in series(5)]
    stream = zlib.decompress(b"".join(dataset_json.deflate_array(kept, BASE)))
    numbers = [each["00200013"]["Value"] for each in json.loads(stream)]
    assert numbers == [[1], [2], [3], [4], [5]]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"basic_offset_table": False},
        {"extended_offset_table": True},
    ],
)
def test_frames_of_encapsulated_pixel_data_are_found(
    syntax: str, layout: dict[str, bool]
) -> None:
    frames = [b"first!", b"second", b"3.", b"4444"]
    file = instance(transfer_syntax=syntax, frames=frames, pixels=layout)
    found = accepted(file)
    assert found.number_of_frames == 4
    assert found.frames is not None
    for index, frame in enumerate(frames):
        ranges = found.frames.ranges(index)
        assert b"".join(file[o : o + n] for o, n in ranges).startswith(frame)


def test_a_video_has_one_frame_whatever_number_of_frames_says() -> None:
    file = instance(transfer_syntax=MPEG4HP41, frames=[b"stream"])
    dataset = pydicom.dcmread(io.BytesIO(file))
    dataset.NumberOfFrames = 25
    found = accepted(file_of(dataset, transfer_syntax=MPEG4HP41))
    assert found.number_of_frames == 1
    assert found.frames is not None
    assert found.frames.number_of_frames == 1


def test_offsets_of_a_deflated_file_are_those_of_the_inflated_one() -> None:
    file = instance(transfer_syntax=DeflatedExplicitVRLittleEndian, frames=2)
    found = accepted(file)
    inflated = scan.scan(file).buffer
    assert found.deflated
    assert found.frames is not None
    ((offset, length),) = found.frames.ranges(1)
    assert inflated[offset : offset + length] == b"\2" * 512


def test_without_pixel_data_there_are_no_frames() -> None:
    found = accepted(instance())
    assert (found.number_of_frames, found.frames, found.bulk) == (0, None, ())


def test_pixel_data_too_short_for_its_frames_has_no_frame_index() -> None:
    dataset = data_set(
        Rows=16, Columns=16, BitsAllocated=16, SamplesPerPixel=1, NumberOfFrames=9
    )
    dataset.PixelData = b"\0" * 512
    dataset["PixelData"].VR = "OW"
    found = accepted(file_of(dataset))
    assert (found.number_of_frames, found.frames) == (9, None)


# --- validation --------------------------------------------------------------------


def test_a_refusal_names_the_instance_and_every_broken_rule() -> None:
    sop = new_uid()
    file = instance(SOPInstanceUID=sop, StudyDate="never", AccessionNumber="x" * 17)
    outcome = refused(file, version=1)
    assert outcome.reason is FailureReason.DATA_SET_DOES_NOT_MATCH
    assert (outcome.sop_class_uid, outcome.sop_instance_uid) == (CTImageStorage, sop)
    assert [comment[:23] for comment in outcome.comments] == [
        "DICOM100: (0008,0020) -",
        "DICOM100: (0008,0050) -",
    ]


def test_what_cannot_be_read_is_refused_without_uids_and_comments() -> None:
    assert refused(b"no DICOM") == Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)
    assert refused(instance()[:-5]) == Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)


def test_an_invalid_uid_is_not_repeated_in_the_refusal() -> None:
    outcome = refused(instance(SOPInstanceUID="../x"))
    assert (outcome.sop_instance_uid, len(outcome.comments)) == (None, 1)


def test_v2_drops_what_it_warns_of_from_metadata_and_index_only() -> None:
    file = instance(StudyDate="NotADate", SliceThickness="thick", frames=1)
    found = accepted(file)
    assert found.warning_reason is WarningReason.VALIDATION
    assert len(found.comments) == 2
    assert {"00080020", "00180050"}.isdisjoint(metadata(found))
    assert "00080020" not in found.elements
    assert found.frames is not None


def test_v2_drops_the_root_element_of_a_tag_that_is_bad_in_an_item() -> None:
    bad = item(StudyDescription="x" * 65)
    file = instance(ReferencedStudySequence=Sequence([bad]))
    elements = metadata(accepted(file))
    assert "00081030" not in elements
    assert elements["00081110"]["Value"][0]["00081030"]["Value"] == ["x" * 65]


def test_v2_never_drops_the_uids_of_study_series_and_instance() -> None:
    bad = item(StudyInstanceUID="1.02")
    found = accepted(instance(ReferencedStudySequence=Sequence([bad])))
    assert found.comments
    assert metadata(found)["0020000D"]["Value"] == [found.study_instance_uid]


@pytest.mark.parametrize("version", [1, 2])
def test_implicit_vr_has_a_warning_of_its_own(version: int) -> None:
    file = instance(transfer_syntax=ImplicitVRLittleEndian)
    assert accepted(file, version=version).warning_reason is WarningReason.IMPLICIT_VR


def test_large_values_are_not_validated_but_kept_as_bulk_data() -> None:
    many = b"1\\" * 3_000_000
    file = instance(transfer_syntax=ImplicitVRLittleEndian)
    file += struct.pack("<HHI", 0x3006, 0x0050, len(many)) + many
    tracemalloc.start()
    found = accepted(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.comments == ()
    assert [bulk.path for bulk in found.bulk] == ["30060050"]
    assert peak < 5_000_000


def test_padding_of_uids_is_cut() -> None:
    found = accepted(instance(StudyInstanceUID="1.2.3 ", SOPInstanceUID="1.5\0"))
    assert (found.study_instance_uid, found.sop_instance_uid) == ("1.2.3", "1.5")


# --- query tags --------------------------------------------------------------------


def test_query_tags_get_their_search_form_or_an_error_code() -> None:
    tags = [
        QueryTag(1, "00180015", "CS", Level.SERIES),
        QueryTag(2, "00200013", "IS", Level.INSTANCE),
        QueryTag(3, "00080030", "TM", Level.STUDY),
        QueryTag(4, "00101010", "AS", Level.STUDY),
        QueryTag(5, "00111001", "PN", Level.STUDY, private_creator="ACME"),
        QueryTag(6, "00181000", "LO", Level.SERIES),
        QueryTag(7, "00181020", "SH", Level.SERIES),
        QueryTag(8, "00180050", "FD", Level.SERIES),
    ]
    file = instance(
        BodyPartExamined="CHEST",
        InstanceNumber=12,
        StudyTime="0102",
        elements=[
            (0x00110010, "LO", "OTHER"),
            (0x00110011, "LO", "ACME"),
            (0x00111101, "PN", "Ångström^Ä"),
            (0x00101010, "AS", "9Y"),
            (0x00181000, "LO", ""),
            (0x00181020, "LO", "1.0"),
        ],
    )
    found = accepted(file, query_tags=tags)
    assert found.tag_values == {
        1: "chest",
        2: 12,
        3: 3_720_000_000,
        5: "angstrom^a",
    }
    assert found.tag_errors == {
        4: ErrorCode.WRONG_LENGTH,
        7: ErrorCode.UNEXPECTED_VR,
    }


def test_a_query_tag_that_v2_dropped_has_no_value() -> None:
    tag = QueryTag(1, "00180015", "CS", Level.SERIES)
    found = accepted(instance(BodyPartExamined="chest"), query_tags=[tag])
    assert (found.tag_values, found.tag_errors) == ({}, {})
    v1 = accepted(instance(BodyPartExamined="chest"), version=1, query_tags=[tag])
    assert v1.tag_values == {1: "chest"}


def test_returned_sequences_have_no_binary_values() -> None:
    outer = item(CodeValue="T-1")
    outer.add_new(0x00091001, "OB", b"\1\2")
    inner = Dataset()
    inner.add_new(0x00091002, "OB", b"\1\2")
    outer.ReferencedImageSequence = Sequence([inner])
    found = accepted(instance(ProcedureCodeSequence=Sequence([outer])))
    assert found.elements["00081032"]["Value"] == [
        {
            "00080100": {"vr": "SH", "Value": ["T-1"]},
            "00081140": {"vr": "SQ", "Value": [{}]},
        }
    ]
    assert [bulk.path for bulk in found.bulk] == [
        "00081032/0/00081140/0/00091002",
        "00081032/0/00091001",
    ]


def test_a_returned_attribute_that_is_binary_is_left_out() -> None:
    file = instance(StudyID=None, elements=[(0x00200010, "UN", b"S" * 70_000)])
    found = accepted(file)
    assert "00200010" not in found.elements
    assert metadata(found)["00200010"]["BulkDataURI"].endswith("/00200010")


# --- hostile input -----------------------------------------------------------------

SEEDS = [
    instance(frames=2),
    instance(transfer_syntax=ImplicitVRLittleEndian, frames=1),
    instance(transfer_syntax=ExplicitVRBigEndian, frames=1),
    instance(transfer_syntax=DeflatedExplicitVRLittleEndian, frames=1),
    instance(transfer_syntax=JPEG2000Lossless, frames=[b"ab", b"cd", b"ef"]),
    instance(
        transfer_syntax=RLELossless,
        frames=[b"ab", b"cd"],
        pixels={"extended_offset_table": True},
    ),
    (TEST_FILES / "rtplan.dcm").read_bytes(),
    (TEST_FILES / "CT_small.dcm").read_bytes(),
    (TEST_FILES / "test-SR.dcm").read_bytes(),
    (TEST_FILES / "nested_priv_SQ.dcm").read_bytes(),
    (TEST_FILES / "UN_sequence.dcm").read_bytes(),
    (TEST_FILES / "priv_SQ.dcm").read_bytes(),
]
NASTY = [
    struct.pack("<I", value)
    for value in (0, 1, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
] + [b"SQ", b"UN", b"OB", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"]


def mutated(file: bytes, random: Random) -> bytes:
    made = bytearray(file)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(128, len(made))
        match random.randrange(5):
            case 0:
                made[at] ^= 1 << random.randrange(8)
            case 1:
                nasty = random.choice(NASTY)
                made[at : at + len(nasty)] = nasty
            case 2:
                del made[at : at + random.randrange(1, 40)]
            case 3:
                made[at:at] = made[at - random.randrange(64) : at]
            case _:
                made[at:at] = random.choice(NASTY)
        if len(made) < 200:
            break
    if random.random() < 0.1:
        del made[random.randrange(len(made)) :]
    return bytes(made)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(seed: int) -> None:
    random = Random(seed)
    tags = [
        QueryTag(1, "00200013", "IS", Level.INSTANCE),
        QueryTag(2, "00091001", "LO", Level.STUDY, private_creator="ACME"),
        QueryTag(3, "00280010", "US", Level.INSTANCE),
    ]
    for round_number in range(150):
        outcome = read(
            mutated(SEEDS[seed], random),
            study_instance_uid=None,
            version=1 + round_number % 2,
            query_tags=tags,
            full_validation=round_number % 3 == 0,
        )
        if isinstance(outcome, ReadInstance):
            assert metadata(outcome).keys() >= {"00080018", "0020000D", "0020000E"}
            orjson.dumps(outcome.elements)
            if outcome.frames is not None:
                outcome.frames.ranges(0)
        else:
            assert outcome.reason is FailureReason.DATA_SET_DOES_NOT_MATCH


@pytest.mark.parametrize(
    "tail",
    [
        b"\x11\x00\x01\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        * 20_000,
        b"\x11\x00\x01\x10UN\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\0\0\0\0" * 50_000,
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\0\0\0\0" * 50_000,
        b"\x11\x00\x01\x10US\xf0\xff" + b"\1\2" * 200_000,
        b"\x08\x00\x05\x00CS\x80\xff" + b"ISO 2022 IR 87\\\\" * 5_000,
        b"\x11\x00\x01\x10UT\0\0\x00\x00\x10\x00" + b"\x1b$B\x1b(B" * 174_763,
        b"\0" * 400_000,
        b"\x11\x00\x01\x10LT\xf0\xff" + b" " * 65_519 + b"\x07",
        b"\x11\x00\x01\x10CS\xf0\xff" + b" " * 65_519 + b"x",
        b"\x11\x00\x01\x10PN\xf0\xff" + b"^" * 65_520,
        b"\x11\x00\x01\x10UI\xf0\xff" + b"1." * 32_760,
    ],
)
def test_bytes_made_to_exhaust_are_answered_in_bounded_time_and_memory(
    tail: bytes,
) -> None:
    file = instance() + tail
    tracemalloc.start()
    started = time.process_time()
    read(file, study_instance_uid=None, version=2)
    elapsed = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert elapsed < 8  # traced, so some ten times slower than it is
    assert peak < 100_000_000


def test_a_very_long_sequence_is_in_the_metadata_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = [item(ScheduledProcedureStepID=str(number)) for number in range(300)]
    file = instance(RequestAttributesSequence=items)
    expected = accepted(file)
    monkeypatch.setattr(scan, "_PACKED_ELEMENTS", 20)
    found = accepted(file)
    assert "00400275" in expected.elements
    assert "00400275" not in found.elements
    assert found.metadata == expected.metadata
