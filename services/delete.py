"""DELETE of studies, series and instances: out of the index at once, blobs later.

A small scope goes in one commit. A study too large for that is first marked
`deleting`, which hides it, then emptied commit by commit; whoever meets such a study
(a store, the healing timer) finishes it.
"""

import asyncio
import logging
from collections.abc import Sequence

import orjson

from dicomweb import attributes
from dicomweb.errors import NotFound, StoreUnavailable
from services import documents as doc
from services import retrieve
from services.retrieve import Scope
from services.runtime import Runtime
from services.study_commits import StudyState, copied, guards, next_revision
from stores import containers
from stores.ports import (
    And,
    BytesSource,
    Condition,
    Delete,
    Document,
    Equals,
    Order,
    Query,
    Upsert,
)

MAX_DELETES = 94
MAX_OPERATIONS = 100
ANSWER_SECONDS = 20.0
_TRIES = 100
_FIELDS = ("t", "w", "ow", "u", "se", "mb", "fb", "next", "first", "len", "_etag")

logger = logging.getLogger(__name__)


async def delete(runtime: Runtime, scope: Scope) -> None:
    """Deletes everything in the scope.

    Returns when it is done, for a very large study after 20 seconds: it is invisible
    then and the rest goes on. What was begun goes on to its end when the caller is
    cancelled, so that no list of deleted instances stays without its commit.

    Raises:
        NotFound: No such study, series or instance.
    """
    await asyncio.shield(asyncio.create_task(_delete(runtime, scope)))


async def _delete(runtime: Runtime, scope: Scope) -> None:
    try:
        await _delete_in_turn(runtime, scope)
    except NotFound:
        # Told that it is gone, a client asks no more: so it must not come back.
        await runtime.documents.flush()
        raise


async def _delete_in_turn(runtime: Runtime, scope: Scope) -> None:
    for _ in range(_TRIES):
        study = await runtime.documents.read(containers.DICOM, scope.pk, doc.STUDY)
        if study is None or study["state"] != doc.LIVE:
            raise scope.not_found()
        whole_study = scope.series_instance_uid is None
        if whole_study and study["ni"] + study["ns"] + 2 > MAX_OPERATIONS:
            done = await _mark_deleting(runtime, scope.pk, study)
            if done:
                await _finish_in_time(runtime, scope.pk)
        else:
            done = await _delete_scope(runtime, scope)
        if done:
            await runtime.publisher.settled(scope.pk)
            await runtime.documents.flush()
            return
    raise StoreUnavailable("Too many writers of one study. Please retry.")


async def _delete_scope(runtime: Runtime, scope: Scope) -> bool:
    """Deletes the scope commit by commit; False when the study changed meanwhile."""
    rows = await retrieve.find_instances(runtime, scope, _FIELDS)
    while rows:
        piece = _fitting(rows)
        if not await _delete_rows(runtime, scope.pk, rows[:piece], doc.LIVE):
            return False
        rows = rows[piece:]
    return True


def _fitting(rows: Sequence[Document]) -> int:
    """How many of the rows go into one commit with the series that they touch."""
    series: set[str] = set()
    for count, row in enumerate(rows):
        series.add(row["se"])
        if count >= MAX_DELETES or count + 1 + len(series) + 2 > MAX_OPERATIONS:
            return count
    return len(rows)


async def _finish_in_time(runtime: Runtime, pk: str) -> None:
    task = asyncio.ensure_future(finish(runtime, pk))
    done, _ = await asyncio.wait([task], timeout=ANSWER_SECONDS)
    for finished in done:
        finished.result()


async def _mark_deleting(runtime: Runtime, pk: str, study: Document) -> bool:
    """Hides the study in one commit; its event stays pending until it is gone."""
    after = copied(study)
    after["state"] = doc.DELETING
    after["rev"] = next_revision(study, runtime.now())
    state = StudyState(after)
    event = runtime.commits.event(state, doc.DELETE_ACTION, [])
    event |= {"hold": True, "blobs": []}
    operations = guards(event, study, after)
    return await runtime.commits.apply(
        pk, StudyState(study), state, event, operations, ()
    )


async def finish(runtime: Runtime, pk: str) -> None:
    """Empties a study that is marked `deleting`, however far an earlier try came."""
    query = Query(
        Equals(("t",), "i"), (Order(("id",), descending=True),), (*_FIELDS, "pk")
    )
    while True:
        study = await runtime.documents.read(containers.DICOM, pk, doc.STUDY)
        if study is None or study["state"] != doc.DELETING:
            return
        page = await runtime.documents.query(
            containers.DICOM, query, partition_key=pk, limit=MAX_DELETES
        )
        rows = list(page.documents)
        await _delete_rows(runtime, pk, rows[: _fitting(rows)], doc.DELETING)


async def delete_as_read(
    runtime: Runtime, pk: str, study: Document, row: Document
) -> bool:
    """Deletes one instance; False where the study has changed since it was read.

    Args:
        runtime: The stores.
        pk: Logical partition of the study.
        study: `st`, read before `row`.
        row: The instance, with the fields that a delete needs.
    """
    return await _delete_rows(runtime, pk, [row], doc.LIVE, revision=study["rev"])


