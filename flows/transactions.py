"""Send and tend L1 transactions: simulated first, journaled before each broadcast, and then the chain decides."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from blocks.l1 import Sent
from blocks.output_oracle import encode_checkpoint
from blocks.signer import Signer
from flows.context import Proposer
from flows.report import StageReport
from proposer.errors import BadReply, EndpointDown, NotLeader, ProposerError, Reverted, SignerRefuses, WrongSignature
from proposer.fees import Fees
from proposer.l1_reasons import (
    at_fee_cap,
    busy,
    cannot_pay,
    cannot_sign,
    incident,
    key_changed,
    reorganised,
    without_key,
)
from proposer.l1_transactions import (
    Action,
    Bump,
    ChainSays,
    L1Transaction,
    Purpose,
    Rebroadcast,
    Receipt,
    Record,
    Replace,
    Step,
    TxStatus,
    is_next,
    next_step,
)
from proposer.plan_requests import replacement
from proposer.reasons import Reason
from proposer.units import L1Ref

log = logging.getLogger("proposer.transactions")

GAS_MARGIN = 1.2
"""The estimate is for the next block's state; what the contract does may cost a little more in a later one."""
CANCEL_GAS = 21_000
CANNOT_SIGN = (EndpointDown, SignerRefuses, WrongSignature, BadReply)
"""What a remote signer raises."""


async def send(
    proposer: Proposer, purpose: Purpose, calldata: bytes, *, request: int | None, subject: int | None = None
) -> bytes | Reason:
    """Simulate, sign, journal and broadcast a call of the contract. Return the hash, or why nothing was sent.

    Raises `Reverted` where the simulation does: nothing was sent and no gas is spent. A broadcast whose outcome is
    unknown is journaled already and repeated with the same bytes until the chain says what became of it.
    """
    async with proposer.transactions_lock:
        return await _send(proposer, purpose, calldata, request, subject)


async def _send(
    proposer: Proposer, purpose: Purpose, calldata: bytes, request: int | None, subject: int | None
) -> bytes | Reason:
    signer = proposer.signer
    if signer is None:
        return without_key()
    nonce = await proposer.l1.nonce(signer.address)
    why_not, gone = await why_not_free(proposer, signer.address, nonce)
    for tx in gone:
        await _record(proposer, tx, TxStatus.PENDING, None)
    if why_not is not None:
        return why_not
    priced = await priced_call(proposer, signer.address, purpose, calldata, subject)
    if isinstance(priced, Reason):
        return priced
    action, fees = priced
    signed = await _sign(proposer, nonce, action, fees)
    if isinstance(signed, Reason):
        return signed
    tx_hash, raw = signed
    proposer.must_lead()
    async with proposer.write() as writer:
        await writer.journal(
            request=request, sender=signer.address, nonce=nonce, signed=(tx_hash, raw, fees), action=action
        )
        if request is not None:
            await writer.note(
                request, f"{purpose.value} transaction with nonce {nonce} sent: {proposer.shown(tx_hash)}"
            )
    await _broadcast(proposer, raw, nonce)
    return tx_hash


async def why_not_free(proposer: Proposer, sender: str, nonce: int) -> tuple[Reason | None, list[L1Transaction]]:
    """Say what stands between the account and a new transaction with this nonce, its next on the chain.

    A journaled transaction with this nonce or a later one was on the chain before: a reorg has taken it away. Those of
    them that counted as settled are returned too.
    """
    unsettled = await proposer.ledger.transactions(unsettled=True)
    pending = next((t for t in unsettled if t.status is TxStatus.PENDING), None)
    if pending is not None:
        return busy(pending), []
    settled = await proposer.ledger.settled_from(sender, nonce)
    gone = [*(t for t in unsettled if t.sender == sender and t.nonce >= nonce), *settled]
    return reorganised(gone[0]) if gone else None, settled


async def priced_call(
    proposer: Proposer, sender: str, purpose: Purpose, calldata: bytes, subject: int | None = None
) -> tuple[Action, Fees] | Reason:
    """Simulate a call of the contract and price it, or say that the account cannot pay. Raises `Reverted`."""
    to = proposer.oracle.address
    # the estimate is the simulation, in the next block's state: eth_call runs in the latest block, which cannot see the
    # hash of itself that a checkpoint may ask for
    estimate = await proposer.l1.estimate_gas({"from": sender, "to": to, "data": calldata})
    action = Action(purpose, to, calldata, int(estimate * GAS_MARGIN), subject)
    fees = proposer.settings.fee_policy.suggest(*await proposer.l1.fee_suggestion())
    balance, most = await proposer.l1.balance(sender), action.gas * fees.cap
    return (action, fees) if balance >= most else cannot_pay(f"The {purpose.value} transaction", most, balance)


