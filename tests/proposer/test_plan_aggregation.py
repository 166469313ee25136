"""Stage 4: aggregate as soon as the proven chain reaches the next required block; drop what can never be submitted."""

from itertools import pairwise
from typing import Any

import pytest

from proposer.intents import Plan
from proposer.plan_aggregation import plan_aggregation
from proposer.ranges import BlockRange
from proposer.reasons import Code
from proposer.requests import Failure, Kind, ProofRequest, Status
from proposer.snapshot import Anchor, OracleView
from proposer.units import L1Block, L1Ref
from tests.proposer.samples import OURS, THEIRS, aggregation, oracle, request, snapshot


def plan(*requests: ProofRequest, contract: OracleView | None = None, may_request: bool = True, **more: Any) -> Plan:
    """The plan with an output due every 20 blocks."""
    contract = contract or oracle(submission_interval=20)
    return plan_aggregation(snapshot(requests, contract=contract, finalized=100, **more), may_request)


def proven(*edges: int, first: int = 1, **changes: Any) -> list[ProofRequest]:
    """Proven neighbours between these block numbers."""
    pairs = pairwise(edges)
    return [request(first + i, a, b, Status.COMPLETE, **changes) for i, (a, b) in enumerate(pairs)]


def made(plan: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(str(new.range), new.members) for new in plan.inserts]


def cancelled(plan: Plan) -> dict[int, str]:
    assert {move.to for move in plan.moves} <= {Status.CANCELLED}
    assert {move.failure for move in plan.moves} <= {Failure.SUPERSEDED}
    return {move.request: move.why for move in plan.moves}


def codes(plan: Plan) -> list[Code]:
    return [reason.code for reason in plan.reasons]


def test_the_chain_is_aggregated_once_it_reaches_the_next_output() -> None:
    result = plan(*proven(0, 10, 20, 30))
    assert made(result) == [("0→30", (1, 2, 3))]
    new = result.inserts[0]
    assert (new.kind, new.attempt, new.status, new.commitments) == (Kind.AGG, 1, Status.UNREQ, OURS)
    assert new.why == "chain of 3 range proofs"


def test_a_chain_that_is_too_short_waits_for_the_range_in_its_way() -> None:
    result = plan(*proven(0, 10), request(7, 10, 20, Status.PROVING), *proven(20, 30, first=8))
    assert result.inserts == ()
    assert codes(result) == [Code.WAITING_FOR_PROOFS]
    assert result.reasons[0].facts == {"reach": 10, "required": 20, "request": 7}


def test_a_parked_range_in_the_way_is_named_with_its_remedy() -> None:
    result = plan(*proven(0, 10), request(7, 10, 20, Status.PARKED, attempt=6))
    assert codes(result) == [Code.REQUEST_PARKED]
    assert "proposer retry 7" in result.reasons[0].remedy


def test_without_the_contract_nothing_is_decided() -> None:
    assert plan_aggregation(snapshot(proven(0, 10, 20), contract_read=False), True) == Plan()


def test_a_paused_proposer_derives_nothing() -> None:
    assert plan(*proven(0, 10, 20), may_request=False) == Plan()


def test_proofs_of_other_commitments_are_no_part_of_a_chain() -> None:
    assert plan(*proven(0, 10, 20, commitments=THEIRS)).inserts == ()


def test_the_member_limit_shortens_a_long_chain() -> None:
    assert made(plan(*proven(0, 10, 20, 30, 40), max_aggregation_members=3)) == [("0→30", (1, 2, 3))]


def test_the_member_limit_yields_to_the_next_output() -> None:
    """Found by the state machine: with small (halved) ranges and a large interval nothing was settled ever again."""
    result = plan(*proven(0, 5, 10, 15, 20, 25), max_aggregation_members=2)
    assert made(result) == [("0→20", (1, 2, 3, 4))]


