"""The proposer process on a real devnet and ledger, with Prefect's server away: settlement goes on all the same."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings

from blocks.ledger import Ledger, leadership
from deployments import process
from deployments.claim import Claim
from deployments.process import Process
from deployments.runner import Runner
from flows.context import Proposer
from infra.devnet import Devnet, Fault, FaultPlan, ProverTiming
from infra.devnet.loopback import free_port
from proposer.errors import NameClash, NotLeader
from proposer.settings import ProposerSettings
from tests.acceptance.helpers import Hold
from tests.deployments.helpers import blocks_of, eventually, execute
from tests.devnets import StartDevnet

QUICK: dict[str, Any] = {
    "max_block_range": 50,
    "num_confirmations": 2,
    "poll_interval": 2,
    "look_interval": 0.5,
    "retry_delay": 0.5,
    "witness_gen_timeout": 20,
}
HANGS = FaultPlan(rules=(Fault(kind="hang", on="range"),))


@dataclass
class Led:
    """A process that leads: its parts, and its task."""

    proposer: Proposer
    claim: Claim
    stop: asyncio.Event
    task: "asyncio.Task[bool]"
    ledger: Ledger

    async def statuses(self) -> Counter[str]:
        """The requests by status."""
        return Counter(request.status.value for request in (await self.ledger.view(0)).requests)

    async def settles(self, devnet: Devnet) -> None:
        """Wait until the output at 1100 is on the chain."""

        async def settled() -> bool:
            assert not self.task.done(), self.task.exception()
            return await devnet.latest_block_number() == 1100

        await eventually("the output at 1100 is on the chain", settled)

    async def asking(self) -> bool:
        """Whether the requests for both ranges up to 1100 wait for the server's answer."""
        assert not self.task.done(), self.task.exception()
        return len(self.proposer.witnesses) == 2


Lead = Callable[..., Awaitable[Led]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither wait long for Prefect at the start nor for the next renewal."""
    monkeypatch.setattr(process, "START_SECONDS", 0.2)
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.3)


async def nothing() -> None:
    """Nothing is applied: the server is away."""


@asynccontextmanager
async def leading(
    devnet: Devnet, ledger: Ledger, home: Path, applied: Callable[[], Awaitable[None]] = nothing, **settings: Any
) -> AsyncIterator[Led]:
    """Lead with Prefect's address at a closed port; what still runs at the end is cancelled."""
    away = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
        PREFECT_HOME: str(home),
        PREFECT_CLIENT_MAX_RETRIES: 0,
    }
    claim, stop = Claim(ledger), asyncio.Event()
    await claim.take()
    with temporary_settings(away):
        async with blocks_of(devnet) as blocks:
            proposer = Proposer(
                name="proposer",
                settings=ProposerSettings(**(QUICK | settings)),
                ledger=ledger,
                ledger_id="tests",
                **vars(blocks),
                epoch=claim.epoch,
                still_leads=claim.holds,
            )
            task = asyncio.create_task(Process(proposer, claim, stop, applied).lead())
            try:
                yield Led(proposer, claim, stop, task, ledger)
            finally:
                for running in (task, *proposer.witnesses.values()):
                    running.cancel()
                await asyncio.gather(task, *proposer.witnesses.values(), return_exceptions=True)


