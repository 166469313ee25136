"""The virtual prover server and network: when it answers, what becomes of each request, and when it is away."""

import math
from dataclasses import dataclass

from proposer.polling import Execution, Fulfillment, ProofStatus
from proposer.ranges import BlockRange
from proposer.requests import Kind
from proposer.simulation.durations import dice
from proposer.simulation.scenario import Prover

_PROOF = b"proof"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request: seconds until the server answers, whether with an error, and those until it ends."""

    witness: float
    refused: bool
    proving: float
    status: ProofStatus


_PROVEN = ProofStatus(Fulfillment.FULFILLED, Execution.EXECUTED, _PROOF)
_UNFULFILLABLE = ProofStatus(Fulfillment.UNFULFILLABLE, Execution.EXECUTED, None)
_UNEXECUTABLE = ProofStatus(Fulfillment.UNFULFILLABLE, Execution.UNEXECUTABLE, None)


def fate(prover: Prover, seed: int, kind: Kind, over: BlockRange, attempt: int) -> Fate:
    """Decide by the request's kind, blocks and attempt alone, so that every policy meets the same prover."""

    def roll(what: str) -> float:
        return dice(seed, what, kind.value, over.start, over.end, attempt)

    if kind is Kind.RANGE:
        factor = prover.scale(over.blocks)
        witness, proving = prover.range_witness.times(factor), prover.range_proving.times(factor)
    else:
        witness, proving = prover.aggregation_witness, prover.aggregation_proving
    limit = prover.unexecutable_above
    if kind is Kind.RANGE and limit is not None and over.blocks > limit:
        status = _UNEXECUTABLE
    elif roll("unfulfillable") < prover.unfulfillable:
        status = _UNFULFILLABLE
    else:
        status = _PROVEN
    return Fate(
        witness=witness.at(roll("witness")),
        refused=roll("refused") < prover.witness_failures,
        proving=proving.at(roll("proving")),
        status=status,
    )


class Outages:
    """When the server is away: exponential pauses between outages of one length, in the order of time."""

    def __init__(self, prover: Prover, seed: int) -> None:
        self._prover = prover
        self._seed = seed
        self._known: list[tuple[float, float]] = []

    def at(self, when: float) -> float | None:
        """Return when the outage that holds at this time ends; None where the server is there."""
        return next((end for start, end in reversed(self._upto(when)) if start <= when < end), None)

    def next_after(self, when: float) -> float | None:
        """Return when the next outage begins."""
        return next((start for start, _ in self._upto(when) if start > when), None)

    def begun(self, when: float) -> int:
        """Return how many have begun by then."""
        return sum(start <= when for start, _ in self._upto(when))

    def _upto(self, when: float) -> list[tuple[float, float]]:
        """Return those that are known, the first one after this time among them."""
        every = self._prover.outage_every
        while every is not None and (not self._known or self._known[-1][0] <= when):
            before = self._known[-1][1] if self._known else 0.0
            begins = before - math.log(dice(self._seed, "outage", len(self._known))) * every
            self._known.append((begins, begins + self._prover.outage_seconds))
        return self._known
