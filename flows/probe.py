"""What keeps transactions from being sent and mined, found out by asking L1 and the L2 node; nothing is written."""

from datetime import timedelta

from blocks.output_oracle import encode_checkpoint, encode_propose
from flows.context import Proposer
from flows.stages.requests import checkpoint_reverts
from flows.stages.submission import MAX_REVERTED, node_still_agrees, reverts_when_mined, root_unknown, would_revert
from flows.transactions import priced_call, why_not_free, why_not_signed
from proposer.errors import ProposerError, Reverted
from proposer.l1_reasons import at_fee_cap, cannot_pay, key_changed, without_key
from proposer.l1_transactions import L1Transaction, Purpose, TxStatus
from proposer.reasons import Reason
from proposer.requests import Kind, ProofRequest, Status
from proposer.situation import Decided
from proposer.snapshot import Snapshot


async def stopped(proposer: Proposer, snapshot: Snapshot, decided: Decided) -> dict[int, Reason]:
    """Say by request why its next transaction cannot be sent now. What cannot be asked is left out."""
    found: dict[int, Reason] = {}
    by_id = {r.id: r for r in snapshot.requests}
    proposed = decided.submission.request
    try:
        if proposed is not None and (reason := await _proposal(proposer, by_id[proposed])) is not None:
            found[proposed] = reason
        for request_id, number in decided.requests.checkpoint:
            if (reason := await _checkpoint(proposer, number)) is not None:
                found[request_id] = reason
    except ProposerError:
        pass  # L1 went away meanwhile: the next look has it as a reason
    for request in snapshot.of_kind(Kind.AGG):
        if request.output_root is None and request.status is Status.COMPLETE:
            found.setdefault(request.id, root_unknown(request))
    return found


async def stuck(proposer: Proposer, snapshot: Snapshot) -> dict[int, Reason]:
    """Say by nonce why a transaction that was sent is not mined, where it is not just early."""
    found: dict[int, Reason] = {}
    for tx in snapshot.transactions:
        if tx.status is not TxStatus.PENDING:
            continue
        try:
            reason = await _not_mined(proposer, snapshot, tx)
        except ProposerError:
            continue
        if reason is not None:
            found[tx.nonce] = reason
    return found


async def _proposal(proposer: Proposer, request: ProofRequest) -> Reason | None:
    if request.output_root is None:
        return root_unknown(request)
    if (disagrees := await node_still_agrees(proposer, request)) is not None:
        return disagrees
    if await proposer.ledger.reverted_proposals(request.id) >= MAX_REVERTED:
        return reverts_when_mined(request)
    assert request.checkpoint is not None  # the plan proposes none without
    proof = await proposer.ledger.proof(request.id)
    calldata = encode_propose(request.output_root, request.range.end, request.checkpoint.number, proof)
    try:
        return await _why_not(proposer, Purpose.PROPOSE, calldata)
    except Reverted as error:
        return would_revert(request, error)


async def _checkpoint(proposer: Proposer, number: int) -> Reason | None:
    try:
        return await _why_not(proposer, Purpose.CHECKPOINT, encode_checkpoint(number))
    except Reverted as error:
        return checkpoint_reverts(number, error)


async def _why_not(proposer: Proposer, purpose: Purpose, calldata: bytes) -> Reason | None:
    """Say why a call would not be sent now. Raises `Reverted` where its simulation does."""
    if proposer.signer is None:
        return without_key()
    sender = proposer.signer.address
    why_not, _ = await why_not_free(proposer, sender, await proposer.l1.nonce(sender))
    if why_not is not None:
        return why_not
    priced = await priced_call(proposer, sender, purpose, calldata)
    return priced if isinstance(priced, Reason) else await why_not_signed(proposer.signer)


async def _not_mined(proposer: Proposer, snapshot: Snapshot, tx: L1Transaction) -> Reason | None:
    if await proposer.l1.nonce(tx.sender) != tx.nonce:
        return None  # mined, or behind another one
    newest = tx.newest
    balance, price = await proposer.l1.balance(tx.sender), newest.action.gas * newest.fees.cap
    if balance < price:
        return cannot_pay(f"The {tx}", price, balance)
    if snapshot.now - newest.at < timedelta(seconds=snapshot.settings.resubmission_timeout):
        return None
    if proposer.signer is None or proposer.signer.address != tx.sender:
        return key_changed(tx)
    policy = snapshot.settings.fee_policy
    higher = policy.bump(newest.fees, policy.suggest(*await proposer.l1.fee_suggestion()))
    if higher is None:
        return at_fee_cap(tx)
    return await why_not_signed(proposer.signer)
