"""The one writer: every change of status is in TRANSITIONS, compare-and-set, with its event in the same transaction."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import insert as insert_into
from sqlalchemy import text, update

from blocks.ledger import Ledger
from blocks.ledger.tables import proof_requests, proofs
from proposer.errors import IllegalTransition, LedgerMoved, UnknownRequest
from proposer.intents import Move, Plan
from proposer.polling import Usual
from proposer.ranges import BlockRange
from proposer.requests import (
    OPEN,
    TRANSITIONS,
    Checkpoint,
    Commitments,
    Failure,
    Kind,
    NewRequest,
    ProofRequest,
    Status,
)
from proposer.retry import RetryPolicy, successors
from proposer.units import L1Block, L1Ref

OURS = Commitments(b"r" * 32, b"a" * 32, b"c" * 32)
LEGAL = [(frm, to) for frm, follow in TRANSITIONS.items() for to in sorted(follow)]
ILLEGAL = [(frm, to) for frm in Status for to in Status if to not in TRANSITIONS[frm]]


def new(start: int = 0, end: int = 300, **changes: Any) -> NewRequest:
    """A range request to be inserted."""
    return NewRequest(
        **({"kind": Kind.RANGE, "range": BlockRange(start, end), "attempt": 1, "commitments": OURS} | changes)
    )


async def insert(ledger: Ledger, epoch: int, *requests: NewRequest) -> list[int]:
    """Insert requests in one write."""
    async with ledger.write(epoch) as writer:
        return [await writer.insert(request) for request in requests]


async def force(ledger: Ledger, request_id: int, status: Status, **values: object) -> ProofRequest:
    """Put a row into a status, past the writer, with what the status needs."""
    needs = {"prover_request_id": "0x1", "proof_digest": b"d", "proof_length": 1, "failure": "Unfulfillable"}
    async with ledger.connect() as connection, connection.begin():
        statement = update(proof_requests).where(proof_requests.c.id == request_id)
        await connection.execute(statement.values(status=status.value, **(needs | values)))
    return await ledger.request(request_id)


async def story(ledger: Ledger, request_id: int) -> list[tuple[Status | None, Status]]:
    """The transitions in a request's history."""
    return [(event.frm, event.to) for event in await ledger.events(request_id)]


@pytest.fixture
async def request_id(ledger: Ledger, epoch: int) -> int:
    """One planned range."""
    return (await insert(ledger, epoch, new(why="finalized")))[0]


async def test_a_new_request_begins_its_history(ledger: Ledger, epoch: int) -> None:
    """Every field is stored, and the first event says why it is there."""
    checkpoint = Checkpoint(L1Block(7), b"\x07" * 32)
    first, second = await insert(ledger, epoch, new(why="finalized"), new(300, 600))
    (aggregation,) = await insert(
        ledger,
        epoch,
        new(0, 600, kind=Kind.AGG, attempt=3, members=(second, first), checkpoint=checkpoint, output_root=b"o" * 32),
    )
    stored = await ledger.request(aggregation)
    assert (stored.kind, stored.range, stored.status, stored.attempt) == (Kind.AGG, BlockRange(0, 600), Status.UNREQ, 3)
    assert stored.members == (second, first)
    assert (stored.checkpoint, stored.output_root, stored.commitments) == (checkpoint, b"o" * 32, OURS)
    (event,) = await ledger.events(first)
    assert (event.frm, event.to, event.why) == (None, Status.UNREQ, "finalized")


@pytest.mark.parametrize(("frm", "to"), LEGAL, ids=[f"{a}-{b}" for a, b in LEGAL])
async def test_every_legal_transition_is_made_and_told(
    ledger: Ledger, epoch: int, request_id: int, frm: Status, to: Status
) -> None:
    await force(ledger, request_id, frm)
    if frm is Status.RELAYED:  # nothing is relayed without a proof
        async with ledger.connect() as connection, connection.begin():
            await connection.execute(insert_into(proofs).values(request_id=request_id, proof=b"proof"))
    async with ledger.write(epoch) as writer:
        assert await writer.move(Move(request_id, frm, to, "so it is", Failure.SUPERSEDED))
    after = await ledger.request(request_id)
    assert after.status is to
    assert after.failure is Failure.SUPERSEDED
    event = (await ledger.events(request_id))[-1]
    assert (event.frm, event.to, event.why, event.failure) == (frm, to, "so it is", Failure.SUPERSEDED)


