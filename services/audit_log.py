"""The audit log: one line of JSON for each entry, on the logger `dicom.audit`.

Its level is set here, so that no host drops entries because it shows warnings only.
"""

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any

import orjson

from services.settings import Settings

logger = logging.getLogger("dicom.audit")
logger.setLevel(logging.INFO)

UPDATE_OPERATION = "update-study-operation"


class ActionType(Enum):
    """Which of the two entries about the same action."""

    EXECUTING = "Executing"
    EXECUTED = "Executed"


def write(
    settings: Settings,
    action_type: ActionType,
    action: str,
    correlation_id: str,
    details: Mapping[str, Any],
) -> None:
    """Writes an entry, unless the audit log is off.

    Args:
        settings: Whose audience and authority the entry names.
        action_type: Before the action or after it.
        action: Name of what is done.
        correlation_id: The same in both entries.
        details: Members that depend on the action.
    """
    if not settings.audits:
        return
    entry = {
        "ActionType": action_type.value,
        "EventType": "AuditEvent",
        "Audience": ",".join(settings.audiences),
        "Authority": settings.authority,
        "Action": action,
        "CorrelationId": correlation_id,
        **details,
    }
    logger.info("%s", orjson.dumps(entry, default=str).decode())
