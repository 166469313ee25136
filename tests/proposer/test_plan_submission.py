"""Stage 6: the complete aggregation from the head that reaches furthest; one proposal at a time."""

from typing import Any

import pytest

from proposer.intents import Submission
from proposer.l1_transactions import Purpose, TxStatus
from proposer.plan_submission import blames_the_proof, plan_submission
from proposer.reasons import Code
from proposer.requests import ProofRequest, Status
from proposer.snapshot import Anchor
from proposer.units import L1Block
from tests.proposer.samples import THEIRS, action, aggregation, oracle, request, signed, snapshot, transaction

READY = aggregation(9, 0, 20, Status.COMPLETE)


def choice(*requests: ProofRequest, **more: Any) -> Submission:
    """What is proposed with an output due every 20 blocks."""
    contract = more.pop("contract", oracle(submission_interval=20))
    return plan_submission(snapshot(requests, contract=contract, **more), may_submit=True)


def test_the_one_that_reaches_furthest_is_proposed() -> None:
    others = [aggregation(8, 0, 20, Status.COMPLETE), aggregation(10, 0, 30, Status.COMPLETE)]
    assert choice(READY, *others) == Submission(10)


def test_of_equals_the_older_is_proposed() -> None:
    assert choice(READY, aggregation(10, 0, 20, Status.COMPLETE)) == Submission(9)


NOT_READY = {
    "still proving": aggregation(9, 0, 20, Status.PROVING),
    "relayed": aggregation(9, 0, 20, Status.RELAYED),
    "not from the head": aggregation(9, 5, 30, Status.COMPLETE),
    "short of the next output": aggregation(9, 0, 19, Status.COMPLETE),
    "other commitments": aggregation(9, 0, 20, Status.COMPLETE, commitments=THEIRS),
    "no checkpoint": aggregation(9, 0, 20, Status.COMPLETE, checkpoint=None),
    "a range": request(9, 0, 20, Status.COMPLETE),
}


@pytest.mark.parametrize("request_", NOT_READY.values(), ids=NOT_READY)
def test_nothing_else_is_proposed(request_: ProofRequest) -> None:
    assert choice(request_) == Submission()


def test_our_own_larger_interval_holds_back_nothing_that_is_paid_for() -> None:
    assert choice(READY, submission_interval=21) == Submission(9)


def test_without_permission_or_contract_nothing_is_proposed() -> None:
    assert plan_submission(snapshot([READY]), may_submit=False) == Submission()
    assert choice(READY, contract_read=False) == Submission()


PENDING = {
    "not mined": transaction(status=TxStatus.PENDING),
    "mined after the block that was read": transaction(status=TxStatus.MINED, block=L1Block(101)),
}


@pytest.mark.parametrize("tx", PENDING.values(), ids=PENDING)
def test_one_proposal_at_a_time(tx: Any) -> None:
    made = choice(READY, transactions=[tx])
    assert made.request is None
    assert [reason.code for reason in made.reasons] == [Code.PROPOSAL_PENDING]


def test_the_next_round_does_not_wait_for_confirmations() -> None:
    """A mined proposal that the pinned block has seen is in its head already."""
    assert choice(READY, transactions=[transaction(status=TxStatus.MINED, block=L1Block(100))]) == Submission(9)


def test_a_cancelled_proposal_is_none_once_the_cancel_is_mined() -> None:
    """Before that the proposal may still be mined."""
    forms = [signed(b"\x01" * 32), signed(b"\x02" * 32, does=action(Purpose.CANCEL))]
    assert choice(READY, transactions=[transaction(signed=forms)]).request is None
    mined = transaction(status=TxStatus.MINED, signed=forms, block=L1Block(101))
    assert choice(READY, transactions=[mined]) == Submission(9)


def test_one_whose_checkpoint_was_lost_in_a_reorg_waits_for_it() -> None:
    assert READY.checkpoint is not None
    number, hash_ = READY.checkpoint.number, READY.checkpoint.hash
    lost, kept = Anchor(None, hash_), Anchor(hash_, None)
    made = choice(READY, contract=oracle(submission_interval=20, anchors={number: lost}))
    assert made.request is None
    assert [reason.code for reason in made.reasons] == [Code.L1_REORG]
    assert choice(READY, contract=oracle(submission_interval=20, anchors={number: kept})) == Submission(9)


def test_a_checkpoint_under_way_does_not_hold_up_a_proposal() -> None:
    assert choice(READY, transactions=[transaction(Purpose.CHECKPOINT, subject=90)]) == Submission(9)


def test_what_the_l2_node_says_does_not_matter_here() -> None:
    """Settlement goes on while the node is away."""
    assert choice(READY, finalized=None) == Submission(9)


def test_one_that_was_mined_and_moved_nothing_is_not_sent_again_before_that_is_final() -> None:
    """It has reverted in its block: its proof may not be to blame, but each of these costs its gas."""
    mined = transaction(status=TxStatus.MINED, block=L1Block(100), request=READY.id)
    made = choice(READY, transactions=[mined])
    assert made.request is None
    assert [reason.code for reason in made.reasons] == [Code.PROPOSAL_PENDING]


@pytest.mark.parametrize("revert", ["execution reverted without data", "invalid opcode"])
def test_a_revert_without_a_name_blames_no_proof(revert: str) -> None:
    """The contract was upgraded, or the node hides the name: another proof would meet the same."""
    assert not blames_the_proof(revert)
    assert blames_the_proof("InvalidProof")
