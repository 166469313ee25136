"""Stage 4, DeriveAggProofs: when the proven chain reaches the next required block, aggregate it."""

from collections.abc import Collection, Sequence

from proposer.anchors import gone
from proposer.intents import Move, Plan
from proposer.ranges import BlockRange, furthest_chain
from proposer.reasons import Code, Reason
from proposer.refusals import ProveAnew, TryAgain, after_refusal, is_probe
from proposer.requests import OPEN, Commitments, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.retry import successors
from proposer.snapshot import OracleView, Snapshot


def plan_aggregation(snapshot: Snapshot, may_request: bool, orphaned: Collection[int] = ()) -> Plan:
    """Cancel aggregations that can never be submitted, and derive the next one.

    The chain starts at the contract head, or at the end of the aggregations already under way from it: the next may
    be planned while one proves, up to `MAX_CONCURRENT_AGGREGATIONS`. Where the program refused a chain, what it is to
    blame on is found out first; `orphaned` are range requests whose L1 head is known not to be canonical any more.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return Plan()
    line, moves = _line(snapshot, oracle, may_request)
    start = line[-1].range.end if line else oracle.latest_block
    under_way = [r for r in line if r.status in OPEN]
    full = len(under_way) >= snapshot.settings.max_aggregations
    if full or any(is_probe(snapshot, r) for r in under_way):
        return Plan(tuple(moves), reasons=tuple(_under_way(snapshot, r) for r in under_way))
    cancelled = {move.request for move in moves}
    ended = [*snapshot.attempts_above, *(r for r in snapshot.of_kind(Kind.AGG) if r.id in cancelled)]
    if (refused := after_refusal(snapshot, start, oracle.commitments, orphaned)) is not None:
        return _carry_on(snapshot, oracle, refused, moves, ended, may_request)
    proven = [r for r in snapshot.proven_ranges(oracle.commitments) if r.range.start >= start]
    required = snapshot.next_required(start)
    chain = _chain(snapshot, oracle, start, required, proven)
    reach = chain[-1].range.end if chain else start
    if reach < required:
        reasons = [*(_under_way(snapshot, r) for r in under_way), *_why_not_proven(snapshot, start, reach, required)]
        return Plan(tuple(moves), reasons=tuple(reasons))
    if not may_request:
        return Plan(tuple(moves))
    return Plan(tuple(moves), (_new(snapshot, chain, oracle.commitments, ended),))


def _carry_on(
    snapshot: Snapshot,
    oracle: OracleView,
    after: TryAgain | ProveAnew,
    moves: Sequence[Move],
    ended: Sequence[ProofRequest],
    may_request: bool,
) -> Plan:
    """Ask for what shows which range proof the program does not accept, or have that one proven anew."""
    reason = Reason(
        Code.AGGREGATION_REFUSED,
        f"The aggregation program refuses {after.refused.range} (request {after.refused.id}).",
        "Nothing to do: it is tried with a newer checkpoint, then with fewer ranges, and the range it is to blame on "
        "is proven anew. If it goes on, compare the server's version with the contract's verification keys.",
        {"request": after.refused.id},
    )
    if not may_request:
        return Plan(tuple(moves), reasons=(reason,))
    match after:
        case TryAgain(refused, members):
            new = _new(snapshot, members, oracle.commitments, ended, refused)
            return Plan(tuple(moves), (new,), (reason,))
        case ProveAnew(refused, culprits):
            why = f"the aggregation program does not accept it: request {refused.id} was refused because of it"
            failure = Failure.NOT_AGGREGATABLE
            blamed = [Move(r.id, r.status, Status.FAILED, why, failure) for r in culprits]
            held = [r.range for r in snapshot.open_ranges()]
            # where another request holds some of the blocks, stage 1 plans what is left of them
            free = [r for r in culprits if not any(r.range.overlaps(other) for other in held)]
            policy = snapshot.settings.retry_policy
            follow = [new for r in free for new in successors(r, failure, policy, snapshot.now)]
            return Plan((*moves, *blamed), tuple(follow), (reason,))


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
        # what is paid for goes on: it follows again once its predecessor is rebuilt
        if request not in line and request.status in {Status.UNREQ, Status.PARKED}:
            why = f"it does not follow from the contract head {oracle.latest_block}"
            moves.append(Move(request.id, request.status, Status.CANCELLED, why, Failure.SUPERSEDED))
    return line, moves


def _never_submittable(snapshot: Snapshot, oracle: OracleView, request: ProofRequest, may_request: bool) -> str | None:
    head = oracle.latest_block
    if request.range.start < head:
        return f"the contract head moved to {head}"
    if request.range.start == head and request.range.end < snapshot.next_required(head):
        if is_probe(snapshot, request):
            if request.status not in {Status.UNREQ, Status.WITNESSGEN}:
                return f"the program accepts it: what it refuses comes after block {request.range.end}"
        # what is paid for and the contract takes is proposed: a larger SUBMISSION_INTERVAL is for the next one
        elif request.status in {Status.UNREQ, Status.PARKED} or request.range.end < snapshot.least_accepted(head):
            return f"the next output needs block {snapshot.next_required(head)}: the submission interval was raised"
    if (why := gone(oracle, request)) is not None:
        return why
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
    chain: Sequence[ProofRequest],
    commitments: Commitments,
    ended: Sequence[ProofRequest],
    refused: ProofRequest | None = None,
) -> NewRequest:
    over = BlockRange(chain[0].range.start, chain[-1].range.end)
    before = [
        r.attempt for r in ended if r.kind is Kind.AGG and r.range.start == over.start and r.commitments == commitments
    ]
    attempt = max(before, default=1)
    parked = attempt > snapshot.settings.max_attempts
    why = f"chain of {len(chain)} range proof{'s' if len(chain) > 1 else ''}"
    return NewRequest(
        kind=Kind.AGG,
        range=over,
        attempt=attempt,
        commitments=commitments,
        status=Status.PARKED if parked else Status.UNREQ,
        parent=refused.id if refused else None,
        members=tuple(r.id for r in chain),
        why=f"{why}, after request {refused.id} was refused" if refused else why,
    )


def _under_way(snapshot: Snapshot, request: ProofRequest) -> Reason:
    if request.status is Status.PARKED:
        return parked(snapshot, request)
    return Reason(
        Code.AGGREGATION_UNDER_WAY,
        f"Aggregation {request.range} is {request.status.value} (request {request.id}).",
        "Nothing to do: it is proposed as soon as it is proven.",
        {"request": request.id},
    )


def parked(snapshot: Snapshot, request: ProofRequest) -> Reason:
    """Say that a parked request holds up what comes after it, and what the attempt before it ended with."""
    return request_parked(request, snapshot.ended_before(request))


def request_parked(request: ProofRequest, ended_before: str = "") -> Reason:
    """Say that a request is parked."""
    return Reason(
        Code.REQUEST_PARKED,
        f"Request {request.id} ({request.kind.value.lower()} {request.range}) is parked: "
        f"{request.failure_text or 'out of attempts'}{ended_before}.",
        f"Repair the cause, then take it up again: proposer retry {request.id}.",
        {"request": request.id, "attempt": request.attempt},
    )


def _why_not_proven(snapshot: Snapshot, start: int, reach: int, required: int) -> Sequence[Reason]:
    """Name the one range that the chain waits for, or finality."""
    blocking = next((r for r in snapshot.open_ranges() if r.range.start <= reach < r.range.end), None)
    if blocking is None:
        return ()  # stage 1 says what it waits for
    if blocking.status is Status.PARKED:
        return (parked(snapshot, blocking),)
    return (
        Reason(
            Code.WAITING_FOR_PROOFS,
            f"Proven up to block {reach} from {start}; the next output needs {required}. "
            f"Range {blocking.range} is {blocking.status.value} (request {blocking.id}, attempt {blocking.attempt}).",
            "Nothing to do unless it stays so for longer than proofs usually take.",
            {"reach": reach, "required": required, "request": blocking.id},
        ),
    )
