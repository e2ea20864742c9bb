"""Sections 1 and 2: versions, JSON, Accept, UIDs, routes."""

from datetime import datetime

import pytest
from blackbox.api import DICOM_JSON, ONE_AS_STORED, first, made, reason
from blackbox.rules import covers

VERSIONS = ["v1.0-prerelease", "v1", "v2"]


@covers("1.1.1", "1.1.4")
@pytest.mark.parametrize("version", [*VERSIONS, "V2"])
def test_every_version_answers_and_names_all_of_them(api, version):
    answer = api.read(f"/{version}/studies?StudyInstanceUID=1.2.3.404")
    assert answer.status_code == 204
    assert answer.headers["api-supported-versions"] == "1.0-prerelease, 1, 2"


@covers("1.1.2")
@pytest.mark.parametrize("path", ["/studies", "/v9/studies", "/v2.1/studies", "/v/x"])
def test_without_a_known_version_it_is_404(api, path):
    assert api.read(path).status_code == 404


@covers("1.1.3")
def test_the_prerelease_behaves_as_v1(api):
    one = made(PatientID="")
    for version in ("v1.0-prerelease", "v1"):
        answer = api.store(one.file, path=f"/{version}/studies")
        assert (answer.status_code, reason(answer)) == (409, 43264)
    assert api.store(one.file).status_code == 202
    default = [
        api.search(f"/{version}/studies?StudyInstanceUID={one.study}")[0].keys()
        for version in ("v1.0-prerelease", "v1", "v2")
    ]
    assert default[0] == default[1] != default[2]


@covers("1.2.1", "1.2.2", "1.2.5")
def test_plain_json_is_camel_case_without_nulls_and_times_have_an_offset(api):
    one = made()
    api.store(one.file)
    entry = api.read("/v2/changefeed/latest?includeMetadata=false").json()
    assert all(name[0].islower() and value is not None for name, value in entry.items())
    assert (entry["action"], entry["state"]) == ("Create", "Current")
    assert datetime.fromisoformat(entry["timestamp"]).utcoffset() is not None


@covers("1.2.3", "1.2.4")
def test_dicom_json_has_upper_case_keys_numbers_and_name_objects(api):
    one = made(
        PatientName="Yamada^Tarou=山田^太郎",
        PatientWeight="72.5",
        InstanceNumber=7,
        SeriesNumber="",
    )
    api.store(one.file)
    [metadata] = api.metadata(f"/v2{one.path}")
    assert all(len(key) == 8 and key == key.upper() for key in metadata)
    assert metadata["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}],
    }
    assert metadata["00101030"] == {"vr": "DS", "Value": [72.5]}
    assert metadata["00200013"] == {"vr": "IS", "Value": [7]}
    assert metadata["00200011"] == {"vr": "IS"}


# --- Accept --------------------------------------------------------------------------

FILTERED = ["/studies", "/studies/1.2/metadata", "/studies/1.2/series"]
TAKEN = [
    DICOM_JSON,
    "Application/DICOM+JSON; q=0.1; x=y",
    "application/json",
    "application/*",
    "*/*",
    "image/png, */*;q=0.1",
]
REFUSED = ["", "nonsense", "application/dicom", "application/data", "image/*", ",;"]


@covers("1.3.1", "3.1")
@pytest.mark.parametrize("path", FILTERED)
def test_dicom_json_needs_an_accept_header_that_can_be_read(api, path):
    answers = [api.get(f"/v2{path}")]
    answers += [api.read(f"/v2{path}", bad) for bad in REFUSED]
    assert {(a.status_code, a.content) for a in answers} == {(406, b"")}


@covers("1.3.1", "6.1.2")
@pytest.mark.parametrize("accept", REFUSED)
def test_a_store_needs_an_accept_header_too_and_stores_nothing_without(api, accept):
    one = made()
    answer = api.store(one.file, accept=accept)
    assert (answer.status_code, answer.content) == (406, b"")
    assert api.search(f"/v2/studies?StudyInstanceUID={one.study}") == []


@covers("1.3.2", "6.1.2")
@pytest.mark.parametrize("accept", TAKEN)
def test_names_suffix_and_wildcards_cover_dicom_json(api, accept):
    one = made()
    answers = [
        api.store(one.file, accept=accept),
        api.read(f"/v2/studies?StudyInstanceUID={one.study}", accept),
        api.read(f"/v2{one.path}/metadata", accept),
    ]
    assert {a.status_code for a in answers} == {200}
    assert {a.headers["content-type"] for a in answers} == {DICOM_JSON}


