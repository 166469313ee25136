"""The virtual L1: blocks at fixed times, a contract head, and one account's transactions as the journal knows them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from proposer.fees import Fees
from proposer.l1_transactions import (
    UNSETTLED,
    Action,
    ChainSays,
    L1Transaction,
    Purpose,
    Receipt,
    Record,
    Signed,
    TxStatus,
    next_step,
)
from proposer.requests import Commitments
from proposer.settings import ProposerSettings
from proposer.simulation.clock import START, Clock, moment
from proposer.simulation.scenario import L1
from proposer.snapshot import Anchor, OracleView
from proposer.units import L1Block, L1Ref, L2Block, Wei

FIRST = 1_000_000
"""Number of the L1 block at the start."""
COMMITMENTS = Commitments(b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
_FREE = Fees(Wei(1), Wei(1))
_PATIENT = timedelta(days=366)
"""Every transaction pays enough to be mined in its next block, so none is sent again."""


def hash_of(number: int) -> bytes:
    """Return the hash of an L1 block: there are no reorgs here."""
    return number.to_bytes(32)


@dataclass(frozen=True, slots=True)
class _Mined:
    at: float
    receipt: Receipt


class VirtualL1:
    """What the proposer reads of L1 and sends to it."""

    def __init__(self, l1: L1, settings: ProposerSettings, clock: Clock) -> None:
        self._l1 = l1
        self._settings = settings
        self._clock = clock
        self.head = 0
        """The contract's latest block."""
        self.transactions: list[L1Transaction] = []
        """Unsettled ones."""
        self._mined: dict[bytes, _Mined] = {}
        self.stored: list[int] = []
        """L1 blocks of the newest checkpoints."""
        self._nonce = 0
        self._view: OracleView | None = None

    @property
    def block(self) -> int:
        """Number of the newest block."""
        return FIRST + math.floor(self._clock.now / self._l1.block_seconds + 1e-9)

    def next_block_at(self) -> float:
        """Return when the next block is made."""
        return (self.block - FIRST + 1) * self._l1.block_seconds

    def read(self) -> OracleView:
        """Look at the contract at the newest block."""
        at = self.block
        if self._view is not None and (self._view.at.number, self._view.latest_block) == (at, self.head):
            return self._view
        age = (at - FIRST) * self._l1.block_seconds
        safe = (at // self._l1.epoch_blocks - 1) * self._l1.epoch_blocks
        self._view = OracleView(
            at=L1Ref(L1Block(at), hash_of(at), int(START.timestamp() + age)),
            safe=L1Block(safe),
            latest_block=L2Block(self.head),
            latest_root=hash_of(self.head),
            submission_interval=self._l1.submission_interval,
            commitments=COMMITMENTS,
            optimistic=False,
            approved=True,
            finalization_period=0,
            balance=None,
            anchors={number: Anchor(hash_of(number), hash_of(number)) for number in self.stored},
        )
        return self._view

    def free(self) -> bool:
        """Whether the account may send: one unmined transaction at a time."""
        return all(tx.status is not TxStatus.PENDING for tx in self.transactions)

    def send(self, purpose: Purpose, request: int, subject: int | None, mined: Callable[[], None]) -> None:
        """Broadcast; `mined` runs when its block is made."""
        self._nonce += 1
        key = self._nonce.to_bytes(32)
        action = Action(purpose, "", b"", 0, subject)
        form = Signed(key, b"", _FREE, action, moment(self._clock.now))
        self.transactions.append(
            L1Transaction(
                id=self._nonce,
                request=request,
                sender="",
                nonce=self._nonce,
                status=TxStatus.PENDING,
                signed=(form,),
                created_at=moment(self._clock.now),
            )
        )
        ready = (self._clock.now + self._l1.inclusion_seconds) / self._l1.block_seconds
        number = max(FIRST + math.ceil(ready - 1e-9), self.block + 1)
        at = (number - FIRST) * self._l1.block_seconds

        def include() -> None:
            receipt = Receipt(key, L1Block(number), hash_of(number), succeeded=True, gas_used=0)
            self._mined[key] = _Mined(at, receipt)
            if subject is not None:
                self.stored = [*self.stored, subject][-2:]
            mined()

        self._clock.at(at, include)

    def tend(self) -> None:
        """Take each transaction a step on, by what the chain says of it."""
        if not self.transactions:
            return
        block = self.block
        says = ChainSays(
            head=L1Ref(L1Block(block), hash_of(block), 0),
            mined_nonce=0,
            settled_nonce=0,
            receipts={key: mined.receipt for key, mined in self._mined.items()},
        )
        for at, tx in enumerate(self.transactions):
            step = next_step(tx, says, self._settings.num_confirmations, _PATIENT, moment(self._clock.now))
            if isinstance(step, Record) and step.receipt is not None:
                receipt = step.receipt
                self.transactions[at] = replace(
                    tx, status=step.status, mined=receipt.hash, block=receipt.block, block_hash=receipt.block_hash
                )
        for tx in self.transactions:
            if tx.status not in UNSETTLED:
                del self._mined[tx.newest.hash]
        self.transactions = [tx for tx in self.transactions if tx.status in UNSETTLED]
