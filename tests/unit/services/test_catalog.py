"""The catalog when several processes bring in the changes of one study."""

from itertools import permutations, product

import pytest
from data import instance, new_uid

from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from services import documents as doc
from services import store
from services.catalog import Catalog, CatalogChange
from stores import containers

HERE = Partition("Microsoft.Default")


async def changes_of_four_stores(runtime):
    """What four commits to one series change, oldest first; the study's id."""
    study, series = new_uid(), new_uid()
    pk, changes = doc.study_pk(HERE, study), []
    for _ in range(4):
        file = instance(StudyInstanceUID=study, SeriesInstanceUID=series)

        async def parts(content=file):
            yield PartBegin({"content-type": "application/dicom"})
            yield PartData(content)
            yield PartEnd()

        await store.store_instances(
            runtime, HERE, parts(), study_instance_uid=None, version=2
        )
        rows = [
            await runtime.documents.read(containers.DICOM, pk, id)
            for id in (doc.STUDY, doc.series_id(series))
        ]
        changes.append((rows[0], (rows[1],)))
    return changes, doc.series_id(series)


async def counts(runtime, pk, series_id):
    """Instances of the study and of its series, as searches find them."""
    return [
        (await runtime.documents.read(containers.CATALOG, pk, id))["ni"]
        for id in (doc.STUDY, series_id)
    ]


@pytest.mark.parametrize("of_second", [{3}, {1, 3}, {2}, {2, 3}])
async def test_whatever_order_two_processes_write_in_the_newest_state_stays(
    runtime, of_second
):
    """Each writes its own changes in order; between the two any order may come."""
    changes, series_id = await changes_of_four_stores(runtime)
    processes = [n in of_second for n in range(4)]
    for number, order in enumerate(permutations(range(4))):
        own = [[n for n in order if processes[n] is which] for which in (True, False)]
        if any(each != sorted(each) for each in own):
            continue
        pk = f"order {number}"
        both = {which: Catalog(runtime.documents) for which in (True, False)}
        for n in order:
            study, series = changes[n]
            await both[processes[n]].put(CatalogChange(pk, study, series))
        assert await counts(runtime, pk, series_id) == [4, 4], order


async def test_a_whole_study_may_be_newer_than_the_change_it_comes_with(runtime):
    """A process that looks for what others left behind reads their series too."""
    changes, series_id = await changes_of_four_stores(runtime)
    for number, (early, late) in enumerate(product(range(3), range(3))):
        if early >= late:
            continue
        pk = f"whole {number}"
        one, other = Catalog(runtime.documents), Catalog(runtime.documents)
        await other.put(CatalogChange(pk, *changes[3]))
        await one.put(CatalogChange(pk, changes[early][0], changes[3][1]))
        await one.put(CatalogChange(pk, *changes[late]))
        assert await counts(runtime, pk, series_id) == [4, 4]


async def test_a_late_change_brings_no_deleted_series_back(runtime):
    """Its row is gone from the catalog since a newer change, which knew better."""
    changes, series_id = await changes_of_four_stores(runtime)
    (second, rows), (newest, _) = changes[1], changes[3]
    catalog, late = Catalog(runtime.documents), Catalog(runtime.documents)
    await catalog.put(CatalogChange("late", newest, (), (series_id,)))
    await late.put(CatalogChange("late", second, rows))
    assert await catalog.series_ids("late") == []


async def test_a_row_that_was_never_written_comes_with_a_newer_change(runtime):
    changes, series_id = await changes_of_four_stores(runtime)
    (_, rows), (newest, _) = changes[0], changes[3]
    catalog, other = Catalog(runtime.documents), Catalog(runtime.documents)
    await catalog.put(CatalogChange("new", changes[1][0]))
    await other.put(CatalogChange("new", newest, rows))
    assert await catalog.series_ids("new") == [series_id]
