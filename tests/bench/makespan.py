"""A day's backlog under the virtual clock: how much of the time is the prover's, and its word against a devnet."""

from proposer.settings import ProposerSettings
from proposer.simulation.durations import Spread
from proposer.simulation.engine import ideal_makespan, simulate, simulate_seed
from proposer.simulation.scenario import L1, Chain, Prover, Scenario
from tests.bench import settling
from tests.bench.figures import Figure, Outcome, above, plain
from tests.bench.seed_policy import TICK_SECONDS
from tests.bench.world import World

DAY_BLOCKS = 43_200
"""Of a chain with a block every two seconds."""
AS_PREDICTED = (0.6, 1.6)
"""Between which the measured settlement and the predicted one may lie apart."""


async def makespan(world: World, outcome: Outcome) -> None:
    """Settle a day's blocks by the default settings: 300 blocks a range, 20 slots, a lognormal prover."""
    scenario = Scenario(chain=Chain(blocks=0, backlog=DAY_BLOCKS), seed=world.seed)
    ideal, ours, seeds = ideal_makespan(scenario), simulate(scenario), simulate_seed(scenario, TICK_SECONDS)
    for whose, one in (("ours", ours), ("the seed's", seeds)):
        if one.left:
            raise RuntimeError(f"{whose} policy left {one.left} blocks: {'; '.join(one.holes)}")
    slots = f"{scenario.settings.max_proof_requests} slots"
    said = f"ideal makespan of {DAY_BLOCKS:,} blocks on {slots} ({ideal / 60:.0f} min) to ours, under the virtual clock"
    outcome.figures += [
        above("backlog_efficiency", ideal / ours.makespan, 0.9, "", said),
        plain("seed_backlog_efficiency", ideal / seeds.makespan, "", f"the seed's policy, {TICK_SECONDS:g} s, as well"),
    ]
    outcome.figures += _checked(outcome)


def _checked(outcome: Outcome) -> list[Figure]:
    """Hold the engine's word about one settlement against what was measured in this run."""
    measured = outcome.value("settle_s")
    if measured is None:
        return []
    scenario = devnets()
    predicted = simulate(scenario).makespan - scenario.service.cycle_start
    ratio, (least, most) = measured / predicted, AS_PREDICTED
    return [
        plain("settle_predicted_s", predicted, "s", "the virtual clock's word for settle_s"),
        Figure(
            name="settle_to_prediction",
            value=ratio,
            unit="",
            what="measured on the devnet to predicted by the virtual clock",
            target=f"{least:g} to {most:g}",
            held=None if outcome.short else least < ratio < most,
            cause="a machine that is busy with something else measures more",
        ),
    ]


def devnets() -> Scenario:
    """Describe one settlement of the dead time's devnet."""
    times = settling.TIMING
    names = {"range_witness": "range_witness_s", "range_proving": "range_proving_s"}
    names |= {"aggregation_witness": "agg_witness_s", "aggregation_proving": "agg_proving_s"}
    spreads = {name: Spread(times[key], times[key]) for name, key in names.items()}
    l1_seconds = settling.L1_BLOCK_SECONDS
    return Scenario(
        settings=ProposerSettings(max_block_range=settling.RANGE, look_interval=2.0),
        chain=Chain(blocks=0, backlog=settling.INTERVAL),
        prover=Prover(**spreads, reference_blocks=settling.RANGE),
        l1=L1(block_seconds=l1_seconds, submission_interval=settling.INTERVAL, inclusion_seconds=0.05),
    )
