"""The original's policy over the same parts: exact where it can be computed by hand, and slower for known reasons."""

import pytest

from proposer.settings import ProposerSettings
from proposer.simulation import Chain, Scenario, Service, Settlement, ideal_makespan, simulate, simulate_seed
from tests.proposer.simulation.scenarios import tiny


def test_its_ten_blocks_are_settled_when_it_can_be_computed_by_hand() -> None:
    """One request a tick, 12 s: asked at 12 and 24, proven at 52 and 64, seen at 60 and 72.

    A checkpoint is sent at 72, is in the block at 84 and is waited for; the aggregation is asked for in the next tick
    at 96, answered at 101 and proven at 121, seen at 132. Two more L1 blocks, at 156, then the proposal's block at 168.
    """
    one = ProposerSettings(max_block_range=5, submission_interval=10)
    outcome = simulate_seed(tiny(settings=one), confirm=False)
    assert outcome.settlements == (Settlement(0, 10, 0.0, 168.0),)
    assert (outcome.tally.range_paid, outcome.tally.aggregation_paid, outcome.tally.wasted) == (2, 1, 0)


def test_waiting_for_confirmations_stalls_the_whole_loop() -> None:
    one = ProposerSettings(max_block_range=5, submission_interval=10, num_confirmations=10)
    confirmed = simulate_seed(tiny(settings=one)).makespan
    assert confirmed >= simulate_seed(tiny(settings=one), confirm=False).makespan + 9 * 12


@pytest.mark.parametrize("seed", [1, 2])
def test_a_days_backlog_is_settled_sooner_than_the_originals_and_never_sooner_than_ideal(seed: int) -> None:
    scenario = Scenario(chain=Chain(blocks=0, backlog=43_200), seed=seed)
    ideal, ours, theirs = ideal_makespan(scenario), simulate(scenario), simulate_seed(scenario)
    assert ideal < ours.makespan < theirs.makespan
    assert ours.settlements[-1].block == theirs.settlements[-1].block == 43_200
    assert ours.tally.range_paid == theirs.tally.range_paid == 144


def test_every_block_it_settles_is_settled_once_and_it_is_the_same_for_a_seed() -> None:
    scenario = tiny(chain=Chain(blocks=500, backlog=20), service=Service(), seed=3)
    scenario = scenario.model_copy(
        update={"prover": scenario.prover.model_copy(update={"unfulfillable": 0.2, "witness_failures": 0.1})}
    )
    outcome = simulate_seed(scenario)
    assert outcome == simulate_seed(scenario)
    edges = [0, *(s.block for s in outcome.settlements)]
    assert [s.start for s in outcome.settlements] == edges[:-1]
    assert edges[-1] == 520
    assert outcome.tally.failed > 0
    assert outcome.tally.paid >= 104 + len(outcome.settlements)
