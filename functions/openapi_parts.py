"""Small pieces of an OpenAPI description."""

from typing import Any

Object = dict[str, Any]


def content(media_type: str, schema: Object, description: str) -> Object:
    """A response with a body."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


def ref(name: str) -> Object:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def in_query(name: str, schema: Object, description: str) -> Object:
    """A parameter of the query string."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_header(name: str, schema: Object, description: str) -> Object:
    """A header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def response_headers(*names: str) -> Object:
    """Headers that a response may have."""
    return {name: {"schema": {"type": "string"}} for name in names}
