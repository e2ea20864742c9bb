"""The main job on the embedded stores: store, find, fetch, delete, follow."""

import asyncio
import io
import struct
import zlib

import numpy as np
import orjson
import pydicom
import pytest
from data import instance, item
from PIL import Image

from dicomweb import query
from dicomweb.errors import NotFound
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.store_response import FailureReason, Refused, Stored
from services import changes, delete, retrieve, search, store
from services.retrieve import Scope

HERE = Partition("Microsoft.Default")


async def events(*files):
    for file in files:
        yield PartBegin({"content-type": "application/dicom"})
        for start in range(0, len(file), 50_000):
            yield PartData(file[start : start + 50_000])
        yield PartEnd()


async def put(runtime, *files, partition=HERE, version=2):
    outcome = await store.store_instances(
        runtime, partition, events(*files), study_instance_uid=None, version=version
    )
    return outcome.results


def uids(file):
    ds = pydicom.dcmread(io.BytesIO(file))
    return ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID


async def find(runtime, resource=query.Resource.ALL_STUDIES, version=2, **params):
    path = {k: params.pop(k) for k in list(params) if k.endswith("_uid")}
    parsed = query.parse(
        resource, list(params.items()), version=version, query_tags=(), **path
    )
    return (await search.search(runtime, HERE, parsed, "http://test/v2")).rows


async def test_deflated_files_are_read_in_turn_and_not_on_the_event_loop(
    runtime, monkeypatch
):
    """A small one may inflate to 128 MiB, which takes a second."""
    turns = []
    run_in_turn = runtime.workers.run_in_turn

    async def counted(work):
        turns.append(work)
        return await run_in_turn(work)

    monkeypatch.setattr(runtime.workers, "run_in_turn", counted)
    file = instance(transfer_syntax="1.2.840.10008.1.2.1.99", frames=1)
    (result,) = await put(runtime, file)
    assert isinstance(result, Stored)
    assert len(turns) == 1
    await put(runtime, instance(frames=1))
    assert len(turns) == 1


async def test_what_was_stored_comes_back_bit_exact(runtime):
    file = instance(PatientName="Doe^Jane")
    (result,) = await put(runtime, file)
    assert isinstance(result, Stored), result
    study, series, sop = uids(file)
    for scope in (
        Scope(HERE, study),
        Scope(HERE, study, series),
        Scope(HERE, study, series, sop),
    ):
        (found,) = await retrieve.files(runtime, scope, "*")
        chunks = [bytes(c) async for c in retrieve.read_file(runtime, found)]
        assert b"".join(chunks) == file


async def test_metadata_equal_what_pydicom_reads(runtime):
    file = instance(PatientName="Doe^Jane")
    await put(runtime, file)
    study, _, _ = uids(file)
    answer = await retrieve.metadata(runtime, Scope(HERE, study))
    packed = retrieve.metadata_array(answer.documents, "http://test/v2")
    (dataset,) = orjson.loads(zlib.decompress(packed))
    expected = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True).to_json_dict()
    uri = dataset.pop("7FE00010", {"BulkDataURI": ""})["BulkDataURI"]
    assert uri.startswith("http://test/v2/studies/") or not uri
    assert dataset == expected


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]
)
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
async def test_an_image_is_shown_through_lookup_tables_that_are_bulk_data(
    runtime, syntax, sequence
):
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    table = item(LUTDescriptor=[4, 0, 16])
    table.add_new(0x00283006, "OW", struct.pack(f"{order}4H", 65535, 0, 32768, 0))
    file = instance(
        transfer_syntax=syntax,
        frames=[struct.pack(f"{order}4H", 0, 1, 2, 3)],
        pixels={"rows": 1, "columns": 4},
        **{sequence: [table]},
    )
    await put(runtime, file)
    image = await retrieve.rendered(
        runtime, Scope(HERE, *uids(file)), 1, media_type="image/png", quality=100
    )
    data = await image.part(0, image.size_bytes)
    levels = np.asarray(Image.open(io.BytesIO(data))).ravel().tolist()
    assert levels == [255, 0, 128, 0]


