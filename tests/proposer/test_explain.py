"""From a block, a request or the next output down to one cause; what the devnet cannot easily show is shown here."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposer.expectation import expected
from proposer.explain import Explanation, explain_block, explain_next, explain_request
from proposer.permission import permission
from proposer.polling import Usual
from proposer.reasons import Code, Reason, Severity
from proposer.requests import Kind, ProofRequest, Status
from proposer.situation import Leader, Situation, decide
from proposer.snapshot import Snapshot
from proposer.units import L1Block, L1Ref, Wei
from tests.proposer.samples import NOW, aggregation, ago, oracle, request, snapshot, transaction

LEADER = Leader("host:1", 3, ago(3600), NOW + timedelta(seconds=8), leads=True)
USUAL = {Kind.RANGE: Usual(60, 120), Kind.AGG: Usual(30, 40)}


def situation(seen: Snapshot, **changes: Any) -> Situation:
    allowed = permission(seen.outside, Wei(0))
    values: dict[str, Any] = {"leader": LEADER, "usual": USUAL}
    return Situation(snapshot=seen, allowed=allowed, decided=decide(seen, allowed), **(values | changes))


def codes(explanation: Explanation) -> list[Code]:
    return [reason.code for reason in explanation.chain]


def test_an_l1_node_that_stopped_following_the_chain_is_the_cause() -> None:
    """What it says of the contract is old: a proof under way is not what is wrong."""
    stale = oracle(at=L1Ref(L1Block(100), b"\x64" * 32, int(ago(3600).timestamp())))
    seen = snapshot([request(1, 0, 10, Status.PROVING)], finalized=10, contract=stale)
    assert codes(explain_block(situation(seen), 5)) == [Code.WAITING_FOR_PROOFS, Code.L1_BEHIND]


def test_a_leader_that_expired_is_named_with_its_time() -> None:
    seen = snapshot([request(1, 0, 10, Status.PROVING)], finalized=10)
    gone = replace(LEADER, leads=False, until=ago(60))
    found = explain_next(situation(seen, leader=gone))
    assert found.cause.code is Code.NO_LEADER
    assert "host:1 led until 2026-03-01 11:59:00 UTC" in found.cause.sentence


def test_a_second_output_waits_for_the_first() -> None:
    """Its own aggregation is proven; what the one before waits for is the cause."""
    ranges = [request(1, 0, 10, Status.COMPLETE), request(2, 10, 20, Status.COMPLETE)]
    first = aggregation(3, 0, 10, Status.PROVING, members=(1,))
    second = aggregation(4, 10, 20, Status.COMPLETE, members=(2,), output_root=b"\1" * 32)
    found = explain_block(situation(snapshot([*ranges, first, second], finalized=20)), 15)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.AGGREGATION_UNDER_WAY, Code.PROOF_UNDER_WAY]
    assert [reason.facts["request"] for reason in found.chain] == [4, 3, 3]


def test_a_proven_range_waits_for_the_one_before_it() -> None:
    ranges = [request(1, 0, 10, Status.PROVING), request(2, 10, 20, Status.COMPLETE)]
    found = explain_block(situation(snapshot(ranges, finalized=20, submission_interval=20)), 15)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.WAITING_FOR_PROOFS, Code.PROOF_UNDER_WAY]
    assert found.cause.facts["request"] == 1


def test_an_aggregation_waits_for_the_budget_of_aggregations() -> None:
    ranges = [request(i, 10 * i, 10 * i + 10, Status.COMPLETE) for i in range(2)]
    under_way = aggregation(5, 0, 10, Status.PROVING, members=(0,))
    queued = aggregation(6, 10, 20, members=(1,))
    seen = snapshot([*ranges, under_way, queued], finalized=20, max_aggregations=1)
    found = explain_request(situation(seen), queued)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.AGGREGATION_UNDER_WAY]
    assert "MAX_CONCURRENT_AGGREGATIONS" in found.cause.sentence


def test_a_busy_signer_leads_on_to_why_its_transaction_is_not_mined() -> None:
    """Signer busy, and that because of the fee cap."""
    proven = request(1, 0, 10, Status.COMPLETE)
    ready = aggregation(2, 0, 10, Status.COMPLETE, members=(1,), output_root=b"\1" * 32)
    busy = Reason(Code.SIGNER_BUSY, "Nonce 7 is not mined yet.", "", {"nonce": 7})
    capped = Reason(Code.FEE_CAP, "A higher fee would pass the limit.", "Raise it.", {"nonce": 7})
    seen = snapshot([proven, ready], finalized=10)
    found = explain_next(situation(seen, stopped={2: busy}, stuck={7: capped}))
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.SIGNER_BUSY, Code.FEE_CAP]


def test_a_block_past_the_last_full_range_waits_for_more_finality() -> None:
    """It is finalized, but the next range is not full yet."""
    seen = snapshot([request(1, 0, 10, Status.PROVING)], finalized=15)
    found = explain_block(situation(seen), 13)
    assert codes(found) == [Code.WAITING_FOR_FINALITY]
    assert "not in a range yet" in found.cause.sentence


def test_what_a_cancelled_request_was_for_is_explained_next() -> None:
    cancelled = request(1, 0, 10, Status.CANCELLED, failure_text="the contract head moved to 5")
    found = explain_request(situation(snapshot([request(2, 5, 10, Status.PROVING)], finalized=10)), cancelled)
    assert codes(found) == [Code.ATTEMPT_ENDED, Code.WAITING_FOR_PROOFS, Code.PROOF_UNDER_WAY]
    assert "the contract head moved to 5" in found.chain[0].sentence


_KINDS = st.sampled_from([Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.PARKED, Status.COMPLETE])


@given(
    statuses=st.lists(_KINDS, max_size=5),
    aggregate=st.none() | _KINDS,
    finalized=st.integers(0, 70),
    block=st.integers(0, 80),
    interval=st.integers(1, 60),
    leads=st.booleans(),
    l1=st.booleans(),
    pending=st.booleans(),
)
def test_it_never_says_nothing(
    statuses: list[Status],
    aggregate: Status | None,
    finalized: int,
    block: int,
    interval: int,
    leads: bool,
    l1: bool,
    pending: bool,
) -> None:
    """Whatever the ledger holds: a sentence, a next action, and one cause; for any block and every request."""
    rows: list[ProofRequest] = [
        request(i + 1, 10 * i, 10 * i + 10, status, claimed_epoch=2) for i, status in enumerate(statuses)
    ]
    proven = [r.id for r in rows if r.status is Status.COMPLETE][:1]
    if aggregate is not None and proven == [1]:
        rows.append(aggregation(9, 0, 10, aggregate, members=(1,)))
    seen = snapshot(
        rows,
        finalized=finalized,
        submission_interval=interval,
        transactions=[transaction(request=9)] if pending else [],
        contract_read=l1,
    )
    if not l1:
        seen.outside.errors["l1"] = "no answer"
    asked = situation(seen, leader=replace(LEADER, leads=leads))
    answers = [explain_next(asked), explain_block(asked, block), *(explain_request(asked, r) for r in rows)]
    for found in answers:
        assert found.chain
        assert found.cause.sentence
        assert found.cause.remedy
        assert not [reason for reason in found.also if reason in found.chain]
        if not leads and found.cause.severity is not Severity.CRITICAL:
            assert found.cause.code in {Code.SETTLED, Code.WAITING_FOR_FINALITY, Code.NODE_STARTING}


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        ([], 120 + 40 + 48),
        ([request(1, 0, 10, Status.PROVING, requested_at=ago(100))], 20 + 40 + 48),
        ([request(1, 0, 10, Status.PROVING, requested_at=ago(500))], 0 + 40 + 48),
        ([request(1, 0, 10, next_attempt_at=NOW + timedelta(seconds=30))], 30 + 120 + 40 + 48),
        ([request(1, 0, 10, Status.COMPLETE), aggregation(2, 0, 10, members=(1,))], 24 + 40 + 24),
        (
            [
                request(1, 0, 10, Status.COMPLETE),
                aggregation(2, 0, 10, Status.PROVING, members=(1,), requested_at=ago(30)),
            ],
            10 + 24,
        ),
        ([request(1, 0, 10, Status.COMPLETE), aggregation(2, 0, 10, Status.COMPLETE, members=(1,))], 24),
    ],
)
def test_the_next_output_is_expected_from_what_is_missing(rows: list[ProofRequest], seconds: float) -> None:
    """The slowest range, the aggregation, and 12 s for each L1 block that a transaction waits for."""
    found = expected(situation(snapshot(rows, finalized=10)))
    assert found is not None
    assert (found.block, found.seconds) == (1, pytest.approx(seconds))


def test_when_it_is_not_known_the_sentence_says_why() -> None:
    seen = snapshot([request(1, 0, 10, Status.PARKED)], finalized=10)
    stuck = expected(situation(seen))
    new = expected(situation(snapshot([request(1, 0, 10, Status.PROVING)], finalized=10), usual={}))
    assert stuck is not None
    assert new is not None
    assert stuck.seconds is new.seconds is None
    assert "is parked" in stuck.waits_for
    assert "once five proofs of each kind" in new.waits_for
    assert expected(situation(snapshot([], contract_read=False))) is None
