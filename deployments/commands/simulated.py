"""What a simulation came to, as JSON and as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from proposer.simulation import Outcome, Recommendation, Scenario


def simulation_json(
    scenario: "Scenario", outcomes: Mapping[str, "Outcome"], advice: "Recommendation | None"
) -> dict[str, Any]:
    """Return everything as JSON: times in seconds, cost in the currency of the prices."""
    return {
        "seed": scenario.seed,
        "settings": {
            "max_block_range": scenario.settings.max_block_range,
            "max_witness_gen": scenario.settings.max_witness_gen,
            "max_proof_requests": scenario.settings.max_proof_requests,
        },
        "blocks": scenario.chain.last,
        "prover": scenario.prover.model_dump(mode="json"),
        "policies": {policy: _outcome_json(scenario, outcome) for policy, outcome in outcomes.items()},
        "recommendation": None if advice is None else _advice_json(advice),
    }


def _outcome_json(scenario: "Scenario", outcome: "Outcome") -> dict[str, Any]:
    tally, prices = outcome.tally, scenario.prices
    figures = {
        "lag_seconds": outcome.lag_seconds(),
        "lag_blocks": outcome.lag_blocks(),
        "queue": outcome.queue(),
        "in_flight": outcome.in_flight(),
    }
    return {
        "kept_up": outcome.kept_up,
        "settlements": len(outcome.settlements),
        "left_blocks": outcome.left,
        "makespan_seconds": outcome.makespan,
        **{name: {"median": f.median, "p95": f.p95, "max": f.max} for name, f in figures.items()},
        "proofs": {
            "range": tally.range_paid,
            "aggregation": tally.aggregation_paid,
            "retried": tally.retried,
            "wasted": tally.wasted,
            "parked": tally.parked,
        },
        "transactions": {"checkpoint": tally.checkpoints, "propose": tally.proposals},
        "cost": {
            "proofs": tally.proof_cost(prices),
            "gas_ether": tally.gas_ether(prices),
            "total": tally.cost(prices),
        },
    }


def _advice_json(advice: "Recommendation") -> dict[str, Any]:
    return {
        "best": asdict(advice.best) if advice.best is not None else None,
        "why": advice.why,
        "frontier": [asdict(trial) for trial in advice.frontier],
        "trials": [asdict(trial) for trial in advice.trials],
    }


def show(
    scenario: "Scenario",
    outcomes: Mapping[str, "Outcome"],
    advice: "Recommendation | None",
    picture: Path | None,
) -> None:
    """Print it for a person; one column for each policy."""
    console = Console(soft_wrap=True, highlight=False)
    settings, prover = scenario.settings, scenario.prover
    console.print(
        f"[bold]{scenario.chain.last:,} L2 blocks of {scenario.chain.block_seconds:g} s[/], ranges of "
        f"{settings.max_block_range}, caps {settings.max_witness_gen} and {settings.max_proof_requests}, "
        f"seed {scenario.seed}"
    )
    console.print(
        f"A range of {prover.reference_blocks}: witness {prover.range_witness}, proving {prover.range_proving}.\n"
    )
    table = Table("", *outcomes, box=None, pad_edge=False)
    for label, cells in _rows(scenario, list(outcomes.values())):
        table.add_row(label, *cells)
    console.print(table)
    for policy, outcome in outcomes.items():
        if not outcome.kept_up:
            waits = "; ".join(outcome.holes) or "its caps are too low for this chain and prover"
            console.print(f"\n[bold red]{policy} does not keep up[/]: {outcome.left:,} final blocks are left. {waits}.")
    if len(outcomes) == 2:
        own, other = (outcome.lag_seconds().median for outcome in outcomes.values())
        console.print(f"\nThe original's median lag is {other / own:.1f} times as long." if own else "")
    if advice is not None:
        _show_advice(advice, console)
    if picture is not None:
        console.print(f"\nLag and queue over time: {picture}")


def _rows(scenario: "Scenario", outcomes: Sequence["Outcome"]) -> list[tuple[str, list[str]]]:
    def minutes(outcome: "Outcome") -> str:
        lag = outcome.lag_seconds()
        return " / ".join(f"{seconds / 60:.1f}" for seconds in (lag.median, lag.p95, lag.max))

    def blocks(outcome: "Outcome") -> str:
        lag = outcome.lag_blocks()
        return " / ".join(f"{value:,.0f}" for value in (lag.median, lag.p95, lag.max))

    def queue(outcome: "Outcome") -> str:
        waiting = outcome.queue()
        return " / ".join(f"{value:,.0f}" for value in (waiting.median, waiting.p95, waiting.max))

    def proofs(outcome: "Outcome") -> str:
        tally = outcome.tally
        return f"{tally.range_paid:,} + {tally.aggregation_paid:,}; {tally.retried:,} again, {tally.wasted:,} wasted"

    def cost(outcome: "Outcome") -> str:
        tally, prices = outcome.tally, scenario.prices
        return f"{tally.proof_cost(prices):,.2f} + {tally.gas_ether(prices):.4f} ETH = {tally.cost(prices):,.2f}"

    rows: dict[str, Callable[[Outcome], str]] = {
        "outputs settled": lambda outcome: f"{len(outcome.settlements):,}",
        "a final block waits, minutes (median / p95 / most)": minutes,
        "final and not settled, L2 blocks (likewise)": blocks,
        "ranges waiting for a slot (likewise)": queue,
        "proofs: ranges + aggregations": proofs,
        "transactions: checkpoints + proposals": lambda o: f"{o.tally.checkpoints:,} + {o.tally.proposals:,}",
        "cost: proofs + gas": cost,
    }
    return [(label, [cell(outcome) for outcome in outcomes]) for label, cell in rows.items()]


def _show_advice(advice: "Recommendation", console: Console) -> None:
    console.print(f"\n{advice.why}.")
    if (best := advice.best) is None:
        return
    console.print("[bold]Recommended:[/]")
    for setting, value in (
        ("MAX_BLOCK_RANGE_PER_SPAN_PROOF", best.range_blocks),
        ("MAX_CONCURRENT_WITNESS_GEN", best.witness_cap),
        ("MAX_CONCURRENT_PROOF_REQUESTS", best.request_cap),
    ):
        console.print(f"  {setting}={value}")
    console.print("\nThe trade-off: what has a shorter lag costs more. p95 lag, price and proofs in the time tried.")
    table = Table("range", "caps", "p95 lag", "cost", "proofs", box=None, pad_edge=False)
    for trial in advice.frontier:
        mark = " *" if trial == best else ""
        caps = f"{trial.witness_cap} / {trial.request_cap}"
        lag = f"{trial.lag_p95 / 60:.1f} min{mark}"
        table.add_row(str(trial.range_blocks), caps, lag, f"{trial.cost:,.2f}", f"{trial.proofs:,}")
    console.print(table)