@covers("1.3.3")
@pytest.mark.parametrize("path", ["/studies/not-a-uid/metadata", "/studies/x/series"])
def test_accept_is_checked_before_uids(api, path):
    assert api.read(f"/v2{path}", "image/png").status_code == 406
    assert api.read(f"/v2{path}").status_code == 400
    assert api.read("/v2/studies/1.2.404/metadata", "image/png").status_code == 406
    assert api.read("/v2/studies/1.2.404/metadata").status_code == 404


@covers("1.3.4")
@pytest.mark.parametrize("suffix", ["study_path", "series_path", "path", "frames"])
def test_files_and_frames_need_an_accept_header(api, suffix):
    one = made(frames=1)
    api.store(one.file)
    path = f"{one.path}/frames/1" if suffix == "frames" else getattr(one, suffix)
    answer = api.get(f"/v2{path}")
    assert answer.status_code == 406
    assert answer.text


@covers("1.3.5")
def test_rendering_without_accept_gives_a_jpeg(api):
    one = made(frames=1)
    api.store(one.file)
    answer = api.get(f"/v2{one.path}/rendered")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"


@covers("1.3.6", "9.5")
def test_delete_feed_and_partitions_do_not_look_at_accept(api, partitioned):
    one = made()
    api.store(one.file)
    assert api.read("/v2/changefeed", "image/png").status_code == 200
    assert api.get("/v2/changefeed/latest").status_code == 200
    assert partitioned.read("/v2/partitions", "image/png").status_code == 200
    gone = api.delete(f"/v2{one.study_path}", headers={"Accept": "image/png"})
    assert (gone.status_code, gone.content) == (204, b"")


# --- UIDs ----------------------------------------------------------------------------

BAD_UIDS = ["1." * 32 + "1", "1.2.a", "1-2", "1|2", "1.2.", "1."]


@covers("1.4.1", "7.2.1", "9.4")
@pytest.mark.parametrize("uid", BAD_UIDS)
def test_what_is_no_uid_is_400_in_every_place_of_every_path(api, uid):
    for path in (
        f"/studies/{uid}",
        f"/studies/1/series/{uid}",
        f"/studies/1/series/2/instances/{uid}",
        f"/studies/{uid}/series/2/instances/3",
    ):
        assert api.read(f"/v2{path}", "*/*").status_code == 400
        assert api.read(f"/v2{path}/metadata").status_code == 400
        assert api.delete(f"/v2{path}").status_code == 400
    assert api.store(made().file, path=f"/v2/studies/{uid}").status_code == 400


@covers("1.4.2")
@pytest.mark.parametrize("uid", ["0.1", "00.01.1", "1..2", "9" * 64])
def test_leading_zeros_repeated_dots_and_64_characters_are_taken(api, uid):
    assert api.read(f"/v2/studies/{uid}", "*/*").status_code == 404


@covers("1.4.3", "1.4.4", "6.2.3")
def test_trailing_spaces_of_uids_make_no_difference(api):
    spaced = made()
    study = spaced.study + " " * (1 + len(spaced.study) % 2)
    spaced = made(spaced, StudyInstanceUID=study, SOPInstanceUID=spaced.sop + " ")
    assert api.store(spaced.file).status_code in {200, 202}
    plain = spaced.path.replace(" ", "")
    for path in (plain, plain + "%20", plain.replace("/series", "%20/series")):
        answer = api.read(f"/v2{path}", ONE_AS_STORED)
        assert answer.status_code == 200
        assert answer.content == spaced.file
    for space in ("", "  "):
        again = made(
            StudyInstanceUID=study.strip(),
            SeriesInstanceUID=spaced.series,
            SOPInstanceUID=spaced.sop.strip() + space,
        )
        assert reason(api.store(again.file, path=f"/v2/studies/{study}")) == 45070


# --- everywhere ----------------------------------------------------------------------


@covers("1.5.1", "3.2")
@pytest.mark.parametrize("query", ["PatientName=<b>", "x=%3C", "limit=1&y=%3cscript"])
def test_a_query_string_with_an_angle_bracket_is_400(api, query):
    for path in ("studies", "changefeed"):
        answer = api.read(f"/v2/{path}?{query}")
        assert answer.status_code == 400
        assert "invalid characters" in answer.text


@covers("1.5.2")
def test_names_of_parameters_have_no_case_keywords_do(api):
    for query in ("limit=1", "Limit=1", "LIMIT=1&OffSet=2&FuzzyMatching=TRUE"):
        assert api.read(f"/v2/studies?{query}").status_code in {200, 204}
    assert api.read("/v2/studies?patientid=1").status_code == 400
    assert len(api.read("/v1/changefeed?LIMIT=1&INCLUDEMETADATA=false").json()) <= 1


