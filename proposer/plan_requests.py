"""Stage 5, RequestQueuedProofs: fill every free slot at once, and anchor aggregations to a checkpoint."""

from types import MappingProxyType

from proposer.anchors import WINDOW, leaves_window, lost
from proposer.intents import Requests
from proposer.l1_transactions import L1Transaction
from proposer.reasons import Code, Reason
from proposer.requests import IN_FLIGHT, Checkpoint, Failure, Kind, ProofRequest, Status
from proposer.snapshot import Snapshot
from proposer.units import L1Block

BLOCKS_ON_DEMAND_SECONDS = 30
"""Age of the L1 head from which the chain counts as one that makes a block only for a transaction (a local devnet)."""

_REFUSED = frozenset({Failure.REFUSED_IN_SIMULATION, Failure.REFUSED_BY_CONTRACT})


def plan_requests(snapshot: Snapshot, may_request: bool) -> Requests:
    """Say which requests to send now, and which L1 blocks to checkpoint.

    Ranges share the witness cap and the total cap; aggregations have a budget of their own, so neither kind starves
    the other. An aggregation without a usable checkpoint asks for one first. One that is paid for and whose checkpoint
    was lost in a reorg has it made again.
    """
    checkpoint: list[tuple[int, int]] = [
        (r.id, r.checkpoint.number)
        for r in lost(snapshot)
        if r.checkpoint is not None and _checkpoint_under_way(snapshot, r.checkpoint.number) is None
    ]
    if not may_request:
        return Requests(checkpoint=tuple(checkpoint))
    ranges, reasons = _ranges(snapshot)
    start = [r.id for r in ranges]
    anchors: dict[int, Checkpoint] = {}
    for request in _due_aggregations(snapshot, reasons):
        floor = anchor_floor(snapshot, request)
        if isinstance(floor, Reason):
            reasons.append(floor)
        elif (usable := _usable(snapshot, request, floor)) is not None:
            start.append(request.id)
            anchors[request.id] = usable
        elif (pending := _checkpoint_under_way(snapshot, floor)) is not None:
            reasons.append(pending)
        elif isinstance(anchor := _anchor(snapshot, floor), Reason):
            reasons.append(anchor)
        else:
            checkpoint.append((request.id, anchor))
    return Requests(tuple(start), MappingProxyType(anchors), tuple(checkpoint), tuple(reasons))


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

    An aggregation that was refused needs a newer one than it was refused with.
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
        if r.failure in _REFUSED and r.members == request.members and r.checkpoint
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
    # a safe block at the very tip cannot be checkpointed yet; the one before it can, and is as safe
    anchor = max(floor, min(oracle.safe or 0, oracle.at.number - 1))
    on_demand = snapshot.now.timestamp() - oracle.at.timestamp > BLOCKS_ON_DEMAND_SECONDS
    if anchor > oracle.at.number or (anchor == oracle.at.number and not on_demand):
        return Reason(
            Code.CHECKPOINT_PENDING,
            f"The L1 block {anchor} to anchor the next aggregation to is the newest one.",
            "The contract can store its hash from the next L1 block on.",
            {"anchor": anchor},
        )
    # where neither is recent enough for blockhash any block of the window serves: it is later than every member
    return max(anchor, oracle.at.number - WINDOW // 2) if leaves_window(anchor, oracle.at.number) else anchor


def _checkpoint_under_way(snapshot: Snapshot, floor: int) -> Reason | None:
    for tx in snapshot.transactions:
        subject = tx.action.subject
        if subject is not None and subject >= floor:
            return Reason(
                Code.CHECKPOINT_PENDING,
                f"The checkpoint of L1 block {subject} (nonce {tx.nonce}) is {tx.status.value}.",
                "Nothing to do: its fee is raised by itself if it is not mined.",
                {"block": subject, "nonce": tx.nonce},
            )
    oracle = snapshot.oracle
    served = [number for number in snapshot.checkpointed if number >= floor]
    unread = next((number for number in served if oracle is None or number not in oracle.anchors), None)
    if unread is None:
        return None
    return Reason(
        Code.CHECKPOINT_PENDING,
        f"The checkpoint of L1 block {unread} was mined just now.",
        "Nothing to do: it is used as soon as the contract is read again.",
        {"block": unread},
    )


def _usable(snapshot: Snapshot, request: ProofRequest, floor: int) -> Checkpoint | None:
    """Return a checkpoint that the contract has right now and that serves: the request's own, or the oldest other.

    One that lies below no member's L1 head serves; it saves a transaction.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return None
    own = request.checkpoint
    if own is not None and own.number >= floor and oracle.stored(own.number) == own.hash:
        return own
    numbers = [number for number in oracle.anchors if number >= floor and oracle.stored(number) is not None]
    best = min(numbers, default=None)
    hash_ = oracle.stored(best) if best is not None else None
    return Checkpoint(L1Block(best), hash_) if best is not None and hash_ is not None else None


def replacement(tx: L1Transaction, head: int, safe: int | None) -> int | None:
    """Return the L1 block to checkpoint in place of one that leaves the window before its transaction is mined."""
    subject = tx.newest.action.subject
    if subject is None or not leaves_window(subject, head):
        return None
    return max(safe or 0, head - WINDOW // 2, subject + 1)


def _is_due(snapshot: Snapshot, request: ProofRequest) -> bool:
    return request.next_attempt_at is None or request.next_attempt_at <= snapshot.now


def _backing_off(snapshot: Snapshot, request: ProofRequest) -> Reason:
    at = request.next_attempt_at or snapshot.now
    return Reason(
        Code.BACKING_OFF,
        f"Request {request.id} ({request.range}) waits {(at - snapshot.now).total_seconds():.0f} s before attempt "
        f"{request.attempt}: {request.failure_text or 'an earlier one failed'}{snapshot.ended_before(request)}.",
        "Nothing to do: it is asked again by itself.",
        {"request": request.id, "attempt": request.attempt},
    )
