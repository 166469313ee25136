"""Send and tend L1 transactions: simulated first, journaled before the broadcast, confirmed by re-reading the chain."""

import logging
from datetime import timedelta
from typing import assert_never

from blocks.l1 import Sent
from flows.context import Proposer
from flows.report import StageReport
from proposer.errors import ProposerError
from proposer.fees import Fees
from proposer.l1_transactions import (
    Bump,
    ChainSays,
    L1Transaction,
    Purpose,
    Rebroadcast,
    Receipt,
    Record,
    TxStatus,
    next_step,
)
from proposer.reasons import Code, Reason

log = logging.getLogger("proposer.transactions")

GAS_MARGIN = 1.2
"""The estimate is for the next block's state; what the contract does may cost a little more in a later one."""


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
        return _reason_without_key()
    unmined = [t for t in await proposer.ledger.transactions(unsettled=True) if t.status is TxStatus.PENDING]
    if unmined:
        return _busy(unmined[0])
    to = proposer.oracle.address
    # the estimate is the simulation, in the next block's state: eth_call runs in the latest block, which cannot see the
    # hash of itself that a checkpoint may ask for
    estimate = await proposer.l1.estimate_gas({"from": signer.address, "to": to, "data": calldata})
    gas = int(estimate * GAS_MARGIN)
    fees = proposer.settings.fee_policy.suggest(*await proposer.l1.fee_suggestion())
    nonce = await proposer.l1.nonce(signer.address)
    tx_hash, raw = await _sign(proposer, nonce=nonce, to=to, calldata=calldata, gas=gas, fees=fees)
    proposer.must_lead()
    async with proposer.write() as writer:
        await writer.journal(
            purpose=purpose,
            request=request,
            subject=subject,
            sender=signer.address,
            nonce=nonce,
            to=to,
            calldata=calldata,
            gas=gas,
            signed=(tx_hash, raw, fees),
        )
        if request is not None:
            await writer.note(request, f"{purpose.value} transaction 0x{tx_hash.hex()} (nonce {nonce})")
    await _broadcast(proposer, raw, nonce)
    return tx_hash


async def tend(proposer: Proposer) -> StageReport:
    """Look at every unsettled transaction and do what its state asks for; never wait. Return what changed."""
    async with proposer.transactions_lock:
        return await _tend(proposer)


async def _tend(proposer: Proposer) -> StageReport:
    report = StageReport()
    for tx in await proposer.ledger.transactions(unsettled=True):
        chain = await _chain_says(proposer, tx)
        now = await proposer.ledger.now()
        timeout = timedelta(seconds=proposer.settings.resubmission_timeout)
        match next_step(tx, chain, proposer.settings.num_confirmations, timeout, now):
            case Record(status, receipt):
                report.did.append(await _record(proposer, tx, status, receipt))
            case Bump():
                await _bump(proposer, tx, report)
            case Rebroadcast():
                if not await proposer.l1.knows(tx.signed[-1].hash):
                    await _broadcast(proposer, tx.signed[-1].raw, tx.nonce)
            case None:
                pass
    return report


async def _chain_says(proposer: Proposer, tx: L1Transaction) -> ChainSays:
    """Read the nonce before the receipts: the other way round a transaction mined in between looks displaced."""
    head = await proposer.l1.head()
    mined_nonce = await proposer.l1.nonce(tx.sender)
    settled = await proposer.l1.block(max(0, head.number - proposer.settings.num_confirmations))
    settled_nonce = await proposer.l1.nonce(tx.sender, settled) if settled is not None else 0
    receipts = {s.hash: r for s in tx.signed if (r := await proposer.l1.receipt(s.hash)) is not None}
    return ChainSays(head.number, mined_nonce, settled_nonce, receipts)


