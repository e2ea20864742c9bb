"""UIDs, partition names and the key forms under which they are stored.

Source: PS3.5 9.1 (UIDs); design decision 4.4 (key forms).
"""

import re
from dataclasses import dataclass

from dicomweb.errors import InvalidRequest, quoted

UID_CHARACTERS = 64
DEFAULT_PARTITION = "Microsoft.Default"

_UID = re.compile(r"[0-9.]*[0-9]", re.ASCII)
# Clients and proxies take `.` and `..` out of a path: the URL would lead elsewhere.
_PARTITION = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,64}", re.ASCII)


def is_valid_uid(value: str) -> bool:
    """Whether the value is a UID once its trailing spaces and NULs are cut.

    Deliberately lenient as existing clients rely on it: leading zeros and consecutive
    dots pass.

    Source: PS3.5 9.1.
    """
    trimmed = value.rstrip(" \0")
    return len(trimmed) <= UID_CHARACTERS and _UID.fullmatch(trimmed) is not None


def check_uid(value: str, name: str) -> str:
    """The UID unchanged.

    Args:
        value: Text from a path, a query or a body.
        name: DICOM keyword for the message.

    Raises:
        InvalidRequest: It is not a UID.
    """
    if not is_valid_uid(value):
        raise InvalidRequest(
            f"{name} {quoted(value)} is not a valid UID: at most 64 characters, only"
            " digits and dots, ending with a digit.",
            code="InvalidIdentifier",
        )
    return value


def uid_key(value: str) -> str:
    """The UID as it stands in keys: no trailing spaces or NULs, lower case."""
    return value.rstrip(" \0").lower()


@dataclass(frozen=True, slots=True)
class Partition:
    """A data partition.

    Attributes:
        name: As first written; `Microsoft.Default` when partitions are off.
        number: 1 for the default partition, then counted up.
    """

    name: str
    number: int = 1

    @property
    def key(self) -> str:
        """The name as it stands in keys and blob names: lower case, ending with `~`."""
        return partition_key(self.name)


def partition_key(name: str) -> str:
    """Key form of a partition name: lower case, ending with `~`."""
    return name.lower() + "~"


def check_partition_name(name: str) -> str:
    """The name unchanged.

    Raises:
        InvalidRequest: It is not 1 to 64 of letters, digits, `.`, `-`, `_`, or it is
            `.` or `..`.
    """
    if not _PARTITION.fullmatch(name):
        raise InvalidRequest(
            f"The partition name {quoted(name)} is invalid: 1 to 64 letters, digits,"
            " '.', '-' or '_', not '.' or '..' alone.",
            code="InvalidPartitionName",
        )
    return name
