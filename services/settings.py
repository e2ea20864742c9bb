"""Every setting of the server: name, default, meaning and check, in one table.

Settings are environment variables (app settings in Azure). An unknown `DICOM_…` name
or a bad value stops the start with every error listed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dicomweb.export_destination import check_allowed_host

PREFIX = "DICOM_"
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class SettingsError(Exception):
    """One or more settings are wrong; the message lists them all, one a line."""


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("must be true or false")


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]+", value.strip()) or not (
            low <= int(value) <= high
        ):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return value

    return parse


def _list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _hosts(value: str) -> tuple[str, ...]:
    return tuple(check_allowed_host(item) for item in _list(value))


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("must be an http or https URL")
    return value.rstrip("/")


_MANY_TENANTS = frozenset({"common", "organizations", "consumers"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _authority(value: str) -> str:
    url = _url(value)
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and host not in _LOOPBACK and "." in host:
        raise ValueError("must be an https URL")
    if _MANY_TENANTS.intersection(parts.path.lower().split("/")):
        raise ValueError("must name one tenant, not every tenant there is")
    return url


def _ncrontab(value: str) -> str:
    if len(value.split()) != 6:
        raise ValueError("must be a schedule of six fields: {s} {m} {h} {d} {M} {w}")
    return value


def _setting(default: Any, parse: Callable[[str], Any], meaning: str) -> Any:
    return field(default=default, metadata={"parse": parse, "meaning": meaning})


_AZURE_SIGNS = (
    "WEBSITE_INSTANCE_ID",  # App Service, Premium
    "WEBSITE_SITE_NAME",  # Consumption on Linux lacks the one above
    "WEBSITE_POD_NAME",  # Flex Consumption
    "LEGION_SERVICE_HOST",
    "CONTAINER_APP_NAME",
)


def is_azure(environment: Mapping[str, str]) -> bool:
    """Whether a process with these variables runs in Azure, on whatever plan."""
    return any(environment.get(name) for name in _AZURE_SIGNS)


_MAX_FILE = 2_147_483_647


@dataclass(frozen=True, slots=True)
class Settings:
    # ruff: noqa: RUF009 - `_setting` only makes fields
    """The settings of one process; the variable of a field is `DICOM_` + its name."""

    store: str = _setting(
        "embedded",
        _one_of("embedded", "azure"),
        "`embedded` (SQLite and a folder) or `azure` (Cosmos DB and Blob Storage)",
    )
    data: Path = _setting(
        Path("data"), Path, "embedded: the folder of the index and the instances"
    )
    durability: str = _setting(
        "power-loss",
        _one_of("power-loss", "process-crash"),
        "embedded: what an acknowledged write survives",
    )
    cosmos_endpoint: str = _setting("", _url, "azure: URL of the Cosmos DB account")
    cosmos_database: str = _setting("dicom", _text, "azure: name of the database")
    cosmos_key: str = _setting(
        "", _text, "azure: key of the account, for emulators; else managed identity"
    )
    blob_endpoint: str = _setting("", _url, "azure: URL of the blob service")
    blob_connection: str = _setting(
        "", _text, "azure: connection string, for emulators; else managed identity"
    )
    blob_container: str = _setting("dicom", _text, "azure: container of the instances")
    table_endpoint: str = _setting(
        "", _url, "azure: URL of the table service; else that of the blob account"
    )
    table: str = _setting("journal", _text, "azure: name of the table of the journal")
    key_vault: str = _setting(
        "", _url, "azure: URL of the key vault; else a file of the data folder"
    )
    data_partitions: bool = _setting(
        False, _flag, "data partitions: every data route names its partition"
    )
    delete_delay_seconds: int = _setting(
        259_200, _count(0, 31_536_000), "how long blobs outlive their deletion"
    )
    cleanup_schedule: str = _setting(
        "0 */3 * * * *", _ncrontab, "when deleted blobs are removed (NCRONTAB)"
    )
    publish_schedule: str = _setting(
        "*/30 * * * * *",
        _ncrontab,
        "when catalog and change feed are healed after a crash (NCRONTAB)",
    )
    history_days: int = _setting(
        7, _count(1, 3650), "how long operations that ended are remembered"
    )
    purge_schedule: str = _setting(
        "0 0 0 * * *", _ncrontab, "when old operations are forgotten (NCRONTAB)"
    )
    max_file_bytes: int = _setting(
        _MAX_FILE, _count(1, _MAX_FILE), "largest instance that is taken"
    )
    max_transcode_bytes: int = _setting(
        104_857_600,
        _count(1, _MAX_FILE),
        "largest instance that is transcoded or rendered",
    )
    max_query_tags: int = _setting(
        128, _count(1, 1000), "how many extended query tags there may be"
    )
    full_validation: bool = _setting(
        False, _flag, "validate every element on store, not only the indexed ones"
    )
    blank_preamble: bool = _setting(
        False, _flag, "overwrite the 128 byte preamble of stored files with zeros"
    )
    export: bool = _setting(True, _flag, "whether export is offered")
    operations: bool = _setting(
        True, _flag, "whether long-running operations may be started"
    )
    security: bool = _setting(False, _flag, "require a bearer token on every route")
    authority: str = _setting("", _authority, "issuer of the tokens (OpenID Connect)")
    audiences: tuple[str, ...] = _setting(
        (), _list, "accepted audiences of the tokens, comma separated"
    )
    roles_file: Path = _setting(
        Path("roles.json"), Path, "file that says what each role may do"
    )
    roles_claim: str = _setting("roles", _text, "claim that names the caller's roles")
    audit: bool = _setting(
        False, _flag, "write the audit log without security too; with it, always"
    )
    audit_claims: tuple[str, ...] = _setting(
        ("tid", "oid", "sub", "appid", "azp"),
        _list,
        "claims of the caller that the audit log has, comma separated",
    )
    rate_limit: int = _setting(
        0, _count(0, 1_000_000), "requests a minute of one caller; 0 for no limit"
    )
    allow_anonymous: bool = _setting(
        False, _flag, "on Azure: allow a start without security"
    )
    cors_origins: tuple[str, ...] = _setting(
        (), _list, "origins whose pages may call the API, comma separated, or `*`"
    )
    sample: bool = _setting(
        False, _flag, "load sample studies once the server is healthy"
    )
    public_url: str = _setting("", _url, "base of every URL the server emits")
    trust_forwarded: bool = _setting(
        False, _flag, "take host and scheme from X-Forwarded-Host and -Proto"
    )
    export_root: str = _setting(
        "",
        _text,
        "embedded: folder below which exports may be written; none where empty",
    )
    export_hosts: tuple[str, ...] = _setting(
        (".blob.core.windows.net",),
        _hosts,
        "where exports may go over https, comma separated: suffixes such as"
        " `.blob.core.windows.net`, hosts, or origins such as `http://127.0.0.1:10000`",
    )
    viewer: Path = _setting(
        Path("viewer"), Path, "folder of the OHIF viewer, served at /viewer"
    )

    @property
    def audits(self) -> bool:
        """Whether the audit log is written."""
        return self.security or self.audit

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings that these variables give.

        Raises:
            SettingsError: Unknown names or bad values, all of them listed.
        """
        known = {variable_name(item.name): item for item in fields(cls)}
        values: dict[str, Any] = {}
        errors: list[str] = []
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            if name not in known:
                errors.append(f"{name}: there is no such setting")
                continue
            try:
                if text.strip():
                    item = known[name]
                    values[item.name] = item.metadata["parse"](text)
            except ValueError as error:
                errors.append(f"{name}: {error}")
        settings = cls(**values)
        named = {error.partition(":")[0] for error in errors}
        errors += [
            error
            for error in settings._contradictions(environment)
            if error.partition(":")[0] not in named
        ]
        if errors:
            raise SettingsError("The settings are wrong:\n" + "\n".join(sorted(errors)))
        return settings

    def _contradictions(self, environment: Mapping[str, str]) -> list[str]:
        """Settings that do not go together, a sentence each."""
        checks = (
            (
                self.store == "azure" and not self.cosmos_endpoint,
                "DICOM_COSMOS_ENDPOINT: needed when DICOM_STORE is azure",
            ),
            (
                self.store == "azure"
                and not (self.blob_endpoint or self.blob_connection),
                "DICOM_BLOB_ENDPOINT: needed when DICOM_STORE is azure",
            ),
            (
                self.security and not self.authority,
                "DICOM_AUTHORITY: needed when DICOM_SECURITY is true",
            ),
            (
                self.security and not self.audiences,
                "DICOM_AUDIENCES: needed when DICOM_SECURITY is true",
            ),
            (
                is_azure(environment)
                and not self.security
                and not self.allow_anonymous,
                "DICOM_SECURITY: must be true on Azure unless DICOM_ALLOW_ANONYMOUS is",
            ),
            (
                is_azure(environment)
                and self.store == "azure"
                and self.export
                and not self.key_vault,
                "DICOM_KEY_VAULT: needed on Azure unless DICOM_EXPORT is false",
            ),
        )
        return [message for wrong, message in checks if wrong]


def variable_name(field_name: str) -> str:
    """The environment variable of a field of `Settings`."""
    return PREFIX + field_name.upper()


def documented() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for the docs."""
    return [
        (variable_name(item.name), _shown(item.default), item.metadata["meaning"])
        for item in fields(Settings)
    ]


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default)
