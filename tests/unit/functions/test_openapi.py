"""The description of the API."""

import jsonschema_rs
import pytest
import schemathesis
import yaml

from functions.call import VERSIONS
from functions.openapi import describe
from functions.routes import DESCRIBED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("partitions", [False, True])
def test_the_description_can_be_used_by_others(version, partitions):
    document = describe(DESCRIBED, version, partitions=partitions)
    schema = schemathesis.openapi.from_dict(document)
    operations = [operation.ok() for operation in schema.get_all_operations()]
    here = [route for route in DESCRIBED if version not in route.absent_from]
    assert len(operations) == len(here)
    assert all(operation.path.startswith(f"/{version}/") for operation in operations)
    named = sum("/partitions/{partition}/" in each.path for each in operations)
    assert named == (sum(r.in_partitions for r in here) if partitions else 0)


async def test_yaml_and_json_say_the_same(server):
    json = await server.get("/v2/api.json")
    text = await server.get("/v2/api.yaml")
    assert json.headers["content-type"] == "application/json"
    assert text.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(text.text) == json.json()
    assert json.json()["servers"] == [{"url": "http://host:8080"}]
    assert json.json()["info"]["version"] == "2"


@pytest.mark.parametrize(
    ("dataset", "is_valid"),
    [
        ({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A"}, None]}}, True),
        ({"00081140": {"vr": "SQ", "Value": [{"00080005": {"vr": "CS"}}]}}, True),
        ({"7FE00010": {"vr": "OW", "BulkDataURI": "http://x"}}, True),
        ({"PatientName": {"vr": "PN"}}, False),
        ({"00100010": {"Value": ["A"]}}, False),
    ],
)
def test_data_sets_are_described_as_dicom_json(dataset, is_valid):
    components = describe(DESCRIBED, "v2", partitions=False)["components"]
    schema = {"$ref": "#/components/schemas/DataSet", "components": components}
    assert jsonschema_rs.is_valid(schema, dataset) is is_valid