@pytest.mark.parametrize(("frm", "to"), ILLEGAL, ids=[f"{a}-{b}" for a, b in ILLEGAL])
async def test_every_other_transition_is_refused(
    ledger: Ledger, epoch: int, request_id: int, frm: Status, to: Status
) -> None:
    await force(ledger, request_id, frm)
    with pytest.raises(IllegalTransition, match=f"request {request_id}: {frm} may not become {to}"):
        async with ledger.write(epoch) as writer:
            await writer.move(Move(request_id, frm, to, "no"))
    assert (await ledger.request(request_id)).status is frm
    assert len(await ledger.events(request_id)) == 1


async def test_a_move_decided_on_an_older_status_does_nothing(ledger: Ledger, epoch: int, request_id: int) -> None:
    """Compare and set: no change, and no event."""
    async with ledger.write(epoch) as writer:
        assert await writer.claim(request_id, None)
        assert not await writer.claim(request_id, None)
        assert not await writer.move(Move(request_id, Status.UNREQ, Status.CANCELLED, "late"))
    assert (await ledger.request(request_id)).status is Status.WITNESSGEN
    assert await story(ledger, request_id) == [(None, Status.UNREQ), (Status.UNREQ, Status.WITNESSGEN)]


async def test_change_and_event_are_one_transaction(ledger: Ledger, epoch: int, request_id: int) -> None:
    """When the transaction is rolled back neither is there."""

    async def claim_and_stumble() -> None:
        async with ledger.write(epoch) as writer:
            await writer.claim(request_id, "cycle")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await claim_and_stumble()
    assert (await ledger.request(request_id)).status is Status.UNREQ
    assert len(await ledger.events(request_id)) == 1


async def test_a_claim_is_the_intent_before_the_request(ledger: Ledger, epoch: int, request_id: int) -> None:
    """It says when, and under which epoch."""
    async with ledger.write(epoch) as writer:
        await writer.claim(request_id, "cycle")
    row = await ledger.request(request_id)
    assert row.claimed_epoch == epoch
    assert row.requested_at is not None


async def test_proving_and_its_id_are_one_statement(ledger: Ledger, epoch: int, request_id: int) -> None:
    look = await ledger.now() + timedelta(seconds=1)
    async with ledger.write(epoch) as writer:
        await writer.claim(request_id, None)
        assert await writer.proving(request_id, "0xabc")
    row = await ledger.request(request_id)
    assert (row.status, row.prover_id) == (Status.PROVING, "0xabc")
    assert row.next_poll_at is not None
    assert timedelta() <= row.next_poll_at - look < timedelta(seconds=5)


async def test_an_id_for_a_request_that_was_taken_up_again_meanwhile_is_its_id(
    ledger: Ledger, epoch: int, request_id: int
) -> None:
    """Parked and taken up while the first answer was under way, it is proving: nothing is asked twice."""
    async with ledger.write(epoch) as writer:
        assert await writer.proving(request_id, "0xabc")
    row = await ledger.request(request_id)
    assert (row.status, row.prover_id) == (Status.PROVING, "0xabc")


@pytest.mark.parametrize("closed", [Status.FAILED, Status.CANCELLED, Status.PARKED])
async def test_a_late_id_is_kept_on_its_closed_row_and_looked_at(
    ledger: Ledger, epoch: int, request_id: int, closed: Status
) -> None:
    """It may have been paid: its status stays, and it is due for a look. A second id does not replace it."""
    await force(ledger, request_id, closed, prover_request_id=None)
    async with ledger.write(epoch) as writer:
        assert not await writer.proving(request_id, "0xlate")
        assert not await writer.proving(request_id, "0xlate"), "a commit whose answer was lost is repeated"
        assert not await writer.proving(request_id, "0xother")
    row = await ledger.request(request_id)
    assert (row.status, row.prover_id) == (closed, "0xlate")
    assert row.next_poll_at is not None
    _, other = await ledger.events(request_id)
    assert "0xother too" in other.why


