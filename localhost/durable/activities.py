"""Activities: taken from the queue, run, answered; at least once each."""

import asyncio
from collections.abc import Callable

from localhost.durable import history
from localhost.durable.functions import FunctionKind, Functions
from localhost.durable.history import Event
from localhost.durable.instances import Instances
from localhost.durable.schema import Activity
from localhost.durable.store import Store
from localhost.errors import InvocationFailed

MOST_STARTS = 10
"""An activity that took the process down with it so often is not started again."""


class Activities:
    """Runs activity functions."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        instances: Instances,
        clock: Callable[[], int],
    ) -> None:
        """Work on `store`; `clock` gives microseconds since 1970 UTC."""
        self._store = store
        self._functions = functions
        self._instances = instances
        self._clock = clock

    async def run(self, number: int) -> None:
        """Run a queued activity and hand on its answer."""
        activity = self._store.begin_activity(number)
        if activity is None:
            return
        try:
            event = await self._call(activity)
        except asyncio.CancelledError:
            self._store.return_activity(number)
            raise
        with self._store.transaction():
            if self._store.end_activity(number):
                self._instances.deliver(
                    activity.instance_id, activity.execution_id, event
                )

    async def _call(self, activity: Activity) -> Event:
        if activity.starts > MOST_STARTS:
            reason = (
                f"Activity function '{activity.name}' failed:  it was started "
                f"{MOST_STARTS} times and the process ended each time before it did"
            )
            return history.task_failed(self._clock(), activity.task, reason, "")
        try:
            result = await self._functions.call(
                FunctionKind.ACTIVITY, activity.name, activity.input
            )
        except InvocationFailed as failed:
            reason = (
                f"Activity function '{activity.name}' failed:  "
                f"{failed.type}: {failed.message}"
            )
            return history.task_failed(
                self._clock(), activity.task, reason, failed.details
            )
        return history.task_completed(self._clock(), activity.task, result)
