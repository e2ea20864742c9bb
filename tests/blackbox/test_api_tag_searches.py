"""Sections 8.2, 8.3, 8.8 and 8.9 on extended query tags.

Each VR has a private tag at every level and a standard one. The values of half of the
instances are there before the tags, and so come in by the reindex; those of the others
are stored afterwards.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pydicom
import pytest
from blackbox.api import Api, Made, made
from blackbox.hosts import Running
from blackbox.rules import covers
from blackbox.tags import Tags, new_tag
from pydicom.datadict import tag_for_keyword

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
LEVELS = ["study", "series", "instance"]
CREATOR, OTHER = "QUERY TAGS", "SOMEBODY ELSE"
GROUP = 0x0099


@dataclass(frozen=True)
class Kind:
    """How values of a VR are matched.

    Attributes:
        keyword: A standard attribute of the VR.
        early: Its value in the instance that is there before the tags.
        late: In the one that is stored afterwards.
        finds_early: What finds the first value and not the second.
        finds_late: The other way round.
        finds_both: What finds both.
        finds_none: What finds neither.
    """

    keyword: str
    early: Any
    late: Any
    finds_early: tuple[str, ...]
    finds_late: tuple[str, ...]
    finds_both: tuple[str, ...] = ()
    finds_none: tuple[str, ...] = ()


KINDS = {
    "AE": Kind(
        "StationAETitle", "EARLY_AE", "LATE 1", ("early_ae ", "EARLY*"), ("LATE 1",)
    ),
    "AS": Kind("PatientAge", "045Y", "046Y", ("045y",), ("046Y",), ("04?Y",), ("45Y",)),
    "CS": Kind(
        "BodyPartExamined", "HEAD", "HAND", ("head",), ("HAND ",), ("H*D",), ("HEA",)
    ),
    "DA": Kind(
        "AcquisitionDate",
        "20200102",
        "20210304",
        ("20200102", "20200101-20200102", "-20210303"),
        ("20210304", "20210304-", "20210101 - 20211231"),
        ("20200102-20210304",),
        ("20200103-20210303", "20220101"),
    ),
    "DS": Kind(
        "PatientWeight", "70.5", "7.05E2", ("70.50", "7.05e1"), ("705",), (), ("70.4",)
    ),
    "DT": Kind(
        "AcquisitionDateTime",
        "20200102030405.5+0200",
        "2021",
        ("20200102030405.500000", "20200102-2020010204", "-20201231235959"),
        ("2021", "20210101000000", "202012-"),
        ("2020-2021",),
        ("2020", "20200102030405"),
    ),
    "FD": Kind("AcquisitionDuration", 1.5, -2e300, ("1.5", "15e-1"), ("-2e300",)),
    "FL": Kind("DisplayedZValue", 1.1, 2.0, ("1.1",), ("2", "2.00"), (), ("1.2",)),
    "IS": Kind("AcquisitionNumber", "0003", "-4", ("3", "+003"), ("-4",), (), ("4",)),
    "LO": Kind(
        "InstitutionName",
        "Haus Ärzte",
        "Haus B",
        ("haus ärzte ", "*Ä*"),
        ("HAUS B",),
        ("haus ?*",),
        ("Haus", "Haus Arzte"),
    ),
    "PN": Kind(
        "OperatorsName",
        "Tánaka^Bo=田中",
        "Smith^Ann",
        ("tanaka^bo=田中", "tán*"),
        ("SMITH^ANN",),
        ("*a*",),
        ("Smith",),
    ),
    "SH": Kind("StationName", "Room 1", "Room 2", ("ROOM 1 ",), ("room 2",), ("room*",)),
    "SL": Kind("ReferencePixelX0", -70000, 2**31 - 1, ("-70000",), ("2147483647",)),
    "SS": Kind("TagAngleSecondAxis", -5, 6, ("-5", "-005"), ("6",), (), ("5",)),
    "TM": Kind(
        "AcquisitionTime",
        "101530.25",
        "2359",
        ("101530.250000", "10-11", "-101530.25"),
        ("2359", "235900", "23-"),
        ("09-",),
        ("101530", "10"),
    ),
    "UI": Kind(
        "DimensionOrganizationUID", "1.2.3", "1.2.4", ("1.2.3",), ("1.2.4",),
        ("1.2.3,1.2.4", "1.2.3\\1.2.4"), ("1.2", "1.2.*"),
    ),
    "UL": Kind("SimpleFrameList", 4294967295, 1, ("4294967295",), ("1", "01")),
    "US": Kind("BitsStored", 65535, 12, ("65535",), ("12",), (), ("13",)),
}  # fmt: skip


def element_of(vr: str, level: str) -> int:
    """Number of the private element within its creator's block."""
    return 1 + list(KINDS).index(vr) * 3 + LEVELS.index(level)


