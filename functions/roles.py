"""The roles file: what each role may do, and where.

    {"roles": [{"name": "radiologyReader", "dataActions": ["read"],
                "notDataActions": [], "scopes": ["/partitions/radiology"]}]}

A role's rights are its `dataActions` less its `notDataActions`; a caller has those of
all its roles. Scope `/` is everything; `/partitions/{name}` is one data partition, in
any case of letters, and nothing that several partitions share.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dicomweb.errors import InvalidRequest, quoted
from dicomweb.identifiers import check_partition_name, partition_key
from functions.call import Permission
from services.settings import SettingsError

EVERYWHERE = ""
"""Scope of what no single partition holds: the feed, query tags, operations."""

ROOT_SCOPE = "/"
_PARTITION_SCOPE = "/partitions/"
_FIELDS = frozenset({"name", "dataActions", "notDataActions", "scopes"})

DATA_ACTIONS = {
    "read": Permission.READ,
    "write": Permission.WRITE,
    "delete": Permission.DELETE,
    "manageExtendedQueryTags": Permission.MANAGE_EXTENDED_QUERY_TAGS,
    "export": Permission.EXPORT,
    "*": Permission.ALL,
}


@dataclass(frozen=True, slots=True)
class Role:
    """One role.

    Attributes:
        scopes: Keys of partitions; EVERYWHERE for all of them and what they share.
    """

    name: str
    rights: Permission
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Roles:
    """All roles by name."""

    by_name: dict[str, Role]

    def allow(self, names: Iterable[str], needed: Permission, scope: str) -> bool:
        """Whether callers with these roles may do this there.

        Args:
            names: Of the caller's roles; unknown ones give nothing.
            needed: Every one of these must be among the rights.
            scope: Key of a partition, or EVERYWHERE.
        """
        rights = Permission.NONE
        for name in names:
            role = self.by_name.get(name)
            if role and (EVERYWHERE in role.scopes or scope in role.scopes):
                rights |= role.rights
        return needed in rights


def load(path: Path) -> Roles:
    """The roles of the file.

    Raises:
        SettingsError: It cannot be read or is wrong; every mistake is listed.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"DICOM_ROLES_FILE: {path} cannot be read ({error.strerror});"
            " roles.sample.json is one to start from"
        ) from error
    return parse(text, str(path))


def parse(text: bytes, name: str = "roles.json") -> Roles:
    """The roles that the text describes.

    Raises:
        SettingsError: It is wrong; every mistake is listed.
    """
    try:
        content = orjson.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {error}") from error
    rows = content.get("roles") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise SettingsError(f'{name}: "roles" must be a list of at least one role')
    errors: list[str] = []
    roles = [_role(row, f"role {i}", errors) for i, row in enumerate(rows, start=1)]
    counted = Counter(role.name.lower() for role in roles if role.name)
    errors += [
        f"there are {count} roles with the name {quoted(each)}"
        for each, count in counted.items()
        if count > 1
    ]
    if errors:
        raise SettingsError(f"{name} is wrong:\n" + "\n".join(errors))
    return Roles({role.name: role for role in roles})


def _role(row: Any, where: str, errors: list[str]) -> Role:
    if not isinstance(row, dict):
        errors.append(f"{where} must be an object")
        return Role("", Permission.NONE, frozenset())
    errors += [
        f"{where}: unknown field {quoted(each)}" for each in row.keys() - _FIELDS
    ]
    name = row.get("name")
    if not isinstance(name, str) or not name or name.split() != [name]:
        errors.append(f'{where}: "name" must be a text without blanks')
        name = ""
    granted = _actions(row, "dataActions", where, errors)
    if row.get("dataActions", []) == []:
        errors.append(f'{where}: "dataActions" must not be empty')
    refused = _actions(row, "notDataActions", where, errors)
    return Role(name, granted & ~refused, _scopes(row, where, errors))


def _texts(row: dict[str, Any], field: str, where: str, errors: list[str]) -> list[str]:
    values = row.get(field, [])
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    errors.append(f'{where}: "{field}" must be a list of texts')
    return []


def _actions(
    row: dict[str, Any], field: str, where: str, errors: list[str]
) -> Permission:
    actions = Permission.NONE
    for value in _texts(row, field, where, errors):
        if value in DATA_ACTIONS:
            actions |= DATA_ACTIONS[value]
        else:
            known = ", ".join(DATA_ACTIONS)
            errors.append(f'{where}: "{field}" has {quoted(value)}, not one of {known}')
    return actions


def _scopes(row: dict[str, Any], where: str, errors: list[str]) -> frozenset[str]:
    scopes = set()
    for value in _texts(row, "scopes", where, errors):
        if value == ROOT_SCOPE:
            scopes.add(EVERYWHERE)
            continue
        start, name = value[: len(_PARTITION_SCOPE)], value[len(_PARTITION_SCOPE) :]
        try:
            # An empty name is none, so what starts otherwise is refused as well.
            check_partition_name(name if start == _PARTITION_SCOPE else "")
        except InvalidRequest:
            errors.append(
                f"{where}: scope {quoted(value)} is neither / nor /partitions/{{name}}"
            )
        scopes.add(partition_key(name))
    if not row.get("scopes"):
        errors.append(f'{where}: "scopes" must not be empty')
    return frozenset(scopes)
