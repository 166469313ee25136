"""The life of one L1 transaction, as pure state: what the journal and the chain say, and what follows.

A transaction is a nonce and every form ever signed for it. Each form is written to the journal before its first
broadcast, so a broadcast after a crash repeats the very same bytes, and whatever is mined is recognised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from proposer.fees import Fees
from proposer.units import L1Block, L1Ref


class Purpose(StrEnum):
    """What a transaction does."""

    CHECKPOINT = "checkpoint"
    PROPOSE = "propose"
    CANCEL = "cancel"
    """Uses a nonce up with nothing, so that what was signed for it before can never be mined."""


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
class Action:
    """What a signed form does: a call with a gas limit. `subject` is the L1 block that a checkpoint is of."""

    purpose: Purpose
    to: str
    calldata: bytes
    gas: int
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed form of a transaction: its hash, bytes, price, what it does, and the time it was journaled."""

    hash: bytes
    raw: bytes
    fees: Fees
    action: Action
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class L1Transaction:
    """A journaled nonce of `sender`; `signed` is oldest first and never empty, `mined` the hash of the form mined."""

    id: int
    request: int | None
    sender: str
    nonce: int
    status: TxStatus
    signed: Sequence[Signed]
    created_at: datetime
    mined: bytes | None = None
    block: L1Block | None = None
    block_hash: bytes | None = None
    gas_used: int | None = None

    @property
    def newest(self) -> Signed:
        """The form signed last: the one that is broadcast."""
        return self.signed[-1]

    @property
    def action(self) -> Action:
        """What the form that is mined does, or else the newest."""
        return next((form.action for form in self.signed if form.hash == self.mined), self.newest.action)

    @property
    def may_propose(self) -> bool:
        """Whether a proposal of it is mined, or may still be."""
        forms = (self.action,) if self.mined is not None else tuple(form.action for form in self.signed)
        return any(action.purpose is Purpose.PROPOSE for action in forms)

    def __str__(self) -> str:
        return f"{self.action.purpose.value} transaction with nonce {self.nonce}"


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

    head: L1Ref
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
class Replace:
    """Sign the same nonce for something else, with a higher fee, and send that."""

    action: Action


@dataclass(frozen=True, slots=True)
class Record:
    """Write a new status; the receipt where there is one."""

    status: TxStatus
    receipt: Receipt | None = None


Step = Rebroadcast | Bump | Replace | Record


def next_step(
    tx: L1Transaction,
    chain: ChainSays,
    confirmations: int,
    resubmission_timeout: timedelta,
    now: datetime,
    instead: Action | None = None,
) -> Step | None:
    """Say what to do about a transaction, or None to wait. `instead` is what its nonce should rather be used for now.

    A transaction counts as confirmed when `block + confirmations <= head + 1` (txmgr). A receipt that is gone, or in
    another block than before, is pending or mined anew. A nonce that was used without a receipt of ours counts as
    displaced only under enough blocks: another node behind the same address may not have the receipt yet.
    """
    receipt = next((chain.receipts[s.hash] for s in tx.signed if s.hash in chain.receipts), None)
    if receipt is not None:
        if receipt.block + confirmations <= chain.head.number + 1:
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
    if instead is not None:
        return Replace(instead)
    if now - tx.newest.at >= resubmission_timeout:
        return Bump()
    return Rebroadcast()


def is_next(tx: L1Transaction, chain: ChainSays) -> bool:
    """Whether it is pending with nothing of the account before it: the chain's state is then the one it will meet."""
    waits = tx.status is TxStatus.PENDING and chain.mined_nonce == tx.nonce
    return waits and not any(s.hash in chain.receipts for s in tx.signed)