COMPLETABLE = [s for s in Status if Status.COMPLETE in TRANSITIONS[s] and s is not Status.RELAYED]


@pytest.mark.parametrize("frm", COMPLETABLE)
async def test_a_proof_completes_its_request_whatever_it_was(
    ledger: Ledger, epoch: int, request_id: int, frm: Status
) -> None:
    """A proof that arrives late, or for a parked request, is a proof; nobody looks again."""
    before = await force(
        ledger, request_id, frm, proof_digest=None, proof_length=None, next_poll_at=datetime(2030, 1, 1, tzinfo=UTC)
    )
    async with ledger.write(epoch) as writer:
        assert await writer.complete(before, b"proof", "proven")
    after = await ledger.request(request_id)
    assert (after.status, after.proof_digest, after.proof_length) == (Status.COMPLETE, sha256(b"proof").digest(), 5)
    assert (after.failure, after.next_poll_at) == (None, None)
    assert await ledger.proof(request_id) == b"proof"
    assert (await story(ledger, request_id))[-1] == (frm, Status.COMPLETE)


async def test_the_first_proof_wins(ledger: Ledger, epoch: int, request_id: int) -> None:
    """Of two looks that both found the proof, the second changes nothing."""
    before = await force(ledger, request_id, Status.PROVING)
    async with ledger.write(epoch) as writer:
        assert await writer.complete(before, b"first", "proven")
    async with ledger.write(epoch) as writer:
        assert not await writer.complete(before, b"second", "proven")
    assert await ledger.proof(request_id) == b"first"


async def test_an_empty_proof_of_a_mock_completes(ledger: Ledger, epoch: int, request_id: int) -> None:
    before = await force(ledger, request_id, Status.WITNESSGEN)
    async with ledger.write(epoch) as writer:
        assert await writer.complete(before, b"", "mock")
    assert (await ledger.request(request_id)).proof_length == 0


@pytest.mark.parametrize("poll", [True, False])
async def test_a_failure_and_what_carries_on_are_one_transaction(
    ledger: Ledger, epoch: int, request_id: int, poll: bool
) -> None:
    """The halves are there, the attempt is closed with its class, and its id is looked at only if asked for."""
    look = await ledger.now()
    before = await force(ledger, request_id, Status.PROVING, next_poll_at=look)
    halves = successors(before, Failure.UNEXECUTABLE, RetryPolicy(), look)
    async with ledger.write(epoch) as writer:
        ids = await writer.fail(before, Failure.UNEXECUTABLE, "too large", halves, poll=poll)
    first, second = await ledger.requests(ids)
    assert (first.range, second.range) == before.range.halves()
    assert {first.parent, second.parent} == {request_id}
    after = await ledger.request(request_id)
    assert (after.status, after.failure, after.failure_text) == (Status.FAILED, Failure.UNEXECUTABLE, "too large")
    assert after.next_poll_at == (look if poll else None)
    told = [(event.to, event.why) for event in await ledger.events(request_id)][-2:]
    assert told == [(Status.FAILED, "too large"), (Status.FAILED, f"carried on by request {ids[0]} and {ids[1]}")]


async def test_a_successor_that_overlaps_rolls_everything_back(ledger: Ledger, epoch: int, request_id: int) -> None:
    """The attempt is not failed without what carries on."""
    await insert(ledger, epoch, new(300, 600))
    before = await force(ledger, request_id, Status.PROVING)
    with pytest.raises(LedgerMoved, match="open_ranges_do_not_overlap"):
        async with ledger.write(epoch) as writer:
            await writer.fail(before, Failure.UNEXECUTABLE, "no", [new(0, 150), new(150, 301)], poll=False)
    assert (await ledger.request(request_id)).status is Status.PROVING
    assert [r.range.start for r in (await ledger.view(0)).requests] == [0, 300]
    assert len(await ledger.events(request_id)) == 1


