"""How fast free slots are filled: from a cycle's start to the arrival of its last request at the server."""

import asyncio
from datetime import datetime

from infra.devnet import Devnet, ProverTiming
from tests.acceptance.helpers import Ledger
from tests.bench.figures import Outcome, below, median, plain
from tests.bench.world import Watched, World, until

SLOTS, RANGE, START = 20, 50, 1000
SETTINGS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
    "MAX_CONCURRENT_WITNESS_GEN": str(SLOTS),
    "MAX_CONCURRENT_PROOF_REQUESTS": str(SLOTS),
    "LOOK_INTERVAL": "1s",
}


async def filling(world: World, outcome: Outcome, times: int) -> None:
    """Finalize blocks for as many ranges as there are slots, again whenever all are proven."""
    took: list[float] = []
    timing = ProverTiming(range_witness_s=3.0, range_proving_s=0.5)
    config = {"starting_block": START, "l2_initial_finalized": START, "l2_blocks_per_second": 0.0}
    # no output is due: what is measured is requests alone
    async with world.devnet(l1_block_time_s=1.0, submission_interval=10**6, timing=timing, **config) as devnet:
        ledger = world.ledger()
        up = world.up("filling", devnet, ledger, **SETTINGS)
        await up.says("leading with epoch")
        await asyncio.sleep(2)
        for number in range(1, times + 1):
            devnet.l2.advance_to(START + number * SLOTS * RANGE)

            async def proven(many: int = number * SLOTS) -> bool:
                return len(ledger.requests("status = 'COMPLETE'")) == many

            await until(f"{number * SLOTS} ranges are proven", 60, up, proven)
            took.append(await _took(world, devnet, ledger, up))
        await up.terminate()
    what = (
        f"{SLOTS} queued ranges, {SLOTS} free slots: from the cycle's start to the last arrival at the server, worst of"
    )
    said = f"{what} {times}; median {median(took):.2f} s"
    make = plain("fill_s", max(took), "s", said) if outcome.short else below("fill_s", max(took), 5, "s", said)
    outcome.figures.append(make)


async def _took(world: World, devnet: Devnet, ledger: Ledger, up: Watched) -> float:
    """Measure the newest requests."""
    newest = ledger.query("SELECT end_block, cycle_run_id FROM proof_requests ORDER BY id DESC LIMIT %s", SLOTS)
    (cycle,) = {row["cycle_run_id"] for row in newest}
    ends = {row["end_block"] for row in newest}
    arrived = max(event["time"] for event in devnet.prover.log.of("post") if event["end"] in ends)
    run = await world.api.run(cycle)
    return arrived - datetime.fromisoformat(run["start_time"]).timestamp()
