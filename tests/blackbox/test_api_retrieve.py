"""Sections 7.1 to 7.3: negotiation, files of studies, series and instances."""

import base64
import hashlib

import numpy as np
import pytest
from blackbox.api import (
    AS_STORED,
    DICOM_JSON,
    ONE_AS_STORED,
    TRANSCODE_LIMIT,
    made,
    parts,
)
from blackbox.images import (
    BIG,
    EXPLICIT,
    J2K,
    RLE,
    SHAPE,
    VIDEO,
    grey,
    long_rle_frame,
    native_file,
    pixels_of,
    rle_file,
    syntax_of,
)
from blackbox.rules import covers
from data import new_uid

MULTI = 'multipart/related; type="application/dicom"'
LEVELS = ["study_path", "series_path", "path"]
TEXTS = {
    "study_path": "The specified study cannot be found.",
    "series_path": "The specified series cannot be found.",
    "path": "The specified instance cannot be found.",
}


@pytest.fixture(scope="module")
def compressed(place):
    """An instance in RLE, alone in its study."""
    one = made(**rle_file())
    assert place.store(one.file).status_code == 200
    return one


@pytest.fixture(scope="module")
def stored(api):
    """The same, for tests of what does not depend on version or partition."""
    one = made(**rle_file())
    assert api.store(one.file).status_code == 200
    return one


