"""Every error a client can be told of, with its HTTP status.

    DicomwebError                    status  raised by
    ├─ InvalidRequest                400     query, multipart, identifiers, query_tags
    ├─ Unauthenticated               401     functions/auth
    ├─ Forbidden                     403     functions/auth
    ├─ NotFound                      404     services
    ├─ NotAcceptable                 406     media_types, transcoding, rendering
    ├─ Conflict                      409     services, workitems
    ├─ PreconditionFailed            412     an ETag that no longer holds
    ├─ PayloadTooLarge               413     multipart limits
    ├─ UnsupportedMediaType          415     media_types, multipart
    ├─ TooManyRequests               429     functions/auth
    ├─ MalformedInstance             -       becomes a Refused, never reaches HTTP
    └─ StoreUnavailable              503     stores (throttled, timed out, 5xx)

The message is a sentence for the client: no patient data, quoted values cut at 64
characters (`quoted`).
"""

from http import HTTPStatus
from typing import ClassVar

QUOTED_CHARACTERS = 64


def quoted(value: object) -> str:
    """The value as it may stand in a message: in quotes, cut at 64 characters."""
    text = str(value)
    if len(text) > QUOTED_CHARACTERS:
        text = text[:QUOTED_CHARACTERS] + "…"
    return f"'{text}'"


class DicomwebError(Exception):
    """A request that ends with a status of its own.

    Attributes:
        status: The HTTP status.
        code: A short name for docs/errors.md and logs, PascalCase.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or type(self).__name__


class InvalidRequest(DicomwebError):
    """The request breaks a rule of the API."""

    status = HTTPStatus.BAD_REQUEST


class Unauthenticated(DicomwebError):
    """No valid credentials came with the request."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(DicomwebError):
    """The caller is known but may not do this."""

    status = HTTPStatus.FORBIDDEN


class NotFound(DicomwebError):
    """The resource does not exist."""

    status = HTTPStatus.NOT_FOUND


class NotAcceptable(DicomwebError):
    """No representation that the client accepts can be made."""

    status = HTTPStatus.NOT_ACCEPTABLE


class Conflict(DicomwebError):
    """The resource's state forbids the request."""

    status = HTTPStatus.CONFLICT


class PreconditionFailed(DicomwebError):
    """An ETag given by the client no longer holds."""

    status = HTTPStatus.PRECONDITION_FAILED


class PayloadTooLarge(DicomwebError):
    """A body or a part of it exceeds a limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMediaType(DicomwebError):
    """The content type is not one that this resource takes."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooManyRequests(DicomwebError):
    """The caller exceeded its share.

    Attributes:
        retry_after_seconds: When to come back.
    """

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class MalformedInstance(DicomwebError):
    """Bytes that are not a readable DICOM instance; becomes a Refused."""

    status = HTTPStatus.CONFLICT


class StoreUnavailable(DicomwebError):
    """The index or the blobs cannot be reached now.

    Attributes:
        retry_after_seconds: When to come back.
        outcome_unknown: Whether the write may have been committed all the same.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: int = 1,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.outcome_unknown = outcome_unknown
