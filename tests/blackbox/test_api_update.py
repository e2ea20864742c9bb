"""Section 14: bulk update of patient and study attributes."""

import io
from typing import Any

import httpx
import pydicom
import pytest
from blackbox.api import AS_STORED, DICOM_JSON, Api, first, made, parts
from blackbox.operations import ended
from blackbox.rules import covers

NAME, ID = "00100010", "00100020"
NEW_NAME = {NAME: {"vr": "PN", "Value": [{"Alphabetic": "New^Name"}]}}
ORIGINAL = {"msdicom_request_original": "true"}
FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
ALL_36: dict[str, tuple[str, Any, str]] = {
    "00080050": ("SH", "ACC-2", "AccessionNumber"),
    "00080090": ("PN", {"Alphabetic": "Refer^Ring"}, "ReferringPhysicianName"),
    "00081030": ("LO", "Another description", "StudyDescription"),
    "00100010": ("PN", {"Alphabetic": "Other^Patient"}, "PatientName"),
    "00100020": ("LO", "P-2", "PatientID"),
    "00100021": ("LO", "Issuer", "IssuerOfPatientID"),
    "00100022": ("CS", "RFID", "TypeOfPatientID"),
    "00100030": ("DA", "19710203", "PatientBirthDate"),
    "00100032": ("TM", "101530", "PatientBirthTime"),
    "00100040": ("CS", "O", "PatientSex"),
    "00100200": ("CS", "NO", "QualityControlSubject"),
    "00101000": ("LO", "Other-1", "OtherPatientIDs"),
    "00101001": ("PN", {"Alphabetic": "Alias"}, "OtherPatientNames"),
    "00101005": ("PN", {"Alphabetic": "Birth^Name"}, "PatientBirthName"),
    "00101010": ("AS", "045Y", "PatientAge"),
    "00101020": ("DS", 1.75, "PatientSize"),
    "00101030": ("DS", 72.5, "PatientWeight"),
    "00101040": ("LO", "A street", "PatientAddress"),
    "00101060": ("PN", {"Alphabetic": "Mother^Birth"}, "PatientMotherBirthName"),
    "00101080": ("LO", "Rank", "MilitaryRank"),
    "00101081": ("LO", "Branch", "BranchOfService"),
    "00101090": ("LO", "Locator", "MedicalRecordLocator"),
    "00102150": ("LO", "Country", "CountryOfResidence"),
    "00102152": ("LO", "Region", "RegionOfResidence"),
    "00102154": ("SH", "555-0100", "PatientTelephoneNumbers"),
    "00102160": ("SH", "Group", "EthnicGroup"),
    "00102180": ("SH", "Engineer", "Occupation"),
    "001021F0": ("LO", "None", "PatientReligiousPreference"),
    "00104000": ("LT", "Some comments", "PatientComments"),
    "00102201": ("LO", "Dog", "PatientSpeciesDescription"),
    "00102292": ("LO", "Beagle", "PatientBreedDescription"),
    "00102295": ("LO", "Reg-1", "BreedRegistrationNumber"),
    "00102297": ("PN", {"Alphabetic": "Owner^Of"}, "ResponsiblePerson"),
    "00102298": ("CS", "OWNER", "ResponsiblePersonRole"),
    "00102299": ("LO", "Shelter", "ResponsibleOrganization"),
    "00403001": (
        "LO",
        "Secret",
        "ConfidentialityConstraintOnPatientDataDescription",
    ),
}


def update(
    api: Api, *studies: str, change: object = None, path: str = "/v2/studies"
) -> httpx.Response:
    body = {
        "studyInstanceUids": list(studies),
        "changeDataset": NEW_NAME if change is None else change,
    }
    return api.post(f"{path}/$bulkUpdate", json=body)


def files(api: Api, path: str, **headers: str) -> list[bytes]:
    answer = api.read(path, AS_STORED, **headers)
    assert answer.status_code == 200, answer.text
    return sorted(content for _, content in parts(answer))


def name_of(api: Api, path: str, **headers: str) -> set[str]:
    answer = api.read(f"{path}/metadata", DICOM_JSON, **headers)
    return {row[NAME]["Value"][0]["Alphabetic"] for row in answer.json()}


