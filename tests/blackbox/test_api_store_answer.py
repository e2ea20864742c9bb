"""Sections 6.4 to 6.7: status, data set, codes and header of a store's answer."""

import secrets

import pytest
from blackbox.api import DICOM_JSON, PUBLIC_URL, first, made
from blackbox.rules import covers
from data import data_set, multipart, new_uid
from pydicom.uid import CTImageStorage

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
V1 = ["v1.0-prerelease", "v1"]


def element(vr: str, *values: object) -> dict:
    return {"vr": vr, "Value": list(values)}


def referenced(one, base: str, version: str, **more: dict) -> dict:
    """The item of an instance that was stored."""
    item = {
        "00081150": element("UI", CTImageStorage),
        "00081155": element("UI", one.sop),
        "00081190": element("UR", f"{base}{one.path}"),
    }
    if version == "v2":
        item["00741048"] = {"vr": "SQ"}
    return item | more


MISSING_ID = {
    "vr": "SQ",
    "Value": [
        {
            "00000902": element(
                "LO",
                "DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing.",
            )
        }
    ],
}


def failed(one, reason: int, **more: dict) -> dict:
    """The item of an instance that was not."""
    return {
        "00081150": element("UI", CTImageStorage),
        "00081155": element("UI", one.sop),
        "00081197": element("US", reason),
    } | more


def roots(api, partitioned, version):
    """Client, path of the version, with and without a partition."""
    yield api, f"/{version}"
    yield partitioned, f"/{version}/partitions/a-{secrets.token_hex(4)}"


# --- whole answers -------------------------------------------------------------------


@covers("6.4.3", "6.4.4", "6.5.1", "6.5.2", "6.5.4", "4.11")
@pytest.mark.parametrize("version", VERSIONS)
def test_all_stored_is_200_with_an_item_for_each(api, partitioned, version):
    for client, root in roots(api, partitioned, version):
        one, two = made(), made()
        answer = client.store(one.file, two.file, path=f"{root}/studies")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == DICOM_JSON
        base = f"{client.base_url}{root}"
        assert answer.json() == {
            "00081199": element(
                "SQ", referenced(one, base, version), referenced(two, base, version)
            )
        }


@covers("6.5.1", "6.5.4")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_study_in_the_path_adds_its_url(api, partitioned, version):
    for client, root in roots(api, partitioned, version):
        one = made()
        answer = client.store(one.file, path=f"{root}{one.study_path}")
        assert answer.status_code == 200
        base = f"{client.base_url}{root}"
        assert answer.json() == {
            "00081190": element("UR", f"{base}{one.study_path}"),
            "00081199": element("SQ", referenced(one, base, version)),
        }


@covers("6.4.2", "6.5.1", "6.5.3", "6.5.4")
@pytest.mark.parametrize("version", VERSIONS)
def test_some_stored_is_202_with_three_elements(api, version):
    one = made()
    bad, again = made(one, PatientID=None), one
    answer = api.store(
        one.file, bad.file, again.file, path=f"/{version}{one.study_path}"
    )
    assert answer.status_code == 202
    base = f"{api.base_url}/{version}"
    assert answer.json() == {
        "00081190": element("UR", f"{base}{one.study_path}"),
        "00081198": element(
            "SQ", failed(bad, 43264, **{"00741048": MISSING_ID}), failed(again, 45070)
        ),
        "00081199": element("SQ", referenced(one, base, version)),
    }


