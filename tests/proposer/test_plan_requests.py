"""Stage 5: every free slot at once, neither kind starves the other, an aggregation first gets its checkpoint."""

from datetime import timedelta
from typing import Any

import pytest

from proposer.intents import Requests
from proposer.l1_transactions import Purpose, TxStatus
from proposer.plan_requests import anchor_floor, plan_requests, replacement
from proposer.reasons import Code
from proposer.requests import Checkpoint, Failure, ProofRequest, Status
from proposer.snapshot import Anchor
from proposer.units import L1Block, L1Ref
from tests.proposer.samples import NOW, aggregation, oracle, request, snapshot, stored, transaction

HASH = b"h" * 32


def plan(*requests: ProofRequest, anchors: tuple[int, ...] = (), **more: Any) -> Requests:
    return plan_requests(snapshot(requests, **({"contract": oracle(anchors=stored(*anchors))} | more)), True)


def codes(made: Requests) -> list[Code]:
    return [reason.code for reason in made.reasons]


def queue(count: int, first: int = 100) -> list[ProofRequest]:
    """Waiting ranges, in no order."""
    return [request(first + i, 1000 + 10 * i, 1010 + 10 * i) for i in reversed(range(count))]


SLOTS = {
    # witness cap, total cap, in WITNESSGEN, in PROVING, started of 30 waiting
    "all of them in one cycle": (20, 20, 0, 0, 20),
    "as many as the witness cap": (5, 20, 0, 0, 5),
    "witnesses under way count": (5, 20, 2, 0, 3),
    "proving ones count for the total": (5, 20, 0, 18, 2),
    "both count for the total": (5, 10, 3, 6, 1),
    "none free": (5, 20, 5, 0, 0),
    "a cap that was lowered": (2, 3, 4, 5, 0),
}


@pytest.mark.parametrize(("witness", "total", "generating", "proving", "started"), SLOTS.values(), ids=SLOTS)
def test_free_slots_are_filled_lowest_blocks_first(
    witness: int, total: int, generating: int, proving: int, started: int
) -> None:
    busy = [request(1 + i, 10 * i, 10 * i + 10, Status.WITNESSGEN) for i in range(generating)]
    busy += [request(50 + i, 500 + 10 * i, 510 + 10 * i, Status.PROVING) for i in range(proving)]
    made = plan(*busy, *queue(30), max_witness_gen=witness, max_proof_requests=total)
    assert made.start == tuple(range(100, 100 + started))
    assert codes(made) == [Code.SLOTS_FULL]
    assert made.reasons[0].facts["waiting"] == 30 - started


def test_a_queue_that_fits_leaves_no_reason() -> None:
    assert plan(*queue(3)) == Requests((100, 101, 102))


def test_a_paused_proposer_requests_nothing() -> None:
    assert plan_requests(snapshot(queue(3)), False) == Requests()


def test_a_retry_waits_out_its_back_off_without_holding_up_others() -> None:
    waiting = request(1, 0, 10, next_attempt_at=NOW + timedelta(seconds=30), attempt=2)
    made = plan(waiting, request(2, 10, 20, next_attempt_at=NOW), max_witness_gen=1)
    assert made.start == (2,)
    assert codes(made) == [Code.BACKING_OFF]
    assert "30 s before attempt 2" in made.reasons[0].sentence


@pytest.mark.parametrize("status", [Status.PARKED, Status.FAILED, Status.CANCELLED, Status.COMPLETE])
def test_only_what_is_planned_is_requested(status: Status) -> None:
    assert plan(request(1, 0, 10, status)) == Requests()


# -- aggregations


def members(*heads: int | None) -> list[ProofRequest]:
    return [request(1 + i, 10 * i, 10 * i + 10, Status.COMPLETE, l1_head=h) for i, h in enumerate(heads)]


def agg(number: int = 9, **changes: Any) -> ProofRequest:
    return aggregation(number, 0, 20, **({"members": (1, 2)} | changes))


def test_an_aggregation_is_first_anchored_to_the_newest_safe_block() -> None:
    made = plan(*members(80, 90), agg())
    assert made == Requests(checkpoint=((9, 95),))


