"""The value of an extended query tag in an instance that is stored already.

The rules are those of a store (`validation`), applied to DICOM JSON.
"""

from collections.abc import Mapping
from typing import Any

from dicomweb import matching, validation
from dicomweb.query_tags import QueryTag
from dicomweb.validation import ErrorCode

_TEXT_VRS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI")
)


def value_of(
    elements: Mapping[str, dict[str, Any]], tag: QueryTag
) -> str | int | float | ErrorCode | None:
    """The value in search form, why it cannot be indexed, or None where there is none.

    Args:
        elements: DICOM JSON of the instance.
        tag: Of the standard, or private with its creator.
    """
    found = next(iter(validation.resolve(elements, (tag,))), None)
    element = elements.get(found) if found is not None else None
    # Metadata have no values of UN: private attributes of files in implicit VR.
    if element is None or element.get("vr") == "UN":
        return None
    if element.get("vr") != tag.vr:
        return ErrorCode.UNEXPECTED_VR
    values = element.get("Value")
    if not values or values[0] is None:
        return None
    if tag.vr in _TEXT_VRS:
        text = matching.name_text(values[0])
        problem = validation.minimum_text(tag.vr, text.rstrip(" \0"))
        if problem is not None:
            return problem[0]
    return matching.search_form(tag.vr, values)
