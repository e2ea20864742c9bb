"""The change feed: version 1 by sequence, version 2 by time."""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.responses import Response

from dicomweb.change_feed import (
    Entry,
    SequenceWindow,
    entry_to_json,
    parse_include_metadata,
    parse_window,
)
from functions.call import Call
from functions.representations import json_response
from services import changes
from services.feed import FeedEntry

_BEGINNING = datetime.fromtimestamp(0, UTC)
_END = datetime.max.replace(tzinfo=UTC)


async def read_change_feed(call: Call) -> Response:
    """A window of the feed."""
    window = parse_window(call.pairs, version=call.version_number)
    feed = call.runtime.feed
    if isinstance(window, SequenceWindow):
        entries = await feed.by_sequence(window.offset, window.limit)
    else:
        start = max(window.start or _BEGINNING, _BEGINNING)
        end = max(window.end or _END, start)
        entries = await feed.by_time(start, end, window.offset, window.limit)
    found = await _with_states(call, entries, include=window.include_metadata)
    return await json_response(call, [entry_to_json(entry) for entry in found])


async def read_latest_change(call: Call) -> Response:
    """The newest entry; 204 when there is none."""
    include = parse_include_metadata(call.pairs)
    latest = await call.runtime.feed.latest()
    if latest is None:
        return Response(None, 204)
    [entry] = await _with_states(call, [latest], include=include)
    return await json_response(call, entry_to_json(entry))


async def _with_states(
    call: Call, entries: Sequence[FeedEntry], *, include: bool
) -> list[Entry]:
    return await changes.with_states(
        call.runtime, entries, include_metadata=include, base_url=call.version_url
    )
