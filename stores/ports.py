"""What the services may ask of an index and of a blob store.

Two adapters stand behind each port (SQLite and Cosmos DB, a directory and Blob
Storage). Both keep the rules of Azure: one logical partition per batch, at most 100
operations and 2 MB in it, conditions, no transaction across partitions.

Retries of passing faults (429, 449, 408, lost connections) live in the adapters. What
they cannot settle is `StoreUnavailable`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from dicomweb.export_destination import Destination

MAX_BATCH_OPERATIONS = 100
MAX_BATCH_BYTES = 2_000_000
MAX_ID_BYTES = 1023
MAX_DOCUMENT_BYTES = 2_000_000
FORBIDDEN_ID_CHARACTERS = frozenset("/\\?#")

BINARY_FIELDS = frozenset({"z", "zn"})
"""Top-level fields of a document whose value is bytes; all else is plain JSON."""

Document = dict[str, Any]
"""JSON object with `id` (and, when read, `pk` and `_etag`). `ttl` is in seconds."""

FieldPath = tuple[str, ...]
"""Names from the root of a document: `("f", "PatientID")`."""

Scalar = str | int | float | bool | None


# --- conditions -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has exactly this value (a missing field never matches)."""

    path: FieldPath
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    path: FieldPath
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """low <= field <= high, each bound optional, of the bounds' own type only."""

    path: FieldPath
    low: str | int | float | None = None
    high: str | int | float | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The text field starts with this text, case and all."""

    path: FieldPath
    value: str


@dataclass(frozen=True, slots=True)
class Like:
    """The whole text field matches: `*` any run of characters, `?` exactly one."""

    path: FieldPath
    pattern: str


@dataclass(frozen=True, slots=True)
class AnyWordStartsWith:
    """The field is a list of texts and one of them starts with this text."""

    path: FieldPath
    value: str


@dataclass(frozen=True, slots=True)
class ArrayContains:
    """The field is a list and has this value."""

    path: FieldPath
    value: Scalar


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, null included."""

    path: FieldPath


@dataclass(frozen=True, slots=True)
class And:
    """All of these; true when empty."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of these at least; false when empty."""

    conditions: tuple["Condition", ...]


Condition = (
    Equals
    | In
    | Range
    | Prefix
    | Like
    | AnyWordStartsWith
    | ArrayContains
    | Exists
    | And
    | Or
)


@dataclass(frozen=True, slots=True)
class Order:
    """One key of the order of a query."""

    path: FieldPath
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What to find.

    Attributes:
        where: All documents of the scope when None.
        order: The keys together are unique within the scope, so that the keyset of a
            page is unambiguous. Documents that lack a key are not returned.
        fields: Top-level fields to return, `id` always; everything when empty.
    """

    where: Condition | None
    order: tuple[Order, ...] = (Order(("id",)),)
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in the order asked for.

    Attributes:
        documents: May be fewer than the limit although more follow (4 MB a page).
        after: Values of the order keys of the last document if more may follow, to be
            passed as `after`; else None.
    """

    documents: tuple[Document, ...]
    after: tuple[Scalar, ...] | None


# --- operations of a batch -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Create:
    """Fails with EXISTS where the id is taken."""

    document: Document


@dataclass(frozen=True, slots=True)
class Replace:
    """Fails with MISSING, or CONDITION where the etag is another."""

    document: Document
    if_etag: str | None = None


@dataclass(frozen=True, slots=True)
class Upsert:
    """Creates or replaces."""

    document: Document


