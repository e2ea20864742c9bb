"""The OpenAPI description of a version, made from the table of routes."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from functions.call import Call, Route
from functions.openapi_kinds import KINDS
from functions.openapi_parts import Object, content
from functions.openapi_schemas import SCHEMAS
from functions.representations import json_response, text_response

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
    "tag": ("Keyword or 8 hex digits of the tag", {"type": "string"}),
    "operation": (
        "Id of the operation",
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    ),
    "partition": (
        "Name of the data partition",
        {"type": "string", "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$"},
    ),
}


async def describe_api(call: Call, routes: Sequence[Route]) -> Response:
    """The description as YAML or JSON."""
    name = call.path("document") or ""
    partitions = call.runtime.settings.data_partitions
    document = describe(tuple(routes), call.version, partitions=partitions)
    document = {**document, "servers": [{"url": call.root}]}
    if call.runtime.settings.security:
        document = secured(document, call.runtime.settings.authority)
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
        if version not in route.versions or version in route.absent_from:
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
            "schemas": SCHEMAS,
            "responses": {"Error": content("text/plain", {"type": "string"}, _ERROR)},
        },
    }


def secured(document: Object, authority: str) -> Object:
    """The document of a server whose callers need a token of this issuer."""
    scheme = {
        "type": "openIdConnect",
        "openIdConnectUrl": f"{authority}/.well-known/openid-configuration",
    }
    components = {**document["components"], "securitySchemes": {"token": scheme}}
    return {**document, "components": components, "security": [{"token": []}]}


_ERROR = "The request failed; the text says why."


def _operation(route: Route, template: str, version: str) -> Object:
    kind = KINDS[route.audit or ""](route, version)
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
