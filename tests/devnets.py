"""Devnets for tests: as many as a test wants, all stopped after it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from infra.devnet import Devnet, DevnetConfig

StartDevnet = Callable[..., Awaitable[Devnet]]


@asynccontextmanager
async def devnets(**base: Any) -> AsyncIterator[StartDevnet]:
    """Yield a function that starts a devnet of this configuration, with the changes it is given."""
    async with AsyncExitStack() as stack:

        async def start(*, beside: Devnet | None = None, **changes: Any) -> Devnet:
            return await stack.enter_async_context(Devnet(DevnetConfig(**(base | changes)), beside=beside))

        yield start
