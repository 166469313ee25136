"""Dead time: outputs settled one after the other by a real `proposer up`, and by the seed's policy beside it."""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from infra.devnet import Devnet, ProverTiming
from tests.acceptance.helpers import Ledger
from tests.bench.figures import Figure, above, below, median, p95, plain
from tests.bench.parts import proposer_of
from tests.bench.seed_policy import TICK_SECONDS, SeedPolicy
from tests.bench.settlements import L1Watch, Settlement, settlements
from tests.bench.world import Watched, World, until

START, RANGE, INTERVAL = 1000, 50, 100
"""First L2 block, blocks of a range, blocks between two outputs: two range proofs and an aggregation each."""
TIMING = {"range_witness_s": 0.5, "range_proving_s": 2.0, "agg_witness_s": 0.5, "agg_proving_s": 1.0, "jitter": 0.3}
L1_BLOCK_SECONDS = 1.0
SETTINGS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
    "POLL_INTERVAL": "60s",
    # how soon new finality is noticed, which is before the time that is measured
    "LOOK_INTERVAL": "2s",
}
"""Of both policies; what is not here has its default."""
MOST_PAUSE_SECONDS = 1.0
SHORT_TICK_SECONDS = 6.0
"""Of the seed's policy in the short form: half of its default."""
SETTLED_SECONDS = 120.0


Say = Callable[[str], None]


@dataclass
class Settled:
    """What was measured while outputs were settled."""

    ours: list[Settlement] = field(default_factory=list[Settlement])
    seeds: list[Settlement] = field(default_factory=list[Settlement])
    seed_tick: float = TICK_SECONDS
    figures: list[Figure] = field(default_factory=list[Figure])


async def settling(world: World, many: int, say: Say, *, short: bool) -> Settled:
    """Settle so many outputs, and with the seed's policy as many as it can in the same time, at least one."""
    seed_tick = SHORT_TICK_SECONDS if short else TICK_SECONDS
    result = Settled(seed_tick=seed_tick)
    async with _devnet(world) as devnet, _devnet(world) as other:
        ledger, its_ledger = world.ledger(), world.ledger()
        up = world.up("settling", devnet, ledger, **SETTINGS)
        settings = {name: SETTINGS[name] for name in ("MAX_BLOCK_RANGE_PER_SPAN_PROOF", "POLL_INTERVAL")}
        async with (
            L1Watch(devnet) as watch,
            L1Watch(other) as its_watch,
            proposer_of(other, its_ledger.url, **settings, MAX_CONCURRENT_AGGREGATIONS=1) as seeds,
        ):
            await up.says("leading with epoch")
            policy = asyncio.create_task(SeedPolicy(seeds, say, seed_tick).run())
            dice = random.Random(f"{world.seed}/seed's settlements")
            its_driver = asyncio.create_task(_drive(other, 1_000_000, dice, seed_tick, 1e6))
            try:
                result.figures += await _ours(world, devnet, ledger, up, many)

                async def settled() -> bool:
                    return await other.latest_block_number() > START

                await until("the seed's policy settles an output", SETTLED_SECONDS, None, settled)
            finally:
                for task in (its_driver, policy):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            result.ours = settlements(devnet, watch, ledger)
            result.seeds = settlements(other, its_watch, its_ledger)
        await up.terminate()
    result.figures = [*_dead_time(result, short), *result.figures]
    return result


def _devnet(world: World) -> Devnet:
    return world.devnet(
        l1_block_time_s=L1_BLOCK_SECONDS,
        starting_block=START,
        submission_interval=INTERVAL,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=START,
        timing=ProverTiming(**TIMING),
    )


