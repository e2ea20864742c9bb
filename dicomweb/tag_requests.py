"""What clients send to add and change extended query tags, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb import attributes, dictionary, validation
from dicomweb.errors import InvalidRequest, quoted
from dicomweb.query_tags import Level, QueryTag

SUPPORTED_VRS = frozenset(
    (
        *("AE", "AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS"),
        *("LO", "PN", "SH", "SL", "SS", "TM", "UI", "UL", "US"),
    )
)
_LEVELS = {level.value: level for level in Level}
# SOPClassUID was no core attribute of the .NET server: its clients may add it.
_CORE = frozenset(attribute.tag for attribute in attributes.CORE) - {"00080016"}
_CHOICES = {"xs": ("US", "SS"), "xw": ("US", "OW"), "ox": ("OB", "OW")}


@dataclass(frozen=True, slots=True)
class NewTag:
    """A tag to be added; fields as in `QueryTag`."""

    path: str
    vr: str
    level: Level
    private_creator: str | None = None


def parse_tags(body: object) -> tuple[NewTag, ...]:
    """The tags of a POST, in order.

    Args:
        body: Decoded JSON: an array of objects with `path`, `level` and, where the
            dictionary does not say it, `vr` and `privateCreator`.

    Raises:
        InvalidRequest: The first thing that is wrong.
    """
    return parse_entries(shaped(body))


def shaped(body: object) -> list[dict[str, Any]]:
    """The entries of a POST, names in lower case; each has a path and a level.

    Raises:
        InvalidRequest: The body has not the form that `parse_tags` wants.
    """
    if not isinstance(body, list):
        raise InvalidRequest("The request body must be a JSON array of tags.")
    if not body:
        raise InvalidRequest("The extended query tag(s) is missing.")
    entries = [_fields(index, entry) for index, entry in enumerate(body)]
    for index, entry in enumerate(entries):
        _check_shape(index, entry)
    return entries


def parse_entries(entries: Sequence[Mapping[str, Any]]) -> tuple[NewTag, ...]:
    """The tags of entries that `shaped` made.

    Raises:
        InvalidRequest: The first thing that is wrong.
    """
    tags: list[NewTag] = []
    for entry in entries:
        tag = _parse(entry)
        if any(other.path == tag.path for other in tags):
            raise InvalidRequest(
                f"The extended query tag {quoted(entry['path'])} has been specified"
                " before."
            )
        tags.append(tag)
    return tuple(tags)


def _fields(index: int, entry: object) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise InvalidRequest(
            f"The field '$[{index}]' in request body is invalid: it must be an object."
        )
    return {str(name).lower(): value for name, value in entry.items()}


def _check_shape(index: int, entry: Mapping[str, Any]) -> None:
    """What the field names of a message are pinned for: path and level."""
    path = entry.get("path")
    if not isinstance(path, str) or not path.strip():
        raise InvalidRequest(
            f"The field '[{index}].Path' in request body is invalid: The Dicom Tag"
            " Property Path must be specified and must not be null, empty or"
            " whitespace."
        )
    level = entry.get("level")
    if level is None or level == "":
        raise InvalidRequest(
            f"The field '[{index}].Level' in request body is invalid: the level of"
            " the tag must be given."
        )
    if not isinstance(level, str) or level.lower() not in _LEVELS:
        shown = str(level)[:64]
        raise InvalidRequest(
            f"The field '$[{index}].Level' in request body is invalid: Expected value"
            f" '{shown}' to be one of the following values:"
            " ['Instance', 'Series', 'Study']"
        )


def _parse(entry: Mapping[str, Any]) -> NewTag:
    text = entry["path"].strip()
    tag = tag_of(text)
    if tag in _CORE:
        raise InvalidRequest(f"The query tag {quoted(text)} is already supported.")
    creator = _text(entry, "privatecreator")
    vr = _text(entry, "vr")
    is_private = dictionary.is_private(tag)
    _check_creator(text, tag, creator, is_private=is_private)
    return NewTag(
        path=tag,
        vr=_vr(text, tag, vr, is_private=is_private),
        level=_LEVELS[entry["level"].lower()],
        private_creator=creator if is_private else None,
    )


def tag_of(text: str) -> str:
    """The 8 upper-case hex digits of a path.

    Raises:
        InvalidRequest: It is neither a keyword nor 8 hex digits of a known or private
            tag, or it is a path into a sequence.
    """
    if "." in text:
        raise InvalidRequest("Sequential dicom tags are currently not supported.")
    tag = attributes.tag_of(text)
    known = tag is not None and (
        dictionary.is_private(tag) or dictionary.entry(tag) is not None
    )
    if tag is None or not known:
        raise InvalidRequest(
            f"The extended query tag {quoted(text)} is invalid as it cannot be parsed"
            " into a valid Dicom Tag."
        )
    return tag


def _text(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"The field {name!r} in request body must be a text.")
    return value


def _check_creator(
    text: str, tag: str, creator: str | None, *, is_private: bool
) -> None:
    if not is_private:
        if creator is not None:
            raise InvalidRequest(
                f"The private creator is not empty for standard tag {quoted(text)}."
            )
        return
    if dictionary.is_private_creator(tag):
        if creator is not None:
            raise InvalidRequest(
                "The private creator is not empty for private identification code"
                f" {quoted(text)}."
            )
        return
    if creator is None:
        raise InvalidRequest(
            f"The private creator for private tag {quoted(text)} is missing."
        )
    if validation.value_breach("LO", creator) is not None or "\\" in creator:
        raise InvalidRequest(
            f"The private creator for tag {quoted(text)} is not a valid LO attribute."
        )


def _vr(text: str, tag: str, vr: str | None, *, is_private: bool) -> str:
    if is_private:
        expected: Sequence[str] = ("LO",) if dictionary.is_private_creator(tag) else ()
    else:
        found = dictionary.entry(tag)
        name = found.vr if found is not None else "UN"
        expected = _CHOICES.get(name, (name,))
    chosen = vr.upper() if vr is not None else (expected[0] if expected else None)
    if chosen is None:
        raise InvalidRequest(f"The vr for tag {quoted(text)} is missing.")
    if len(chosen) != 2 or not chosen.isalpha():
        raise InvalidRequest(
            f"The VR code {quoted(chosen)} for tag {quoted(text)} is invalid."
        )
    if expected and chosen not in expected:
        raise InvalidRequest(
            f"The VR code {quoted(chosen)} is incorrectly specified for"
            f" {quoted(text)}. The expected VR code for it is {quoted(expected[0])}."
            " Retry this request either with the correct VR code or without"
            " specifying it."
        )
    if chosen == "SQ":
        raise InvalidRequest("Sequential dicom tags are currently not supported.")
    if chosen not in SUPPORTED_VRS:
        raise InvalidRequest(
            f"The VR code {quoted(chosen)} specified for tag {quoted(text)} is not"
            " supported."
        )
    return chosen


def parse_patch(body: object) -> bool:
    """Whether queries on the tag are to be enabled.

    Raises:
        InvalidRequest: The body is not `{"queryStatus": "enabled" | "disabled"}`.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest("The request body must be a JSON object.")
    for name in body:
        if str(name).lower() != "querystatus":
            shown = str(name)[:64]
            raise InvalidRequest(
                f"The field '{shown}' in request body is invalid: The field is not"
                f' supported: "{shown}"'
            )
    status = next(iter(body.values()), None)
    if not isinstance(status, str) or status.lower() not in {"enabled", "disabled"}:
        raise InvalidRequest(
            "The field 'queryStatus' in request body is invalid: The value is not"
            ' valid. It need to be one of "Disabled","Enabled".'
        )
    return status.lower() == "enabled"


def entry_json(tag: QueryTag, base_url: str) -> dict[str, Any]:
    """The tag as the API shows it.

    Args:
        tag: Any.
        base_url: `https://host/v2`.
    """
    entry: dict[str, Any] = {
        "path": tag.path,
        "vr": tag.vr,
        "status": tag.status.value,
        "level": tag.level.value,
        "queryStatus": "enabled" if tag.enabled else "disabled",
    }
    if tag.private_creator is not None:
        entry["privateCreator"] = tag.private_creator
    if tag.error_count:
        href = f"{base_url}/extendedquerytags/{tag.path}/errors"
        entry["errors"] = {"count": tag.error_count, "href": href}
    if tag.operation_id is not None:
        href = f"{base_url}/operations/{tag.operation_id}"
        entry["operation"] = {"id": tag.operation_id, "href": href}
    return entry
