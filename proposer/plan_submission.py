"""Stage 6, SubmitAggProofs: which aggregation to propose now."""

from proposer.anchors import lost
from proposer.intents import Submission
from proposer.l1_transactions import L1Transaction
from proposer.reasons import Code, Reason
from proposer.requests import Kind, ProofRequest, Status
from proposer.snapshot import Snapshot


def plan_submission(snapshot: Snapshot, may_submit: bool) -> Submission:
    """Choose the complete aggregation from the contract head that reaches furthest; one proposal at a time.

    It must be bound to the contract's commitments, have its checkpoint, and reach a block that the contract takes.
    """
    oracle = snapshot.oracle
    if oracle is None:
        return Submission()
    proposals = [t for t in snapshot.transactions if t.may_propose]
    # a mined one counts until the pinned block has seen it: an L1 replica may lag behind the receipt's
    pending = next((t for t in proposals if t.block is None or t.block > oracle.at.number), None)
    if pending is not None:
        return Submission(reasons=(_proposal_pending(pending),))
    if not may_submit:
        return Submission()
    head = oracle.latest_block
    ready = [
        r
        for r in snapshot.of_kind(Kind.AGG)
        if r.status is Status.COMPLETE
        and r.range.start == head
        and r.range.end >= snapshot.least_accepted(head)
        and r.commitments == oracle.commitments
        and r.checkpoint is not None
    ]
    lacking = {r.id for r in lost(snapshot)}
    best = max((r for r in ready if r.id not in lacking), key=lambda r: (r.range.end, -r.id), default=None)
    if best is None and ready:
        return Submission(reasons=(_checkpoint_lost(ready[0]),))
    # one that is mined and has not moved the head has reverted: it is not sent again before that is final
    again = next((t for t in proposals if best is not None and t.request == best.id), None)
    if again is not None:
        return Submission(reasons=(_proposal_pending(again),))
    return Submission(best.id if best else None)


def _checkpoint_lost(request: ProofRequest) -> Reason:
    assert request.checkpoint is not None  # what is ready has one
    return Reason(
        Code.L1_REORG,
        f"L1 was reorganised: the checkpoint of block {request.checkpoint.number}, which aggregation {request.range} "
        "is anchored to, is not on the chain any more.",
        "Nothing to do: it is made again, and the aggregation is proposed then.",
        {"request": request.id, "block": request.checkpoint.number},
    )


def _proposal_pending(pending: L1Transaction) -> Reason:
    return Reason(
        Code.PROPOSAL_PENDING,
        f"The proposal of request {pending.request} (nonce {pending.nonce}) is {pending.status.value}.",
        "Nothing to do: its fee is raised by itself if it is not mined.",
        {"nonce": pending.nonce, "hash": "0x" + pending.newest.hash.hex()},
    )


_ABOUT_THE_MOMENT = (
    "only approved proposers",
    "optimistic mode",
    "in the future",
    "greater than or equal to next expected block number",
    # a lost checkpoint is made again, or the aggregation superseded
    "L1BlockHashNotCheckpointed",
    # the verifier gateway's: another proof of the same program meets the same
    "RouteIsFrozen",
    "RouteNotFound",
    "WrongVerifierSelector",
    # the verifiers name what they refuse: this is a contract that has changed, or a node that hides the name
    "without data",
    "invalid opcode",
)
"""Parts of the contract's reverts that time, its owner, or a re-plan will lift."""


def blames_the_proof(revert: str) -> bool:
    """Whether a decoded revert says that this proof, with this checkpoint, will never be accepted."""
    return not any(part in revert for part in _ABOUT_THE_MOMENT)
