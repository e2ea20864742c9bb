"""What an export asks for."""

import json

import pytest

from dicomweb import export
from dicomweb.errors import InvalidRequest
from dicomweb.export import Identifier


def body(values=("1.2",), type="identifiers", destination=None):
    return {
        "source": {"type": type, "settings": {"values": list(values)}},
        "destination": destination
        or {"type": "azureBlob", "settings": {"blobContainerUri": "x"}},
    }


def test_identifiers_of_three_levels_each_once_and_covered_ones_known():
    request = export.parse(
        body(["1.2/3/4", "1.5", "1.2/3", "1.2/3/4 ", "1.5/6", "1.20/3"])
    )
    assert request.identifiers == (
        Identifier(("1.2", "3", "4"), covered=True),
        Identifier(("1.5",)),
        Identifier(("1.2", "3")),
        Identifier(("1.5", "6"), covered=True),
        Identifier(("1.20", "3")),
    )
    assert request.identifiers[0].text == "1.2/3/4"


def test_names_have_no_case():
    request = export.parse(
        {
            "SOURCE": {"Type": "Identifiers", "Settings": {"VALUES": ["1.2"]}},
            "Destination": {"TYPE": "AzureBlob", "settings": {"BLOBContainerUri": "x"}},
        }
    )
    assert request.type == "azureblob"
    assert request.settings == {"blobcontaineruri": "x"}


@pytest.mark.parametrize(
    "value", ["", "x", "1.2/", "/1.2", "1.2/3/4/5", "1.2//3", 12, None, "1.2/x", "a/b"]
)
def test_what_is_no_identifier_is_refused(value):
    with pytest.raises(InvalidRequest, match="no DICOM identifier"):
        export.parse(body(["1.2", value]))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"source": body()["source"]},
        {"destination": body()["destination"]},
        body(type="query"),
        body(type=""),
        body(values=[]),
        body() | {"source": {"type": "identifiers"}},
        body() | {"source": {"type": "identifiers", "settings": {"values": "1.2"}}},
        body() | {"destination": {"type": "azureBlob"}},
        body() | {"destination": {"settings": {}}},
        body() | {"destination": "azureBlob"},
    ],
)
def test_a_body_of_another_form_is_refused(wrong):
    with pytest.raises(InvalidRequest):
        export.parse(wrong)


def test_names_and_log_of_the_results():
    assert export.file_name("f" * 32, "1.2 ", "3\0", "4") == (
        f"{'f' * 32}/results/1.2/3/4.dcm"
    )
    rows = [{"timestamp": "t", "identifier": "1.2", "error": 'a "quoted" word\n'}] * 2
    lines = export.log_of(rows).decode().splitlines()
    assert [json.loads(line) for line in lines] == rows
