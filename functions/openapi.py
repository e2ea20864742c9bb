"""The OpenAPI description of a version, made from the table of routes."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from dicomweb import change_feed, query
from dicomweb.media_types import DICOM, DICOM_JSON, OCTET_STREAM
from functions.call import VERSIONS, Call, Route
from functions.representations import json_response, text_response

Object = dict[str, Any]

_PARAMETER = re.compile(r"\{\*?([a-z]+)\}")
_UID = {"type": "string", "pattern": r"^[0-9.]{0,63}[0-9] *$"}
_PATH_PARAMETERS: Mapping[str, tuple[str, Object]] = {
    "study": ("StudyInstanceUID", _UID),
    "series": ("SeriesInstanceUID", _UID),
    "instance": ("SOPInstanceUID", _UID),
    "frames": (
        "Frame numbers from 1, comma separated",
        {"type": "string", "pattern": "^[0-9]+(,[0-9]+)*$"},
    ),
    "frame": ("Frame number, from 1", {"type": "integer", "minimum": 1}),
    "path": ("Tag path of the element", {"type": "string", "pattern": "^[0-9A-F/]+$"}),
    "partition": (
        "Name of the data partition",
        {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
    ),
}


async def describe_api(call: Call, routes: Sequence[Route]) -> Response:
    """The description as YAML or JSON."""
    name = call.path("document") or ""
    partitions = call.runtime.settings.data_partitions
    document = describe(tuple(routes), call.version, partitions=partitions)
    document = {**document, "servers": [{"url": call.root}]}
    if name.lower().endswith(".json"):
        return await json_response(call, document)
    text = "\n".join(_yaml(document)).encode()
    return await text_response(call, text, media_type="application/yaml")


@lru_cache(maxsize=8)
def describe(routes: tuple[Route, ...], version: str, *, partitions: bool) -> Object:
    """The OpenAPI 3.1 object of one version.

    Args:
        routes: Those to describe.
        version: One of VERSIONS.
        partitions: Whether paths of data name their partition.
    """
    paths: dict[str, Object] = {}
    for route in routes:
        if version not in route.versions:
            continue
        scope = "/partitions/{partition}" if route.in_partitions and partitions else ""
        template = f"/{version}{scope}/{route.path}".replace("{*", "{")
        paths.setdefault(template, {})[route.method.lower()] = _operation(
            route, template, version
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DICOM Functions",
            "description": "DICOMweb and its extensions, as Azure Health Data"
            " Services has them.",
            "license": {"name": "MIT", "identifier": "MIT"},
            "version": version.removeprefix("v"),
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "responses": {"Error": _content("text/plain", {"type": "string"}, _ERROR)},
        },
    }


_ERROR = "The request failed; the text says why."


def _operation(route: Route, template: str, version: str) -> Object:
    kind = _KINDS[route.audit or ""](route, version)
    return {
        "operationId": route.name,
        "tags": [route.audit],
        "parameters": [*_path_parameters(template), *kind.pop("parameters", ())],
        **kind,
        "responses": {
            **kind["responses"],
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _path_parameters(template: str) -> list[Object]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS[name][0],
            "schema": _PATH_PARAMETERS[name][1],
        }
        for name in _PARAMETER.findall(template)
    ]


def _content(media_type: str, schema: Object, description: str) -> Object:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _ref(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _in_query(name: str, schema: Object, description: str) -> Object:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_header(name: str, schema: Object, description: str) -> Object:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_DATA_SETS = {"type": "array", "items": _ref("DataSet")}
_BINARY = {"type": "string", "format": "binary"}
_NOTHING = {"description": "Nothing was found."}
_NOT_MODIFIED = {"description": "The client has this version already."}


# --- kinds of operations ---------------------------------------------------------


def _store(_route: Route, _version: str) -> Object:
    def answer(description: str) -> Object:
        return _content(DICOM_JSON, _ref("DataSet"), description)

    return {
        "summary": "Store instances",
        "requestBody": {
            "required": True,
            "content": {
                DICOM: {"schema": _BINARY},
                'multipart/related; type="application/dicom"': {"schema": _BINARY},
            },
        },
        "responses": {
            "200": answer("All instances were stored."),
            "202": answer("Some were refused, or stored with warnings."),
            "204": {"description": "There were no instances."},
            "409": answer("No instance was stored."),
        },
    }


def _search(route: Route, _version: str) -> Object:
    limit: Object = {"type": "integer", "minimum": 1, "maximum": query.MAX_LIMIT}
    offset: Object = {"type": "integer", "minimum": 0, "maximum": query.MAX_OFFSET}
    return {
        "summary": "Search",
        "parameters": [
            _in_query("limit", {**limit, "default": query.DEFAULT_LIMIT}, "Page size"),
            _in_query("offset", {**offset, "default": 0}, "Results to leave out"),
            _in_query("fuzzymatching", {"type": "boolean"}, "Names word by word"),
            _in_query("includefield", {"type": "string"}, "Attributes to return too"),
            *(
                _in_query(name, {"type": "string"}, "Attribute to search by")
                for name in _SEARCH_EXAMPLES.get(route.name, ())
            ),
        ],
        "responses": {
            "200": _content(DICOM_JSON, _DATA_SETS, "The results, newest first."),
            "204": _NOTHING,
        },
    }


_STUDY_KEYS = ("PatientID", "PatientName", "StudyDate", "AccessionNumber")
_SEARCH_EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "SearchForStudies": (*_STUDY_KEYS, "ModalitiesInStudy"),
    "SearchForSeries": (*_STUDY_KEYS, "Modality"),
    "SearchForInstances": (*_STUDY_KEYS, "Modality", "SOPInstanceUID"),
    "SearchForStudySeries": ("Modality", "SeriesInstanceUID"),
    "SearchForStudyInstances": ("Modality", "SOPInstanceUID"),
    "SearchForSeriesInstances": ("SOPInstanceUID",),
}


def _retrieve(_route: Route, _version: str) -> Object:
    whole = {
        "multipart/related": {"schema": _BINARY},
        DICOM: {"schema": _BINARY},
        OCTET_STREAM: {"schema": _BINARY},
    }
    return {
        "summary": "Retrieve",
        "responses": {
            "200": {"description": "The bytes, as negotiated.", "content": whole},
            "206": {"description": "The range asked for.", "content": whole},
            "304": _NOT_MODIFIED,
        },
    }


def _retrieve_metadata(_route: Route, _version: str) -> Object:
    return {
        "summary": "Retrieve metadata",
        "parameters": [
            _in_header("If-None-Match", {"type": "string"}, "ETag of an earlier answer")
        ],
        "responses": {
            "200": _content(DICOM_JSON, _DATA_SETS, "One data set per instance."),
            "304": _NOT_MODIFIED,
        },
    }


def _retrieve_rendered(_route: Route, _version: str) -> Object:
    image = {"image/jpeg": {"schema": _BINARY}, "image/png": {"schema": _BINARY}}
    return {
        "summary": "Retrieve an image",
        "parameters": [
            _in_query(
                "quality", {"type": "integer", "minimum": 1, "maximum": 100}, "Of JPEG"
            )
        ],
        "responses": {"200": {"description": "The image.", "content": image}},
    }


def _delete(_route: Route, _version: str) -> Object:
    return {
        "summary": "Delete",
        "responses": {"204": {"description": "It is deleted."}},
    }


def _change_feed(route: Route, version: str) -> Object:
    with_metadata = _in_query("includeMetadata", {"type": "boolean"}, "With metadata")
    entry = _ref("ChangeFeedEntry")
    if route.name == "ReadLatestChange":
        return {
            "summary": "Read the latest entry",
            "parameters": [with_metadata],
            "responses": {
                "200": _content("application/json", entry, "The latest entry."),
                "204": _NOTHING,
            },
        }
    is_second = version == VERSIONS[-1]
    most = 200 if is_second else 100
    instant = {"type": "string", "format": "date-time"}
    window = [
        _in_query("startTime", instant, "From, inclusive"),
        _in_query("endTime", instant, "To, exclusive"),
    ]
    offset = {"type": "integer", "minimum": 0, "maximum": change_feed.MAX_SEQUENCE}
    limit = {"type": "integer", "minimum": 1, "maximum": most}
    entries = {"type": "array", "items": entry}
    return {
        "summary": "Read the change feed",
        "parameters": [
            *(window if is_second else ()),
            _in_query("offset", offset, "Entries to leave out"),
            _in_query("limit", limit, "Page size"),
            with_metadata,
        ],
        "responses": {"200": _content("application/json", entries, "The entries.")},
    }


def _list_partitions(_route: Route, _version: str) -> Object:
    listed = {"type": "array", "items": _ref("Partition")}
    return {
        "summary": "List the data partitions",
        "responses": {"200": _content("application/json", listed, "All of them.")},
    }


_KINDS = {
    "store": _store,
    "query": _search,
    "retrieve": _retrieve,
    "retrieve-metadata": _retrieve_metadata,
    "retrieve-rendered": _retrieve_rendered,
    "delete": _delete,
    "change-feed": _change_feed,
    "partition": _list_partitions,
}


# --- schemas ---------------------------------------------------------------------

_TEXT = {"type": "string"}
_VALUE = {
    "anyOf": [
        {"type": ["string", "number", "null"]},
        {
            "type": "object",
            "properties": {
                "Alphabetic": _TEXT,
                "Ideographic": _TEXT,
                "Phonetic": _TEXT,
            },
            "additionalProperties": False,
        },
        _ref("DataSet"),
    ]
}
_SCHEMAS: Object = {
    "DataSet": {
        "description": "A DICOM JSON object (PS3.18 Annex F).",
        "type": "object",
        "propertyNames": {"pattern": "^[0-9A-F]{8}$"},
        "additionalProperties": _ref("Element"),
    },
    "Element": {
        "type": "object",
        "required": ["vr"],
        "properties": {
            "vr": {"type": "string", "pattern": "^[A-Z]{2}$"},
            "Value": {"type": "array", "items": _VALUE},
            "BulkDataURI": _TEXT,
            "InlineBinary": _TEXT,
        },
        "additionalProperties": False,
    },
    "ChangeFeedEntry": {
        "type": "object",
        "required": [
            "sequence",
            "partitionName",
            "studyInstanceUid",
            "seriesInstanceUid",
            "sopInstanceUid",
            "action",
            "timestamp",
            "state",
        ],
        "properties": {
            "sequence": {"type": "integer", "minimum": 1},
            "partitionName": _TEXT,
            "studyInstanceUid": _TEXT,
            "seriesInstanceUid": _TEXT,
            "sopInstanceUid": _TEXT,
            "action": {"enum": [each.value for each in change_feed.Action]},
            "timestamp": {"type": "string", "format": "date-time"},
            "state": {"enum": [each.value for each in change_feed.State]},
            "metadata": _ref("DataSet"),
        },
        "additionalProperties": False,
    },
    "Partition": {
        "type": "object",
        "required": ["partitionKey", "partitionName", "createdDate"],
        "properties": {
            "partitionKey": {"type": "integer", "minimum": 1},
            "partitionName": _TEXT,
            "createdDate": {"type": "string", "format": "date-time"},
        },
    },
}


def _yaml(value: Any, indent: int = 0) -> list[str]:
    """Lines of block-style YAML of an object or array that is not empty.

    Scalars are written as JSON, which is YAML too.
    """
    space = "  " * indent
    lines = []
    if isinstance(value, dict):
        for name, member in value.items():
            key = f"{space}{orjson.dumps(name).decode()}:"
            lines += _yaml_member(key, member, indent)
    else:
        for member in value:
            lines += _yaml_member(f"{space}-", member, indent)
    return lines


def _yaml_member(start: str, member: Any, indent: int) -> list[str]:
    if isinstance(member, dict | list | tuple) and member:
        return [start, *_yaml(member, indent + 1)]
    return [f"{start} {orjson.dumps(member).decode()}"]
