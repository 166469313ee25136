"""What the prover server does wrong: nothing is lost, nothing asked twice without need, and no other proof waits."""

import asyncio
import time
from contextlib import aclosing
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from blocks.prover import SuccinctServer
from flows.context import Proposer
from flows.stages import proving
from infra.devnet import Devnet, Fault, FaultPlan
from proposer.errors import EndpointDown
from proposer.ranges import BlockRange
from proposer.reasons import Code
from proposer.requests import COVERAGE, Failure, Kind, ProofRequest, Status
from tests.devnets import StartDevnet
from tests.flows.conftest import (
    MakeProposer,
    answered,
    cycle,
    due_now,
    every_request,
    looked,
    until,
    waited_out,
    with_status,
)

PROVEN_SECONDS = 0.3
"""Longer than these devnets take to prove anything."""


async def _proven_by_now(proposer: Proposer) -> None:
    """Let the network finish what it was asked for, and let every look be due."""
    await answered(proposer)
    await asyncio.sleep(PROVEN_SECONDS)
    await due_now(proposer)


async def _over(proposer: Proposer, start: int, end: int) -> list[ProofRequest]:
    """Return the range requests over exactly these blocks, oldest first."""
    ranges = [r for r in await every_request(proposer) if r.kind is Kind.RANGE]
    return [r for r in ranges if r.range == BlockRange(start, end)]


def _asked(devnet: Devnet, start: int | None = None) -> int:
    """Count the range requests that reached the server, all or those from one block."""
    posts = [event for event in devnet.prover.log.of("post") if event["kind"] == "range"]
    return sum(start is None or event["start"] == start for event in posts)


async def test_a_look_that_hangs_holds_up_no_other(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """F05: the server keeps one look waiting; the proof behind it is taken meanwhile, and no attempt is charged."""
    faults = FaultPlan(rules=(Fault(kind="slow_status", block=1010, seconds=60),))
    devnet = await start_devnet(faults=faults)
    proposer = await make_proposer(devnet)
    async with aclosing(SuccinctServer(url=SecretStr(devnet.prover_url), timeout_seconds=60)) as patient:
        proposer.server = patient
        await cycle(proposer)
        await _proven_by_now(proposer)
        async with proposer.ledger.connect() as connection:  # the one that hangs comes first
            await connection.execute(
                text("UPDATE proof_requests SET next_poll_at = now() - interval '1 hour' WHERE start_block = 1000")
            )
            await connection.commit()
        looking = asyncio.create_task(proving.look(proposer))
        deadline = time.monotonic() + 60
        while not (proven := await with_status(proposer, Status.COMPLETE)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        hanging = {r.id for r in await every_request(proposer)} - {r.id for r in proven}
        assert proposer.looking == hanging, "the other look still hangs"
        async with asyncio.timeout(60):
            await looking
    (left,) = await with_status(proposer, Status.PROVING)
    assert (left.range.start, left.attempt) == (1000, 1)
    assert left.next_poll_at is not None, "it is looked at again"


async def test_an_unfulfillable_range_is_tried_again_whole(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F06, F09: an attempt ends at the first look that hears of it, and the range is never halved for it."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", block=1010, first=2),)))
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await _proven_by_now(proposer)
    await looked(proposer)
    first, second = await _over(proposer, 1000, 1050)
    assert (first.status, first.failure) == (Status.FAILED, Failure.UNFULFILLABLE)
    assert (second.status, second.attempt, second.parent) == (Status.UNREQ, 2, first.id)

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled, seconds=60)
    assert [r.attempt for r in await _over(proposer, 1000, 1050)] == [1, 2, 3]
    assert {r.range.blocks for r in await every_request(proposer) if r.kind is Kind.RANGE} == {50}


