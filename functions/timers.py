"""Timer triggers: work that no request waits for."""

import logging

from services.runtime import Runtime

logger = logging.getLogger(__name__)


async def publish_pending(runtime: Runtime) -> None:
    """Publishes what was committed but not published, after a crash or a fault."""
    healed = await runtime.publisher.heal()
    if healed:
        logger.info("published %d commits that had been left pending", healed)
