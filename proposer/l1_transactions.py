"""The life of one L1 transaction, as pure state: what the journal and the chain say, and what follows.

A transaction is a nonce with a purpose and every hash ever signed for it. It is written to the journal before its
first broadcast, so a broadcast after a crash repeats the very same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from proposer.fees import Fees
from proposer.units import L1Block


class Purpose(StrEnum):
    """What a transaction does."""

    CHECKPOINT = "checkpoint"
    PROPOSE = "propose"


class TxStatus(StrEnum):
    """Where a transaction stands."""

    PENDING = "PENDING"
    """In the journal; broadcast or about to be."""
    MINED = "MINED"
    """In a block that may still be reorganised away."""
    CONFIRMED = "CONFIRMED"
    """Under enough blocks."""
    REVERTED = "REVERTED"
    """Mined and reverted under enough blocks."""
    DISPLACED = "DISPLACED"
    """Its nonce was used by a transaction that is none of ours."""


UNSETTLED = frozenset({TxStatus.PENDING, TxStatus.MINED})


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed form of a transaction: its hash, bytes, price and the time it was journaled."""

    hash: bytes
    raw: bytes
    fees: Fees
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Transaction:
    """A journaled transaction; `signed` is oldest first and never empty. `subject` is the checkpointed L1 block."""

    id: int
    purpose: Purpose
    request: int | None
    subject: int | None
    sender: str
    nonce: int
    to: str
    calldata: bytes
    gas: int
    status: TxStatus
    signed: Sequence[Signed]
    created_at: datetime
    block: L1Block | None = None
    block_hash: bytes | None = None
    gas_used: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the chain says of one of the hashes."""

    hash: bytes
    block: L1Block
    block_hash: bytes
    succeeded: bool
    gas_used: int


@dataclass(frozen=True, slots=True)
class ChainSays:
    """One look at the chain: its head, the sender's nonce there and under enough blocks, and the receipts by hash."""

    head: L1Block
    mined_nonce: int
    settled_nonce: int
    receipts: Mapping[bytes, Receipt]


@dataclass(frozen=True, slots=True)
class Rebroadcast:
    """Send the newest signed bytes again."""


@dataclass(frozen=True, slots=True)
class Bump:
    """Sign the same nonce with a higher fee and send that."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write a new status; the receipt where there is one."""

    status: TxStatus
    receipt: Receipt | None = None


Step = Rebroadcast | Bump | Record


def next_step(
    tx: L1Transaction, chain: ChainSays, confirmations: int, resubmission_timeout: timedelta, now: datetime
) -> Step | None:
    """Say what to do about a transaction, or None to wait.

    A transaction counts as confirmed when `block + confirmations <= head + 1` (txmgr). A receipt that is gone, or in
    another block than before, is pending or mined anew. A nonce that was used without a receipt of ours counts as
    displaced only under enough blocks: another node behind the same address may not have the receipt yet.
    """
    receipt = next((chain.receipts[s.hash] for s in tx.signed if s.hash in chain.receipts), None)
    if receipt is not None:
        if receipt.block + confirmations <= chain.head + 1:
            return Record(TxStatus.CONFIRMED if receipt.succeeded else TxStatus.REVERTED, receipt)
        if tx.status is TxStatus.MINED and tx.block_hash == receipt.block_hash:
            return None
        return Record(TxStatus.MINED, receipt)
    if tx.status is TxStatus.MINED:
        return Record(TxStatus.PENDING)
    if chain.settled_nonce > tx.nonce:
        return Record(TxStatus.DISPLACED)
    if chain.mined_nonce > tx.nonce:
        return None
    if now - tx.signed[-1].at >= resubmission_timeout:
        return Bump()
    return Rebroadcast()
