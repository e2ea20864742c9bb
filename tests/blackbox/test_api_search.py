"""Section 8 and the decisions on searches: what matches, and how results are paged."""

import itertools
import secrets
from urllib.parse import quote, urlsplit

import pytest
from blackbox.api import DICOM_JSON, first, made
from blackbox.rules import covers

VERSIONS = ["v1.0-prerelease", "v1", "v2"]
STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"

_run = secrets.token_hex(4).upper()
_count = itertools.count(1)


def token():
    """A text that nothing else of this run has; upper case, 11 characters at most."""
    return f"{_run}{next(_count):X}"


def uids(found, tag=STUDY_UID):
    return [first(row[tag]) for row in found]


def store(api, *files, path="/v2/studies"):
    answer = api.store(*(one.file for one in files), path=path)
    assert answer.status_code in {200, 202}, answer.text


# --- resources -----------------------------------------------------------------------

STUDY_KEYS = {
    "StudyInstanceUID": "1.2.404",
    "StudyDate": "18911224",
    "StudyDescription": "nothing",
    "AccessionNumber": "nothing",
    "PatientID": "nothing",
    "PatientName": "nothing",
    "PatientBirthDate": "18911224",
    "ReferringPhysicianName": "nothing",
    "ModalitiesInStudy": "XX",
}
SERIES_KEYS = {
    "SeriesInstanceUID": "1.2.404",
    "Modality": "XX",
    "PerformedProcedureStepStartDate": "18911224",
    "ManufacturerModelName": "nothing",
}
INSTANCE_KEYS = {"SOPInstanceUID": "1.2.404", "SOPClassUID": "1.2.404"}
KEYS = STUDY_KEYS | SERIES_KEYS | INSTANCE_KEYS
RESOURCES = {
    "studies": STUDY_KEYS,
    "series": STUDY_KEYS | SERIES_KEYS,
    "instances": KEYS,
    "studies/1.2/series": SERIES_KEYS,
    "studies/1.2/instances": SERIES_KEYS | INSTANCE_KEYS,
    "studies/1.2/series/1.3/instances": INSTANCE_KEYS,
}
HINT = (
    "If the parameter is an attribute keyword, check the casing as they are"
    " case-sensitive. The conformance statement has a list of supported query"
    " parameters, attributes and the levels."
)


@covers("8.1.1", "8.2.9", "3.10")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES)
def test_each_resource_is_searched_by_attributes_of_its_levels_only(
    api, resource, version
):
    for keyword, value in KEYS.items():
        answer = api.read(f"/{version}/{resource}?{keyword}={value}")
        if keyword in RESOURCES[resource]:
            assert (keyword, answer.status_code) == (keyword, 204)
        else:
            assert (keyword, answer.status_code) == (keyword, 400)
            assert (
                answer.text
                == f"Invalid query: AttributeId {keyword} is not queryable.  {HINT}"
            )