def test_the_anchor_is_not_below_any_head_in_its_proofs() -> None:
    assert plan(*members(80, 98), agg()).checkpoint == ((9, 98),)


def test_a_node_without_a_safe_head_anchors_to_the_proofs() -> None:
    assert plan(*members(80, 90), agg(), contract=oracle(safe=None)).checkpoint == ((9, 90),)


def test_the_newest_block_cannot_be_looked_up_yet() -> None:
    made = plan(*members(80, 100), agg())
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.CHECKPOINT_PENDING])


@pytest.mark.parametrize(("head", "anchor"), [(287, 95), (288, 160), (1000, 872)])
def test_an_anchor_about_to_leave_the_256_block_window_is_taken_newer(head: int, anchor: int) -> None:
    """64 blocks of the window are kept for the transaction to be mined in."""
    at = oracle().at
    contract = oracle(at=L1Ref(L1Block(head), at.hash, 0), safe=L1Block(95))
    assert plan(*members(80, 90), agg(), contract=contract).checkpoint == ((9, anchor),)


def test_a_stored_checkpoint_that_serves_is_reused() -> None:
    made = plan(*members(80, 90), agg(), anchors=(89, 91, 95))
    assert (made.start, made.anchors, made.checkpoint) == ((9,), {9: Checkpoint(L1Block(91), HASH)}, ())
    assert plan(*members(80, 97), agg(), anchors=(89, 91, 95)).checkpoint == ((9, 97),)


def test_one_that_has_its_checkpoint_is_requested() -> None:
    own = Checkpoint(L1Block(95), HASH)
    made = plan(*members(80, 90), agg(checkpoint=own), anchors=(91, 95))
    assert made == Requests((9,), {9: own})


def test_a_checkpoint_that_was_lost_or_changed_in_a_reorg_is_not_used() -> None:
    """The hash that counts is the contract's, at the block that everything else is read at."""
    own = agg(checkpoint=Checkpoint(L1Block(95), b"other" * 6 + b"oo"))
    assert plan(*members(80, 90), own, anchors=(95,)).anchors == {9: Checkpoint(L1Block(95), HASH)}
    gone = oracle(anchors={95: Anchor(None, HASH)})
    assert plan(*members(80, 90), own, contract=gone).checkpoint == ((9, 95),)


LOST = {
    "mined no longer: the same block is checkpointed again": (Anchor(None, HASH), 100, ((9, 95),)),
    "still stored": (Anchor(HASH, None), 100, ()),
    "its block was reorganised, too: nothing can be done": (Anchor(None, b"x" * 32), 100, ()),
    "its block is too old to be checkpointed again": (Anchor(None, HASH), 288, ()),
}


@pytest.mark.parametrize("status", [Status.WITNESSGEN, Status.PROVING, Status.COMPLETE])
@pytest.mark.parametrize(("anchor", "head", "checkpoint"), LOST.values(), ids=LOST)
def test_a_paid_aggregation_gets_its_lost_checkpoint_again(
    anchor: Anchor, head: int, checkpoint: tuple[Any, ...], status: Status
) -> None:
    """Whether new requests are allowed or not: its proof is good, and only the transaction is gone."""
    paid = agg(status=status, checkpoint=Checkpoint(L1Block(95), HASH))
    contract = oracle(at=L1Ref(L1Block(head), HASH, 0), anchors={95: anchor})
    snap = snapshot([*members(80, 90), paid], contract=contract)
    assert plan_requests(snap, False).checkpoint == checkpoint
    assert plan_requests(snap, True).checkpoint == checkpoint


def test_a_lost_checkpoint_that_is_under_way_again_is_waited_for() -> None:
    paid = agg(status=Status.COMPLETE, checkpoint=Checkpoint(L1Block(95), HASH))
    pending = transaction(Purpose.CHECKPOINT, subject=95)
    contract = oracle(anchors={95: Anchor(None, HASH)})
    assert plan(*members(80, 90), paid, contract=contract, transactions=[pending]).checkpoint == ()