async def test_an_output_is_settled_without_prefect_and_a_stop_ends_it(
    devnet: Devnet, ledger: Ledger, tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranges are proven, aggregated and relayed on the process's own clock; the absence is not said at every look."""
    with caplog.at_level("INFO", logger="proposer"):
        async with leading(devnet, ledger, tmp_path) as led:
            await led.settles(devnet)
            led.stop.set()
            assert await asyncio.wait_for(led.task, 60)
            assert not led.proposer.witnesses
            assert led.claim.holds()  # released by who took it
    assert Counter(event["kind"] for event in devnet.prover.log.of("paid")) == {"range": 2, "aggregation": 1}
    said = [record.getMessage() for record in caplog.records if "Prefect's server is away" in record.getMessage()]
    assert len(said) <= 2


async def test_no_settlement_waits_for_the_clock(devnet: Devnet, ledger: Ledger, tmp_path: Path, quick: None) -> None:
    """With an hour between two scheduled cycles an output is settled as soon as its proofs are there."""
    async with leading(devnet, ledger, tmp_path, poll_interval=3600) as led:
        await led.settles(devnet)


async def test_an_account_that_another_rollup_has_ends_it_with_its_name(
    devnet: Devnet, ledger: Ledger, tmp_path: Path, quick: None
) -> None:
    """Seen late, because Prefect was away at the start: it does not spend on against the other."""

    async def clash() -> None:
        raise NameClash("account 0x1 signs for rollup 'other'")

    async with leading(devnet, ledger, tmp_path, clash) as led:
        with pytest.raises(NameClash, match="signs for rollup 'other'"):
            await asyncio.wait_for(led.task, 60)
    assert devnet.prover.log.of("paid") == []


async def test_a_stop_waits_for_the_answers_and_asks_for_nothing_new(
    start_devnet: StartDevnet, ledger: Ledger, tmp_path: Path, quick: None
) -> None:
    """What was asked for is in the ledger with its prover id; the L2 blocks finalized meanwhile are not."""
    devnet = await start_devnet(timing=ProverTiming(0.1, 600, 0.1, 0.2))
    holds = [Hold(devnet.traps, "prover.range.paid", start=start) for start in (1000, 1050)]
    async with leading(devnet, ledger, tmp_path) as led:
        for hold in holds:
            await hold.reached()
        assert await led.asking()
        led.stop.set()
        devnet.l2.advance_to(1300)
        await asyncio.sleep(1)
        assert not led.task.done()
        for hold in holds:
            hold.let_go()
        assert await asyncio.wait_for(led.task, 60)
        assert not led.proposer.witnesses
    assert await led.statuses() == {"PROVING": 2}
    assert len(devnet.prover.log.of("paid")) == 2


async def test_a_stop_waits_no_longer_than_the_drain_timeout(
    start_devnet: StartDevnet, ledger: Ledger, tmp_path: Path, quick: None
) -> None:
    """A server that hangs does not hold it up; the requests stay as what they are, for the next start to judge."""
    devnet = await start_devnet(faults=HANGS)
    async with leading(devnet, ledger, tmp_path, drain_timeout=0.5) as led:
        await eventually("both requests wait for their answer", led.asking)
        stopped = time.monotonic()
        led.stop.set()
        assert await asyncio.wait_for(led.task, 60)
        assert time.monotonic() - stopped < 4
    assert await led.statuses() == {"WITNESSGEN": 2}


async def test_a_stolen_leadership_ends_it_and_what_waits_for_an_answer_goes_on(
    start_devnet: StartDevnet, ledger: Ledger, database_url: str, tmp_path: Path, quick: None
) -> None:
    """At the next renewal; from then on it neither writes nor asks nor sends. What was paid for is not cut off."""
    devnet = await start_devnet(faults=HANGS)
    async with leading(devnet, ledger, tmp_path) as led:
        await eventually("both requests wait for their answer", led.asking)
        waiting = list(led.proposer.witnesses.values())
        execute(database_url, "UPDATE leadership SET owner = 'thief', epoch = epoch + 1")
        assert not await asyncio.wait_for(led.task, 60)
        assert not any(task.done() for task in waiting)
        with pytest.raises(NotLeader):
            led.proposer.must_lead()
        with pytest.raises(NotLeader):
            async with led.proposer.write() as writer:
                await writer.mark("finalized", 1, rising=True)
        asked = len(devnet.prover.log.of("post"))
        await asyncio.sleep(0.6)
        assert len(devnet.prover.log.of("post")) == asked
    assert await led.statuses() == {"WITNESSGEN": 2}


async def test_an_answer_of_prefect_that_makes_no_sense_does_not_end_the_process(
    devnet: Devnet, ledger: Ledger, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a login page where JSON should be: the cycle runs without Prefect, and all is settled."""
    woken: list[str] = []

    class Confused:
        async def wake(self, why: str) -> None:
            woken.append(why)
            raise ValueError("Expecting value: line 1 column 1 (char 0)")

    async def confused(self: Process) -> None:
        self._runner, self._prefect_answers = cast("Runner", Confused()), True
        await asyncio.Event().wait()

    monkeypatch.setattr(Process, "_with_prefect", confused)
    async with leading(devnet, ledger, tmp_path) as led:
        await led.settles(devnet)
        led.stop.set()
        assert await asyncio.wait_for(led.task, 60)
    assert woken
