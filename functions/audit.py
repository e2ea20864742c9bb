"""The audit log: who did what, two entries for each audited request.

An entry is one line of JSON on the logger `dicom.audit`. It has UIDs and the name of
the partition, but neither the query string nor anything else of a patient. Headers
that start with `X-MS-AZUREDICOM-AUDIT-` are copied as the client sent them.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from dicomweb.errors import InvalidRequest, quoted
from functions.auth import Caller
from functions.call import Route
from services import audit_log
from services.audit_log import ActionType
from services.settings import Settings

HEADER_PREFIX = "x-ms-azuredicom-audit-"
MAX_HEADERS = 10
MAX_HEADER_CHARACTERS = 2048
HIDDEN = "…"
"""Stands for a segment of the path that is not what belongs there."""

_PARAMETER = re.compile(r"\{\*?([a-z]+)[^}]*\}", re.IGNORECASE)
_NAMES = frozenset({"partition", "version", "tag"})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_NUMBERS = re.compile(r"[0-9A-Fa-f.,/-]{1,256} *", re.ASCII)


def custom_headers(request: Request) -> dict[str, str]:
    """The headers for the audit log, by name as the client wrote it in lower case.

    Raises:
        InvalidRequest: There are too many, or one is too long.
    """
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name.startswith(HEADER_PREFIX):
            found[name] = f"{found[name]}, {value}" if name in found else value
    if len(found) > MAX_HEADERS:
        raise InvalidRequest(
            f"At most {MAX_HEADERS} custom audit headers are taken, not {len(found)}."
        )
    for name, value in found.items():
        if len(value) > MAX_HEADER_CHARACTERS:
            raise InvalidRequest(
                f"The custom audit header {quoted(name)} may have at most"
                f" {MAX_HEADER_CHARACTERS} characters, not {len(value)}."
            )
    return found


class Audit:
    """The entries of one request."""

    def __init__(
        self, settings: Settings, route: Route, request: Request, root: str, id: str
    ) -> None:
        """Nothing is written yet.

        Args:
            settings: Which claims are recorded, and whether any of this is.
            route: Only those with a name for the audit log are audited.
            request: What is asked.
            root: Scheme and host as the client knows them.
            id: Of the request.
        """
        self._settings = settings
        self._route = route
        self._request = request
        self._root = root
        self._id = id
        self._headers: Mapping[str, str] = {}
        self._caller = Caller()
        self._began = False

    def identified(self, caller: Caller) -> None:
        """Says who calls, for the entries to come."""
        self._caller = caller

    def executing(self, headers: Mapping[str, str]) -> None:
        """Writes the first entry."""
        self._headers, self._began = headers, True
        self._write(ActionType.EXECUTING, None)

    def executed(self, status: int) -> None:
        """Writes the second entry; both for a request that did not come so far."""
        if not self._began:
            self.executing(self._headers)
        self._write(ActionType.EXECUTED, status)

    def _write(self, action_type: ActionType, status: int | None) -> None:
        action = self._route.audit
        if action is None:
            return
        details: dict[str, Any] = {
            "RequestUri": self._root + safe_path(self._route, self._request),
            "Method": self._request.method,
            "CallerIPAddress": self._caller.address,
            "Claims": {
                name: self._caller.claims[name]
                for name in self._settings.audit_claims
                if name in self._caller.claims
            },
            "CustomHeaders": self._headers,
        }
        if status is not None:
            details["StatusCode"] = status
        audit_log.write(self._settings, action_type, action, self._id, details)


def safe_path(route: Route, request: Request) -> str:
    """The path that the request named, without what could be of a patient."""

    def filled(parameter: re.Match[str]) -> str:
        name = parameter[1]
        value = request.path_params.get(name) or ""
        expected = _NAME if name in _NAMES else _NUMBERS
        return quote(value, safe="/,") if expected.fullmatch(value) else HIDDEN

    scope = "{version}/" if route.versions else ""
    if "partition" in request.path_params:
        scope += "partitions/{partition}/"
    return "/" + _PARAMETER.sub(filled, scope + route.path)