@covers("8.1.2", "2.7", "2.8", "2.12", "8.8.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_uids_of_the_path_filter(api, version):
    one = made()
    beside = made(one, same_series=True)
    other_series = made(one)
    other_study = made()
    store(api, one, beside, other_series, other_study)
    base = f"/{version}{one.study_path}"
    assert uids(api.search(f"{base}/series"), SERIES_UID) == [
        other_series.series,
        one.series,
    ]
    assert uids(api.search(f"{base}/instances"), SOP_UID) == [
        other_series.sop,
        beside.sop,
        one.sop,
    ]
    of_series = api.search(f"/{version}{one.series_path}/instances")
    assert uids(of_series, SOP_UID) == [beside.sop, one.sop]
    assert api.search(f"/{version}{other_study.study_path}/series?Modality=MR") == []
    mixed = f"/{version}{other_study.study_path}/series/{one.series}/instances"
    assert api.search(mixed) == []


@covers("8.1.2", "3.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "path",
    [
        "studies/1.a/series",
        "studies/1.a/instances",
        "studies/1.a/series/1.3/instances",
        "studies/1.2/series/1.a/instances",
    ],
)
def test_malformed_uids_of_the_path_are_400(api, path, version):
    answer = api.read(f"/{version}/{path}")
    assert answer.status_code == 400
    assert "'1.a'" in answer.text


@covers("8.1.3")
@pytest.mark.parametrize(
    ("resource", "key"),
    [
        ("studies/1.2/series", "StudyInstanceUID"),
        ("studies/1.2/instances", "0020000d"),
        ("studies/1.2/series/1.3/instances", "SeriesInstanceUID"),
        ("studies/1.2/series/1.3/instances", "StudyInstanceUID"),
    ],
)
def test_a_uid_of_the_path_cannot_be_a_parameter_too(api, resource, key):
    answer = api.read(f"/v2/{resource}?{key}=1.2")
    assert answer.status_code == 400
    assert f"AttributeId {key} is not queryable." in answer.text


# --- parameters ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def hundred_and_one(api):
    """A series of 101 instances, in the order in which they were stored."""
    newest = made()
    files = [newest, *(made(newest, same_series=True) for _ in range(100))]
    store(api, *files)
    return files


@covers("8.2.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_limit_is_100_by_default(api, hundred_and_one, version):
    path = f"/{version}{hundred_and_one[0].series_path}/instances"
    assert len(api.search(path)) == 100
    assert len(api.search(f"{path}?limit=200")) == 101
    assert len(api.search(f"{path}?limit=1")) == 1


LIMIT_TEXT = (
    "The query parameter 'Limit' is invalid. The field Limit must be between 1 and 200."
)


@covers("8.2.1", "3.10")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("limit", ["0", "201", "-1", "ten", "", "1.5", "9" * 20])
@pytest.mark.parametrize("resource", ["studies", "series", "studies/1.2/instances"])
def test_limit_is_from_1_to_200(api, resource, limit, version):
    answer = api.read(f"/{version}/{resource}?limit={limit}")
    assert (answer.status_code, answer.text) == (400, LIMIT_TEXT)


@covers("8.2.2", "8.7.2", "8.8.2")
def test_offset_leaves_results_out(api, hundred_and_one):
    path = f"/v2{hundred_and_one[0].series_path}/instances"
    order = [one.sop for one in reversed(hundred_and_one)]
    assert uids(api.search(f"{path}?limit=200"), SOP_UID) == order
    for offset in (0, 1, 99, 100):
        found = api.search(f"{path}?offset={offset}")
        assert uids(found, SOP_UID) == order[offset : offset + 100]
    for offset in (101, 5000):
        answer = api.read(f"{path}?offset={offset}")
        assert (answer.status_code, answer.content) == (204, b"")
    pages = [
        uids(api.search(f"{path}?limit=7&offset={offset}"), SOP_UID)
        for offset in range(0, 101, 7)
    ]
    assert list(itertools.chain(*pages)) == order


@covers("8.2.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("offset", ["-1", "one", "", "0.5"])
def test_offset_is_0_or_more(api, offset, version):
    answer = api.read(f"/{version}/studies?offset={offset}")
    assert answer.status_code == 400
    assert answer.text.startswith("The query parameter 'Offset' is invalid.")


@covers("8.2.2", "8.8.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_offset_ends_where_cursors_have_to_go_on(api, version):
    path = f"/{version}/studies?PatientID={token()}"
    assert api.read(f"{path}&offset=10000").status_code == 204
    answer = api.read(f"{path}&offset=10001")
    assert answer.status_code == 400
    assert "between 0 and 10000" in answer.text


@covers("8.2.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_fuzzymatching_is_a_boolean_and_only_concerns_names(api, version):
    text = token()
    one = made(PatientName=f"{text}ab^x", StudyDescription=f"{text}ab")
    store(api, one)
    for value in ("true", "TRUE", "True"):
        fuzzy = f"/{version}/studies?fuzzymatching={value}"
        assert uids(api.search(f"{fuzzy}&PatientName={text}a")) == [one.study]
        assert api.search(f"{fuzzy}&StudyDescription={text}a") == []
        assert uids(api.search(f"{fuzzy}&StudyDescription={text}ab")) == [one.study]
    for query in ("", "fuzzymatching=false&"):
        assert api.search(f"/{version}/studies?{query}PatientName={text}a") == []
    for value in ("maybe", "1", ""):
        answer = api.read(f"/{version}/studies?fuzzymatching={value}")
        assert answer.status_code == 400
        assert answer.text.startswith("The query parameter 'FuzzyMatching' is invalid.")


@covers("8.2.4", "8.5.9")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "fields",
    [
        "includefield=Manufacturer,InstanceNumber",
        "includefield=00080070,00200013",
        "includefield=Manufacturer&includefield=00200013",
        "IncludeField=Manufacturer,&includefield=InstanceNumber",
    ],
)
def test_includefield_is_a_list_or_repeated_by_keyword_or_number(api, fields, version):
    one = made(Manufacturer="Made in code", InstanceNumber=4)
    store(api, one)
    path = f"/{version}/studies?StudyInstanceUID={one.study}"
    plain = api.search(path)[0].keys()
    [found] = api.search(f"{path}&{fields}")
    assert found["00080070"] == {"vr": "LO", "Value": ["Made in code"]}
    assert found["00200013"] == {"vr": "IS", "Value": [4]}
    assert found.keys() == plain | {"00080070", "00200013"}


@covers("8.2.5", "8.4.1")
def test_attributes_go_by_keyword_or_number_in_either_case(api):
    text = token()
    one = made(PatientID=text)
    store(api, one)
    for query in (
        f"PatientID={text}",
        f"00100020={text}",
        f"StudyInstanceUID={one.study}",
        f"0020000D={one.study}",
        f"0020000d={one.study}",
    ):
        assert uids(api.search(f"/v2/studies?{query}")) == [one.study]


@covers("8.2.5", "8.2.8", "1.5.2", "3.10")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "key", ["patientid", "Foo", "10020", "(0010,0020)", "001000200", "0010002G"]
)
def test_an_unknown_key_is_400(api, key, version):
    answer = api.read(f"/{version}/studies?{quote(key)}=x")
    assert answer.status_code == 400
    assert answer.text == f"Invalid query: unknown query parameter '{key}'. {HINT}"


@covers("8.2.5")
@pytest.mark.parametrize(
    "key", ["RequestAttributesSequence.StudyInstanceUID", "00400275.0020000D", "a.b.c"]
)
def test_a_path_into_sequences_is_400(api, key):
    answer = api.read(f"/v2/series?{key}=1.2")
    assert answer.status_code == 400
    assert f"'{key}'" in answer.text


@covers("8.2.6")
@pytest.mark.parametrize(
    "query",
    ["PatientID=1&PatientID=1", "00100020=1&00100020=2", "limit=1&Limit=2"],
)
def test_the_same_key_twice_is_400(api, query):
    answer = api.read(f"/v2/studies?{query}")
    assert answer.status_code == 400
    assert "more than once" in answer.text


@covers("8.2.7")
@pytest.mark.parametrize(
    "query", ["PatientID=1&00100020=1", "0020000d=1&StudyInstanceUID=1"]
)
def test_one_tag_by_keyword_and_by_number_is_400(api, query):
    answer = api.read(f"/v2/studies?{query}")
    assert answer.status_code == 400
    assert "twice" in answer.text


@covers("8.2.9", "3.10")
@pytest.mark.parametrize("key", ["PatientSex", "StudyTime", "00091010", "PixelData"])
def test_an_attribute_that_is_not_indexed_is_400(api, key):
    answer = api.read(f"/v2/studies?{key}=x")
    assert answer.status_code == 400
    assert answer.text == f"Invalid query: AttributeId {key} is not queryable.  {HINT}"


@covers("8.2.10")
@pytest.mark.parametrize("field", ["Foo", "patientID", "(0010,0020)", "PatientID,Foo"])
def test_an_unknown_includefield_is_400(api, field):
    answer = api.read(f"/v2/studies?includefield={field}")
    assert answer.status_code == 400
    assert "unknown attribute" in answer.text


@covers("8.2.11", "3.10", "8.9.3")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("resource", "keyword"),
    [
        ("studies", "StudyDate"),
        ("studies", "PatientBirthDate"),
        ("series", "PerformedProcedureStepStartDate"),
    ],
)
@pytest.mark.parametrize("date", ["20230230", "2023", "NotADate", "20230101120000"])
def test_a_malformed_date_is_400(api, resource, keyword, date, version):
    answer = api.read(f"/{version}/{resource}?{keyword}={date}")
    assert answer.status_code == 400
    assert (
        answer.text
        == f"Invalid query: specified Date value '{date}' is invalid for attribute"
        f" '{keyword}'. Date should be valid and formatted as yyyyMMdd."
    )


@covers("8.2.11", "3.10")
@pytest.mark.parametrize(
    ("date", "bad"),
    [("x-20230101", "x"), ("20230101-2023", "2023"), ("2023-01-01", "2023")],
)
def test_a_malformed_end_of_a_range_is_400_and_named(api, date, bad):
    answer = api.read(f"/v2/studies?StudyDate={date}")
    assert answer.status_code == 400
    assert f"specified Date value '{bad}' is invalid" in answer.text


@covers("8.2.12")
def test_a_range_that_ends_before_it_starts_is_400(api):
    answer = api.read("/v2/studies?StudyDate=20240301-20240229")
    assert answer.status_code == 400
    assert "'20240301-20240229'" in answer.text
    assert api.read("/v2/studies?StudyDate=19010101-19010101").status_code == 204


@covers("8.2.13")
@pytest.mark.parametrize("value", ["-", " - ", "-%20"])
def test_a_range_without_ends_is_400(api, value):
    assert api.read(f"/v2/studies?StudyDate={value}").status_code == 400


@covers("8.2.14")
@pytest.mark.parametrize("value", ["%22", "a%22b", "%22doe%22"])
def test_a_double_quote_in_a_fuzzy_name_is_400(api, value):
    path = f"/v2/studies?PatientName={value}"
    assert api.read(f"{path}&fuzzymatching=true").status_code == 400
    assert api.read(path).status_code == 204


# --- matching ------------------------------------------------------------------------


@covers("8.3.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("keyword", ["StudyDescription", "PatientID"])
def test_texts_match_whole_without_case_and_trailing_spaces(api, keyword, version):
    text = token()
    value = f"{text} Übersicht "
    one = made(**{keyword: value})
    store(api, one)

    def found(asked):
        return uids(api.search(f"/{version}/studies?{keyword}={quote(asked)}"))

    for asked in (
        value,
        value.strip(),
        f"{text.lower()} ÜBERSICHT",
        f"{text} übersicht   ",
    ):
        assert (asked, found(asked)) == (asked, [one.study])
    for asked in (text, f"{text} Ubersicht", f" {text} Übersicht", "bersicht"):
        assert (asked, found(asked)) == (asked, [])


@covers("8.3.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("keyword", ["PatientName", "ReferringPhysicianName"])
def test_names_match_whole_without_case_and_accents(api, keyword, version):
    text = token()
    one = made(**{keyword: f"Tá{text}^José"})
    store(api, one)

    def found(asked):
        return uids(api.search(f"/{version}/studies?{keyword}={quote(asked)}"))

    for asked in (f"Tá{text}^José", f"Ta{text}^Jose", f"TA{text.lower()}^JÒSE  "):
        assert (asked, found(asked)) == (asked, [one.study])
    for asked in (f"Ta{text}", f"Jose^Ta{text}", f"Ta{text} Jose"):
        assert (asked, found(asked)) == (asked, [])


@covers("8.3.3", "8.6.3")
@pytest.mark.parametrize("version", VERSIONS)
def test_modalities_in_study_matches_any_modality_of_the_study(api, version):
    text = token()
    one = made(PatientID=text, Modality="CT")
    store(api, one, made(one, PatientID=text, Modality="SEG"))
    path = f"/{version}/studies?PatientID={text}"
    for modality in ("CT", "SEG", "seg", "CT "):
        found = api.search(f"{path}&ModalitiesInStudy={modality}")
        assert uids(found) == [one.study]
        assert sorted(found[0]["00080061"]["Value"]) == ["CT", "SEG"]
    for modality in ("MR", "C", "SEGX"):
        assert api.search(f"{path}&ModalitiesInStudy={modality}") == []


@covers("8.3.4")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("resource", "keyword"),
    [
        ("studies", "StudyDate"),
        ("studies", "PatientBirthDate"),
        ("series", "PerformedProcedureStepStartDate"),
    ],
)
def test_dates_match_exactly_or_by_range(api, resource, keyword, version):
    text = token()
    one = made(PatientID=text, **{keyword: "20240229"})
    store(api, one)
    path = f"/{version}/{resource}?PatientID={text}&{keyword}="
    for date in (
        "20240229",
        "20240229-20240229",
        "20240228-20240301",
        "20240229-",
        "-20240229",
        "%2020240101%20-%2020241231%20",
    ):
        assert (date, uids(api.search(path + date))) == (date, [one.study])
    for date in ("20240228", "20240301-", "-20240228", "20230101-20240228"):
        assert (date, api.search(path + date)) == (date, [])


FUZZY = ["joh", "do", "jo do", "Doe", "John Doe", "JOHN^DOE", "DÓ", "john^d", "Doe=Bi"]
NOT_FUZZY = ["ohn", "do jo", "johnd", "jo x", "jo do x"]


@covers("8.3.5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("keyword", ["PatientName", "ReferringPhysicianName"])
def test_fuzzy_names_match_consecutive_starts_of_words(api, keyword, version):
    text = token()
    one = made(PatientID=text, **{keyword: "Jóhn^Doe=Bim"})
    store(api, one)
    path = f"/{version}/studies?PatientID={text}&fuzzymatching=true&{keyword}="
    for asked in FUZZY:
        assert (asked, uids(api.search(path + quote(asked)))) == (asked, [one.study])
    for asked in NOT_FUZZY:
        assert (asked, api.search(path + quote(asked))) == (asked, [])


@covers("8.3.5")
def test_fuzzy_names_are_found_from_series_and_instances_too(api):
    text = token()
    one = made(PatientName=f"Van{text} Beek^Piet")
    store(api, one)
    query = f"fuzzymatching=true&PatientName=van{text}%20be%20p"
    assert uids(api.search(f"/v2/series?{query}"), SERIES_UID) == [one.series]
    assert uids(api.search(f"/v2/instances?{query}"), SOP_UID) == [one.sop]


@covers("8.3.6", "8.7.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_filter_everything_is_found_newest_first(api, version):
    ones = [made() for _ in range(3)]
    for one in ones:
        store(api, one)
    newest = list(reversed(ones))
    studies = api.search(f"/{version}/studies?limit=3")
    assert uids(studies) == [one.study for one in newest]
    series = api.search(f"/{version}/series?limit=3")
    assert uids(series, SERIES_UID) == [one.series for one in newest]
    instances = api.search(f"/{version}/instances?limit=3")
    assert uids(instances, SOP_UID) == [one.sop for one in newest]


@covers("8.7.1")
def test_a_study_keeps_its_place_when_more_is_stored_into_it(api):
    text = token()
    old, new = made(PatientID=text), made(PatientID=text)
    store(api, old)
    store(api, new)
    more = made(old, PatientID=text)
    store(api, more)
    path = f"?PatientID={text}"
    assert uids(api.search(f"/v2/studies{path}")) == [new.study, old.study]
    assert uids(api.search(f"/v2/series{path}"), SERIES_UID) == [
        more.series,
        new.series,
        old.series,
    ]


@covers("8.4.1")
@pytest.mark.parametrize("version", VERSIONS)
def test_all_core_attributes_can_be_searched_by(api, version):
    text = token()
    values = {
        "StudyDate": ("00080020", "20010203"),
        "StudyDescription": ("00081030", f"Description {text}"),
        "AccessionNumber": ("00080050", text),
        "PatientID": ("00100020", f"ID {text}"),
        "PatientName": ("00100010", f"Name{text}^First"),
        "PatientBirthDate": ("00100030", "19450607"),
        "ReferringPhysicianName": ("00080090", f"Doctor{text}^First"),
        "Modality": ("00080060", "MG"),
        "PerformedProcedureStepStartDate": ("00400244", "20010204"),
        "ManufacturerModelName": ("00081090", f"Model {text}"),
    }
    one = made(**{keyword: value for keyword, (_, value) in values.items()})
    other = made(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    store(api, one, other)
    values["StudyInstanceUID"] = (STUDY_UID, one.study)
    values["SeriesInstanceUID"] = (SERIES_UID, one.series)
    values["SOPInstanceUID"] = (SOP_UID, one.sop)
    values["SOPClassUID"] = ("00080016", "1.2.840.10008.5.1.4.1.1.2")
    values["ModalitiesInStudy"] = ("00080061", "MG")
    assert len(values) == 15
    for keyword, (tag, value) in values.items():
        for key in (keyword, tag):
            path = f"/{version}/instances?{key}={quote(value)}"
            found = (
                api.search(f"{path}&StudyInstanceUID={one.study}")
                if (key not in {"StudyInstanceUID", STUDY_UID})
                else api.search(path)
            )
            assert (key, uids(found, SOP_UID)) == (key, [one.sop])
            if key not in {"StudyInstanceUID", STUDY_UID}:
                path = f"{path}&StudyInstanceUID={other.study}"
                assert (key, api.search(path)) == (key, [])


# --- paging and answers --------------------------------------------------------------


@covers("8.7.2")
@pytest.mark.parametrize("resource", ["studies", "series", "instances"])
def test_pages_have_neither_gaps_nor_overlaps(api, resource):
    text = token()
    ones = [made(PatientID=text) for _ in range(7)]
    for one in ones:
        store(api, one)
    path = f"/v2/{resource}?PatientID={text}"
    whole = uids(api.search(path))
    assert whole == [one.study for one in reversed(ones)]
    for limit in (1, 2, 3, 7, 8):
        pages = [
            uids(api.search(f"{path}&limit={limit}&offset={offset}"))
            for offset in range(0, 7, limit)
        ]
        assert list(itertools.chain(*pages)) == whole


@covers("8.7.3", "9.7")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_study_is_found_as_long_as_an_instance_is_left(api, version):
    text = token()
    one = made(PatientID=text)
    beside = made(one, PatientID=text, same_series=True)
    store(api, one, beside)
    path = f"/{version}/studies?PatientID={text}"
    assert uids(api.search(path)) == [one.study]
    api.delete(f"/{version}{one.path}")
    assert uids(api.search(path)) == [one.study]
    api.delete(f"/{version}{beside.path}")
    assert api.search(path) == []


@covers("8.8.1", "8.8.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_results_are_200_with_dicom_json_and_none_are_204(api, version):
    one = made()
    store(api, one)
    for resource, key, uid in (
        ("studies", "StudyInstanceUID", one.study),
        ("series", "SeriesInstanceUID", one.series),
        ("instances", "SOPInstanceUID", one.sop),
    ):
        answer = api.read(f"/{version}/{resource}?{key}={uid}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == DICOM_JSON
        assert len(answer.json()) == 1
        for query in (f"{key}=1.2.404", f"{key}={uid}&offset=1"):
            none = api.read(f"/{version}/{resource}?{query}")
            assert (none.status_code, none.content) == (204, b"")


@covers("8.8.3", "3.4")
@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("accept", ["application/dicom", "text/html", ""])
def test_a_refused_accept_is_406(api, resource, accept):
    answer = api.read(f"/v2/{resource}", accept)
    assert (answer.status_code, answer.content) == (406, b"")
    assert api.get(f"/v2/{resource}").status_code == 406


# --- decisions of ours ---------------------------------------------------------------


@covers("D6.1")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "{}-Ab-12"),
        ("StudyDescription", "{}-Ab-12"),
        ("AccessionNumber", "{}-A2"),
        ("PatientName", "{}-Áb^12"),
        ("ReferringPhysicianName", "{}-Ab^x=12"),
    ],
)
def test_wildcards_match_in_texts_and_names(api, keyword, value, version):
    text = token()
    one = made(**{keyword: value.format(text)})
    store(api, one)

    def found(asked):
        return uids(api.search(f"/{version}/studies?{keyword}={quote(asked)}"))

    for asked in (f"{text}*", f"{text.lower()}-a*", f"*{text}-?*", f"?{text[1:]}*2"):
        assert (asked, found(asked)) == (asked, [one.study])
    for asked in (f"{text}?", f"?{text}*", f"{text}*x", f"{text}-?"):
        assert (asked, found(asked)) == (asked, [])


@covers("D6.1")
@pytest.mark.parametrize("special", ["%", "_", "[a]", "^", "%_"])
def test_what_is_special_to_an_index_is_a_plain_character(api, special):
    text = token()
    one = made(PatientName=f"{text}{special}end")
    other = made(PatientName=f"{text}xyend")
    store(api, one, other)
    for asked in (f"{text}{special}*", f"*{text}{special}e?d"):
        found = api.search(f"/v2/studies?PatientName={quote(asked)}")
        assert uids(found) == [one.study]


@covers("D6.1")
@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        ("C*", True),
        ("?T", True),
        ("s*g", True),
        ("*E*", True),
        ("*", True),
        ("C?R", False),
        ("?", False),
        ("S*R", False),
        ("*X", False),
    ],
)
def test_wildcards_match_modalities_whole(api, asked, matches):
    text = token()
    one = made(PatientID=text, Modality="CT")
    store(api, one, made(one, PatientID=text, Modality="SEG"))
    query = f"PatientID={text}&ModalitiesInStudy={quote(asked)}"
    for resource in ("studies", "series", "instances"):
        found = {*uids(api.search(f"/v2/{resource}?{query}"))}
        assert found == ({one.study} if matches else set())


@covers("D6.1")
def test_wildcards_are_plain_characters_in_dates_and_uids(api):
    assert api.read("/v2/studies?StudyDate=2024*").status_code == 400
    one = made()
    store(api, one)
    assert api.search(f"/v2/studies?StudyInstanceUID={one.study[:-1]}*") == []


@covers("D6.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mark", [",", "%5C", "%5c"])
def test_lists_of_uids_match_any_of_them(api, mark, version):
    ones = [made() for _ in range(3)]
    store(api, *ones)
    studies = mark.join([ones[0].study, "1.2.404", ones[2].study])
    found = api.search(f"/{version}/studies?StudyInstanceUID={studies}")
    assert uids(found) == [ones[2].study, ones[0].study]
    series = mark.join(one.series for one in ones)
    found = api.search(f"/{version}/series?SeriesInstanceUID={series}")
    assert uids(found, SERIES_UID) == [one.series for one in reversed(ones)]
    instances = mark.join([ones[1].sop, ones[1].sop])
    found = api.search(f"/{version}/instances?SOPInstanceUID={instances}")
    assert uids(found, SOP_UID) == [ones[1].sop]


@covers("D6.2", "3.2")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_list_of_too_many_codes_is_400_and_a_long_one_is_not(api, version):
    one = made(Modality="M499")
    store(api, one)
    codes = [f"M{number}" for number in range(501)]
    for resource, key in (("studies", "ModalitiesInStudy"), ("series", "Modality")):
        search = f"/{version}/{resource}?StudyInstanceUID={one.study}&{key}="
        assert uids(api.search(search + ",".join(codes[:500]))) == [one.study]
        answer = api.read(search + ",".join(codes))
        assert (answer.status_code, "500" in answer.text) == (400, True)


@covers("D6.3", "8.5.9")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", ["", "%20", "*"])
def test_an_empty_value_matches_everything_and_is_returned(api, value, version):
    with_value = made(ManufacturerModelName="M")
    without = made(with_value, ManufacturerModelName=None)
    store(api, with_value, without)
    path = f"/{version}{with_value.study_path}/series?ManufacturerModelName={value}"
    found = api.search(path)
    assert uids(found, SERIES_UID) == [without.series, with_value.series]
    assert first(found[1]["00081090"]) == "M"
    assert "00081090" not in found[0]


@covers("D6.4")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", ["all,Manufacturer", "Manufacturer,All"])
def test_all_can_stand_beside_other_fields(api, order, version):
    one = made()
    store(api, one)
    path = f"/{version}/studies?StudyInstanceUID={one.study}&includefield="
    [everything] = api.search(f"{path}all")
    [more] = api.search(path + order)
    assert more.keys() == everything.keys() | {"00080070"}


@covers("D6.8", "8.7.2")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", ["studies", "series", "instances"])
def test_next_pages_are_linked_by_cursor(api, resource, version):
    text = token()
    ones = [made(PatientID=text) for _ in range(5)]
    for one in ones:
        store(api, one)
    path = f"/{version}/{resource}?PatientID={text}&limit=2&includefield=StudyID"
    pages = []
    while path:
        answer = api.read(path)
        assert answer.status_code == 200
        assert all("00200010" in row for row in answer.json())
        pages.append(uids(answer.json()))
        path = _next(api, answer)
    newest = [one.study for one in reversed(ones)]
    assert pages == [newest[:2], newest[2:4], newest[4:]]


def _next(api, answer):
    """Path of the page that the Link header names; nothing at the end."""
    if "link" not in answer.headers:
        return None
    url, relation = answer.headers["link"].split("; ")
    assert relation == 'rel="next"'
    assert url.startswith(f"<{api.base_url}".rstrip("/"))
    parts = urlsplit(url[1:-1])
    assert "cursor=" in parts.query
    return f"{parts.path}?{parts.query}"


@covers("D6.8")
def test_a_page_by_cursor_misses_nothing_when_newer_studies_come(api):
    text = token()
    ones = [made(PatientID=text) for _ in range(4)]
    for one in ones:
        store(api, one)
    page = api.read(f"/v2/studies?PatientID={text}&limit=2")
    store(api, made(PatientID=text))
    api.delete(f"/v2{ones[3].study_path}")
    rest = api.search(_next(api, page))
    assert uids(rest) == [ones[1].study, ones[0].study]


@covers("D6.8")
@pytest.mark.parametrize("cursor", ["", "x", "1" * 200, "-1", "1&offset=1"])
def test_a_cursor_that_was_not_given_is_400(api, cursor):
    assert api.read(f"/v2/studies?cursor={cursor}").status_code == 400