@pytest.fixture
def study(api):
    """Three instances in two series, the first with a frame."""
    one = made(frames=1, PatientName="Old^Name")
    two = made(one, same_series=True, PatientName="Old^Name")
    three = made(one, PatientName="Old^Name")
    assert api.store(one.file, two.file, three.file).status_code == 200
    return one, two, three


# --- the request ---------------------------------------------------------------------


@covers("2.21", "14.7")
def test_an_update_is_accepted_with_its_id_and_without_location(api, study):
    answer = update(api, study[0].study)
    assert answer.status_code == 202
    assert answer.headers.keys().isdisjoint({"location"})
    body = answer.json()
    assert body.keys() == {"id", "href"}
    root = str(api.base_url).rstrip("/")
    assert body["href"] == f"{root}/v2/operations/{body['id']}"
    operation = ended(api, answer)
    assert operation["operationId"] == body["id"]
    assert operation["type"] == "update"
    assert operation["status"] == "succeeded"
    assert operation["percentComplete"] == 100
    assert operation["results"] == {
        "studyProcessed": 1,
        "studyUpdated": 1,
        "studyFailed": 0,
        "instanceUpdated": 3,
    }
    of_version_1 = api.get(body["href"].replace("/v2/", "/v1/")).json()
    assert of_version_1["status"] == "completed"


@covers("14.1")
def test_operations_switched_off_refuse_the_update(special_operations):
    answer = update(special_operations, "1.2.3")
    assert answer.status_code == 400
    assert "disabled" in answer.text


@pytest.fixture(scope="module")
def special_operations(serve):
    running = serve(DICOM_OPERATIONS="false")
    with Api(running.url) as client:
        yield client
    running.stop()


@covers("14.2", "1.1.3")
@pytest.mark.parametrize("version", ["v1.0-prerelease", "v1"])
def test_version_1_has_no_update(api, version):
    assert update(api, "1.2.3", path=f"/{version}/studies").status_code == 404


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b'{"studyInstanceUids": ["1.2"]}',
    b'{"studyInstanceUids": ["1.2"], "changeDataset": {}}',
    b'{"studyInstanceUids": ["1.2"], "changeDataset": []}',
    b'{"changeDataset": {"00100020": {"vr": "LO", "Value": ["x"]}}}',
    b'{"studyInstanceUids": [], "changeDataset": {"00100020": {"vr": "LO"}}}',
    b'{"studyInstanceUids": "1.2", "changeDataset": {"00100020": {"vr": "LO"}}}',
    b'{"studyInstanceUids": ["x"], "changeDataset": {"00100020": {"vr": "LO"}}}',
    b'{"studyInstanceUids": [12], "changeDataset": {"00100020": {"vr": "LO"}}}',
    b'{"studyInstanceUids": [""], "changeDataset": {"00100020": {"vr": "LO"}}}',
]


@covers("14.3", "14.4", "3.2")
@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_body_that_is_not_what_it_must_be_is_400(api, body):
    answer = api.post_body("/v2/studies/$bulkUpdate", body, "application/json")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text


@covers("14.3")
def test_another_content_type_is_415(api):
    answer = api.post_body("/v2/studies/$bulkUpdate", b"{}", "text/csv")
    assert answer.status_code == 415


@covers("14.5")
def test_up_to_a_thousand_studies_can_be_named(api):
    uids = [f"1.2.840.404.{n}" for n in range(1001)]
    assert update(api, *uids).status_code == 400
    results = ended(api, update(api, *uids[:60]))["results"]
    assert results["studyProcessed"] == 60


@covers("14.6")
def test_all_attributes_that_cannot_be_changed_are_named(api, study):
    change = {
        "0020000E": {"vr": "UI", "Value": ["1.2"]},
        "00100030": {"vr": "DA", "Value": ["not a date"]},
        "00100040": {"vr": "LO", "Value": ["F"]},
        "00081140": {"vr": "SQ", "Value": []},
        "7FE00010": {"vr": "OW", "InlineBinary": "AAAA"},
        "00100020": {"vr": "LO", "Value": ["fine"]},
    }
    answer = update(api, study[0].study, change=change)
    assert answer.status_code == 400
    [(tag, element)] = answer.json().items()
    assert (tag, element["vr"]) == ("00741048", "SQ")
    texts = [first(item["00000902"]) for item in element["Value"]]
    assert {text[:24] for text in texts} == {
        f"DICOM100: ({tag[:4]},{tag[4:]}) - ".lower().replace("dicom", "DICOM")
        for tag in change.keys() - {"00100020"}
    }
    assert any("not supported" in text for text in texts)
    assert name_of(api, f"/v2{study[0].study_path}") == {"Old^Name"}


