"""Every way to stand still that can be made on purpose is told by its own cause, and by no other (F35)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from proposer.l1_transactions import Purpose
from proposer.permission import permission
from proposer.plan_aggregation import plan_aggregation
from proposer.plan_ranges import plan_ranges
from proposer.plan_requests import plan_requests
from proposer.plan_submission import plan_submission
from proposer.reasons import Code, Reason, Severity
from proposer.requests import ProofRequest, Status
from proposer.snapshot import Outside, ServerView, Snapshot
from proposer.units import L1Block, Wei
from tests.proposer.samples import NOW, aggregation, node, oracle, request, snapshot, transaction

LEAST = Wei(10**17)


def _told(seen: Snapshot) -> list[Reason]:
    """Return what all stages of one cycle say."""
    allowed = permission(seen.outside, LEAST)
    return [
        *allowed.reasons,
        *plan_ranges(seen, allowed.may_request).reasons,
        *plan_aggregation(seen, allowed.may_request).reasons,
        *plan_requests(seen, allowed.may_request).reasons,
        *plan_submission(seen, allowed.may_submit).reasons,
    ]


def _outside(seen: Snapshot, **changes: Any) -> Snapshot:
    return replace(seen, outside=replace(seen.outside, **changes))


PROVEN = request(1, 0, 10, Status.COMPLETE)
PROVING = request(1, 10, 20, Status.PROVING)
OF_ANOTHER_PROGRAM = ServerView(config_hash_valid=True, agg_vkey_valid=False, range_vkey_valid=True)
LATER = NOW + timedelta(seconds=60)


def _waiting(*requests: ProofRequest, **changes: Any) -> Snapshot:
    """Ten finalized blocks that are not settled, and these requests."""
    changes.setdefault("finalized", 10)
    return snapshot(requests, **changes)


def _aggregating(status: Status = Status.UNREQ, **changes: Any) -> Sequence[ProofRequest]:
    return PROVEN, aggregation(2, 0, 10, status, members=(1,), **changes)


def _at_work(**contract: Any) -> Snapshot:
    """Settled up to block 10; the next ten blocks are being proven."""
    return snapshot([PROVING], contract=oracle(10, **contract), finalized=20)


def _without_l1() -> Snapshot:
    return _outside(_waiting(contract_read=False), errors={"l1": "timed out"})


CAUSES: dict[str, tuple[Snapshot, list[Code]]] = {
    "finality has not got there": (
        snapshot(finalized=15, contract=oracle(10, submission_interval=10)),
        [Code.WAITING_FOR_FINALITY],
    ),
    "the tail waits for a full range": (
        snapshot(finalized=15, contract=oracle(10), required_since=NOW),
        [Code.TAIL_WAITS],
    ),
    "a range is being proven": (_waiting(request(1, 0, 10, Status.PROVING)), [Code.WAITING_FOR_PROOFS]),
    "a range backs off after a failure": (
        _waiting(request(1, 0, 10, attempt=2, next_attempt_at=LATER)),
        [Code.WAITING_FOR_PROOFS, Code.BACKING_OFF],
    ),
    "no slot is free": (
        _waiting(request(1, 0, 10, Status.WITNESSGEN), request(2, 10, 20), finalized=20, max_witness_gen=1),
        [Code.WAITING_FOR_PROOFS, Code.SLOTS_FULL],
    ),
    "a range is parked": (_waiting(request(1, 0, 10, Status.PARKED, attempt=6)), [Code.REQUEST_PARKED]),
    "the aggregation is being proven": (
        _waiting(*_aggregating(Status.PROVING), max_aggregations=1),
        [Code.AGGREGATION_UNDER_WAY],
    ),
    "the aggregation is parked": (
        _waiting(*_aggregating(Status.PARKED), max_aggregations=1),
        [Code.REQUEST_PARKED],
    ),
    "its checkpoint is not mined": (
        _waiting(
            *_aggregating(),
            max_aggregations=1,
            transactions=[transaction(Purpose.CHECKPOINT, request=2, subject=L1Block(95))],
        ),
        [Code.AGGREGATION_UNDER_WAY, Code.CHECKPOINT_PENDING],
    ),
    "the L1 head of a proof is not known": (
        _waiting(replace(PROVEN, l1_head=None), aggregation(2, 0, 10, members=(1,)), max_aggregations=1),
        [Code.AGGREGATION_UNDER_WAY, Code.SAFE_HEAD_UNKNOWN],
    ),
    "the proposal is not mined": (
        _waiting(*_aggregating(Status.COMPLETE), transactions=[transaction(request=2)]),
        [Code.PROPOSAL_PENDING],
    ),
    "L1 is away": (_without_l1(), [Code.L1_DOWN]),
    "the node is away": (
        _outside(_at_work(), node=None, errors={"node": "refused"}),
        [Code.NODE_DOWN, Code.WAITING_FOR_PROOFS],
    ),
    "the node starts": (_outside(_at_work(), node=node(0)), [Code.NODE_STARTING, Code.WAITING_FOR_PROOFS]),
    "the node is behind": (_outside(_at_work(), node=node(15)), [Code.NODE_BEHIND, Code.WAITING_FOR_PROOFS]),
    "the server is away": (
        _outside(_at_work(), server=None, errors={"server": "refused"}),
        [Code.SERVER_DOWN, Code.WAITING_FOR_PROOFS],
    ),
    "the server has another program": (
        _outside(_at_work(), server=OF_ANOTHER_PROGRAM),
        [Code.CONFIG_MISMATCH, Code.WAITING_FOR_PROOFS],
    ),
    "the contract is optimistic": (_at_work(optimistic=True), [Code.OPTIMISTIC_MODE, Code.WAITING_FOR_PROOFS]),
    "the account is not approved": (_at_work(approved=False), [Code.NOT_APPROVED, Code.WAITING_FOR_PROOFS]),
    "the account is nearly empty": (_at_work(balance=Wei(1)), [Code.LOW_BALANCE, Code.WAITING_FOR_PROOFS]),
    "the node has another root": (
        _outside(_at_work(), node=node(20, root_at_head=b"\x02" * 32)),
        [Code.NODE_DISAGREES, Code.WAITING_FOR_PROOFS],
    ),
}


@pytest.mark.parametrize(("seen", "codes"), CAUSES.values(), ids=CAUSES)
def test_the_cause_is_told_and_no_other(seen: Snapshot, codes: list[Code]) -> None:
    """With what to do about it; who must act reads so in its severity."""
    told = _told(seen)
    assert [reason.code for reason in told] == codes
    assert all(reason.sentence and reason.remedy for reason in told)


def test_where_nothing_is_wrong_nobody_is_called() -> None:
    """A settled rollup waits for finality, if for anything."""
    told = _told(snapshot(contract=oracle(10), finalized=10))
    assert {reason.code for reason in told} <= {Code.WAITING_FOR_FINALITY}


def test_a_parked_request_needs_a_person_and_says_which() -> None:
    """The number to take up by hand is in the facts and in the remedy."""
    (reason,) = _told(CAUSES["a range is parked"][0])
    assert reason.severity is Severity.CRITICAL
    assert reason.facts["request"] == 1
    assert "proposer retry 1" in reason.remedy


def test_two_outages_at_once_are_both_told() -> None:
    """The first does not hide the second."""
    everything = Outside(oracle=None, node=None, server=None, errors={"l1": "a", "node": "b", "server": "c"})
    told = {reason.code for reason in _told(replace(_at_work(), outside=everything))}
    assert told == {Code.L1_DOWN, Code.NODE_DOWN, Code.SERVER_DOWN}


def test_finality_at_a_boundary_below_the_next_output_is_told() -> None:
    seen = snapshot([request(1, 0, 10, Status.COMPLETE)], contract=oracle(0, submission_interval=20), finalized=10)
    assert [r.code for r in _told(seen)] == [Code.WAITING_FOR_FINALITY]


def test_nothing_finalized_above_the_head_with_an_interval() -> None:
    seen = snapshot([], contract=oracle(10, submission_interval=20), finalized=10)
    assert [r.code for r in _told(seen)] == [Code.WAITING_FOR_FINALITY]
