"""Operations over HTTP, whatever the Durable client says of their orchestrations."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dicomweb.query_tags import Level
from dicomweb.tag_requests import NewTag
from functions.call import Call
from services import operations, query_tags
from services.operations import OperationStatus, OperationType, Progress

ID = "0123456789abcdef0123456789abcdef"
CREATED = "2026-01-01T00:00:00+00:00"
UPDATED = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
REINDEX = {
    "schema_version": 1,
    "created": CREATED,
    "paths": ["00101010"],
    "end": 200,
    "next": 50,
}
URL = f"/v2/operations/{ID}"


class Client:
    """The Durable client, as far as we use it."""

    def __init__(self) -> None:
        self.instances: dict[str, SimpleNamespace] = {}
        self.started: list[tuple[str, str, Any]] = []
        self.refuses = False

    def put(
        self,
        status: str,
        *,
        name: str = "Reindex",
        checkpoint: Any = REINDEX,
        output: Any = None,
        custom: Any = None,
    ) -> None:
        self.instances[ID] = SimpleNamespace(
            name=name,
            runtime_status=SimpleNamespace(name=status),
            input_=checkpoint,
            output=output,
            custom_status=custom,
            last_updated_time=UPDATED,
        )

    async def get_status(self, id: str, *, show_input: bool = False) -> Any:
        return self.instances.get(id)

    async def start_new(self, name: str, id: str, checkpoint: Any) -> str:
        if self.refuses:
            raise RuntimeError("it runs already, or the host does not answer")
        self.started.append((name, id, checkpoint))
        return id


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(Call, "client", property(lambda _: made))
    return made


@pytest.mark.parametrize(
    ("runtime_status", "status", "code"),
    [
        ("Pending", "notStarted", 202),
        ("Running", "running", 202),
        ("ContinuedAsNew", "running", 202),
        ("Suspended", "running", 202),
        ("Failed", "failed", 200),
        ("Canceled", "canceled", 200),
        ("Terminated", "canceled", 200),
    ],
)
async def test_an_operation_stands_as_its_orchestration_does(
    server, client, runtime_status, status, code
):
    client.put(runtime_status)
    answer = await server.get(URL)
    assert answer.status_code == code
    assert answer.json()["status"] == status
    assert ("location" in answer.headers) is (code == 202)


@pytest.mark.parametrize("status", ["succeeded", "canceled"])
async def test_a_completed_orchestration_says_itself_how_it_ended(
    server, client, status
):
    client.put("Completed", output={"status": status})
    assert (await server.get(URL)).json()["status"] == status


async def test_before_the_first_status_the_checkpoint_says_how_far_it_is(
    server, client
):
    client.put("Running")
    assert (await server.get(URL)).json() == {
        "operationId": ID,
        "type": "reindex",
        "createdTime": CREATED,
        "lastUpdatedTime": UPDATED.isoformat(),
        "status": "running",
        "percentComplete": 75,
        "resources": ["http://host:8080/v2/extendedquerytags/00101010"],
    }


async def test_the_custom_status_goes_before_the_checkpoint(server, client):
    custom = Progress(80, ("extendedquerytags/00101010",)).to_json()
    client.put("Running", custom=custom)
    assert (await server.get(URL)).json()["percentComplete"] == 80


async def test_json_within_json_is_read_however_deep(server, client):
    """The client library encodes once more than it decodes."""
    client.put(
        "Completed",
        checkpoint=json.dumps(json.dumps(REINDEX)),
        output=json.dumps({"status": "succeeded"}),
        custom=json.dumps(Progress(100).to_json()),
    )
    found = (await server.get(URL)).json()
    assert (found["status"], found["percentComplete"]) == ("succeeded", 100)


async def test_an_orchestration_of_another_name_is_no_operation(server, client):
    client.put("Running", name="Something")
    assert (await server.get(URL)).status_code == 404


async def test_errors_of_studies_are_shown_with_the_results(server, client):
    await operations.add_errors(server.runtime, ID, "1.2", ["1.2: it failed"])
    results = {"studyProcessed": 2, "studyUpdated": 1, "studyFailed": 1}
    client.put("Failed", custom=Progress(100, (), results).to_json())
    assert (await server.get(URL)).json()["results"] == {
        **results,
        "errors": ["1.2: it failed"],
    }


async def test_the_list_shows_how_they_stand_now(server, client):
    progress = Progress(0, ("extendedquerytags/00101010",))
    await operations.record(
        server.runtime,
        ID,
        OperationType.REINDEX,
        OperationStatus.RUNNING,
        CREATED,
        progress,
    )
    client.put("Terminated")
    [found] = (await server.get("/v2/operations")).json()
    assert found["status"] == "canceled"
    # It is recorded as running, and is not: no page says that it does.
    assert (await server.get("/v2/operations?status=running")).json() == []


async def test_one_that_the_task_hub_does_not_know_is_listed_as_recorded(
    server, client
):
    await operations.record(
        server.runtime,
        ID,
        OperationType.REINDEX,
        OperationStatus.NOT_STARTED,
        CREATED,
        Progress(0),
    )
    [found] = (await server.get("/v2/operations")).json()
    assert (found["operationId"], found["status"]) == (ID, "notStarted")


async def test_canceling_asks_and_ended_ones_refuse(server, client):
    client.put("Running")
    answer = await server.delete(URL)
    assert (answer.status_code, answer.json()["id"]) == (202, ID)
    assert await operations.is_canceled(server.runtime, ID)
    assert (await server.delete(URL)).status_code == 202
    client.put("Failed")
    assert (await server.delete(URL)).status_code == 409


async def test_tags_are_added_and_their_reindex_started(server, client):
    body = [{"path": "PatientAge", "level": "Study"}]
    answer = await server.post("/v2/extendedquerytags", json=body)
    [(name, id, checkpoint)] = client.started
    assert (answer.status_code, answer.json()["id"]) == (202, id)
    assert (name, checkpoint["paths"]) == ("Reindex", ["00101010"])
    tag = await query_tags.find(server.runtime, "00101010")
    assert tag.operation_id == id


async def test_a_start_that_another_one_came_before_is_no_error(server, client):
    client.refuses = True
    body = [{"path": "PatientAge", "level": "Study"}]

    async def get_status(id: str, **_: Any) -> Any:
        return SimpleNamespace(name="Reindex")

    client.get_status = get_status
    assert (await server.post("/v2/extendedquerytags", json=body)).status_code == 202


async def test_a_refused_request_resumes_what_a_crash_kept_from_starting(
    server, client
):
    age = NewTag("00101010", "AS", Level.STUDY)
    await query_tags.add(server.runtime, [age], ID)
    body = [{"path": "PatientSize", "level": "Study"}]
    answer = await server.post("/v2/extendedquerytags", json=body)
    assert answer.status_code == 409
    assert answer.headers["location"] == f"http://host:8080{URL}"
    [(name, id, checkpoint)] = client.started
    assert (name, id, checkpoint["paths"]) == ("Reindex", ID, ["00101010"])


async def test_a_reindex_that_was_ended_from_outside_is_in_nobodys_way(server, client):
    age = NewTag("00101010", "AS", Level.STUDY)
    await query_tags.add(server.runtime, [age], ID)
    client.put("Terminated")
    body = [{"path": "PatientSize", "level": "Study"}]
    assert (await server.post("/v2/extendedquerytags", json=body)).status_code == 202
    tag = await query_tags.find(server.runtime, age.path)
    assert tag.operation_id is None
