"""Metrics and health over HTTP: from a real ledger and devnet, and while each of them is away."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from blocks.ledger import Ledger, LedgerIdentity, leadership
from blocks.ledger.figures import FiguresReader
from blocks.ledger import running
from deployments.claim import Claim
from deployments.environment import Listen
from deployments.metrics import Sources, server, serving
from deployments.metrics.catalogue import CATALOGUE
from deployments.metrics.families import VERSION
from flows.context import Proposer
from flows.cycle import call, run_stages
from flows.stages import observe, proving
from infra.devnet import Devnet, Fault, FaultPlan
from infra.devnet.loopback import free_port
from proposer.errors import InvalidSettings
from proposer.requests import Status
from proposer.settings import ProposerSettings
from tests.deployments.helpers import blocks_of, execute
from tests.devnets import StartDevnet

OURS = "op_succinct_proposer"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Served:
    """A proposer whose metrics are served."""

    proposer: Proposer
    claim: Claim
    url: str
    http: httpx.AsyncClient

    async def text(self) -> str:
        """Scrape, anew."""
        answer = await self.http.get(f"{self.url}/metrics")
        assert answer.status_code == 200
        return answer.text

    async def samples(self) -> Samples:
        """Scrape, anew, and parse."""
        return _parsed(await self.text())

    async def ready(self) -> tuple[int, str]:
        """Ask whether it is ready."""
        answer = await self.http.get(f"{self.url}/readyz")
        return answer.status_code, answer.text.strip()

    async def settle(self, block: int) -> None:
        """Run cycles until the contract has this block."""
        async with asyncio.timeout(40):
            while (await self.proposer.l1.head()) and await _contract(self.proposer) < block:
                await self.cycle()
        await self.cycle()

    async def cycle(self, *, dry_run: bool = False) -> None:
        """Run a cycle, and the looks between two."""
        await run_stages(self.proposer, call, observe.plainly, dry_run=dry_run)
        await asyncio.gather(*self.proposer.witnesses.values())
        await proving.look(self.proposer)


def _parsed(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def _value(samples: Samples, name: str, **labels: str) -> float:
    name = name if name.startswith((OURS, "succinct_")) else f"{OURS}_{name}"
    return samples[name, tuple(sorted(labels.items()))]


async def _contract(proposer: Proposer) -> int:
    view = await proposer.oracle.view(proposer.l1, await proposer.l1.head(), None)
    return view.latest_block


Serve = Callable[[Devnet], Awaitable[Served]]


@pytest_asyncio.fixture
async def serve(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """A function that serves the metrics of a devnet's leading proposer, without a Prefect server."""
    from contextlib import AsyncExitStack

    monkeypatch.setattr(server, "CACHE_SECONDS", 0.0)
    async with AsyncExitStack() as stack:

        async def start(devnet: Devnet) -> Served:
            blocks = await stack.enter_async_context(blocks_of(devnet, 2))
            claim = Claim(ledger)
            await claim.take()
            execute_everything = await ledger.ledger_id() if await ledger.identity() else "tests"
            settings = ProposerSettings(
                max_block_range=50, num_confirmations=1, retry_delay=0.1, witness_gen_timeout=5, look_interval=0.1
            )
            proposer = Proposer(
                name="proposer",
                settings=settings,
                ledger=ledger,
                ledger_id=execute_everything,
                **vars(blocks),
                epoch=claim.epoch,
                still_leads=lambda: True,
            )
            identity = LedgerIdentity(900, 901, devnet.oracle_address.lower())
            sources = Sources(proposer, claim, identity, f"http://127.0.0.1:{free_port()}/api")
            listen = Listen("127.0.0.1", free_port(), 600)
            await stack.enter_async_context(serving(listen, sources))
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=10, trust_env=False))
            return Served(proposer, claim, f"http://127.0.0.1:{listen.port}", http)

        yield start


async def test_smoke(serve: Serve, start_devnet: StartDevnet, database_url: str) -> None:
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unexecutable", block=1010, longer_than=25),)))
    execute(database_url, "UPDATE leadership SET expires_at = now() + interval '1 hour'")
    served = await serve(devnet)
    execute(database_url, "UPDATE leadership SET expires_at = now() + interval '1 hour'")
    await served.settle(1100)
    print(await served.text())
    await served.proposer.l1.aclose()
