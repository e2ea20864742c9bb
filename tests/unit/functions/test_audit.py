"""Every audited route leaves its two entries, and no other leaves any."""

import json
import re
from typing import Any

import pytest

from functions.routes import HttpFunction, http_functions

VALUES = {
    "version": "v2",
    "partition": "radiology",
    "document": "api.yaml",
    "ignored": "",
    "tag": "00101010",
    "operation": "0123456789abcdef0123456789abcdef",
    "frame": "1",
    "frames": "1,2",
    "path": "7FE00010",
}
MEMBERS = [
    "ActionType",
    "EventType",
    "Audience",
    "Authority",
    "Action",
    "CorrelationId",
    "RequestUri",
    "Method",
    "CallerIPAddress",
    "Claims",
    "CustomHeaders",
]


def path_of(function: HttpFunction) -> str:
    def filled(segment: str) -> str:
        name = re.match(r"\{\*?([a-z]+)", segment)
        return VALUES.get(name[1], "1.2.3") if name else segment

    return "/" + "/".join(filled(part) for part in function.template.split("/"))


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        json.loads(record.getMessage())
        for record in caplog.records
        if record.name == "dicom.audit"
    ]


@pytest.mark.parametrize("partitions", [True, False])
async def test_each_audited_route_leaves_its_two_entries(
    running_server, tmp_path, caplog, partitions
):
    async with running_server(
        tmp_path, audit=True, data_partitions=partitions
    ) as server:
        for function in http_functions():
            for method in function.methods:
                caplog.clear()
                path = path_of(function)
                headers = {"Accept": "*/*", "X-MS-AzureDICOM-Audit-Why": "test"}
                response = await server.request(
                    method, f"{path}?PatientName=x", headers=headers
                )
                found = entries(caplog)
                if function.route.audit is None:
                    assert found == [], function.name
                    continue
                before, after = found
                assert list(before) == MEMBERS
                assert (
                    before
                    | {
                        "ActionType": "Executed",
                        "StatusCode": response.status_code,
                    }
                    == after
                )
                assert before == before | {
                    "ActionType": "Executing",
                    "Action": function.route.audit,
                    "RequestUri": f"http://host:8080{path}",
                    "Method": method,
                    "CorrelationId": response.headers["x-ms-request-id"],
                    "CustomHeaders": {"x-ms-azuredicom-audit-why": "test"},
                }


async def test_without_security_or_the_setting_there_is_no_audit_log(server, caplog):
    assert (await server.get("/v2/changefeed")).status_code == 200
    assert entries(caplog) == []


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v2/studies/Smith%5EJohn", "/v2/studies/…"),
        ("/v2/studies/1.2.3%20", "/v2/studies/1.2.3%20"),
        ("/v2/studies/%0d%0aforged", "/v2/studies/…"),
        (
            "/v2/studies/1.2/series/x/instances/y",
            "/v2/studies/1.2/series/…/instances/…",
        ),
        ("/v2/extendedquerytags/Smith%20John", "/v2/extendedquerytags/…"),
        ("/v2/extendedquerytags/PatientAge", "/v2/extendedquerytags/PatientAge"),
    ],
)
async def test_a_path_shows_only_what_belongs_there(
    running_server, tmp_path, caplog, path, shown
):
    async with running_server(tmp_path, audit=True) as server:
        await server.get(path, headers={"Accept": "*/*"})
    uris = [entry["RequestUri"] for entry in entries(caplog)]
    assert uris == [f"http://host:8080{shown}"] * 2


async def test_a_header_that_is_sent_twice_is_one_value(
    running_server, tmp_path, caplog
):
    name = "X-MS-AZUREDICOM-AUDIT-Why"
    async with running_server(tmp_path, audit=True) as server:
        await server.get("/v2/changefeed", headers=[(name, "a"), (name, "b")])
    assert entries(caplog)[0]["CustomHeaders"] == {name.lower(): "a, b"}
