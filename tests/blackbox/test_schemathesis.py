"""Requests made from our own OpenAPI descriptions: no 5xx, answers as described.

`SCHEMATHESIS_EXAMPLES` says how many requests each operation gets of each kind: valid
ones to resources that exist, valid ones to any, and broken ones. They are the same in
every run.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from blackbox.api import Api, Made, made
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "3"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
VERSIONS = ["v1", "v2"]
REFUSED = ("/partitions", "/export")
"""Partitions are off here, and there is nowhere to export to."""
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 60 * EXAMPLES)]


@schemathesis.serializer("application/dicom", "multipart/related")
def as_bytes(_context: Any, value: Any) -> bytes:
    """The body as it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass
class Place:
    """A server with an instance on it."""

    api: Api
    one: Made

    def restore(self) -> None:
        """Puts back what an operation before may have deleted."""
        assert self.api.store(self.one.file).status_code in {200, 409}

    def known(self, operation: Any) -> Any:
        """Requests with parameters and bodies that mean what exists."""
        values = {
            "study": self.one.study,
            "series": self.one.series,
            "instance": self.one.sop,
            "frames": "1,2",
            "frame": 2,
            "path": "7FE00010",
            "tag": "PatientAge",
            "operation": self.operation(),
        }
        names = {each.name for each in operation.iter_parameters()}
        given = {name: value for name, value in values.items() if name in names}
        body = self.body(operation.definition.raw["operationId"])
        return operation.as_strategy(
            GenerationMode.POSITIVE, path_parameters=given, **body
        )

    def operation(self) -> str:
        """The newest operation of the server; one that cannot be, where there is none."""
        listed = self.api.get("/v2/operations").json()
        return listed[0]["operationId"] if listed else "0" * 32

    def body(self, operation_id: str) -> dict[str, Any]:
        """A body that is accepted, and its type; nothing where there is none."""
        if operation_id.startswith("StoreInstances"):
            one = made(self.one)
            return {"body": one.file, "media_type": "application/dicom"}
        bodies: dict[str, Any] = {
            "AddExtendedQueryTags": [{"path": "PatientAge", "level": "Study"}],
            "UpdateExtendedQueryTag": {"queryStatus": "disabled"},
            "BulkUpdateStudies": {
                "studyInstanceUids": [self.one.study],
                "changeDataset": {"00100020": {"vr": "LO", "Value": ["P-2"]}},
            },
        }
        if operation_id not in bodies:
            return {}
        return {"body": bodies[operation_id], "media_type": "application/json"}


@pytest.fixture(scope="module")
def place(serve) -> Iterator[Place]:
    running = serve()
    one = made(frames=3)
    with Api(running.url) as api:
        assert api.store(one.file).status_code == 200
        yield Place(api, one)
    running.stop()


@pytest.mark.filterwarnings("ignore::UserWarning:schemathesis")
@pytest.mark.parametrize("version", VERSIONS)
def test_no_request_breaks_the_server_or_its_description(place, version):
    document = place.api.get(f"/{version}/api.json").json()
    described = schemathesis.openapi.from_dict(document)
    operations = [each.ok() for each in described.get_all_operations()]
    assert len(operations) > 25
    operations.sort(key=lambda operation: operation.method == "delete")
    statuses: dict[str, set[int]] = {}
    with requests.Session() as session:
        for operation in operations:
            found = statuses[operation.label] = set()
            place.restore()
            send(place.known(operation), place, session, found)
            send(operation.as_strategy(), place, session, found)
            malformed = operation.as_strategy(GenerationMode.NEGATIVE)
            with contextlib.suppress(Unsatisfiable):  # nothing in it can be malformed
                send(malformed, place, session, found)
    for label, found in statuses.items():
        wanted = {400} if label.endswith(REFUSED) else {200, 201, 202, 204}
        if label.startswith("DELETE") and "operations" in label:
            wanted.add(409)  # it may have ended already
        assert found & wanted, label


def send(
    strategy: Any, place: Place, session: requests.Session, found: set[int]
) -> None:
    """Sends what the strategy makes and checks the answers."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=QUIET,
    )
    @given(case=strategy)
    def run(case: Case) -> None:
        answer = case.call_and_validate(
            base_url=str(place.api.base_url), session=session, checks=CHECKS
        )
        found.add(answer.status_code)

    run()
