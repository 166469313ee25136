"""Devnets for the tests of the devnet: real anvil, real HTTP on loopback, fast clocks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest_asyncio

from infra.devnet import Devnet, DevnetConfig, ProverTiming

StartDevnet = Callable[..., Awaitable[Devnet]]


def fast(**changes: Any) -> DevnetConfig:
    """Return a configuration without waiting times, standing at finalized block 2000."""
    base: dict[str, Any] = {
        "l1_block_time_s": 0.25,
        "l2_blocks_per_second": 0.0,
        "l2_initial_finalized": 2000,
        "timing": ProverTiming(0.02, 0.05, 0.02, 0.05),
    }
    return DevnetConfig(**(base | changes))


@pytest_asyncio.fixture
async def start_devnet() -> AsyncIterator[StartDevnet]:
    """Start devnets with the changes given to ``fast`` and stop them after the test."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Devnet:
            return await stack.enter_async_context(Devnet(fast(**changes)))

        yield start


@pytest_asyncio.fixture
async def devnet(start_devnet: StartDevnet) -> Devnet:
    """Run a fast devnet."""
    return await start_devnet()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Offer a client with a deadline."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield client
