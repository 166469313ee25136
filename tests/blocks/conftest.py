"""HTTP over loopback, scripted per test, and a real L1."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from infra.devnet.install import find_anvil
from tests.blocks.loopback import Server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A scripted server."""
    async with Server() as made:
        yield made


@pytest_asyncio.fixture
async def second() -> AsyncIterator[Server]:
    """Another one."""
    async with Server() as made:
        yield made


@pytest.fixture
def usual_depth() -> Iterator[None]:
    """Python's own recursion limit, as in the proposer's process: the devnet's compiler raises it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
def closed_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def anvil(closed_port: int) -> Iterator[str]:
    """A fresh anvil that mines only when told; its URL."""
    with subprocess.Popen([find_anvil(), "--port", str(closed_port), "--silent", "--no-mining"]) as process:
        url = f"http://127.0.0.1:{closed_port}"
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as client:
                client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []})
            yield url
        finally:
            process.terminate()
