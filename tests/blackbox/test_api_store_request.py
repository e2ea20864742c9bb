"""Section 6.1: what a store takes, and what fails it as a whole (section 3 too)."""

import json
import secrets
from collections.abc import Iterator

import pytest
from blackbox.api import (
    FILE_LIMIT,
    ONE_AS_STORED,
    failed_items,
    first,
    made,
    reason,
    stored_items,
)
from blackbox.rules import covers
from data import multipart, new_uid

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
DICOM = "application/dicom"


def is_stored(api, one, root="/v2") -> bool:
    answer = api.read(f"{root}{one.path}", ONE_AS_STORED)
    assert answer.status_code in {200, 404}
    return answer.status_code == 200


def body_of(*parts: tuple[str, bytes], boundary: str = "cut") -> bytes:
    """Parts of (header lines, content)."""
    pieces = [
        f"--{boundary}\r\n{head}\r\n".encode() + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


TYPED = f"Content-Type: {DICOM}\r\n"


@covers("2.1", "2.2", "6.1.1", "4.7", "4.11")
@pytest.mark.parametrize("version", VERSIONS)
def test_both_paths_store_with_and_without_a_partition(api, partitioned, version):
    name = f"p-{secrets.token_hex(4)}"
    for client, root in (
        (api, f"/{version}"),
        (partitioned, f"/{version}/partitions/{name}"),
    ):
        for study_in_path in (False, True):
            one = made()
            path = root + (one.study_path if study_in_path else "/studies")
            answer = client.store(one.file, path=path)
            assert answer.status_code == 200
            [item] = stored_items(answer)
            assert first(item["00081155"]) == one.sop
            assert first(item["00081190"]) == f"{client.base_url}{root}{one.path}"
            assert is_stored(client, one, root)


@covers("6.1.1", "3.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("uid", ["not-a-uid", "1.2.", "1" * 65])
def test_a_malformed_study_in_the_path_is_400(api, partitioned, version, uid):
    one = made()
    for client, root in ((api, ""), (partitioned, "/partitions/p1")):
        answer = client.store(one.file, path=f"/{version}{root}/studies/{uid}")
        assert answer.status_code == 400
        assert "StudyInstanceUID" in answer.text
    assert not is_stored(api, one)


# --- content types -------------------------------------------------------------------


@covers("6.1.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("content_type", [DICOM, "Application/DICOM"])
def test_a_single_file_is_the_whole_body(api, version, content_type):
    one = made()
    answer = api.post_body(f"/{version}/studies", one.file, content_type)
    assert answer.status_code == 200
    assert is_stored(api, one)


WRONG = [
    None,
    "",
    f"{DICOM}; x=y",
    "application/dicom+json",
    "application/json",
    "application/octet-stream",
    "multipart/form",
    "multipart/form-data; boundary=cut",
    "multipart/mixed; boundary=cut",
    "multipart/related",
    f'multipart/related; type="{DICOM}"',
    "nonsense",
]


@covers("6.1.3", "6.1.4", "6.1.5", "3.1", "3.7", "6.4.7")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("content_type", WRONG)
def test_every_other_content_type_is_415_and_named(api, version, content_type):
    one = made()
    body = one.file
    if content_type and content_type.startswith("multipart"):
        body = body_of((TYPED, one.file))
    for path in ("/studies", one.study_path):
        answer = api.post_body(f"/{version}{path}", body, content_type)
        assert answer.status_code == 415
        assert (content_type or "") in answer.text
        assert answer.headers["content-type"].startswith("text/plain")
    assert not is_stored(api, one)


@covers("6.1.4")
@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; boundary=cut",
        'multipart/related; boundary="cut"',
        "Multipart/Related; Boundary=cut",
        f"multipart/related; type={DICOM}; boundary=cut",
        f'multipart/related; boundary=cut; type="{DICOM}"; q=1',
    ],
)
def test_multipart_needs_a_boundary_but_no_type(api, content_type):
    one = made()
    answer = api.post_body("/v2/studies", body_of((TYPED, one.file)), content_type)
    assert answer.status_code == 200
    assert is_stored(api, one)


@covers("6.1.4", "6.4.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_start_parameter_is_400(api, version):
    one = made()
    answer = api.post_body(
        f"/{version}/studies",
        body_of((TYPED, one.file)),
        f'multipart/related; type="{DICOM}"; start="<1>"; boundary=cut',
    )
    assert answer.status_code == 400
    assert "start" in answer.text
    assert not is_stored(api, one)


@covers("6.1.4")
def test_bodies_are_taken_as_known_clients_send_them(api):
    """Orthanc: chunked, a long boundary, lengths of parts; dicomweb-client: CR LF."""
    orthanc, python, ohif = made(), made(), made()
    long = "b" * 73
    head = f"{TYPED}Content-Length: {len(orthanc.file)}\r\n"
    body = body_of((head, orthanc.file), boundary=long)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    answers = [
        api.post(
            "/v2/studies",
            content=chunks(),
            headers={
                "Accept": "application/dicom+json",
                "Content-Type": f'multipart/related; type="{DICOM}"; boundary={long}',
            },
        ),
        api.post_body(
            "/v2/studies",
            b"\r\n" + body_of((TYPED, python.file)),
            f'multipart/related; type="{DICOM}"; boundary="cut"',
            accept="application/dicom+json, application/json",
        ),
        api.post_body(
            "/v2/studies",
            body_of((f"{TYPED}Content-Disposition: form-data\r\n", ohif.file)),
            f"multipart/related; type={DICOM}; boundary=cut",
            accept="*/*",
        ),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for one in (orthanc, python, ohif):
        assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file


@covers("6.1.6", "3.7", "6.4.7")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: image/jpeg\r\n",
        f"Content-Type: {DICOM}; x=y\r\n",
        "Content-Type: application/dicom+json\r\n",
        "Content-Type: \r\n",
        "",
    ],
)
def test_a_later_part_of_another_type_is_415_and_nothing_is_stored(api, version, head):
    good, bad = made(), made()
    body = body_of((TYPED, good.file), (head, bad.file))
    content_type = f'multipart/related; type="{DICOM}"; boundary=cut'
    answer = api.post_body(f"/{version}/studies", body, content_type)
    assert answer.status_code == 415
    assert answer.text
    assert not is_stored(api, good)
    assert not is_stored(api, bad)


@covers("6.1.6")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("envelope", "head", "status"),
    [
        (f'; type="{DICOM}"', "", 200),
        (f"; type={DICOM}", "", 200),
        ("", "", 415),
        ('; type="application/json"', "", 415),
        ('; type="application/json"', "Content-Type: Application/DICOM\r\n", 200),
    ],
)
def test_only_the_first_part_may_leave_its_type_to_the_envelope(
    api, version, envelope, head, status
):
    one = made()
    answer = api.post_body(
        f"/{version}/studies",
        body_of((head, one.file)),
        f"multipart/related{envelope}; boundary=cut",
    )
    assert answer.status_code == status
    assert is_stored(api, one) is (status == 200)


