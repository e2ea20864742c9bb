"""The one error of the emulator: an HTTP status with Cosmos DB's substatus."""

from http import HTTPStatus

_CODES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "Conflict",
    410: "Gone",
    412: "PreconditionFailed",
    413: "RequestEntityTooLarge",
    429: "TooManyRequests",
    449: "RetryWith",
    503: "ServiceUnavailable",
}


class CosmosError(Exception):
    """What the service answers instead of a result.

    Attributes:
        status: HTTP status; 449 is Cosmos DB's own "Retry With".
        substatus: Value of `x-ms-substatus`, 0 when it is not sent.
        retry_after_ms: Value of `x-ms-retry-after-ms`, or None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        substatus: int = 0,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.substatus = substatus
        self.retry_after_ms = retry_after_ms

    @property
    def code(self) -> str:
        """The name of the status in the error's body."""
        return _CODES.get(self.status) or HTTPStatus(self.status).phrase

    def headers(self) -> dict[str, str]:
        """The headers that go with the error."""
        headers: dict[str, str] = {}
        if self.substatus:
            headers["x-ms-substatus"] = str(self.substatus)
        if self.retry_after_ms is not None:
            headers["x-ms-retry-after-ms"] = str(self.retry_after_ms)
        return headers


def bad_request(message: str, *, substatus: int = 0) -> CosmosError:
    """A 400 with this message."""
    return CosmosError(400, message, substatus=substatus)
