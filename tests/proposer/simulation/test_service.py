"""The proposer under the virtual clock: exact where it can be computed by hand, lawful everywhere."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proposer.requests import IN_FLIGHT, OPEN, Kind, NewRequest, Status
from proposer.settings import ProposerSettings
from proposer.simulation import L1, Chain, Outcome, Prover, Scenario, Service, Settlement, Spread, simulate
from proposer.simulation import service as service_module
from proposer.simulation.ledger import Ledger
from tests.proposer.simulation.scenarios import AT_ONCE, always, tiny


def test_ten_blocks_are_settled_when_it_can_be_computed_by_hand() -> None:
    """Answers at 10, proofs at 40; checkpoint in the L1 block at 48; aggregation at 53 and 73; proposal at 84."""
    outcome = simulate(tiny())
    assert outcome.settlements == (Settlement(0, 10, 0.0, 84.0),)
    assert outcome.lag_seconds().max == 84.0
    assert (outcome.tally.range_paid, outcome.tally.aggregation_paid) == (2, 1)
    assert (outcome.tally.checkpoints, outcome.tally.proposals, outcome.tally.wasted) == (1, 1, 0)
    assert outcome.kept_up
    assert outcome.left == 0


def test_one_slot_makes_two_ranges_follow_one_another() -> None:
    """The second range is asked for at 40 and proven at 80, by when the first is being settled.

    The first: checkpoint at 48, aggregation at 53 and 73, proposal sent at 73 and mined at 84. The second: its
    checkpoint waits for that one transaction, so it is sent at 84 and mined at 96; aggregation at 101 and 121, proposal
    in the block at 132.
    """
    one = ProposerSettings(max_block_range=5, look_interval=1, max_proof_requests=1, max_witness_gen=1)
    outcome = simulate(tiny(settings=one))
    assert [(s.start, s.block, s.settled_at) for s in outcome.settlements] == [(0, 5, 84.0), (5, 10, 132.0)]


def test_the_latencies_of_the_service_are_added_where_they_arise() -> None:
    """Cycles start 2 s after their cause, and a proof is seen 1 s after its look: asked at 2, seen at 43."""
    late = Service(loop_seconds=0, cycle_start=2, cycle_seconds=0, brisk_seconds=0, status_seconds=1)
    outcome = simulate(tiny(service=late))
    # checkpoint sent at 45, block at 48, asked at 50, answered at 55, seen at 76, proposed at 78
    assert [s.settled_at for s in outcome.settlements] == [84.0]
    slower = simulate(tiny(service=late.model_copy(update={"cycle_start": 3})))
    # asked at 3, seen at 44, checkpoint at 47 just in time; asked at 51, seen at 77, proposed at 80
    assert [s.settled_at for s in slower.settlements] == [84.0]
    slowest = simulate(tiny(service=late.model_copy(update={"cycle_start": 4})))
    # asked at 4, seen at 45, checkpoint at 49 in the block at 60; asked at 64, seen at 90, proposed at 94
    assert [s.settled_at for s in slowest.settlements] == [96.0]


def test_finality_comes_in_steps_and_after_its_lag() -> None:
    """Blocks of 1 s, final 20 s later, in steps of 30 s: 10 of them at 30, the others at 60."""
    chain = Chain(blocks=20, block_seconds=1, finality_lag=20, finality_step=30)
    outcome = simulate(tiny(chain=chain))
    assert outcome.finality == ((0.0, 0), (30.0, 10), (60.0, 20))
    # asked at 30, proven at 70, checkpoint at 72, aggregation at 97, proposal at 108
    assert outcome.settlements[0] == Settlement(0, 10, 30.0, 108.0)
    assert outcome.settlements[-1].block == 20
    assert outcome.lag_seconds().max == outcome.settlements[-1].settled_at - 60


def test_a_tail_that_fills_no_range_is_settled_after_its_wait() -> None:
    patient = ProposerSettings(max_block_range=5, look_interval=1, max_tail_wait=600)
    outcome = simulate(tiny(settings=patient, chain=Chain(backlog=12, blocks=0)))
    assert [(s.start, s.block) for s in outcome.settlements] == [(0, 10), (10, 12)]
    assert 600 < outcome.settlements[1].settled_at - outcome.settlements[0].settled_at < 600 + 84


def test_blocks_below_the_contracts_interval_are_left_and_nobody_is_blamed() -> None:
    outcome = simulate(tiny(chain=Chain(backlog=12, blocks=0), l1=L1(submission_interval=10)))
    assert (outcome.settlements[-1].block, outcome.left, outcome.kept_up) == (10, 2, True)


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    def run(seed: int) -> Outcome:
        prover = Prover(unfulfillable=0.1, witness_failures=0.05, outage_every=9_000, outage_seconds=300)
        return simulate(Scenario(seed=seed, chain=Chain(blocks=7_200), prover=prover))

    assert run(1) == run(1)
    assert run(1).settlements != run(2).settlements


class LawfulLedger(Ledger):
    """Looks after each change whether the promises hold."""

    policy: ProposerSettings

    def insert(self, new: NewRequest) -> int:
        number = super().insert(new)
        self.check()
        return number

    def move(self, number: int, frm: Status, to: Status, **changes: Any) -> bool:
        done = super().move(number, frm, to, **changes)
        self.check()
        return done

    def check(self) -> None:
        """No open ranges overlap, and no cap is passed."""
        ranges = [r for r in self.rows.values() if r.kind is Kind.RANGE]
        held = sorted(r.range for r in ranges if r.status in OPEN)
        assert all(a.end <= b.start for a, b in itertools.pairwise(held))
        assert sum(r.status in IN_FLIGHT for r in ranges) <= self.policy.max_proof_requests
        assert sum(r.status is Status.WITNESSGEN for r in ranges) <= self.policy.max_witness_gen
        aggregations = [r for r in self.rows.values() if r.kind is Kind.AGG and r.status in IN_FLIGHT]
        assert len(aggregations) <= self.policy.max_aggregations


SPREADS = st.builds(lambda median, more: Spread(median, median * more), st.floats(1, 900), st.floats(1, 4))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    slots = draw(st.integers(1, 8))
    size = draw(st.integers(1, 60))
    return Scenario(
        seed=draw(st.integers(0, 1_000)),
        settings=ProposerSettings(
            max_block_range=size,
            max_proof_requests=slots,
            max_witness_gen=draw(st.integers(1, slots)),
            max_aggregations=draw(st.integers(1, 3)),
            max_aggregation_members=draw(st.integers(1, 20)),
            submission_interval=draw(st.integers(1, 80)),
            max_tail_wait=draw(st.integers(0, 3_600)),
            max_proof_time=draw(st.sampled_from([1_200, 14_400])),
        ),
        chain=Chain(
            backlog=draw(st.integers(0, 12 * size)),
            blocks=draw(st.integers(1, 12 * size)),
            block_seconds=draw(st.sampled_from([0.25, 2, 12])),
        ),
        prover=Prover(
            range_witness=draw(SPREADS),
            range_proving=draw(SPREADS),
            aggregation_witness=draw(SPREADS),
            aggregation_proving=draw(SPREADS),
            reference_blocks=60,
            unfulfillable=draw(st.sampled_from([0, 0.1, 0.3])),
            witness_failures=draw(st.sampled_from([0, 0.1])),
            unexecutable_above=draw(st.sampled_from([None, max(1, size // 3)])),
            outage_every=draw(st.sampled_from([None, 7_200])),
        ),
        patience=366 * 86_400,
    )


@given(scenarios())
@settings(max_examples=12, deadline=None)
def test_every_final_block_is_settled_once_and_every_rule_is_kept(scenario: Scenario) -> None:
    with pytest.MonkeyPatch.context() as patch:
        LawfulLedger.policy = scenario.settings
        patch.setattr(service_module, "Ledger", LawfulLedger)
        outcome = simulate(scenario)
    edges = [0, *(s.block for s in outcome.settlements)]
    assert [s.start for s in outcome.settlements] == edges[:-1], "no block twice, none left out"
    assert edges[-1] == scenario.chain.last - outcome.left
    assert outcome.left < scenario.settings.submission_interval
    assert outcome.kept_up
    interval = scenario.settings.submission_interval
    assert all(s.block - s.start >= interval and s.settled_at > s.final_at for s in outcome.settlements)
    assert outcome.tally.paid >= outcome.tally.wasted
    assert [s.at for s in outcome.samples] == sorted({s.at for s in outcome.samples})


@given(st.integers(0, 500), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=8, deadline=None)
def test_more_slots_never_make_a_backlog_slower_by_much(seed: int, slots: int, more: int) -> None:
    def makespan(caps: int) -> float:
        policy = ProposerSettings(max_proof_requests=caps, max_witness_gen=caps)
        return simulate(Scenario(seed=seed, settings=policy, chain=Chain(backlog=9_000, blocks=0))).makespan

    # another order of proofs ends chains elsewhere: one more aggregation at the end is possible
    assert makespan(slots + more) <= makespan(slots) + 900


def test_proofs_given_up_cost_what_they_should() -> None:
    """A share p of failures means 1 / (1 - p) requests for each proof, and each failed one is wasted."""
    n, p = 400, 0.2
    prover = Prover(range_proving=always(60), range_witness=always(5), reference_blocks=10, unfulfillable=p)
    policy = ProposerSettings(max_block_range=10, max_proof_requests=60, max_witness_gen=60, max_attempts=50)
    outcome = simulate(Scenario(settings=policy, chain=Chain(backlog=10 * n, blocks=0), prover=prover))
    expected = n / (1 - p)
    assert abs(outcome.tally.range_paid - expected) < 5 * (expected * p / (1 - p)) ** 0.5
    assert outcome.tally.wasted == outcome.tally.range_paid + outcome.tally.aggregation_paid - (
        n + len(outcome.settlements)
    )
    assert outcome.tally.retried == outcome.tally.wasted
    assert outcome.kept_up


def test_ranges_that_cannot_be_executed_cost_the_whole_and_its_halves() -> None:
    outcome = simulate(tiny(prover=tiny().prover.model_copy(update={"unexecutable_above": 4})))
    assert (outcome.tally.halved, outcome.tally.range_paid, outcome.tally.wasted) == (2, 6, 2)
    assert outcome.tally.blocks_paid == 20
    assert outcome.settlements[-1].block == 10


def test_an_outage_delays_and_charges_no_attempt() -> None:
    """The server goes away while both witnesses are made; they are asked again after `WITNESS_GEN_TIMEOUT`.

    A scheduled cycle finds out, a minute later at most.
    """
    outages = {"outage_every": 1e6, "outage_seconds": 100.0}
    seed = next(s for s in range(100_000) if 0 < _first_outage(s) < 9)
    policy = ProposerSettings(max_block_range=5, look_interval=1, witness_gen_timeout=300, retry_delay=1)
    prover = tiny().prover.model_copy(update=outages)
    outcome = simulate(tiny(seed=seed, settings=policy, prover=prover))
    assert outcome.tally.outages == 1
    assert 300 < outcome.makespan < 300 + 60 + 84 + 12
    assert outcome.tally.wasted == 0


def _first_outage(seed: int) -> float:
    from proposer.simulation.prover import Outages

    found = Outages(Prover(outage_every=1e6), seed).next_after(0.0)
    assert found is not None
    return found


def test_a_policy_that_cannot_keep_up_is_stopped_and_says_so() -> None:
    """One range of 300 blocks, ten minutes of chain, takes more than an hour: patience ends after half a day."""
    policy = ProposerSettings(max_proof_requests=1, max_witness_gen=1)
    prover = Prover(range_proving=always(4_000))
    outcome = simulate(Scenario(settings=policy, prover=prover, patience=43_200))
    assert not outcome.kept_up
    assert outcome.left > 0
    assert any("wait for a free slot" in reason for reason in outcome.holes)


def test_a_month_of_a_busy_chain_takes_seconds() -> None:
    """1,296,000 blocks; the bound is loose, for this machine may be doing other things."""
    started = time.process_time()
    outcome = simulate(Scenario(chain=Chain(blocks=1_296_000)))
    assert time.process_time() - started < 60
    assert outcome.settlements[-1].block == 1_296_000
    assert outcome.kept_up


def test_the_service_at_once_is_the_least_a_service_can_be() -> None:
    assert simulate(tiny(service=AT_ONCE)).makespan <= simulate(tiny(service=Service())).makespan
