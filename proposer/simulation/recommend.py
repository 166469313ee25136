"""Which range size and caps fit a chain and its prover: tried one by one under the virtual clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from proposer.simulation.engine import simulate
from proposer.simulation.outcome import Outcome
from proposer.simulation.scenario import Scenario

SIZES = (75, 150, 300, 600, 1200)
"""L2 blocks of a range."""
CAPS = ((2, 5), (5, 10), (5, 20), (10, 20), (10, 40), (20, 40), (20, 80))
"""Requests in witness generation, and in flight."""
HORIZON_SECONDS, PATIENCE_SECONDS = 86_400.0, 6 * 3_600.0
"""A day is tried, and a policy that falls six hours behind does not keep up."""
TOLERANCE = 0.1
"""Lags this close to the best count as equal: then the cheaper one is better, and then the smaller caps."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One range size with one pair of caps, and what came of it."""

    range_blocks: int
    witness_cap: int
    request_cap: int
    keeps_up: bool
    lag_p95: float
    """Seconds."""
    proofs: int
    cost: float
    """In the currency of the prices; per day of the chain. 0 where nothing has a price."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The best trial, None where none keeps up, and why."""

    best: Trial | None
    why: str
    trials: Sequence[Trial]

    @property
    def frontier(self) -> list[Trial]:
        """The trials that keep up and that no other beats in both lag and cost, the shortest lag first."""
        found: list[Trial] = []
        for trial in sorted((t for t in self.trials if t.keeps_up), key=lambda t: (t.lag_p95, *_thrift(t))):
            if not found or _thrift(trial)[:2] < _thrift(found[-1])[:2]:
                found.append(trial)
        return found


def recommend(scenario: Scenario) -> Recommendation:
    """Try sizes and caps on a day of this chain at most, the ones that are set among them."""
    settings, chain = scenario.settings, scenario.chain
    limit = scenario.prover.unexecutable_above
    wanted = {*SIZES, settings.max_block_range}
    sizes = sorted(wanted if limit is None else {min(size, limit) for size in wanted})
    caps = sorted({*CAPS, (settings.max_witness_gen, settings.max_proof_requests)}, key=lambda pair: pair[::-1])
    blocks = min(chain.blocks, int(HORIZON_SECONDS / chain.block_seconds))
    short = scenario.model_copy(
        update={
            # a backlog has an end, and says nothing of what keeps up with new blocks
            "chain": chain.model_copy(update={"blocks": blocks, "backlog": 0 if blocks else chain.backlog}),
            "patience": min(scenario.patience, PATIENCE_SECONDS) if blocks else scenario.patience,
        }
    )
    trials = [_tried(short, size, *pair) for size in sizes for pair in caps]
    return _best(trials)


def _tried(scenario: Scenario, size: int, witnesses: int, requests: int) -> Trial:
    policy = {"max_block_range": size, "max_witness_gen": witnesses, "max_proof_requests": requests}
    changed = scenario.model_copy(update={"settings": scenario.settings.model_copy(update=policy)})
    outcome = simulate(changed)
    return Trial(
        range_blocks=size,
        witness_cap=witnesses,
        request_cap=requests,
        keeps_up=_keeps_up(outcome),
        lag_p95=outcome.lag_seconds().p95,
        proofs=outcome.tally.paid,
        cost=outcome.tally.cost(scenario.prices),
    )


def _keeps_up(outcome: Outcome) -> bool:
    return outcome.kept_up and bool(outcome.settlements)


def _best(trials: Sequence[Trial]) -> Recommendation:
    good = [trial for trial in trials if trial.keeps_up]
    if not good:
        why = (
            "No size and no cap keeps up with this chain: the prover needs to be faster, or more of its requests "
            "to run at the same time than were tried"
        )
        return Recommendation(None, why, trials)
    least = min(trial.lag_p95 for trial in good)
    near = [trial for trial in good if trial.lag_p95 <= least * (1 + TOLERANCE)]
    best = min(near, key=lambda t: (*_thrift(t), t.lag_p95))
    priced = f"costs least ({best.cost:,.2f})" if best.cost else f"asks for the fewest proofs ({best.proofs})"
    why = (
        f"{len(good)} of {len(trials)} combinations keep up; {len(near)} have a p95 lag within {TOLERANCE:.0%} of "
        f"the best ({least / 60:.1f} min). Of these it {priced}, with the smallest caps"
    )
    return Recommendation(best, why, trials)


def _thrift(trial: Trial) -> tuple[float, int, int, int]:
    return trial.cost, trial.proofs, trial.request_cap, trial.witness_cap