async def tend(proposer: Proposer) -> StageReport:
    """Look at every unsettled transaction and do what its state asks for; never wait. Return what changed.

    One that cannot be looked at delays no other; its error is in the report. For one that is mined nothing changes
    before the chain has another head.
    """
    report = StageReport()
    async with proposer.transactions_lock:
        unsettled = await proposer.ledger.transactions(unsettled=True)
        if not unsettled:
            return report
        try:
            head = await proposer.l1.head()
        except ProposerError as error:
            report.errors += [f"{tx}: {error}" for tx in unsettled]
            return report
        for tx in unsettled:
            if tx.status is TxStatus.MINED and head.hash == proposer.tended_at:
                continue
            try:
                await _tend(proposer, tx, head, report)
            except NotLeader:
                raise
            except ProposerError as error:
                report.errors.append(f"{tx}: {error}")
        proposer.tended_at = None if report.errors else head.hash
    return report


async def look_at(proposer: Proposer, tx: L1Transaction, head: L1Ref) -> tuple[Step | None, str]:
    """Say what is to be done about a transaction now, and why where its nonce is to be used for something else."""
    chain = await _chain_says(proposer, tx, head)
    better = await _something_better(proposer, tx, chain)
    now = await proposer.ledger.now()
    timeout = timedelta(seconds=proposer.settings.resubmission_timeout)
    instead = better.action if better else None
    step = next_step(tx, chain, proposer.settings.num_confirmations, timeout, now, instead)
    return step, better.why if better else ""


async def _tend(proposer: Proposer, tx: L1Transaction, head: L1Ref, report: StageReport) -> None:
    step, better = await look_at(proposer, tx, head)
    match step:
        case Record(status, receipt):
            report.did.append(await _record(proposer, tx, status, receipt))
        case Replace(action):
            if not await _sign_again(proposer, tx, action, better, report):
                await _rebroadcast(proposer, tx, report, raise_price=False)
        case Bump():
            why = f"not mined after {proposer.settings.resubmission_timeout:.0f} s"
            if not await _sign_again(proposer, tx, tx.newest.action, why, report):
                await _rebroadcast(proposer, tx, report, raise_price=False)
        case Rebroadcast():
            await _rebroadcast(proposer, tx, report)
        case None:
            pass


async def _chain_says(proposer: Proposer, tx: L1Transaction, head: L1Ref) -> ChainSays:
    """Read the nonce before the receipts: the other way round a transaction mined in between looks displaced."""
    mined_nonce = await proposer.l1.nonce(tx.sender)
    settled = await proposer.l1.block(max(0, head.number - proposer.settings.num_confirmations))
    settled_nonce = await proposer.l1.nonce(tx.sender, settled) if settled is not None else 0
    receipts = {s.hash: r for s in tx.signed if (r := await proposer.l1.receipt(s.hash)) is not None}
    return ChainSays(head, mined_nonce, settled_nonce, receipts)


@dataclass(frozen=True, slots=True)
class _Better:
    """What a nonce should rather be used for, and why."""

    action: Action
    why: str


async def _something_better(proposer: Proposer, tx: L1Transaction, chain: ChainSays) -> _Better | None:
    """Find what an unmined transaction should be replaced with on its nonce: a proposal that would revert by nothing.

    A checkpoint whose block leaves the window is replaced by one of a newer block.
    """
    if not is_next(tx, chain):
        return None
    action = tx.newest.action
    match action.purpose:
        case Purpose.PROPOSE:
            try:
                await proposer.l1.call(action.to, action.calldata, chain.head, tx.sender)
            except Reverted as error:
                nothing = Action(Purpose.CANCEL, tx.sender, b"", CANCEL_GAS)
                return _Better(nothing, f"the proposal would revert now: {error.name}")
        case Purpose.CHECKPOINT:
            safe = await proposer.l1.block("safe")
            newer = replacement(tx, chain.head.number, safe.number if safe else None)
            if newer is not None:
                again = Action(action.purpose, action.to, encode_checkpoint(newer), action.gas, newer)
                return _Better(again, f"L1 block {action.subject} leaves the window that can be checkpointed")
        case Purpose.CANCEL:
            pass
        case _:
            assert_never(action.purpose)
    return None


