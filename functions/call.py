"""What a route is and what its handler is handed."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.identifiers import Partition, check_uid
from services.metrics import Usage
from services.runtime import Runtime

PRERELEASE, V1, V2 = "v1.0-prerelease", "v1", "v2"
VERSIONS = (PRERELEASE, V1, V2)
NUMBERS = {PRERELEASE: 1, V1: 1, V2: 2}

_PARAMETER = re.compile(r"\{\*?([a-z]+)[^}]*\}")


class Permission(Flag):
    """What a caller must be allowed to do; the names of roles files."""

    NONE = 0
    READ = auto()
    WRITE = auto()
    DELETE = auto()
    MANAGE_EXTENDED_QUERY_TAGS = auto()
    EXPORT = auto()
    ALL = READ | WRITE | DELETE | MANAGE_EXTENDED_QUERY_TAGS | EXPORT


@dataclass(slots=True)
class Call:
    """One request on its way to its handler.

    Attributes:
        route: Which it matched.
        version: Segment of the path, one of VERSIONS; empty on unversioned routes.
        partition: The default one on routes without partitions.
        root: Scheme and host of every URL we emit, without a slash at its end.
        request_id: 32 hex digits, for logs and the client.
        usage: What the request costs; handlers add the instances.
        require: Raises Forbidden where the caller may not do that as well.
    """

    request: Request
    runtime: Runtime
    route: "Route"
    version: str
    partition: Partition
    root: str
    request_id: str
    usage: Usage
    require: Callable[[Permission], None] = lambda _permission: None

    @property
    def version_number(self) -> int:
        """1 or 2: how features behave."""
        return NUMBERS[self.version]

    @property
    def version_url(self) -> str:
        """`https://host/v2`."""
        return f"{self.root}/{self.version}"

    @property
    def base_url(self) -> str:
        """What stands before `/studies/…` in URLs of this partition."""
        if not self.runtime.settings.data_partitions:
            return self.version_url
        return f"{self.version_url}/partitions/{self.partition.name}"

    @property
    def resource_url(self) -> str:
        """The URL of what is asked for, without a query."""

        def filled(parameter: re.Match[str]) -> str:
            return quote(self.path(parameter[1]) or "")

        base = self.base_url if self.route.in_partitions else self.version_url
        return f"{base}/{_PARAMETER.sub(filled, self.route.path)}"

    @property
    def accept(self) -> str | None:
        """The Accept header, repeated ones joined; None when absent."""
        return self.header("accept")

    def header(self, name: str) -> str | None:
        """A header that is a list, repeated ones joined; None when absent."""
        values = self.request.headers.getlist(name)
        return ", ".join(values) if values else None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Query parameters in order, decoded."""
        query: str = self.request.url.query
        return parse_qsl(query, keep_blank_values=True)

    @property
    def client(self) -> Any:
        """The client of Durable Functions, on routes that are `durable`."""
        return self.request.state.durable_client

    def path(self, name: str) -> str | None:
        """A parameter of the path, decoded, or None where the route has none."""
        value: str | None = self.request.path_params.get(name)
        return value

    def uid(self, name: str, keyword: str) -> str | None:
        """A UID of the path as typed, or None where the route has none.

        Raises:
            InvalidRequest: It is no UID.
        """
        value = self.path(name)
        return None if value is None else check_uid(value, keyword)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One transaction.

    Attributes:
        name: Of the Azure function, PascalCase.
        method: GET stands for GET and HEAD.
        path: Template below `/{version}[/partitions/{partition}]`, or below the root
            where `versions` is empty.
        audit: What the audit log calls it; None where it is not audited.
        versions: Those that have it; empty where the path has no version.
        absent_from: Those of them in which it is 404 all the same.
        in_partitions: Whether the data belong to a partition.
        creates_partition: Whether a missing partition is made.
        anonymous: Whether it answers without a token even with security on.
        durable: Whether it starts or asks for orchestrations.
    """

    name: str
    method: str
    path: str
    handler: Handler
    permission: Permission
    audit: str | None
    versions: tuple[str, ...] = VERSIONS
    absent_from: tuple[str, ...] = ()
    in_partitions: bool = False
    creates_partition: bool = False
    anonymous: bool = False
    durable: bool = False
