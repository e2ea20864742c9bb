"""A bulk update in the audit log: one entry when it begins, one when it has ended."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrations import update
from services import update_operation
from services.settings import Settings


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings only; what the operation records elsewhere is another test's."""

    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(update, "record", nothing)
    monkeypatch.setattr(update_operation, "end", nothing)
    return SimpleNamespace(settings=Settings(audit=True))


def state(**fields: Any) -> dict[str, Any]:
    return {
        "id": "0" * 32,
        "created": "",
        "total": 2,
        "processed": 0,
        "updated": 0,
        "failed": 0,
        "instances": 0,
        "canceled": False,
        **fields,
    }


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        json.loads(each.getMessage())
        for each in caplog.records
        if each.name == "dicom.audit"
    ]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"updated": 2}, 200),
        ({"updated": 1, "failed": 1}, 400),
        ({"canceled": True}, 400),
    ],
)
async def test_its_end_is_200_only_when_all_went_well(runtime, caplog, fields, status):
    await update._record(runtime, state())
    await update._finish(runtime, state(**fields, processed=2))
    begun, ended = entries(caplog)
    assert begun == {
        "ActionType": "Executing",
        "EventType": "AuditEvent",
        "Audience": "",
        "Authority": "",
        "Action": "update-study-operation",
        "CorrelationId": "0" * 32,
    }
    assert ended == begun | {"ActionType": "Executed", "StatusCode": status}


async def test_later_generations_do_not_begin_again(runtime, caplog):
    await update._record(runtime, state(processed=1))
    assert entries(caplog) == []


async def test_without_the_audit_log_there_is_none(runtime, caplog):
    runtime.settings = Settings()
    await update._record(runtime, state())
    await update._finish(runtime, state(processed=2))
    assert entries(caplog) == []
