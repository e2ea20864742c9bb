"""Searches with any text in any place: 200, 204 or 400, never an error of the server.

`HOSTILE_SEARCHES` says how many; they are the same in every run.
"""

import os
from random import Random
from urllib.parse import quote

import pytest
from blackbox.api import made
from blackbox.rules import covers
from blackbox.stacks import STACK

SEARCHES = int(
    os.environ.get("HOSTILE_SEARCHES", "400" if STACK == "embedded" else "60")
)
RESOURCES = [
    "studies",
    "series",
    "instances",
    "studies/1.2/series",
    "studies/1.2/instances",
    "studies/1.2/series/1.3/instances",
]
KEYS = [
    *("StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber"),
    *("PatientID", "PatientName", "PatientBirthDate", "ReferringPhysicianName"),
    *("ModalitiesInStudy", "Modality", "ManufacturerModelName", "SOPInstanceUID"),
    *("SeriesInstanceUID", "PerformedProcedureStepStartDate", "SOPClassUID"),
]
OPTIONS = ["limit", "offset", "fuzzymatching", "includefield", "cursor"]
PIECES = [
    *(
        "*",
        "?",
        "**",
        "%",
        "_",
        "'",
        '"',
        "\\",
        ",",
        "-",
        ".",
        ";",
        "--",
        "$",
        "(",
        "[",
    ),
    *("\0", "\n", "\t", "\x7f", "\u2028", "\ufeff", "\ud7ff", "\U0010ffff", "é", "ß"),
    *("e\u0301", "山田", "ﷺ", "🩻", "İ", "ǆ", "Ω", "1", "20240101", "1.2.3", "CT"),
    *(
        "a",
        "doe",
        "^",
        "=",
        "~",
        "|",
        " ",
        "+",
        "true",
        "all",
        "00100010",
        "NaN",
        "1e999",
    ),
    *("OR 1=1", "c.id", "@p0", "{{x}}", "../..", "9" * 30, "x" * 300, "*" * 60),
]


def text(random):
    return "".join(random.choices(PIECES, k=random.choice([0, 1, 1, 2, 3, 6, 20])))


def asked(random):
    """A path and query that may mean anything, or nothing."""
    parameters = []
    for _ in range(random.choice([1, 1, 2, 3])):
        name = random.choice([*KEYS, *KEYS, *OPTIONS, text(random)])
        parameters.append(f"{quote(name, safe='')}={quote(text(random), safe='')}")
    if random.random() < 0.3:
        parameters.append("fuzzymatching=true")
    return f"{random.choice(RESOURCES)}?{'&'.join(parameters)}"


@covers("8.2.5", "8.2.8", "3.2", "D6.1")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_no_text_breaks_a_search(api, version):
    random = Random(version)
    api.store(made().file)
    seen = set()
    for _ in range(SEARCHES):
        path = asked(random)
        status = api.read(f"/{version}/{path}").status_code
        assert status in {200, 204, 400}, path
        seen.add(status)
    assert {204, 400} <= seen