async def test_a_proof_fulfilled_after_its_deadline_is_taken(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F07: `MAX_PROOF_TIME` is over before the first look; what was paid for and delivered is taken all the same."""
    proposer = await make_proposer(devnet, max_proof_time=0.01)
    await cycle(proposer)
    await _proven_by_now(proposer)
    await looked(proposer)
    assert [r.status for r in await every_request(proposer)] == [Status.COMPLETE, Status.COMPLETE]


async def test_a_proof_that_arrives_after_it_was_given_up_spares_the_next_attempt(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F07: given up on the clock, it is still looked at; its proof wins over the next attempt, not yet paid for."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="late", block=1010, seconds=600.0),)))
    proposer = await make_proposer(devnet, max_proof_time=0.01, retry_delay=60)
    await cycle(proposer)
    await _proven_by_now(proposer)
    await looked(proposer)
    given_up, again = await _over(proposer, 1000, 1050)
    assert (given_up.status, given_up.failure) == (Status.FAILED, Failure.PROOF_TIMEOUT)
    assert again.status is Status.UNREQ
    (proof,) = [p for p in devnet.prover.network.proofs.values() if p.start == 1000]
    proof.proof, proof.done = proof.make(), True
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET next_poll_at = now() WHERE next_poll_at IS NOT NULL"))
        await connection.commit()
    await looked(proposer)
    await cycle(proposer)
    late, spared = await _over(proposer, 1000, 1050)
    assert (late.status, spared.status) == (Status.COMPLETE, Status.CANCELLED)
    assert _asked(devnet, 1000) == 1


HALVES = [
    *((1000, 1032), (1032, 1064)),
    *((1032, 1048), (1048, 1064)),
    *((1032, 1040), (1040, 1048)),
    *((1032, 1036), (1036, 1040)),
    *((1036, 1038), (1038, 1040)),
    *((1036, 1037), (1037, 1038)),
]
"""How block 1037 is isolated."""


async def test_an_unexecutable_block_is_isolated_and_its_neighbours_are_settled(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F08, S01: one bad block of 64 is alone after 6 halvings and parked; the rest is proven, and no more is paid."""
    bad = 1037
    devnet = await start_devnet(faults=FaultPlan.culprit(bad), l2_initial_finalized=1064, submission_interval=1)
    proposer = await make_proposer(devnet, max_block_range=64, max_witness_gen=20)

    async def settled_up_to_it_and_proven_behind_it() -> bool:
        live = {r.status for r in await every_request(proposer) if r.kind is Kind.RANGE} - {Status.FAILED}
        return await devnet.latest_block_number() == bad - 1 and live <= COVERAGE | {Status.PARKED}

    await until(proposer, settled_up_to_it_and_proven_behind_it, seconds=60)
    (parked,) = await with_status(proposer, Status.PARKED)
    assert (parked.range.start, parked.range.end) == (bad - 1, bad)
    paid = [r.range for r in await every_request(proposer) if r.kind is Kind.RANGE and r.prover_id]
    assert sorted((r.start, r.end) for r in paid) == sorted([(1000, 1064), *HALVES])
    report = await cycle(proposer)
    assert Code.REQUEST_PARKED in {reason.code for reason in report.reasons}
    assert _asked(devnet) == len(paid)


async def test_an_empty_proof_is_refused_and_asked_for_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F11: fulfilled without a byte is no proof: the attempt ends as BadProof and the next one settles."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="empty_proof", block=1010, first=1),)))
    proposer = await make_proposer(devnet)

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled, seconds=60)
    first, second = await _over(proposer, 1000, 1050)
    assert (first.status, first.failure, first.proof_length) == (Status.FAILED, Failure.BAD_PROOF, None)
    assert second.attempt == 2
    assert second.proof_length


async def test_an_id_that_the_server_has_lost_is_asked_again_once(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F12: after a grace period the range is asked once more; lost again it is parked, and found again it is taken."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unknown_id", block=1010),)))
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    for attempt in (1, 2):
        await _proven_by_now(proposer)
        await looked(proposer)
        looked_at = (await _over(proposer, 1000, 1050))[-1]
        assert (looked_at.status, looked_at.attempt) == (Status.PROVING, attempt), "the first look proves nothing"
        await due_now(proposer)
        _grace_is_over(proposer)
        await looked(proposer)
        await due_now(proposer)
        await cycle(proposer)
    await answered(proposer)
    first, second, parked = await _over(proposer, 1000, 1050)
    assert {(r.status, r.failure) for r in (first, second)} == {(Status.FAILED, Failure.LOST_BY_SERVER)}
    assert parked.status is Status.PARKED
    assert _asked(devnet, 1000) == 2
    devnet.prover.set_faults(FaultPlan())

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled, seconds=60)
    assert _asked(devnet, 1000) == 2


def _grace_is_over(proposer: Proposer) -> None:
    """Have the server not know its ids for an hour already."""
    for request in proposer.unknown_since:
        proposer.unknown_since[request] -= timedelta(hours=1)