def private_key(vr: str, level: str) -> str:
    """The tag as it is added: block 10, whatever block a file reserves."""
    return f"{GROUP:04X}10{element_of(vr, level):02X}"


def keys_of(vr: str) -> list[tuple[str, str]]:
    """Every query tag of the VR and its level."""
    private = [(private_key(vr, level), level) for level in LEVELS]
    return [*private, (KINDS[vr].keyword, standard_level(vr))]


def standard_level(vr: str) -> str:
    return LEVELS[list(KINDS).index(vr) % 3]


def with_values(which: str, *, block: int) -> Made:
    """An instance that has a value of every kind, private ones in that block."""
    one = made(**{kind.keyword: getattr(kind, which) for kind in KINDS.values()})
    dataset = pydicom.dcmread(io.BytesIO(one.file))
    for number in range(0x10, block):
        dataset.add_new((GROUP, number), "LO", f"{OTHER} {number}")
        dataset.add_new((GROUP, (number << 8) + 1), "AE", "NOT_MINE")
    dataset.add_new((GROUP, block), "LO", CREATOR)
    for vr, kind in KINDS.items():
        for level in LEVELS:
            tag = (GROUP, (block << 8) + element_of(vr, level))
            dataset.add_new(tag, vr, getattr(kind, which))
    written = io.BytesIO()
    dataset.save_as(written)
    return Made(one.study, one.series, one.sop, written.getvalue())


@dataclass
class World:
    """A server with one instance early and one late."""

    api: Api
    early: Made
    late: Made

    def found(self, version: str, resource: str, key: str, value: str) -> set[str]:
        """`early`, `late`: what the search finds of the two."""
        rows = self.api.search(f"/{version}/{resource}?{key}={quote(value)}")
        names = {self.early.study: "early", self.late.study: "late"}
        found = {names[row["0020000D"]["Value"][0]] for row in rows}
        assert len(rows) == len(found)
        return found


@pytest.fixture(scope="module")
def world(serve: Callable[..., Running]) -> Iterator[World]:
    running = serve()
    with Api(running.url) as api:
        early = with_values("early", block=0x10)
        late = with_values("late", block=0x12)
        assert api.store(early.file).status_code == 200
        tags = Tags(api)
        tags.add(
            *(
                new_tag(private_key(vr, level), level, vr=vr, privateCreator=CREATOR)
                for vr in KINDS
                for level in LEVELS
            ),
            *(
                new_tag(kind.keyword, standard_level(vr), vr=vr)
                for vr, kind in KINDS.items()
            ),
        )
        assert api.store(late.file).status_code == 200
        errors = [path for path in tags.paths() if tags.errors(path)]
        assert errors == []
        yield World(api, early, late)
    running.stop()


# --- matching ------------------------------------------------------------------------


