"""The schemas of the OpenAPI description: what bodies look like."""

from dicomweb import change_feed
from functions.openapi_parts import Object, ref

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
        ref("DataSet"),
    ]
}


def _typed(types: list[str], settings: Object) -> Object:
    """A source or destination: a type and its settings."""
    return {
        "type": "object",
        "required": ["type", "settings"],
        "properties": {
            "type": {"enum": types},
            "settings": {"type": "object", "properties": settings},
        },
    }


SCHEMAS: Object = {
    "DataSet": {
        "description": "A DICOM JSON object (PS3.18 Annex F).",
        "type": "object",
        "propertyNames": {"pattern": "^[0-9A-F]{8}$"},
        "additionalProperties": ref("Element"),
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
            "metadata": ref("DataSet"),
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
    "OperationReference": {
        "type": "object",
        "required": ["id", "href"],
        "properties": {"id": _TEXT, "href": _TEXT},
    },
    "Operation": {
        "type": "object",
        "required": [
            "operationId",
            "type",
            "createdTime",
            "lastUpdatedTime",
            "status",
        ],
        "properties": {
            "operationId": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "type": _TEXT,
            "createdTime": {"type": "string", "format": "date-time"},
            "lastUpdatedTime": {"type": "string", "format": "date-time"},
            "status": _TEXT,
            "percentComplete": {"type": "integer", "minimum": 0, "maximum": 100},
            "resources": {"type": "array", "items": _TEXT},
            "results": {"type": "object"},
        },
    },
    "NewQueryTag": {
        "type": "object",
        "required": ["path", "level"],
        "properties": {
            "path": {"type": "string", "examples": ["ManufacturerModelName"]},
            "vr": {"type": "string", "pattern": "^[A-Za-z]{2}$"},
            "privateCreator": {"type": "string", "maxLength": 64},
            "level": {"enum": ["Instance", "Series", "Study"]},
        },
    },
    "QueryTag": {
        "type": "object",
        "required": ["path", "vr", "level", "status", "queryStatus"],
        "properties": {
            "path": {"type": "string", "pattern": "^[0-9A-F]{8}$"},
            "vr": {"type": "string", "pattern": "^[A-Z]{2}$"},
            "privateCreator": _TEXT,
            "level": _TEXT,
            "status": _TEXT,
            "queryStatus": _TEXT,
            "errors": {"type": "object"},
            "operation": ref("OperationReference"),
        },
    },
    "QueryTagError": {
        "type": "object",
        "required": [
            "studyInstanceUid",
            "seriesInstanceUid",
            "sopInstanceUid",
            "createdTime",
            "errorMessage",
        ],
        "properties": {
            "partitionName": _TEXT,
            "studyInstanceUid": _TEXT,
            "seriesInstanceUid": _TEXT,
            "sopInstanceUid": _TEXT,
            "createdTime": {"type": "string", "format": "date-time"},
            "errorMessage": _TEXT,
        },
    },
    "BulkUpdate": {
        "type": "object",
        "required": ["studyInstanceUids", "changeDataset"],
        "properties": {
            "studyInstanceUids": {"type": "array", "minItems": 1, "items": _TEXT},
            "changeDataset": ref("DataSet"),
        },
    },
    "Export": {
        "type": "object",
        "required": ["source", "destination"],
        "properties": {
            "source": _typed(
                ["identifiers"],
                {"values": {"type": "array", "minItems": 1, "items": _TEXT}},
            ),
            "destination": _typed(
                ["azureBlob", "folder"],
                {
                    "blobContainerUri": _TEXT,
                    "connectionString": _TEXT,
                    "blobContainerName": _TEXT,
                    "useManagedIdentity": {"type": "boolean"},
                    "path": _TEXT,
                },
            ),
        },
    },
}
