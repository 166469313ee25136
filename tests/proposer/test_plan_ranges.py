"""Stage 1: ranges above the head are a tiling; full ones only, but for bridges and a tail that is due."""

from typing import Any

import pytest

from proposer.intents import Plan
from proposer.plan_ranges import HORIZON, plan_ranges
from proposer.reasons import Code
from proposer.requests import Commitments, Failure, Kind, ProofRequest, Status
from tests.proposer.samples import OURS, THEIRS, aggregation, ago, oracle, request, snapshot


def plan(*requests: ProofRequest, head: int = 0, finalized: int | None = 30, **more: Any) -> Plan:
    """The plan for ranges of 10 blocks."""
    return plan_ranges(snapshot(requests, contract=oracle(head), finalized=finalized, **more), may_request=True)


def inserted(made: Plan) -> list[str]:
    return [str(new.range) for new in made.inserts]


def moved(made: Plan) -> list[tuple[int, Status]]:
    return [(move.request, move.to) for move in made.moves]


def codes(made: Plan) -> list[Code]:
    return [reason.code for reason in made.reasons]


def test_full_ranges_are_planned_from_the_head_to_finality() -> None:
    made = plan(head=5, finalized=38)
    assert inserted(made) == ["5→15", "15→25", "25→35"]
    assert {(new.kind, new.attempt, new.status, new.commitments) for new in made.inserts} == {
        (Kind.RANGE, 1, Status.UNREQ, OURS)
    }


@pytest.mark.parametrize("finalized", [None, 0, 3])
def test_a_node_that_is_starting_or_behind_plans_nothing(finalized: int | None) -> None:
    made = plan(request(1, 5, 15), head=5, finalized=finalized)
    assert (made.moves, made.inserts) == ((), ())


def test_without_the_contract_nothing_is_decided() -> None:
    assert plan_ranges(snapshot([request(1, 0, 10)], contract_read=False, finalized=50), True) == Plan()


def test_what_exists_is_not_planned_again() -> None:
    made = plan(
        request(1, 0, 10, Status.PROVING), request(2, 10, 20, Status.COMPLETE), request(3, 20, 30, Status.PARKED)
    )
    assert made == Plan()


def test_an_interior_gap_is_filled_with_a_short_range() -> None:
    assert inserted(plan(request(1, 0, 10), request(2, 14, 24))) == ["10→14"]


def test_planning_ahead_is_bounded() -> None:
    made = plan(finalized=10**9)
    assert len(made.inserts) == HORIZON
    assert inserted(made)[-1] == f"{10 * HORIZON - 10}→{10 * HORIZON}"


def test_planning_ahead_reaches_the_next_output() -> None:
    """However far the contract's interval is beyond what is planned ahead otherwise."""
    far = 10 * HORIZON + 500
    snap = snapshot(contract=oracle(0, submission_interval=far), finalized=10**9)
    assert plan_ranges(snap, may_request=True).inserts[-1].range.end >= far


def test_a_paused_proposer_plans_nothing_but_follows_the_head() -> None:
    snap = snapshot([request(1, 0, 10, Status.COMPLETE), request(2, 5, 15)], contract=oracle(10), finalized=40)
    made = plan_ranges(snap, may_request=False)
    assert made.inserts == ()
    assert moved(made) == [(1, Status.RELAYED), (2, Status.CANCELLED)]


# -- tails


def tail(waited: float, finalized: int = 16, interval: int = 15, **more: Any) -> Plan:
    contract = oracle(0, submission_interval=interval)
    since = ago(waited)
    return plan_ranges(snapshot([], contract=contract, finalized=finalized, required_since=since, **more), True)


def test_a_tail_that_completes_the_next_output_waits_for_a_full_range() -> None:
    made = tail(waited=1799)
    assert inserted(made) == ["0→10"]
    assert codes(made) == [Code.TAIL_WAITS]
    assert "1 s" in made.reasons[0].remedy


def test_a_tail_that_completes_the_next_output_is_planned_after_max_tail_wait() -> None:
    made = tail(waited=1800)
    assert inserted(made) == ["0→10", "10→16"]
    assert made.reasons == ()


def test_a_tail_that_completes_nothing_waits_for_finality() -> None:
    made = tail(waited=99999, finalized=14)
    assert inserted(made) == ["0→10"]
    assert codes(made) == [Code.WAITING_FOR_FINALITY]


def test_a_tail_is_not_needed_where_full_ranges_complete_the_output() -> None:
    made = tail(waited=99999, interval=10)
    assert inserted(made) == ["0→10"]
    assert made.reasons == ()


def test_the_larger_of_both_intervals_counts() -> None:
    made = tail(waited=99999, interval=1, submission_interval=16)
    assert inserted(made) == ["0→10", "10→16"]


# -- the head moves


def test_what_the_head_has_passed_is_relayed() -> None:
    made = plan(request(1, 0, 10, Status.COMPLETE), aggregation(2, 0, 10, Status.COMPLETE), head=10, finalized=10)
    assert moved(made) == [(1, Status.RELAYED), (2, Status.RELAYED)]