# --- framing and size ----------------------------------------------------------------


@covers("6.1.7", "3.1", "3.2", "6.4.7")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda body: b"",
        lambda body: b"no boundary at all",
        lambda body: body.replace(b"--cut", b"--cat"),
        lambda body: body[: body.rindex(b"\r\n--cut--")],
        lambda body: body[:-200],
        lambda body: body.replace(b"Content-Type: ", b"Content Type "),
        lambda body: body.replace(b"Content-Type", b"X: " + b"y" * 20_000),
        lambda body: body.replace(b"--cut\r\n", b"--cut\n"),
        lambda body: body.replace(
            b"Content-Type", b"Content-Length: " + b"9" * 5000 + b"\r\nContent-Type"
        ),
    ],
    ids=[
        "empty",
        "text",
        "other",
        "no end",
        "cut",
        "header",
        "long header",
        "line feeds alone",
        "long length",
    ],
)
def test_damaged_framing_is_400(api, version, damage):
    one = made()
    body = damage(body_of((TYPED, one.file)))
    answer = api.post_body(
        f"/{version}/studies", body, "multipart/related; boundary=cut"
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert "multipart" in answer.text
    assert not is_stored(api, one)


@covers("6.1.8", "3.6", "6.4.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_part_or_a_body_over_the_limit_is_413_for_all(special, version):
    small = made()
    padding = FILE_LIMIT - len(made().file)
    large = made(PixelData=b"\0" * padding)
    assert len(large.file) > FILE_LIMIT
    answers = [
        special.store(small.file, large.file, path=f"/{version}/studies"),
        special.post_body(f"/{version}/studies", large.file, DICOM),
        special.post_body(
            f"/{version}/studies",
            body_of((f"{TYPED}Content-Length: {FILE_LIMIT + 1}\r\n", small.file)),
            "multipart/related; boundary=cut",
        ),
    ]
    for answer in answers:
        assert answer.status_code == 413
        assert str(FILE_LIMIT) in answer.text
    assert not is_stored(special, small)
    assert not is_stored(special, large)


@covers("6.1.8")
def test_a_file_of_exactly_the_limit_is_stored(special):
    one = made(PixelData=b"\0" * 100)
    one = made(one, PixelData=b"\0" * (100 + FILE_LIMIT - len(one.file)))
    assert len(one.file) == FILE_LIMIT
    assert special.store(one.file).status_code in {200, 202}
    assert is_stored(special, one)


# --- parts ---------------------------------------------------------------------------


@covers("6.1.9", "6.4.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_results_come_in_the_order_of_the_parts(api, version):
    study = made()
    good = [made(study) for _ in range(7)]
    bad = [made(study, PatientID=None) for _ in range(4)]
    parts = [*good[:2], bad[0], good[2], bad[1], bad[2], *good[3:], bad[3]]
    answer = api.store(*(one.file for one in parts), path=f"/{version}/studies")
    assert answer.status_code == 202
    stored = [first(item["00081155"]) for item in stored_items(answer)]
    failed = [first(item["00081155"]) for item in failed_items(answer)]
    assert stored == [one.sop for one in good]
    assert failed == [one.sop for one in bad]


@covers("6.1.10", "6.4.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_no_parts_are_204_without_a_body(api, version):
    for path in ("/studies", f"/studies/{new_uid()}"):
        for body in (b"--cut--", b"--cut--\r\n", b"\r\n--cut--\r\n"):
            answer = api.post_body(
                f"/{version}{path}", body, "multipart/related; boundary=cut"
            )
            assert (answer.status_code, answer.content) == (204, b"")


NO_DICOM = {
    "empty": b"",
    "text": b"this is no DICOM file",
    "preamble only": b"\0" * 128 + b"DICM",
    "no magic": b"\0" * 400,
    "jpeg": b"\xff\xd8\xff\xe0" + b"\0" * 200,
}


@covers("6.1.11", "6.4.6", "6.5.3", "6.5.4", "6.6.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["empty", "text", "no magic", "jpeg"])
def test_what_is_no_dicom_file_fails_with_43264_and_says_no_uids(api, version, kind):
    expected = {
        "00081198": {
            "vr": "SQ",
            "Value": [{"00081197": {"vr": "US", "Value": [43264]}}],
        }
    }
    for body, content_type in (
        (NO_DICOM[kind], DICOM),
        multipart([NO_DICOM[kind]]),
    ):
        answer = api.post_body(f"/{version}/studies", body, content_type)
        assert answer.status_code == 409
        assert answer.json() == expected


@covers("6.1.11", "6.4.2", "6.6.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", NO_DICOM)
def test_it_does_not_keep_the_other_parts_from_being_stored(api, version, kind):
    one = made()
    answer = api.store(NO_DICOM[kind], one.file, path=f"/{version}/studies")
    assert answer.status_code == 202
    assert [first(item["00081155"]) for item in stored_items(answer)] == [one.sop]
    [failed] = failed_items(answer)
    assert first(failed["00081197"]) == 43264
    assert "00081155" not in failed


@covers("6.1.12")
@pytest.mark.parametrize("version", VERSIONS)
def test_files_come_back_bit_by_bit_with_their_preamble(api, version):
    one = made(
        preamble=bytes(range(128)),
        frames=2,
        elements=[(0x00091001, "UN", b"\1\2\3\4"), (0x00090010, "LO", "ACME")],
    )
    assert reason(api.store(one.file, path=f"/{version}/studies")) is None
    answer = api.read(f"/{version}{one.path}", ONE_AS_STORED)
    assert answer.content == one.file


@covers("6.1.6", "6.6.2")
def test_after_a_late_failure_the_request_can_be_sent_again(api):
    """More parts than one window holds: those of earlier windows may be stored."""
    study = made()
    good = [made(study, same_series=True) for _ in range(110)]
    heads = [(TYPED, one.file) for one in good]
    body = body_of(*heads, ("Content-Type: image/jpeg\r\n", b"x"))
    answer = api.post_body("/v2/studies", body, "multipart/related; boundary=cut")
    assert answer.status_code == 415
    rows = api.search(f"/v2/studies/{study.study}/instances?limit=200")
    stored = {first(row["00080018"]) for row in rows}
    answer = api.store(*(one.file for one in good))
    assert answer.status_code == (202 if stored else 200)
    failed = failed_items(answer)
    assert {first(item["00081155"]) for item in failed} == stored
    assert {first(item["00081197"]) for item in failed} <= {45070}
    rows = api.search(f"/v2/studies/{study.study}/instances?limit=200")
    assert len(rows) == 110


@covers("D6.7")
def test_the_preamble_is_blanked_on_request(special):
    one = made(preamble=bytes(range(128)))
    assert special.store(one.file).status_code == 200
    answer = special.read(f"/v2{one.path}", ONE_AS_STORED)
    assert answer.content == b"\0" * 128 + one.file[128:]


@covers("3.5", "6.6.2", "6.4.6")
@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_that_is_there_is_409_and_stays_as_it_is(api, version):
    one = made()
    assert api.store(one.file).status_code == 200
    other = made(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        PatientName="Else^Someone",
    )
    answer = api.store(other.file, path=f"/{version}/studies")
    assert answer.status_code == 409
    assert reason(answer) == 45070
    assert api.read(f"/v2{one.path}", ONE_AS_STORED).content == one.file
    twice = made()
    answer = api.store(twice.file, twice.file, path=f"/{version}/studies")
    assert answer.status_code == 202
    assert reason(answer) == 45070
    assert json.loads(answer.content)["00081199"]["Value"][0]["00081155"] == {
        "vr": "UI",
        "Value": [twice.sop],
    }
