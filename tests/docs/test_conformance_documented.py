import re
from pathlib import Path

import pytest
from pydicom.uid import AllTransferSyntaxes

from dicomweb import attributes
from dicomweb.query_tags import Level
from dicomweb.store_response import FailureReason, WarningReason
from dicomweb.transcoding import EXPLICIT_LITTLE, TARGETS, can_transcode

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # younger than pydicom's table
DOCS = Path(__file__).parents[2] / "docs"
PAGES = {version: DOCS / f"conformance-v{version}.md" for version in (1, 2)}


def uids(text: str) -> set[str]:
    """Transfer syntaxes of a sentence; `.51` goes on from the UID before it."""
    found: list[str] = []
    for item in re.findall(r"1\.2\.840\.10008[.0-9]*\d|(?<= )\.\d+", text):
        start = found[-1].rpartition(".")[0] if item.startswith(".") else ""
        found.append(start + item)
    return set(found)


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.name)
def test_the_transfer_syntaxes_that_are_transcoded_are_those_of_the_code(page):
    [line] = re.findall(
        r"^Instances are transcoded from (.*)$", page.read_text(), re.MULTILINE
    )
    known = {*map(str, AllTransferSyntaxes), DEFLATED_FRAMES}
    assert uids(line) == {uid for uid in known if can_transcode(uid, EXPLICIT_LITTLE)}
    rows = re.findall(r"^\| (1\.2\.840[.0-9]*) \|", page.read_text(), re.MULTILINE)
    assert rows == list(TARGETS)


@pytest.mark.parametrize(
    ("version", "reasons"),
    [
        (1, [*FailureReason, WarningReason.IMPLICIT_VR]),
        (2, [*FailureReason, *WarningReason]),
    ],
)
def test_the_reasons_of_a_store_are_those_of_the_code(version, reasons):
    page = PAGES[version].read_text()
    documented = re.findall(r"^\| (\d+) \| ([0-9A-F]{4}) \|", page, re.MULTILINE)
    assert documented == [(str(int(one)), f"{int(one):04X}") for one in reasons]


def test_the_attributes_that_version_1_refuses_for_are_those_it_searches_by():
    [line] = re.findall(
        r"^Searchable attributes are (.*)\.$", PAGES[1].read_text(), re.MULTILINE
    )
    searched = {one.keyword for one in attributes.CORE if not one.computed}
    assert set(re.split(", | and ", line)) == searched


LEVELS = ("study", "series", "instance")
DEFAULTS = {
    1: (attributes.STUDY_V1, attributes.SERIES_V1, attributes.INSTANCE_V1),
    2: (attributes.STUDY_V2, attributes.SERIES_V2, attributes.INSTANCE_V2),
}
ALL = (attributes.STUDY_ALL, attributes.SERIES_ALL, attributes.INSTANCE_ALL)


def keywords(tags):
    return [attributes.keyword_of(tag) for tag in tags]


@pytest.mark.parametrize("version", PAGES)
def test_the_attributes_of_searches_are_those_of_the_code(version):
    page = PAGES[version].read_text()
    for level, default, every in zip(LEVELS, DEFAULTS[version], ALL, strict=True):
        [searched] = re.findall(rf"^\| {level} \| ([^|]*) \|$", page, re.MULTILINE)
        of_level = [one for one in attributes.CORE if one.level is Level[level.upper()]]
        assert searched.split(", ") == [one.keyword for one in of_level]
        [(shown, more)] = re.findall(
            rf"^\| {level} \| ([A-Z][^|]*) \| ([^|]*) \|$", page, re.MULTILINE
        )
        assert shown.split(", ") == keywords(default)
        rest = [tag for tag in every if tag not in default]
        assert more.split(", ") == (keywords(rest) or ["none"])
