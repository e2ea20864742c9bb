"""Where an export may go: URIs and connection strings, read so that nothing slips by.

A caller names the host that the server then writes to. So a URI is matched as a whole
against what is allowed, character by character; what does not fit is refused, and no
part of it is ever given to a library that might read it in another way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dicomweb.errors import InvalidRequest, quoted

AZURE_BLOB: Final = "azureblob"
FOLDER: Final = "folder"

EMULATOR_ACCOUNT: Final = "devstoreaccount1"
EMULATOR_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # noqa: E501
"""The account and key that every storage emulator has; Azurite's documentation."""
EMULATOR_ENDPOINT: Final = f"http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"

_ALLOWED = re.compile(
    r"(?P<suffix>(?:\.[a-z0-9-]+)+)"
    r"|(?:(?P<scheme>https?)://)?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?P<port>:[0-9]+)?"
)
_URI = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?P<port>:[0-9]{1,5})?"
    r"(?P<path>(?:/[a-z0-9-]+){1,2})/?(?:\?(?P<query>[\x21-\x7e]*))?",
    re.IGNORECASE,
)
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_SAS_FIELDS = frozenset(
    (
        *("sv", "ss", "srt", "sr", "sp", "se", "st", "spr", "sip", "si", "sig"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "skdutid"),
        *("saoid", "suoid", "scid", "sdd", "ses", "sduoid"),
    )
)
_FOLDER_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_MAX_URI_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class BlobContainer:
    """A container of Blob Storage.

    Attributes:
        account_url: `https://{account}.blob.core.windows.net`; an emulator's has its
            account as path.
        name: Of the container.
        managed_identity: Whether the server's own identity enters.
        sas: Shared access signature; secret.
        account_key: Of an emulator; as secret as others.
    """

    account_url: str
    name: str
    managed_identity: bool = False
    sas: str = ""
    account_key: str = ""

    @property
    def url(self) -> str:
        """Of the container, without any secret."""
        return f"{self.account_url}/{self.name}"

    @property
    def secret(self) -> str:
        """What opens it, for a store of secrets; empty where there is none."""
        if self.sas:
            return f"sas:{self.sas}"
        return f"key:{self.account_key}" if self.account_key else ""

    def public(self) -> "BlobContainer":
        """The same without its secret."""
        return replace(self, sas="", account_key="")

    def opened_by(self, secret: str) -> "BlobContainer":
        """The inverse of `secret`."""
        kind, _, text = secret.partition(":")
        if kind == "sas":
            return replace(self, sas=text)
        return replace(self, account_key=text if kind == "key" else "")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder below the one that the settings name.

    Attributes:
        path: Relative, with `/`; empty for that folder itself.
    """

    path: str = ""


Destination = BlobContainer | Folder


def check_allowed_host(text: str) -> str:
    """An entry of the setting, in lower case.

    Raises:
        ValueError: It is neither a suffix (`.blob.core.windows.net`) nor a host or an
            origin (`account.example.org`, `http://127.0.0.1:10000`).
    """
    lowered = text.lower().rstrip("/")
    if _ALLOWED.fullmatch(lowered) is None:
        raise ValueError(
            f"{quoted(text)} is no suffix such as .blob.core.windows.net and no host"
        )
    return lowered


def destination(
    type: str,
    settings: Mapping[str, Any],
    *,
    allowed_hosts: Sequence[str],
    has_folder: bool,
    has_identity: bool,
) -> Destination:
    """Where the export goes.

    Args:
        type: `azureblob` or `folder`.
        settings: Of the request, names in lower case.
        allowed_hosts: As `check_allowed_host` returns them.
        has_folder: Whether the server writes exports to a folder.
        has_identity: Whether the server has an identity of its own.

    Raises:
        InvalidRequest: The settings say no destination, or one that is not allowed.
    """
    if type == FOLDER:
        return _folder(settings, has_folder=has_folder)
    if type != AZURE_BLOB:
        raise InvalidRequest(
            "The field 'destination.type' in the request body is invalid:"
            f" {quoted(type)} is neither 'azureBlob' nor 'folder'."
        )
    uri = _text(settings, "blobContainerUri")
    connection = _text(settings, "connectionString")
    name = _text(settings, "blobContainerName")
    identity = _switch(settings, "useManagedIdentity")
    if uri and (connection or name):
        raise InvalidRequest(
            "ConnectionString and BlobContainerName cannot be specified along with"
            " BlobContainerUri."
        )
    if uri:
        found = _by_uri(uri, allowed_hosts)
    elif connection and name:
        found = _by_connection(connection, name, allowed_hosts)
    else:
        raise InvalidRequest(
            "Please specify BlobContainerUri, or both ConnectionString and"
            " BlobContainerName."
        )
    if not identity:
        return found
    return _with_identity(found, by_uri=bool(uri), has_identity=has_identity)


def _with_identity(
    found: BlobContainer, *, by_uri: bool, has_identity: bool
) -> BlobContainer:
    if not by_uri:
        raise InvalidRequest("Managed identity cannot be used with a ConnectionString.")
    if found.secret:
        raise InvalidRequest(
            "UseManagedIdentity cannot be specified if BlobContainerUri has a query."
        )
    if not has_identity or not found.account_url.startswith("https:"):
        raise InvalidRequest("No identity has been configured.")
    return replace(found, managed_identity=True)


def _text(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name.lower())
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(
            f"The field 'destination.settings.{name}' in the request body is invalid:"
            " it must be a text."
        )
    return value.strip()


def _switch(settings: Mapping[str, Any], name: str) -> bool:
    value = settings.get(name.lower())
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidRequest(
            f"The field 'destination.settings.{name}' in the request body is invalid:"
            " it must be true or false."
        )
    return value


# --- a container ---------------------------------------------------------------------


def _by_uri(uri: str, allowed_hosts: Sequence[str]) -> BlobContainer:
    match = _URI.fullmatch(uri) if len(uri) <= _MAX_URI_CHARACTERS else None
    if match is None:
        raise InvalidRequest(
            "BlobContainerUri is not the URI of a container:"
            " https://{account}.blob.core.windows.net/{container}.",
            code="InvalidDestination",
        )
    origin = f"{match['scheme']}://{match['host']}{match['port'] or ''}".lower()
    segments = match["path"].split("/")[1:]
    is_exact = _check_allowed(origin, allowed_hosts)
    if len(segments) != 1 and not is_exact:
        raise InvalidRequest(
            "BlobContainerUri names a blob or folder; it must name a container.",
            code="InvalidDestination",
        )
    *account, container = segments
    return BlobContainer(
        "/".join([origin.removesuffix(":443"), *account]),
        _container_name(container),
        sas=_sas(match["query"] or ""),
    )


def _check_allowed(origin: str, allowed_hosts: Sequence[str]) -> bool:
    """Whether the origin itself is allowed, and not only a suffix of its host.

    Raises:
        InvalidRequest: Neither is.
    """
    scheme, _, rest = origin.partition("://")
    host, _, port = rest.partition(":")
    secure = scheme == "https" and port in {"", "443"}
    if origin in allowed_hosts or (secure and host in allowed_hosts):
        return True
    if secure and any(
        host.endswith(entry) and host != entry
        for entry in allowed_hosts
        if entry.startswith(".")
    ):
        return False
    raise InvalidRequest(
        f"Exports to {quoted(origin)} are not allowed here.",
        code="DestinationNotAllowed",
    )


def _container_name(name: str) -> str:
    if _CONTAINER.fullmatch(name) is None or len(name) > 63:
        raise InvalidRequest(
            f"{quoted(name)} is no name of a blob container.",
            code="InvalidDestination",
        )
    return name


def _sas(query: str) -> str:
    """The query of a URI, if it is a shared access signature and nothing else."""
    text = query.lstrip("?")
    if not text:
        return ""
    names = [field.partition("=")[0] for field in text.split("&")]
    if not _SAS_FIELDS.issuperset(names) or names.count("sig") != 1:
        raise InvalidRequest(
            "The query of the container's URI is no shared access signature.",
            code="InvalidDestination",
        )
    return text


def _by_connection(
    connection: str, name: str, allowed_hosts: Sequence[str]
) -> BlobContainer:
    parts = _parts(connection)
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        parts = {"accountname": EMULATOR_ACCOUNT, "accountkey": EMULATOR_KEY}
    key = parts.get("accountkey", "")
    endpoint = _endpoint(parts)
    if key and parts.get("accountname") != EMULATOR_ACCOUNT:
        raise InvalidRequest("Account key authentication is not supported.")
    found = _by_uri(f"{endpoint.rstrip('/')}/{_container_name(name)}", allowed_hosts)
    if key:
        return replace(found, account_key=key)
    return replace(found, sas=_sas(parts.get("sharedaccesssignature", "")))


_CONNECTION_FIELDS = frozenset(
    (
        *("defaultendpointsprotocol", "accountname", "accountkey", "endpointsuffix"),
        *("blobendpoint", "queueendpoint", "tableendpoint", "fileendpoint"),
        *("sharedaccesssignature", "usedevelopmentstorage"),
    )
)


def _parts(connection: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for field in connection.split(";"):
        name, equals, value = field.partition("=")
        if not field.strip():
            continue
        key = name.strip().lower()
        if not equals or key not in _CONNECTION_FIELDS or key in parts:
            raise InvalidRequest(
                "ConnectionString is not the connection string of a storage account.",
                code="InvalidDestination",
            )
        parts[key] = value.strip()
    return parts


def _endpoint(parts: Mapping[str, str]) -> str:
    if parts.get("blobendpoint"):
        return parts["blobendpoint"]
    account = parts.get("accountname", "")
    if account == EMULATOR_ACCOUNT:
        return EMULATOR_ENDPOINT
    if not re.fullmatch(r"[a-z0-9]{3,24}", account):
        raise InvalidRequest(
            "ConnectionString names no storage account.", code="InvalidDestination"
        )
    protocol = parts.get("defaultendpointsprotocol", "https")
    suffix = parts.get("endpointsuffix") or "core.windows.net"
    return f"{protocol}://{account}.blob.{suffix}"


# --- a folder ------------------------------------------------------------------------


def _folder(settings: Mapping[str, Any], *, has_folder: bool) -> Folder:
    if not has_folder:
        raise InvalidRequest(
            "This server writes no exports to folders.", code="DestinationNotAllowed"
        )
    path = _text(settings, "path").strip("/")
    if path and not all(map(_FOLDER_SEGMENT.fullmatch, path.split("/"))):
        raise InvalidRequest(
            f"The path {quoted(path)} is not allowed: names of letters, digits, '.',"
            " '-' and '_', joined by '/'.",
            code="InvalidDestination",
        )
    return Folder(path)