def test_the_header_limit_shortens_a_chain_of_old_and_new_proofs() -> None:
    old, new = proven(0, 10, 20, l1_head=1), proven(20, 30, first=3, l1_head=95)
    assert made(plan(*old, *new, contract=oracle(submission_interval=20, safe=50), max_aggregation_headers=60)) == [
        ("0→20", (1, 2))
    ]


def test_the_header_limit_yields_to_the_next_output() -> None:
    """Found in review: proofs a day apart that both count for one output were never aggregated, without a reason."""
    old, new = proven(0, 10, l1_head=1), proven(10, 20, first=2, l1_head=95)
    assert made(plan(*old, *new, max_aggregation_headers=60)) == [("0→20", (1, 2))]


def test_the_header_limit_does_not_shorten_where_that_cannot_help() -> None:
    """The safe block, at or above which the checkpoint lies, is as far from one old proof as from ten."""
    assert made(plan(*proven(0, 10, 20, 30, l1_head=1), max_aggregation_headers=60)) == [("0→30", (1, 2, 3))]


# -- the line


def test_the_next_is_planned_while_one_proves() -> None:
    ranges = proven(0, 10, 20, 30, 40)
    result = plan(*ranges, aggregation(9, 0, 20, Status.PROVING, members=(1, 2)))
    assert made(result) == [("20→40", (3, 4))]


def test_no_more_than_the_budget_are_under_way() -> None:
    ranges = proven(0, 10, 20, 30, 40, 50, 60)
    line = [
        aggregation(8, 0, 20, Status.PROVING, members=(1, 2)),
        aggregation(9, 20, 40, Status.UNREQ, members=(3, 4)),
    ]
    result = plan(*ranges, *line)
    assert (result.moves, result.inserts) == ((), ())
    assert codes(result) == [Code.AGGREGATION_UNDER_WAY] * 2


def test_a_complete_one_takes_no_budget() -> None:
    ranges = proven(0, 10, 20, 30, 40)
    result = plan(*ranges, aggregation(8, 0, 20, Status.COMPLETE, members=(1, 2)), max_aggregations=1)
    assert made(result) == [("20→40", (3, 4))]


def test_a_proof_that_came_late_wins_over_its_open_twin() -> None:
    result = plan(
        *proven(0, 10, 20),
        aggregation(8, 0, 20, Status.COMPLETE, members=(1, 2)),
        aggregation(9, 0, 20, Status.UNREQ, members=(1, 2)),
    )
    assert list(cancelled(result)) == [9]


def test_one_that_does_not_follow_from_the_head_is_cancelled() -> None:
    result = plan(*proven(40, 50, 60), aggregation(9, 40, 60, members=(1, 2)))
    assert "does not follow" in cancelled(result)[9]


@pytest.mark.parametrize("status", [Status.WITNESSGEN, Status.PROVING, Status.COMPLETE])
def test_one_that_is_paid_for_goes_on_until_its_predecessor_is_rebuilt(status: Status) -> None:
    """The aggregation before it failed: what replaces it may end at the same block."""
    result = plan(*proven(40, 50, 60), aggregation(9, 40, 60, status, members=(1, 2)))
    assert cancelled(result) == {}


# -- never submittable


GONE = {
    "another hash is stored": (Anchor(b"x" * 32, None), 100),
    "nothing is stored and the block is gone": (Anchor(None, b"x" * 32), 100),
    "nothing is stored and the block is too old": (Anchor(None, b"\x95" * 32), 288),
}
STANDS = {
    "it is stored": (Anchor(b"\x95" * 32, None), 500),
    "it can be made again": (Anchor(None, b"\x95" * 32), 100),
}


@pytest.mark.parametrize("status", [Status.PROVING, Status.COMPLETE])
@pytest.mark.parametrize(("anchor", "at"), [*GONE.values(), *STANDS.values()], ids=[*GONE, *STANDS])
def test_one_whose_checkpoint_is_gone_for_good_is_cancelled_and_built_anew(
    anchor: Anchor, at: int, status: Status
) -> None:
    """L1 was reorganised; its proof is bound to a hash that the contract will never have."""
    contract = oracle(submission_interval=20, at=L1Ref(L1Block(at), b"a" * 32, 0), anchors={95: anchor})
    bound = aggregation(9, 0, 20, status, members=(1, 2))
    result = plan_aggregation(snapshot([*proven(0, 10, 20), bound], contract=contract, finalized=20), True)
    gone = (anchor, at) in GONE.values()
    assert list(cancelled(result)) == ([9] if gone else [])
    assert [new.range for new in result.inserts] == ([bound.range] if gone else [])


