"""The policies over one scenario, and what no scheduler could do without."""

import heapq

from proposer.ranges import BlockRange, cut
from proposer.requests import Kind
from proposer.simulation.outcome import Outcome
from proposer.simulation.prover import fate
from proposer.simulation.scenario import Scenario
from proposer.simulation.seed import SeedPolicy
from proposer.simulation.service import ServicePolicy


def simulate(scenario: Scenario) -> Outcome:
    """Run this proposer."""
    return ServicePolicy(scenario).run()


def simulate_seed(scenario: Scenario, tick_seconds: float = 12.0, *, confirm: bool = True) -> Outcome:
    """Run the policy of the Go proposer that op-succinct began with; its caps and range size are the scenario's.

    `tick_seconds` is its POLL_INTERVAL: 12 by default, 20 in its compose file. With `confirm` it waits for
    `num_confirmations` of each transaction, as it does; without, for their first block only.
    """
    return SeedPolicy(scenario, tick_seconds, confirm=confirm).run()


def ideal_makespan(scenario: Scenario) -> float:
    """Return the seconds that the backlog takes without any dead time, if no request fails.

    Its ranges follow one another on the same slots; after the last one come a checkpoint's L1 block, one aggregation
    of median duration, and the proposal's L1 block.
    """
    settings, prover = scenario.settings, scenario.prover
    slots, witnesses = [0.0] * settings.max_proof_requests, [0.0] * settings.max_witness_gen
    end = 0.0
    for over in cut(BlockRange(0, scenario.chain.backlog), settings.max_block_range):
        becomes = fate(prover, scenario.seed, Kind.RANGE, over, 1)
        answered = max(slots[0], witnesses[0]) + becomes.witness
        heapq.heapreplace(witnesses, answered)
        heapq.heapreplace(slots, answered + becomes.proving)
        end = max(end, answered + becomes.proving)
    aggregation = prover.aggregation_witness.median + prover.aggregation_proving.median
    return end + aggregation + 2 * scenario.l1.block_seconds