@covers("8.3.7", "8.3.8", "8.3.9", "8.3.11", "8.3.12", "11.3.2", "11.1.5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("vr", KINDS)
def test_values_of_every_vr_are_found_at_every_level(world, vr, version):
    kind = KINDS[vr]
    resources = {"study": "studies", "series": "series", "instance": "instances"}
    for key, level in keys_of(vr):
        for values, expected in (
            (kind.finds_early, {"early"}),
            (kind.finds_late, {"late"}),
            (kind.finds_both, {"early", "late"}),
            (kind.finds_none, set()),
        ):
            for value in values:
                found = world.found(version, resources[level], key, value)
                assert found == expected, f"{key}={value} at {level}"


@covers("8.3.11", "8.2.9")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_tag_is_searched_by_at_its_level_and_below(world, version):
    one = world.early
    resources = {
        "studies": {"study"},
        "series": {"study", "series"},
        "instances": {"study", "series", "instance"},
        f"studies/{one.study}/series": {"series"},
        f"studies/{one.study}/instances": {"series", "instance"},
        f"studies/{one.study}/series/{one.series}/instances": {"instance"},
    }
    for resource, levels in resources.items():
        for level in LEVELS:
            key = private_key("CS", level)
            path = f"/{version}/{resource}?{key}=HEAD"
            if level in levels:
                [row] = world.api.search(path)
                assert row["0020000D"]["Value"] == [one.study]
            else:
                answer = world.api.read(path)
                assert answer.status_code == 400
                assert f"AttributeId {key} is not queryable.  If" in answer.text


@covers("8.3.10")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_fuzzy_matching_concerns_names_of_query_tags(world, level, version):
    key = private_key("PN", level)
    resource = {"study": "studies", "series": "series", "instance": "instances"}[level]

    def found(value: str) -> set[str]:
        fuzzy = f"{resource}?fuzzymatching=true&limit=5"
        rows = world.api.search(f"/{version}/{fuzzy}&{key}={quote(value)}")
        names = {world.early.study: "early", world.late.study: "late"}
        return {names[row["0020000D"]["Value"][0]] for row in rows}

    assert found("bo") == found("tan bo") == found("BO 田") == {"early"}
    assert found("smi") == found("Smith Ann") == {"late"}
    assert found("mith") == found("ann smith") == set()


@covers("8.3.10")
def test_fuzzy_matching_leaves_other_vrs_as_they_are(world):
    key = private_key("LO", "study")
    rows = world.api.search(f"/v2/studies?fuzzymatching=true&{key}=Haus")
    assert rows == []


@covers("8.3.13")
@pytest.mark.parametrize("version", VERSIONS)
def test_of_several_names_dates_and_numbers_the_first_one_counts(tags, version):
    keys = {
        "OperatorsName": ("00081070", ["A^B", "C^D"]),
        "PageNumberVector": ("00182001", ["7", "8"]),
        "DateOfLastCalibration": ("00181200", ["20200101", "20200202"]),
    }
    there = tags.paths()
    missing = [new_tag(key, "series") for key, (path, _) in keys.items()]
    if not there.issuperset(path for path, _ in keys.values()):
        tags.add(*missing)
    one = made(**{key: values for key, (_, values) in keys.items()})
    assert tags.api.store(one.file, path=f"/{version}/studies").status_code == 200
    search = f"/{version}/series?StudyInstanceUID={one.study}"
    for key, (_, (counted, other)) in keys.items():
        assert len(tags.api.search(f"{search}&{key}={counted}")) == 1
        assert tags.api.search(f"{search}&{key}={other}") == []


@covers("8.3.13", "6.6.4")
@pytest.mark.parametrize("version", VERSIONS)
def test_of_several_values_the_first_one_counts(tags, version):
    before = made(SoftwareVersions=["One", "Two"])
    tags.api.store(before.file)
    if "00181020" not in tags.paths():
        tags.add(new_tag("SoftwareVersions", "series"))
    after = made(SoftwareVersions=["One", "Three"])
    answer = tags.api.store(after.file, path=f"/{version}/studies")
    assert answer.status_code == 200
    if version != "v2":
        assert "multiple values" in answer.headers["warning"]
    for one in (before, after):
        search = f"/{version}/series?StudyInstanceUID={one.study}&SoftwareVersions="
        assert len(tags.api.search(f"{search}one")) == 1
        assert tags.api.search(f"{search}two") == []


@covers("8.5.9", "8.5.12", "8.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_searched_by_comes_back(world, version):
    for vr in ("CS", "IS", "PN"):
        for level, resource in zip(
            LEVELS, ("studies", "series", "instances"), strict=True
        ):
            key = private_key(vr, level)
            value = quote(KINDS[vr].finds_early[0])
            [row] = world.api.search(f"/{version}/{resource}?{key}={value}")
            assert row[key]["vr"] == vr
            assert row[key]["Value"]
    [row] = world.api.search(f"/{version}/series?PatientAge=045Y")
    assert row["00101010"] == {"vr": "AS", "Value": ["045Y"]}


# --- refusals ------------------------------------------------------------------------


@covers("8.2.11", "8.2.12", "8.2.13", "8.2.17", "8.2.18", "3.10")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("vr", "value", "words"),
    [
        ("DA", "20200230", "specified Date value '20200230' is invalid for attribute"),
        ("DA", "2020", "Date should be valid and formatted as yyyyMMdd"),
        ("DA", "20210101-20200101", "ends before it starts"),
        ("DA", "-", "needs one end at least"),
        ("DT", "20201301", "specified DateTime value '20201301' is invalid"),
        ("DT", "20200101+0100", "without offset"),
        ("DT", "2021-2020", "ends before it starts"),
        ("TM", "25", "Time should be valid and formatted as HHmmss.FFFFFF"),
        ("TM", "1", "specified Time value '1' is invalid for parameter"),
        ("TM", "11-10", "ends before it starts"),
        ("IS", "3.5", "is not a valid value"),
        ("IS", "3*", "is not a valid value"),
        ("US", "?", "is not a valid value"),
        ("FD", "1.*", "is not a valid value"),
        ("IS", "x", "is not a valid value"),
        ("SL", "99999999999999999999", "is not a valid value"),
        ("SS", "1e0", "is not a valid value"),
        ("UL", "0x1", "is not a valid value"),
        ("US", "one", "is not a valid value"),
        ("FL", "1,5", "is not a valid value"),
        ("FD", "nan", "is not a valid value"),
        ("DS", "1_0", "is not a valid value"),
    ],
)
def test_a_value_that_its_vr_does_not_allow_is_400(world, vr, value, words, version):
    for key, level in keys_of(vr):
        resource = {"study": "studies", "series": "series"}.get(level, "instances")
        answer = world.api.read(f"/{version}/{resource}?{key}={quote(value)}")
        assert answer.status_code == 400, key
        assert words in answer.text


@covers("8.2.14")
def test_a_double_quote_in_a_fuzzy_name_of_a_query_tag_is_400(world):
    key = private_key("PN", "study")
    answer = world.api.read(f'/v2/studies?fuzzymatching=true&{key}=a"b')
    assert answer.status_code == 400


@covers("8.2.6", "8.2.7")
def test_a_query_tag_by_keyword_and_number_is_400(world):
    number = f"{tag_for_keyword('PatientAge'):08X}"
    for query in (
        f"PatientAge=045Y&{number}=045Y",
        "PatientAge=045Y&PatientAge=046Y",
    ):
        assert world.api.read(f"/v2/instances?{query}").status_code == 400


# --- when instances disagree ---------------------------------------------------------


@covers("8.9.4", "8.9.5")
@pytest.mark.parametrize("order", ["reindexed", "stored"])
def test_a_study_and_a_series_have_the_value_of_the_newest_instance_that_had_one(
    tags, order
):
    names = {
        "reindexed": ("Allergies", "ScanOptions"),
        "stored": ("Occupation", "Laterality"),
    }
    study_name, series_name = names[order]

    def add() -> None:
        tags.add(new_tag(study_name, "study"), new_tag(series_name, "series"))

    if order == "stored":
        add()
    first = made(**{study_name: "OLD", series_name: "L"})
    second = made(first, same_series=True, **{study_name: "NEW", series_name: "R"})
    third = made(first, same_series=True)
    for one in (first, second, third):
        assert tags.api.store(one.file).status_code == 200
    if order == "reindexed":
        add()
    same = f"StudyInstanceUID={first.study}"

    def check(at_study: str, at_series: str) -> None:
        for value, row_count in ((at_study, 1), ("OLD", 0)):
            query = f"/v2/studies?{same}&{study_name}={value}"
            assert len(tags.api.search(query)) == row_count
        path = f"/v2{first.study_path}/series?{series_name}"
        assert len(tags.api.search(f"{path}={at_series}")) == 1
        assert tags.api.search(f"{path}=L") == []

    check("NEW", "R")
    assert tags.api.delete(f"/v2{second.path}").status_code == 204
    check("NEW", "R")
    fourth = made(first, same_series=True, **{study_name: "LAST", series_name: "B"})
    tags.api.store(fourth.file)
    check("LAST", "B")


@covers("8.9.4", "8.3.11")
def test_an_instance_level_tag_finds_exactly_the_instances_that_have_the_value(tags):
    first = made(AcquisitionNumber=5)
    others = [
        made(first, same_series=True, AcquisitionNumber=5),
        made(first, AcquisitionNumber=6),
        made(first),
    ]
    for one in (first, *others[:2]):
        tags.api.store(one.file)
    tags.add(new_tag("AcquisitionNumber", "instance"))
    tags.api.store(others[2].file)

    def found(value: int) -> set[str]:
        path = f"/v2{first.study_path}/instances?AcquisitionNumber={value}"
        return {row["00080018"]["Value"][0] for row in tags.api.search(path)}

    assert found(5) == {first.sop, others[0].sop}
    assert found(6) == {others[1].sop}
    tags.api.delete(f"/v2{first.path}")
    assert found(5) == {others[0].sop}


@covers("4.10", "8.3.11")
def test_tags_are_of_all_partitions_and_searches_of_one(serve):
    running = serve(DICOM_DATA_PARTITIONS="true")
    with Api(running.url) as api:
        before, after = made(PatientAge="050Y"), made(PatientAge="050Y")
        wrong = made(PatientAge="fifty")
        api.store(before.file, path="/v2/partitions/one/studies")
        api.store(wrong.file, path="/v1/partitions/two/studies")
        tags = Tags(api)
        tags.add(new_tag("PatientAge", "study"))
        [error] = tags.errors("PatientAge")
        assert error["partitionName"] == "two"
        tags.set_queries("PatientAge", "enabled")
        api.store(after.file, path="/v2/partitions/two/studies")
        for name, one in (("one", before), ("two", after)):
            for version in VERSIONS:
                path = f"/{version}/partitions/{name}/studies?PatientAge=050Y"
                [row] = api.search(path)
                assert row["0020000D"]["Value"] == [one.study]
    running.stop()


@covers("10.13")
def test_a_reindex_writes_nothing_into_the_change_feed(tags):
    tags.api.store(made(ContentLabel="FEED").file)
    before = tags.api.read("/v1/changefeed/latest").json()["sequence"]
    tags.add(new_tag("ContentLabel", "instance"))
    assert tags.api.read("/v1/changefeed/latest").json()["sequence"] == before
