"""Bulk update of patient and study attributes."""

from starlette.responses import Response

from dicomweb import update as rules
from dicomweb.errors import InvalidRequest, quoted
from functions.call import Call, Permission
from functions.json_body import json_body
from functions.operations import accepted, check_enabled, start
from functions.representations import json_response
from services import update_operation
from services.operations import OperationType

_SWITCH = {"true": True, "false": False}


async def bulk_update(call: Call) -> Response:
    """Starts the update; with `dryRun=true` says what it would change."""
    check_enabled(call)
    is_dry = _is_dry_run(call)
    try:
        request = rules.parse(await json_body(call))
    except rules.RefusedChange as refused:
        return await json_response(call, refused.dataset(), status=400)
    runtime = call.runtime
    if is_dry:
        call.require(Permission.READ)  # it shows what is stored
        studies = await update_operation.preview(runtime, call.partition, request)
        return await json_response(call, {"studies": studies})
    operation_id = runtime.new_id()
    checkpoint = await update_operation.prepare(
        runtime, operation_id, call.partition, request, runtime.now().isoformat()
    )
    await start(call, OperationType.UPDATE, operation_id, checkpoint)
    return await accepted(call, operation_id, located=False)


def _is_dry_run(call: Call) -> bool:
    text = next((v for n, v in call.pairs if n.lower() == "dryrun"), "false")
    if text.strip().lower() not in _SWITCH:
        raise InvalidRequest(
            f"The query parameter 'dryRun' is invalid: {quoted(text)} is neither true"
            " nor false."
        )
    return _SWITCH[text.strip().lower()]
