"""Stage 1, GetRangeProofBoundaries: keep the ranges above the contract head a tiling, and extend it to finality."""

from collections.abc import Iterable
from datetime import timedelta

from proposer.intents import Move, Plan
from proposer.ranges import BlockRange, Piece, cut, tile
from proposer.reasons import Code, Reason
from proposer.requests import Commitments, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.retry import MAX_UNKNOWN_OUTCOMES
from proposer.snapshot import OracleView, Snapshot

HORIZON = 1000
"""Ranges planned ahead of the contract head; keeps a cycle's cost bounded however far the chain is behind."""

L1_BEHIND_SECONDS = 300
"""Age of L1's newest block from which its node counts as one that stopped following the chain: 25 slots."""

_DEARNESS = {Status.PROVING: 1, Status.WITNESSGEN: 2, Status.UNREQ: 3, Status.PARKED: 4}


def plan_ranges(snapshot: Snapshot, may_request: bool) -> Plan:
    """Follow the head (relayed, rewound, straddled), drop what is superseded, and insert what nobody works on.

    Full ranges only; shorter ones as a bridge to what exists, or as the tail of `MAX_TAIL_WAIT`. Attempts are carried
    over from closed rows over the same blocks, so that a re-plan never resets a cap.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return Plan()
    head, commitments = oracle.latest_block, oracle.commitments
    moves = [*_follow_head(snapshot, head), *_drop_straddling(snapshot, head)]
    if may_request:
        moves += _drop_foreign(snapshot, commitments, moves)
    moved = {move.request for move in moves}
    pieces = [
        *(
            Piece(r.id, r.range, _DEARNESS[r.status], reserved=r.status is not Status.UNREQ)
            for r in snapshot.open_ranges()
            if r.id not in moved
        ),
        *(
            Piece(r.id, r.range, 0, reserved=False)
            for r in snapshot.proven_ranges(commitments)
            if r.range.start >= head
        ),
    ]
    required = snapshot.next_required(head)
    horizon = max(head + HORIZON * snapshot.settings.max_block_range, required)
    tip = min(snapshot.finalized.number, horizon) if snapshot.finalized else 0
    tiling = tile(head, tip, pieces)
    moves += [
        Move(r.id, r.status, Status.CANCELLED, "its blocks are proven by others", Failure.SUPERSEDED)
        for r in snapshot.open_ranges()
        if r.id not in moved and r.id not in tiling.used and r.status in {Status.UNREQ, Status.PARKED}
    ]
    reasons = [*_l1_is_late(snapshot, oracle), *_node_is_late(snapshot)]
    if snapshot.finalized is not None and snapshot.finalized.number < required:
        reasons.append(_waiting_for_finality(snapshot.finalized.number, required))
    wanted = list(_cut_gaps(snapshot, tiling.gaps, head, tip, reasons))
    ended = [*snapshot.attempts_above, *_ended_by(moves, snapshot)]
    inserts = [_new(snapshot, over, commitments, ended) for over in wanted] if may_request else []
    return Plan(tuple(moves), tuple(inserts), tuple(reasons))


def _follow_head(snapshot: Snapshot, head: int) -> Iterable[Move]:
    """What the head has passed is relayed; what a rewind uncovers is a proof in hand again."""
    for request in snapshot.requests:
        if request.status is Status.COMPLETE and request.range.end <= head:
            yield Move(request.id, Status.COMPLETE, Status.RELAYED, f"settled: the contract head is at {head}")
        elif request.status is Status.RELAYED and request.range.end > head:
            yield Move(request.id, Status.RELAYED, Status.COMPLETE, f"the contract head was rewound to {head}")


def _drop_straddling(snapshot: Snapshot, head: int) -> Iterable[Move]:
    """A range that begins below the head can be part of no chain from it. A prover id is kept."""
    for request in snapshot.open_ranges():
        if request.range.start < head:
            why = f"the contract head moved to {head}"
            yield Move(request.id, request.status, Status.CANCELLED, why, Failure.SUPERSEDED)


def _drop_foreign(snapshot: Snapshot, commitments: Commitments, moves: list[Move]) -> list[Move]:
    """Once server and contract agree on other commitments, what was bound to the old ones can never be aggregated."""
    moved = {move.request for move in moves}
    return [
        Move(r.id, r.status, Status.CANCELLED, "the contract's commitments changed", Failure.SUPERSEDED)
        for r in snapshot.open_ranges()
        if r.id not in moved and _bound_to(r.commitments) != _bound_to(commitments)
    ]


def _bound_to(commitments: Commitments) -> tuple[bytes, bytes]:
    """What a range proof is bound to: the aggregation program may change without it."""
    return commitments.range_vkey, commitments.config_hash


def _cut_gaps(
    snapshot: Snapshot, gaps: Iterable[BlockRange], head: int, tip: int, reasons: list[Reason]
) -> Iterable[BlockRange]:
    size = snapshot.settings.max_block_range
    for gap in gaps:
        if gap.start >= tip:
            return  # beyond the horizon
        pieces = cut(BlockRange(gap.start, min(gap.end, tip)), size)
        last = pieces[-1]
        if gap.end >= tip and last.blocks < size and not _tail_is_due(snapshot, last, head, reasons):
            pieces.pop()
        yield from pieces


def _l1_is_late(snapshot: Snapshot, oracle: OracleView) -> Iterable[Reason]:
    """A node that answers and has stopped following the chain looks like a quiet one."""
    behind = snapshot.now.timestamp() - oracle.at.timestamp
    if behind > L1_BEHIND_SECONDS:
        yield Reason(
            Code.L1_BEHIND,
            f"The L1 node's newest block {oracle.at.number} is {behind / 60:.0f} minutes old.",
            "Nothing that has happened on L1 since is seen. Check that the first node of L1_RPC is synced.",
            {"block": oracle.at.number, "seconds": round(behind)},
        )


def _node_is_late(snapshot: Snapshot) -> Iterable[Reason]:
    """A node that starts (all heads 0), lags or is on a fork plans nothing new: the highest finality seen counts."""
    node = snapshot.outside.node
    if node is None:
        return
    if node.finalized == 0:
        yield Reason(
            Code.NODE_STARTING,
            "The L2 node is starting: it reports no finalized block yet.",
            "Nothing to do: planning goes on from the highest finality seen before. If it stays so, look at the node.",
        )
    elif snapshot.finalized is not None and node.finalized < snapshot.finalized.number:
        yield Reason(
            Code.NODE_BEHIND,
            f"The L2 node reports finality at {node.finalized}, but {snapshot.finalized.number} was seen before.",
            "Nothing to do if it is catching up. If it does not, check that L2_NODE_RPC is synced and not on a fork.",
            {"finalized": node.finalized, "seen": snapshot.finalized.number},
        )


def _tail_is_due(snapshot: Snapshot, tail: BlockRange, head: int, reasons: list[Reason]) -> bool:
    """Whether a short range at the tip alone completes the next required block, and has been waited for."""
    required = snapshot.next_required(head)
    assert snapshot.finalized is not None  # there is no tip without it
    if not tail.start < required <= tail.end:
        return False
    waited = snapshot.now - snapshot.required.at if snapshot.required else timedelta(0)
    if waited >= timedelta(seconds=snapshot.settings.max_tail_wait):
        return True
    left = snapshot.settings.max_tail_wait - waited.total_seconds()
    reasons.append(
        Reason(
            Code.TAIL_WAITS,
            f"Blocks {tail} reach the next required block {required} but are fewer than a full range.",
            f"A shorter range is planned in {left:.0f} s unless finality fills it before (MAX_TAIL_WAIT).",
            {"seconds_left": round(left), "required": required},
        )
    )
    return False


def _waiting_for_finality(finalized: int, required: int) -> Reason:
    return Reason(
        Code.WAITING_FOR_FINALITY,
        f"The L2 is finalized up to block {finalized}; the next output needs block {required}.",
        "Nothing to do: it follows L1 finality. If it does not move for long, look at the L2 node and the batcher.",
        {"finalized": finalized, "required": required},
    )


def _ended_by(moves: Iterable[Move], snapshot: Snapshot) -> Iterable[ProofRequest]:
    """Rows that this very plan cancels: their attempts count for what replaces them."""
    cancelled = {move.request for move in moves if move.to is Status.CANCELLED}
    return (r for r in snapshot.open_ranges() if r.id in cancelled)


def _new(snapshot: Snapshot, over: BlockRange, commitments: Commitments, ended: Iterable[ProofRequest]) -> NewRequest:
    before = [
        r
        for r in ended
        if r.kind is Kind.RANGE and r.range.overlaps(over) and _bound_to(r.commitments) == _bound_to(commitments)
    ]
    attempt = max((r.attempt for r in before), default=1)
    unknown = max((r.unknown_outcomes for r in before), default=0)
    parked = attempt > snapshot.settings.max_attempts or unknown > MAX_UNKNOWN_OUTCOMES
    return NewRequest(
        kind=Kind.RANGE,
        range=over,
        attempt=attempt,
        commitments=commitments,
        status=Status.PARKED if parked else Status.UNREQ,
        unknown_outcomes=unknown,
        why="out of attempts over these blocks" if parked else "finalized and not yet proven",
    )
