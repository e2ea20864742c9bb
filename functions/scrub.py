"""Scrub: for administrators, who read its report as that of any operation."""

from starlette.responses import PlainTextResponse, Response

from dicomweb.parameters import first_values, flag
from functions.call import Call
from functions.operations import accepted, check_enabled, operation_url, start
from services import scrub_operation
from services.operations import OperationType, has_ended
from services.scrub_operation import Options, ScrubActive


async def scrub_store(call: Call) -> Response:
    """Starts the scrub: `dryRun` only looks, `hashes=false` only compares sizes."""
    check_enabled(call)
    runtime = call.runtime
    values = first_values(call.pairs)
    options = Options(
        dry_run=flag(values, "DryRun", default=False),
        hashes=flag(values, "Hashes", default=True),
        remove_lost=flag(values, "RemoveLost", default=False),
    )
    operation_id = runtime.new_id()
    try:
        ended = await _ended(call)
        await scrub_operation.take_turn(runtime, operation_id, ended)
    except ScrubActive as active:
        location = operation_url(call, active.operation_id)
        return PlainTextResponse(str(active), 409, {"Location": location})
    checkpoint = await scrub_operation.prepare(
        runtime, operation_id, options, runtime.now().isoformat()
    )
    await start(call, OperationType.SCRUB, operation_id, checkpoint)
    return await accepted(call, operation_id, located=True)


async def _ended(call: Call) -> str | None:
    """The scrub before, if it has ended without saying so.

    Raises:
        ScrubActive: It is under way.
    """
    before = await scrub_operation.active(call.runtime)
    if before and not has_ended(await call.client.get_status(before)):
        raise ScrubActive(before)
    return before
