"""Stage 5, RequestQueuedProofs: fill every free slot at once, and anchor aggregations to a checkpoint."""

from collections.abc import Sequence

from proposer.intents import Requests
from proposer.l1_transactions import Purpose
from proposer.reasons import Code, Reason
from proposer.requests import IN_FLIGHT, Failure, Kind, ProofRequest, Status
from proposer.snapshot import Snapshot

CHECKPOINT_WINDOW = 256
"""L1 blocks whose hash the contract can still look up (`blockhash`); a stored checkpoint does not expire."""
BLOCKS_ON_DEMAND_SECONDS = 30
"""Age of the L1 head from which the chain counts as one that makes a block only for a transaction (a local devnet)."""
CHECKPOINT_MARGIN = 64
"""L1 blocks of that window kept in reserve for the transaction to be mined in."""


def plan_requests(snapshot: Snapshot, may_request: bool, stored: Sequence[int]) -> Requests:
    """Say which requests to send now; `stored` are L1 blocks whose hashes the contract is known to have stored.

    Ranges share the witness cap and the total cap; aggregations have a budget of their own, so neither kind starves
    the other. An aggregation without a usable checkpoint asks for one first.
    """
    if not may_request:
        return Requests()
    ranges, reasons = _ranges(snapshot)
    start = [r.id for r in ranges]
    checkpoint: list[tuple[int, int]] = []
    for request in _due_aggregations(snapshot, reasons):
        floor = anchor_floor(snapshot, request)
        if isinstance(floor, Reason):
            reasons.append(floor)
        elif request.checkpoint is not None or reusable(floor, stored) is not None:
            start.append(request.id)
        elif (pending := _checkpoint_under_way(snapshot, floor)) is not None:
            reasons.append(pending)
        elif isinstance(anchor := _anchor(snapshot, floor), Reason):
            reasons.append(anchor)
        else:
            checkpoint.append((request.id, anchor))
    return Requests(tuple(start), tuple(checkpoint), tuple(reasons))


def _ranges(snapshot: Snapshot) -> tuple[list[ProofRequest], list[Reason]]:
    ranges = snapshot.of_kind(Kind.RANGE)
    in_flight = [r for r in ranges if r.status in IN_FLIGHT]
    witnesses = sum(r.status is Status.WITNESSGEN for r in in_flight)
    settings = snapshot.settings
    free = max(0, min(settings.max_witness_gen - witnesses, settings.max_proof_requests - len(in_flight)))
    waiting = [r for r in ranges if r.status is Status.UNREQ]
    due = [r for r in waiting if _is_due(snapshot, r)]
    reasons = [_backing_off(snapshot, r) for r in waiting if not _is_due(snapshot, r)]
    if len(due) > free:
        reasons.append(
            Reason(
                Code.SLOTS_FULL,
                f"{len(due) - free} range{'s' if len(due) - free > 1 else ''} wait for a free slot: "
                f"{witnesses} of {settings.max_witness_gen} in witness generation, "
                f"{len(in_flight)} of {settings.max_proof_requests} in flight.",
                "Nothing to do; raise MAX_CONCURRENT_WITNESS_GEN or MAX_CONCURRENT_PROOF_REQUESTS if the server can "
                "take more.",
                {"waiting": len(due) - free, "in_flight": len(in_flight)},
            )
        )
    return due[:free], reasons


def _due_aggregations(snapshot: Snapshot, reasons: list[Reason]) -> list[ProofRequest]:
    aggregations = snapshot.of_kind(Kind.AGG)
    free = snapshot.settings.max_aggregations - sum(r.status in IN_FLIGHT for r in aggregations)
    waiting = [r for r in aggregations if r.status is Status.UNREQ]
    reasons += [_backing_off(snapshot, r) for r in waiting if not _is_due(snapshot, r)]
    return [r for r in waiting if _is_due(snapshot, r)][: max(0, free)]


def anchor_floor(snapshot: Snapshot, request: ProofRequest) -> int | Reason:
    """Return the lowest L1 block that can anchor an aggregation: every head in its members' proofs lies at or below it.

    An aggregation that was refused once needs a newer one than it was refused with.
    """
    members = [r for r in snapshot.of_kind(Kind.RANGE) if r.id in request.members]
    if any(r.l1_head is None for r in members):
        return Reason(
            Code.SAFE_HEAD_UNKNOWN,
            f"The L1 head of a range proof of aggregation {request.range} is not known yet: L1 could not be read when "
            "the prover server answered.",
            "It is filled in at the next successful read of L1.",
        )
    refused = [
        r.checkpoint.number + 1
        for r in snapshot.attempts_above
        if r.failure is Failure.REFUSED_IN_SIMULATION and r.range.start == request.range.start and r.checkpoint
    ]
    return max([r.l1_head for r in members if r.l1_head is not None] + refused, default=0)


def _anchor(snapshot: Snapshot, floor: int) -> int | Reason:
    """Return the L1 block to checkpoint: the newest safe one, or the floor where that is later.

    A head above the safe one is already bound into the proofs, so anchoring there adds no reorg risk of its own.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return Reason(
            Code.SAFE_HEAD_UNKNOWN,
            "The L1 block to anchor the next aggregation to is not known while L1 cannot be read.",
            "It goes on by itself when L1 is back.",
        )
    anchor = max(floor, oracle.safe or 0)
    on_demand = snapshot.now.timestamp() - oracle.at.timestamp > BLOCKS_ON_DEMAND_SECONDS
    if anchor > oracle.at.number or (anchor == oracle.at.number and not on_demand):
        return Reason(
            Code.CHECKPOINT_PENDING,
            f"The L1 block {anchor} to anchor the next aggregation to is the newest one.",
            "The contract can store its hash from the next L1 block on.",
            {"anchor": anchor},
        )
    # where neither is recent enough for blockhash any block of the window serves: it is later than every member
    return (
        max(anchor, oracle.at.number - CHECKPOINT_WINDOW // 2) if _leaves_window(anchor, oracle.at.number) else anchor
    )


def _leaves_window(anchor: int, head: int) -> bool:
    return anchor < head - (CHECKPOINT_WINDOW - CHECKPOINT_MARGIN)


def _checkpoint_under_way(snapshot: Snapshot, floor: int) -> Reason | None:
    for tx in snapshot.transactions:
        if tx.purpose is Purpose.CHECKPOINT and tx.subject is not None and tx.subject >= floor:
            return Reason(
                Code.CHECKPOINT_PENDING,
                f"The checkpoint of L1 block {tx.subject} (nonce {tx.nonce}) is {tx.status.value}.",
                "Nothing to do: its fee is raised by itself if it is not mined.",
                {"block": tx.subject, "nonce": tx.nonce},
            )
    return None


def reusable(floor: int, stored: Sequence[int]) -> int | None:
    """Return a stored checkpoint that serves: not below any member's L1 head. It saves a transaction."""
    return min((number for number in stored if number >= floor), default=None)


def _is_due(snapshot: Snapshot, request: ProofRequest) -> bool:
    return request.next_attempt_at is None or request.next_attempt_at <= snapshot.now


def _backing_off(snapshot: Snapshot, request: ProofRequest) -> Reason:
    at = request.next_attempt_at or snapshot.now
    return Reason(
        Code.BACKING_OFF,
        f"Request {request.id} ({request.range}) waits {(at - snapshot.now).total_seconds():.0f} s before attempt "
        f"{request.attempt}: {request.failure_text or 'an earlier one failed'}.",
        "Nothing to do: it is asked again by itself.",
        {"request": request.id, "attempt": request.attempt},
    )