@covers("1.5.3", "3.10")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("studies?limit=0", "The field Limit must be between 1 and 200."),
        ("changefeed?limit=201", "The field Limit must be between 1 and 200."),
    ],
)
def test_a_bad_parameter_is_400_and_named(api, path, text):
    answer = api.read(f"/v2/{path}")
    assert answer.status_code == 400
    assert answer.text == f"The query parameter 'Limit' is invalid. {text}"


# --- routes --------------------------------------------------------------------------

READ = {
    "/studies?StudyInstanceUID={study}": DICOM_JSON,
    "/studies/{study}": "*/*",
    "/studies/{study}/metadata": DICOM_JSON,
    "/studies/{study}/series": DICOM_JSON,
    "/studies/{study}/instances": DICOM_JSON,
    "/studies/{study}/series/{series}": "*/*",
    "/studies/{study}/series/{series}/metadata": DICOM_JSON,
    "/studies/{study}/series/{series}/instances": DICOM_JSON,
    "/studies/{study}/series/{series}/instances/{sop}": "*/*",
    "/studies/{study}/series/{series}/instances/{sop}/metadata": DICOM_JSON,
    "/studies/{study}/series/{series}/instances/{sop}/rendered": "image/png",
    "/studies/{study}/series/{series}/instances/{sop}/frames/1": "*/*",
    "/studies/{study}/series/{series}/instances/{sop}/frames/1/rendered": "image/png",
    "/series?SeriesInstanceUID={series}": DICOM_JSON,
    "/instances?SOPInstanceUID={sop}": DICOM_JSON,
    "/changefeed?limit=1": "*/*",
    "/changefeed/latest": "*/*",
    "/api.yaml": "*/*",
    "/api.json": "*/*",
}


@pytest.fixture(scope="module")
def one_stored(api):
    one = made(frames=1)
    assert api.store(one.file).status_code == 200
    return one


@covers("2.3", "2.4", "2.6", "2.7", "2.8", "2.9", "2.11", "2.12", "2.13", "2.15")
@covers("2.16", "2.17", "2.18", "2.19", "2.20", "2.23", "2.24", "2.40", "D5.2", "D5.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("template", READ)
def test_every_route_that_reads_answers_get_and_head(
    api, one_stored, template, version
):
    path = template.format(**vars(one_stored))
    headers = {"Accept": READ[template]}
    answer = api.get(f"/{version}{path}", headers=headers)
    assert answer.status_code == 200
    assert answer.content
    assert len(answer.headers["x-ms-request-id"]) == 32
    head = api.head(f"/{version}{path}", headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    assert (
        head.headers["content-type"].split(";")[0]
        == (answer.headers["content-type"].split(";")[0])
    )


@covers("2.1", "2.2", "2.5", "2.10", "2.14", "9.1", "9.2", "9.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_route_that_writes_answers(api, version):
    one = made()
    for path in ("/studies", one.study_path):
        for scope in (one.study_path, one.series_path, one.path):
            answer = api.store(one.file, path=f"/{version}{path}")
            assert answer.status_code == 200
            assert first(answer.json()["00081199"]["Value"][0]["00081155"]) == one.sop
            assert api.delete(f"/{version}{scope}").status_code == 204


@covers("2.43")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/studies/1/series/2/instances/3/thumbnail"),
        ("GET", "/v2/studies/1/thumbnail"),
        ("GET", "/v2/studies/1/rendered"),
        ("GET", "/v2/studies/1/series/2/rendered"),
        ("GET", "/v2/series/2/instances"),
        ("POST", "/v2/workitems/1/subscribers/AE"),
        ("GET", "/v2/wado?requestType=WADO"),
        ("GET", "/wado?requestType=WADO"),
        ("GET", "/v2/patients"),
        ("GET", "/v2"),
    ],
)
def test_what_there_is_not_is_404_or_405(api, method, path):
    assert api.request(method, path).status_code in {404, 405}


@covers("2.44", "D6.10")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v2/studies/1/series/2/instances/3", "DELETE, GET, HEAD"),
        ("POST", "/v2/studies/1/series/2/instances/3", "DELETE, GET, HEAD"),
        ("DELETE", "/v2/studies", "GET, HEAD, POST"),
        ("PATCH", "/v2/changefeed", "GET, HEAD"),
        ("DELETE", "/health/check", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_has_not_is_405_and_says_which_it_has(
    api, method, path, allow
):
    answer = api.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow


@covers("D5.4")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_json_over_a_kibibyte_is_compressed_on_request(api, one_stored, coding):
    for path in (f"/v2{one_stored.path}/metadata", "/v2/api.json"):
        plain = api.read(path)
        assert "content-encoding" not in plain.headers
        packed = api.read(path, accept_encoding=coding)
        assert packed.headers["content-encoding"] == coding
        assert "Accept-Encoding" in packed.headers["vary"]
        assert packed.content == plain.content
        assert int(packed.headers["content-length"]) < len(plain.content)
