"""A bulk update of one study, from its lock to its end."""

from services import update
from services.update import Job


async def run(job: Job) -> int:
    """How many instances changed."""
    assert await update.begin(job)
    after = None
    while True:
        staged = await update.stage(job, after)
        assert staged.errors == []
        after = staged.after
        if after is None:
            break
    count = await update.flip(job)
    after = await update.fold(job, None)
    while after is not None:
        after = await update.fold(job, after)
    await update.finish(job)
    return count