async def _record(proposer: Proposer, tx: L1Transaction, status: TxStatus, receipt: Receipt | None) -> str:
    form = next((s for s in tx.signed if receipt is not None and s.hash == receipt.hash), tx.newest)
    where = f" in L1 block {receipt.block}, {receipt.gas_used} gas" if receipt else ""
    name = f"{form.action.purpose.value} transaction with nonce {tx.nonce}"
    sentence = f"{name} is {status.value}{where}: {proposer.shown(form.hash)}"
    async with proposer.write() as writer:
        await writer.record(tx.id, status, receipt)
        if tx.request is not None:
            await writer.note(tx.request, sentence)
    if (what := incident(tx, status)) is not None:
        proposer.record.incidents.append(what)
    return sentence


async def _sign_again(proposer: Proposer, tx: L1Transaction, action: Action, why: str, report: StageReport) -> bool:
    """Sign the nonce once more, dearer, for the same or for something else; False where that is not possible."""
    if proposer.signer is None or proposer.signer.address != tx.sender:
        report.reasons = [*report.reasons, key_changed(tx)]
        return False
    policy = proposer.settings.fee_policy
    suggested = policy.suggest(*await proposer.l1.fee_suggestion())
    fees = policy.bump(tx.newest.fees, suggested)
    if fees is None:
        report.reasons = [*report.reasons, at_fee_cap(tx)]
        return False
    signed = await _sign(proposer, tx.nonce, action, fees)
    if isinstance(signed, Reason):
        report.reasons = [*report.reasons, signed]
        return False
    tx_hash, raw = signed
    proposer.must_lead()
    sentence = f"{action.purpose.value} transaction with nonce {tx.nonce} signed again, fee cap {fees.cap} wei: {why}"
    async with proposer.write() as writer:
        await writer.sign_again(tx.id, (tx_hash, raw, fees), action)
        if tx.request is not None:
            await writer.note(tx.request, f"{sentence}: {proposer.shown(tx_hash)}")
    report.did.append(sentence)
    _say(await _broadcast(proposer, raw, tx.nonce), tx, action.gas * fees.cap, report)
    return True


async def _rebroadcast(proposer: Proposer, tx: L1Transaction, report: StageReport, *, raise_price: bool = True) -> None:
    """Send the newest form again where the node does not know it; one that is too cheap for the node is raised."""
    newest = tx.newest
    if await proposer.l1.knows(newest.hash):
        return
    sent = await _broadcast(proposer, newest.raw, tx.nonce)
    if sent is Sent.UNDERPRICED and raise_price:
        await _sign_again(proposer, tx, newest.action, "too cheap for the L1 node", report)
    else:
        _say(sent, tx, newest.action.gas * newest.fees.cap, report)


async def _sign(proposer: Proposer, nonce: int, action: Action, fees: Fees) -> tuple[bytes, bytes] | Reason:
    """Have it signed, or say why it cannot be: then there is nothing to journal and nothing was sent."""
    assert proposer.signer is not None  # only called where there is one
    tx = {
        "chainId": await proposer.l1.chain_id(),
        "nonce": nonce,
        "to": action.to,
        "data": action.calldata,
        "gas": action.gas,
        "value": 0,
        "maxFeePerGas": fees.cap,
        "maxPriorityFeePerGas": fees.tip,
    }
    try:
        return await proposer.signer.sign(tx)
    except CANNOT_SIGN as error:
        return cannot_sign(error)


async def why_not_signed(signer: Signer) -> Reason | None:
    """Ask the signer whether it signs for the account now; say why it does not."""
    try:
        await signer.check()
    except CANNOT_SIGN as error:
        return cannot_sign(error)
    return None


async def _broadcast(proposer: Proposer, raw: bytes, nonce: int) -> Sent | None:
    """Send signed bytes that are in the journal. Whatever the node says, the chain decides: `tend` finds out.

    Returns None where it is not known what became of them.
    """
    proposer.must_lead()
    try:
        sent = await proposer.l1.send_raw(raw)
    except ProposerError as error:
        log.warning("nonce %s may or may not have been sent: %s", nonce, error)
        return None
    match sent:
        case Sent.ACCEPTED | Sent.ALREADY_KNOWN | Sent.NONCE_TOO_LOW:
            pass  # NONCE_TOO_LOW: mined already, or displaced
        case Sent.UNDERPRICED | Sent.INSUFFICIENT_FUNDS:
            log.warning("nonce %s was not accepted by the L1 node: %s", nonce, sent.value)
        case _:
            assert_never(sent)
    return sent


def _say(sent: Sent | None, tx: L1Transaction, price: int, report: StageReport) -> None:
    if sent is Sent.INSUFFICIENT_FUNDS:
        report.reasons = [*report.reasons, cannot_pay(f"The {tx}", price)]