@covers("14.3", "1.2.1")
def test_the_body_is_read_generously(api, study):
    body = (
        b'{/* all of it */ "STUDYinstanceUIDS": ["%s"], // here\n'
        b' "ChangeDataSet": {"PatientID": {"Value": ["ID-2",]}, },}'
    ) % study[0].study.encode()
    answer = api.post_body("/v2/studies/$bulkUpdate", body, "application/json")
    assert ended(api, answer)["results"]["instanceUpdated"] == 3
    assert first(api.metadata(f"/v2{study[0].path}")[0][ID]) == "ID-2"


# --- what it does ----------------------------------------------------------------------


@covers("14.8", "14.12")
def test_all_36_attributes_are_changed_in_metadata_and_file(api, study):
    one = study[0]
    change = {
        tag: {"vr": vr, "Value": [value]} for tag, (vr, value, _) in ALL_36.items()
    }
    assert ended(api, update(api, one.study, change=change))["status"] == "succeeded"
    [metadata] = api.metadata(f"/v2{one.path}")
    assert {tag: metadata[tag] for tag in change} == change
    [content] = files(api, f"/v2{one.path}")
    new, old = (pydicom.dcmread(io.BytesIO(file)) for file in (content, one.file))
    for tag, (_, value, keyword) in ALL_36.items():
        text = value["Alphabetic"] if isinstance(value, dict) else value
        assert new[int(tag, 16)].value == text
        assert new[int(tag, 16)].keyword in {keyword, ""}
        del new[int(tag, 16)]
        old.pop(int(tag, 16), None)
    assert new == old, "another attribute changed"
    assert new.PixelData == old.PixelData
    assert new.file_meta.ImplementationClassUID == "1.3.6.1.4.1.311.129"
    assert new.file_meta.ImplementationVersionName
    assert new.file_meta.TransferSyntaxUID == old.file_meta.TransferSyntaxUID
    assert content[:128] == one.file[:128]


@covers("14.9")
def test_an_unknown_study_is_processed_and_the_operation_succeeds(api):
    operation = ended(api, update(api, "1.2.840.404"))
    assert operation["status"] == "succeeded"
    assert operation["results"] == {
        "studyProcessed": 1,
        "studyUpdated": 0,
        "studyFailed": 0,
        "instanceUpdated": 0,
    }


@covers("14.10", "14.11", "7.2.8")
def test_the_original_stays_however_often_the_study_is_updated(api, study):
    sent = sorted(one.file for one in study)
    paths = [study[0].study_path, study[0].series_path, study[0].path]
    originals = [files(api, f"/v2{path}") for path in paths]
    assert originals[0] == sent
    for name in ("Second^Name", "Third^Name"):
        change = {NAME: {"vr": "PN", "Value": [{"Alphabetic": name}]}}
        ended(api, update(api, study[0].study, change=change))
        for path, original in zip(paths, originals, strict=True):
            assert files(api, f"/v2{path}", **ORIGINAL) == original
            assert name_of(api, f"/v2{path}", **ORIGINAL) == {"Old^Name"}
            assert name_of(api, f"/v2{path}") == {name}
            current = files(api, f"/v2{path}")
            assert {str(pydicom.dcmread(io.BytesIO(f)).PatientName) for f in current} \
                == {name}  # fmt: skip
    in_capitals = files(api, f"/v2{paths[2]}", msdicom_request_original="TRUE")
    assert in_capitals == originals[2]
    for value in ("false", "1", ""):
        answer = files(api, f"/v2{paths[2]}", msdicom_request_original=value)
        assert answer != originals[2]


