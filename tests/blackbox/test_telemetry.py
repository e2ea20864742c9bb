"""What a server sends to Azure Monitor, received by a collector of the test's own."""

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from blackbox.api import AS_STORED, Api, made

CANARY = "CANARY51D2"
INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes envelopes at `url`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.envelopes: list[dict[str, Any]] = []
        self.paths: set[str] = set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The envelopes of one kind, `RequestData` or `MetricData`."""
        return [each for each in self.envelopes if each["data"]["baseType"] == kind]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        envelopes = json.loads(body)
        self.server.envelopes += envelopes
        self.server.paths.add(self.path)
        count = len(envelopes)
        answer = {"itemsReceived": count, "itemsAccepted": count, "errors": []}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def test_requests_and_their_costs_reach_azure_monitor_and_no_patient(serve, collector):
    key = "11111111-2222-3333-4444-555555555555"
    connection = f"InstrumentationKey={key};IngestionEndpoint={collector.url}"
    running = serve(APPLICATIONINSIGHTS_CONNECTION_STRING=connection)
    file = made(PatientName=CANARY, PatientID=CANARY)
    traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with Api(running.url) as api:
        assert api.store(file.file).is_success
        api.headers.update(traced)
        assert api.read(f"/v2{file.path}", AS_STORED).is_success
        assert api.read(f"/v2/studies?PatientName={CANARY}").is_success
        assert api.read("/v2/studies/1.2.3", AS_STORED).status_code == 404
    assert running.stop() == 0  # what is left is sent before it ends

    spans = [each["data"]["baseData"] for each in collector.of("RequestData")]
    found = [
        (each["name"], each["properties"]["dicom.transaction"], each["responseCode"])
        for each in spans
    ]
    assert found == [
        ("POST /studies", "StoreInstances", "200"),
        (f"GET {INSTANCE}", "RetrieveInstance", "200"),
        ("GET /studies", "SearchForStudies", "200"),
        ("GET /studies/{study}", "RetrieveStudy", "404"),
    ]
    costs = spans[0]["properties"]
    assert int(costs["dicom.bytes_in"]) > len(file.file)
    assert float(costs["dicom.cpu"]) > 0
    assert costs["dicom.instances_stored"] == "1"
    retrieved = spans[1]["properties"]
    assert retrieved["dicom.instances_retrieved"] == "1"
    assert int(retrieved["dicom.bytes_out"]) > len(file.file)
    tags = collector.of("RequestData")[1]["tags"]
    assert tags["ai.operation.id"] == TRACE
    assert tags["ai.operation.parentId"] == PARENT

    metrics = {
        each["data"]["baseData"]["metrics"][0]["name"]
        for each in collector.of("MetricData")
    }
    assert metrics >= {
        "http.server.request.duration",
        "dicom.cpu",
        "dicom.bytes_in",
        "dicom.bytes_out",
        "dicom.instances_stored",
        "dicom.instances_retrieved",
    }
    assert all("track" in path for path in collector.paths)
    sent = json.dumps(collector.envelopes)
    assert CANARY not in sent
    assert file.study not in sent


def test_a_collector_that_is_away_holds_nothing_up(serve):
    connection = (
        "InstrumentationKey=11111111-2222-3333-4444-555555555555;"
        "IngestionEndpoint=http://127.0.0.1:9/"
    )
    running = serve(APPLICATIONINSIGHTS_CONNECTION_STRING=connection)
    with Api(running.url) as api:
        assert api.store(made().file).is_success
        assert api.get("/health/check").status_code == 200
    assert running.stop() == 0
