"""Section 9: delete."""

import pytest
from blackbox.api import DICOM_JSON, ONE_AS_STORED, first, made, reason
from blackbox.rules import covers

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
LEVELS = ["study", "series", "instance"]


def store(api, *files):
    answer = api.store(*(one.file for one in files))
    assert answer.status_code == 200, answer.text


def path_of(one, level):
    return {"study": one.study_path, "series": one.series_path, "instance": one.path}[
        level
    ]


def found(api, path):
    """SOP Instance UIDs of what is there, by search and by retrieval alike."""
    searched = {first(row["00080018"]) for row in api.search(f"{path}/instances")}
    answer = api.read(f"{path}/metadata")
    assert answer.status_code == (200 if searched else 404)
    if searched:
        assert {first(row["00080018"]) for row in answer.json()} == searched
    return searched


@pytest.fixture
def four(api):
    """Three instances of a study, two of them of one series, and one of another."""
    one = made(frames=1)
    beside = made(one, same_series=True)
    other_series = made(one)
    other_study = made()
    store(api, one, beside, other_series, other_study)
    return one, beside, other_series, other_study


@covers("9.1", "2.5", "9.5")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_study_goes_whole_and_alone(api, four, version):
    one, _, _, other_study = four
    answer = api.delete(f"/{version}{one.study_path}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert found(api, f"/{version}{one.study_path}") == set()
    assert found(api, f"/{version}{other_study.study_path}") == {other_study.sop}


@covers("9.2", "2.10", "9.5")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_series_goes_whole_and_alone(api, four, version):
    one, _, other_series, _ = four
    answer = api.delete(f"/{version}{one.series_path}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert found(api, f"/{version}{one.study_path}") == {other_series.sop}


@covers("9.3", "2.14", "9.5")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_goes_alone(api, four, version):
    one, beside, other_series, _ = four
    answer = api.delete(f"/{version}{one.path}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert found(api, f"/{version}{one.study_path}") == {beside.sop, other_series.sop}


@covers("9.1", "9.2", "9.3", "9.8", "3.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_there_or_not_any_more_is_404_and_named(api, level, version):
    one = made()
    path = f"/{version}{path_of(one, level)}"
    answer = api.delete(path)
    assert answer.status_code == 404
    assert answer.text == f"The specified {level} cannot be found."
    store(api, one)
    assert api.delete(path).status_code == 204
    again = api.delete(path)
    assert again.status_code == 404
    assert again.text == f"The specified {level} cannot be found."


@covers("9.2", "9.3", "3.3")
def test_a_series_or_instance_of_another_study_is_404(api, four):
    one, _, other_series, other_study = four
    for path in (
        f"{other_study.study_path}/series/{one.series}",
        f"{other_study.study_path}/series/{one.series}/instances/{one.sop}",
        f"{other_series.series_path}/instances/{one.sop}",
    ):
        assert api.delete(f"/v2{path}").status_code == 404
    assert len(found(api, f"/v2{one.study_path}")) == 3


@covers("9.4", "3.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "path",
    [
        "studies/1.a",
        "studies/1.a/series/1",
        "studies/1/series/1.a",
        "studies/1/series/1.a/instances/1",
        "studies/1/series/1/instances/1.a",
    ],
)
def test_a_malformed_uid_is_400(api, path, version):
    answer = api.delete(f"/{version}/{path}")
    assert answer.status_code == 400
    assert "'1.a'" in answer.text


@covers("9.5", "1.3.6")
@pytest.mark.parametrize("accept", [None, "", "image/png", "nonsense"])
def test_accept_does_not_matter(api, accept):
    one = made()
    store(api, one)
    headers = {} if accept is None else {"Accept": accept}
    answer = api.delete(f"/v2{one.study_path}", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


@covers("9.6")
@pytest.mark.parametrize("level", LEVELS)
def test_it_is_gone_at_once_for_retrieve_and_search(api, level):
    one = made(frames=2)
    store(api, one)
    reads = {
        one.path: ONE_AS_STORED,
        f"{one.path}/frames/1": "application/octet-stream",
        f"{one.path}/rendered": "image/png",
        f"{one.path}/metadata": DICOM_JSON,
        one.study_path: "*/*",
    }
    for path, accept in reads.items():
        assert api.read(f"/v2{path}", accept).status_code == 200
    assert api.delete(f"/v2{path_of(one, level)}").status_code == 204
    for path, accept in reads.items():
        assert (path, api.read(f"/v2{path}", accept).status_code) == (path, 404)
    for path in (
        f"studies?StudyInstanceUID={one.study}",
        f"series?SeriesInstanceUID={one.series}",
        f"instances?SOPInstanceUID={one.sop}",
        f"{one.study_path[1:]}/series",
    ):
        assert api.search(f"/v2/{path}") == []


@covers("9.7")
def test_the_last_instance_takes_series_and_study_with_it(api, four):
    one, beside, other_series, _ = four
    for gone, series, studies in (
        (one, {one.series, other_series.series}, 1),
        (beside, {other_series.series}, 1),
        (other_series, set(), 0),
    ):
        assert api.delete(f"/v2{gone.path}").status_code == 204
        rows = api.search(f"/v2{one.study_path}/series")
        assert {first(row["0020000E"]) for row in rows} == series
        found_studies = api.search(f"/v2/studies?StudyInstanceUID={one.study}")
        assert len(found_studies) == studies
    assert api.delete(f"/v2{one.series_path}").status_code == 404
    assert api.delete(f"/v2{one.study_path}").status_code == 404


@covers("9.7")
def test_the_last_series_takes_the_study_with_it(api):
    one = made()
    store(api, one)
    assert api.delete(f"/v2{one.series_path}").status_code == 204
    assert api.delete(f"/v2{one.study_path}").status_code == 404
    assert api.search(f"/v2/studies?StudyInstanceUID={one.study}") == []


@covers("9.9", "3.5")
@pytest.mark.parametrize("level", LEVELS)
def test_what_was_deleted_can_be_stored_again(api, level):
    one = made(PatientName="First^One")
    store(api, one)
    assert reason(api.store(one.file)) == 45070
    assert api.delete(f"/v2{path_of(one, level)}").status_code == 204
    other = made(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        PatientName="Second^One",
    )
    store(api, other)
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == other.file
    [row] = api.search(f"/v2/studies?StudyInstanceUID={one.study}")
    assert first(row["00100010"]) == {"Alphabetic": "Second^One"}
    assert reason(api.store(one.file)) == 45070


@covers("9.1", "9.6", "10.13")
def test_a_study_of_more_instances_than_a_commit_holds_goes_whole(api):
    one = made()
    files = [one, *(made(one, same_series=True) for _ in range(119))]
    store(api, *files)
    before = api.read("/v1/changefeed/latest?includeMetadata=false").json()["sequence"]
    assert api.delete(f"/v2{one.study_path}").status_code == 204
    assert found(api, f"/v2{one.study_path}") == set()
    entries = [
        entry
        for offset in range(before, before + 300, 100)
        for entry in api.read(
            f"/v1/changefeed?offset={offset}&limit=100&includeMetadata=false"
        ).json()
        if entry["studyInstanceUid"] == one.study
    ]
    assert {entry["action"] for entry in entries} == {"Delete"}
    assert sorted(entry["sopInstanceUid"] for entry in entries) == sorted(
        each.sop for each in files
    )
