"""What the OpenAPI description says of WADO-RS."""

from collections.abc import Mapping, Sequence

from dicomweb.media_types import DICOM, DICOM_JSON, OCTET_STREAM
from functions.call import Route
from functions.openapi_parts import (
    Object,
    content,
    in_header,
    in_query,
    ref,
    response_headers,
)

_MULTIPART = "multipart/related"
_TEXT: Object = {"type": "string"}
_BINARY: Object = {"type": "string", "format": "binary"}
_NOT_MODIFIED: Object = {"description": "The client has this version already."}
_BEYOND: Object = {"description": "The range starts beyond the end."}
_REFUSED: Object = {"description": "The client does not accept DICOM JSON."}
_ORIGINAL = in_header(
    "msdicom-request-original", {"type": "boolean"}, "The version before updates"
)
_IF_NONE_MATCH = in_header("If-None-Match", _TEXT, "ETag of an earlier answer")
_RANGE = in_header("Range", _TEXT, "Bytes of an answer that is no multipart")

_ALONE: Mapping[str, str] = {
    "RetrieveInstance": DICOM,
    "RetrieveFrames": OCTET_STREAM,
    "RetrieveBulkData": OCTET_STREAM,
}
"""The media type outside of multipart, by the route's name."""


def describe_files(route: Route, _version: str) -> Object:
    """Studies, series, instances, frames and bulk data."""
    name = route.name.removesuffix("InPartition")
    alone = _ALONE.get(name)
    parameters = [_ORIGINAL] if alone != OCTET_STREAM else []
    if alone is None:
        return {
            "summary": "Retrieve",
            "parameters": parameters,
            "responses": {"200": _bytes("The files.", _MULTIPART)},
        }
    etag = response_headers("ETag", "Accept-Ranges")
    whole = _bytes("The bytes, as negotiated.", _MULTIPART, alone)
    return {
        "summary": "Retrieve",
        "parameters": [*parameters, _IF_NONE_MATCH, _RANGE],
        "responses": {
            "200": {**whole, "headers": etag},
            "206": {
                **_bytes("The range asked for.", alone),
                "headers": {**etag, **response_headers("Content-Range")},
            },
            "304": _NOT_MODIFIED,
            "416": _BEYOND,
        },
    }


def _bytes(description: str, *media_types: str) -> Object:
    return {"description": description, "content": _binary(media_types)}


def _binary(media_types: Sequence[str]) -> Object:
    return {media_type: {"schema": _BINARY} for media_type in media_types}


def describe_metadata(_route: Route, _version: str) -> Object:
    """Metadata of studies, series and instances."""
    data_sets = {"type": "array", "items": ref("DataSet")}
    return {
        "summary": "Retrieve metadata",
        "parameters": [_ORIGINAL, _IF_NONE_MATCH],
        "responses": {
            "200": {
                **content(DICOM_JSON, data_sets, "One data set per instance."),
                "headers": response_headers("ETag"),
            },
            "304": _NOT_MODIFIED,
            "406": _REFUSED,
        },
    }


def describe_rendered(_route: Route, _version: str) -> Object:
    """Images of instances and frames."""
    quality = {"type": "integer", "minimum": 1, "maximum": 100, "default": 100}
    return {
        "summary": "Retrieve an image",
        "parameters": [in_query("quality", quality, "Of JPEG")],
        "responses": {"200": _bytes("The image.", "image/jpeg", "image/png")},
    }
