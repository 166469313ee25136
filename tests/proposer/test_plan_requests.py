"""Stage 5: every free slot at once, neither kind starves the other, an aggregation first gets its checkpoint."""

from datetime import timedelta
from typing import Any

import pytest

from proposer.intents import Requests
from proposer.l1_transactions import Purpose, TxStatus
from proposer.plan_requests import anchor_floor, plan_requests, reusable
from proposer.reasons import Code
from proposer.requests import Checkpoint, Failure, ProofRequest, Status
from proposer.units import L1Block
from tests.proposer.samples import NOW, aggregation, oracle, request, snapshot, transaction


def plan(*requests: ProofRequest, stored: tuple[int, ...] = (), **more: Any) -> Requests:
    return plan_requests(snapshot(requests, **more), True, stored)


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
    assert plan_requests(snapshot(queue(3)), False, ()) == Requests()


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
    assert made == Requests((), ((9, 95),))


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
    contract = oracle(at=type(at)(L1Block(head), at.hash, 0), safe=L1Block(95))
    assert plan(*members(80, 90), agg(), contract=contract).checkpoint == ((9, anchor),)


def test_a_stored_checkpoint_that_serves_is_reused() -> None:
    assert plan(*members(80, 90), agg(), stored=(89, 91, 95)).start == (9,)
    assert reusable(90, (89, 91, 95)) == 91
    assert reusable(96, (89, 91, 95)) is None


def test_one_that_has_its_checkpoint_is_requested() -> None:
    made = plan(*members(80, 90), agg(checkpoint=Checkpoint(L1Block(95), b"h")))
    assert made == Requests((9,))


@pytest.mark.parametrize("status", [TxStatus.PENDING, TxStatus.MINED])
def test_no_second_checkpoint_while_one_that_serves_is_under_way(status: TxStatus) -> None:
    pending = transaction(Purpose.CHECKPOINT, status, subject=93)
    made = plan(*members(80, 90), agg(), transactions=[pending])
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.CHECKPOINT_PENDING])


def test_a_chain_that_makes_blocks_on_demand_is_not_waited_for() -> None:
    """A local devnet makes its next block for the checkpoint's own transaction."""
    at = oracle().at
    old = oracle(at=type(at)(at.number, at.hash, at.timestamp - 31))
    assert plan(*members(80, 100), agg(), contract=old).checkpoint == ((9, 100),)


def test_a_checkpoint_under_way_that_is_too_old_does_not_serve() -> None:
    pending = transaction(Purpose.CHECKPOINT, subject=89)
    assert plan(*members(80, 90), agg(), transactions=[pending]).checkpoint == ((9, 95),)


def test_a_member_whose_l1_head_is_unknown_is_waited_for() -> None:
    made = plan(*members(80, None), agg(), stored=(95,))
    assert (made.start, made.checkpoint, codes(made)) == ((), (), [Code.SAFE_HEAD_UNKNOWN])


def test_without_the_contract_there_is_no_new_anchor_but_a_stored_one_serves() -> None:
    made = plan(*members(80, 90), agg(), contract_read=False)
    assert (made.checkpoint, codes(made)) == ((), [Code.SAFE_HEAD_UNKNOWN])
    assert plan(*members(80, 90), agg(), contract_read=False, stored=(92,)).start == (9,)


def test_one_refused_in_simulation_gets_a_newer_checkpoint() -> None:
    refused = agg(
        8, status=Status.FAILED, failure=Failure.REFUSED_IN_SIMULATION, checkpoint=Checkpoint(L1Block(93), b"h")
    )
    snap = snapshot([*members(80, 90), agg(attempt=2)], attempts_above=[refused])
    assert anchor_floor(snap, agg(attempt=2)) == 94
    assert plan_requests(snap, True, (93,)).checkpoint == ((9, 95),)


def test_aggregations_have_a_budget_of_their_own() -> None:
    """Full range slots do not starve them, nor they the ranges."""
    busy = [request(50 + i, 500 + 10 * i, 510 + 10 * i, Status.WITNESSGEN) for i in range(5)]
    lines = [aggregation(20 + i, 1000 * i, 1000 * i + 20, checkpoint=Checkpoint(L1Block(95), b"h")) for i in range(3)]
    assert plan(*busy, *queue(2), *lines).start == (20, 21)
    proving = [aggregation(30 + i, 5000 + i, 6000, Status.PROVING) for i in range(2)]
    assert plan(*proving, *queue(2), *lines).start == (100, 101)