async def test_a_failure_decided_on_an_older_status_inserts_nothing(
    ledger: Ledger, epoch: int, request_id: int
) -> None:
    """Two looks that both saw the failure do not both retry."""
    before = await force(ledger, request_id, Status.PROVING)
    retry = successors(before, Failure.UNFULFILLABLE, RetryPolicy(), before.since)
    async with ledger.write(epoch) as writer:
        assert len(await writer.fail(before, Failure.UNFULFILLABLE, "no", retry, poll=False)) == 1
        assert await writer.fail(before, Failure.UNFULFILLABLE, "no", retry, poll=False) == []
    assert len((await ledger.view(0)).requests) == 1


async def test_a_plan_is_one_transaction(ledger: Ledger, epoch: int, request_id: int) -> None:
    """A straddling range is cancelled and the bridge inserted; without the first the second is refused, both undone."""
    cancel = Move(request_id, Status.UNREQ, Status.CANCELLED, "the head moved", Failure.SUPERSEDED)
    plan = Plan((cancel,), (new(100, 300), new(300, 600)))
    async with ledger.write(epoch) as writer:
        await writer.claim(request_id, None)
    with pytest.raises(LedgerMoved):
        async with ledger.write(epoch) as writer:
            await writer.apply(plan)
    assert len((await ledger.view(0)).requests) == 1
    still = Plan((Move(request_id, Status.WITNESSGEN, Status.CANCELLED, "the head moved"),), plan.inserts)
    async with ledger.write(epoch) as writer:
        ids = await writer.apply(still, "cycle-1")
    assert [r.range for r in await ledger.requests(ids)] == [BlockRange(100, 300), BlockRange(300, 600)]


async def test_a_postponed_request_is_charged_nothing(ledger: Ledger, epoch: int, request_id: int) -> None:
    """The server was down: it waits, as the same attempt."""
    until = await ledger.now() + timedelta(seconds=30)
    async with ledger.write(epoch) as writer:
        await writer.claim(request_id, None)
        assert await writer.postpone(await ledger.request(request_id), until, "the server is down")
    row = await ledger.request(request_id)
    assert (row.status, row.attempt, row.next_attempt_at, row.claimed_epoch) == (Status.UNREQ, 1, until, None)


async def test_a_person_takes_a_request_up(ledger: Ledger, epoch: int, request_id: int) -> None:
    """Parked or backing off, it is due at once; one under way is left alone."""
    later = await ledger.now() + timedelta(hours=1)
    for status in (Status.PARKED, Status.UNREQ):
        await force(ledger, request_id, status, next_attempt_at=later, prover_request_id=None)
        async with ledger.write(epoch) as writer:
            assert await writer.take_up(request_id, "by hand", 1200)
        row = await ledger.request(request_id)
        assert row.status is Status.UNREQ
        assert row.next_attempt_at is not None
        assert row.next_attempt_at < later
    await force(ledger, request_id, Status.WITNESSGEN)
    async with ledger.write(epoch) as writer:
        assert not await writer.take_up(request_id, "by hand", 1200)


async def test_a_parked_request_that_was_paid_is_looked_at_not_asked_again(
    ledger: Ledger, epoch: int, request_id: int
) -> None:
    """Taken up by hand it is proving under the id that it has."""
    await force(ledger, request_id, Status.PARKED, prover_request_id="ab" * 32)
    async with ledger.write(epoch) as writer:
        assert await writer.take_up(request_id, "by hand", 1200)
    (row,) = await ledger.due_for_a_look()
    assert (row.status, row.prover_id) == (Status.PROVING, "ab" * 32)


