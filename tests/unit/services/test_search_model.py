"""Random searches of a random archive find what a plain loop over it finds.

Lists and pages are kept short, so that every way of the search is taken: parents that
are listed, parents that are too many, pages that end anywhere. `SEARCH_QUERIES` says how
many searches; they are the same in every run.
"""

import fnmatch
import os
from dataclasses import dataclass
from random import Random

import pytest
from data import instance

from dicomweb import query
from dicomweb.identifiers import Partition
from dicomweb.multipart import PartBegin, PartData, PartEnd
from dicomweb.query import Resource
from services import delete, search, store
from services.retrieve import Scope

QUERIES = int(os.environ.get("SEARCH_QUERIES", "150"))
HERE = Partition("Microsoft.Default")
STUDY = {
    "PatientID": ["P1", "P2", "P12"],
    "PatientName": ["Doe^Jane", "Doe^John^A", "Smith^Doe", "Müller^Änne"],
    "StudyDate": ["20240101", "20240201", "20240202", None],
    "AccessionNumber": ["A1", "a1", None],
}
SERIES = {"Modality": ["CT", "MR", "CR"], "ManufacturerModelName": ["M1", "M2", None]}
ASKED = {
    "PatientID": ["P1", "p12", "P1*", "?2", "*", "", "P3"],
    "PatientName": ["doe^jane", "DOE*", "muller^anne", "*doe*", "x*"],
    "StudyDate": ["20240201", "20240101-20240201", "-20240131", "20240201-", ""],
    "AccessionNumber": ["A1", "a?", "A2"],
    "ModalitiesInStudy": ["CT", "ct,MR", "C?", "?R", "SR"],
    "Modality": ["CT", "MR,CR", "c*"],
    "ManufacturerModelName": ["M1", "m?", ""],
}
FUZZY = ["do", "doe j", "jane", "smith", "an doe", "oe", "mul an"]
LEVELS = {
    Resource.ALL_STUDIES: ("study", (*STUDY, "ModalitiesInStudy")),
    Resource.ALL_SERIES: ("series", (*STUDY, "ModalitiesInStudy", *SERIES)),
    Resource.ALL_INSTANCES: ("sop", (*STUDY, "ModalitiesInStudy", *SERIES)),
    Resource.STUDY_SERIES: ("series", tuple(SERIES)),
    Resource.STUDY_INSTANCES: ("sop", tuple(SERIES)),
    Resource.STUDY_SERIES_INSTANCES: ("sop", ()),
}
RESULT_TAG = {"study": "0020000D", "series": "0020000E", "sop": "00080018"}


@dataclass
class One:
    """An instance of the archive; attributes of its study and series are its own."""

    study: str
    series: str
    sop: str
    values: dict[str, str | None]


async def put(runtime, one):
    file = instance(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        **one.values,
    )

    async def events():
        yield PartBegin({"content-type": "application/dicom"})
        yield PartData(file)
        yield PartEnd()

    await store.store_instances(
        runtime, HERE, events(), study_instance_uid=None, version=2
    )


def archive(random):
    """Instances in the order in which they are stored."""
    ones = []
    for study in range(14):
        of_study = {keyword: random.choice(values) for keyword, values in STUDY.items()}
        for series in range(random.randint(1, 3)):
            values = of_study | {k: random.choice(v) for k, v in SERIES.items()}
            uid = f"1.{study}.{series}"
            ones += [
                One(f"1.{study}", uid, f"{uid}.{n}", values)
                for n in range(random.randint(1, 3))
            ]
    random.shuffle(ones)
    return ones


# --- what should be found ------------------------------------------------------------


def bare(text):
    return text.lower().replace("ü", "u").replace("ä", "a")


def words_follow(words, starts):
    return any(
        len(words) >= at + len(starts)
        and all(w.startswith(s) for w, s in zip(words[at:], starts, strict=False))
        for at in range(len(words))
    )


def fits(keyword, value, asked, is_fuzzy):
    if value is None:
        return False
    if keyword == "StudyDate":
        low, _, high = asked.partition("-")
        return (
            (not low or low <= value) and (not high or value <= high)
            if "-" in asked
            else value == asked
        )
    if is_fuzzy and keyword == "PatientName":
        return words_follow(bare(value).replace("^", " ").split(), asked.split())
    patterns = asked.split(",") if "odalit" in keyword else [asked]
    return any(fnmatch.fnmatchcase(bare(value), bare(each)) for each in patterns)


