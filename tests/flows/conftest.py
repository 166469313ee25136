"""A proposer's parts without its process: real PostgreSQL, a real devnet over HTTP, no Prefect server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import LocalSigner
from flows.context import Proposer
from flows.cycle import call, run_stages
from flows.report import CycleReport
from flows.stages import observe, proving
from infra.devnet import Devnet, ProverTiming
from proposer.requests import ProofRequest, Status
from proposer.settings import ProposerSettings
from tests.devnets import StartDevnet, devnets

MakeProposer = Callable[..., Awaitable[Proposer]]

SETTINGS: dict[str, Any] = {
    "max_block_range": 50,
    "num_confirmations": 1,
    "retry_delay": 0.1,
    "max_retry_delay": 60,
    "witness_gen_timeout": 20,
    "look_interval": 1,
    "max_tail_wait": 0,
}


@pytest_asyncio.fixture
async def start_devnet() -> AsyncIterator[StartDevnet]:
    """Start devnets without waiting times, with two ranges finalized, and these changes."""
    async with devnets(
        l1_block_time_s=0.2,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=1100,
        timing=ProverTiming(0.01, 0.05, 0.01, 0.05),
    ) as start:
        yield start


@pytest_asyncio.fixture
async def devnet(start_devnet: StartDevnet) -> Devnet:
    """Run a devnet."""
    return await start_devnet()


@pytest_asyncio.fixture
async def make_proposer(ledger: Ledger, epoch: int) -> AsyncIterator[MakeProposer]:
    """A function that makes the leading proposer of a devnet with these changes of settings; its tasks end with it."""
    async with AsyncExitStack() as stack:

        async def make(devnet: Devnet, *, l1_rpc: str | None = None, **changes: Any) -> Proposer:
            proposer = Proposer(
                name="proposer",
                settings=ProposerSettings(**(SETTINGS | {"mock": devnet.config.mock} | changes)),
                ledger=ledger,
                ledger_id="tests",
                l1=L1Chain(urls=SecretStr(l1_rpc or devnet.l1_rpc)),
                oracle=L2OutputOracle(address=devnet.oracle_address),
                node=OpNode(urls=SecretStr(devnet.node_rpc)),
                server=SuccinctServer(url=SecretStr(devnet.prover_url), mock=devnet.config.mock),
                signer=LocalSigner(private_key=SecretStr(devnet.proposer_key)),
                epoch=epoch,
                still_leads=lambda: True,
            )
            for block in (proposer.l1, proposer.node, proposer.server):
                stack.push_async_callback(block.aclose)
            stack.push_async_callback(_end, proposer)
            return proposer

        yield make


async def _end(proposer: Proposer) -> None:
    for task in list(proposer.witnesses.values()):
        task.cancel()
    await asyncio.gather(*proposer.witnesses.values(), return_exceptions=True)


async def cycle(proposer: Proposer, *, dry_run: bool = False) -> CycleReport:
    """Run one cycle as the process does while Prefect is away."""
    return await run_stages(proposer, call, observe.plainly, dry_run=dry_run)


async def every_request(proposer: Proposer) -> list[ProofRequest]:
    """Return all requests, by id."""
    async with proposer.ledger.connect() as connection:
        ids = (await connection.execute(text("SELECT id FROM proof_requests"))).scalars().all()
    return await proposer.ledger.requests(ids)


async def answered(proposer: Proposer) -> None:
    """Wait until every request that was sent is answered."""
    async with asyncio.timeout(60):
        await asyncio.gather(*proposer.witnesses.values())


async def looked(proposer: Proposer) -> list[str]:
    """Look at every request that is due and wait for every answer, however late; return what the look says."""
    said = await proving.look(proposer)
    await asyncio.gather(*proposer.rounds)
    return said


async def until(proposer: Proposer, done: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Run cycles and looks until it is done: one look after each cycle, and none within the next, however late."""
    deadline = time.monotonic() + seconds
    while not await done():
        assert time.monotonic() < deadline, [f"{r} {r.status}" for r in await every_request(proposer)]
        await cycle(proposer)
        await answered(proposer)
        await due_now(proposer)
        await looked(proposer)
        async with proposer.ledger.connect() as connection:
            await connection.execute(
                text(
                    "UPDATE proof_requests SET next_poll_at = now() + interval '1 hour' WHERE next_poll_at IS NOT NULL"
                )
            )
            await connection.commit()


async def waited_out(proposer: Proposer) -> None:
    """Let the server's time for everything in witness generation be over."""
    async with proposer.ledger.connect() as connection:
        await connection.execute(
            text("UPDATE proof_requests SET since = since - interval '1 hour' WHERE status = 'WITNESSGEN'")
        )
        await connection.commit()


async def due_now(proposer: Proposer) -> None:
    """Let every look and every retry be due."""
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET next_poll_at = now() WHERE next_poll_at IS NOT NULL"))
        await connection.execute(text("UPDATE proof_requests SET next_attempt_at = NULL WHERE status = 'UNREQ'"))
        await connection.commit()


async def with_status(proposer: Proposer, status: Status) -> list[ProofRequest]:
    """Return the requests of one status."""
    return [r for r in await every_request(proposer) if r.status is status]
