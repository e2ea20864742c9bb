"""What a client accepts and what it therefore gets.

Four ways of answering, by resource: DICOM JSON (a filter only), DICOM files and frames
(negotiated with transfer syntaxes), bulk data, rendered images. Refuses to know what is
stored: whether a transfer syntax can be made is decided later.

Source: PS3.18 8.7 (media types, selection), RFC 9110 12.5.1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from dicomweb.errors import InvalidRequest, NotAcceptable, quoted
from dicomweb.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, JPEG_2000_LOSSLESS

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
OCTET_STREAM = "application/octet-stream"
JPEG_2000 = "image/jp2"
JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
MULTIPART_RELATED = "multipart/related"

AS_STORED = "*"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a word of the grammar
_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*", re.ASCII)
# Unquoted values may hold separators: OHIF sends type=application/octet-stream, others
# boundaries with '=' and ':'.
_PARAMETER = re.compile(
    rf';\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;",]+))\s*)?', re.ASCII
)
_ESCAPED = re.compile(r"\\(.)")
_QUALITY_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type as a header gives it.

    Attributes:
        type: `type/subtype`, lower case.
        parameters: Names in lower case, values without quotes; the first of a name.
    """

    type: str
    parameters: Mapping[str, str]

    @property
    def quality(self) -> float:
        """The weight `q`, 0 to 1; 1 when absent or malformed."""
        value = self.parameters.get("q", "1")
        return float(value) if _QUALITY.fullmatch(value) else 1.0


def parse_media_type(text: str) -> MediaType | None:
    """The media type, or None where the text is not one.

    Source: RFC 9110 8.3.1.
    """
    head = _TYPE.match(text)
    if head is None:
        return None
    parameters: dict[str, str] = {}
    at = head.end()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            return None
        name, in_quotes, bare = match.groups()
        if name:
            value = bare if in_quotes is None else _ESCAPED.sub(r"\1", in_quotes)
            parameters.setdefault(name.lower(), value.strip())
        at = match.end()
    return MediaType(head[1].lower(), parameters)


def parse_accept(accept: str | None) -> tuple[MediaType, ...] | None:
    """The entries of an Accept header in order, or None where one is malformed.

    Args:
        accept: Repeated headers joined by commas; None or blank means none: `()`.
    """
    entries = [entry for entry in _split(accept or "") if entry.strip()]
    parsed = [parse_media_type(entry) for entry in entries]
    media = tuple(entry for entry in parsed if entry is not None)
    return media if len(media) == len(entries) else None


def _split(header: str) -> list[str]:
    """Cuts at commas outside quotes."""
    if '"' not in header:
        return header.split(",")
    return re.findall(r'(?:"(?:[^"\\]|\\.)*"?|[^",])+', header)


# --- DICOM JSON ------------------------------------------------------------------


def check_accepts_dicom_json(accept: str | None) -> None:
    """Checks that the client takes DICOM JSON, also under the name of plain JSON.

    Parameters, even weights, are not looked at.

    Raises:
        NotAcceptable: It does not, or does not say what it takes; without a message.

    Source: PS3.18 8.7.3.2.
    """
    if accept is not None and accept.strip().lower() in {DICOM_JSON, "*/*"}:
        return
    if not any(_covers_dicom_json(media.type) for media in parse_accept(accept) or ()):
        raise NotAcceptable("")


def _covers_dicom_json(media_type: str) -> bool:
    return media_type in {
        DICOM_JSON,
        "*/*",
        "application/*",
        "application/json",
        "application/*+json",
    }


# --- DICOM files, frames, bulk data -----------------------------------------------