@dataclass(frozen=True, slots=True)
class Patch:
    """Changes fields of one document; at most 10 changes.

    Fails with MISSING, or CONDITION where `condition` does not hold before the change.

    Attributes:
        increments: Added to the number there; a missing field counts as 0. The parent
            object must exist.
        sets: New values; the parent object must exist.
        removes: Fields to take out; they must exist.
    """

    id: str
    increments: Mapping[FieldPath, int] = field(default_factory=dict)
    sets: Mapping[FieldPath, Any] = field(default_factory=dict)
    removes: tuple[FieldPath, ...] = ()
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Fails with MISSING, or CONDITION where the etag is another."""

    id: str
    if_etag: str | None = None


Operation = Create | Replace | Upsert | Patch | Delete


class Rejection(Enum):
    """Why a batch was refused."""

    EXISTS = "exists"
    MISSING = "missing"
    CONDITION = "condition"


@dataclass(frozen=True, slots=True)
class Committed:
    """All operations were applied.

    Attributes:
        documents: What each Create, Replace, Upsert and Patch left behind: at least
            `id`, `_etag`, and for a Patch every incremented field.
        etags: New etags in the order of the operations; None for a Delete.
    """

    etags: tuple[str | None, ...]
    documents: tuple[Document | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was applied.

    Attributes:
        index: The first operation that failed, from 0.
    """

    index: int
    reason: Rejection


BatchResult = Committed | Rejected


class Documents(Protocol):
    """The index: containers of JSON documents in logical partitions."""

    async def read(
        self, container: str, partition_key: str, id: str
    ) -> Document | None:
        """The document, or None."""
        ...

    async def batch(
        self, container: str, partition_key: str, operations: Sequence[Operation]
    ) -> BatchResult:
        """Applies all operations or none.

        When operation 0 is a Create whose document has a `token`, an unknown outcome
        (lost answer) is settled by reading that document back: same token = committed.

        Raises:
            StoreUnavailable: Throttled or unreachable; `outcome_unknown` is set when
                the batch may have been committed all the same.
        """
        ...

    async def query(
        self,
        container: str,
        query: Query,
        *,
        partition_key: str | None = None,
        limit: int,
        after: Sequence[Scalar] | None = None,
        offset: int = 0,
    ) -> Page:
        """Documents in order, those after the keyset, less the first `offset`."""
        ...

    async def flush(self) -> None:
        """Makes what was committed safe against power loss; nothing to do on Azure."""
        ...

    async def close(self) -> None:
        """Ends connections; what was committed stays."""
        ...


# --- blobs -----------------------------------------------------------------------


class Source(Protocol):
    """Bytes to store, which can be read more than once (a put may be retried)."""

    @property
    def size_bytes(self) -> int:
        """Length of what `chunks` yields in all."""
        ...

    @property
    def movable_path(self) -> Path | None:
        """A complete file that the store may rename into place, else None."""
        ...

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes from the start, in order; a new iterator at each call."""
        ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """A source in memory."""

    data: bytes | bytearray | memoryview

    @property
    def size_bytes(self) -> int:
        """Length of the data."""
        return len(self.data)

    @property
    def movable_path(self) -> Path | None:
        """None: there is no file."""
        return None

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The data in one piece."""
        yield memoryview(self.data)


@dataclass(frozen=True, slots=True)
class BlobProperties:
    """A stored blob.

    Attributes:
        name: Full name with `/`.
        modified: When it was last written, UTC.
    """

    name: str
    size_bytes: int
    modified: datetime


class BlobMissing(Exception):
    """No blob of that name; what it means is the caller's to say."""


class Blobs(Protocol):
    """The instances: named byte strings."""

    async def put(self, blobs: Sequence[tuple[str, Source]]) -> None:
        """Stores all, in parallel; durable when it returns; repeating is harmless.

        Raises:
            StoreUnavailable: One or more could not be stored (disk full, throttled).
        """
        ...

    def read(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes | memoryview]:
        """Chunks of the blob from `offset`; to its end when `length` is None.

        Raises (at the first step):
            BlobMissing: No such blob.
        """
        ...

    async def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly these bytes, fewer where the blob ends before.

        Raises:
            BlobMissing: No such blob.
        """
        ...

    async def copy(self, source_name: str, name: str) -> None:
        """Copies within the store without the bytes passing through here."""
        ...

    async def splice(
        self, name: str, head: bytes, source_name: str, offset: int
    ) -> None:
        """Stores `head` followed by the source's bytes from `offset`, durable."""
        ...

    async def delete(self, name: str) -> bool:
        """Whether there was one to delete."""
        ...

    def list(self, prefix: str) -> AsyncIterator[BlobProperties]:
        """Blobs whose name starts with `prefix`, by name."""
        ...

    async def properties(self, name: str) -> BlobProperties | None:
        """The blob's properties, or None."""
        ...

    async def set_tier(self, name: str, tier: str) -> None:
        """Moves to a storage tier (`Hot`, `Cool`, `Cold`); nothing in a directory."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


# --- journal ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One record of a kind.

    Attributes:
        at: When it happened, UTC; newest are listed first.
        id: Unique among the rows of its kind; writing it again replaces the row.
        data: JSON, at most 32 KiB; larger is cut by the writer, never by the store.
    """

    at: datetime
    id: str
    data: dict[str, Any]


