"""Joined metadata against plain JSON, for any instances and any base URL."""

import gzip
import json
import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomweb import dataset_json
from dicomweb.dataset_json import Metadata

BASE = "https://dicom.example.org/v2"
RESOURCE = "/studies/1.2/series/1.3/instances/1.4/bulkdata/"

WORDS = (
    "",
    "CT",
    'a"BulkDataURI":"b',
    "\\",
    '"',
    "é",
    "日本",
    "x" * 300,
    7,
    -2.5,
    None,
)


def data_set(random: Random, depth: int = 0) -> dict[str, Any]:
    """Any data set: texts, numbers, bulk data, sequences; keys repeat now and then."""
    made: dict[str, Any] = {}
    for _ in range(random.randrange(8)):
        tag = f"{random.randrange(2**32):08X}"
        kind = random.randrange(3 if depth < 3 else 2)
        if kind == 0:
            values = random.choices(WORDS, k=random.randrange(4))
            made[tag] = {"vr": "LO", "Value": values}
        elif kind == 1:
            made[tag] = {"vr": "OB", "BulkDataURI": tag}
        else:
            items = [data_set(random, depth + 1) for _ in range(random.randrange(3))]
            made[tag] = {"vr": "SQ", "Value": items}
    return made


data_sets = st.integers(0, 2**32).map(lambda seed: data_set(Random(seed)))
bases = st.sampled_from((BASE, "", "http://h", BASE + "/partitions/" + "p" * 64)) | (
    st.integers(0, 300).map(lambda n: "https://" + "h" * n)
)


def with_base(value: Any, base: str) -> Any:
    """The data set as a client of that base URL must see it."""
    if isinstance(value, list):
        return [with_base(item, base) for item in value]
    if isinstance(value, dict):
        return {
            key: base + RESOURCE + item
            if key == "BulkDataURI"
            else with_base(item, base)
            for key, item in value.items()
        }
    return value


@settings(deadline=None, max_examples=150)
@given(st.lists(data_sets, max_size=4), bases)
def test_a_joined_array_is_the_json_array_of_its_instances(
    elements: list[dict[str, Any]], base: str
) -> None:
    kept = [dataset_json.encode(each, RESOURCE) for each in elements]
    stream = b"".join(dataset_json.deflate_array(kept, base))
    # zlib checks the Adler-32 at the end of the stream
    assert json.loads(zlib.decompress(stream)) == with_base(elements, base)


@settings(deadline=None, max_examples=100)
@given(data_sets, bases)
def test_one_instance_inflates_to_its_json(elements: dict[str, Any], base: str) -> None:
    kept = dataset_json.encode(elements, RESOURCE)
    assert json.loads(dataset_json.inflate(kept, base)) == with_base(elements, base)


@settings(deadline=None, max_examples=50)
@given(data_sets)
def test_metadata_survive_the_index(elements: dict[str, Any]) -> None:
    kept = dataset_json.encode(elements, RESOURCE)
    stored = json.loads(json.dumps(kept.to_json()))
    assert Metadata.from_json(stored, kept.data) == kept


def test_a_bulk_data_uri_costs_a_few_bytes_however_many_there_are() -> None:
    one = {"7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"}}
    many = {
        f"0009{n:04X}": {"vr": "OB", "BulkDataURI": f"0009{n:04X}"}
        for n in range(0x1000, 0x1100)
    }
    kept = dataset_json.encode(many, RESOURCE)
    assert len(kept.cuts) == 1
    assert len(kept.data) < len(dataset_json.encode(one, RESOURCE).data) + 256 * 20


def test_places_out_of_reach_of_a_back_reference_are_cut_each() -> None:
    noise = "".join(chr(0x4E00 + n * n % 20_000) for n in range(40_000))
    elements = {
        "00091001": {"vr": "OB", "BulkDataURI": "00091001"},
        "00091002": {"vr": "UT", "Value": [noise]},
        "00091003": {"vr": "OB", "BulkDataURI": "00091003"},
        "00091004": {"vr": "UT", "Value": [noise[::-1]]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"},
    }
    kept = dataset_json.encode(elements, RESOURCE)
    assert len(kept.cuts) == 3
    stream = b"".join(dataset_json.deflate_array([kept, kept], BASE))
    expected = with_base([elements, elements], BASE)
    assert json.loads(zlib.decompress(stream)) == expected
    assert json.loads(dataset_json.inflate(kept, BASE)) == expected[0]


def test_no_instances_are_an_empty_array_also_with_a_long_base() -> None:
    for base in (BASE, "https://" + "h" * 400):
        stream = b"".join(dataset_json.deflate_array([], base))
        assert zlib.decompress(stream) == b"[]"


def test_any_zlib_reader_reads_the_stream_bit_by_bit() -> None:
    elements = {"7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"}}
    kept = dataset_json.encode(elements, RESOURCE)
    inflater, read = zlib.decompressobj(), b""
    for byte in b"".join(dataset_json.deflate_array([kept] * 3, BASE)):
        read += inflater.decompress(bytes((byte,)))
    assert inflater.eof
    assert json.loads(read) == with_base([elements] * 3, BASE)


@pytest.mark.parametrize("count", [0, 1, 3, 400])
def test_the_stream_can_be_had_as_gzip(count: int) -> None:
    noise = "".join(chr(0x4E00 + n * n % 20_000) for n in range(500))
    elements = {
        "00081030": {"vr": "LO", "Value": [noise]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"},
    }
    kept = dataset_json.encode(elements, RESOURCE)
    stream = b"".join(dataset_json.deflate_array([kept] * count, BASE))
    packed = dataset_json.as_gzip(stream)
    assert gzip.decompress(packed) == zlib.decompress(stream)
    assert len(packed) == len(stream) + 12


def test_the_base_is_written_once_per_instance_and_padded_to_a_fixed_length() -> None:
    elements = {"7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"}}
    kept = dataset_json.encode(elements, RESOURCE)
    text = zlib.decompress(b"".join(dataset_json.deflate_array([kept], BASE)))
    uri = f'"{BASE}{RESOURCE}7FE00010"'.encode()
    padding = b" " * (dataset_json.INSERT_BYTES - len(BASE) - 1)
    assert text == (b'[{"7FE00010":{"vr":"OW","BulkDataURI":' + padding + uri + b"}}]")
