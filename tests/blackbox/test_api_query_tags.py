"""Section 11: extended query tags are added, listed, switched and deleted."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest
from blackbox.api import Api, failed_items, made, reason
from blackbox.hosts import Running
from blackbox.rules import covers
from blackbox.stacks import STACK
from blackbox.tags import TAGS, Tags, new_tag

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
NAME = "PatientAge"
AGE = "00101010"
MANY = 300 if STACK == "embedded" else 100
"""Instances, each in a study of its own: bringing in a tag takes a while."""


@pytest.fixture(scope="module")
def busy(serve: Callable[..., Running]) -> Iterator[Tags]:
    """A server with so many studies that a reindex can be met under way.

    Two processes answer, so that what one knows the other has to look up.
    """
    running = serve(workers=2)
    with Api(running.url) as api:
        for start in range(0, MANY, 50):
            files = [
                made(PatientAge=f"{n:03d}Y", PatientWeight=str(n)).file
                for n in range(start, start + 50)
            ]
            assert api.store(*files).status_code == 200
        yield Tags(api)
    running.stop()


def refused(tags: Tags, *entries: object, status: int = 400) -> str:
    """The text of the refusal, the same in every version; nothing was added."""
    before = tags.paths()
    texts = set()
    for version in VERSIONS:
        answer = tags.post(*entries, version=version)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        texts.add(answer.text)
    assert tags.paths() == before
    [text] = texts
    return text


# --- what can be added ---------------------------------------------------------------


@covers("2.25", "11.1.1", "11.1.4", "11.1.10", "11.1.12", "11.1.14", "11.2.1", "1.2.6")
def test_a_tag_is_added_by_keyword_or_number_and_normalised(tags):
    answer = tags.post(
        {"Path": "PatientSize", "vr": "ds", "LEVEL": "STUDY"},
        new_tag("00189073", "Series"),
        new_tag("0099100a", vr="lo", privateCreator="Made By"),
    )
    assert answer.status_code == 202
    assert answer.json().keys() == {"id", "href"}
    id, href = answer.json()["id"], answer.json()["href"]
    assert len(id) == 32
    assert int(id, 16)
    assert href == f"{str(tags.api.base_url).rstrip('/')}/v2/operations/{id}"
    assert answer.headers["location"] == href
    assert tags.end_of(id)["status"] == "succeeded"
    ready = {"status": "ready", "queryStatus": "enabled"}
    assert tags.entry("PatientSize") == {
        "path": "00101020",
        "vr": "DS",
        "level": "study",
        **ready,
    }
    assert tags.entry("AcquisitionDuration") == {
        "path": "00189073",
        "vr": "FD",
        "level": "series",
        **ready,
    }
    assert tags.entry("0099100A") == {
        "path": "0099100A",
        "vr": "LO",
        "level": "instance",
        "privateCreator": "Made By",
        **ready,
    }
    text = refused(
        tags,
        new_tag("LossyImageCompression"),
        new_tag("PatientSize", "series"),
        status=409,
    )
    assert text == "One or more extended query tags already exist."


@covers("11.1.1")
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("NoSuchKeyword", "cannot be parsed into a valid Dicom Tag"),
        ("patientage", "cannot be parsed into a valid Dicom Tag"),
        ("0010", "cannot be parsed into a valid Dicom Tag"),
        ("(0010,1010)", "cannot be parsed into a valid Dicom Tag"),
        ("00181FFF", "cannot be parsed into a valid Dicom Tag"),
        ("00101002.00100020", "Sequential dicom tags are currently not supported"),
        ("RequestAttributesSequence", "Sequential dicom tags"),
    ],
)
def test_a_path_is_one_tag_that_is_known(tags, path, words):
    assert words in refused(tags, new_tag(path))


@covers("11.1.2", "11.1.5")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (new_tag(NAME, vr="XX"), "is incorrectly specified for"),
        (new_tag(NAME, vr="A"), "is invalid"),
        (new_tag(NAME, vr="LO"), "The expected VR code for it is 'AS'"),
        (new_tag("00991001", privateCreator="Me"), "The vr for tag '00991001' is mis"),
        (new_tag("00991001", vr="UT", privateCreator="Me"), "is not supported"),
        (new_tag("00991001", vr="SQ", privateCreator="Me"), "Sequential dicom tags"),
        (new_tag("PixelData"), "is not supported"),
        (new_tag("AdditionalPatientHistory"), "is not supported"),
    ],
)
def test_the_vr_is_the_dictionarys_and_one_that_can_be_searched_by(tags, entry, words):
    assert words in refused(tags, entry)


@covers("11.1.2")
def test_one_of_the_dictionarys_vrs_may_be_chosen(tags):
    tags.add(new_tag("SmallestImagePixelValue", vr="ss"), new_tag("00280107"))
    assert tags.entry("00280106")["vr"] == "SS"
    assert tags.entry("00280107")["vr"] == "US"


@covers("11.1.3")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (new_tag(NAME, privateCreator="Me"), "not empty for standard tag"),
        (new_tag("00990010", privateCreator="Me"), "private identification code"),
        (new_tag("00991001", vr="LO"), "private tag '00991001' is missing"),
        (new_tag("00991001", vr="LO", privateCreator="x" * 65), "valid LO"),
        (new_tag("00991001", vr="LO", privateCreator="a\\b"), "valid LO"),
        (new_tag("00991001", vr="LO", privateCreator="a\tb"), "valid LO"),
    ],
)
def test_the_private_creator_belongs_to_private_tags(tags, entry, words):
    assert words in refused(tags, entry)


@covers("11.1.3")
def test_the_creator_element_itself_may_be_a_tag(tags):
    tags.add(new_tag("00990013"))
    entry = tags.entry("00990013")
    assert entry["vr"] == "LO"
    assert "privateCreator" not in entry


@covers("11.1.4", "1.2.6")
@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"path": NAME}, "[0].Level"),
        ({"path": NAME, "level": None}, "[0].Level"),
        ({"level": "Study"}, "[0].Path"),
        ({"level": "Study", "path": "  "}, "[0].Path"),
        (
            {"path": NAME, "level": "Studys"},
            (
                "The field '$[0].Level' in request body is invalid: Expected value 'Studys'"
                " to be one of the following values: ['Instance', 'Series', 'Study']"
            ),
        ),
        ({"path": NAME, "level": 1}, "$[0].Level"),
    ],
)
def test_path_and_level_must_be_given(tags, entry, text):
    assert text in refused(tags, entry)


@covers("11.1.6")
@pytest.mark.parametrize("path", ["PatientName", "0020000D", "ModalitiesInStudy"])
def test_what_can_be_searched_by_anyway_is_no_extended_tag(tags, path):
    assert refused(tags, new_tag(path)) == (
        f"The query tag '{path}' is already supported."
    )


@covers("11.1.7")
def test_a_tag_twice_in_a_request_by_any_name_or_none_at_all_is_refused(tags):
    twice = new_tag(NAME), new_tag(NAME, "study")
    assert "has been specified before" in refused(tags, *twice)
    both = new_tag(NAME), new_tag(AGE)
    assert "has been specified before" in refused(tags, *both)
    assert refused(tags) == "The extended query tag(s) is missing."


@covers("11.1.7", "3.1")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[", 400),
        ("{}", 400),
        ("[1]", 400),
        ('[{"path": 5, "level": "study"}]', 400),
    ],
)
def test_a_body_that_is_no_list_of_tags_is_400(tags, body, status):
    answer = tags.api.post(
        TAGS, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.text


@covers("1.2.6")
def test_comments_and_trailing_commas_are_read(tags):
    body = (
        '[ /* one */ {"path": "PatientMotherBirthName", // mother\n"level": "Study",},]'
    )
    answer = tags.api.post(
        TAGS, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 202
    tags.end_of(answer.json()["id"])
    assert tags.entry("00101060")["vr"] == "PN"


@covers("3.7")
def test_another_content_type_is_415(tags):
    answer = tags.api.post(TAGS, content="[]", headers={"Content-Type": "text/xml"})
    assert answer.status_code == 415


@covers("11.1.9")
def test_there_may_be_so_many_tags_as_the_setting_says(serve):
    running = serve(DICOM_MAX_QUERY_TAGS="2")
    with Api(running.url) as api:
        few = Tags(api)
        few.add(new_tag(NAME))
        text = refused(few, new_tag("PatientSize"), new_tag("PatientWeight"))
        assert "at most 2" in text
        few.add(new_tag("PatientSize"))
        refused(few, new_tag("PatientWeight"))
        assert few.delete(AGE) == 204
        few.add(new_tag("PatientWeight"))
    running.stop()


@covers("11.1.13")
def test_without_operations_no_tag_is_added_and_all_else_answers(serve):
    running = serve(DICOM_OPERATIONS="false")
    with Api(running.url) as api:
        answer = Tags(api).post({"bad": "entry"})
        assert answer.status_code == 400
        assert answer.text == (
            "Asynchronous operations are temporarily disabled. Please try again later."
        )
        assert api.get(TAGS).json() == []
    running.stop()


# --- one at a time -------------------------------------------------------------------


@covers("11.1.8", "11.3.1", "8.2.15", "11.2.1", "12.1", "12.5", "1.3.7")
def test_while_tags_are_brought_in_no_others_are_added_and_none_is_searched_by(busy):
    first = busy.post(new_tag(NAME, "study"))
    assert first.status_code == 202, first.text
    id = first.json()["id"]
    nothing = {"path": "no check comes before this one", "level": "study"}
    seconds = {version: busy.post(nothing, version=version) for version in VERSIONS}
    running = {v: busy.api.get(f"/{v}/operations/{id}") for v in VERSIONS}
    searches = [busy.api.read(f"/{v}/studies?{NAME}=017Y") for v in VERSIONS]
    entry = busy.entry(AGE)
    late = made(PatientAge="777Y")
    stored = busy.api.store(late.file)

    base = str(busy.api.base_url).rstrip("/")
    for version in VERSIONS:
        location = f"{base}/{version}/operations/{id}"
        second, state = seconds[version], running[version]
        assert second.status_code == 409
        assert second.text == (
            f"There is already an active re-index operation with ID '{id}'."
        )
        assert second.headers["location"] == location
        assert second.headers["content-type"].startswith("text/plain")
        assert state.status_code == 202
        assert state.headers["location"] == location
        assert state.json()["status"] in {"notStarted", "running"}
        assert 0 <= state.json()["percentComplete"] <= 100
    assert entry["status"] == "adding"
    assert entry["operation"] == {"id": id, "href": first.json()["href"]}
    for search in searches:
        assert search.status_code == 400
        assert f"AttributeId {NAME} is not queryable.  If" in search.text
    assert stored.status_code == 200

    assert busy.end_of(id)["percentComplete"] == 100
    assert "operation" not in busy.entry(AGE)
    assert len(busy.api.search(f"/v2/studies?{NAME}=017Y")) == 1
    [found] = busy.api.search(f"/v2/studies?{NAME}=777Y")
    assert found["0020000D"]["Value"] == [late.study]


@covers("11.1.8")
def test_of_requests_that_come_at_once_one_brings_in_its_tags(busy):
    names = {
        "Manufacturer": "00080070",
        "SeriesDescription": "0008103E",
        "SeriesNumber": "00200011",
        "StudyID": "00200010",
        "StudyTime": "00080030",
    }

    def post(name: str) -> httpx.Response:
        with Api(str(busy.api.base_url)) as api:
            return Tags(api).post(new_tag(name, "study"))

    with ThreadPoolExecutor(len(names)) as threads:
        answers = list(threads.map(post, names))
    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert (len(taken), len(refused)) == (1, len(names) - 1)
    locations = {answer.headers["location"] for answer in answers}
    assert locations == {taken[0].headers["location"]}
    assert len(busy.paths() & set(names.values())) == 1
    busy.end_of(taken[0].json()["id"])


@covers("11.1.11", "D7.2", "D7.3", "11.3.1")
def test_a_canceled_reindex_lets_its_tags_go_and_they_can_be_added_again(busy):
    first = busy.post(new_tag("PatientWeight", "study"))
    assert first.status_code == 202, first.text
    canceled = busy.api.delete(first.headers["location"])
    assert canceled.status_code == 202
    assert canceled.json()["id"] == first.json()["id"]
    ended = busy.end_of(first.json()["id"])
    assert ended["status"] == "canceled"
    entry = busy.entry("PatientWeight")
    assert entry["status"] == "adding"
    assert "operation" not in entry
    assert busy.api.read("/v2/studies?PatientWeight=5").status_code == 400
    late = made(PatientWeight="5.0")
    assert busy.api.store(late.file).status_code == 200
    again = busy.api.delete(first.headers["location"])
    assert again.status_code == 409

    busy.add(new_tag("PatientWeight", "study"))
    assert len(busy.api.search("/v2/studies?PatientWeight=5")) == 2


@covers("2.29", "11.2.6", "12.5")
def test_a_tag_may_be_deleted_while_it_is_brought_in(busy):
    started = busy.post(new_tag("PatientSex", "study"))
    assert started.status_code == 202, started.text
    assert busy.delete("PatientSex") == 204
    assert busy.api.get(f"{TAGS}/00100040").status_code == 404
    assert busy.end_of(started.json()["id"])["status"] == "succeeded"
    busy.add(new_tag("PatientSex", "study"))
    found = busy.api.search("/v2/studies?PatientSex=F&limit=200")
    assert found
    assert len(found) == len(busy.api.search("/v2/studies?limit=200"))


# --- lists and single tags -----------------------------------------------------------


@covers("2.26", "11.2.2", "1.5.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_tags_are_listed_in_the_order_of_their_adding(tags, version):
    added = ["ContrastBolusAgent", "PatientAge", "BodyPartExamined"]
    if AGE not in tags.paths():
        tags.add(*(new_tag(path) for path in added))
    url = f"/{version}/extendedquerytags"
    everything = tags.api.get(url)
    assert everything.status_code == 200
    assert everything.headers["content-type"].startswith("application/json")
    listed = [tag["path"] for tag in everything.json()]
    assert [p for p in listed if p in {"00180010", AGE, "00180015"}] == [
        "00180010",
        AGE,
        "00180015",
    ]
    pages = [tags.api.get(f"{url}?limit=1&Offset={n}").json() for n in range(3)]
    assert [page[0]["path"] for page in pages] == listed[:3]
    assert tags.api.get(f"{url}?offset=100000").json() == []
    for query in ("limit=0", "limit=201", "limit=x", "offset=-1"):
        refusal = tags.api.get(f"{url}?{query}")
        assert refusal.status_code == 400
        name = query.partition("=")[0].capitalize()
        assert f"The query parameter '{name}' is invalid." in refusal.text


@covers("2.27", "2.28", "2.29", "2.30", "11.2.3", "11.2.5", "11.2.6", "3.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("method", "suffix"),
    [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/errors")],
)
def test_an_unknown_tag_is_404_and_what_is_no_tag_400(tags, version, method, suffix):
    def ask(path: str) -> tuple[int, str]:
        answer = tags.api.request(
            method,
            f"/{version}/extendedquerytags/{path}{suffix}",
            json={"queryStatus": "enabled"} if method == "PATCH" else None,
        )
        return answer.status_code, answer.text

    status, text = ask("00181060")
    assert status == 404
    assert text == (
        "The specified extended query tag with tag path 00181060 cannot be found."
    )
    assert ask("NoSuchKeyword")[0] == 400
    assert ask("00101002.00100020")[0] == 400


@covers("2.28", "11.2.5", "8.2.16")
@pytest.mark.parametrize("version", VERSIONS)
def test_queries_on_a_tag_are_switched_off_and_on(tags, version):
    if "00081010" not in tags.paths():
        tags.add(new_tag("StationName", "series"))
    one = made(StationName="Switch")
    tags.api.store(one.file)
    url, search = f"/{version}/extendedquerytags/StationName", "StationName=switch"
    off = tags.api.patch(url, json={"QueryStatus": "Disabled"})
    assert off.status_code == 200
    assert off.json() == tags.entry("00081010")
    assert off.json()["queryStatus"] == "disabled"
    answer = tags.api.read(f"/{version}/series?{search}")
    assert answer.status_code == 400
    assert answer.text == "Query is disabled on specified attribute 'StationName'."
    on = tags.api.patch(url, json={"queryStatus": "ENABLED"})
    assert on.json()["queryStatus"] == "enabled"
    query = f"{search}&StudyInstanceUID={one.study}"
    assert len(tags.api.search(f"/{version}/series?{query}")) == 1


@covers("11.2.5", "1.2.6")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"queryStatus": "off"},
            'The value is not valid. It need to be one of "Disabled","Enabled".',
        ),
        ({"queryStatus": 1}, "one of"),
        ({}, "one of"),
        ([], "must be a JSON object"),
        (
            {"level": "study"},
            (
                "The field 'level' in request body is invalid: The field is not supported:"
                ' "level"'
            ),
        ),
        ({"queryStatus": "enabled", "x": 1}, "The field 'x' in request body"),
    ],
)
def test_nothing_else_of_a_tag_can_be_changed(tags, body, text):
    if "00081010" not in tags.paths():
        tags.add(new_tag("StationName", "series"))
    answer = tags.api.patch(f"{TAGS}/00081010", json=body)
    assert answer.status_code == 400
    assert text in answer.text


@covers("2.29", "11.2.6", "11.3.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_deleted_tag_is_gone_and_added_again_finds_only_what_is_there_now(
    tags, version
):
    kept, deleted = made(ProtocolName="Old"), made(ProtocolName="Old")
    tags.api.store(kept.file, deleted.file)
    tags.add(new_tag("ProtocolName", "series"), version=version)
    path = "ProtocolName=old"
    mine = {kept.series, deleted.series}

    def found() -> set[str]:
        rows = tags.api.search(f"/v2/series?{path}&limit=200")
        return mine & {row["0020000E"]["Value"][0] for row in rows}

    assert found() == mine
    url = f"/{version}/extendedquerytags/00181030"
    answer = tags.api.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert tags.api.delete(url).status_code == 404
    assert "is not queryable" in tags.api.read(f"/v2/series?{path}").text
    assert tags.api.delete(f"/v2{deleted.study_path}").status_code == 204
    tags.add(new_tag("ProtocolName", "series"))
    assert found() == {kept.series}
    assert tags.delete("ProtocolName") == 204


@covers("1.3.7", "11.2.2")
def test_there_are_no_tags_of_a_partition(partitioned):
    assert partitioned.get("/v2/partitions/one/extendedquerytags").status_code == 404


# --- errors --------------------------------------------------------------------------


def of_age(age: str, **values: object) -> object:
    return made(PatientAge=age, **values)


@covers("11.3.4", "11.3.5", "11.2.1", "11.2.4", "11.2.7", "8.8.4", "2.30", "8.9.3")
def test_values_that_cannot_be_indexed_are_errors_and_switch_queries_off(serve):
    running = serve()
    with Api(running.url) as api:
        tags = Tags(api)
        right, absent = made(PatientAge="040Y"), made()
        wrong = [made(PatientAge=age) for age in ("40Y", "forty", "4 years")]
        # Version 1 checks core attributes only, so it takes ages in any form.
        for one in (right, absent, *wrong):
            assert api.store(one.file, path="/v1/studies").status_code == 200
        tags.add(new_tag(NAME, "study"))

        entry = tags.entry(NAME)
        assert entry["status"] == "ready"
        assert entry["queryStatus"] == "disabled"
        href = f"{str(api.base_url).rstrip('/')}/v2/extendedquerytags/{AGE}/errors"
        assert entry["errors"] == {"count": 3, "href": href}
        errors = tags.errors(NAME)
        assert {error["sopInstanceUid"] for error in errors} == {w.sop for w in wrong}
        for error in errors:
            assert error.keys() == {
                "partitionName",
                "studyInstanceUid",
                "seriesInstanceUid",
                "sopInstanceUid",
                "createdTime",
                "errorMessage",
            }
            assert error["partitionName"] == "Microsoft.Default"
            assert error["errorMessage"] == "Value length is not expected."
        times = [datetime.fromisoformat(error["createdTime"]) for error in errors]
        assert times == sorted(times)
        pages = [tags.errors(AGE, f"?limit=1&offset={n}") for n in range(4)]
        assert [len(page) for page in pages] == [1, 1, 1, 0]
        assert sorted(page[0]["sopInstanceUid"] for page in pages[:3]) == sorted(
            w.sop for w in wrong
        )
        assert api.get(f"{TAGS}/{AGE}/errors?limit=201").status_code == 400

        for key in (NAME, AGE):
            assert api.read(f"/v2/studies?{key}=040Y").text == (
                f"Query is disabled on specified attribute '{key}'."
            )
        assert tags.set_queries(AGE, "enabled").json()["queryStatus"] == "enabled"
        for version in VERSIONS:
            answer = api.read(f"/{version}/studies?{NAME}=040y")
            assert answer.status_code == 200
            assert answer.headers["erroneous-dicom-attributes"] == NAME
            nothing = api.read(f"/{version}/instances?{AGE}=041Y")
            assert nothing.status_code == 204
            assert nothing.headers["erroneous-dicom-attributes"] == AGE
        other = api.read(f"/v2/studies?StudyInstanceUID={right.study}")
        assert "erroneous-dicom-attributes" not in other.headers

        tags.set_queries(AGE, "disabled")
        assert api.delete(f"/v2{wrong[0].path}").status_code == 204
        assert tags.entry(AGE)["errors"]["count"] == 2
        assert tags.entry(AGE)["queryStatus"] == "disabled"
        for one in wrong[1:]:
            assert api.delete(f"/v2{one.study_path}").status_code == 204
        assert "errors" not in tags.entry(AGE)
        assert tags.errors(AGE) == []
        tags.set_queries(AGE, "enabled")
        answer = api.read(f"/v2/studies?{NAME}=040y")
        assert "erroneous-dicom-attributes" not in answer.headers
    running.stop()


@covers("11.3.6")
@pytest.mark.parametrize("version", ["v1.0-prerelease", "v1"])
def test_version_1_refuses_what_breaks_the_rules_of_a_query_tag(tags, version):
    if "00181020" not in tags.paths():
        tags.add(new_tag("SoftwareVersions", "series"))
    long = made(SoftwareVersions="v" * 65)
    answer = tags.api.store(long.file, path=f"/{version}/studies")
    assert (answer.status_code, reason(answer)) == (409, 43264)
    [item] = failed_items(answer)
    assert "DICOM100: (0018,1020)" in str(item["00741048"])
    assert tags.api.store(long.file).status_code == 202
