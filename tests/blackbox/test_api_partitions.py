"""Section 4: data partitions, and every route in its form with one."""

import itertools
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from blackbox.api import AS_STORED, DICOM_JSON, ONE_AS_STORED, Api, first, made, reason
from blackbox.rules import covers

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
_run = secrets.token_hex(4)
_count = itertools.count(1)


def new_name():
    return f"part-{_run}.{next(_count)}"


def paths_of(one):
    """Every path of data that is read, and what the client accepts there."""
    return {
        "/studies": DICOM_JSON,
        "/series": DICOM_JSON,
        "/instances": DICOM_JSON,
        f"{one.study_path}/series": DICOM_JSON,
        f"{one.study_path}/instances": DICOM_JSON,
        f"{one.series_path}/instances": DICOM_JSON,
        one.study_path: AS_STORED,
        one.series_path: AS_STORED,
        one.path: ONE_AS_STORED,
        f"{one.study_path}/metadata": DICOM_JSON,
        f"{one.series_path}/metadata": DICOM_JSON,
        f"{one.path}/metadata": DICOM_JSON,
        f"{one.path}/rendered": "image/png",
        f"{one.path}/frames/1": "application/octet-stream",
        f"{one.path}/frames/1/rendered": "image/jpeg",
        f"{one.path}/bulkdata/7FE00010": "application/octet-stream",
    }


def requests_of(one):
    """Method, path and Accept of every request on data."""
    for path, accept in paths_of(one).items():
        yield "GET", path, accept
        yield "HEAD", path, accept
    for path in ("/studies", one.study_path, "/studies/$bulkUpdate"):
        yield "POST", path, DICOM_JSON
    for path in (one.path, one.series_path, one.study_path):
        yield "DELETE", path, "*/*"


def send(api, method, path, accept, one):
    headers = {"Accept": accept}
    body = None
    if path.endswith("$bulkUpdate"):
        headers["Content-Type"] = "application/json"
        body = json.dumps(
            {
                "studyInstanceUids": [one.study],
                "changeDataset": {"00100010": {"vr": "PN", "Value": []}},
            }
        ).encode()
    elif method == "POST":
        headers["Content-Type"] = "application/dicom"
        body = one.file
    return api.request(method, path, headers=headers, content=body)


def versions_of(path):
    return ["v2"] if path.endswith("$bulkUpdate") else VERSIONS


# --- switched off --------------------------------------------------------------------


@covers("4.1", "4.4", "3.2")
def test_off_a_path_with_a_partition_is_400(api):
    one = made(frames=1)
    for method, path, accept in requests_of(one):
        for version in versions_of(path):
            whole = f"/{version}/partitions/Microsoft.Default{path}"
            answer = send(api, method, whole, accept, one)
            assert (method, whole, answer.status_code) == (method, whole, 400)
            if method != "HEAD":
                assert "disabled" in answer.text
    assert api.search(f"/v2/studies?StudyInstanceUID={one.study}") == []


@covers("4.1", "4.9")
@pytest.mark.parametrize("version", VERSIONS)
def test_off_there_is_no_list_of_partitions(api, version):
    answer = api.read(f"/{version}/partitions")
    assert answer.status_code == 400
    assert "disabled" in answer.text


# --- switched on ---------------------------------------------------------------------


@covers("4.5", "3.2")
def test_on_a_data_path_without_a_partition_is_400(partitioned):
    one = made(frames=1)
    for method, path, accept in requests_of(one):
        for version in versions_of(path):
            answer = send(partitioned, method, f"/{version}{path}", accept, one)
            assert (method, path, answer.status_code) == (method, path, 400)
            if method != "HEAD":
                assert "partition" in answer.text


@covers("4.6", "3.2")
def test_an_unknown_partition_is_400_for_all_but_a_store(partitioned):
    one = made(frames=1)
    name = new_name()
    for method, path, accept in requests_of(one):
        if method == "POST" and not path.endswith("$bulkUpdate"):
            continue
        for version in versions_of(path):
            whole = f"/{version}/partitions/{name}{path}"
            answer = send(partitioned, method, whole, accept, one)
            assert (method, path, answer.status_code) == (method, path, 400)
            if method != "HEAD":
                assert "does not exist" in answer.text
    assert name not in names(partitioned)


def names(api, version="v2"):
    answer = api.read(f"/{version}/partitions", "application/json")
    assert answer.status_code == 200
    return [row["partitionName"] for row in answer.json()]


