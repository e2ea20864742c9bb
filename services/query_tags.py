"""Extended query tags: add, list, get, switch queries, delete, errors.

The registry says which tags there are; a running reindex is named by the tags that it
brings in, so two reindexes can never start at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from dicomweb.errors import Conflict, InvalidRequest, NotFound
from dicomweb.query_tags import QueryTag, TagStatus
from dicomweb.tag_requests import NewTag
from dicomweb.validation import ErrorCode
from services.reindex import TagError
from services.runtime import Runtime
from services.tag_registry import Registry
from stores import containers
from stores.ports import In, JournalRow, Query


class ReindexActive(Conflict):
    """Tags are being brought in already.

    Attributes:
        operation_id: Of the reindex under way.
    """

    def __init__(self, operation_id: str) -> None:
        super().__init__(
            f"There is already an active re-index operation with ID '{operation_id}'.",
            code="ReindexActive",
        )
        self.operation_id = operation_id


@dataclass(frozen=True, slots=True)
class ListedError:
    """A value that could not be indexed, as the API shows it."""

    partition_name: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    created: datetime
    message: str


def error_kind(tag: QueryTag) -> str:
    """Kind of the journal rows that hold a tag's errors."""
    return f"tag-errors-{tag.key}"


async def add(
    runtime: Runtime, tags: Sequence[NewTag], operation_id: str
) -> tuple[QueryTag, ...]:
    """Adds the tags, to be brought in by the operation.

    Raises:
        ReindexActive: Another operation brings in tags.
        Conflict: One of the tags exists.
        InvalidRequest: There would be too many.
    """
    limit = runtime.settings.max_query_tags

    def change(registry: Registry) -> Registry:
        _check_idle(registry)
        paths = {tag.path for tag in tags}
        kept = tuple(
            tag
            for tag in registry.tags
            if tag.path not in paths or tag.status is not TagStatus.ADDING
        )
        if any(tag.path in paths for tag in kept):
            raise Conflict(
                "One or more extended query tags already exist.", code="TagExists"
            )
        if len(kept) + len(tags) > limit:
            raise InvalidRequest(
                f"There may be at most {limit} extended query tags.",
                code="TooManyTags",
            )
        added = tuple(
            QueryTag(
                key=registry.next_key + index,
                path=tag.path,
                vr=tag.vr,
                level=tag.level,
                private_creator=tag.private_creator,
                operation_id=operation_id,
            )
            for index, tag in enumerate(tags)
        )
        return Registry(next_key=registry.next_key + len(added), tags=(*kept, *added))

    registry = await runtime.tags.change(change)
    return brought_in_by(registry, operation_id)


async def check_idle(runtime: Runtime) -> None:
    """Makes sure that no tags are being brought in.

    Raises:
        ReindexActive: An operation brings in tags.
    """
    _check_idle(await runtime.tags.read())


def _check_idle(registry: Registry) -> None:
    active = next((t.operation_id for t in registry.tags if t.operation_id), None)
    if active is not None:
        raise ReindexActive(active)


def brought_in_by(registry: Registry, operation_id: str) -> tuple[QueryTag, ...]:
    """The tags that the operation brings in; those deleted meanwhile are missing."""
    return tuple(tag for tag in registry.tags if tag.operation_id == operation_id)


async def complete(runtime: Runtime, operation_id: str) -> None:
    """Makes the operation's tags ready."""
    await _release(runtime, operation_id, TagStatus.READY)


async def release(runtime: Runtime, operation_id: str) -> None:
    """Takes the tags of a failed or cancelled operation out of its hands.

    They stay `adding`; adding them again replaces them.
    """
    await _release(runtime, operation_id, TagStatus.ADDING)


async def _release(runtime: Runtime, operation_id: str, status: TagStatus) -> None:
    def change(registry: Registry) -> Registry | None:
        if not brought_in_by(registry, operation_id):
            return None
        return replace(
            registry,
            tags=tuple(
                replace(tag, status=status, operation_id=None)
                if tag.operation_id == operation_id
                else tag
                for tag in registry.tags
            ),
        )

    await runtime.tags.change(change)


