"""Figures for administrators: the archive, what waits, and this process."""

import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.responses import Response

from functions.call import Call
from functions.representations import json_response
from services import statistics
from services.metrics import Transaction


async def read_statistics(call: Call) -> Response:
    """The archive as a whole, and what this process has done since its start."""
    found = await statistics.read(call.runtime)
    now = call.runtime.now()
    transactions = call.runtime.metrics.transactions
    return await json_response(
        call,
        {
            "archive": {
                "studies": found.totals.studies,
                "instances": found.totals.instances,
                "bytes": found.totals.size_bytes,
            },
            "changeFeed": {
                "latestSequence": found.totals.sequence,
                "unpublished": found.unpublished.length,
                "lagSeconds": _age(found.unpublished.oldest, now),
            },
            "cleanup": {
                "waiting": found.cleanup.length,
                "due": found.cleanup.due,
                "overdueSeconds": _age(found.cleanup.oldest, now),
                "givenUp": found.given_up,
            },
            "process": {
                "cpuSeconds": round(time.process_time(), 3),
                "transactions": {
                    name: _transaction(transactions[name])
                    for name in sorted(transactions)
                },
            },
        },
        headers={"Cache-Control": "no-store"},
    )


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds, 0 where nothing waits or nothing is due yet."""
    return 0.0 if since is None else round(max(0.0, (now - since).total_seconds()), 3)


def _transaction(transaction: Transaction) -> dict[str, Any]:
    usage = asdict(transaction.usage)
    return {
        "requests": transaction.requests,
        "refused": transaction.refused,
        "failed": transaction.failed,
        "seconds": round(transaction.seconds, 6),
        "cpuSeconds": round(usage.pop("cpu_nanoseconds") / 1e9, 6),
        **{_camel(name): round(value, 2) for name, value in usage.items()},
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