@covers("2.3", "2.4", "2.6", "2.7", "2.8", "2.9", "2.11", "2.12", "2.13", "2.15")
@covers("2.16", "2.17", "2.18", "2.19", "2.20", "4.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_route_that_reads_answers_in_its_partition(partitioned, version):
    one = made(frames=1)
    base = f"/{version}/partitions/{new_name()}"
    assert partitioned.store(one.file, path=f"{base}/studies").status_code == 200
    for path, accept in paths_of(one).items():
        answer = partitioned.read(base + path, accept)
        assert (path, answer.status_code) == (path, 200)
        head = partitioned.head(base + path, headers={"Accept": accept})
        assert (path, head.status_code, head.content) == (path, 200, b"")
    assert partitioned.read(f"{base}{one.path}", ONE_AS_STORED).content == one.file


@covers("2.1", "2.2", "2.5", "2.10", "2.14", "9.1", "9.2", "9.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_route_that_writes_answers_in_its_partition(partitioned, version):
    one = made()
    base = f"/{version}/partitions/{new_name()}"
    for path in ("/studies", one.study_path):
        for scope in (one.study_path, one.series_path, one.path):
            answer = partitioned.store(one.file, path=base + path)
            assert (answer.status_code, reason(answer)) == (200, None)
            assert partitioned.delete(base + scope).status_code == 204
            assert partitioned.read(base + one.path, "*/*").status_code == 404


@covers("4.2", "4.9", "2.32", "1.2.5")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_default_partition_is_always_there(partitioned, version):
    listed = partitioned.read(f"/{version}/partitions", "application/json").json()
    assert set(listed[0]) == {"partitionKey", "partitionName", "createdDate"}
    assert listed[0]["partitionKey"] == 1
    assert listed[0]["partitionName"] == "Microsoft.Default"
    assert datetime.fromisoformat(listed[0]["createdDate"]).utcoffset() is not None
    base = f"/{version}/partitions/Microsoft.Default"
    assert partitioned.search(f"{base}/studies?StudyInstanceUID=1.2.404") == []
    one = made()
    assert partitioned.store(one.file, path=f"{base}/studies").status_code == 200
    assert partitioned.read(base + one.path, ONE_AS_STORED).content == one.file
    keys = [row["partitionKey"] for row in listed]
    assert keys == sorted(set(keys))


GOOD_NAMES = ["a", "A-b_c.D9", "0", "-", "_", "x" * 64, "...", "microsoft.default2"]
BAD_NAMES = ["x" * 65, "a b", "%20", "ä", "a%2Fb", "a~", "a$", "a%5Cb", "a:b", "%00"]
BAD_NAMES += ["%2e", "%2E%2E"]


@covers("4.3")
@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_have_1_to_64_letters_digits_dots_hyphens_underscores(partitioned, name):
    one = made()
    path = f"/v2/partitions/{name}"
    assert partitioned.store(one.file, path=f"{path}/studies").status_code == 200
    assert partitioned.read(path + one.path, ONE_AS_STORED).content == one.file
    assert names(partitioned).count(name) == 1


@covers("4.3", "3.2")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_any_other_name_is_400(partitioned, name):
    path = f"/v2/partitions/{name}/studies"
    before = names(partitioned)
    answer = partitioned.store(made().file, path=path)
    assert answer.status_code == 400
    assert partitioned.read(path).status_code == 400
    assert names(partitioned) == before


@covers("4.3", "4.10")
def test_names_that_differ_in_case_are_one_partition(partitioned):
    one, name = made(), new_name()
    upper = f"/v2/partitions/{name.upper()}"
    assert partitioned.store(one.file, path=f"{upper}/studies").status_code == 200
    again = partitioned.store(one.file, path=f"/v2/partitions/{name}/studies")
    assert reason(again) == 45070
    assert name.upper() in names(partitioned)
    assert name not in names(partitioned)


@covers("4.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_makes_its_partition_even_when_it_stores_nothing_else(
    partitioned, version
):
    name = new_name()
    path = f"/{version}/partitions/{name}/studies"
    answer = partitioned.store(made(PatientID=None).file, path=path)
    assert answer.status_code == 409
    assert names(partitioned).count(name) == 1
    assert partitioned.search(path) == []


@covers("4.7")
def test_two_makers_at_once_get_the_same_partition(partitioned):
    name = new_name()
    path = f"/v2/partitions/{name}"
    ones = [made() for _ in range(8)]

    def store(one):
        with Api(str(partitioned.base_url)) as client:
            return client.store(one.file, path=f"{path}/studies").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(store, ones)) == {200}
    assert names(partitioned).count(name) == 1
    found = partitioned.search(f"{path}/studies")
    assert {first(row["0020000D"]) for row in found} == {one.study for one in ones}


@covers("4.8", "4.6")
def test_that_a_partition_is_unknown_is_not_remembered(partitioned):
    name = new_name()
    path = f"/v2/partitions/{name}/studies"
    for _ in range(3):
        assert partitioned.read(path).status_code == 400
    assert partitioned.store(made().file, path=path).status_code == 200
    assert len(partitioned.search(path)) == 1


@covers("4.9", "2.32", "1.3.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_partitions_are_listed_in_the_order_they_were_made(partitioned, version):
    made_now = [new_name() for _ in range(3)]
    for name in made_now:
        partitioned.store(made().file, path=f"/v2/partitions/{name}/studies")
    answer = partitioned.get(f"/{version}/partitions")
    assert answer.headers["content-type"] == "application/json"
    assert names(partitioned, version)[-3:] == made_now
    keys = [row["partitionKey"] for row in answer.json()[-3:]]
    assert keys == list(range(keys[0], keys[0] + 3))


@covers("4.10")
def test_partitions_do_not_see_each_other(partitioned):
    one = made(PatientName="Left^One")
    other = made(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        PatientName="Right^One",
    )
    left, right = (f"/v2/partitions/{new_name()}" for _ in range(2))
    for base, each in ((left, one), (right, other)):
        assert partitioned.store(each.file, path=f"{base}/studies").status_code == 200
    for base, each, name in ((left, one, "Left^One"), (right, other, "Right^One")):
        assert partitioned.read(base + one.path, ONE_AS_STORED).content == each.file
        [row] = partitioned.search(f"{base}/studies")
        assert first(row["00100010"]) == {"Alphabetic": name}
        assert len(partitioned.search(f"{base}/instances")) == 1
    assert partitioned.delete(left + one.study_path).status_code == 204
    assert partitioned.search(f"{left}/studies") == []
    assert len(partitioned.search(f"{right}/studies")) == 1


@covers("4.10", "10.10", "10.12")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_change_feed_sees_all_partitions_and_names_them(partitioned, version):
    one = made(frames=1)
    name = new_name()
    partitioned.store(one.file, path=f"/v2/partitions/{name}/studies")
    entry = partitioned.read(f"/{version}/changefeed/latest").json()
    assert (entry["partitionName"], entry["sopInstanceUid"]) == (name, one.sop)
    url = entry["metadata"]["7FE00010"]["BulkDataURI"]
    assert f"/{version}/partitions/{name}{one.path}/bulkdata/" in url
    assert partitioned.get(url, headers={"Accept": "*/*"}).status_code == 200


@covers("4.11", "D5.1", "D6.8")
@pytest.mark.parametrize("version", VERSIONS)
def test_urls_in_answers_name_the_partition(partitioned, version):
    one = made(frames=1)
    name = new_name()
    base = f"/{version}/partitions/{name}"
    root = str(partitioned.base_url).rstrip("/")
    answer = partitioned.store(one.file, path=base + one.study_path).json()
    assert first(answer["00081190"]) == f"{root}{base}{one.study_path}"
    [stored] = answer["00081199"]["Value"]
    assert first(stored["00081190"]) == f"{root}{base}{one.path}"
    [metadata] = partitioned.metadata(base + one.path)
    bulk = metadata["7FE00010"]["BulkDataURI"]
    assert bulk == f"{root}{base}{one.path}/bulkdata/7FE00010"
    partitioned.store(made().file, path=f"{base}/studies")
    page = partitioned.read(f"{base}/studies?limit=1")
    assert page.headers["link"].startswith(f"<{root}{base}/studies?")


@covers("4.13", "D6.10")
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "POST"])
def test_partitions_can_be_neither_deleted_nor_renamed(partitioned, method):
    name = new_name()
    partitioned.store(made().file, path=f"/v2/partitions/{name}/studies")
    assert partitioned.request(method, f"/v2/partitions/{name}").status_code == 404
    assert partitioned.request(method, "/v2/partitions").status_code == 405
    assert name in names(partitioned)