@covers("6.4.6", "6.5.3", "6.5.4", "6.6.1", "6.6.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_none_stored_is_409_with_one_element(api, version):
    one, two = made(), made()
    study = new_uid()
    answer = api.store(one.file, two.file, path=f"/{version}/studies/{study}")
    assert answer.status_code == 409
    assert list(answer.json()) == ["00081198"]
    reasons = [first(i["00081197"]) for i in answer.json()["00081198"]["Value"]]
    assert reasons == [43264, 43264]
    api.store(one.file)
    answer = api.store(one.file, path=f"/{version}{one.study_path}")
    assert answer.status_code == 409
    assert answer.json() == {"00081198": element("SQ", failed(one, 45070))}


@covers("6.4.5", "6.5.2", "6.6.3")
def test_v2_says_202_and_what_it_found(api):
    one, two = made(PatientID=""), made()
    answer = api.store(one.file, two.file)
    assert answer.status_code == 202
    base = f"{api.base_url}/v2"
    warned = {"00081196": element("US", 1), "00741048": MISSING_ID}
    assert answer.json() == {
        "00081199": element(
            "SQ", referenced(one, base, "v2", **warned), referenced(two, base, "v2")
        )
    }


@covers("6.4.3", "6.5.2")
@pytest.mark.parametrize("version", V1)
def test_v1_says_200_with_a_warning_too_and_has_no_comments(api, version):
    one = made(transfer_syntax="1.2.840.10008.1.2", PatientAge="old")
    answer = api.store(one.file, path=f"/{version}/studies")
    assert answer.status_code == 200
    base = f"{api.base_url}/{version}"
    warned = {"00081196": element("US", 45063)}
    assert answer.json() == {
        "00081199": element("SQ", referenced(one, base, version, **warned))
    }


@covers("6.4.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_sent_is_204(api, version):
    body, content_type = multipart([])
    answer = api.post_body(f"/{version}/studies", body, content_type)
    assert (answer.status_code, answer.content) == (204, b"")


@covers("6.5.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_uids_that_cannot_be_read_are_left_out(api, version):
    one = made(SOPClassUID=None)
    [item] = api.store(one.file, path=f"/{version}/studies").json()["00081198"]["Value"]
    assert set(item) == {"00081155", "00081197", "00741048"}
    one = made(SOPInstanceUID=None)
    [item] = api.store(one.file, path=f"/{version}/studies").json()["00081198"]["Value"]
    assert set(item) == {"00081150", "00081197", "00741048"}


@covers("6.5.1", "6.5.2", "D5.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_urls_start_with_the_public_one(special, version):
    one = made()
    answer = special.store(one.file, path=f"/{version}{one.study_path}").json()
    assert first(answer["00081190"]) == f"{PUBLIC_URL}/{version}{one.study_path}"
    [item] = answer["00081199"]["Value"]
    assert first(item["00081190"]) == f"{PUBLIC_URL}/{version}{one.path}"


# --- header --------------------------------------------------------------------------


@covers("6.6.4")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("host", ["pacs.example.org", "pacs.example.org:8443"])
def test_the_warning_header_names_the_host_without_its_port(api, version, host):
    body, content_type = multipart([made(PatientID=["P-1", "P-2"]).file])
    headers = {"Accept": DICOM_JSON, "Content-Type": content_type, "Host": host}
    answer = api.post(f"/{version}/studies", content=body, headers=headers)
    assert answer.headers.get_list("warning") == [
        (
            '299 pacs.example.org: "One or more indexed Dicom tag(s) have multiple'
            ' values, only first value is indexed."'
        )
    ]


# --- what is stored ------------------------------------------------------------------


def elements_of(data_set_json: dict):
    """Every element of the data set, in sequences too."""
    for tag, found in data_set_json.items():
        yield tag, found
        if found["vr"] == "SQ":
            for item in found.get("Value", []):
                yield from elements_of(item)


@covers("6.7.1", "D6.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_have_neither_file_meta_information_nor_binary_values(api, version):
    inner = data_set()
    inner.add_new(0x00091001, "OB", b"\1\2")
    kinds = ["OB", "OD", "OF", "OL", "OV", "OW", "UN"]
    binary = [(0x00110010 + n * 0x20000, "LO", "ACME") for n in range(len(kinds))] + [
        (0x00111001 + n * 0x20000, vr, b"\1" * 8) for n, vr in enumerate(kinds)
    ]
    one = made(frames=1, elements=binary, ReferencedStudySequence=[inner])
    assert api.store(one.file, path=f"/{version}/studies").status_code in {200, 202}
    [metadata] = api.metadata(f"/{version}{one.path}")
    assert not [tag for tag in metadata if tag.startswith("0002")]
    found = [e for _, e in elements_of(metadata) if e["vr"] in kinds]
    assert len(found) == len(kinds) + 2
    assert all(set(e) == {"vr", "BulkDataURI"} for e in found)
