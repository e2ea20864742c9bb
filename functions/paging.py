"""`limit` and `offset` of lists that are not searches."""

import re

from dicomweb.errors import InvalidRequest
from functions.call import Call

DEFAULT_LIMIT = 100
MAX_LIMIT = 200
MAX_OFFSET = 2_147_483_647


def limit_and_offset(call: Call) -> tuple[int, int]:
    """How many, and how many to leave out before.

    Raises:
        InvalidRequest: One of them is no number of its range.
    """
    limit, offset = DEFAULT_LIMIT, 0
    for name, value in call.pairs:
        if name.lower() == "limit":
            limit = _number("Limit", value, 1, MAX_LIMIT)
        elif name.lower() == "offset":
            offset = _number("Offset", value, 0, MAX_OFFSET)
    return limit, offset


def _number(name: str, value: str, low: int, high: int) -> int:
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,10}", text) and low <= int(text) <= high:
        return int(text)
    raise InvalidRequest(
        f"The query parameter '{name}' is invalid. The field {name} must be between"
        f" {low} and {high}."
    )
