"""Stage 4, DeriveAggProofs: when the proven chain reaches the next required block, aggregate it."""

from collections.abc import Sequence

from proposer.intents import Move, Plan
from proposer.ranges import BlockRange, furthest_chain
from proposer.reasons import Code, Reason
from proposer.requests import OPEN, Commitments, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.snapshot import OracleView, Snapshot


def plan_aggregation(snapshot: Snapshot, may_request: bool) -> Plan:
    """Cancel aggregations that can never be submitted, and derive the next one.

    The chain starts at the contract head, or at the end of the aggregations already under way from it: the next may
    be planned while one proves, up to `MAX_CONCURRENT_AGGREGATIONS`.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return Plan()
    line, moves = _line(snapshot, oracle, may_request)
    start = line[-1].range.end if line else oracle.latest_block
    under_way = [r for r in line if r.status in OPEN]
    if len(under_way) >= snapshot.settings.max_aggregations:
        return Plan(tuple(moves), reasons=tuple(_under_way(r) for r in under_way))
    proven = [r for r in snapshot.proven_ranges(oracle.commitments) if r.range.start >= start]
    required = snapshot.next_required(start)
    chain = _chain(snapshot, oracle, start, required, proven)
    reach = chain[-1].range.end if chain else start
    if reach < required:
        reasons = [*(_under_way(r) for r in under_way), *_why_not_proven(snapshot, start, reach, required)]
        return Plan(tuple(moves), reasons=tuple(reasons))
    if not may_request:
        return Plan(tuple(moves))
    cancelled = {move.request for move in moves}
    ended = [*snapshot.attempts_above, *(r for r in snapshot.of_kind(Kind.AGG) if r.id in cancelled)]
    new = _new(snapshot, BlockRange(start, reach), oracle.commitments, tuple(r.id for r in chain), ended)
    return Plan(tuple(moves), (new,))


def _line(snapshot: Snapshot, oracle: OracleView, may_request: bool) -> tuple[list[ProofRequest], list[Move]]:
    """Return the aggregations that follow one another from the head, and the cancellation of all others."""
    live = [r for r in snapshot.of_kind(Kind.AGG) if r.status in OPEN or r.status is Status.COMPLETE]
    moves: list[Move] = []
    usable: list[ProofRequest] = []
    for request in live:
        if request.status is Status.COMPLETE and request.range.end <= oracle.latest_block:
            continue  # relayed; stage 1 says so
        why = _never_submittable(snapshot, oracle, request, may_request)
        if why is None:
            usable.append(request)
        else:
            moves.append(Move(request.id, request.status, Status.CANCELLED, why, Failure.SUPERSEDED))
    line: list[ProofRequest] = []
    at = oracle.latest_block
    while following := [r for r in usable if r.range.start == at]:
        best = max(following, key=lambda r: (r.status is Status.COMPLETE, r.range.end, -r.id))
        line.append(best)
        at = best.range.end
    for request in usable:
        if request not in line and request.status is not Status.COMPLETE:
            why = f"it does not follow from the contract head {oracle.latest_block}"
            moves.append(Move(request.id, request.status, Status.CANCELLED, why, Failure.SUPERSEDED))
    return line, moves


def _never_submittable(snapshot: Snapshot, oracle: OracleView, request: ProofRequest, may_request: bool) -> str | None:
    head = oracle.latest_block
    if request.range.start < head:
        return f"the contract head moved to {head}"
    if request.range.start == head and request.range.end < snapshot.next_required(head):
        return f"the next output needs block {snapshot.next_required(head)}: the submission interval was raised"
    if may_request and request.commitments != oracle.commitments:
        return "the contract's commitments changed"
    proven = {r.id for r in snapshot.proven_ranges(request.commitments)}
    if request.status is not Status.COMPLETE and not proven.issuperset(request.members):
        return "one of its range proofs is no longer valid"
    return None


def _chain(
    snapshot: Snapshot, oracle: OracleView, start: int, required: int, proven: list[ProofRequest]
) -> list[ProofRequest]:
    """Find the furthest chain within the limits on members and L1 headers.

    The limits keep an aggregation quick; they yield where no chain within them reaches the next required block, for
    then nothing would ever be settled again.
    """
    chain = furthest_chain(start, proven, snapshot.settings.max_aggregation_members)
    if not chain or chain[-1].range.end < required:
        chain = furthest_chain(start, proven, len(proven))
        return chain[: next((i for i, r in enumerate(chain, 1) if r.range.end >= required), len(chain))]
    enough = [chain[:n] for n in range(len(chain), 0, -1) if chain[n - 1].range.end >= required]
    return next((shorter for shorter in enough if _within_headers(snapshot, oracle, shorter)), chain)


def _within_headers(snapshot: Snapshot, oracle: OracleView, chain: list[ProofRequest]) -> bool:
    """Whether the L1 headers from the oldest member to the checkpoint (the safe block or later) are few enough."""
    heads = [r.l1_head for r in chain if r.l1_head is not None]
    return not heads or max(*heads, oracle.safe or 0) - min(heads) <= snapshot.settings.max_aggregation_headers


def _new(
    snapshot: Snapshot,
    over: BlockRange,
    commitments: Commitments,
    members: tuple[int, ...],
    ended: Sequence[ProofRequest],
) -> NewRequest:
    before = [
        r.attempt for r in ended if r.kind is Kind.AGG and r.range.start == over.start and r.commitments == commitments
    ]
    attempt = max(before, default=1)
    parked = attempt > snapshot.settings.max_attempts
    return NewRequest(
        kind=Kind.AGG,
        range=over,
        attempt=attempt,
        commitments=commitments,
        status=Status.PARKED if parked else Status.UNREQ,
        members=members,
        why=f"chain of {len(members)} range proof{'s' if len(members) > 1 else ''}",
    )


def _under_way(request: ProofRequest) -> Reason:
    if request.status is Status.PARKED:
        return parked(request)
    return Reason(
        Code.AGGREGATION_UNDER_WAY,
        f"Aggregation {request.range} is {request.status.value} (request {request.id}).",
        "Nothing to do: it is proposed as soon as it is proven.",
        {"request": request.id},
    )


def parked(request: ProofRequest) -> Reason:
    """Say that a parked request holds up what comes after it."""
    return Reason(
        Code.REQUEST_PARKED,
        f"Request {request.id} ({request.kind.value.lower()} {request.range}) is parked: "
        f"{request.failure_text or 'out of attempts'}.",
        f"Repair the cause, then take it up again: prefect deployment run 'prove/proposer' -p request_id={request.id}.",
        {"request": request.id, "attempt": request.attempt},
    )


def _why_not_proven(snapshot: Snapshot, start: int, reach: int, required: int) -> Sequence[Reason]:
    """Name the one range that the chain waits for, or finality."""
    blocking = next((r for r in snapshot.open_ranges() if r.range.start <= reach < r.range.end), None)
    if blocking is None:
        return ()  # stage 1 says what it waits for
    if blocking.status is Status.PARKED:
        return (parked(blocking),)
    return (
        Reason(
            Code.WAITING_FOR_PROOFS,
            f"Proven up to block {reach} from {start}; the next output needs {required}. "
            f"Range {blocking.range} is {blocking.status.value} (request {blocking.id}, attempt {blocking.attempt}).",
            "Nothing to do unless it stays so for longer than proofs usually take.",
            {"reach": reach, "required": required, "request": blocking.id},
        ),
    )
