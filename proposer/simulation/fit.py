"""Durations and failures of a prover as a ledger's own history has them."""

from collections.abc import Sequence
from dataclasses import dataclass

from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind
from proposer.simulation.durations import Spread, quantile
from proposer.simulation.scenario import Prover

LEAST = 5
"""Proofs of a kind below which nothing is fitted."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that the network has ended: proven, or failed with this class."""

    kind: Kind
    range: BlockRange
    failure: Failure | None
    witness: float
    """Seconds until the server answered."""
    proving: float
    """Seconds from the answer to the proof."""


def fitted(history: Sequence[Ended], prover: Prover) -> Prover:
    """Return the prover with times, reference size and share of unfulfillable requests as in this history.

    Raises `ValueError` where there are fewer than five proofs of a kind.
    """
    ranges, aggregations = (_proven(history, kind) for kind in (Kind.RANGE, Kind.AGG))
    blocks = sorted(float(each.range.blocks) for each in ranges)
    unfulfillable = sum(each.failure is Failure.UNFULFILLABLE for each in history)
    return prover.model_copy(
        update={
            "range_witness": _spread([each.witness for each in ranges]),
            "range_proving": _spread([each.proving for each in ranges]),
            "aggregation_witness": _spread([each.witness for each in aggregations]),
            "aggregation_proving": _spread([each.proving for each in aggregations]),
            "reference_blocks": round(quantile(blocks, 0.5)),
            "unfulfillable": unfulfillable / len(history),
        }
    )


def _proven(history: Sequence[Ended], kind: Kind) -> list[Ended]:
    proven = [each for each in history if each.kind is kind and each.failure is None]
    if len(proven) < LEAST:
        raise ValueError(f"the ledger has {len(proven)} {kind.value} proofs to learn from, and needs {LEAST}")
    return proven


def _spread(seconds: Sequence[float]) -> Spread:
    ordered = sorted(max(each, 0.001) for each in seconds)
    median = quantile(ordered, 0.5)
    return Spread(median, max(median, quantile(ordered, 0.95)))
