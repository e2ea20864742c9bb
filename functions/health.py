"""Whether this server can do its work: the index and the instances answer."""

import asyncio
import logging
from collections.abc import Awaitable

from starlette.responses import Response

from dicomweb.errors import StoreUnavailable
from functions.call import Call
from functions.representations import json_response

logger = logging.getLogger(__name__)

CHECK_SECONDS = 5.0


async def check_health(call: Call) -> Response:
    """200 when everything answers within five seconds, else 503."""
    runtime = call.runtime
    details = await asyncio.gather(
        _detail("Index", runtime.documents.read("system", "health", "health")),
        _detail("Instances", runtime.blobs.properties("health")),
    )
    healthy = all(detail["status"] == "Healthy" for detail in details)
    return await json_response(
        call,
        {
            "overallStatus": "Healthy" if healthy else "Unhealthy",
            "details": details,
        },
        status=200 if healthy else 503,
        headers={"Cache-Control": "no-store"},
    )


async def _detail(name: str, probe: Awaitable[object]) -> dict[str, str]:
    """One row of the answer; a failure is logged, not told."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await probe
    except (StoreUnavailable, TimeoutError) as error:
        logger.warning("health check of %s failed: %s", name, str(error) or "no answer")
        return {
            "name": name,
            "status": "Unhealthy",
            "description": "It does not answer.",
        }
    return {"name": name, "status": "Healthy", "description": "It answers."}
