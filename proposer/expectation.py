"""When the next output is expected: from how long proofs usually take, and what is still missing."""

from dataclasses import dataclass

from proposer.explain import explain_next
from proposer.reasons import Severity
from proposer.requests import IN_FLIGHT, Kind, ProofRequest, Status
from proposer.situation import Situation

L1_BLOCK_SECONDS = 12
"""Of Ethereum: a transaction is mined in the block after next at the latest, as a rule."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The least block of the next output, the seconds until it is settled, and where they are not known, why."""

    block: int
    seconds: float | None
    waits_for: str


def expected(situation: Situation) -> Expectation | None:
    """Say when the next output is expected; None while the contract cannot be read."""
    snapshot = situation.snapshot
    if snapshot.oracle is None:
        return None
    block = snapshot.next_required(snapshot.oracle.latest_block)
    cause = explain_next(situation).cause
    if cause.severity is not Severity.WAITING or snapshot.finalized is None or snapshot.finalized.number < block:
        return Expectation(block, None, cause.sentence)
    if not {Kind.RANGE, Kind.AGG} <= situation.usual.keys():
        why = "it can be told once five proofs of each kind have been made"
        return Expectation(block, None, f"{cause.sentence} When the output comes is not known: {why}.")
    return Expectation(block, _seconds(situation, snapshot.oracle.latest_block, block), cause.sentence)


def _seconds(situation: Situation, head: int, block: int) -> float:
    """Add up what is missing: the slowest range, the aggregation, and the transactions."""
    aggregations = [
        r
        for r in situation.snapshot.of_kind(Kind.AGG)
        if r.range.start == head and r.range.end >= block and r.status in IN_FLIGHT | {Status.UNREQ, Status.COMPLETE}
    ]
    aggregation = max(aggregations, key=lambda r: (r.status is Status.COMPLETE, r.id), default=None)
    if aggregation is not None and aggregation.status is Status.COMPLETE:
        return 2.0 * L1_BLOCK_SECONDS
    if aggregation is not None:
        checkpoint = 0 if aggregation.status in IN_FLIGHT else 2 * L1_BLOCK_SECONDS
        return checkpoint + _left(situation, aggregation) + 2 * L1_BLOCK_SECONDS
    at, slowest = head, 0.0
    for request in situation.snapshot.of_kind(Kind.RANGE):
        if request.range.start <= at < request.range.end and at < block:
            at = request.range.end
            slowest = max(slowest, _left(situation, request))
    if at < block:
        slowest = situation.usual[Kind.RANGE].slow
    return slowest + situation.usual[Kind.AGG].slow + 4 * L1_BLOCK_SECONDS


def _left(situation: Situation, request: ProofRequest) -> float:
    """How long a request usually takes from now."""
    if request.status in {Status.COMPLETE, Status.RELAYED}:
        return 0.0
    now, usual = situation.snapshot.now, situation.usual[request.kind]
    if request.status in IN_FLIGHT:
        return max(0.0, usual.slow - (now - (request.requested_at or request.since)).total_seconds())
    waits = (request.next_attempt_at - now).total_seconds() if request.next_attempt_at is not None else 0.0
    return max(0.0, waits) + usual.slow