@covers("14.11")
def test_frames_and_rendered_images_come_from_unchanged_pixels(api, study):
    one = study[0]
    frame = f"/v2{one.path}/frames/1"
    before = parts(api.read(frame, FRAME)), api.get(f"/v2{one.path}/rendered").content
    ended(api, update(api, one.study))
    for headers in ({}, ORIGINAL):
        assert parts(api.read(frame, FRAME, **headers)) == before[0]
        answer = api.read(f"/v2{one.path}/rendered", "image/jpeg", **headers)
        assert answer.content == before[1]


@covers("14.13")
def test_searches_find_the_new_values_and_no_more_the_old(api):
    one = made(
        PatientID="SEARCH-OLD",
        PatientName="Search^Old",
        StudyDescription="Old description",
        AccessionNumber="OLD-1",
        ReferringPhysicianName="Old^Doctor",
        PatientBirthDate="19600101",
    )
    api.store(one.file)
    values = {
        "PatientID": "SEARCH-NEW",
        "PatientName": "Search^New",
        "StudyDescription": "New description",
        "AccessionNumber": "NEW-1",
        "ReferringPhysicianName": "New^Doctor",
        "PatientBirthDate": "19610101",
    }
    change = {keyword: {"Value": [value]} for keyword, value in values.items()}
    ended(api, update(api, one.study, change=change))
    uid = f"StudyInstanceUID={one.study}"
    for resource in ("studies", "series", "instances"):
        for keyword, value in values.items():
            found = api.search(f"/v2/{resource}?{uid}&{keyword}={value}")
            assert len(found) == 1, (resource, keyword)
        old = api.search(f"/v2/{resource}?{uid}&PatientID=SEARCH-OLD")
        assert old == []
        for version in ("v1", "v2"):
            [row] = api.search(f"/{version}/{resource}?{uid}&includefield=all")
            assert row[NAME]["Value"] == [{"Alphabetic": "Search^New"}]
            assert row[ID]["Value"] == ["SEARCH-NEW"]


@covers("14.13")
def test_query_tags_take_the_new_values(serve):
    running = serve()
    with Api(running.url) as api:
        tags = [
            {"path": "PatientAge", "level": "Study"},
            {"path": "PatientWeight", "level": "Series"},
            {"path": "EthnicGroup", "level": "Instance"},
        ]
        ended(api, api.post("/v2/extendedquerytags", json=tags))
        one = made(PatientAge="044Y", PatientWeight="70", EthnicGroup="Old")
        api.store(one.file)
        change = {
            "PatientAge": {"Value": ["045Y"]},
            "PatientWeight": {"Value": [72.5]},
            "EthnicGroup": None,
        }
        ended(api, update(api, one.study, change=change))
        for resource in ("studies", "series", "instances"):
            assert len(api.search(f"/v2/{resource}?PatientAge=045Y")) == 1
            assert api.search(f"/v2/{resource}?PatientAge=044Y") == []
        for resource in ("series", "instances"):
            assert len(api.search(f"/v2/{resource}?PatientWeight=72.5")) == 1
            assert api.search(f"/v2/{resource}?PatientWeight=70") == []
        assert api.search("/v2/instances?EthnicGroup=Old") == []
    running.stop()


@covers("14.14")
def test_the_feed_has_an_update_of_each_instance_and_earlier_events_are_replaced(
    api, study
):
    latest = api.get("/v2/changefeed/latest").json()["sequence"]
    ended(api, update(api, study[0].study))
    start = max(0, latest - 3)
    entries = api.get(f"/v1/changefeed?offset={start}&limit=100").json()
    of_study = [e for e in entries if e["studyInstanceUid"] == study[0].study]
    assert [(e["action"], e["state"]) for e in of_study] == [
        *[("Create", "Replaced")] * 3,
        *[("Update", "Current")] * 3,
    ]
    assert {e["sopInstanceUid"] for e in of_study[3:]} == {one.sop for one in study}
    names = {e["metadata"][NAME]["Value"][0]["Alphabetic"] for e in of_study}
    assert names == {"New^Name"}


@covers("14.15", "7.5.4")
def test_the_etag_of_the_metadata_changes_and_is_one_for_both_versions(api, study):
    for path in (study[0].study_path, study[0].series_path, study[0].path):
        before = api.read(f"/v2{path}/metadata").headers["etag"]
        ended(api, update(api, study[0].study))
        after = api.read(f"/v2{path}/metadata").headers["etag"]
        assert after != before
        unchanged = api.read(f"/v2{path}/metadata", If_None_Match=before)
        assert unchanged.status_code == 200
        original = api.read(f"/v2{path}/metadata", **ORIGINAL)
        assert original.headers["etag"] == after