async def _record(proposer: Proposer, tx: L1Transaction, status: TxStatus, receipt: Receipt | None) -> str:
    where = f" in L1 block {receipt.block}, {receipt.gas_used} gas" if receipt else ""
    sentence = f"{tx.purpose.value} transaction with nonce {tx.nonce} is {status.value}{where}"
    async with proposer.write() as writer:
        await writer.record(tx.id, status, receipt)
        if tx.request is not None:
            await writer.note(tx.request, sentence)
    return sentence


async def _bump(proposer: Proposer, tx: L1Transaction, report: StageReport) -> None:
    """Sign the same nonce with a higher fee; at the cap the old price stands and is only repeated."""
    policy = proposer.settings.fee_policy
    suggested = policy.suggest(*await proposer.l1.fee_suggestion())
    fees = policy.bump(tx.signed[-1].fees, suggested)
    if fees is None:
        report.reasons = [*report.reasons, _at_fee_cap(tx)]
        await _broadcast(proposer, tx.signed[-1].raw, tx.nonce)
        return
    tx_hash, raw = await _sign(proposer, nonce=tx.nonce, to=tx.to, calldata=tx.calldata, gas=tx.gas, fees=fees)
    proposer.must_lead()
    async with proposer.write() as writer:
        await writer.sign_again(tx.id, tx_hash, raw, fees)
    await _broadcast(proposer, raw, tx.nonce)
    report.did.append(
        f"{tx.purpose.value} transaction with nonce {tx.nonce} sent again with a fee cap of {fees.cap} wei"
    )


async def _sign(
    proposer: Proposer, *, nonce: int, to: str, calldata: bytes, gas: int, fees: Fees
) -> tuple[bytes, bytes]:
    assert proposer.signer is not None  # only called where there is one
    return await proposer.signer.sign(
        {
            "chainId": await proposer.l1.chain_id(),
            "nonce": nonce,
            "to": to,
            "data": calldata,
            "gas": gas,
            "value": 0,
            "maxFeePerGas": fees.cap,
            "maxPriorityFeePerGas": fees.tip,
        }
    )


async def _broadcast(proposer: Proposer, raw: bytes, nonce: int) -> None:
    """Send signed bytes that are in the journal. Whatever the node says, the chain decides: `tend` finds out."""
    proposer.must_lead()
    try:
        sent = await proposer.l1.send_raw(raw)
    except ProposerError as error:
        log.warning("nonce %s may or may not have been sent: %s", nonce, error)
        return
    match sent:
        case Sent.ACCEPTED | Sent.ALREADY_KNOWN | Sent.NONCE_TOO_LOW:
            pass  # NONCE_TOO_LOW: mined already, or displaced
        case Sent.UNDERPRICED | Sent.INSUFFICIENT_FUNDS:
            log.warning("nonce %s was not accepted by the L1 node: %s", nonce, sent.name)
        case _:
            assert_never(sent)


def _reason_without_key() -> Reason:
    return Reason(
        Code.NOT_APPROVED,
        "There is no signer, so no transaction can be sent.",
        "Set PRIVATE_KEY to the key of an approved proposer.",
    )


def _at_fee_cap(tx: L1Transaction) -> Reason:
    return Reason(
        Code.FEE_CAP,
        f"The {tx.purpose.value} transaction with nonce {tx.nonce} is not mined at {tx.signed[-1].fees.cap} wei per "
        "gas, and a higher fee would pass the limit.",
        "It is repeated at the old price. Wait for L1's fees to fall, or raise TXMGR_FEE_LIMIT_MULTIPLIER.",
        {"nonce": tx.nonce, "fee_cap_wei": tx.signed[-1].fees.cap},
    )


def _busy(tx: L1Transaction) -> Reason:
    return Reason(
        Code.SIGNER_BUSY,
        f"The {tx.purpose.value} transaction with nonce {tx.nonce} is not mined yet; there is one at a time.",
        "Nothing to do: its fee is raised by itself.",
        {"nonce": tx.nonce},
    )
