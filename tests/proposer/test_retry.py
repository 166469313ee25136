"""What follows a failed attempt: halves, the same again later, or parked for a person."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposer.ranges import BlockRange
from proposer.requests import Checkpoint, Failure, Kind, Status
from proposer.retry import RetryPolicy, jitter, successors
from proposer.units import L1Block
from tests.proposer.samples import NOW, OURS, aggregation, request
from tests.proposer.world import World

POLICY = RetryPolicy(max_attempts=5, base=60, cap=1800)
OTHERS = {
    Failure.UNEXECUTABLE,
    Failure.CANCELLED_BY_OPERATOR,
    Failure.SUPERSEDED,
    Failure.REFUSED_IN_SIMULATION,
}
AGAIN = sorted(set(Failure) - OTHERS)


@pytest.mark.parametrize("failure", AGAIN)
def test_the_same_again_later(failure: Failure) -> None:
    failed = request(7, 0, 300, Status.PROVING, attempt=2)
    (new,) = successors(failed, failure, POLICY, NOW)
    assert (new.range, new.attempt, new.status, new.parent) == (failed.range, 3, Status.UNREQ, 7)
    assert new.commitments == OURS
    assert new.next_attempt_at is not None
    assert timedelta(seconds=96) <= new.next_attempt_at - NOW <= timedelta(seconds=144)


@pytest.mark.parametrize("failure", AGAIN)
def test_parked_after_the_last_attempt(failure: Failure) -> None:
    (new,) = successors(request(7, 0, 300, Status.PROVING, attempt=5), failure, POLICY, NOW)
    assert (new.status, new.attempt, new.range) == (Status.PARKED, 6, BlockRange(0, 300))
    assert failure.value in new.why


@pytest.mark.parametrize("failure", [Failure.CANCELLED_BY_OPERATOR, Failure.SUPERSEDED])
def test_what_was_called_off_is_not_tried_again(failure: Failure) -> None:
    assert successors(request(7, 0, 300, Status.PROVING), failure, POLICY, NOW) == []


def test_an_unexecutable_range_is_halved_at_once() -> None:
    """It is charged no attempt: a smaller range is another question."""
    new = successors(request(7, 100, 400, Status.PROVING, attempt=5), Failure.UNEXECUTABLE, POLICY, NOW)
    assert [str(n.range) for n in new] == ["100→250", "250→400"]
    assert {(n.attempt, n.status, n.parent, n.next_attempt_at) for n in new} == {(5, Status.UNREQ, 7, NOW)}


def test_an_unexecutable_block_is_parked() -> None:
    (new,) = successors(request(7, 100, 101, Status.PROVING), Failure.UNEXECUTABLE, POLICY, NOW)
    assert (new.status, str(new.range)) == (Status.PARKED, "100→101")


@pytest.mark.parametrize("failure", [Failure.OUTCOME_UNKNOWN, Failure.WITNESS_TIMEOUT])
def test_an_unknown_outcome_is_asked_again_at_most_once(failure: Failure) -> None:
    """It may have been paid each time."""
    first = successors(request(7, 0, 300, Status.WITNESSGEN), failure, POLICY, NOW)[0]
    assert (first.status, first.unknown_outcomes) == (Status.UNREQ, 1)
    second = request(8, 0, 300, Status.WITNESSGEN, attempt=2, unknown_outcomes=1)
    (new,) = successors(second, failure, POLICY, NOW)
    assert (new.status, new.unknown_outcomes) == (Status.PARKED, 2)
    assert "paid" in new.why


def test_other_failures_keep_the_count_of_unknown_outcomes() -> None:
    failed = request(8, 0, 300, Status.WITNESSGEN, attempt=2, unknown_outcomes=1)
    assert successors(failed, Failure.WITNESS_FAILED, POLICY, NOW)[0].unknown_outcomes == 1


CHECKPOINT = Checkpoint(L1Block(95), b"\x95" * 32)


def test_an_aggregation_keeps_its_members_root_and_checkpoint() -> None:
    failed = aggregation(9, 0, 20, Status.PROVING, members=(1, 2), checkpoint=CHECKPOINT, output_root=b"o" * 32)
    (new,) = successors(failed, Failure.UNFULFILLABLE, POLICY, NOW)
    assert (new.kind, new.members, new.checkpoint, new.output_root) == (Kind.AGG, (1, 2), CHECKPOINT, b"o" * 32)


def test_an_aggregation_refused_by_the_contract_wants_a_newer_checkpoint() -> None:
    """It was paid for, so it counts as an attempt."""
    root = b"\x0f" * 32
    failed = aggregation(9, 0, 20, Status.COMPLETE, members=(1, 2), checkpoint=CHECKPOINT, output_root=root)
    (new,) = successors(failed, Failure.REFUSED_BY_CONTRACT, POLICY, NOW)
    assert (new.checkpoint, new.attempt) == (None, 2)
    assert new.output_root is None, "the root may be what was refused: the node is asked anew"


def test_an_aggregation_refused_by_the_program_is_the_planners_to_carry_on() -> None:
    """What comes next depends on which of its members were accepted before."""
    failed = aggregation(9, 0, 20, Status.WITNESSGEN, members=(1, 2), checkpoint=CHECKPOINT)
    assert successors(failed, Failure.REFUSED_IN_SIMULATION, POLICY, NOW) == []


def test_an_unexecutable_aggregation_is_not_halved() -> None:
    (new,) = successors(aggregation(9, 0, 20, Status.PROVING), Failure.UNEXECUTABLE, POLICY, NOW)
    assert (str(new.range), new.status, new.attempt) == ("0→20", Status.UNREQ, 2)


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_the_back_off_doubles_to_its_cap_within_a_fifth(request_id: int, attempt: int) -> None:
    delay = POLICY.delay(request(request_id, 0, 10, attempt=attempt)).total_seconds()
    plain = min(60 * 2 ** (attempt - 1), 1800)
    assert 0.8 * plain <= delay <= 1.2 * plain


def test_jitter_depends_on_its_key_alone_and_spreads() -> None:
    values = [jitter(i, 1) for i in range(1000)]
    assert values == [jitter(i, 1) for i in range(1000)]
    assert min(values) < -0.19
    assert max(values) > 0.19
    assert abs(sum(values) / 1000) < 0.02


@pytest.mark.parametrize("bad", [1, 2, 63, 64])
def test_halving_ends_with_one_parked_block_and_proven_neighbours(bad: int) -> None:
    """An unexecutable block in a range of 64 is alone after log2(64) steps; everything beside it is proven."""
    world = World(max_block_range=64)
    world.finalized = 64
    for _ in range(7):
        world.cycle()
        for row in world.ranges(Status.WITNESSGEN):
            world.accept(row.id)
            if row.range.start < bad <= row.range.end:
                world.fail(row.id, Failure.UNEXECUTABLE)
            else:
                world.complete(row.id)
    (parked,) = world.ranges(Status.PARKED)
    assert parked.range == BlockRange(bad - 1, bad)
    assert sum(r.range.blocks for r in world.ranges(Status.COMPLETE, Status.RELAYED)) == 63
    world.settle()
    assert world.head == bad - 1
    world.take_up(parked.id)
    world.settle()
    assert world.head == 64