def test_a_moved_head_cancels_even_a_complete_one() -> None:
    contract = oracle(5, submission_interval=20)
    result = plan(*proven(0, 10, 20), aggregation(9, 0, 20, Status.COMPLETE, members=(1, 2)), contract=contract)
    assert cancelled(result) == {9: "the contract head moved to 5"}


def test_a_relayed_one_is_left_to_stage_1() -> None:
    contract = oracle(20, submission_interval=20)
    assert plan(aggregation(9, 0, 20, Status.COMPLETE), contract=contract).moves == ()


def test_a_raised_interval_cancels_and_replaces_in_one_plan() -> None:
    contract = oracle(submission_interval=30)
    result = plan(*proven(0, 10, 20, 30), aggregation(9, 0, 20, Status.COMPLETE, members=(1, 2)), contract=contract)
    assert "submission interval was raised" in cancelled(result)[9]
    assert made(result) == [("0→30", (1, 2, 3))]


@pytest.mark.parametrize("status", [Status.UNREQ, Status.PARKED, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE])
def test_our_own_larger_interval_replaces_only_what_is_not_paid_for(status: Status) -> None:
    """The contract takes the shorter one; the next one is as long as the settings say."""
    contract = oracle(submission_interval=20)
    ready = aggregation(9, 0, 20, status, members=(1, 2))
    result = plan(*proven(0, 10, 20, 30), ready, contract=contract, submission_interval=30)
    if status in {Status.UNREQ, Status.PARKED}:
        assert "submission interval was raised" in cancelled(result)[9]
        assert made(result) == [("0→30", (1, 2, 3))]
    else:
        assert cancelled(result) == {}
        assert made(result) == []


def test_changed_commitments_cancel_once_the_server_has_them_too() -> None:
    theirs = aggregation(9, 0, 20, Status.COMPLETE, commitments=THEIRS)
    assert cancelled(plan(theirs)) == {9: "the contract's commitments changed"}
    assert plan(theirs, may_request=False).moves == ()


def test_a_member_whose_proof_is_gone_cancels_what_was_not_proven_yet() -> None:
    """What is complete has its proof whatever became of the members."""
    ranges = [*proven(0, 10), request(2, 10, 20, Status.PROVING)]
    assert "no longer valid" in cancelled(plan(*ranges, aggregation(9, 0, 20, Status.UNREQ, members=(1, 2))))[9]
    assert plan(*ranges, aggregation(9, 0, 20, Status.COMPLETE, members=(1, 2))).moves == ()


# -- attempts


def test_attempts_of_the_aggregations_from_the_same_block_are_carried_over() -> None:
    failed = aggregation(5, 0, 40, Status.FAILED, attempt=3)
    (new,) = plan(*proven(0, 10, 20), attempts_above=[failed]).inserts
    assert (new.attempt, new.status) == (3, Status.UNREQ)


def test_an_aggregation_out_of_attempts_is_planned_parked() -> None:
    """Also where this very plan cancels the one that was parked."""
    contract = oracle(submission_interval=30)
    parked = aggregation(9, 0, 20, Status.PARKED, members=(1, 2), attempt=6)
    result = plan(*proven(0, 10, 20, 30), parked, contract=contract)
    (new,) = result.inserts
    assert (new.range, new.attempt, new.status) == (BlockRange(0, 30), 6, Status.PARKED)


def test_a_parked_aggregation_says_so() -> None:
    result = plan(*proven(0, 10, 20), aggregation(9, 0, 20, Status.PARKED, members=(1, 2)))
    assert Code.REQUEST_PARKED in codes(result)
