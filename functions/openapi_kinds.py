"""What the OpenAPI description says of each kind of route."""

from collections.abc import Callable, Mapping

from dicomweb import change_feed, query
from dicomweb.media_types import DICOM, DICOM_JSON
from functions.call import VERSIONS, Route
from functions.openapi_parts import Object, content, in_query, ref, response_headers
from functions.openapi_retrieval import (
    describe_files,
    describe_metadata,
    describe_rendered,
)
from functions.paging import MAX_LIMIT, MAX_OFFSET
from services.operations import OperationStatus, OperationType

JSON = "application/json"

_DATA_SETS = {"type": "array", "items": ref("DataSet")}
_BINARY = {"type": "string", "format": "binary"}
_NOTHING = {"description": "Nothing was found."}
_UNKNOWN = {"description": "There is no such operation."}
_REFUSED = {"description": "The client does not accept DICOM JSON."}


def _store(_route: Route, _version: str) -> Object:
    def answer(description: str) -> Object:
        return {
            **content(DICOM_JSON, ref("DataSet"), description),
            "headers": response_headers("Warning"),
        }

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
            "406": _REFUSED,
            "409": answer("No instance was stored."),
        },
    }


def _search(route: Route, _version: str) -> Object:
    limit: Object = {"type": "integer", "minimum": 1, "maximum": query.MAX_LIMIT}
    offset: Object = {"type": "integer", "minimum": 0, "maximum": query.MAX_OFFSET}
    erroneous = ("erroneous-dicom-attributes",)
    return {
        "summary": "Search",
        "parameters": [
            in_query("limit", {**limit, "default": query.DEFAULT_LIMIT}, "Page size"),
            in_query("offset", {**offset, "default": 0}, "Results to leave out"),
            in_query("cursor", {"type": "string"}, "Start of a page, from a Link"),
            in_query("fuzzymatching", {"type": "boolean"}, "Names word by word"),
            in_query("includefield", {"type": "string"}, "Attributes to return too"),
            *(
                in_query(name, {"type": "string"}, "Attribute to search by")
                for name in _SEARCH_EXAMPLES.get(route.name, ())
            ),
        ],
        "responses": {
            "200": {
                **content(DICOM_JSON, _DATA_SETS, "The results, newest first."),
                "headers": response_headers("Link", *erroneous),
            },
            "204": {**_NOTHING, "headers": response_headers(*erroneous)},
            "406": _REFUSED,
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


def _delete(_route: Route, _version: str) -> Object:
    return {
        "summary": "Delete",
        "responses": {"204": {"description": "It is deleted."}},
    }


def _change_feed(route: Route, version: str) -> Object:
    with_metadata = in_query("includeMetadata", {"type": "boolean"}, "With metadata")
    entry = ref("ChangeFeedEntry")
    if route.name == "ReadLatestChange":
        return {
            "summary": "Read the latest entry",
            "parameters": [with_metadata],
            "responses": {
                "200": content("application/json", entry, "The latest entry."),
                "204": _NOTHING,
            },
        }
    is_second = version == VERSIONS[-1]
    most = 200 if is_second else 100
    instant = {"type": "string", "format": "date-time"}
    window = [
        in_query("startTime", instant, "From, inclusive"),
        in_query("endTime", instant, "To, exclusive"),
    ]
    offset = {"type": "integer", "minimum": 0, "maximum": change_feed.MAX_SEQUENCE}
    limit = {"type": "integer", "minimum": 1, "maximum": most}
    entries = {"type": "array", "items": entry}
    return {
        "summary": "Read the change feed",
        "parameters": [
            *(window if is_second else ()),
            in_query("offset", offset, "Entries to leave out"),
            in_query("limit", limit, "Page size"),
            with_metadata,
        ],
        "responses": {"200": content("application/json", entries, "The entries.")},
    }


def _list_partitions(_route: Route, _version: str) -> Object:
    listed = {"type": "array", "items": ref("Partition")}
    return {
        "summary": "List the data partitions",
        "responses": {"200": content("application/json", listed, "All of them.")},
    }


# --- extended query tags -------------------------------------------------------------

_PAGE = (
    in_query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100},
        "Page size",
    ),
    in_query(
        "offset",
        {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0},
        "Entries to leave out",
    ),
)
_STARTED = content(JSON, ref("OperationReference"), "The operation runs.")
_LOCATED = {**_STARTED, "headers": response_headers("Location")}


def _json_body(schema: Object) -> Object:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _add_tags(_route: Route, _version: str) -> Object:
    return {
        "summary": "Add extended query tags and index what is stored by them",
        "requestBody": _json_body({"type": "array", "items": ref("NewQueryTag")}),
        "responses": {"202": _LOCATED},
    }


