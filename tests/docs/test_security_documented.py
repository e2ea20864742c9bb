"""The pages on roles, audit log and telemetry name all that there is."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from functions import telemetry
from functions.roles import DATA_ACTIONS, parse
from functions.routes import ROUTES
from services.audit_log import UPDATE_OPERATION
from services.settings import is_azure

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_audit_page_lists_every_action_and_no_other():
    listed = re.search(r"## Actions\n\n(.*)\n", page("audit.md"))
    actions = {route.audit for route in ROUTES if route.audit} | {UPDATE_OPERATION}
    known = set(re.findall(r"`([a-z-]+)`", listed[1] if listed else ""))
    assert actions - known == set()


def test_the_roles_page_lists_every_data_action_and_its_example_is_right():
    text = page("authorise.md")
    rows = re.findall(r"^\| `([^`]+)` \| ", text, re.MULTILINE)
    assert [row for row in rows if row in DATA_ACTIONS] == list(DATA_ACTIONS)
    example = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert example
    assert parse(example[1].encode())
    sample = json.loads((ROOT / "roles.sample.json").read_text())
    assert json.loads(example[1]) == sample


class Meter:
    """Notes the names of instruments."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def create_counter(self, name: str, *_: Any) -> None:
        self.names.append(name)

    create_histogram = create_counter


def test_the_telemetry_page_lists_every_metric():
    meter = Meter()
    telemetry._instruments(meter)
    assert len(meter.names) == len(fields(telemetry.Instruments))
    text = page("telemetry.md")
    assert [name for name in meter.names if f"`{name}`" not in text] == []


def test_files_that_the_security_guide_points_to_are_there():
    named = re.findall(r"`(tests/[^`]+)`", page("security-guide.md"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_laptop_is_not_taken_for_azure():
    assert not is_azure({"CONTAINER_NAME": "x", "WEBSITE_HOSTNAME": "localhost:7071"})


def test_the_host_of_azure_logs_no_query_strings_and_drops_no_audit_entries():
    logging = json.loads((ROOT / "host.json").read_text())["logging"]
    insights = logging["applicationInsights"]
    assert insights["enableDependencyTracking"] is False
    assert "enableQueryStringTracing" not in json.dumps(insights)
    assert "Trace" in insights["samplingSettings"]["excludedTypes"].split(";")
    levels = logging["logLevel"]
    assert levels["default"] == "Information"
    for category in ("Microsoft.AspNetCore", "System.Net.Http", "Yarp"):
        assert levels[category] == "Warning"