async def test_an_answer_that_is_lost_every_time_is_asked_for_twice_and_no_more(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Every answer is lost after the server has paid: one repetition, then a person decides."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="drop_after_paying", block=1010),)))
    proposer = await make_proposer(devnet)

    async def parked() -> bool:
        await waited_out(proposer)
        return bool(await with_status(proposer, Status.PARKED))

    await until(proposer, parked, seconds=60)
    first, second, last = await _over(proposer, 1000, 1050)
    assert {(r.status, r.failure) for r in (first, second)} == {(Status.FAILED, Failure.OUTCOME_UNKNOWN)}
    assert last.status is Status.PARKED
    assert "paid twice" in (last.failure_text or "")
    for _ in range(3):
        await due_now(proposer)
        await cycle(proposer)
        await answered(proposer)
    assert _asked(devnet, 1000) == 2


async def test_a_server_that_refuses_everything_is_asked_a_bounded_number_of_times(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """F34, S10: no credits left: what is under way is collected, the rest is parked with a reason and asked no more."""
    devnet = await start_devnet()
    proposer = await make_proposer(devnet, max_witness_gen=1, max_attempts=3)
    await cycle(proposer)
    await answered(proposer)
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="post_500", on="any"),)))

    async def parked() -> bool:
        return bool(await with_status(proposer, Status.PARKED))

    await until(proposer, parked, seconds=60)
    assert [r.status for r in await _over(proposer, 1000, 1050)] == [Status.COMPLETE]
    assert [r.failure for r in await _over(proposer, 1050, 1100)][:3] == [Failure.WITNESS_FAILED] * 3
    for _ in range(3):
        await due_now(proposer)
        report = await cycle(proposer)
        assert Code.REQUEST_PARKED in {reason.code for reason in report.reasons}
        await answered(proposer)
    assert _asked(devnet, 1050) == 3


async def test_a_request_that_hangs_gives_its_slot_back(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """F27: the witness process hangs: after `WITNESS_GEN_TIMEOUT` the attempt ends and the next range is asked for."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="hang", block=1010, first=1),)))
    proposer = await make_proposer(devnet, max_witness_gen=1, witness_gen_timeout=3, retry_delay=60)
    await cycle(proposer)
    assert _asked(devnet, 1050) == 0, "the only slot is taken"
    await answered(proposer)
    (hung, again) = await _over(proposer, 1000, 1050)
    assert (hung.status, hung.failure) == (Status.FAILED, Failure.WITNESS_TIMEOUT)
    assert (again.status, again.unknown_outcomes) == (Status.UNREQ, 1)
    await cycle(proposer)
    await answered(proposer)
    assert _asked(devnet, 1050) == 1


async def test_a_long_outage_of_the_server_costs_nothing(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F34, S11: a day without the server charges no attempt, halves nothing, pays nothing; then all is taken up."""
    proposer = await make_proposer(devnet, max_witness_gen=1)
    await cycle(proposer)
    await answered(proposer)
    await devnet.prover.stop()
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET since = since - interval '1 day'"))
        await connection.commit()
    for _ in range(6):
        await due_now(proposer)
        report = await cycle(proposer)
        await answered(proposer)
        assert Code.SERVER_DOWN in {reason.code for reason in report.reasons}
    assert [(r.status, r.attempt) for r in await every_request(proposer)] == [(Status.PROVING, 1), (Status.UNREQ, 1)]
    assert await proposer.ledger.transactions(unsettled=False) == []
    await devnet.prover.start()

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled, seconds=60)
    await cycle(proposer)
    assert [(r.status, r.attempt) for r in await every_request(proposer)] == [(Status.RELAYED, 1)] * 3
    assert len(devnet.prover.log.of("paid")) == 3


async def test_looks_that_alone_go_unanswered_end_with_the_deadline(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The server answers everything but the looks at the only proof there is: they do not go on for ever."""
    devnet = await start_devnet(l2_initial_finalized=1050, submission_interval=50)
    proposer = await make_proposer(devnet, max_proof_time=0.01, retry_delay=60)
    await cycle(proposer)
    await answered(proposer)
    proposer.server.timeout_seconds = 0.5
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="hang_status", block=1010),)))
    await due_now(proposer)
    await proving.look(proposer)
    await asyncio.gather(*proposer.rounds)
    given_up, again = await _over(proposer, 1000, 1050)
    assert (given_up.status, given_up.failure) == (Status.FAILED, Failure.PROOF_TIMEOUT)
    assert "no answer about the proof" in (given_up.failure_text or "")
    assert again.status is Status.UNREQ
    await devnet.prover.stop()
    await due_now(proposer)
    with pytest.raises(EndpointDown):
        await proving.look(proposer)
