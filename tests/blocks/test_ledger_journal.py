"""The journal of L1 transactions: every form of a nonce, what was mined of it, and what is anchored to it."""

from dataclasses import replace

import pytest

from blocks.ledger import Ledger
from proposer.errors import LedgerMoved
from proposer.fees import Fees
from proposer.intents import Move
from proposer.l1_transactions import Action, Purpose, Receipt, TxStatus
from proposer.ranges import BlockRange
from proposer.requests import Checkpoint, Commitments, Kind, NewRequest, Status
from proposer.units import L1Block, Wei

CHECKPOINT = Action(Purpose.CHECKPOINT, "0xthem", b"\x01\x02", 50_000, 123)
NOTHING = Action(Purpose.CANCEL, "0xme", b"", 21_000)
PROPOSAL = Action(Purpose.PROPOSE, "0xthem", b"\x03", 120_000)
FEES, HIGHER = Fees(Wei(10**9), Wei(2**70)), Fees(Wei(2 * 10**9), Wei(2**71))


def receipt(tx_hash: bytes, block: int = 130) -> Receipt:
    return Receipt(tx_hash, L1Block(block), b"\x13" * 32, succeeded=True, gas_used=20_999)


async def journal(
    ledger: Ledger, epoch: int, tx_hash: bytes, action: Action = CHECKPOINT, nonce: int = 4, request: int | None = None
) -> int:
    async with ledger.write(epoch) as writer:
        return await writer.journal(
            request=request, sender="0xme", nonce=nonce, signed=(tx_hash, b"raw" + tx_hash, FEES), action=action
        )


async def record(ledger: Ledger, epoch: int, number: int, status: TxStatus, mined: Receipt | None = None) -> None:
    async with ledger.write(epoch) as writer:
        await writer.record(number, status, mined)


async def aggregation(
    ledger: Ledger, epoch: int, start: int, checkpoint: int | None, status: Status = Status.UNREQ
) -> int:
    anchor = None if checkpoint is None else Checkpoint(L1Block(checkpoint), b"h" * 32)
    new = NewRequest(
        kind=Kind.AGG,
        range=BlockRange(start, start + 10),
        attempt=1,
        commitments=Commitments(b"r" * 32, b"a" * 32, b"c" * 32),
        checkpoint=anchor,
    )
    async with ledger.write(epoch) as writer:
        number = await writer.insert(new)
        if status is not Status.UNREQ:
            await writer.move(Move(number, Status.UNREQ, status, "test"))
        return number


async def test_the_journal_round_trips(ledger: Ledger, epoch: int) -> None:
    """Every signed form, oldest first, with what it does and fees beyond 64 bits; repeated, it is kept once."""
    number = await journal(ledger, epoch, b"h1")
    async with ledger.write(epoch) as writer:
        await writer.sign_again(number, (b"h2", b"raw2", HIGHER), NOTHING)
        await writer.sign_again(number, (b"h2", b"raw2", HIGHER), NOTHING)
    (tx,) = await ledger.transactions(unsettled=True)
    assert (tx.id, tx.sender, tx.nonce, tx.status) == (number, "0xme", 4, TxStatus.PENDING)
    assert [(s.hash, s.raw, s.fees, s.action) for s in tx.signed] == [
        (b"h1", b"rawh1", FEES, CHECKPOINT),
        (b"h2", b"raw2", HIGHER, NOTHING),
    ]
    assert (tx.action, tx.mined, tx.block, tx.block_hash) == (NOTHING, None, None, None)


async def test_what_is_mined_is_one_of_the_forms_until_a_reorg_takes_it_away(ledger: Ledger, epoch: int) -> None:
    number = await journal(ledger, epoch, b"h1")
    async with ledger.write(epoch) as writer:
        await writer.sign_again(number, (b"h2", b"raw2", HIGHER), NOTHING)
    await record(ledger, epoch, number, TxStatus.MINED, receipt(b"h1"))
    (mined,) = await ledger.transactions(unsettled=True)
    assert (mined.mined, mined.action, mined.block, mined.gas_used) == (b"h1", CHECKPOINT, 130, 20_999)
    await record(ledger, epoch, number, TxStatus.PENDING)
    (again,) = (await ledger.view(0)).transactions
    assert (again.status, again.mined, again.block, again.block_hash) == (TxStatus.PENDING, None, None, None)
    await record(ledger, epoch, number, TxStatus.CONFIRMED, receipt(b"h2"))
    assert await ledger.transactions(unsettled=True) == []
    (settled,) = await ledger.transactions(unsettled=False)
    assert (settled.status, settled.action) == (TxStatus.CONFIRMED, NOTHING)