async def _delete_rows(
    runtime: Runtime,
    pk: str,
    rows: Sequence[Document],
    state_wanted: str,
    *,
    revision: int | None = None,
) -> bool:
    """One commit that deletes these instances and what becomes empty.

    False when another commit came first, or the study's revision is another.
    """
    touched = {f"se:{row['se']}" for row in rows}
    # An instance that is gone by now makes the commit fail.
    loaded = await runtime.commits.load(pk, touched, ())
    # What is remembered of other series has no place in the commit.
    series = {id: row for id, row in loaded.series.items() if id in touched}
    state = StudyState(loaded.study, series, set(), touched)
    study = state.study
    if study is None or study["state"] != state_wanted:
        return False
    if revision is not None and study["rev"] != revision:
        return False
    if not touched.issubset(series):
        return False
    after = await _without_rows(runtime, pk, state, rows)
    assert after.study is not None
    names = [name for row in rows for name in _version_blobs(pk, row)]
    event = runtime.commits.event(
        after,
        doc.DELETE_ACTION,
        [[row["u"][1], row["u"][2], row["w"]] for row in rows],
        counts=(
            -1 if after.study["state"] == doc.GONE else 0,
            -len(rows),
            -sum(int(row.get("first", row)["len"]) for row in rows),
        ),
    )
    manifest = doc.deleted_manifest_name(pk, event)
    event["blobs"] = [*names, manifest]
    event["first"] = [row["ow"] for row in rows]
    body = orjson.dumps([[row["id"], row["ow"], row["w"]] for row in rows])
    if rows:
        await runtime.blobs.put([(manifest, BytesSource(body))])
    removed = [id for id in state.series if id not in after.series]
    operations = [
        *guards(event, study, after.study),
        *(Upsert(series) for series in after.series.values()),
        *(Delete(id) for id in removed),
        # As they were read: the event and the list name the blobs of that version.
        *(Delete(row["id"], if_etag=row["_etag"]) for row in rows),
    ]
    try:
        done = await runtime.commits.apply(
            pk, state, after, event, operations, list(after.series), removed
        )
    except StoreUnavailable as error:
        if rows and not error.outcome_unknown:
            await _forget(runtime, manifest)
        raise
    if not done and rows:
        await _forget(runtime, manifest)
    return done


async def _forget(runtime: Runtime, manifest: str) -> None:
    """Takes back the list of a commit that was refused: its instances stay."""
    try:
        await runtime.blobs.delete(manifest)
    except StoreUnavailable as error:
        logger.warning("a list of a refused delete is left to scrub: %s", error)


def _version_blobs(pk: str, row: Document) -> list[str]:
    """Blobs of every version there may be: current, original, staged, replaced."""
    names = doc.blobs_of(doc.current_blob_name(pk, row), row)
    staged = row.get("next", {}).get("w")
    for watermark in {row["ow"], row.get("pw"), staged} - {row["w"], None}:
        name = doc.blob_name(pk, row["id"], watermark, row["ow"])
        names += [name, doc.metadata_blob_name(name)]
        if row.get("fb"):
            names.append(doc.frames_blob_name(name))
    return names


async def _without_rows(
    runtime: Runtime, pk: str, state: StudyState, rows: Sequence[Document]
) -> StudyState:
    """State after the rows are gone."""
    assert state.study is not None
    study = copied(state.study)
    study["rev"] = next_revision(state.study, runtime.now())
    removed = {row["id"] for row in rows}
    series = {id: copied(row) for id, row in state.series.items()}
    for row in rows:
        series[f"se:{row['se']}"]["ni"] -= 1
    study["ni"] -= len(rows)
    for row in [row for row in series.values() if row["ni"] <= 0]:
        doc.count_modality(study, doc.modality_of(row), -1)
        study["ns"] -= 1
        del series[row["id"]]
    if study["ni"] <= 0 or not rows:  # none is left, whatever the count says
        return StudyState(doc.gone_study(study), {}, set(), set())
    if study["state"] == doc.LIVE:
        await _refresh_newest(runtime, pk, study, series, removed)
    for row in series.values():
        row["rev"] = study["rev"]
    return StudyState(study, series, set(), set(series))


async def _refresh_newest(
    runtime: Runtime,
    pk: str,
    study: Document,
    series: dict[str, Document],
    removed: set[str],
) -> None:
    """Takes the attributes of the newest remaining instance where the newest went."""
    series_tags = (*attributes.STUDY_ALL, *attributes.SERIES_ALL)
    for row in series.values():
        if row["nid"] in removed:
            scope = Equals(("se",), row["id"].removeprefix("se:"))
            newest = await _newest(runtime, pk, study, scope, removed)
            _take(row, newest, series_tags)
    if study["nid"] in removed:
        newest = await _newest(runtime, pk, study, None, removed)
        _take(study, newest, attributes.STUDY_ALL)


async def _newest(
    runtime: Runtime,
    pk: str,
    study: Document,
    scope: Condition | None,
    removed: set[str],
) -> Document | None:
    """The newest instance that stays, as readers see it, metadata inline.

    None where somebody else deleted it just now: the commit will be refused.
    """
    conditions: tuple[Condition, ...] = (Equals(("t",), "i"),)
    if scope is not None:
        conditions = (*conditions, scope)
    page = await runtime.documents.query(
        containers.DICOM,
        Query(And(conditions), (Order(("w",), descending=True),), ("w",)),
        partition_key=pk,
        limit=len(removed) + 1,
    )
    for row in page.documents:
        if row["id"] not in removed:
            document = await runtime.documents.read(containers.DICOM, pk, row["id"])
            if document is None:
                return None
            version = doc.version_of(study, document, original=False)
            return await retrieve.with_metadata(runtime, pk, version)
    return None


def _take(target: Document, newest: Document | None, tags: Sequence[str]) -> None:
    """Gives a study or series the attributes of its newest instance."""
    if newest is not None:
        elements = retrieve.metadata_object(newest, "")
        target["n"] = doc.level_elements(elements, tags)
        target["nid"] = newest["id"]
        target["nw"] = target["w"] = newest["w"]
