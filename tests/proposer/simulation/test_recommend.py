"""Recommendations, what is fitted from a history, and the picture: all functions of what they are given."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind
from proposer.settings import ProposerSettings
from proposer.simulation import (
    Chain,
    Ended,
    Prices,
    Prover,
    Recommendation,
    Scenario,
    Spread,
    Trial,
    fitted,
    picture,
    recommend,
    simulate,
)
from tests.proposer.simulation.scenarios import always, tiny

TRIAL = Trial(range_blocks=300, witness_cap=5, request_cap=20, keeps_up=True, lag_p95=600.0, proofs=100, cost=0.0)


def _quarter_of_a_day(**changes: object) -> Scenario:
    parts: dict[str, object] = {"chain": Chain(blocks=10_800), "prices": Prices(range_proof=1.0), "seed": 3}
    return Scenario.model_validate(parts | changes)


def test_the_best_keeps_up_and_is_cheapest_among_equals() -> None:
    advice = recommend(_quarter_of_a_day())
    assert advice.best is not None
    assert advice.best.keeps_up
    good = [trial for trial in advice.trials if trial.keeps_up]
    near = [trial for trial in good if trial.lag_p95 <= 1.1 * min(t.lag_p95 for t in good)]
    assert advice.best in near
    assert advice.best.cost == min(trial.cost for trial in near)
    settings = ProposerSettings()
    current = (settings.max_block_range, settings.max_witness_gen, settings.max_proof_requests)
    assert current in {(t.range_blocks, t.witness_cap, t.request_cap) for t in advice.trials}


def test_what_is_recommended_is_what_the_simulation_says_of_it() -> None:
    scenario = _quarter_of_a_day()
    best = recommend(scenario).best
    assert best is not None
    policy = {
        "max_block_range": best.range_blocks,
        "max_witness_gen": best.witness_cap,
        "max_proof_requests": best.request_cap,
    }
    outcome = simulate(scenario.model_copy(update={"settings": scenario.settings.model_copy(update=policy)}))
    assert outcome.lag_seconds().p95 == best.lag_p95
    assert outcome.tally.cost(scenario.prices) == best.cost


def test_no_range_above_what_can_be_executed_is_tried() -> None:
    advice = recommend(_quarter_of_a_day(prover=Prover(unexecutable_above=200)))
    assert {trial.range_blocks for trial in advice.trials} == {75, 150, 200}


def test_a_prover_that_is_too_slow_for_every_cap_is_said() -> None:
    slow = Prover(range_witness=always(30), range_proving=Spread(86_400, 86_400))
    advice = recommend(_quarter_of_a_day(prover=slow, patience=7_200))
    assert advice.best is None
    assert advice.frontier == []
    assert "keeps up" in advice.why


def test_the_frontier_leaves_out_what_another_beats() -> None:
    fast = replace(TRIAL, lag_p95=300.0, cost=9.0)
    cheap = replace(TRIAL, lag_p95=900.0, cost=3.0)
    beaten = replace(TRIAL, lag_p95=1_000.0, cost=4.0)
    behind = replace(TRIAL, lag_p95=10.0, cost=1.0, keeps_up=False)
    assert Recommendation(fast, "", [beaten, behind, cheap, fast]).frontier == [fast, cheap]


def _history(kind: Kind, witness: float, proving: float, failure: Failure | None = None) -> list[Ended]:
    return [Ended(kind, BlockRange(0, 250), failure, witness, proving * factor) for factor in (0.5, 0.9, 1, 1.1, 4)]


def test_times_and_failures_are_those_of_the_history() -> None:
    history = [
        *_history(Kind.RANGE, 60, 900),
        *_history(Kind.AGG, 10, 300),
        *_history(Kind.RANGE, 60, 5, Failure.UNFULFILLABLE)[:2],
        *_history(Kind.RANGE, 60, 5, Failure.UNEXECUTABLE)[:1],
    ]
    prover = fitted(history, Prover(unexecutable_above=400))
    assert prover.range_witness == Spread(60, 60)
    assert prover.range_proving.median == 900
    assert prover.range_proving.p95 == pytest.approx(900 * (1.1 + 0.8 * 2.9))
    assert prover.aggregation_proving.median == 300
    assert prover.reference_blocks == 250
    assert prover.unfulfillable == pytest.approx(2 / 13)
    assert prover.unexecutable_above == 400


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(ValueError, match="has 4 AGG proofs to learn from, and needs 5"):
        fitted([*_history(Kind.RANGE, 60, 900), *_history(Kind.AGG, 10, 300)[:4]], Prover())


def test_the_picture_is_well_formed_and_bounded() -> None:
    """It names the figures, has both panels, and is no larger for a longer chain."""
    scenario = _quarter_of_a_day(chain=Chain(blocks=302_400))
    outcome = simulate(scenario)
    drawn = picture(scenario, outcome)
    texts = ["".join(each.itertext()) for each in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert f"{outcome.lag_seconds().median / 60:.1f} min (median)" in texts[0]
    assert {"final and not settled, in minutes of the chain", "in flight", "waiting for a slot"} <= set(texts)
    assert len(outcome.samples) > 2_000
    assert len(drawn) < 150_000


def test_an_outcome_without_a_change_can_be_drawn() -> None:
    scenario = tiny(chain=Chain(blocks=1, block_seconds=2, finality_lag=0, finality_step=12))
    ET.fromstring(picture(scenario, simulate(scenario)))