async def test_an_aggregation_is_bound_to_its_anchor_with_the_claim(ledger: Ledger, epoch: int) -> None:
    """What was chosen before may be another; the checkpoint does not change under a request that was sent."""
    (number,) = await insert(ledger, epoch, new(kind=Kind.AGG))
    chosen, bound = Checkpoint(L1Block(9), b"\x09" * 32), Checkpoint(L1Block(10), b"\x10" * 32)
    async with ledger.write(epoch) as writer:
        await writer.anchor(number, chosen)
    assert (await ledger.request(number)).checkpoint == chosen
    async with ledger.write(epoch) as writer:
        await writer.output_root(number, b"o" * 32)
        await writer.output_root(number, b"x" * 32)
        await writer.claim(number, None, bound)
        await writer.anchor(number, chosen)
    row = await ledger.request(number)
    assert (row.checkpoint, row.output_root) == (bound, b"o" * 32)


async def test_the_l1_head_of_an_answer_is_stored_once(ledger: Ledger, epoch: int, request_id: int) -> None:
    """One that could not be read is filled in later."""
    (other,) = await insert(ledger, epoch, new(300, 600))
    await force(ledger, request_id, Status.PROVING)
    await force(ledger, other, Status.COMPLETE)
    async with ledger.write(epoch) as writer:
        await writer.l1_head(request_id, L1Ref(L1Block(5), b"5" * 32, 0))
        await writer.l1_head(request_id, L1Ref(L1Block(6), b"6" * 32, 0))
        await writer.fill_l1_heads(L1Ref(L1Block(8), b"8" * 32, 0))
    rows = await ledger.requests([request_id, other])
    assert [(r.l1_head, r.l1_head_hash) for r in rows] == [(5, b"5" * 32), (8, b"8" * 32)]


async def test_closed_ids_below_the_head_are_forgotten(ledger: Ledger, epoch: int) -> None:
    """No proof of settled blocks is needed once that is final; those above are still looked at."""
    below, above, live = await insert(ledger, epoch, new(0, 300), new(300, 600), new(600, 900))
    look = await ledger.now()
    await force(ledger, below, Status.FAILED, next_poll_at=look)
    await force(ledger, above, Status.CANCELLED, next_poll_at=look)
    await force(ledger, live, Status.PROVING, next_poll_at=look)
    async with ledger.write(epoch) as writer:
        await writer.stop_looking_below(300, 60)
    assert {r.id for r in await ledger.due_for_a_look()} == {below, above, live}
    async with ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET since = now() - interval '61 s'"))
        await connection.commit()
    async with ledger.write(epoch) as writer:
        await writer.stop_looking_below(300, 60)
    assert {r.id for r in await ledger.due_for_a_look()} == {above, live}


async def test_looks_are_scheduled(ledger: Ledger, epoch: int) -> None:
    """Only what is due comes, the longest overdue first; who is not to be looked at any more stays so."""
    one, two, three = await insert(ledger, epoch, new(0, 300), new(300, 600), new(600, 900))
    now = await ledger.now()
    for number in (one, two, three):
        await force(ledger, number, Status.PROVING, next_poll_at=now)
    async with ledger.write(epoch) as writer:
        await writer.look_again(
            {one: now - timedelta(seconds=1), two: now - timedelta(seconds=9), three: now + timedelta(hours=1)}
        )
    assert [r.id for r in await ledger.due_for_a_look()] == [two, one]
    async with ledger.write(epoch) as writer:
        await writer.look_again({one: None})
    async with ledger.write(epoch) as writer:
        await writer.look_again({one: now})
    assert [r.id for r in await ledger.due_for_a_look()] == [two]


async def test_a_rising_mark_never_goes_back_and_keeps_its_time(ledger: Ledger, epoch: int) -> None:
    """Finality is the highest seen; the required block follows the head both ways."""
    for number in (10, 5, 10):
        async with ledger.write(epoch) as writer:
            await writer.mark("finalized", number, rising=True)
            await writer.mark("required", number, rising=False)
    view = await ledger.view(0)
    assert view.finalized is not None
    assert view.required is not None
    assert (view.finalized.number, view.required.number) == (10, 10)
    assert view.required.at > view.finalized.at
    async with ledger.write(epoch) as writer:
        await writer.mark("required", 10, rising=False)
    assert (await ledger.view(0)).required == view.required