class Retrieval(Enum):
    """What is retrieved, as far as it matters for the negotiation."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    FRAMES = "frames"
    BULK_DATA = "bulk data"


@dataclass(frozen=True, slots=True)
class Representation:
    """What is sent.

    Attributes:
        media_type: Of each part: DICOM, OCTET_STREAM or JPEG_2000.
        transfer_syntax: UID, or `*` for each as it is stored.
        multipart: Whether the parts come in multipart/related.
    """

    media_type: str
    transfer_syntax: str
    multipart: bool


class _Bare(Enum):
    """What a media type gets that is asked for outside multipart/related."""

    REFUSAL = "refusal"
    SINGLE_PART = "single part"
    MULTIPART = "multipart"


@dataclass(frozen=True, slots=True)
class _Offer:
    """A media type that may be asked for.

    Attributes:
        asked: May be a wildcard.
        transfer_syntaxes: Those that may be asked for; the first is the default.
        sent: The media type of what is sent.
    """

    asked: str
    transfer_syntaxes: tuple[str, ...]
    sent: str
    bare: _Bare


_FILES = (EXPLICIT_LITTLE_ENDIAN, JPEG_2000_LOSSLESS, AS_STORED)
_ANY_FILES = (AS_STORED, EXPLICIT_LITTLE_ENDIAN, JPEG_2000_LOSSLESS)
_RAW = (EXPLICIT_LITTLE_ENDIAN, AS_STORED)
_ANY_RAW = (AS_STORED, EXPLICIT_LITTLE_ENDIAN)
_JPEG_2000 = (JPEG_2000_LOSSLESS,)


def _any(syntaxes: tuple[str, ...], sent: str, bare: _Bare) -> tuple[_Offer, _Offer]:
    return (
        _Offer("*/*", syntaxes, sent, bare),
        _Offer("application/*", syntaxes, sent, bare),
    )


_FILES_OFFERS = (
    _Offer(DICOM, _FILES, DICOM, _Bare.REFUSAL),
    *_any(_ANY_FILES, DICOM, _Bare.MULTIPART),
)
_OFFERS: Mapping[Retrieval, tuple[_Offer, ...]] = {
    Retrieval.STUDY: _FILES_OFFERS,
    Retrieval.SERIES: _FILES_OFFERS,
    Retrieval.INSTANCE: (
        _Offer(DICOM, _FILES, DICOM, _Bare.SINGLE_PART),
        *_any(_ANY_FILES, DICOM, _Bare.MULTIPART),
    ),
    Retrieval.FRAMES: (
        _Offer(OCTET_STREAM, _RAW, OCTET_STREAM, _Bare.SINGLE_PART),
        _Offer(JPEG_2000, _JPEG_2000, JPEG_2000, _Bare.REFUSAL),
        _Offer("image/*", _JPEG_2000, JPEG_2000, _Bare.REFUSAL),
        *_any(_ANY_RAW, OCTET_STREAM, _Bare.MULTIPART),
    ),
    Retrieval.BULK_DATA: (
        _Offer(OCTET_STREAM, _RAW, OCTET_STREAM, _Bare.SINGLE_PART),
        *_any(_RAW, OCTET_STREAM, _Bare.SINGLE_PART),
    ),
}


def negotiate(retrieval: Retrieval, accept: str | None) -> Representation:
    """The representation that the client prefers among those we can send.

    The highest weight wins, the first of equals; but of equals one that asks for the
    transfer syntax as stored wins over all. `*/*` means DICOM files or raw frames, as
    stored, in multipart/related; for bulk data it means the bytes alone. Bulk data are
    little endian unless they are asked for as stored.

    Raises:
        NotAcceptable: There is none, or no Accept header.

    Source: PS3.18 8.7.4, 8.7.8.
    """
    ranked = sorted(parse_accept(accept) or (), key=lambda media: -media.quality)
    chosen: MediaType | None = None
    representation: Representation | None = None
    for media in ranked:
        candidate = _represent(retrieval, media) if media.quality > 0 else None
        if candidate is None:
            continue
        as_stored = media.parameters.get("transfer-syntax") == AS_STORED
        if chosen is None or (as_stored and media.quality >= chosen.quality):
            chosen, representation = media, candidate
    if representation is None:
        raise NotAcceptable("The request headers are not acceptable.")
    return representation


def _represent(retrieval: Retrieval, media: MediaType) -> Representation | None:
    multipart = media.type == MULTIPART_RELATED
    asked = media.parameters.get("type", "").lower() if multipart else media.type
    for offer in _OFFERS[retrieval]:
        if offer.asked != asked:
            continue
        syntax = media.parameters.get("transfer-syntax", offer.transfer_syntaxes[0])
        if syntax not in offer.transfer_syntaxes:
            return None
        if not multipart and offer.bare is _Bare.REFUSAL:
            return None
        in_parts = multipart or offer.bare is _Bare.MULTIPART
        return Representation(offer.sent, syntax, in_parts)
    return None


# --- rendered images ----------------------------------------------------------------


def negotiate_rendered(
    accept: str | None,
) -> Literal["image/jpeg", "image/png"]:
    """JPEG or PNG; JPEG when the client says nothing or takes any image.

    Raises:
        NotAcceptable: Another media type or more than one.

    Source: PS3.18 8.7.4, 10.4.1.1.3.
    """
    if accept is None or not accept.strip():
        return JPEG
    entries = parse_accept(accept) or ()
    if len(entries) > 1:
        raise NotAcceptable(
            "Rendered resources take one media type in the Accept header, not several."
        )
    asked = entries[0].type if entries else ""
    if asked == PNG:
        return PNG
    if asked in {JPEG, "image/*", "*/*"}:
        return JPEG
    raise NotAcceptable("The request headers are not acceptable.")


def parse_image_quality(values: Sequence[str]) -> int:
    """The `quality` of a JPEG, 1 to 100; 100 when not given.

    Raises:
        InvalidRequest: It is not one whole number of that range.

    Source: PS3.18 8.3.5.1.2.
    """
    if not values:
        return 100
    text = values[-1].strip()
    if not (_QUALITY_NUMBER.fullmatch(text) and 1 <= int(text) <= 100):
        raise InvalidRequest(
            f"The image quality {quoted(text)} must be between 1 and 100 inclusive."
        )
    return int(text)
