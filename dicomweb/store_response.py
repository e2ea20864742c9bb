"""What became of each instance of a STOW-RS request, and the response made of it.

Source: PS3.18 10.5.3, Annex I.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any


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


Outcome = Stored | Refused
Elements = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoreResponse:
    """What a STOW-RS request is answered with.

    Attributes:
        dataset: DICOM JSON object; None where there were no instances.
    """

    status: HTTPStatus
    dataset: Elements | None


def build(
    outcomes: Sequence[Outcome], *, version: int, base_url: str, is_study_in_path: bool
) -> StoreResponse:
    """The response to a request whose instances fared so.

    Args:
        outcomes: One of each instance, in the order of the request.
        version: Of the API, 1 or 2; 2 also tells of warnings.
        base_url: What stands before `/studies/…` in URLs of this partition.
        is_study_in_path: Whether the request named its study.

    Returns:
        204 without instances, 409 where none was stored, 202 where some were not or
        (version 2) any has a warning, else 200.

    Source: PS3.18 10.5.3, Annex I.2.
    """
    stored = [outcome for outcome in outcomes if isinstance(outcome, Stored)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    if not outcomes:
        return StoreResponse(HTTPStatus.NO_CONTENT, None)
    dataset: Elements = {}
    if stored and is_study_in_path:
        dataset["00081190"] = _element(
            "UR", f"{base_url}/studies/{stored[0].study_instance_uid}"
        )
    if refused:
        dataset["00081198"] = _element("SQ", *map(_failed_item, refused))
    if stored:
        dataset["00081199"] = _element(
            "SQ", *(_referenced_item(item, version, base_url) for item in stored)
        )
    return StoreResponse(_status(stored, refused, version), dataset)


def multiple_values_warning(host: str | None) -> str:
    """The `Warning` header where an indexed attribute had several values.

    Args:
        host: Name of this server without port, None where unknown.
    """
    return (
        f'299 {host or "-"}: "One or more indexed Dicom tag(s) have multiple values,'
        ' only first value is indexed."'
    )


def _status(
    stored: Sequence[Stored], refused: Sequence[Refused], version: int
) -> HTTPStatus:
    if not stored:
        return HTTPStatus.CONFLICT
    has_warnings = any(item.warning_reason is not None for item in stored)
    if refused or (version >= 2 and has_warnings):
        return HTTPStatus.ACCEPTED
    return HTTPStatus.OK


def _element(vr: str, *values: object) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def _comments(texts: Sequence[str]) -> dict[str, Any]:
    return _element("SQ", *({"00000902": _element("LO", text)} for text in texts))


def _referenced_item(item: Stored, version: int, base_url: str) -> Elements:
    """Source: PS3.18 Table 10.5.3-1, Referenced SOP Sequence."""
    url = (
        f"{base_url}/studies/{item.study_instance_uid}"
        f"/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"
    )
    elements = {
        "00081150": _element("UI", item.sop_class_uid),
        "00081155": _element("UI", item.sop_instance_uid),
        "00081190": _element("UR", url),
    }
    if item.warning_reason is not None:
        elements["00081196"] = _element("US", int(item.warning_reason))
    if version >= 2:
        elements["00741048"] = _comments(item.comments)
    return elements


def _failed_item(item: Refused) -> Elements:
    """Source: PS3.18 Table 10.5.3-1, Failed SOP Sequence."""
    elements: Elements = {}
    if item.sop_class_uid is not None:
        elements["00081150"] = _element("UI", item.sop_class_uid)
    if item.sop_instance_uid is not None:
        elements["00081155"] = _element("UI", item.sop_instance_uid)
    elements["00081197"] = _element("US", int(item.reason))
    if item.comments:
        elements["00741048"] = _comments(item.comments)
    return elements
