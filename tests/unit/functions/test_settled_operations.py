"""Operations that ended without doing so themselves are ended in the books."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from archive import opened

from dicomweb.export import ExportRequest, Identifier
from dicomweb.export_destination import BlobContainer
from dicomweb.identifiers import Partition
from dicomweb.update import UpdateRequest
from functions.operations import settle
from services import export_operation, operations, update_operation
from services.operations import OperationStatus

HERE = Partition("Microsoft.Default")
UPDATE, EXPORT = "a" * 32, "b" * 32
OLD = timedelta(hours=1)
SECRET = BlobContainer("https://a.blob.core.windows.net", "container", sas="sig=x")


class Sink:
    async def put(self, name, source):
        raise AssertionError

    async def write_log(self, name, data):
        assert data == b""

    async def close(self):
        pass


@pytest.fixture
async def runtime(tmp_path: Path):
    from dataclasses import replace

    async with opened(tmp_path / "dicom") as there:
        past = replace(there, now=lambda: datetime.now(UTC) - OLD)
        past = replace(past, open_sink=lambda _: Sink())
        change = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Secret^Name"}]}}
        await update_operation.prepare(
            past,
            UPDATE,
            HERE,
            UpdateRequest(("1.2",), change),
            past.now().isoformat(),
        )
        request = ExportRequest((Identifier(("1.2",)),), "azureblob", {})
        await export_operation.prepare(past, EXPORT, HERE, request, SECRET)
        yield there


class Client:
    """Orchestrations by id: their runtime status."""

    def __init__(self, **statuses):
        self._statuses = statuses

    async def get_status(self, id, show_input=False):
        del show_input
        status = self._statuses.get(id)
        if status is None:
            return None
        return SimpleNamespace(
            name={UPDATE: "BulkUpdate", EXPORT: "Export"}[id],
            runtime_status=SimpleNamespace(name=status),
            input_={"created": (datetime.now(UTC) - OLD).isoformat()},
            output=None,
            custom_status={"results": {"exported": 7}},
            last_updated_time=datetime.now(UTC),
        )


async def statuses(runtime):
    listed = await operations.listed(runtime, type=None, status=None, limit=9, offset=0)
    return {each.id: each.status for each in listed}


async def kept(runtime):
    return [
        id
        for id in (UPDATE, EXPORT)
        if await operations.request_of(runtime, id) is not None
    ], await runtime.secrets.operations()


async def test_what_was_never_started_has_failed_and_is_forgotten(runtime):
    assert await kept(runtime) == ([UPDATE, EXPORT], [EXPORT])
    assert await settle(runtime, Client()) == 2
    assert set((await statuses(runtime)).values()) == {OperationStatus.FAILED}
    assert await kept(runtime) == ([], [])
    assert await settle(runtime, Client()) == 0


async def test_what_was_terminated_is_canceled_with_its_last_results(runtime):
    client = Client(**{UPDATE: "Running", EXPORT: "Terminated"})
    assert await settle(runtime, client) == 1
    assert await statuses(runtime) == {
        UPDATE: OperationStatus.NOT_STARTED,
        EXPORT: OperationStatus.CANCELED,
    }
    assert await kept(runtime) == ([UPDATE], [])
    [export] = await operations.listed(
        runtime, type=None, status=OperationStatus.CANCELED, limit=9, offset=0
    )
    assert export.progress.results == {"exported": 7}


async def test_what_may_be_just_coming_is_left_alone(runtime, monkeypatch):
    monkeypatch.setattr(export_operation, "UNSTARTED", 2 * OLD)
    assert await settle(runtime, Client()) == 0
    assert await kept(runtime) == ([UPDATE, EXPORT], [EXPORT])