async def test_the_same_instance_again_is_refused_and_changes_nothing(runtime):
    file = instance()
    await put(runtime, file)
    results = await put(runtime, file)
    assert [r.reason for r in results] == [FailureReason.INSTANCE_ALREADY_EXISTS]
    assert len(await runtime.feed.by_sequence(0, 100)) == 1


async def test_a_reader_of_the_feed_may_ask_beyond_every_number(runtime):
    await put(runtime, instance())
    beyond = 2**63 - 1
    assert await runtime.feed.by_sequence(beyond, 100) == []
    assert await runtime.feed.by_time(None, None, beyond, 200) == []


async def test_doubles_within_a_request_are_refused(runtime):
    file = instance()
    first, second = await put(runtime, file, file)
    assert isinstance(first, Stored)
    assert isinstance(second, Refused)


async def test_a_broken_file_is_refused_and_the_others_are_stored(runtime):
    good = instance()
    first, second = await put(runtime, b"no DICOM at all", good)
    assert first == Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)
    assert isinstance(second, Stored)


async def test_a_study_is_found_by_name_and_counts_its_instances(runtime):
    study = "1.2.826.0.1.3680043.8.498.1"
    series = "1.2.826.0.1.3680043.8.498.2"
    files = [
        instance(
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            PatientName="Müller^Änne",
            Modality="MR",
        )
        for _ in range(3)
    ]
    await put(runtime, *files)
    (row,) = await find(
        runtime, PatientName="muller^anne", includefield="00201208,ModalitiesInStudy"
    )
    assert row["00201208"]["Value"] == [3]
    assert row["00080061"]["Value"] == ["MR"]
    (row,) = await find(runtime, PatientName="änne mül"[:4], fuzzymatching="true")
    assert row["0020000D"]["Value"] == [study]
    assert await find(runtime, PatientName="nobody") == []
    assert len(await find(runtime, ModalitiesInStudy="?R")) == 1
    assert await find(runtime, ModalitiesInStudy="M?R") == []
    (row,) = await find(runtime, query.Resource.ALL_SERIES, ModalitiesInStudy="MR")
    assert row["0020000E"]["Value"] == [series]
    rows = await find(runtime, query.Resource.ALL_INSTANCES, Modality="MR")
    assert len(rows) == 3
    rows = await find(
        runtime,
        query.Resource.STUDY_SERIES_INSTANCES,
        study_instance_uid=study,
        series_instance_uid=series,
        version=1,
    )
    assert len(rows) == 3
    assert rows[0]["00200013"]["Value"] == [1]


async def test_fifty_writers_of_one_new_study_make_one_study(runtime):
    study = "1.2.826.0.1.3680043.8.498.77"
    files = [instance(StudyInstanceUID=study) for _ in range(50)]
    results = await asyncio.gather(*(put(runtime, file) for file in files))
    assert all(isinstance(r[0], Stored) for r in results)
    (row,) = await find(runtime, includefield="00201208,00201206")
    assert row["00201208"]["Value"] == [50]
    feed = await runtime.feed.by_sequence(0, 100)
    assert [entry.sequence for entry in feed] == list(range(1, 51))
    assert len({entry.sop_instance_uid for entry in feed}) == 50


@pytest.mark.parametrize("count", [3, 130])
async def test_a_deleted_study_is_gone_everywhere(runtime, count):
    study = "1.2.826.0.1.3680043.8.498.78"
    files = [instance(StudyInstanceUID=study) for _ in range(count)]
    await put(runtime, *files)
    await delete.delete(runtime, Scope(HERE, study))
    with pytest.raises(NotFound):
        await retrieve.files(runtime, Scope(HERE, study), "*")
    with pytest.raises(NotFound):
        await delete.delete(runtime, Scope(HERE, study))
    assert await find(runtime) == []
    entries = await runtime.feed.by_sequence(0, 1000)
    assert len(entries) == 2 * count
    states = await changes.with_states(
        runtime, entries, include_metadata=False, base_url=""
    )
    assert {entry.state.value for entry in states} == {"Deleted"}
    (again,) = await put(runtime, files[0])
    assert isinstance(again, Stored)
    (row,) = await find(runtime, includefield="00201208")
    assert row["00201208"]["Value"] == [1]