def shape(answer) -> tuple[str, str]:
    """Single or multipart, and the transfer syntax of what came."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("multipart/related"):
        [(content_type, content)] = parts(answer)
        form = "multipart"
    else:
        content_type, content = answer.headers["content-type"], answer.content
        form = "single"
    media_type, _, syntax = content_type.partition("; transfer-syntax=")
    assert media_type == "application/dicom"
    assert syntax_of(content) == syntax
    return form, syntax


# --- negotiation ---------------------------------------------------------------------


@covers("2.13", "7.1.1", "7.1.3", "7.3.1")
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/dicom; transfer-syntax=*", ("single", RLE)),
        ("Application/DICOM;transfer-syntax=*", ("single", RLE)),
        ("application/dicom", ("single", EXPLICIT)),
        (f"application/dicom; transfer-syntax={EXPLICIT}", ("single", EXPLICIT)),
        (f"application/dicom; transfer-syntax={J2K}", ("single", J2K)),
        (f'{MULTI}; transfer-syntax="*"', ("multipart", RLE)),
        (f"{MULTI}; transfer-syntax=*", ("multipart", RLE)),
        (
            "multipart/related; type=application/dicom; transfer-syntax=*",
            ("multipart", RLE),
        ),
        (MULTI, ("multipart", EXPLICIT)),
        (f"{MULTI}; transfer-syntax={J2K}", ("multipart", J2K)),
        ('multipart/related; type="*/*"', ("multipart", RLE)),
        (
            f'multipart/related; type="*/*"; transfer-syntax={EXPLICIT}',
            ("multipart", EXPLICIT),
        ),
    ],
)
def test_an_instance_is_sent_alone_or_in_multipart(place, compressed, accept, expected):
    assert shape(place.read(compressed.path, accept)) == expected


@covers("2.4", "2.9", "7.1.1", "7.1.2")
@pytest.mark.parametrize("level", ["study_path", "series_path"])
def test_studies_and_series_come_in_multipart_only(place, compressed, level):
    path = getattr(compressed, level)
    for accept, syntax in (
        (f"{MULTI}; transfer-syntax=*", RLE),
        ("multipart/related; type=application/dicom; transfer-syntax=*", RLE),
        (MULTI, EXPLICIT),
        (f"{MULTI}; transfer-syntax={EXPLICIT}", EXPLICIT),
        (f"{MULTI}; transfer-syntax={J2K}", J2K),
        ('multipart/related; type="*/*"', RLE),
    ):
        assert shape(place.read(path, accept)) == ("multipart", syntax)
    for accept in ("application/dicom", ONE_AS_STORED):
        answer = place.read(path, accept)
        assert answer.status_code == 406
        assert answer.text


SINGLE = "application/dicom"


@covers("7.1.5")
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{SINGLE};q=0.5, {MULTI};q=0.9", ("multipart", EXPLICIT)),
        (f"{SINGLE}, {MULTI};q=0.9", ("single", EXPLICIT)),
        (f"{MULTI};q=0.1, {SINGLE};q=0.1", ("multipart", EXPLICIT)),
        (f"{SINGLE};transfer-syntax={J2K}, {SINGLE}", ("single", J2K)),
        (f"{SINGLE}, {SINGLE};transfer-syntax={J2K}", ("single", EXPLICIT)),
        (f"{SINGLE}, {SINGLE};transfer-syntax=*", ("single", RLE)),
        (f"{SINGLE}, {MULTI};transfer-syntax=*", ("multipart", RLE)),
        (f"{SINGLE}, {SINGLE};transfer-syntax=*;q=0.9", ("single", EXPLICIT)),
        (
            f"image/png, {SINGLE};transfer-syntax=1.2.3, {MULTI}",
            ("multipart", EXPLICIT),
        ),
    ],
)
def test_weight_then_order_decides_but_as_stored_wins_among_equals(
    api, stored, accept, expected
):
    assert shape(api.read(f"/v2{stored.path}", accept)) == expected
    several = accept.split(", ")
    headers = [("Accept", one) for one in several]
    assert shape(api.get(f"/v2{stored.path}", headers=headers)) == expected


@covers("7.1.6")
@pytest.mark.parametrize("level", LEVELS)
def test_anything_is_multipart_as_stored(place, compressed, level):
    path = getattr(compressed, level)
    for accept in ("*/*", "application/*", "image/png;q=0.9, */*;q=0.1"):
        answer = place.read(path, accept)
        assert shape(answer) == ("multipart", RLE)
        assert parts(answer)[0][1] == compressed.file


OTHER = ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2", RLE, "1.2.3", "nonsense"]


@covers("7.1.7", "3.4")
@pytest.mark.parametrize("syntax", OTHER)
def test_any_other_transfer_syntax_is_406(place, compressed, syntax):
    for level in LEVELS:
        for accept in (MULTI, 'multipart/related; type="*/*"'):
            path = getattr(compressed, level)
            answer = place.read(path, f"{accept}; transfer-syntax={syntax}")
            assert answer.status_code == 406
            assert answer.text
    answer = place.read(compressed.path, f"{SINGLE}; transfer-syntax={syntax}")
    assert answer.status_code == 406


REFUSED = [
    "image/png",
    "application/dicom+json",
    "application/octet-stream",
    'multipart/related; type="image/jpeg"',
    "multipart/related",
    "application/dicom; transfer-syntax=*; q=0",
    "nonsense",
]


@covers("7.1.8", "3.4")
@pytest.mark.parametrize("accept", REFUSED)
def test_a_refused_accept_is_406_before_404(place, accept):
    missing = made()
    for level in LEVELS:
        assert place.read(getattr(missing, level), accept).status_code == 406
        assert place.read(getattr(missing, level), AS_STORED).status_code == 404


# --- not there -----------------------------------------------------------------------


@covers("7.2.1", "3.2")
@pytest.mark.parametrize("uid", ["a.b", "1.2.", "9" * 65])
def test_a_malformed_uid_is_400(place, uid):
    for path in (
        f"/studies/{uid}",
        f"/studies/1.2/series/{uid}",
        f"/studies/1.2/series/1.3/instances/{uid}",
        f"/studies/{uid}/series/1.3/instances/1.4",
    ):
        assert place.read(path, AS_STORED).status_code == 400


@covers("7.2.2", "3.1", "3.3")
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_there_is_404_and_its_level_is_named(place, compressed, level):
    answer = place.read(getattr(made(), level), AS_STORED)
    assert (answer.status_code, answer.text) == (404, TEXTS[level])
    if level != "study_path":
        other = made(compressed)
        answer = place.read(getattr(other, level), AS_STORED)
        assert (answer.status_code, answer.text) == (404, TEXTS[level])


# --- transcoding ---------------------------------------------------------------------


@covers("7.2.3", "7.2.7")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("syntax", [EXPLICIT, J2K])
def test_one_instance_is_transcoded_by_study_and_series_too(
    place, compressed, level, syntax
):
    answer = place.read(
        getattr(compressed, level), f"{MULTI}; transfer-syntax={syntax}"
    )
    [(content_type, file)] = parts(answer)
    assert content_type == f"application/dicom; transfer-syntax={syntax}"
    assert np.array_equal(pixels_of(file), grey(1))


@covers("7.2.7")
def test_there_are_two_targets(api):
    one = made(**native_file(2))
    assert api.store(one.file).status_code == 200
    for syntax in (EXPLICIT, J2K):
        answer = api.read(f"/v2{one.path}", f"{SINGLE}; transfer-syntax={syntax}")
        assert syntax_of(answer.content) == syntax
        assert np.array_equal(pixels_of(answer.content), np.stack([grey(1), grey(2)]))
    assert api.read(f"/v2{one.path}", SINGLE).content == one.file


@covers("7.2.4", "3.4")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_that_is_too_large_to_be_transcoded_is_406(special, version):
    rows = TRANSCODE_LIMIT // 400 + 1
    form = {"rows": rows, "columns": 200}
    one = made(transfer_syntax=BIG, frames=1, pixels=form)
    assert special.store(one.file).status_code == 200
    for level in LEVELS:
        path = f"/{version}{getattr(one, level)}"
        answer = special.read(path, MULTI)
        assert answer.status_code == 406
        assert str(TRANSCODE_LIMIT) in answer.text
        assert "transfer-syntax=*" in answer.text
    answer = special.read(f"/{version}{one.path}", ONE_AS_STORED)
    assert answer.content == one.file


@covers("7.2.5", "3.4")
@pytest.mark.parametrize("level", LEVELS)
def test_one_that_cannot_be_decoded_is_406(place, level):
    one = made(transfer_syntax=J2K, frames=[b"\xff\x4f\xff\x51 no codestream"])
    assert place.store(one.file).status_code == 200
    path = getattr(one, level)
    for syntax in (EXPLICIT,):
        answer = place.read(path, f"{MULTI}; transfer-syntax={syntax}")
        assert answer.status_code == 406
        assert "transcod" in answer.text or "decod" in answer.text
    [(_, file)] = parts(place.read(path, AS_STORED))
    assert file == one.file


@covers("7.2.6")
@pytest.mark.parametrize("level", LEVELS)
def test_all_else_is_the_stored_bytes(place, level):
    explicit, compressed = made(), made(**rle_file())
    assert place.store(explicit.file, compressed.file).status_code == 200
    for one, accept in ((explicit, MULTI), (explicit, AS_STORED)):
        [(_, file)] = parts(place.read(getattr(one, level), accept))
        assert file == one.file
    [(_, file)] = parts(place.read(getattr(compressed, level), AS_STORED))
    assert file == compressed.file


@covers("D6.5", "7.2.3")
def test_several_instances_come_in_one_transfer_syntax_if_each_can(place):
    one = made(**native_file())
    two = made(one, **rle_file())
    assert place.store(one.file, two.file).status_code == 200
    for syntax in (EXPLICIT, J2K):
        answer = place.read(one.study_path, f"{MULTI}; transfer-syntax={syntax}")
        found = parts(answer)
        assert [content_type for content_type, _ in found] == [
            f"application/dicom; transfer-syntax={syntax}"
        ] * 2
        for _, file in found:
            assert np.array_equal(pixels_of(file), grey(1))
    video = made(one, transfer_syntax=VIDEO, frames=[b"\0\0\1\xb3"])
    assert place.store(video.file).status_code == 200
    answer = place.read(one.study_path, MULTI)
    assert answer.status_code == 406
    assert VIDEO in answer.text
    assert len(parts(place.read(one.study_path, AS_STORED))) == 3
    assert len(parts(place.read(one.series_path, MULTI))) == 1


LONG = {"rows": 4096, "columns": 4096}
UNSUITED = {
    "bits": (J2K, native_file(pixels={"rows": 8, "columns": 8, "bits_allocated": 1})),
    "depth": (J2K, native_file(pixels={**SHAPE, "bits_allocated": 32})),
    "size": (
        EXPLICIT,
        {
            "transfer_syntax": RLE,
            "frames": [long_rle_frame(**LONG)] * 9,
            "pixels": LONG,
        },
    ),
}


@covers("D6.5", "7.2.5", "3.4")
@pytest.mark.parametrize("kind", UNSUITED)
@pytest.mark.parametrize("series", ["1.2.1", "1.2.9"])
def test_what_cannot_be_transcoded_is_known_before_the_first_byte(api, kind, series):
    """Wherever in the study the image stands that is too deep or too large."""
    target, values = UNSUITED[kind]
    one = made(SeriesInstanceUID="1.2.5", **rle_file())
    other = made(one, SeriesInstanceUID=series, **values)
    assert api.store(one.file, other.file).status_code == 200
    answer = api.read(f"/v2{one.study_path}", f"{MULTI}; transfer-syntax={target}")
    assert answer.status_code == 406
    assert len(parts(api.read(f"/v2{one.study_path}", AS_STORED))) == 2


@covers("D6.5", "7.2.7", "3.4")
@pytest.mark.parametrize("report_first", [True, False])
def test_what_is_no_image_keeps_a_study_from_being_compressed(api, report_first):
    """Known before the first byte, wherever in the study it stands."""
    study = new_uid()
    series = ["1.2.1", "1.2.9"] if report_first else ["1.2.9", "1.2.1"]
    report = made(StudyInstanceUID=study, SeriesInstanceUID=series[0])
    image = made(StudyInstanceUID=study, SeriesInstanceUID=series[1], **native_file())
    assert api.store(report.file, image.file).status_code == 200
    answer = api.read(f"/v2{image.study_path}", f"{MULTI}; transfer-syntax={J2K}")
    assert answer.status_code == 406
    assert "image" in answer.text
    answer = api.read(f"/v2{report.path}", f"{SINGLE}; transfer-syntax={J2K}")
    assert answer.status_code == 406
    assert len(parts(api.read(f"/v2{image.study_path}", MULTI))) == 2


ORIGINAL = "msdicom-request-original"


@covers("7.2.8", "7.5.4")
@pytest.mark.parametrize("value", ["true", "True", "false", "1", ""])
def test_the_original_of_what_was_never_updated_is_the_current_one(
    place, compressed, value
):
    for level in LEVELS:
        path = getattr(compressed, level)
        answer = place.read(path, AS_STORED, **{ORIGINAL: value})
        assert parts(answer)[0][1] == compressed.file
        plain = place.read(f"{path}/metadata")
        original = place.read(f"{path}/metadata", **{ORIGINAL: value})
        assert original.json() == plain.json()
        assert original.headers["etag"] == plain.headers["etag"]


# --- what comes ----------------------------------------------------------------------


@covers("7.3.2", "7.3.3", "D6.11")
def test_multipart_has_each_file_in_its_own_transfer_syntax(place):
    one = made()
    two, three = made(one, **rle_file()), made(one, transfer_syntax="1.2.840.10008.1.2")
    assert place.store(one.file, two.file, three.file).status_code in {200, 202}
    answer = place.read(one.study_path, AS_STORED)
    assert answer.headers["content-type"].startswith(
        'multipart/related; type="application/dicom"; boundary='
    )
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert set(parts(answer)) == {
        (f"application/dicom; transfer-syntax={EXPLICIT}", one.file),
        (f"application/dicom; transfer-syntax={RLE}", two.file),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2", three.file),
    }
    assert parts(place.read(two.series_path, AS_STORED)) == [
        (f"application/dicom; transfer-syntax={RLE}", two.file)
    ]


@covers("7.3.2")
def test_a_study_of_more_instances_than_a_window_comes_whole(api):
    study = made()
    files = {made(study, same_series=True).file for _ in range(120)}
    assert api.store(*files).status_code == 200
    answer = api.read(f"/v2{study.study_path}", AS_STORED)
    assert {file for _, file in parts(answer)} == files


@covers("D5.5")
def test_instances_have_etag_digest_and_length(place, compressed):
    answer = place.read(compressed.path, ONE_AS_STORED)
    digest = base64.b64encode(hashlib.sha256(compressed.file).digest()).decode()
    assert answer.headers["digest"] == f"sha-256={digest}"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(compressed.file))
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    for tag in (etag, etag.strip('"'), f'"x", {etag}', f"W/{etag}"):
        again = place.read(compressed.path, ONE_AS_STORED, if_none_match=tag)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert place.read(compressed.path, ONE_AS_STORED, if_none_match='"x"').content


@covers("D5.5")
@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=100-", 100, None), ("bytes=-16", -16, None)],
)
def test_ranges_of_instances_are_sent(place, compressed, range_, first, last):
    size = len(compressed.file)
    answer = place.read(compressed.path, ONE_AS_STORED, range=range_)
    assert answer.status_code == 206
    start = first if first >= 0 else size + first
    stop = size if last is None else last + 1
    assert answer.content == compressed.file[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    etag = answer.headers["etag"]
    same = place.read(compressed.path, ONE_AS_STORED, range=range_, if_range=etag)
    assert same.status_code == 206
    other = place.read(compressed.path, ONE_AS_STORED, range=range_, if_range='"x"')
    assert (other.status_code, other.content) == (200, compressed.file)


@covers("D5.5")
def test_a_range_beyond_the_end_is_416_and_a_malformed_one_is_ignored(
    place, compressed
):
    size = len(compressed.file)
    answer = place.read(compressed.path, ONE_AS_STORED, range=f"bytes={size}-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"
    for text in ("bytes=5-2", "lines=1-2", "bytes=x-", "bytes=0-1,5-6"):
        answer = place.read(compressed.path, ONE_AS_STORED, range=text)
        assert (answer.status_code, answer.content) == (200, compressed.file)


@covers("D5.5")
def test_a_range_of_thousands_of_digits_is_a_range(place, compressed):
    size, digits = len(compressed.file), "9" * 5000
    for text, status, content_range in (
        (f"bytes={digits}-", 416, f"bytes */{size}"),
        (f"bytes=-{digits}", 206, f"bytes 0-{size - 1}/{size}"),
        (f"bytes=1-{digits}", 206, f"bytes 1-{size - 1}/{size}"),
    ):
        answer = place.read(compressed.path, ONE_AS_STORED, range=text)
        found = (answer.status_code, answer.headers.get("content-range"))
        assert found == (status, content_range)


@covers("D5.5")
def test_conditions_in_several_lines_count_and_a_star_is_any_version(place, compressed):
    path = f"{place.root}{compressed.path}"
    accept = ("Accept", ONE_AS_STORED)
    etag = place.read(compressed.path, ONE_AS_STORED).headers["etag"]
    for tags in (['"x"', etag], [etag, '"x"'], ["*"]):
        conditions = [("If-None-Match", tag) for tag in tags]
        answer = place.api.get(path, headers=[accept, *conditions])
        assert (tags, answer.status_code) == (tags, 304)


@covers("D5.5", "D5.2")
def test_head_has_no_ranges(place, compressed):
    headers = {"Accept": ONE_AS_STORED, "Range": "bytes=0-9"}
    head = place.api.head(place.root + compressed.path, headers=headers)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(compressed.file))
    assert "content-range" not in head.headers


@covers("D5.5")
def test_answers_name_the_headers_that_they_depend_on(place, compressed):
    """Else a cache gives a client what another one asked for."""
    one = compressed.path
    for path, accept, fields in (
        (one, ONE_AS_STORED, {"accept", "msdicom-request-original"}),
        (one, AS_STORED, {"accept", "msdicom-request-original"}),
        (compressed.study_path, AS_STORED, {"accept", "msdicom-request-original"}),
        (f"{one}/frames/1", "application/octet-stream", {"accept"}),
        (f"{one}/frames/1", "*/*", {"accept"}),
        (f"{one}/rendered", "image/png", {"accept"}),
        (f"{one}/bulkdata/7FE00010", "*/*", {"accept"}),
        (
            f"{one}/metadata",
            DICOM_JSON,
            {"accept-encoding", "user-agent", "msdicom-request-original"},
        ),
    ):
        answer = place.read(path, accept)
        for vary in (
            answer.headers["vary"],
            place.read(
                path, accept, if_none_match=answer.headers.get("etag", "x")
            ).headers["vary"],
        ):
            found = {field.strip().lower() for field in vary.split(",")}
            assert (path, found) == (path, fields)


@covers("2.4", "2.9", "2.13", "4.10")
def test_another_partition_has_another_instance_of_the_same_uids(partitioned):
    one = made()
    other = made(
        StudyInstanceUID=one.study,
        SeriesInstanceUID=one.series,
        SOPInstanceUID=one.sop,
        PatientID=new_uid(),
    )
    first, second = "/v2/partitions/left", "/v1/partitions/right"
    assert partitioned.store(one.file, path=f"{first}/studies").status_code == 200
    for level in LEVELS:
        path = f"{second}{getattr(one, level)}"
        assert partitioned.read(path, AS_STORED).status_code in {400, 404}
    assert partitioned.store(other.file, path=f"{second}/studies").status_code == 200
    for root, file in ((first, one.file), (second, other.file)):
        for level in LEVELS:
            answer = partitioned.read(f"{root}{getattr(one, level)}", AS_STORED)
            assert [content for _, content in parts(answer)] == [file]
