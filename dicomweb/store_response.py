"""What became of each instance of a STOW-RS request, and the response made of it.

Source: PS3.18 10.5.3, Annex I.
"""

from dataclasses import dataclass
from enum import IntEnum


class FailureReason(IntEnum):
    """Why an instance was not stored, value of (0008,1197)."""

    PROCESSING_FAILURE = 0x0110  # PS3.18 Annex I
    DATA_SET_DOES_NOT_MATCH = 0xA900  # PS3.18 Annex I; any failed validation
    INSTANCE_ALREADY_EXISTS = 0xB00E  # 45070, as existing clients know it


class WarningReason(IntEnum):
    """What is to be said of a stored instance, value of (0008,1196)."""

    VALIDATION = 0x0001
    IMPLICIT_VR = 0xB007  # 45063; wins over VALIDATION


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that was stored.

    Attributes:
        comments: Validation warnings, one sentence each, for (0000,0902).
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    warning_reason: WarningReason | None = None
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """An instance that was not stored; its UIDs are None where unreadable."""

    reason: FailureReason
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    comments: tuple[str, ...] = ()
