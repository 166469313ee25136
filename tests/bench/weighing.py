"""What a hundred proofs of full size in flight weigh: memory, and for how long the event loop stands still."""

import asyncio
import time

from infra.devnet import ProverTiming
from tests.bench.figures import Outcome, below, plain
from tests.bench.world import World, until

RANGE, START, PROOF_BYTES = 50, 1000, 1_250_000
"""A compressed range proof has about this size."""


async def weighing(world: World, outcome: Outcome, in_flight: int, members: int) -> None:
    """Prove so many ranges at once, then settle an aggregation of so many of them."""
    settings = {
        "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
        "MAX_CONCURRENT_WITNESS_GEN": str(in_flight),
        "MAX_CONCURRENT_PROOF_REQUESTS": str(in_flight),
        "MAX_AGGREGATION_MEMBERS": str(members),
        "LOOK_INTERVAL": "1s",
    }
    last = START + in_flight * RANGE
    devnet_ = world.devnet(
        l1_block_time_s=1.0,
        starting_block=START,
        submission_interval=members * RANGE,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=last,
        range_proof_size=PROOF_BYTES,
        timing=ProverTiming(range_witness_s=2.0, range_proving_s=8.0, agg_witness_s=0.5, agg_proving_s=0.5),
    )
    async with devnet_ as devnet:
        ledger = world.ledger()
        up = world.up("weighing", devnet, ledger, **settings)

        await up.says("leading with epoch")

        async def proving() -> bool:
            return len(ledger.requests("status = 'PROVING'")) == in_flight

        await until(f"{in_flight} requests are in proving", 60, up, proving)
        await asyncio.sleep(1)
        waiting = up.memory_mb()
        since = time.time()

        async def proven() -> bool:
            return len(ledger.requests("kind = 'RANGE' AND status <> 'PROVING'")) == in_flight

        await until(f"{in_flight} ranges are proven", 120, up, proven)
        taking, took = up.memory_mb("VmHWM"), time.time() - since

        async def settled() -> bool:
            return await devnet.latest_block_number() > START

        await until("the aggregation is settled", 120, up, settled)
        await asyncio.sleep(1)
        most, stood_still = up.memory_mb("VmHWM"), up.stood_still(0)
        await up.terminate()
    size = f"{PROOF_BYTES / 1e6:g} MB"
    said = f"the process at its peak: {in_flight} in flight, their proofs of {size} read, {members} of them aggregated"
    outcome.figures += [
        plain("worker_rss_waiting_mb", waiting, "MB", f"the process with {in_flight} requests in proving"),
        plain("worker_rss_taking_mb", taking, "MB", f"its peak while {in_flight} proofs arrived within {took:.0f} s"),
        plain("worker_rss_mb", most, "MB", said) if outcome.short else below("worker_rss_mb", most, 400, "MB", said),
        plain("loop_stall_s", stood_still, "s", "longest time its event loop stood still meanwhile"),
    ]
