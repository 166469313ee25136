"""`simulate`: the core's own decisions under a virtual clock, with a virtual L2, L1 and prover.

    from proposer.simulation import Chain, Prover, Scenario, Spread, simulate, simulate_seed
    scenario = Scenario(
        settings=ProposerSettings(max_witness_gen=20),
        chain=Chain(backlog=43_200, blocks=0),
        prover=Prover(range_proving=Spread(median=600, p95=1500)),
        seed=1,
    )
    outcome = simulate(scenario)
    outcome.makespan          # seconds until the last settlement
    outcome.settlements       # [Settlement(start, block, final_at, settled_at)], seconds from the start
    outcome.samples           # [Sample(at, finalized, settled, waiting, in_flight)], one per change
    outcome.tally             # proofs paid, retried, wasted; transactions; cost(prices)
    outcome.lag_seconds()     # Figures(median, p95, max), each block counted once; lag_blocks(), queue() over time

`simulate_seed` runs the original's policy over the very same chain and prover. What becomes of a proof depends on the
seed, its blocks and its attempt alone, so outcomes of two policies or settings may be compared. `ideal_makespan` is
what a backlog takes on the same slots without dead time. Nothing here does I/O or asks what time it is.
"""

from proposer.simulation.durations import Spread
from proposer.simulation.engine import ideal_makespan, simulate, simulate_seed
from proposer.simulation.fit import Ended, fitted
from proposer.simulation.outcome import Figures, Outcome, Sample, Settlement, Tally
from proposer.simulation.picture import picture
from proposer.simulation.recommend import Recommendation, Trial, recommend
from proposer.simulation.scenario import L1, Chain, Prices, Prover, Scenario, Service

__all__ = [
    "L1",
    "Chain",
    "Ended",
    "Figures",
    "Outcome",
    "Prices",
    "Prover",
    "Recommendation",
    "Sample",
    "Scenario",
    "Service",
    "Settlement",
    "Spread",
    "Tally",
    "Trial",
    "fitted",
    "ideal_makespan",
    "picture",
    "recommend",
    "simulate",
    "simulate_seed",
]
