"""The life of an L1 transaction: what the journal and the chain say, and what follows."""

from datetime import timedelta

import pytest

from proposer.l1_transactions import (
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
from proposer.units import L1Block, L1Ref
from tests.proposer.samples import NOW, action, signed, transaction

OLD, NEW = b"\xaa" * 32, b"\xbb" * 32
BLOCK, SIBLING = b"\x01" * 32, b"\x02" * 32


def receipt(tx_hash: bytes = OLD, block: int = 100, block_hash: bytes = BLOCK, *, succeeded: bool = True) -> Receipt:
    return Receipt(tx_hash, L1Block(block), block_hash, succeeded, 50_000)


def chain(*receipts: Receipt, head: int = 100, mined_nonce: int = 7, settled_nonce: int = 7) -> ChainSays:
    """The chain at `head`; the transaction of every test has nonce 7."""
    return ChainSays(L1Ref(L1Block(head), BLOCK, 0), mined_nonce, settled_nonce, {r.hash: r for r in receipts})


PENDING = transaction()
LATE = transaction(signed=[signed(OLD, 48)])
BUMPED = transaction(signed=[signed(OLD, 60), signed(NEW, 12)])
BUMPED_LATE = transaction(signed=[signed(OLD, 96), signed(NEW, 48)])
MINED = transaction(status=TxStatus.MINED, block=L1Block(100), block_hash=BLOCK)

LIFE: dict[str, tuple[L1Transaction, ChainSays, Step | None]] = {
    "not mined yet: the very same bytes again": (PENDING, chain(), Rebroadcast()),
    "not mined for 48 s: bumped": (LATE, chain(), Bump()),
    "bumped lately: the newest bytes again": (BUMPED, chain(), Rebroadcast()),
    "bumped 48 s ago: bumped again": (BUMPED_LATE, chain(), Bump()),
    "mined": (PENDING, chain(receipt(), mined_nonce=8), Record(TxStatus.MINED, receipt())),
    "mined in its newer form": (BUMPED, chain(receipt(NEW)), Record(TxStatus.MINED, receipt(NEW))),
    "mined in its older form": (BUMPED, chain(receipt(OLD)), Record(TxStatus.MINED, receipt(OLD))),
    "mined, waiting for confirmations": (MINED, chain(receipt(), head=108, mined_nonce=8), None),
    "confirmed, the including block counted": (
        MINED,
        chain(receipt(), head=109, mined_nonce=8),
        Record(TxStatus.CONFIRMED, receipt()),
    ),
    "confirmed at first sight": (PENDING, chain(receipt(), head=200), Record(TxStatus.CONFIRMED, receipt())),
    "mined and reverted: not final yet": (
        PENDING,
        chain(receipt(succeeded=False)),
        Record(TxStatus.MINED, receipt(succeeded=False)),
    ),
    "reverted under enough blocks": (
        MINED,
        chain(receipt(succeeded=False), head=109),
        Record(TxStatus.REVERTED, receipt(succeeded=False)),
    ),
    "receipt lost in a reorg: pending again": (MINED, chain(mined_nonce=7), Record(TxStatus.PENDING)),
    "receipt moved to another block: mined anew": (
        MINED,
        chain(receipt(block=101, block_hash=SIBLING), head=105),
        Record(TxStatus.MINED, receipt(block=101, block_hash=SIBLING)),
    ),
    "receipt in a sibling of the same number": (
        MINED,
        chain(receipt(block_hash=SIBLING), head=105),
        Record(TxStatus.MINED, receipt(block_hash=SIBLING)),
    ),
    "its nonce used by none of our hashes": (
        PENDING,
        chain(mined_nonce=8, settled_nonce=8),
        Record(TxStatus.DISPLACED),
    ),
    "its nonce used just now, the receipt may lag": (PENDING, chain(mined_nonce=8), None),
    "its nonce used although a bump was due: no bump": (LATE, chain(mined_nonce=8), None),
    "an earlier nonce is still missing": (PENDING, chain(mined_nonce=5), Rebroadcast()),
    "lost in a reorg and its nonce used: first pending": (MINED, chain(mined_nonce=8), Record(TxStatus.PENDING)),
    "a receipt of another transaction": (PENDING, chain(receipt(NEW)), Rebroadcast()),
}


@pytest.mark.parametrize(("tx", "says", "step"), LIFE.values(), ids=LIFE)
def test_what_follows(tx: L1Transaction, says: ChainSays, step: Step | None) -> None:
    assert next_step(tx, says, 10, timedelta(seconds=48), NOW) == step


NOTHING = action(Purpose.CANCEL)
INSTEAD: dict[str, tuple[L1Transaction, ChainSays, Step | None]] = {
    "not mined: replaced at once": (PENDING, chain(), Replace(NOTHING)),
    "a bump is due as well: replaced, which is dearer too": (LATE, chain(), Replace(NOTHING)),
    "mined all the same": (PENDING, chain(receipt()), Record(TxStatus.MINED, receipt())),
    "its nonce is used: nothing to replace": (PENDING, chain(mined_nonce=8), None),
    "just lost in a reorg: first pending": (MINED, chain(), Record(TxStatus.PENDING)),
}


@pytest.mark.parametrize(("tx", "says", "step"), INSTEAD.values(), ids=INSTEAD)
def test_what_follows_where_the_nonce_has_a_better_use(tx: L1Transaction, says: ChainSays, step: Step | None) -> None:
    assert next_step(tx, says, 10, timedelta(seconds=48), NOW, NOTHING) == step


NEXT = {
    "nothing before it": (PENDING, chain(), True),
    "an earlier one is not mined yet": (PENDING, chain(mined_nonce=6), False),
    "mined": (PENDING, chain(receipt()), False),
    "its nonce is used": (PENDING, chain(mined_nonce=8), False),
    "not pending": (MINED, chain(), False),
}


@pytest.mark.parametrize(("tx", "says", "yes"), NEXT.values(), ids=NEXT)
def test_only_the_next_of_an_account_is_simulated_anew(tx: L1Transaction, says: ChainSays, yes: bool) -> None:
    """One with others before it would meet a state that is not there yet."""
    assert is_next(tx, says) is yes


def test_what_a_transaction_does_is_what_its_mined_form_does() -> None:
    """A proposal whose nonce was used up by nothing has proposed nothing; before that is mined it still may."""
    forms = [signed(OLD), signed(NEW, does=NOTHING)]
    waits = transaction(signed=forms)
    assert (waits.action, waits.may_propose) == (NOTHING, True)
    cancelled = transaction(status=TxStatus.MINED, signed=forms, mined=NEW)
    assert (cancelled.action, cancelled.may_propose) == (NOTHING, False)
    proposed = transaction(status=TxStatus.MINED, signed=forms, mined=OLD)
    assert (proposed.action, proposed.may_propose) == (action(), True)


def test_a_checkpoint_needs_one_confirmation() -> None:
    """The block that includes it."""
    step = next_step(PENDING, chain(receipt()), 1, timedelta(seconds=48), NOW)
    assert step == Record(TxStatus.CONFIRMED, receipt())


def test_a_whole_life_with_a_reorg() -> None:
    """Mined, reorganised away, mined in another block, confirmed: each look records exactly one change."""
    looks = [
        (chain(), "Rebroadcast"),
        (chain(receipt()), TxStatus.MINED),
        (chain(receipt(), head=101), None),
        (chain(head=101), TxStatus.PENDING),
        (chain(head=101), "Rebroadcast"),
        (chain(receipt(block=102, block_hash=SIBLING), head=102), TxStatus.MINED),
        (chain(receipt(block=102, block_hash=SIBLING), head=110), None),
        (chain(receipt(block=102, block_hash=SIBLING), head=111), TxStatus.CONFIRMED),
    ]
    tx = PENDING
    for says, expected in looks:
        step = next_step(tx, says, 10, timedelta(seconds=48), NOW)
        if isinstance(step, Record):
            seen = step.receipt
            tx = transaction(
                status=step.status, block=seen.block if seen else None, block_hash=seen.block_hash if seen else None
            )
        assert (step.status if isinstance(step, Record) else type(step).__name__ if step else None) == expected