async def _ours(world: World, devnet: Devnet, ledger: Ledger, up: Watched, many: int) -> list[Figure]:
    dice = random.Random(f"{world.seed}/settlements")
    # the first shows the prover's usual times and is not counted as work
    await _drive(devnet, 2, dice, MOST_PAUSE_SECONDS, SETTLED_SECONDS, up)
    cpu, calls = up.cpu_seconds(), up.prefect_calls().total()
    l1_calls, cycles = devnet.traps.arrived("l1"), len(await world.api.cycles())
    paid = len(devnet.prover.log.of("paid"))
    prefect_bytes, ledger_bytes = world.prefect_bytes(), _ledger_bytes(ledger)
    await _drive(devnet, many, dice, MOST_PAUSE_SECONDS, SETTLED_SECONDS, up)
    await asyncio.sleep(2)  # the mirror tells the last of it
    proofs = len(devnet.prover.log.of("paid")) - paid
    cycles = len(await world.api.cycles()) - cycles
    return [
        plain("cpu_s_per_proof", (up.cpu_seconds() - cpu) / proofs, "s", f"CPU of the process over {proofs} proofs"),
        plain(
            "prefect_api_calls_per_proof",
            (up.prefect_calls().total() - calls) / proofs,
            "",
            "all calls to Prefect's API in that time, cycles and polling included",
        ),
        plain(
            "l1_calls_per_cycle",
            (devnet.traps.arrived("l1") - l1_calls) / max(1, cycles),
            "",
            f"JSON-RPC calls to L1 over {cycles} cycles, looks between them included",
        ),
        plain(
            "prefect_bytes_per_settlement",
            (world.prefect_bytes() - prefect_bytes) / many,
            "B",
            "growth of Prefect's database, SQLite, before its vacuum",
        ),
        plain(
            "ledger_bytes_per_settlement",
            (_ledger_bytes(ledger) - ledger_bytes) / many,
            "B",
            "growth of the ledger's tables but for the proofs, which are deleted after the finalization period",
        ),
    ]


async def _drive(
    devnet: Devnet, many: int, dice: random.Random, most_pause: float, seconds: float, up: Watched | None = None
) -> None:
    """Finalize one output's blocks after the other, each a while after the one before was settled."""
    for _ in range(many):
        await asyncio.sleep(dice.uniform(0, most_pause))
        due = await devnet.latest_block_number() + INTERVAL
        devnet.l2.advance_to(due)

        async def settled(due: int = due) -> bool:
            return await devnet.latest_block_number() >= due

        await until(f"block {due} is settled", seconds, up, settled)


def _busy() -> str:
    """What else this machine does: a dead time is CPU time, and waits for others' work."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def _ledger_bytes(ledger: Ledger) -> int:
    tables = "('proof_requests', 'request_events', 'aggregation_members', 'l1_transactions', 'l1_signed')"
    (row,) = ledger.query(
        f"SELECT sum(pg_total_relation_size(oid))::bigint AS bytes FROM pg_class WHERE relname IN {tables}"
    )
    bytes_: int = row["bytes"]
    return bytes_


def _dead_time(result: Settled, short: bool) -> list[Figure]:
    ours, seeds = [s.dead for s in result.ours], [s.dead for s in result.seeds]
    # ours is CPU time, the seed's is its clock: what else runs here adds to ours alone, and least to the least
    of = min if short else median
    ratio = of(seeds) / of(ours) if ours and seeds else None
    tick, least = f"{result.seed_tick:g} s", ", the least of each" if short else ""
    said = f"median of {len(ours)} settlements by a real process, POLL_INTERVAL={SETTINGS['POLL_INTERVAL']}"
    typical = median(ours) if ours else None
    return [
        plain("dead_time_s", typical, "s", said) if short else below("dead_time_s", typical, 3, "s", said, _busy()),
        plain("dead_time_p95_s", p95(ours) if ours else None, "s", "95 % of them"),
        plain(
            "seed_dead_time_s",
            median(seeds) if seeds else None,
            "s",
            f"the seed's policy in the same time, a tick every {tick}: median of {len(seeds)} settlements",
        ),
        above(
            "dead_time_ratio", ratio, 1.5 if short else 10, "", f"the seed's policy ({tick}) to ours{least}", _busy()
        ),
        plain(
            "settle_s",
            median([s.whole for s in result.ours]) if ours else None,
            "s",
            "from the first request's arrival at the server to the output on the chain, median",
        ),
    ]