async def test_a_note_is_history_without_a_change(ledger: Ledger, epoch: int, request_id: int) -> None:
    async with ledger.write(epoch) as writer:
        await writer.note(request_id, "asked the server again")
    event = (await ledger.events(request_id))[-1]
    assert (event.frm, event.to, event.why) == (Status.UNREQ, Status.UNREQ, "asked the server again")


async def test_proofs_are_told_by_length_read_singly_and_pruned_once_relayed(ledger: Ledger, epoch: int) -> None:
    """A proof that is not there is an error that names it."""
    one, two, three = await insert(ledger, epoch, new(0, 300), new(300, 600), new(600, 900))
    for number in (one, two):
        before = await force(ledger, number, Status.PROVING)
        async with ledger.write(epoch) as writer:
            await writer.complete(before, b"proof %d" % number, "proven")
    assert await ledger.proof(two) == b"proof %d" % two
    assert await ledger.proof_lengths([two, one]) == [len(b"proof %d" % two), len(b"proof %d" % one)]
    with pytest.raises(UnknownRequest, match=rf"\[{three}\]"):
        await ledger.proof_lengths([one, three])
    with pytest.raises(UnknownRequest, match=f"request {three}"):
        await ledger.proof(three)
    async with ledger.write(epoch) as writer:
        assert await writer.prune_proofs(0) == 0
        await writer.move(Move(one, Status.COMPLETE, Status.RELAYED, "settled"))
    async with ledger.write(epoch) as writer:
        assert await writer.prune_proofs(3600) == 0
        assert await writer.prune_proofs(0) == 1
    with pytest.raises(UnknownRequest):
        await ledger.proof(one)
    assert (await ledger.request(one)).proof_digest is not None


async def test_the_mirror_hears_of_what_it_has_not_shown(ledger: Ledger, epoch: int) -> None:
    """What is under way first, queued ones last; a new story is told from the beginning."""
    queued, busy = await insert(ledger, epoch, new(0, 300), new(300, 600))
    async with ledger.write(epoch) as writer:
        await writer.claim(busy, "cycle-1")
    first, second = await ledger.to_mirror(10)
    assert (first.request.id, second.request.id) == (busy, queued)
    assert (first.cycle_run_id, first.run_id, first.story, first.mirrored_event) == ("cycle-1", None, 0, 0)
    assert [m.request.id for m in await ledger.to_mirror(1)] == [busy]

    shown = (await ledger.events(busy))[-1].id
    async with ledger.write(epoch) as writer:
        await writer.mirrored(busy, "run-1", shown)
        await writer.mirrored(busy, "run-1", shown - 1)
    assert [m.request.id for m in await ledger.to_mirror(10)] == [queued]
    assert await ledger.open_runs() == {busy: "run-1"}
    assert await ledger.events(busy, after=shown) == []

    async with ledger.write(epoch) as writer:
        await writer.new_story(busy)
    again = (await ledger.to_mirror(10))[0]
    assert (again.request.id, again.run_id, again.story, again.mirrored_event) == (busy, None, 1, 0)
    assert await ledger.open_runs() == {}


async def test_how_long_proofs_usually_take(ledger: Ledger, epoch: int) -> None:
    """Unknown below five; afterwards the quick and the slow ones of this kind."""

    async def prove(position: int, seconds: int) -> None:
        (number,) = await insert(ledger, epoch, new(position * 10, position * 10 + 10))
        asked = await ledger.now() - timedelta(seconds=seconds)
        before = await force(ledger, number, Status.PROVING, requested_at=asked)
        async with ledger.write(epoch) as writer:
            await writer.complete(before, b"p", "proven")

    for position in range(4):
        await prove(position, 100)
    assert await ledger.usual(Kind.RANGE) is None
    await prove(4, 500)
    usual = await ledger.usual(Kind.RANGE)
    assert isinstance(usual, Usual)
    assert 99 < usual.quick < 160
    assert 400 < usual.slow < 560
    assert await ledger.usual(Kind.AGG) is None


