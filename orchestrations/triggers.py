"""Turns orchestrators and service calls into durable functions of a blueprint.

An activity decodes, calls one service function and encodes. In a fan-out it answers
`{"ok": …}` instead of raising (`settled`): when one of several repeated activities
fails for good while others go on, the client library and the host number the tasks
that follow differently.
"""

import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import azure.durable_functions as df

from services.runtime import Resolve, Runtime

logger = logging.getLogger(__name__)

Orchestrator = Callable[[df.DurableOrchestrationContext], Generator[Any, Any, Any]]
Activity = Callable[[Runtime, Any], Awaitable[Any]]
ActivityWithClient = Callable[[Runtime, Any, Any], Awaitable[Any]]


def orchestrator(blueprint: df.Blueprint, name: str, body: Orchestrator) -> None:
    """Adds an orchestrator under the name that it is started by."""

    def run(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
        return (yield from body(context))

    trigger = blueprint.orchestration_trigger(context_name="context")
    blueprint.function_name(name)(trigger(run))


def activity(
    blueprint: df.Blueprint, resolve: Resolve, name: str, body: Activity
) -> None:
    """Adds an activity; its payload and its answer are JSON."""

    async def run(payload: Any) -> Any:
        return await body(await resolve(), payload)

    # The worker takes the annotation for the type of the binding.
    run.__annotations__ = {}
    trigger = blueprint.activity_trigger(input_name="payload")
    blueprint.function_name(name)(trigger(run))


def activity_with_client(
    blueprint: df.Blueprint, resolve: Resolve, name: str, body: ActivityWithClient
) -> None:
    """Adds an activity that asks how other orchestrations stand."""

    async def run(payload: Any, client: Any) -> Any:
        return await body(await resolve(), payload, client)

    run.__annotations__ = {}
    trigger = blueprint.activity_trigger(input_name="payload")
    bound = blueprint.durable_client_input(client_name="client")
    blueprint.function_name(name)(trigger(bound(run)))


def settled(body: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same; `{"ok": True, "value": …}`, or `{"ok": False}` where it raised."""

    async def run(*arguments: Any) -> dict[str, Any]:
        try:
            return {"ok": True, "value": await body(*arguments)}
        except Exception:
            logger.exception("a step failed and is repeated")
            return {"ok": False}

    return run
