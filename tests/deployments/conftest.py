"""Devnets for the tests of the process and what it checks at start: real anvil, real HTTP, fast clocks."""

from collections.abc import AsyncIterator

import pytest_asyncio

from infra.devnet import Devnet, ProverTiming
from tests.devnets import StartDevnet, devnets


@pytest_asyncio.fixture
async def start_devnet() -> AsyncIterator[StartDevnet]:
    """Start devnets with these changes to a fast one; stopped after the test."""
    async with devnets(
        l1_block_time_s=0.3,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=1100,
        timing=ProverTiming(0.1, 0.2, 0.1, 0.2),
    ) as start:
        yield start


@pytest_asyncio.fixture
async def devnet(start_devnet: StartDevnet) -> Devnet:
    """Run a fast devnet, finalized up to 1100."""
    return await start_devnet()
