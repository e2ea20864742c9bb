"""Timer triggers: work that no request waits for."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.durable_functions import OrchestrationRuntimeStatus

from functions.operations import settle
from services import cleanup, export_operation, operations
from services.leases import lease
from services.runtime import Runtime

logger = logging.getLogger(__name__)

CLEANUP_LEASE = timedelta(minutes=10)
PURGE_LEASE = timedelta(minutes=10)
_BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
_ENDED = ("Completed", "Failed", "Terminated", "Canceled")


async def publish_pending(runtime: Runtime) -> None:
    """Publishes what was committed but not published, after a crash or a fault."""
    healed = await runtime.publisher.heal()
    if healed:
        logger.info("published %d commits that had been left pending", healed)


async def clean_up_deleted(runtime: Runtime) -> None:
    """Removes the blobs of deleted instances whose delay is over."""
    async with lease(runtime, cleanup.LEASE, CLEANUP_LEASE) as is_ours:
        if not is_ours:
            return
        report = await cleanup.clean_up(runtime)
        if report.blobs or report.failed or report.exhausted:
            logger.info(
                "deleted %d blobs; %d lists of blobs failed, %d are given up;"
                " the oldest that waits is due at %s",
                report.blobs,
                report.failed,
                report.exhausted,
                report.oldest,
            )


async def forget_secrets(runtime: Runtime, client: Any) -> None:
    """Forgets the secrets of exports that a crash kept from forgetting them.

    Args:
        runtime: The stores.
        client: Of Durable Functions.
    """

    async def has_started(operation_id: str) -> bool:
        return bool(await client.get_status(operation_id))

    async def has_ended(operation_id: str) -> bool:
        return operations.has_ended(await client.get_status(operation_id))

    forgotten = await export_operation.forget_secrets(runtime, has_started, has_ended)
    if forgotten:
        logger.info("forgot the secrets of %d exports that no longer run", forgotten)


async def purge_history(runtime: Runtime, client: Any) -> None:
    """Forgets operations that began long ago: records, errors, durable histories.

    Args:
        runtime: The stores.
        client: Of Durable Functions.
    """
    before = runtime.now() - timedelta(days=runtime.settings.history_days)
    async with lease(runtime, "purge-history", PURGE_LEASE) as is_ours:
        if not is_ours:
            return
        settled = await settle(runtime, client)
        forgotten = await operations.forget(runtime, before)
        await client.purge_instance_history_by(
            _BEGINNING, before, [OrchestrationRuntimeStatus(name) for name in _ENDED]
        )
        logger.info("forgot %d operations, ended %d", forgotten, settled)
