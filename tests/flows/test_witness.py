"""What becomes of one request to the server: each way it can end, as rows of the ledger."""

import pytest
from sqlalchemy import text

from flows.witness import take_answers
from infra.devnet import Devnet, Fault, FaultPlan, ProverTiming
from proposer.requests import Failure, Kind, Status
from tests.acceptance.helpers import Hold
from tests.devnets import StartDevnet
from tests.flows.conftest import (
    MakeProposer,
    answered,
    cycle,
    due_now,
    every_request,
    until,
    waited_out,
    with_status,
)


async def _one_range(start_devnet: StartDevnet, *rules: Fault) -> Devnet:
    return await start_devnet(l2_initial_finalized=1100, faults=FaultPlan(rules=rules), submission_interval=100)


async def test_an_accepted_request_is_proving_with_its_id_and_l1_head(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The id is in the row, and the L1 head that no proof can lie above."""
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    paid = {event["proof_id"] for event in devnet.prover.log.of("paid")}
    requests = await every_request(proposer)
    assert {r.prover_id for r in requests} == paid
    assert all(r.l1_head for r in requests)


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault(kind="post_500", block=1010, first=1), Failure.WITNESS_FAILED),
        (Fault(kind="hang", block=1010, first=1), Failure.WITNESS_TIMEOUT),
    ],
    ids=["refused", "no answer in time"],
)
async def test_a_failed_request_is_tried_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer, fault: Fault, failure: Failure
) -> None:
    """The attempt is FAILED by its class, its successor waits; an unknown outcome is counted."""
    devnet = await _one_range(start_devnet, fault)
    proposer = await make_proposer(devnet, witness_gen_timeout=3, retry_delay=60)
    await cycle(proposer)
    await answered(proposer)
    failed, other, successor = await every_request(proposer)
    assert (failed.status, failed.failure) == (Status.FAILED, failure)
    assert other.status is Status.PROVING
    assert (successor.status, successor.attempt, successor.parent) == (Status.UNREQ, 2, failed.id)
    assert successor.unknown_outcomes == (1 if failure is Failure.WITNESS_TIMEOUT else 0)
    assert successor.next_attempt_at is not None


@pytest.mark.parametrize("kind", ["drop_before_paying", "drop_after_paying"])
async def test_a_request_cut_off_waits_out_its_time(
    start_devnet: StartDevnet, make_proposer: MakeProposer, kind: str
) -> None:
    """It may have been paid: it stays in witness generation and is asked once more after the server's own limit."""
    devnet = await _one_range(start_devnet, Fault.model_validate({"kind": kind, "block": 1010, "first": 1}))
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    cut = (await every_request(proposer))[0]
    assert cut.status is Status.WITNESSGEN
    posts = len(devnet.prover.log.of("post"))
    await cycle(proposer)
    assert len(devnet.prover.log.of("post")) == posts, "not asked again before its time"
    await waited_out(proposer)

    async def given_up() -> bool:
        return (await every_request(proposer))[0].status is Status.FAILED

    await until(proposer, given_up)
    closed, *_, again = [r for r in await every_request(proposer) if r.range.start == 1000]
    assert closed.failure is Failure.OUTCOME_UNKNOWN
    assert (again.unknown_outcomes, again.parent) == (1, closed.id)


async def test_an_answer_to_one_that_leads_no_more_is_taken_in_by_the_leader(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The id is left, whatever the epoch; the leader takes it in once, and asks for nothing anew."""
    devnet = await start_devnet(timing=ProverTiming(0.01, 60, 0.1, 0.1))
    old = await make_proposer(devnet)
    answers = [Hold(devnet.traps, "prover.range.paid") for _ in range(2)]
    await cycle(old)
    for answer in answers:
        await answer.reached()
    async with old.ledger.connect() as connection:
        await connection.execute(text("UPDATE leadership SET epoch = epoch + 1"))
        await connection.commit()
    heir = await make_proposer(devnet)
    heir.epoch = old.epoch + 1
    for answer in answers:
        answer.let_go()
    await answered(old)
    asked, row = len(devnet.prover.log.of("post")), (await every_request(heir))[0]
    assert (row.status, row.prover_id) == (Status.WITNESSGEN, None)
    said = "; ".join(await take_answers(heir))
    row = (await every_request(heir))[0]
    (paid,) = {event["proof_id"] for event in devnet.prover.log.of("paid") if event["start"] == 1000}
    assert (row.status, row.prover_id) == (Status.PROVING, paid)
    assert f"as {paid}: it is being proven" in said
    assert await take_answers(heir) == []
    assert len(devnet.prover.log.of("post")) == asked


async def test_a_server_that_is_away_charges_no_attempt(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Nothing was asked: the same row waits, still the first attempt."""
    proposer = await make_proposer(devnet)
    await cycle(proposer, dry_run=True)
    await devnet.prover.stop()
    await cycle(proposer)
    await answered(proposer)
    requests = await every_request(proposer)
    assert [(r.status, r.attempt) for r in requests] == [(Status.UNREQ, 1), (Status.UNREQ, 1)]
    assert all(r.next_attempt_at and "no attempt is charged" in (r.failure_text or "") for r in requests)


async def test_the_last_attempt_is_parked(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """After the cap a person decides."""
    devnet = await _one_range(start_devnet, Fault(kind="post_500", block=1010))
    proposer = await make_proposer(devnet, max_attempts=2)
    await cycle(proposer)
    await answered(proposer)
    await due_now(proposer)
    await cycle(proposer)
    await answered(proposer)
    first, _, second, parked = await every_request(proposer)
    assert [first.status, second.status, parked.status] == [Status.FAILED, Status.FAILED, Status.PARKED]
    assert "2 attempts failed" in (parked.failure_text or "")
    asked = len(devnet.prover.log.of("post"))
    await cycle(proposer)
    assert len([e for e in devnet.prover.log.of("post") if e["start"] == 1000]) == 2
    assert asked == 3


async def test_a_damaged_member_is_fetched_anew_before_its_aggregation_is_asked_again(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The server cannot read it and drops the connection: an unknown outcome, and the next request is answered."""
    proposer = await make_proposer(devnet)

    async def proven() -> bool:
        return len(await with_status(proposer, Status.COMPLETE)) == 2

    await until(proposer, proven)
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proofs SET proof = '\\x010203' WHERE request_id = 2"))
        await connection.execute(text("UPDATE proof_requests SET proof_digest = sha256('\\x010203') WHERE id = 2"))
        await connection.commit()

    async def settled() -> bool:
        await waited_out(proposer)
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled)
    aggregations = [r for r in await every_request(proposer) if r.kind is Kind.AGG]
    assert [r.failure for r in aggregations] == [Failure.OUTCOME_UNKNOWN, None]
    assert "not the server's" in " ".join(event.why for event in await proposer.ledger.events(2))