async def test_deleting_the_newest_instance_shows_the_one_before(runtime):
    study, series = "1.2.3.4", "1.2.3.5"
    old = instance(StudyInstanceUID=study, SeriesInstanceUID=series, StudyID="old")
    new = instance(StudyInstanceUID=study, SeriesInstanceUID=series, StudyID="new")
    await put(runtime, old)
    await put(runtime, new)
    (row,) = await find(runtime, version=1)
    assert row["00200010"]["Value"] == ["new"]
    await delete.delete(runtime, Scope(HERE, *uids(new)))
    (row,) = await find(runtime, version=1)
    assert row["00200010"]["Value"] == ["old"]


async def test_what_a_crash_left_unpublished_is_healed(runtime):
    file = instance()
    publish = runtime.publisher.publish
    runtime.publisher.publish = lambda commit: None
    await put(runtime, file)
    runtime.publisher.publish = publish
    assert await find(runtime) == []
    assert await runtime.publisher.heal(minimum_age_seconds=-1) == 1
    assert len(await find(runtime)) == 1
    assert len(await runtime.feed.by_sequence(0, 10)) == 1
    assert await runtime.publisher.heal(minimum_age_seconds=-1) == 0


async def test_two_partitions_hold_the_same_uids_apart(runtime):
    file = instance()
    other = Partition("Other", 2)
    (first,) = await put(runtime, file)
    (second,) = await put(runtime, file, partition=other)
    assert isinstance(first, Stored)
    assert isinstance(second, Stored)
    study = uids(file)[0]
    await delete.delete(runtime, Scope(other, study))
    assert len(await retrieve.files(runtime, Scope(HERE, study), "*")) == 1


def with_sequence(items):
    """A file whose Request Attributes Sequence has so many items."""
    element = struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 2) + b"A "
    item = b"\xfe\xff\0\xe0" + struct.pack("<I", len(element)) + element
    start = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(item) * items)
    return instance(frames=0) + start + item * items


async def test_an_attribute_too_large_for_the_index_is_in_the_metadata_only(runtime):
    """It would make study and series documents large, in the index and in memory."""
    file = with_sequence(60_000)
    (result,) = await put(runtime, file)
    assert isinstance(result, Stored)
    (state,) = runtime.commits._states.values()
    for document in (state.study, *state.series.values()):
        assert len(orjson.dumps(document)) < 10_000
    (row,) = await find(runtime, query.Resource.ALL_SERIES)
    assert "00400275" not in row
    study, series, sop = uids(file)
    answer = await retrieve.metadata(runtime, Scope(HERE, study, series, sop))
    found = retrieve.metadata_object(answer.documents[0], "")
    assert len(found["00400275"]["Value"]) == 60_000


async def test_an_instance_of_a_study_of_many_series_can_be_deleted(runtime):
    """The commit has the series that it touches, not all that are remembered."""
    study = "1.2.826.0.1.3680043.8.498.120"
    for start in range(0, 120, 40):
        await put(
            runtime,
            *(
                instance(StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}")
                for n in range(start, start + 40)
            ),
        )
    first, second = (await retrieve.files(runtime, Scope(HERE, study), "*"))[:2]
    for each in (first, second):
        scope = Scope(HERE, study, each.series_instance_uid, each.sop_instance_uid)
        await delete.delete(runtime, scope)
    left = await retrieve.files(runtime, Scope(HERE, study), "*")
    assert len(left) == 118
    (row,) = await find(runtime, includefield="00201206,00201208")
    assert row["00201206"]["Value"] == row["00201208"]["Value"] == [118]