@pytest.mark.parametrize(
    ("head", "safe", "newer"), [(287, 200, None), (288, 200, 200), (288, 100, 160), (288, None, 160)]
)
def test_a_checkpoint_that_leaves_the_window_unmined_is_replaced(head: int, safe: int | None, newer: int) -> None:
    """By the newest safe block, or one of the middle of the window: later than every member's L1 head."""
    assert replacement(transaction(Purpose.CHECKPOINT, subject=95), head, safe) == newer
    assert replacement(transaction(), head, safe) is None


@pytest.mark.parametrize("status", [TxStatus.PENDING, TxStatus.MINED])
def test_no_second_checkpoint_while_one_that_serves_is_under_way(status: TxStatus) -> None:
    pending = transaction(Purpose.CHECKPOINT, status, subject=93)
    made = plan(*members(80, 90), agg(), transactions=[pending])
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.CHECKPOINT_PENDING])


def test_a_chain_that_makes_blocks_on_demand_is_not_waited_for() -> None:
    """A local devnet makes its next block for the checkpoint's own transaction."""
    at = oracle().at
    old = oracle(at=L1Ref(at.number, at.hash, at.timestamp - 31))
    assert plan(*members(80, 100), agg(), contract=old).checkpoint == ((9, 100),)


def test_one_that_was_mined_after_the_contract_was_read_is_waited_for() -> None:
    """A second one would be paid for nothing."""
    made = plan(*members(80, 90), agg(), checkpointed=(93,), anchors=(89,))
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.CHECKPOINT_PENDING])
    assert plan(*members(80, 90), agg(), checkpointed=(89,)).checkpoint == ((9, 95),), "too old to serve"
    gone = oracle(anchors={93: Anchor(None, HASH)})
    assert plan(*members(80, 90), agg(), checkpointed=(93,), contract=gone).checkpoint == ((9, 95),), "lost since"


def test_the_newest_block_is_not_waited_for_where_the_one_before_serves() -> None:
    """Where the safe block is the very tip the one before it can be checkpointed at once."""
    assert plan(*members(80, 90), agg(), contract=oracle(safe=L1Block(100))).checkpoint == ((9, 99),)


def test_a_checkpoint_under_way_that_is_too_old_does_not_serve() -> None:
    pending = transaction(Purpose.CHECKPOINT, subject=89)
    assert plan(*members(80, 90), agg(), transactions=[pending]).checkpoint == ((9, 95),)


def test_a_member_whose_l1_head_is_unknown_is_waited_for() -> None:
    made = plan(*members(80, None), agg(), anchors=(95,))
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.SAFE_HEAD_UNKNOWN])


def test_without_the_contract_there_is_no_anchor() -> None:
    made = plan(*members(80, 90), agg(), contract_read=False)
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.SAFE_HEAD_UNKNOWN])


@pytest.mark.parametrize("failure", [Failure.REFUSED_IN_SIMULATION, Failure.REFUSED_BY_CONTRACT])
def test_one_that_was_refused_gets_a_newer_checkpoint(failure: Failure) -> None:
    """A shorter chain, tried to find the culprit, may use the one that the whole was refused with."""
    refused = agg(8, status=Status.FAILED, failure=failure, checkpoint=Checkpoint(L1Block(93), HASH))
    contract = oracle(anchors=stored(93))
    snap = snapshot([*members(80, 90), agg()], contract=contract, attempts_above=[refused])
    assert anchor_floor(snap, agg()) == 94
    assert plan_requests(snap, True).checkpoint == ((9, 95),)
    shorter = snapshot([*members(80, 90), agg(members=(1,))], contract=contract, attempts_above=[refused])
    assert plan_requests(shorter, True).start == (9,)


def test_aggregations_have_a_budget_of_their_own() -> None:
    """Full range slots do not starve them, nor they the ranges."""
    busy = [request(50 + i, 500 + 10 * i, 510 + 10 * i, Status.WITNESSGEN) for i in range(5)]
    lines = [aggregation(20 + i, 1000 * i, 1000 * i + 20, checkpoint=Checkpoint(L1Block(95), HASH)) for i in range(3)]
    assert plan(*busy, *queue(2), *lines, anchors=(95,)).start == (20, 21)
    proving = [aggregation(30 + i, 5000 + i, 6000, Status.PROVING) for i in range(2)]
    assert plan(*proving, *queue(2), *lines, anchors=(95,)).start == (100, 101)
