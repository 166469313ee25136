"""What the tests of this room share: blocks and proposers of a devnet, processes by number, waiting with a deadline."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg

from blocks.l1 import L1Chain
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import Signer
from deployments.signing import read_signer, signer_block
from infra.devnet import Devnet

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


@dataclass(kw_only=True)
class Blocks:
    """The five blocks that look at the outside."""

    l1: L1Chain
    node: OpNode
    oracle: L2OutputOracle
    server: SuccinctServer
    signer: Signer


@asynccontextmanager
async def blocks_of(devnet: Devnet, seconds: float = 5, **changes: str) -> AsyncIterator[Blocks]:
    """Open blocks for a devnet's environment with these changes, an empty one unset; every call has `seconds`."""
    env = {name: value for name, value in (devnet.env() | changes).items() if value}
    blocks = Blocks(
        l1=L1Chain.model_validate({"urls": env["L1_RPC"], "timeout_seconds": seconds}),
        node=OpNode.model_validate({"urls": env["L2_NODE_RPC"], "timeout_seconds": seconds}),
        oracle=L2OutputOracle(address=env["L2OO_ADDRESS"]),
        server=SuccinctServer.model_validate({"url": env["OP_SUCCINCT_SERVER_URL"], "timeout_seconds": seconds}),
        signer=_signer(env),
    )
    try:
        yield blocks
    finally:
        for block in (blocks.l1, blocks.node, blocks.server, blocks.signer):
            await block.aclose()


def _signer(env: Mapping[str, str]) -> Signer:
    signer = read_signer(env, [])
    assert signer is not None
    return signer_block(signer)


async def eventually(what: str, look: Callable[[], Awaitable[T]], *, seconds: float = 60, every: float = 0.1) -> T:
    """Return what `look` returns as soon as that is true; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last seen: {seen!r}"
        await asyncio.sleep(every)
    return seen


def execute(database_url: str, statement: str) -> None:
    """Change the ledger behind the proposer's back."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def plain_environment(home: Path) -> dict[str, str]:
    """What a child process gets: nothing of the developer's own settings."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "200"}