@covers("14.16")
def test_a_study_fails_as_a_whole_and_others_are_updated(api, study):
    latin = [made(SpecificCharacterSet="ISO_IR 100", PatientName="Alt^Name")]
    latin += [
        made(latin[0], SpecificCharacterSet="ISO_IR 100", PatientName="Alt^Name")
        for _ in range(6)
    ]
    utf8 = made(latin[0], PatientName="Alt^Name")
    api.store(*(one.file for one in latin), utf8.file)
    change = {NAME: {"vr": "PN", "Value": [{"Alphabetic": "山田^太郎"}]}}
    answer = update(api, latin[0].study, study[0].study, change=change)
    operation = ended(api, answer)
    assert operation["status"] == "failed"
    results = operation["results"]
    errors = results.pop("errors")
    assert results == {
        "studyProcessed": 2,
        "studyUpdated": 1,
        "studyFailed": 1,
        "instanceUpdated": 3,
    }
    assert errors[0] == f"Failed to update instances for study {latin[0].study}"
    for text in errors[1:6]:
        assert f"PartitionKey: 1, StudyInstanceUID: {latin[0].study}" in text
        assert "SeriesInstanceUID: " in text
        assert "SOPInstanceUID: " in text
        assert "Traceback" not in text
    assert len(errors) == 7
    assert name_of(api, f"/v2{study[0].study_path}") == {"山田^太郎"}
    assert name_of(api, f"/v2{latin[0].study_path}") == {"Alt^Name"}
    stored = files(api, f"/v2{latin[0].study_path}")
    assert stored == sorted([*(one.file for one in latin), utf8.file])
    again = update(api, latin[0].study)
    assert ended(api, again)["results"]["instanceUpdated"] == 8


@covers("14.17")
def test_deleting_takes_both_versions(api, study):
    ended(api, update(api, study[0].study))
    assert api.delete(f"/v2{study[0].path}").status_code == 204
    for headers in ({}, ORIGINAL):
        for path in (study[0].path, f"{study[0].path}/metadata"):
            assert api.read(f"/v2{path}", "*/*", **headers).status_code == 404
    assert len(files(api, f"/v2{study[0].study_path}", **ORIGINAL)) == 2
    assert api.delete(f"/v2{study[0].study_path}").status_code == 204
    assert api.read(f"/v2{study[0].study_path}", "*/*").status_code == 404
    assert api.store(study[0].file).status_code == 200
    [again] = files(api, f"/v2{study[0].study_path}", **ORIGINAL)
    assert again == study[0].file


@covers("14.18", "4.10")
def test_an_update_stays_in_its_partition(partitioned):
    one = made(PatientName="Old^Name")
    for name in ("update-a", "update-b"):
        partitioned.store(one.file, path=f"/v2/partitions/{name}/studies")
    path = "/v2/partitions/update-a/studies"
    operation = ended(partitioned, update(partitioned, one.study, path=path))
    assert operation["results"]["instanceUpdated"] == 1
    assert name_of(partitioned, f"{path}/{one.study}") == {"New^Name"}
    other = f"/v2/partitions/update-b{one.study_path}"
    assert name_of(partitioned, other) == {"Old^Name"}
    unknown = update(partitioned, one.study, path="/v2/partitions/update-c/studies")
    assert unknown.status_code == 400
    assert update(partitioned, one.study).status_code == 400


@covers("14.18", "4.4")
def test_without_partitions_a_partition_in_the_path_is_400(api):
    path = "/v2/partitions/Microsoft.Default/studies"
    assert update(api, "1.2.3", path=path).status_code == 400


@covers("14.12")
def test_what_is_changed_is_in_no_durable_history_and_no_log(server, api, study):
    canary = "Canary^Of^Update"
    change = {NAME: {"vr": "PN", "Value": [{"Alphabetic": canary}]}}
    operation = ended(api, update(api, study[0].study, change=change))
    assert name_of(api, f"/v2{study[0].study_path}") == {canary}
    assert canary not in str(operation)
    assert canary not in server.log()
    durable = [path for path in (server.data / "host").rglob("*") if path.is_file()]
    assert any("durable" in path.name for path in durable)
    assert not [path for path in durable if canary.encode() in path.read_bytes()]


