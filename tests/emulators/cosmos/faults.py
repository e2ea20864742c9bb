"""Injected faults and counters, set through `/_emulator/…` (not part of Cosmos DB)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

from emulators.cosmos.errors import CosmosError, bad_request


class Moment(Enum):
    """What becomes of a request that meets a fault."""

    THROTTLE = "429"
    RETRY_WITH = "449"
    TIMEOUT_BEFORE = "408-before"
    TIMEOUT_AFTER = "408-after"
    UNAVAILABLE_BEFORE = "503-before"
    UNAVAILABLE_AFTER = "503-after"
    CUT_BEFORE = "cut-before"
    CUT_AFTER = "cut-after"
    LATENCY = "latency"


@dataclass(slots=True)
class Rule:
    """When a fault strikes.

    Attributes:
        kind: Kind of operation (`batch`, `query`, …) or `*` for all on documents.
        container: Only in this container, or everywhere when None.
        skip: Matching requests to let through first.
        count: How often it strikes at most; None without end.
        rate: Share of matching requests that it strikes.
    """

    moment: Moment
    kind: str = "*"
    container: str | None = None
    skip: int = 0
    count: int | None = None
    rate: float = 1.0
    retry_after_ms: int = 5
    seconds: float = 0.0


@dataclass(slots=True)
class Faults:
    """The rules in force and the random numbers that they draw on."""

    rules: list[Rule] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(1))

    def add(self, settings: Mapping[str, Any]) -> None:
        """Adds a rule from its JSON; a 400 for one that is not understood."""
        try:
            values = dict(settings)
            if "seed" in values:
                self.random.seed(values.pop("seed"))
            self.rules.append(Rule(Moment(values.pop("fault")), **values))
        except (KeyError, TypeError, ValueError) as error:
            raise bad_request(f"Not a fault: {settings} ({error}).") from error

    def strike(self, kind: str, container: str) -> Rule | None:
        """The rule that this request meets, if any; it is used up by that."""
        for rule in self.rules:
            if rule.kind not in {"*", kind} or rule.container not in {None, container}:
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.count == 0 or self.random.random() >= rule.rate:
                continue
            if rule.count is not None:
                rule.count -= 1
            return rule
        return None


def error_of(rule: Rule) -> CosmosError | None:
    """What the request is answered with; None where the connection is cut or slow.

    Source: docs, nosql/troubleshoot-request-rate-too-large.md (429 and
    x-ms-retry-after-ms), rest/api/cosmos-db/http-status-codes-for-cosmosdb (408, 449).
    """
    match rule.moment:
        case Moment.THROTTLE:
            return CosmosError(
                429, "Request rate is large.", substatus=3200,
                retry_after_ms=rule.retry_after_ms,
            )  # fmt: skip
        case Moment.RETRY_WITH:
            return CosmosError(449, "Conflicting request to resource; retry.")
        case Moment.TIMEOUT_BEFORE | Moment.TIMEOUT_AFTER:
            return CosmosError(408, "Request timed out.")
        case Moment.UNAVAILABLE_BEFORE | Moment.UNAVAILABLE_AFTER:
            return CosmosError(503, "Service is currently unavailable.")
        case _:
            return None


AFTER = frozenset({Moment.TIMEOUT_AFTER, Moment.UNAVAILABLE_AFTER, Moment.CUT_AFTER})


@dataclass(slots=True)
class Counters:
    """What was asked since the last reset.

    Attributes:
        requests: Number by kind of operation.
        charges: Modelled request units by kind.
        scans: Queries across partitions that no index served: text and paths.
        struck: Requests that met a fault, by fault.
    """

    requests: Counter[str] = field(default_factory=Counter)
    charges: dict[str, float] = field(default_factory=dict)
    scans: list[dict[str, Any]] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)

    def charge(self, kind: str, units: float) -> None:
        """Adds modelled request units."""
        self.charges[kind] = self.charges.get(kind, 0.0) + units

    def as_json(self) -> dict[str, Any]:
        """The counters as they are sent."""
        return {
            "requests": dict(self.requests),
            "charges_modelled": {k: round(v, 2) for k, v in self.charges.items()},
            "scans": self.scans,
            "faults": dict(self.struck),
        }
