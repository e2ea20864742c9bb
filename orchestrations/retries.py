"""How often durable activities are repeated, and how orchestrators wait."""

from datetime import timedelta
from typing import Any

import azure.durable_functions as df

FIRST_RETRY_MILLISECONDS = 8000
MAX_ATTEMPTS = 30
"""A store that does not answer for four minutes ends no operation."""

BACK_OFF_SECONDS = (5, 15, 45, 120, 240)
"""Pauses before the repetitions of what failed in a fan-out: seven minutes."""

STEPS = 40
"""Sequential steps of a generation; replay costs the square of them."""


def retry_options() -> df.RetryOptions:
    """Of a single activity that raises."""
    return df.RetryOptions(FIRST_RETRY_MILLISECONDS, MAX_ATTEMPTS)


def after(context: df.DurableOrchestrationContext, seconds: float) -> Any:
    """A durable timer."""
    return context.create_timer(
        context.current_utc_datetime + timedelta(seconds=seconds)
    )