class Journal(Protocol):
    """Records that grow and are purged by age: operations, errors, reports."""

    async def put(self, kind: str, rows: Sequence[JournalRow]) -> None:
        """Writes the rows; a row of the same `at` and `id` is replaced."""
        ...

    async def page(
        self, kind: str, *, limit: int, offset: int = 0, oldest_first: bool = False
    ) -> list[JournalRow]:
        """Rows of the kind, newest first or oldest first."""
        ...

    async def count(self, kind: str) -> int:
        """How many rows the kind has."""
        ...

    async def purge(self, kind: str, before: datetime | None = None) -> int:
        """Deletes the rows older than `before`, all when None; how many."""
        ...

    async def delete(self, kind: str, keys: Sequence[tuple[datetime, str]]) -> int:
        """Deletes the rows of these times and ids; how many of them there were."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


class Secrets(Protocol):
    """Secrets of operations (a SAS of an export), kept in no other place."""

    async def put(self, operation_id: str, secret: str) -> None:
        """Keeps the secret until it is deleted."""
        ...

    async def get(self, operation_id: str) -> str | None:
        """The secret, or None."""
        ...

    async def delete(self, operation_id: str) -> None:
        """Forgets it; harmless when there is none."""
        ...

    async def operations(self) -> list[str]:
        """Ids of the operations that have a secret."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


# --- exports ---------------------------------------------------------------------


class DestinationRefused(Exception):
    """The destination of an export takes nothing; the message is for the client."""


class ExportSink(Protocol):
    """Where an export's files go: a blob container or a folder."""

    async def put(self, name: str, source: Source) -> None:
        """Stores a file whole or not at all; one that is there is replaced.

        What the source raises is raised, and nothing is stored.

        Raises:
            DestinationRefused: It would not be taken at another attempt either.
            StoreUnavailable: The destination does not answer.
        """
        ...

    async def write_log(self, name: str, data: bytes) -> None:
        """Makes the log have this content, whatever it had; raises as `put` does."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


OpenSink = Callable[[Destination], ExportSink]
"""Opens a destination; nothing is reached yet."""


# --- token keys ------------------------------------------------------------------


class TokenKeys(Protocol):
    """What an issuer of tokens publishes about itself."""

    async def issuer(self) -> str:
        """Its name, as tokens state it in `iss`.

        Raises:
            StoreUnavailable: The issuer does not answer.
        """
        ...

    async def key(self, kid: str | None) -> Mapping[str, Any] | None:
        """The public signing key of that id as a JSON Web Key; None where none is.

        Without an id the only key, if there is just one. An unknown id makes the
        issuer be asked again, within limits.

        Raises:
            StoreUnavailable: The issuer does not answer and nothing is known.
        """
        ...


# --- all of a process --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one process.

    Attributes:
        spool_folder: Where files are prepared that `Blobs.put` may rename; None where
            renaming is of no use.
    """

    documents: Documents
    blobs: Blobs
    journal: Journal
    secrets: Secrets
    spool_folder: Path | None = None

    async def close(self) -> None:
        """Ends connections and threads."""
        await self.documents.close()
        await self.blobs.close()
        await self.journal.close()
        await self.secrets.close()