async def find(runtime: Runtime, path: str) -> QueryTag:
    """The tag with this path (8 upper-case hex digits).

    Raises:
        NotFound: There is none.
    """
    tag = (await runtime.tags.read()).find(path)
    if tag is None:
        raise _not_found(path)
    return tag


def _not_found(path: str) -> NotFound:
    return NotFound(
        f"The specified extended query tag with tag path {path} cannot be found.",
        code="TagNotFound",
    )


async def set_enabled(runtime: Runtime, path: str, *, enabled: bool) -> QueryTag:
    """The tag with queries on it switched on or off.

    Raises:
        NotFound: There is none.
    """

    def change(registry: Registry) -> Registry | None:
        tag = registry.find(path)
        if tag is None:
            raise _not_found(path)
        if tag.enabled == enabled:
            return None
        return _with(registry, replace(tag, enabled=enabled))

    await runtime.tags.change(change)
    return await find(runtime, path)


def _with(registry: Registry, changed: QueryTag) -> Registry:
    return replace(
        registry,
        tags=tuple(changed if t.key == changed.key else t for t in registry.tags),
    )


async def delete(runtime: Runtime, path: str) -> None:
    """Removes the tag; its values stay unseen, its key is never used again.

    Raises:
        NotFound: There is none.
    """
    tag = await find(runtime, path)

    def change(registry: Registry) -> Registry | None:
        if registry.with_key(tag.key) is None:
            return None
        return replace(
            registry, tags=tuple(t for t in registry.tags if t.key != tag.key)
        )

    await runtime.tags.change(change)
    await runtime.journal.purge(error_kind(tag))


# --- errors --------------------------------------------------------------------------


async def record_errors(runtime: Runtime, errors: Iterable[TagError]) -> None:
    """Keeps what could not be indexed; the first error of a tag disables queries.

    Recording an error again changes nothing. Errors of instances that were deleted
    meanwhile are not kept.
    """
    by_tag: dict[int, list[TagError]] = {}
    for error in errors:
        by_tag.setdefault(error.tag_key, []).append(error)
    if not by_tag:
        return
    before = (await runtime.tags.read()).tags
    tags = [tag for tag in before if tag.key in by_tag]
    for tag in tags:
        rows = [_row(runtime, error) for error in by_tag[tag.key]]
        await runtime.journal.put(error_kind(tag), rows)
    after = await runtime.tags.read()
    for tag in tags:
        current = after.with_key(tag.key)
        if current is None:  # deleted meanwhile, and its errors before these came
            await runtime.journal.purge(error_kind(tag))
        elif current.error_count == 0:
            await count_errors(runtime, current)
    await _drop_dead(runtime, [error for found in by_tag.values() for error in found])


async def _drop_dead(runtime: Runtime, errors: Sequence[TagError]) -> None:
    """Forgets errors of instances that are gone.

    Whoever deletes an instance forgets its errors after the commit, if it sees any
    tag with errors. So an error is recorded and counted first and the instance looked
    for afterwards: one of the two finds what the other has missed.
    """
    studies: dict[str, list[TagError]] = {}
    for error in errors:
        studies.setdefault(error.pk, []).append(error)
    dead: list[int] = []
    for pk, found in studies.items():
        alive = await _first_watermarks(runtime, pk, found)
        dead += [error.watermark for error in found if error.watermark not in alive]
    if dead:
        await forget_errors(runtime, dead)


async def _first_watermarks(
    runtime: Runtime, pk: str, errors: Sequence[TagError]
) -> set[int]:
    """First watermarks of those instances that exist."""
    alive: set[int] = set()
    ids = tuple({error.instance_document_id for error in errors})
    for start in range(0, len(ids), _LOOKED_FOR):
        query = Query(In(("id",), ids[start : start + _LOOKED_FOR]), fields=("ow",))
        page = await runtime.documents.query(
            containers.DICOM, query, partition_key=pk, limit=_LOOKED_FOR
        )
        alive |= {row["ow"] for row in page.documents}
    return alive