def test_what_a_rewind_uncovers_is_a_proof_in_hand_again() -> None:
    made = plan(request(1, 0, 10, Status.RELAYED), request(2, 10, 20, Status.RELAYED), head=0, finalized=20)
    assert moved(made) == [(1, Status.COMPLETE), (2, Status.COMPLETE)]
    assert made.inserts == ()


@pytest.mark.parametrize("status", [Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.PARKED])
def test_a_range_that_straddles_the_head_makes_way_for_a_bridge(status: Status) -> None:
    made = plan(request(1, 0, 10, status), request(2, 10, 20), head=4, finalized=20)
    assert [(m.request, m.frm, m.to, m.failure) for m in made.moves] == [
        (1, status, Status.CANCELLED, Failure.SUPERSEDED)
    ]
    assert inserted(made) == ["4→10"]


def test_a_proof_that_straddles_the_head_is_kept_and_bridged() -> None:
    made = plan(request(1, 0, 10, Status.COMPLETE), request(2, 10, 20, Status.COMPLETE), head=4, finalized=20)
    assert made.moves == ()
    assert inserted(made) == ["4→10"]


# -- superseded


def test_halves_not_yet_paid_give_way_to_a_proof_that_came_late() -> None:
    """One that is being proven goes on: it is paid."""
    made = plan(
        request(1, 0, 10, Status.COMPLETE),
        request(2, 0, 3, Status.PROVING),
        request(3, 3, 5, Status.UNREQ),
        request(4, 5, 10, Status.PARKED),
        finalized=10,
    )
    assert moved(made) == [(3, Status.CANCELLED), (4, Status.CANCELLED)]
    assert made.inserts == ()


def test_ranges_of_other_commitments_are_planned_anew() -> None:
    made = plan(
        request(1, 0, 10, Status.COMPLETE, commitments=THEIRS),
        request(2, 10, 20, Status.PROVING, commitments=THEIRS),
        request(3, 20, 30, commitments=OURS),
    )
    assert moved(made) == [(2, Status.CANCELLED)]
    assert inserted(made) == ["0→10", "10→20"]


def test_a_new_aggregation_program_alone_leaves_ranges_as_they_are() -> None:
    """A range proof is not bound to it."""
    newer = Commitments(OURS.range_vkey, b"new" * 8, OURS.config_hash)
    made = plan(
        request(1, 0, 10, Status.COMPLETE, commitments=newer), request(2, 10, 20, commitments=newer), finalized=20
    )
    assert made == Plan()


def test_commitments_that_the_server_does_not_have_yet_cancel_nothing() -> None:
    snap = snapshot([request(1, 0, 10, Status.PROVING, commitments=THEIRS)], finalized=10)
    assert plan_ranges(snap, may_request=False).moves == ()


# -- attempts


def carried(*closed: ProofRequest, **more: Any) -> list[tuple[str, int, Status]]:
    made = plan(finalized=20, attempts_above=closed, **more)
    return [(str(new.range), new.attempt, new.status) for new in made.inserts]


def test_a_replan_carries_the_attempts_of_overlapping_rows() -> None:
    assert carried(request(1, 5, 10, Status.FAILED, attempt=3), request(2, 4, 6, Status.CANCELLED, attempt=2)) == [
        ("0→10", 3, Status.UNREQ),
        ("10→20", 1, Status.UNREQ),
    ]


def test_a_replan_over_blocks_that_are_out_of_attempts_is_parked() -> None:
    """They leave only by a person's hand."""
    closed = request(1, 12, 14, Status.CANCELLED, attempt=6)
    assert carried(closed) == [("0→10", 1, Status.UNREQ), ("10→20", 6, Status.PARKED)]


def test_attempts_with_another_program_do_not_count() -> None:
    assert carried(request(1, 0, 10, Status.FAILED, attempt=5, commitments=THEIRS))[0] == ("0→10", 1, Status.UNREQ)


def test_attempts_count_across_a_new_aggregation_program() -> None:
    """Found in review: the cap was reset although nothing about the range proof had changed."""
    newer = Commitments(OURS.range_vkey, b"new" * 8, OURS.config_hash)
    assert carried(request(1, 0, 10, Status.FAILED, attempt=4, commitments=newer))[0] == ("0→10", 4, Status.UNREQ)


def test_attempts_of_aggregations_do_not_count_for_ranges() -> None:
    assert carried(aggregation(1, 0, 10, Status.FAILED, attempt=4))[0] == ("0→10", 1, Status.UNREQ)


def test_attempts_of_a_range_that_this_plan_cancels_count_for_its_bridge() -> None:
    """Found by the state machine: a parked range (attempt 6) whose head moved was asked again as attempt 5."""
    made = plan(
        request(2, 0, 10, Status.PARKED, attempt=6),
        request(3, 10, 20),
        head=4,
        finalized=20,
        attempts_above=[request(1, 0, 10, Status.FAILED, attempt=5)],
    )
    assert moved(made) == [(2, Status.CANCELLED)]
    assert [(str(n.range), n.attempt, n.status) for n in made.inserts] == [("4→10", 6, Status.PARKED)]
