"""Devnets for the tests of the devnet: real anvil, real HTTP on loopback, fast clocks."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from infra.devnet import Devnet, ProverTiming
from tests.devnets import StartDevnet, devnets


@pytest_asyncio.fixture
async def start_devnet() -> AsyncIterator[StartDevnet]:
    """Start devnets without waiting times, standing at finalized block 2000, with the changes given."""
    async with devnets(
        l1_block_time_s=0.25,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=2000,
        timing=ProverTiming(0.02, 0.05, 0.02, 0.05),
    ) as start:
        yield start


@pytest_asyncio.fixture
async def devnet(start_devnet: StartDevnet) -> Devnet:
    """Run a fast devnet."""
    return await start_devnet()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Offer a client with a deadline."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        yield client
