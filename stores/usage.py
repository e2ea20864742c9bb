"""What a request costs: counted where it arises, read where the request ends.

The adapters know neither requests nor each other; a context variable carries the
account of the request to them, also into the tasks that it starts. Work that several
requests share (a merged commit) is on the account of the one that began it.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """The account of one request.

    Attributes:
        request_units: Of Cosmos DB.
        index_calls: Requests to Cosmos DB.
        blob_calls: Requests to Blob Storage.
        cpu_nanoseconds: Of the thread that serves requests.
        bytes_in: Body of the request.
        bytes_out: Body of the response.
        instances_stored: New ones.
        instances_retrieved: Whose bytes or metadata were sent.
    """

    request_units: float = 0.0
    index_calls: int = 0
    blob_calls: int = 0
    cpu_nanoseconds: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    instances_stored: int = 0
    instances_retrieved: int = 0


CURRENT: ContextVar[Usage | None] = ContextVar("usage", default=None)
"""The account that work under way belongs to; None for work of the server's own."""


def charge(request_units: float) -> None:
    """Puts an answer of Cosmos DB on the current account."""
    usage = CURRENT.get()
    if usage is not None:
        usage.index_calls += 1
        usage.request_units += request_units


def count_blob_call() -> None:
    """Puts a request to Blob Storage on the current account."""
    usage = CURRENT.get()
    if usage is not None:
        usage.blob_calls += 1
