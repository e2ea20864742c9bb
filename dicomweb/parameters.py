"""Query parameters that are numbers and switches, the same for every resource.

Names are matched without case; of a repeated parameter the first counts.
"""

from collections.abc import Mapping, Sequence

from dicomweb.errors import InvalidRequest, quoted

Pairs = Sequence[tuple[str, str]]

_MAX_DIGITS = 19  # of a signed 64-bit number


def first_values(pairs: Pairs) -> dict[str, str]:
    """The first value of each parameter by its name in lower case."""
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name.lower(), value)
    return values


def invalid_parameter(name: str, detail: str) -> InvalidRequest:
    """The error of a parameter; its texts are known to clients of the .NET server."""
    return InvalidRequest(
        f"The query parameter '{name}' is invalid. {detail}", code="InvalidParameter"
    )


def whole_number(
    values: Mapping[str, str], name: str, *, default: int, low: int, high: int
) -> int:
    """The number given as parameter `name` (PascalCase), or the default.

    Raises:
        InvalidRequest: It is no whole number from `low` to `high`.
    """
    text = values.get(name.lower())
    if text is None:
        return default
    digits = text.strip().removeprefix("+")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS
    if not (is_number and low <= int(digits) <= high):
        raise invalid_parameter(
            name, f"The field {name} must be between {low} and {high}."
        )
    return int(digits)


def flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    """The switch given as parameter `name` (PascalCase), or the default.

    Raises:
        InvalidRequest: It is neither `true` nor `false`.
    """
    text = values.get(name.lower())
    if text is None:
        return default
    value = text.strip().lower()
    if value not in {"true", "false"}:
        raise invalid_parameter(
            name, f"The value {quoted(text)} is neither true nor false."
        )
    return value == "true"