@pytest.mark.parametrize("status", sorted(OPEN))
async def test_an_unknown_request_is_not_moved(ledger: Ledger, epoch: int, status: Status) -> None:
    """And reading it names the number."""
    async with ledger.write(epoch) as writer:
        assert not await writer.claim(404, None)
        assert not await writer.move(Move(404, status, Status.CANCELLED, "no"))
    with pytest.raises(UnknownRequest, match="no proof request 404"):
        await ledger.request(404)


async def test_a_second_id_of_a_request_is_in_its_history(ledger: Ledger, epoch: int, request_id: int) -> None:
    """It is paid for, and a row has room for one: a person finds it."""
    async with ledger.write(epoch) as writer:
        await writer.claim(request_id, None)
        assert await writer.proving(request_id, "a" * 64)
    await ledger.leave_answer(request_id, "b" * 64)
    async with ledger.write(epoch) as writer:
        assert not await writer.take_answer(request_id, "b" * 64)
    assert (await ledger.request(request_id)).prover_id == "a" * 64
    assert "b" * 64 in (await ledger.events(request_id))[-1].why
    assert await ledger.answers_left() == []


async def test_many_proofs_are_pruned_a_few_at_a_time(ledger: Ledger, epoch: int) -> None:
    numbers = await insert(ledger, epoch, *(new(start, start + 300) for start in (0, 300, 600)))
    for number in numbers:
        before = await force(ledger, number, Status.PROVING)
        async with ledger.write(epoch) as writer:
            await writer.complete(before, b"proof", "proven")
            await writer.move(Move(number, Status.COMPLETE, Status.RELAYED, "settled"))
    async with ledger.write(epoch) as writer:
        assert [await writer.prune_proofs(0, 2) for _ in range(3)] == [2, 1, 0]


async def test_runs_that_are_behind_are_told_apart(ledger: Ledger, epoch: int, request_id: int) -> None:
    """What a person cancelled there may have been taken up again since."""
    async with ledger.write(epoch) as writer:
        await writer.mirrored(request_id, "run-1", 0)
    assert (await ledger.open_runs(), await ledger.open_runs(shown=True)) == ({request_id: "run-1"}, {})
    async with ledger.write(epoch) as writer:
        await writer.mirrored(request_id, "run-1", (await ledger.events(request_id))[-1].id)
    assert await ledger.open_runs(shown=True) == {request_id: "run-1"}


@pytest.mark.parametrize("prover_id", [None, "a" * 64])
async def test_a_pruned_proof_that_is_needed_again_is_fetched_or_proven_anew(
    ledger: Ledger, epoch: int, request_id: int, prover_id: str | None
) -> None:
    """The contract was set back to before the oldest proof that is stored: a row without one must not count as one."""
    status = Status.PROVING if prover_id else Status.WITNESSGEN  # a mock server's answer is the proof
    before = await force(ledger, request_id, status, prover_request_id=prover_id)
    back = Move(request_id, Status.RELAYED, Status.COMPLETE, "the contract head was rewound to 0")
    async with ledger.write(epoch) as writer:
        await writer.complete(before, b"proof", "proven")
        await writer.move(Move(request_id, Status.COMPLETE, Status.RELAYED, "settled"))
        assert await writer.move(back)
    assert (await ledger.request(request_id)).status is Status.COMPLETE
    async with ledger.write(epoch) as writer:
        await writer.move(Move(request_id, Status.COMPLETE, Status.RELAYED, "settled"))
    async with ledger.write(epoch) as writer:
        assert await writer.prune_proofs(0) == 1
        assert await writer.move(back)
    row = await ledger.request(request_id)
    assert (row.status, row.failure) == (Status.CANCELLED, Failure.SUPERSEDED)
    assert "deleted long ago" in (row.failure_text or "")
    assert [r.id for r in await ledger.due_for_a_look()] == ([request_id] if prover_id else [])