def _list_tags(_route: Route, _version: str) -> Object:
    tags = {"type": "array", "items": ref("QueryTag")}
    return {
        "summary": "List the extended query tags",
        "parameters": [*_PAGE],
        "responses": {"200": content(JSON, tags, "In the order they were added.")},
    }


def _get_tag(_route: Route, _version: str) -> Object:
    return {
        "summary": "Read an extended query tag",
        "responses": {"200": content(JSON, ref("QueryTag"), "The tag.")},
    }


def _update_tag(_route: Route, _version: str) -> Object:
    switch = {
        "type": "object",
        "required": ["queryStatus"],
        "properties": {"queryStatus": {"enum": ["enabled", "disabled"]}},
    }
    return {
        "summary": "Switch queries by the tag on or off",
        "requestBody": _json_body(switch),
        "responses": {"200": content(JSON, ref("QueryTag"), "The tag.")},
    }


def _list_tag_errors(_route: Route, _version: str) -> Object:
    found = {"type": "array", "items": ref("QueryTagError")}
    return {
        "summary": "List what could not be indexed",
        "parameters": [*_PAGE],
        "responses": {"200": content(JSON, found, "Oldest first.")},
    }


# --- operations ----------------------------------------------------------------------


def _read_operation(_route: Route, _version: str) -> Object:
    return {
        "summary": "How an operation stands",
        "responses": {
            "200": content(JSON, ref("Operation"), "It has ended."),
            "202": {
                **content(JSON, ref("Operation"), "It is under way."),
                "headers": response_headers("Location"),
            },
            "404": _UNKNOWN,
        },
    }


def _list_operations(_route: Route, _version: str) -> Object:
    types = {"enum": [each.value for each in OperationType]}
    statuses = {"enum": [each.value for each in OperationStatus]}
    return {
        "summary": "List operations",
        "parameters": [
            *_PAGE,
            in_query("type", types, "Only these"),
            in_query("status", statuses, "Only these"),
        ],
        "responses": {
            "200": content(
                JSON, {"type": "array", "items": ref("Operation")}, "Newest first."
            )
        },
    }


def _cancel_operation(_route: Route, _version: str) -> Object:
    return {
        "summary": "Cancel an operation at its next step",
        "responses": {"202": _STARTED, "404": _UNKNOWN},
    }


def _bulk_update(_route: Route, _version: str) -> Object:
    return {
        "summary": "Change patient and study attributes of whole studies",
        "parameters": [
            in_query("dryRun", {"type": "boolean"}, "Only say what would change")
        ],
        "requestBody": _json_body(ref("BulkUpdate")),
        "responses": {
            "200": content(JSON, {"type": "object"}, "What would change."),
            "202": _STARTED,
            "400": {
                "description": "The request is refused.",
                "content": {
                    DICOM_JSON: {"schema": ref("DataSet")},
                    JSON: {"schema": ref("DataSet")},
                    "text/plain": {"schema": {"type": "string"}},
                },
            },
        },
    }


def _export(_route: Route, _version: str) -> Object:
    return {
        "summary": "Copy files to a blob container or a folder",
        "requestBody": _json_body(ref("Export")),
        "responses": {"202": _LOCATED},
    }


def _scrub(_route: Route, _version: str) -> Object:
    flag = {"type": "boolean"}
    return {
        "summary": "Compare index and blobs, and repair",
        "parameters": [
            in_query("dryRun", flag, "Only look"),
            in_query("hashes", flag, "Read the files; else compare sizes only"),
            in_query("removeLost", flag, "Remove instances whose files are lost"),
        ],
        "responses": {"202": _LOCATED},
    }


KINDS: Mapping[str, Callable[[Route, str], Object]] = {
    "store": _store,
    "query": _search,
    "retrieve": describe_files,
    "retrieve-metadata": describe_metadata,
    "retrieve-rendered": describe_rendered,
    "delete": _delete,
    "change-feed": _change_feed,
    "partition": _list_partitions,
    "add-extended-query-tag": _add_tags,
    "get-all-extended-query-tag": _list_tags,
    "get-extended-query-tag": _get_tag,
    "update-extended-query-tag": _update_tag,
    "remove-extended-query-tag": _delete,
    "get-extended-query-tag-errors": _list_tag_errors,
    "operation": _read_operation,
    "get-all-operation": _list_operations,
    "cancel-operation": _cancel_operation,
    "update-study": _bulk_update,
    "export": _export,
    "scrub": _scrub,
}
