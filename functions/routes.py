"""The table of all routes, and the Azure functions that it becomes.

Azure tries functions in the order of their names and takes the first whose template
and method fit; it knows no precedence. The names here are chosen so that no route
hides another, which a test proves.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

from starlette.responses import Response

from dicomweb.media_types import Retrieval
from dicomweb.query import Resource
from functions import (
    change_feed,
    export,
    health,
    openapi,
    operations,
    pages,
    partitions,
    query_tags,
    retrieve,
    scrub,
    statistics,
    studies,
    update,
    viewer,
)
from functions.call import (
    PRERELEASE,
    VERSIONS,
    Call,
    Handler,
    Permission,
    Route,
)
from functions.http import preflight

STUDY = "studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
ANYTHING = "{*path}"


def _store(name: str, path: str) -> Route:
    return Route(
        name,
        "POST",
        path,
        studies.store_instances,
        Permission.WRITE,
        "store",
        in_partitions=True,
        creates_partition=True,
    )


def _read(name: str, path: str, handler: Handler, audit: str) -> Route:
    return Route(name, "GET", path, handler, Permission.READ, audit, in_partitions=True)


def _search(name: str, path: str, resource: Resource) -> Route:
    return _read(name, path, studies.search_for(resource), "query")


def _files(name: str, path: str, retrieval: Retrieval) -> Route:
    return _read(name, path, retrieve.retrieve_files(retrieval), "retrieve")


def _metadata(name: str, path: str) -> Route:
    handler = retrieve.retrieve_metadata
    return _read(name, f"{path}/metadata", handler, "retrieve-metadata")


def _rendered(name: str, path: str) -> Route:
    handler = retrieve.retrieve_rendered
    return _read(name, f"{path}/rendered", handler, "retrieve-rendered")


def _delete(name: str, path: str) -> Route:
    return Route(
        name,
        "DELETE",
        path,
        studies.delete_scope,
        Permission.DELETE,
        "delete",
        in_partitions=True,
    )


def _open(
    name: str, method: str, path: str, handler: Handler, *, anonymous: bool = False
) -> Route:
    """A route without version and data, which needs no permission."""
    return Route(
        name,
        method,
        path,
        handler,
        Permission.NONE,
        None,
        versions=(),
        anonymous=anonymous,
    )


STUDIES = (
    _store("StoreInstances", "studies"),
    _store("StoreInstancesToStudy", STUDY),
    _search("SearchForStudies", "studies", Resource.ALL_STUDIES),
    _search("SearchForSeries", "series", Resource.ALL_SERIES),
    _search("SearchForInstances", "instances", Resource.ALL_INSTANCES),
    _search("SearchForStudySeries", f"{STUDY}/series", Resource.STUDY_SERIES),
    _search("SearchForStudyInstances", f"{STUDY}/instances", Resource.STUDY_INSTANCES),
    _search(
        "SearchForSeriesInstances",
        f"{SERIES}/instances",
        Resource.STUDY_SERIES_INSTANCES,
    ),
    _files("RetrieveStudy", STUDY, Retrieval.STUDY),
    _files("RetrieveSeries", SERIES, Retrieval.SERIES),
    _files("RetrieveInstance", INSTANCE, Retrieval.INSTANCE),
    _metadata("RetrieveStudyMetadata", STUDY),
    _metadata("RetrieveSeriesMetadata", SERIES),
    _metadata("RetrieveInstanceMetadata", INSTANCE),
    _read(
        "RetrieveFrames",
        f"{INSTANCE}/frames/{{frames}}",
        retrieve.retrieve_frames,
        "retrieve",
    ),
    _read(
        "RetrieveBulkData",
        f"{INSTANCE}/bulkdata/{{*path}}",
        retrieve.retrieve_bulk_data,
        "retrieve",
    ),
    _rendered("RetrieveRenderedInstance", INSTANCE),
    _rendered("RetrieveRenderedFrame", f"{INSTANCE}/frames/{{frame}}"),
    _delete("DeleteStudy", STUDY),
    _delete("DeleteSeries", SERIES),
    _delete("DeleteInstance", INSTANCE),
)


def _service(name: str, path: str, handler: Handler, audit: str) -> Route:
    return Route(name, "GET", path, handler, Permission.READ, audit)


SERVICES = (
    _service(
        "ReadChangeFeed", "changefeed", change_feed.read_change_feed, "change-feed"
    ),
    _service(
        "ReadLatestChange",
        "changefeed/latest",
        change_feed.read_latest_change,
        "change-feed",
    ),
    _service("ListPartitions", "partitions", partitions.list_partitions, "partition"),
)


async def _describe_api(call: Call) -> Response:
    return await openapi.describe_api(call, DESCRIBED)


DESCRIPTION = Route(
    "DescribeApi",
    "GET",
    "{document:regex(^api[.](yaml|json)$)}",
    _describe_api,
    Permission.NONE,
    None,
)
STATISTICS = Route(
    "ReadStatistics",
    "GET",
    "statistics",
    statistics.read_statistics,
    Permission.ALL,
    "statistics",
    versions=(),
)
OPEN = (
    _open("CheckHealth", "GET", "health/check", health.check_health, anonymous=True),
    # The host keeps `/` for its home page unless the route's template is not empty.
    _open("Home", "GET", "{ignored:maxlength(0)?}", pages.start_page),
    _open("ViewerFile", "GET", "viewer/{*path}", viewer.viewer_file),
    # A browser sends no token with it.
    _open("Preflight", "OPTIONS", ANYTHING, preflight, anonymous=True),
)


def _tag_route(
    name: str, method: str, path: str, handler: Handler, audit: str
) -> Route:
    manages = method != "GET"
    return Route(
        name,
        method,
        f"extendedquerytags{path}",
        handler,
        Permission.MANAGE_EXTENDED_QUERY_TAGS if manages else Permission.READ,
        audit,
        durable=method == "POST",
    )


QUERY_TAGS = (
    _tag_route(
        "AddExtendedQueryTags",
        "POST",
        "",
        query_tags.add_tags,
        "add-extended-query-tag",
    ),
    _tag_route(
        "ListExtendedQueryTags",
        "GET",
        "",
        query_tags.list_tags,
        "get-all-extended-query-tag",
    ),
    _tag_route(
        "GetExtendedQueryTag",
        "GET",
        "/{tag}",
        query_tags.get_tag,
        "get-extended-query-tag",
    ),
    _tag_route(
        "UpdateExtendedQueryTag",
        "PATCH",
        "/{tag}",
        query_tags.update_tag,
        "update-extended-query-tag",
    ),
    _tag_route(
        "DeleteExtendedQueryTag",
        "DELETE",
        "/{tag}",
        query_tags.delete_tag,
        "remove-extended-query-tag",
    ),
    _tag_route(
        "ListExtendedQueryTagErrors",
        "GET",
        "/{tag}/errors",
        query_tags.list_tag_errors,
        "get-extended-query-tag-errors",
    ),
)


def _operation_route(
    name: str, method: str, path: str, handler: Handler, audit: str
) -> Route:
    return Route(name, method, path, handler, Permission.READ, audit, durable=True)


OPERATIONS = (
    _operation_route(
        "ReadOperation",
        "GET",
        "operations/{operation}",
        operations.read_operation,
        "operation",
    ),
    _operation_route(
        "ListOperations",
        "GET",
        "operations",
        operations.list_operations,
        "get-all-operation",
    ),
    _operation_route(
        "CancelOperation",
        "DELETE",
        "operations/{operation}",
        operations.cancel_operation,
        "cancel-operation",
    ),
    Route(
        "ExportInstances",
        "POST",
        "export",
        export.export,
        Permission.EXPORT,
        "export",
        absent_from=(PRERELEASE,),
        in_partitions=True,
        durable=True,
    ),
    Route(
        "ScrubStore",
        "POST",
        "operations/scrub",
        scrub.scrub_store,
        Permission.ALL,
        "scrub",
        durable=True,
    ),
    # Before StoreInstancesToStudy, whose template fits too.
    Route(
        "BulkUpdateStudies",
        "POST",
        "studies/$bulkUpdate",
        update.bulk_update,
        Permission.WRITE,
        "update-study",
        absent_from=("v1.0-prerelease", "v1"),
        in_partitions=True,
        durable=True,
    ),
)
DESCRIBED = (*STUDIES, *QUERY_TAGS, *OPERATIONS, *SERVICES)
ROUTES = (*DESCRIBED, DESCRIPTION, STATISTICS, *OPEN)


@dataclass(frozen=True, slots=True)
class HttpFunction:
    """One Azure function.

    Attributes:
        name: Decides the order in which the host tries it.
        methods: Upper case.
        template: Of the whole path, without a slash in front.
    """

    name: str
    methods: tuple[str, ...]
    template: str
    route: Route


def http_functions(routes: Sequence[Route] = ROUTES) -> list[HttpFunction]:
    """The functions of the routes: one each, with data partitions a second one."""
    functions = [function for route in routes for function in _functions_of(route)]
    fallback = _fallback(functions)
    return sorted([*functions, fallback], key=lambda function: function.name)


def _functions_of(route: Route) -> Iterator[HttpFunction]:
    methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
    if not route.versions:
        yield HttpFunction(route.name, methods, route.path, route)
        return
    version = version_segment(route.versions)
    yield HttpFunction(route.name, methods, f"{version}/{route.path}", route)
    if route.in_partitions:
        yield HttpFunction(
            f"{route.name}InPartition",
            methods,
            f"{version}/partitions/{{partition}}/{route.path}",
            route,
        )


def version_segment(versions: Sequence[str]) -> str:
    """The template of a version in the path: only these fit, in any case."""
    names = "|".join(version.replace(".", "[.]") for version in versions)
    return f"{{version:regex(^({names})$)}}"


# --- what fits no route ---------------------------------------------------------

FALLBACK = "WrongPathOrMethod"  # sorts after every other name


def _fallback(functions: Sequence[HttpFunction]) -> HttpFunction:
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    route = _open(FALLBACK, "", ANYTHING, partial(_refuse, tuple(functions)))
    return HttpFunction(FALLBACK, methods, ANYTHING, route)


_PARAMETER = re.compile(r"\{(\*?)[a-z]+(?::regex\((.*)\))?\}")


def fits(template: str, path: str) -> bool:
    """Whether a path fits a template of ours; neither starts with a slash."""
    return _pattern(template).fullmatch(f"/{path.rstrip('/')}") is not None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = ""
    for segment in template.split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            pattern += "/" + re.escape(segment)
        elif parameter[1]:
            pattern += "(?:/.*)?"
        elif parameter[2]:
            pattern += f"/(?:{parameter[2].removeprefix('^').removesuffix('$')})"
        else:
            pattern += "/[^/]+"
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


async def _refuse(functions: Sequence[HttpFunction], call: Call) -> Response:
    """405 where another method would fit the path, else 404.

    Source: RFC 9110 15.5.6.
    """
    path = call.path("path") or ""
    allowed = sorted(
        {
            method
            for function in functions
            if function.template != ANYTHING and fits(function.template, path)
            for method in function.methods
        }
    )
    if not allowed:
        text = "There is no such resource."
        if path.strip("/") in VERSIONS:
            text += f" DICOMweb clients add to this address; for people: {call.root}/"
        return Response(text, 404, media_type="text/plain")
    return Response(
        f"The method {call.request.method} is not supported here.",
        405,
        {"Allow": ", ".join(allowed)},
        "text/plain",
    )
