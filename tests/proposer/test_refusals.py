"""The program refuses an aggregation: the culprit among its members is found by shorter chains, and proven anew."""

from dataclasses import replace
from itertools import pairwise

import pytest

from proposer.intents import Plan
from proposer.plan_aggregation import plan_aggregation
from proposer.reasons import Code
from proposer.refusals import is_probe, suspects
from proposer.requests import Checkpoint, Failure, ProofRequest, Status
from proposer.units import L1Block
from tests.proposer.samples import OURS, aggregation, oracle, request, snapshot
from tests.proposer.world import World

PROVEN = [request(i + 1, 10 * i, 10 * i + 10, Status.COMPLETE) for i in range(8)]


def refused(number: int, *members: int, at: int = 95, end: int | None = None) -> ProofRequest:
    """A chain from block 0 that the program did not accept with the checkpoint of this L1 block."""
    checkpoint = Checkpoint(L1Block(at), b"h" * 32)
    failure = Failure.REFUSED_IN_SIMULATION
    to = end or 10 * len(members)
    return aggregation(number, 0, to, Status.FAILED, failure=failure, members=members, checkpoint=checkpoint)


def accepted(number: int, *members: int) -> ProofRequest:
    """A shorter chain that the program took; it served to find out."""
    return aggregation(number, 0, 10 * len(members), Status.CANCELLED, members=members, prover_id="aa")


def plan(*ended: ProofRequest, orphaned: set[int] | None = None, rows: list[ProofRequest] = PROVEN) -> Plan:
    snap = snapshot(rows, contract=oracle(submission_interval=80), finalized=80, attempts_above=ended)
    return plan_aggregation(snap, True, orphaned or set())


ALL = tuple(range(1, 9))
TWICE = (refused(20, *ALL), refused(21, *ALL, at=99))


def asked(made: Plan) -> tuple[int, ...]:
    (new,) = made.inserts
    return new.members


def test_it_is_first_tried_with_a_newer_checkpoint() -> None:
    made = plan(refused(20, *ALL))
    assert asked(made) == ALL
    (new,) = made.inserts
    assert (new.parent, new.checkpoint, new.attempt) == (20, None, 1), "nothing was paid, so no attempt is charged"
    assert [reason.code for reason in made.reasons] == [Code.AGGREGATION_REFUSED]


SEARCH = {
    "refused twice: the first half": (TWICE, (1, 2, 3, 4)),
    "the half is refused: its first half": ((*TWICE, refused(22, 1, 2, 3, 4)), (1, 2)),
    "the half is accepted: half of the rest": ((*TWICE, accepted(22, 1, 2, 3, 4)), (1, 2, 3, 4, 5, 6)),
    "between what is accepted and what is not": (
        (*TWICE, accepted(22, 1, 2, 3, 4), refused(23, 1, 2, 3, 4, 5, 6)),
        (1, 2, 3, 4, 5),
    ),
    "what was accepted before the first refusal says nothing": ((accepted(19, 1, 2, 3, 4), *TWICE), (1, 2, 3, 4)),
}


@pytest.mark.parametrize(("ended", "members"), SEARCH.values(), ids=SEARCH)
def test_then_shorter_chains_are_tried(ended: tuple[ProofRequest, ...], members: tuple[int, ...]) -> None:
    assert asked(plan(*ended)) == members


def test_the_culprit_is_proven_anew() -> None:
    """The program accepts all before it and nothing with it: three tries for eight members."""
    made = plan(*TWICE, accepted(22, 1, 2, 3, 4), refused(23, 1, 2, 3, 4, 5, 6), accepted(24, 1, 2, 3, 4, 5))
    (move,), (new,) = made.moves, made.inserts
    assert (move.request, move.frm, move.to) == (6, Status.COMPLETE, Status.FAILED)
    assert move.failure is Failure.NOT_AGGREGATABLE
    assert (new.range, new.parent, new.attempt, new.status) == (PROVEN[5].range, 6, 2, Status.UNREQ)


def test_a_single_range_that_is_refused_twice_is_the_culprit() -> None:
    row = request(1, 0, 80, Status.COMPLETE)
    ended = [refused(20, 1, end=80), refused(21, 1, end=80)]
    assert [move.request for move in plan(*ended, rows=[row]).moves] == [1]


def test_one_bound_to_an_l1_block_that_is_gone_is_blamed_without_a_search() -> None:
    made = plan(*TWICE, orphaned={3, 5})
    assert [move.request for move in made.moves] == [3, 5]
    assert [new.parent for new in made.inserts] == [3, 5]


