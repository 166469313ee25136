"""What one request, or one proposal, waits for: the last links of an explanation."""

from collections.abc import Mapping
from typing import assert_never

from proposer.plan_aggregation import parked
from proposer.reasons import Code, Reason
from proposer.requests import Kind, ProofRequest, Status
from proposer.situation import Situation, about

_SERVER_IS_ASKED = frozenset({Status.UNREQ, Status.WITNESSGEN, Status.PROVING})


def not_finalized(situation: Situation, block: int) -> Reason | None:
    """Say why an L2 block cannot be proven yet: it is not finalized, or the node does not say so."""
    seen = situation.snapshot.finalized.number if situation.snapshot.finalized is not None else 0
    if block <= seen:
        return None
    if (node := situation.reason(Code.NODE_DOWN, Code.NODE_STARTING, Code.NODE_BEHIND)) is not None:
        return node
    return Reason(
        Code.WAITING_FOR_FINALITY,
        f"The L2 is finalized up to block {seen}; this needs block {block}.",
        "Nothing to do: it follows L1 finality. If it does not move for long, look at the L2 node and the batcher.",
        {"finalized": seen, "required": block},
    )


def of_request(situation: Situation, request: ProofRequest) -> list[Reason]:
    """Lead from an open request to what it waits for."""
    server = situation.reason(Code.SERVER_DOWN)
    if server is not None and request.status in _SERVER_IS_ASKED:
        return [server]
    match request.status:
        case Status.UNREQ:
            return _queued(situation, request)
        case Status.WITNESSGEN:
            return [_asked(situation, request)]
        case Status.PROVING:
            return [_proving(situation, request)]
        case Status.PARKED:
            return [parked(situation.snapshot, request)]
        case Status.COMPLETE | Status.RELAYED | Status.FAILED | Status.CANCELLED:
            return [next_cycle(situation, f"the ledger follows the chain about request {request.id}", {})]
        case _:
            assert_never(request.status)


def _queued(situation: Situation, request: ProofRequest) -> list[Reason]:
    decided = situation.decided.requests
    if (waits := about(decided.reasons, request.id)) is not None:
        return [waits]
    if request.id in decided.start:
        return [next_cycle(situation, f"request {request.id} is sent to the prover server", {"request": request.id})]
    if request.kind is Kind.RANGE:
        full = next((r for r in decided.reasons if r.code is Code.SLOTS_FULL), None)
        return [full or next_cycle(situation, f"request {request.id} is sent", {"request": request.id})]
    for asking, number in decided.checkpoint:
        if asking == request.id:
            stopped = situation.stopped.get(request.id)
            what = f"L1 block {number} is checkpointed for aggregation {request.range}"
            return _on(situation, stopped or next_cycle(situation, what, {"request": request.id}))
    anchor = next((r for r in decided.reasons if r.code in {Code.CHECKPOINT_PENDING, Code.SAFE_HEAD_UNKNOWN}), None)
    if anchor is not None:
        return _on(situation, anchor)
    in_flight = next((r for r in situation.snapshot.of_kind(Kind.AGG) if r.status in _SERVER_IS_ASKED), request)
    return [
        Reason(
            Code.AGGREGATION_UNDER_WAY,
            f"Aggregation {request.range} waits for one of MAX_CONCURRENT_AGGREGATIONS "
            f"({situation.snapshot.settings.max_aggregations}).",
            "Nothing to do: it is asked for when one of those under way is proven.",
            {"request": in_flight.id},
        )
    ]


def _asked(situation: Situation, request: ProofRequest) -> Reason:
    now, settings = situation.snapshot.now, situation.snapshot.settings
    age = (now - request.since).total_seconds()
    leader = situation.leader
    if leader is not None and request.claimed_epoch is not None and request.claimed_epoch < leader.epoch:
        return Reason(
            Code.BACKING_OFF,
            f"Request {request.id} was sent by a process that no longer leads; if its answer is lost, it may have been "
            "paid.",
            f"It is asked again {max(0, settings.witness_gen_timeout - age):.0f} s from now (WITNESS_GEN_TIMEOUT), at "
            "most once for this reason.",
            {"request": request.id},
        )
    return Reason(
        Code.WITNESS_UNDER_WAY,
        f"The prover server prepares the witness of request {request.id} ({request.range}) for {age:.0f} s now.",
        f"Nothing to do: it is given up {settings.witness_gen_timeout:.0f} s after it was sent (WITNESS_GEN_TIMEOUT).",
        {"request": request.id, "seconds": round(age)},
    )


def _proving(situation: Situation, request: ProofRequest) -> Reason:
    now, settings = situation.snapshot.now, situation.snapshot.settings
    age = (now - (request.requested_at or request.since)).total_seconds()
    usual = situation.usual.get(request.kind)
    usually = f" Proofs like it usually take {usual.quick:.0f} to {usual.slow:.0f} s." if usual is not None else ""
    return Reason(
        Code.PROOF_UNDER_WAY,
        f"The network proves request {request.id} ({request.range}), prover id {request.prover_id}, asked for "
        f"{age:.0f} s ago.{usually}",
        f"Nothing to do: it is looked at by itself, and given up {settings.max_proof_time:.0f} s after the server's "
        "answer (MAX_PROOF_TIME).",
        {"request": request.id, "seconds": round(age)},
    )


def of_proposal(situation: Situation, request: ProofRequest) -> list[Reason]:
    """Lead from a proven aggregation to what its proposal waits for."""
    decided = situation.decided.submission
    for reason in decided.reasons:
        if reason.code in {Code.PROPOSAL_PENDING, Code.L1_REORG}:
            return _on(situation, reason)
    if (stopped := situation.stopped.get(request.id)) is not None:
        node = situation.reason(Code.NODE_DOWN) if stopped.code is Code.ROOT_UNKNOWN else None
        return [stopped, node] if node is not None else _on(situation, stopped)
    return [next_cycle(situation, f"block {request.range.end} is proposed", {"request": request.id})]


def _on(situation: Situation, reason: Reason) -> list[Reason]:
    """Lead on from what waits for a transaction to why that one is not mined."""
    stuck = situation.stuck.get(int(reason.facts.get("nonce", -1)))
    return [reason, stuck] if stuck is not None and stuck != reason else [reason]


def next_cycle(situation: Situation, what: str, facts: Mapping[str, int | float | str]) -> Reason:
    """Say that all goes its way, and what comes next."""
    seconds = situation.snapshot.settings.poll_interval
    return Reason(
        Code.NEXT_CYCLE,
        f"Nothing is wrong: next, {what}, within {seconds:.0f} s.",
        "Nothing to do. If this is still so in a few minutes, look at the cycles in the Prefect UI.",
        {**facts, "seconds": round(seconds)},
    )
