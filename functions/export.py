"""Export of files to a blob container or a folder."""

from starlette.responses import Response

from dicomweb import export as rules
from dicomweb.errors import NotFound
from dicomweb.export import ExportRequest
from dicomweb.export_destination import Destination, destination
from functions.call import Call
from functions.json_body import json_body
from functions.operations import accepted, start
from services import export_operation
from services.operations import OperationType


async def export(call: Call) -> Response:
    """Tries the destination and starts the export."""
    runtime = call.runtime
    if not (runtime.settings.export and runtime.settings.operations):
        raise NotFound("", code="ExportDisabled")
    request = rules.parse(await json_body(call))
    where = _destination(call, request)
    operation_id = runtime.new_id()
    try:
        checkpoint = await export_operation.prepare(
            runtime, operation_id, call.partition, request, where
        )
        await start(call, OperationType.EXPORT, operation_id, checkpoint)
    except BaseException:
        await export_operation.forget(runtime, operation_id)
        raise
    return await accepted(call, operation_id, located=True)


def _destination(call: Call, request: ExportRequest) -> Destination:
    settings = call.runtime.settings
    is_azure = settings.store == "azure"
    return destination(
        request.type,
        request.settings,
        allowed_hosts=settings.export_hosts,
        has_folder=bool(settings.export_root) and not is_azure,
        has_identity=is_azure and not settings.blob_connection,
    )