def test_only_after_the_second_refusal_is_anyone_suspected() -> None:
    once = snapshot(PROVEN, finalized=80, attempts_above=[TWICE[0]])
    twice = snapshot(PROVEN, finalized=80, attempts_above=TWICE)
    assert suspects(once, 0, OURS) == ()
    assert [r.id for r in suspects(twice, 0, OURS)] == list(ALL)


def test_where_the_culprit_was_proven_anew_already_its_neighbour_is_blamed() -> None:
    """Two range proofs that disagree about the root between them are each accepted alone."""
    first = replace(PROVEN[5], status=Status.FAILED, failure=Failure.NOT_AGGREGATABLE)
    second = request(30, 50, 60, Status.COMPLETE, parent=6, attempt=2)
    rows = [second if r.id == 6 else r for r in PROVEN]
    ended = [
        first,
        *(refused(40 + i, 1, 2, 3, 4, 5, 30, 7, 8) for i in range(2)),
        accepted(42, 1, 2, 3, 4, 5),
        refused(43, 1, 2, 3, 4, 5, 30),
    ]
    assert [move.request for move in plan(*ended, rows=rows).moves] == [5]


def test_refusals_of_a_proof_that_was_replaced_count_no_more() -> None:
    rows = [request(30, 50, 60, Status.COMPLETE, parent=6) if r.id == 6 else r for r in PROVEN]
    assert asked(plan(*TWICE, rows=rows)) == (1, 2, 3, 4, 5, 30, 7, 8)


def test_blocks_that_another_request_holds_are_left_to_it() -> None:
    """The ledger allows no second open range over them."""
    single = request(1, 0, 80, Status.COMPLETE)
    holds = request(9, 40, 80, Status.PROVING)
    ended = [refused(20, 1, end=80), refused(21, 1, end=80)]
    made = plan(*ended, rows=[single, holds])
    assert [move.request for move in made.moves] == [1]
    assert made.inserts == ()


def test_nothing_else_is_aggregated_while_a_shorter_chain_is_tried() -> None:
    probe = aggregation(22, 0, 40, Status.WITNESSGEN, members=(1, 2, 3, 4), parent=20)
    made = plan(*TWICE, rows=[*PROVEN, probe])
    assert (made.moves, made.inserts) == ((), ())


def test_a_shorter_chain_that_is_accepted_and_of_no_other_use_is_closed() -> None:
    """Its id is kept, and the search goes on."""
    probe = aggregation(22, 0, 40, Status.PROVING, members=(1, 2, 3, 4), parent=20)
    made = plan(*TWICE, rows=[*PROVEN, probe])
    (move,) = made.moves
    assert (move.request, move.to, move.failure) == (22, Status.CANCELLED, Failure.SUPERSEDED)
    assert is_probe(snapshot(PROVEN, attempts_above=TWICE), probe)


def test_a_shorter_chain_that_reaches_the_next_output_is_proposed_like_any_other() -> None:
    probe = aggregation(22, 0, 40, Status.PROVING, members=(1, 2, 3, 4), parent=20)
    snap = snapshot([*PROVEN, probe], contract=oracle(submission_interval=40), finalized=80, attempts_above=TWICE)
    assert plan_aggregation(snap, True).moves == ()


@pytest.mark.parametrize("bad", range(1, 9))
def test_any_culprit_is_found_in_at_most_log2_tries(bad: int) -> None:
    """Of eight members: the whole twice, three shorter chains, then settled."""
    world = World(max_block_range=10, submission_interval=80)
    world.finalized = 80
    for _ in range(40):
        if world.aggregations(Status.UNREQ, Status.WITNESSGEN):
            break
        world.cycle(submit=False)
        world.bad = {bad} if len(world.ranges(Status.COMPLETE)) >= 8 else set()
        world.work() if not world.bad else world.wait(1)
    world.settle()
    assert world.head == 80
    tries = [
        r for r in world.rows.values() if r.failure is Failure.REFUSED_IN_SIMULATION or r.status is Status.CANCELLED
    ]
    assert len(tries) <= 2 + 3, world
    blamed = [r.id for r in world.rows.values() if r.failure is Failure.NOT_AGGREGATABLE]
    assert blamed == [bad]
    ranges = world.ranges(Status.COMPLETE, Status.RELAYED)
    assert all(a.range.end == b.range.start for a, b in pairwise(ranges))
