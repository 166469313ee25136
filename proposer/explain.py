"""Why is this not settled yet? A chain of reasons from the block or request asked about down to one cause.

It never says nothing: where all goes its way, the cause is what happens next, and about when.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proposer.causes import next_cycle, not_finalized, of_proposal, of_request
from proposer.reasons import Code, Reason, Severity
from proposer.requests import COVERAGE, OPEN, Kind, ProofRequest, Status
from proposer.situation import Situation, no_leader

_ENDED = frozenset({Status.FAILED, Status.CANCELLED})
_STOPS_SENDING = (Code.PAUSED, Code.OPTIMISTIC_MODE, Code.NOT_APPROVED, Code.NODE_DISAGREES)
_STOPS_ASKING = (*_STOPS_SENDING, Code.CONFIG_MISMATCH)
_SPOILS_WHAT_IS_SENT = (Code.OPTIMISTIC_MODE, Code.NOT_APPROVED)


@dataclass(frozen=True, slots=True)
class Settled:
    """What has settled a block: the aggregation and transaction of ours, as far as it is ours and known."""

    request: ProofRequest | None = None
    transaction: bytes | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`chain` leads from the subject to its cause, which is its last link; `also` is what else is wrong meanwhile."""

    subject: str
    chain: tuple[Reason, ...]
    also: tuple[Reason, ...] = ()

    @property
    def cause(self) -> Reason:
        """What everything waits for; its remedy is the next action."""
        return self.chain[-1]


def explain_next(situation: Situation) -> Explanation:
    """Say why the next output is not settled yet."""
    snapshot = situation.snapshot
    if snapshot.oracle is None:
        return _explanation(situation, "the next output", _held_up(situation, _STOPS_ASKING))
    required = snapshot.next_required(snapshot.oracle.latest_block)
    subject = f"the next output after block {snapshot.oracle.latest_block}, which needs block {required}"
    if not_final := not_finalized(situation, required):
        return _explanation(situation, subject, _held_up(situation, _STOPS_ASKING) or [not_final])
    return _explanation(situation, subject, _to(situation, required))


def explain_block(situation: Situation, block: int, settled: Settled | None = None) -> Explanation:
    """Say why an L2 block is not settled yet, or what has settled it."""
    subject = f"L2 block {block}"
    oracle = situation.snapshot.oracle
    if settled is not None or (oracle is not None and block <= oracle.latest_block):
        return Explanation(subject, (_settled(situation, subject, settled or Settled()),))
    if oracle is not None and (not_final := not_finalized(situation, block)):
        return _explanation(situation, subject, [not_final])
    return _explanation(situation, subject, _to(situation, block))


def explain_request(
    situation: Situation, request: ProofRequest, settled: Settled | None = None, follow: Sequence[int] = ()
) -> Explanation:
    """Say why what a request proves is not settled yet; `follow` are the requests that carry on after it."""
    subject = str(request)
    oracle = situation.snapshot.oracle
    head = oracle.latest_block if oracle is not None else 0
    if request.status in _ENDED:
        carried = f", carried on by request {' and '.join(map(str, follow))}" if follow else ""
        ended = Reason(
            Code.ATTEMPT_ENDED,
            f"Request {request.id} is {request.status.value}{carried}: {request.failure_text or 'no longer of use'}.",
            "",
            {"request": request.id},
        )
        rest = explain_block(situation, request.range.end, settled)
        return Explanation(subject, (ended, *rest.chain), rest.also)
    if settled is not None or request.status is Status.RELAYED or (oracle is not None and request.range.end <= head):
        return Explanation(subject, (_settled(situation, subject, settled or Settled()),))
    if request.status is Status.COMPLETE and request.kind is Kind.RANGE:
        return _explanation(situation, subject, _to(situation, request.range.end))
    return _explanation(situation, subject, _by(situation, request))


def _explanation(situation: Situation, subject: str, chain: Sequence[Reason]) -> Explanation:
    told = {reason.sentence for reason in chain}
    also = (r for r in situation.reasons() if r.severity is not Severity.WAITING and r.sentence not in told)
    return Explanation(subject, tuple(chain), tuple(also))


def _settled(situation: Situation, subject: str, by: Settled) -> Reason:
    oracle = situation.snapshot.oracle
    head = f": the contract head is at {oracle.latest_block}" if oracle is not None else ""
    facts: dict[str, int | float | str] = {}
    how = "It was not this proposer's proposal, or none that its ledger knows."
    if by.request is not None:
        facts["request"] = by.request.id
        how = f"By the output of block {by.request.range.end} (request {by.request.id})"
        if by.transaction is not None:
            facts["transaction"] = "0x" + by.transaction.hex()
            how += f", transaction {facts['transaction']}"
        how += "."
    return Reason(
        Code.SETTLED, f"{subject[0].upper()}{subject[1:]} is settled{head}. {how}", "There is nothing to do.", facts
    )


def _held_up(situation: Situation, stops: Sequence[Code]) -> list[Reason]:
    """What keeps the proposer from acting at all: nobody leads, L1 is not seen, or it may not."""
    nobody = list(no_leader(situation.leader))
    other = situation.reason(Code.L1_DOWN, Code.L1_BEHIND, *stops)
    return nobody or ([other] if other is not None else [])


def _to(situation: Situation, block: int) -> list[Reason]:
    """Lead from a finalized block above the contract head to what its settlement waits for."""
    aggregation = _aggregation_over(situation, block)
    if aggregation is not None:
        return _by(situation, aggregation)
    request = _range_over(situation, block)
    if request is None:
        return _held_up(situation, _STOPS_ASKING) or _not_planned(situation, block)
    if request.status in OPEN:
        return _by(situation, request)
    link = Reason(
        Code.WAITING_FOR_PROOFS,
        f"Block {block} is proven by range {request.range} (request {request.id}) and waits to be aggregated.",
        "",
        {"request": request.id},
    )
    return [link, *(_held_up(situation, _STOPS_ASKING) or _not_aggregated(situation, request))]