async def forget_errors(runtime: Runtime, watermarks: Iterable[int]) -> None:
    """Forgets the errors of instances that were deleted; queries stay as they are.

    Args:
        runtime: The stores.
        watermarks: Of the first versions of the instances.
    """
    registry = await runtime.tags.read()
    with_errors = [tag for tag in registry.tags if tag.error_count]
    keys = [_error_key(watermark) for watermark in watermarks] if with_errors else []
    for tag in with_errors:
        if await runtime.journal.delete(error_kind(tag), keys):
            await count_errors(runtime, tag)


async def count_errors(runtime: Runtime, tag: QueryTag) -> None:
    """Brings the tag's number of errors up to date; more than none disables it."""
    while True:
        count = await runtime.journal.count(error_kind(tag))
        changed = False

        def change(registry: Registry, count: int = count) -> Registry | None:
            nonlocal changed
            current = registry.with_key(tag.key)
            changed = current is not None and current.error_count != count
            if current is None or not changed:
                return None
            first = current.error_count == 0
            enabled = current.enabled and not first
            return _with(registry, replace(current, error_count=count, enabled=enabled))

        await runtime.tags.change(change)
        if not changed:
            return


_LOOKED_FOR = 100


_END = datetime(9000, 1, 1, tzinfo=UTC)
_MESSAGES = {
    ErrorCode.TOO_LONG: "Value length exceeds maximum length.",
    ErrorCode.WRONG_LENGTH: "Value length is not expected.",
    ErrorCode.INVALID_CHARACTERS: "Value contains invalid characters.",
    ErrorCode.UNEXPECTED_VR: "The extended query tag VR is not expected.",
    ErrorCode.PERSON_NAME_GROUPS: "The name has more than 3 groups.",
    ErrorCode.PERSON_NAME_GROUP_LENGTH: "A group of the name is too long.",
    ErrorCode.PERSON_NAME_COMPONENTS: "The name has more than 5 components.",
    ErrorCode.DATE: "Value cannot be parsed as a valid date.",
    ErrorCode.UID: "Value is not a valid UID.",
    ErrorCode.DATE_TIME: "Value cannot be parsed as a valid DateTime.",
    ErrorCode.TIME: "Value cannot be parsed as a valid Time.",
    ErrorCode.INTEGER_STRING: "Value cannot be parsed as a valid integer string.",
    ErrorCode.DECIMAL_STRING: "Value cannot be parsed as a valid decimal string.",
}


def _error_key(watermark: int) -> tuple[datetime, str]:
    """Time and id of the journal row of an error.

    The watermark stands for the time, the newest first, as a reindex meets them: so an
    error that is met again (activities may repeat) replaces itself, and is found when
    its instance is deleted.
    """
    return _END - timedelta(microseconds=watermark), str(watermark)


def _row(runtime: Runtime, error: TagError) -> JournalRow:
    at, id = _error_key(error.watermark)
    return JournalRow(
        at=at,
        id=id,
        data={
            "partition": error.partition_name,
            "uids": [
                error.study_instance_uid,
                error.series_instance_uid,
                error.sop_instance_uid,
            ],
            "code": int(error.code),
            "created": runtime.now().isoformat(),
        },
    )


async def errors(
    runtime: Runtime, path: str, *, limit: int, offset: int
) -> list[ListedError]:
    """What could not be indexed for the tag, oldest first.

    Raises:
        NotFound: There is no such tag.
    """
    tag = await find(runtime, path)
    rows = await runtime.journal.page(
        error_kind(tag), limit=limit, offset=offset, oldest_first=True
    )
    rows.sort(key=lambda row: str(row.data["created"]))
    return [
        ListedError(
            partition_name=row.data["partition"],
            study_instance_uid=row.data["uids"][0],
            series_instance_uid=row.data["uids"][1],
            sop_instance_uid=row.data["uids"][2],
            created=datetime.fromisoformat(row.data["created"]),
            message=_MESSAGES[ErrorCode(row.data["code"])],
        )
        for row in rows
    ]
