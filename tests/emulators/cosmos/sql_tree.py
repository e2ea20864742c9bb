"""The tree of the Cosmos DB SQL that the emulator understands."""

from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
"""Names below the alias: `c.f.PatientID` is `("f", "PatientID")`."""


@dataclass(frozen=True, slots=True)
class Field:
    """A path below an alias."""

    alias: str
    path: Path


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """`@name`."""

    name: str


Operand = Literal | Parameter


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator operand`; operators `=`, `<`, `<=`, `>`, `>=`."""

    field: Field
    operator: str
    operand: Operand


@dataclass(frozen=True, slots=True)
class InList:
    """`field IN (...)`."""

    field: Field
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class LikePattern:
    """`field LIKE operand ESCAPE 'x'`."""

    field: Field
    operand: Operand
    escape: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """A function of a field and, for some, an operand."""

    name: str
    field: Field
    operand: Operand | None = None


@dataclass(frozen=True, slots=True)
class ExistsIn:
    """`EXISTS(SELECT VALUE w FROM w IN field WHERE condition)`."""

    alias: str
    field: Field
    condition: "Node"


@dataclass(frozen=True, slots=True)
class Both:
    """`a AND b AND ...`."""

    nodes: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """`a OR b OR ...`."""

    nodes: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`."""

    value: bool


Node = Comparison | InList | LikePattern | Call | ExistsIn | Both | Either | Truth


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of ORDER BY."""

    path: Path
    descending: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT.

    Attributes:
        fields: Paths to return; None is `SELECT *`.
        aggregate: `count` for `SELECT VALUE COUNT(1)`.
        merged: Whether it is a query plan's rewritten query (`orderByItems`, `payload`).
    """

    alias: str
    fields: tuple[Path, ...] | None
    where: Node
    order: tuple[SortKey, ...]
    top: Operand | None = None
    offset: Operand | None = None
    limit: Operand | None = None
    aggregate: str | None = None
    merged: bool = False
