"""All durable functions, as one blueprint."""

import azure.durable_functions as df

from orchestrations import export, fast_replay, reindex, scrub, update
from services.runtime import Resolve


def blueprint(resolve: Resolve) -> df.Blueprint:
    """Orchestrators and activities of every operation.

    Args:
        resolve: Gives the runtime of this process.
    """
    fast_replay.apply()
    functions = df.Blueprint()
    for module in (export, reindex, scrub, update):
        module.register(functions, resolve)
    return functions
