"""The main story: outputs are settled over real flow runs, and Prefect shows what became of every proof."""

import re

import httpx
import pytest

from infra.devnet import Devnet, Fault, FaultPlan, check
from tests.acceptance.conftest import StartDevnet, StartUp
from tests.acceptance.helpers import Ledger, Prefect, Row, Up, eventually

FAULTS = FaultPlan(
    rules=(
        Fault(kind="unexecutable", block=1010, longer_than=25),
        Fault(kind="unfulfillable", block=1120, first=1),
    )
)


async def settled(devnet: Devnet, block: int, up: Up, seconds: float = 60) -> None:
    async def look() -> bool:
        return await devnet.latest_block_number() >= block

    await eventually(f"block {block} settled", look, seconds=seconds, alive=up)


async def test_outputs_are_settled_and_prefect_tells_the_story(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """A range is halved, one is retried, the server is away once; every run shows it, and the chain is right."""
    devnet = await start_devnet(l2_initial_finalized=1200, faults=FAULTS)
    one = up(devnet)
    await settled(devnet, 1200, one)
    await devnet.prover.stop()
    devnet.l2.advance_to(1300)
    (waiting, *_) = await rows.having("failure_text LIKE 'nothing was asked, no attempt is charged%%'", alive=one)
    await devnet.prover.start()
    await settled(devnet, 1300, one)
    assert rows.requests(f"id = {waiting['id']}")[0]["attempt"] == 1

    report = await check(
        l1_rpc=devnet.l1_rpc,
        oracle=devnet.oracle_address,
        proposer=devnet.proposer_address,
        output_root=devnet.l2.output_root,
        log=devnet.prover.log.events,
        ledger_url=rows.url,
    )
    assert report.violations == []
    await prefect.equal(rows)