def matches(one, filters, modalities, is_fuzzy):
    for keyword, asked in filters.items():
        if not asked.strip("*"):
            continue
        values = (
            modalities[one.study]
            if keyword == "ModalitiesInStudy"
            else [one.values[keyword]]
        )
        if not any(fits(keyword, value, asked, is_fuzzy) for value in values):
            return False
    return True


def expected(everything, there, level, path, filters, is_fuzzy):
    """UIDs of the results, newest first: by what was stored first of each."""
    modalities = {}
    for one in there:
        modalities.setdefault(one.study, set()).add(one.values["Modality"])
    found = {
        getattr(one, level)
        for one in there
        if all(getattr(one, name) == uid for name, uid in path.items())
        and matches(one, filters, modalities, is_fuzzy)
    }
    order = dict.fromkeys(getattr(one, level) for one in everything)
    return [uid for uid in reversed(order) if uid in found]


# --- what is found -------------------------------------------------------------------


async def found(runtime, resource, path, parameters, level):
    parsed = query.parse(
        resource,
        list(parameters.items()),
        version=2,
        query_tags=(),
        **{f"{name}_instance_uid": uid for name, uid in path.items()},
    )
    result = await search.search(runtime, HERE, parsed, "http://test/v2")
    uids = [row[RESULT_TAG[level]]["Value"][0] for row in result.rows]
    return uids, result.next_cursor


async def by_cursor(runtime, resource, path, parameters, level):
    every, cursor = await found(runtime, resource, path, parameters, level)
    while cursor is not None:
        more = parameters | {"cursor": cursor}
        page, cursor = await found(runtime, resource, path, more, level)
        assert page
        every += page
    return every


async def test_random_searches_find_what_a_loop_finds(runtime, monkeypatch):
    monkeypatch.setattr(search, "MAX_PARENTS", 3)
    monkeypatch.setattr(search, "_PAGE", 4)
    random = Random(11)
    everything = archive(random)
    for one in everything:
        await put(runtime, one)
    gone = random.sample(everything, len(everything) // 5)
    for one in gone:
        await delete.delete(runtime, Scope(HERE, one.study, one.series, one.sop))
    there = [one for one in everything if one not in gone]
    several = 0
    for _ in range(QUERIES):
        resource = random.choice(list(Resource))
        level, keywords = LEVELS[resource]
        chosen = random.sample(
            keywords, min(len(keywords), random.choice([0, 1, 1, 2, 3]))
        )
        filters = {keyword: random.choice(ASKED[keyword]) for keyword in chosen}
        is_fuzzy = "PatientName" in filters and random.random() < 0.5
        if is_fuzzy:
            filters["PatientName"] = random.choice(FUZZY)
        inside = random.choice(everything)
        names = {"STUDY_SERIES_INSTANCES": 2, "STUDY_SERIES": 1, "STUDY_INSTANCES": 1}
        path = {
            name: getattr(inside, name)
            for name in ("study", "series")[: names.get(resource.name, 0)]
        }
        wanted = expected(everything, there, level, path, filters, is_fuzzy)
        several += len(wanted) > 1
        limit, offset = random.randint(1, 6), random.randint(0, 5)
        parameters = filters | ({"fuzzymatching": "true"} if is_fuzzy else {})
        about = (resource, path, parameters, limit, offset)
        paged = parameters | {"limit": str(limit)}
        assert (await by_cursor(runtime, resource, path, paged, level), about) == (
            wanted,
            about,
        )
        page, _ = await found(
            runtime, resource, path, paged | {"offset": str(offset)}, level
        )
        assert (page, about) == (wanted[offset : offset + limit], about)
    assert several > QUERIES // 4


@pytest.mark.parametrize(
    ("value", "asked", "answer"),
    [("Doe^John^A", "doe j", True), ("Doe^John^A", "doe a", False)],
)
def test_the_loop_itself_knows_fuzzy_names(value, asked, answer):
    assert fits("PatientName", value, asked, is_fuzzy=True) is answer