def _by(situation: Situation, request: ProofRequest) -> list[Reason]:
    """Lead on from an open request, or a proven aggregation."""
    name = "aggregation" if request.kind is Kind.AGG else "range"
    link = Reason(
        Code.AGGREGATION_UNDER_WAY if request.kind is Kind.AGG else Code.WAITING_FOR_PROOFS,
        f"It needs {name} {request.range} (request {request.id}, attempt {request.attempt}), which is "
        f"{request.status.value}.",
        "",
        {"request": request.id},
    )
    oracle = situation.snapshot.oracle
    if request.kind is Kind.AGG and oracle is not None and request.range.start > oracle.latest_block:
        before = _to(situation, request.range.start)
        if request.status is Status.COMPLETE or before[-1].severity is Severity.CRITICAL:
            return [link, *before]
    if request.kind is Kind.RANGE and request.status is not Status.PARKED:
        parked = _parked_before(situation, request)
        if parked is not None:
            return [link, *(_held_up(situation, _STOPS_ASKING) or of_request(situation, parked))]
    if request.kind is Kind.RANGE or request.status in {Status.UNREQ, Status.PARKED}:
        return [link, *(_held_up(situation, _STOPS_ASKING) or of_request(situation, request))]
    if request.status is not Status.COMPLETE:
        return [link, *(_held_up(situation, _STOPS_SENDING) or of_request(situation, request))]
    sent = situation.decided.submission.reasons
    stops = _SPOILS_WHAT_IS_SENT if any(r.code is Code.PROPOSAL_PENDING for r in sent) else _STOPS_SENDING
    return [link, *(_held_up(situation, stops) or of_proposal(situation, request))]


def _parked_before(situation: Situation, request: ProofRequest) -> ProofRequest | None:
    """Nothing after a parked range can be settled, whatever becomes of it."""
    parked = (r for r in situation.snapshot.open_ranges() if r.status is Status.PARKED)
    return next((r for r in parked if r.range.start < request.range.start), None)


def _aggregation_over(situation: Situation, block: int) -> ProofRequest | None:
    """Find the live aggregation whose output would settle the block."""
    oracle = situation.snapshot.oracle
    head = oracle.latest_block if oracle is not None else 0
    dropped = {move.request for move in situation.decided.aggregation.moves}
    live = [
        r
        for r in situation.snapshot.of_kind(Kind.AGG)
        if (r.status in OPEN or r.status is Status.COMPLETE) and r.id not in dropped
    ]
    over = [r for r in live if head <= r.range.start < block <= r.range.end]
    return max(over, key=lambda r: (r.status is Status.COMPLETE, -r.range.start, r.range.end), default=None)


def _range_over(situation: Situation, block: int) -> ProofRequest | None:
    """Find the range request that proves the block: one with its proof before one that is open."""
    dropped = {move.request for move in situation.decided.ranges.moves if move.to is Status.CANCELLED}
    over = [
        r
        for r in situation.snapshot.of_kind(Kind.RANGE)
        if r.range.start < block <= r.range.end and r.status in OPEN | COVERAGE and r.id not in dropped
    ]
    return max(over, key=lambda r: (r.status in COVERAGE, r.range.end), default=None)


def _not_planned(situation: Situation, block: int) -> list[Reason]:
    """A finalized block that no range holds yet."""
    planned = next((n.range for n in situation.decided.ranges.inserts if n.range.start < block <= n.range.end), None)
    if planned is not None:
        return [next_cycle(situation, f"range {planned} is planned and its proof asked for", {})]
    if (waits := situation.reason(Code.TAIL_WAITS, Code.WAITING_FOR_FINALITY)) is not None:
        return [waits]
    finalized, size = situation.snapshot.finalized, situation.snapshot.settings.max_block_range
    return [
        Reason(
            Code.WAITING_FOR_FINALITY,
            f"Block {block} is finalized and not in a range yet: fewer than {size} blocks after the last range are, or "
            "as many ranges as are looked at ahead of the contract head are planned already.",
            f"Nothing to do: full ranges of {size} blocks are planned as the L2 is finalized.",
            {"finalized": finalized.number if finalized is not None else 0, "block": block},
        )
    ]


def _not_aggregated(situation: Situation, proven: ProofRequest) -> list[Reason]:
    """A proven range that no aggregation takes up yet."""
    plan = situation.decided.aggregation
    by_id = {r.id: r for r in situation.snapshot.requests}
    refused = next((r for r in plan.reasons if r.code is Code.AGGREGATION_REFUSED), None)
    if refused is not None:
        return [refused]
    if plan.inserts:
        planned = plan.inserts[0]
        return [next_cycle(situation, f"{planned.kind.value.lower()} {planned.range} is planned", {})]
    for reason in plan.reasons:
        waits_for = by_id.get(int(reason.facts.get("request", 0)))
        if reason.code in {Code.WAITING_FOR_PROOFS, Code.REQUEST_PARKED} and waits_for is not None:
            return [reason, *of_request(situation, waits_for)] if waits_for.status is not Status.PARKED else [reason]
        if reason.code is Code.AGGREGATION_UNDER_WAY and waits_for is not None:
            return _by(situation, waits_for)
    if (waits := situation.reason(Code.TAIL_WAITS, Code.WAITING_FOR_FINALITY)) is not None:
        return [waits]
    return [next_cycle(situation, f"the blocks after {proven.range.end} are planned", {"request": proven.id})]