async def test_a_displaced_nonce_can_be_used_again(ledger: Ledger, epoch: int) -> None:
    """One live transaction per nonce; a second one is refused by the database."""
    first = await journal(ledger, epoch, b"1")
    with pytest.raises(LedgerMoved, match="one_live_transaction_per_nonce"):
        await journal(ledger, epoch, b"2")
    await record(ledger, epoch, first, TxStatus.DISPLACED)
    await journal(ledger, epoch, b"2")
    assert [t.status for t in await ledger.transactions(unsettled=False)] == [TxStatus.DISPLACED, TxStatus.PENDING]


async def test_settled_transactions_beyond_the_chains_nonce_are_found(ledger: Ledger, epoch: int) -> None:
    """A reorg deeper than the confirmations has taken them away."""
    for nonce, status in enumerate((TxStatus.CONFIRMED, TxStatus.REVERTED, TxStatus.CONFIRMED, TxStatus.DISPLACED)):
        number = await journal(ledger, epoch, b"%d" % nonce, nonce=nonce)
        mined = None if status is TxStatus.DISPLACED else receipt(b"%d" % nonce)
        await record(ledger, epoch, number, status, mined)
    assert [t.nonce for t in await ledger.settled_from("0xme", 1)] == [1, 2]
    assert await ledger.settled_from("0xme", 4) == []
    assert await ledger.settled_from("0xother", 0) == []


async def test_anchors_are_those_of_live_aggregations_and_our_newest(ledger: Ledger, epoch: int) -> None:
    """Whether the contract still has them is for the chain to say."""
    for nonce, subject in enumerate((121, 122, 123)):
        tx_hash = b"c%d" % nonce
        number = await journal(ledger, epoch, tx_hash, replace(CHECKPOINT, subject=subject), nonce)
        await record(ledger, epoch, number, TxStatus.CONFIRMED, receipt(tx_hash))
    assert await ledger.anchors() == [122, 123]
    assert (await ledger.view(0)).checkpointed == [122, 123]
    await aggregation(ledger, epoch, 0, 77, Status.WITNESSGEN)
    await aggregation(ledger, epoch, 10, 78, Status.CANCELLED)
    assert await ledger.anchors() == [77, 122, 123]


async def test_what_was_mined_after_the_contract_was_read_is_not_settled_for_a_decision(
    ledger: Ledger, epoch: int
) -> None:
    number = await journal(ledger, epoch, b"h1")
    await record(ledger, epoch, number, TxStatus.CONFIRMED, receipt(b"h1", block=130))
    assert [t.id for t in (await ledger.view(0, 129)).transactions] == [number]
    assert (await ledger.view(0, 130)).transactions == []
    assert (await ledger.view(0)).transactions == []


async def test_a_checkpoint_whose_nonce_was_used_up_by_nothing_is_none(ledger: Ledger, epoch: int) -> None:
    number = await journal(ledger, epoch, b"h1")
    async with ledger.write(epoch) as writer:
        await writer.sign_again(number, (b"h2", b"raw2", HIGHER), NOTHING)
    await record(ledger, epoch, number, TxStatus.CONFIRMED, receipt(b"h2"))
    assert await ledger.anchors() == []


async def test_the_transaction_that_settled_an_aggregation_is_known_once_it_is_mined(
    ledger: Ledger, epoch: int
) -> None:
    request = await aggregation(ledger, epoch, 0, 77)
    number = await journal(ledger, epoch, b"p1", PROPOSAL, request=request)
    assert await ledger.proposed_by(request) is None
    await record(ledger, epoch, number, TxStatus.MINED, receipt(b"p1"))
    assert await ledger.proposed_by(request) == b"p1"
    assert await ledger.reverted_proposals(request) == 0
    await record(ledger, epoch, number, TxStatus.REVERTED, receipt(b"p1"))
    assert await ledger.reverted_proposals(request) == 1


async def test_a_proposal_whose_nonce_was_used_up_by_nothing_has_settled_nothing(ledger: Ledger, epoch: int) -> None:
    request = await aggregation(ledger, epoch, 0, 77)
    number = await journal(ledger, epoch, b"p1", PROPOSAL, request=request)
    async with ledger.write(epoch) as writer:
        await writer.sign_again(number, (b"h2", b"raw2", HIGHER), NOTHING)
    await record(ledger, epoch, number, TxStatus.CONFIRMED, receipt(b"h2"))
    assert await ledger.proposed_by(request) is None
