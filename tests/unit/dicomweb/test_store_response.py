"""The response of STOW-RS."""

import pytest

from dicomweb.store_response import (
    FailureReason,
    Refused,
    Stored,
    WarningReason,
    build,
    multiple_values_warning,
)

BASE = "https://host/v2/partitions/p"
STORED = Stored("1.1", "1.2", "1.3", "1.4")
WARNED = Stored(
    "1.1", "1.2", "1.3", "1.5", WarningReason.VALIDATION, ("DICOM100: (0008,0020) - x",)
)
IMPLICIT = Stored("1.1", "1.2", "1.3", "1.6", WarningReason.IMPLICIT_VR)
EXISTS = Refused(FailureReason.INSTANCE_ALREADY_EXISTS, "1.3", "1.7")
INVALID = Refused(FailureReason.DATA_SET_DOES_NOT_MATCH, "1.3", "1.8", ("DICOM100: y",))
UNREADABLE = Refused(FailureReason.DATA_SET_DOES_NOT_MATCH)


def respond(*outcomes, version=2, is_study_in_path=False):
    return build(
        outcomes, version=version, base_url=BASE, is_study_in_path=is_study_in_path
    )


@pytest.mark.parametrize(
    ("outcomes", "v1", "v2"),
    [
        ((), 204, 204),
        ((STORED,), 200, 200),
        ((STORED, WARNED), 200, 202),
        ((IMPLICIT,), 200, 202),
        ((STORED, EXISTS), 202, 202),
        ((EXISTS,), 409, 409),
        ((INVALID, UNREADABLE), 409, 409),
    ],
)
def test_the_status_tells_whether_all_some_or_none_was_stored(outcomes, v1, v2):
    assert respond(*outcomes, version=1).status == v1
    assert respond(*outcomes, version=2).status == v2


def test_without_instances_there_is_no_data_set():
    assert respond().dataset is None


def referenced(sop_instance_uid):
    return {
        "00081150": {"vr": "UI", "Value": ["1.3"]},
        "00081155": {"vr": "UI", "Value": [sop_instance_uid]},
        "00081190": {
            "vr": "UR",
            "Value": [f"{BASE}/studies/1.1/series/1.2/instances/{sop_instance_uid}"],
        },
    }


def test_stored_instances_are_referenced_with_their_warnings():
    assert respond(STORED, WARNED, IMPLICIT).dataset == {
        "00081199": {
            "vr": "SQ",
            "Value": [
                referenced("1.4") | {"00741048": {"vr": "SQ"}},
                referenced("1.5")
                | {
                    "00081196": {"vr": "US", "Value": [1]},
                    "00741048": {
                        "vr": "SQ",
                        "Value": [
                            {
                                "00000902": {
                                    "vr": "LO",
                                    "Value": ["DICOM100: (0008,0020) - x"],
                                }
                            }
                        ],
                    },
                },
                referenced("1.6")
                | {
                    "00081196": {"vr": "US", "Value": [45063]},
                    "00741048": {"vr": "SQ"},
                },
            ],
        }
    }


def test_version_1_has_no_comments_on_stored_instances():
    assert respond(STORED, version=1).dataset == {
        "00081199": {"vr": "SQ", "Value": [referenced("1.4")]}
    }


def test_refused_instances_are_listed_as_far_as_they_could_be_read():
    assert respond(EXISTS, INVALID, UNREADABLE).dataset == {
        "00081198": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": ["1.3"]},
                    "00081155": {"vr": "UI", "Value": ["1.7"]},
                    "00081197": {"vr": "US", "Value": [45070]},
                },
                {
                    "00081150": {"vr": "UI", "Value": ["1.3"]},
                    "00081155": {"vr": "UI", "Value": ["1.8"]},
                    "00081197": {"vr": "US", "Value": [43264]},
                    "00741048": {
                        "vr": "SQ",
                        "Value": [{"00000902": {"vr": "LO", "Value": ["DICOM100: y"]}}],
                    },
                },
                {"00081197": {"vr": "US", "Value": [43264]}},
            ],
        }
    }


def test_the_study_has_its_url_when_the_path_named_it_and_something_was_stored():
    dataset = respond(STORED, EXISTS, is_study_in_path=True).dataset
    assert dataset is not None
    assert list(dataset) == ["00081190", "00081198", "00081199"]
    assert dataset["00081190"] == {"vr": "UR", "Value": [f"{BASE}/studies/1.1"]}
    assert list(respond(EXISTS, is_study_in_path=True).dataset or ()) == ["00081198"]


def test_several_values_of_an_indexed_attribute_give_one_warning_header():
    assert multiple_values_warning("host").startswith('299 host: "One or more indexed')
    assert multiple_values_warning(None).startswith("299 -: ")
