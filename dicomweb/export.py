"""Export: what a request asks for, how its results are named and its errors logged.

Where the files go is a matter of `dicomweb.export_destination`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb.errors import InvalidRequest, quoted
from dicomweb.identifiers import is_valid_uid, uid_key

IDENTIFIERS = "identifiers"


@dataclass(frozen=True, slots=True)
class Identifier:
    """A study, a series or an instance.

    Attributes:
        uids: One to three UIDs as typed, from the study down.
        covered: Whether another identifier of the request names all of it, so that it
            is not exported again.
    """

    uids: tuple[str, ...]
    covered: bool = False

    @property
    def text(self) -> str:
        """As errors name it: UIDs joined by `/`."""
        return "/".join(self.uids)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an export asks for.

    Attributes:
        identifiers: At least one, no two the same.
        type: Of the destination, lower case.
        settings: Of the destination, names in lower case, not checked.
    """

    identifiers: tuple[Identifier, ...]
    type: str
    settings: dict[str, Any]


# --- the request ---------------------------------------------------------------------


def parse(body: object) -> ExportRequest:
    """The request; its destination is left as it is.

    Args:
        body: Decoded JSON: `source` and `destination`, each with `type` and
            `settings`; names in any case.

    Raises:
        InvalidRequest: The body has not that form, or an identifier is none.
    """
    fields = _object(body, "the request body")
    source_type, source = _typed(fields, "source")
    if source_type != IDENTIFIERS:
        raise _wrong("source.type", f"{quoted(source_type)} is not 'identifiers'.")
    destination_type, destination = _typed(fields, "destination")
    return ExportRequest(
        _identifiers(source.get("values")), destination_type, destination
    )


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(name, "it must be a JSON object.")
    return {str(key).lower(): part for key, part in value.items()}


def _typed(fields: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """Type and settings of `source` or `destination`."""
    part = _object(fields.get(name), name)
    kind = part.get("type")
    if not isinstance(kind, str) or not kind:
        raise _wrong(f"{name}.type", "it is missing.")
    return kind.lower(), _object(part.get("settings"), f"{name}.settings")


def _wrong(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        f"The field '{name}' in the request body is invalid: {detail}"
    )


def _identifiers(values: object) -> tuple[Identifier, ...]:
    if not isinstance(values, list) or not values:
        raise _wrong("source.settings.values", "it is missing or empty.")
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for value in values:
        uids = _uids(value)
        found.setdefault(_key(uids), uids)
    return tuple(
        Identifier(uids, covered=any(key[:n] in found for n in range(1, len(key))))
        for key, uids in found.items()
    )


def _uids(value: object) -> tuple[str, ...]:
    uids = value.strip().split("/") if isinstance(value, str) else []
    if not 1 <= len(uids) <= 3 or not all(map(is_valid_uid, uids)):
        raise InvalidRequest(
            f"{quoted(value)} is no DICOM identifier: a study, study/series or"
            " study/series/instance by their UIDs.",
            code="InvalidIdentifier",
        )
    return tuple(uid.rstrip(" \0") for uid in uids)


def _key(uids: Sequence[str]) -> tuple[str, ...]:
    return tuple(uid_key(uid) for uid in uids)


# --- the results ---------------------------------------------------------------------


def file_name(
    operation_id: str,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
) -> str:
    """Where a file lies in the destination; UIDs without padding."""
    uids = (study_instance_uid, series_instance_uid, sop_instance_uid)
    study, series, sop = (uid.rstrip(" \0") for uid in uids)
    return f"{operation_id}/results/{study}/{series}/{sop}.dcm"


def log_name(operation_id: str) -> str:
    """Where the error log lies in the destination."""
    return f"{operation_id}/errors.log"


def log_of(errors: Iterable[Mapping[str, str]]) -> bytes:
    """The error log: a JSON object a line.

    Args:
        errors: `timestamp` (ISO 8601), `identifier`, `error`, in order.
    """
    return b"".join(json.dumps(error).encode() + b"\n" for error in errors)
