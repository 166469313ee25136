"""When a Prefect task that only reads is tried again."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from proposer.errors import ChainMoved, EndpointDown, RateLimited


async def is_down(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Retry only what may answer the next time. A sync condition would silently never retry."""
    del task, run
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, EndpointDown | ChainMoved) and not isinstance(error, RateLimited)