# --- switched on and off -------------------------------------------------------------


@covers("4.12", "4.2", "5.5.2")
def test_partitions_stay_on_once_there_is_a_second_one(serve):
    one, two = made(), made()
    running = serve()
    with Api(running.url) as api:
        assert api.store(one.file).status_code == 200
    running.stop()
    running = serve(data=running.data, DICOM_DATA_PARTITIONS="true")
    with Api(running.url) as api:
        default = "/v2/partitions/Microsoft.Default"
        assert api.read(default + one.path, ONE_AS_STORED).content == one.file
        assert names(api) == ["Microsoft.Default"]
    running.stop()
    running = serve(data=running.data)
    with Api(running.url) as api:
        assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file
    running.stop()
    running = serve(data=running.data, DICOM_DATA_PARTITIONS="true")
    with Api(running.url) as api:
        path = "/v2/partitions/second"
        assert api.store(two.file, path=f"{path}/studies").status_code == 200
    running.stop()
    running = serve(data=running.data)
    with Api(running.url) as api:
        for path in ("/health/check", "/v2/studies", f"/v2{one.path}"):
            answer = api.read(path, "*/*")
            assert answer.status_code == 503
            assert "DICOM_DATA_PARTITIONS cannot be switched off" in answer.text
    running.stop()
