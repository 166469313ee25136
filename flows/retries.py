"""When a Prefect task that only reads is tried again."""

from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from proposer.errors import ChainMoved, EndpointDown, RateLimited


async def _is_down(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Retry only what may answer the next time. A sync condition would silently never retry."""
    del task, run
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, EndpointDown | ChainMoved) and not isinstance(error, RateLimited)


class ReadRetries(TypedDict):
    """The retry options of a task."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[Any, Any], TaskRun, State[Any]], Awaitable[bool]]


READ_RETRIES: ReadRetries = {
    "retries": 2,
    "retry_delay_seconds": [0.2, 0.6],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _is_down,
}
"""How a task that only reads is retried: a read costs nothing."""