# --- decisions of ours -----------------------------------------------------------------


@covers("D14.1")
def test_null_removes_the_attribute_everywhere(api, study):
    change = {"00081030": None, "00100030": None}
    ended(api, update(api, study[0].study, change=change))
    uid = f"StudyInstanceUID={study[0].study}"
    for row in api.metadata(f"/v2{study[0].study_path}"):
        assert change.keys().isdisjoint(row)
    for content in files(api, f"/v2{study[0].study_path}"):
        assert "StudyDescription" not in pydicom.dcmread(io.BytesIO(content))
    assert api.search(f"/v2/studies?{uid}&StudyDescription=Chest") == []
    [row] = api.search(f"/v2/studies?{uid}&includefield=StudyDescription")
    assert "Value" not in row.get("00081030", {})


@covers("D14.1")
def test_no_value_leaves_the_attribute_empty(api, study):
    ended(api, update(api, study[0].study, change={"00081030": {"vr": "LO"}}))
    [row] = api.metadata(f"/v2{study[0].path}")
    assert row["00081030"] == {"vr": "LO"}


@covers("D14.2")
def test_updates_of_one_study_wait_for_each_other(api, study):
    changes = [
        {NAME: {"vr": "PN", "Value": [{"Alphabetic": f"Name^{n}"}]}} for n in range(3)
    ]
    answers = [update(api, study[0].study, change=change) for change in changes]
    operations = [ended(api, answer) for answer in answers]
    assert [o["results"]["instanceUpdated"] for o in operations] == [3, 3, 3]
    [name] = name_of(api, f"/v2{study[0].study_path}")
    assert name.startswith("Name^")
    assert files(api, f"/v2{study[0].study_path}", **ORIGINAL) == sorted(
        one.file for one in study
    )


@covers("D14.3")
def test_a_dry_run_says_what_would_change_and_changes_nothing(api, study):
    body = {
        "studyInstanceUids": [study[0].study, "1.2.840.404"],
        "changeDataset": NEW_NAME | {"00100040": {"vr": "CS", "Value": ["F"]}},
    }
    path = "/v2/studies/$bulkUpdate"
    answer = api.post(f"{path}?dryRun=true", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "studies": [
            {
                "studyInstanceUid": study[0].study,
                "instances": 3,
                "changes": {
                    NAME: {
                        "current": {
                            "vr": "PN",
                            "Value": [{"Alphabetic": "Old^Name"}],
                        },
                        "new": NEW_NAME[NAME],
                    }
                },
            },
            {"studyInstanceUid": "1.2.840.404", "instances": 0, "changes": {}},
        ]
    }
    assert name_of(api, f"/v2{study[0].study_path}") == {"Old^Name"}
    refused = api.post(
        f"{path}?DRYRUN=TRUE", json=body | {"changeDataset": {"0020000D": {"vr": "UI"}}}
    )
    assert refused.status_code == 400
    assert api.post(f"{path}?dryRun=maybe", json=body).status_code == 400


@covers("D14.4")
def test_a_canceled_update_leaves_each_study_old_or_new(api):
    many = [[made(PatientName="Old^Name")] for _ in range(24)]
    for [one] in many:
        many_of_it = [made(one, PatientName="Old^Name") for _ in range(3)]
        api.store(one.file, *(each.file for each in many_of_it))
    answer = update(api, *(one.study for [one] in many))
    assert api.delete(answer.json()["href"]).status_code == 202
    operation = ended(api, answer)
    assert operation["status"] == "canceled"
    names = [name_of(api, f"/v2{one.study_path}") for [one] in many]
    assert {len(found) for found in names} == {1}
    updated = [found for found in names if found == {"New^Name"}]
    assert operation["results"]["studyUpdated"] == len(updated)
    assert len(updated) < len(many)
    again = ended(api, update(api, *(one.study for [one] in many)))
    assert again["results"]["studyUpdated"] == len(many)
