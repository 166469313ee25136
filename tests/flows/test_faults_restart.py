"""A process that dies, stops leading, or runs twice: what it asked and sent is found again; nothing is done twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import httpx
import orjson
from pydantic import SecretStr
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocks.prover import SuccinctServer
from flows.context import Cycle, Proposer
from flows.stages import observe
from flows.stages.requests import request_queued
from infra.devnet import Devnet, Fault, FaultPlan
from infra.devnet.server import HttpServer
from proposer.l1_transactions import Purpose, TxStatus
from proposer.permission import Permission
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status
from proposer.snapshot import Snapshot
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, looked, until, waited_out


def _asked(devnet: Devnet, start: int) -> int:
    return sum(event["start"] == start for event in devnet.prover.log.of("post"))


@asynccontextmanager
async def _witness_of_posts(devnet: Devnet, proposer: Proposer) -> AsyncIterator[list[list[Status]]]:
    """Stand between the proposer and its server: note what the ledger says of each request when its POST arrives."""
    seen: list[list[Status]] = []

    async def forward(request: Request) -> Response:
        body = await request.body()
        if request.url.path == "/request_span_proof":
            asked = orjson.loads(body)
            seen.append([r.status for r in await every_request(proposer) if r.range.start == asked["start"]])
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            headers = {"content-type": "application/json"}
            reply = await client.request(
                request.method, devnet.prover_url + request.url.path, content=body, headers=headers
            )
        return Response(reply.content, reply.status_code)

    http = HttpServer(Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])]))
    await http.start()
    try:
        async with aclosing(SuccinctServer(url=SecretStr(http.url))) as proposer.server:
            yield seen
    finally:
        await http.stop()


async def test_the_claim_is_in_the_ledger_before_the_request_is_sent(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """S13, S37: when a POST arrives at the server, the row says WITNESSGEN already: a crash cannot hide it."""
    proposer = await make_proposer(devnet)
    async with _witness_of_posts(devnet, proposer) as seen:
        await cycle(proposer)
        await answered(proposer)
    assert seen == [[Status.WITNESSGEN], [Status.WITNESSGEN]]
    assert {r.status for r in await every_request(proposer)} == {Status.PROVING}


@dataclass(kw_only=True)
class _OfTheSameMoment(Cycle):
    """A cycle that decides on what was read before any other cycle acted."""

    read: Snapshot

    async def snapshot(self) -> Snapshot:
        """Return what was read then."""
        return self.read


async def test_two_cycles_of_one_moment_ask_for_each_request_once(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """S37: both decided to request the same rows; each row is claimed by one of them."""
    devnet = await start_devnet(l2_initial_finalized=1500)
    one = await make_proposer(devnet, max_witness_gen=10)
    other = await make_proposer(devnet, max_witness_gen=10)
    await devnet.prover.stop()
    await cycle(one)
    await answered(one)
    await devnet.prover.start()
    await due_now(one)
    outside = await observe.observe(one, observe.plainly)
    cycles = [
        _OfTheSameMoment(
            proposer=proposer,
            settings=proposer.settings,
            outside=outside,
            permission=Permission(True, True),
            read=await Cycle(
                proposer=proposer, settings=proposer.settings, outside=outside, permission=Permission(True, True)
            ).snapshot(),
        )
        for proposer in (one, other)
    ]
    await asyncio.gather(*(request_queued(both) for both in cycles))
    await answered(one)
    await answered(other)
    assert [_asked(devnet, start) for start in range(1000, 1500, 50)] == [1] * 10


async def test_who_does_not_lead_asks_for_nothing(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F03: lost before the cycle, or between the claim and the POST: no request, and no attempt is charged."""
    proposer = await make_proposer(devnet, max_witness_gen=1)
    proposer.still_leads = lambda: False
    report = await cycle(proposer)
    assert "RequestQueuedProofs" in report.failed
    assert _asked(devnet, 1000) == 0
    answers = iter([True])
    proposer.still_leads = lambda: next(answers, False)
    await cycle(proposer)
    await answered(proposer)
    assert _asked(devnet, 1000) == 0
    assert [(r.status, r.attempt) for r in await every_request(proposer)] == [(Status.UNREQ, 1)] * 2


async def test_a_request_of_a_process_that_died_waits_out_its_time(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """S13, S20: its answer is lost and may have been paid: the next process asks after `WITNESS_GEN_TIMEOUT`, once."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="hang", block=1010, first=1),)))
    died = await make_proposer(devnet, witness_gen_timeout=60)
    await cycle(died)
    waiting = list(died.witnesses.values())
    async with asyncio.timeout(60):
        while _asked(devnet, 1000) == 0:  # noqa: ASYNC110 -- the log sets no event
            await asyncio.sleep(0.02)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    heir = await make_proposer(devnet, witness_gen_timeout=60)
    await cycle(heir)
    assert _asked(devnet, 1000) == 1, "it may still be answered"
    await waited_out(heir)

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(heir, settled, seconds=60)
    cut, *_, again = [r for r in await every_request(heir) if r.range.start == 1000 and r.kind is Kind.RANGE]
    assert (cut.failure, again.unknown_outcomes) == (Failure.OUTCOME_UNKNOWN, 1)
    assert _asked(devnet, 1000) == 3, "the range twice, the aggregation once"


async def test_a_proposal_that_was_mined_while_nobody_looked_is_recognised(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """F02: the process died after the broadcast: the next one finds it in one cycle, and sends nothing."""
    died = await make_proposer(devnet)

    async def proposed() -> bool:
        return any(t.action.purpose is Purpose.PROPOSE for t in await died.ledger.transactions(unsettled=False))

    await until(died, proposed, seconds=60)
    deadline = time.monotonic() + 30
    while await devnet.latest_block_number() != 1100:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    heir = await make_proposer(devnet)
    await cycle(heir)
    assert {r.status for r in await every_request(heir)} == {Status.RELAYED}
    (proposal,) = [t for t in await heir.ledger.transactions(unsettled=False) if t.action.purpose is Purpose.PROPOSE]
    assert proposal.status is TxStatus.CONFIRMED
    assert proposal.block is not None
    (aggregation,) = [r for r in await every_request(heir) if r.kind is Kind.AGG]
    said = [e.why for e in await heir.ledger.events(aggregation.id)]
    assert any(proposal.signed[0].hash.hex() in why for why in said), "its hash is in the history"


async def _dies_at_the_second_half(proposer: Proposer, *, dies: bool) -> None:
    """Have the database go away, or not, in the middle of the write that halves range 1000→1050."""
    function = """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'terminating connection' USING ERRCODE = 'admin_shutdown'; END $$
    """
    on_insert = "CREATE TRIGGER die BEFORE INSERT ON proof_requests FOR EACH ROW WHEN (NEW.start_block = 1025) "
    async with proposer.ledger.connect() as connection:
        if dies:
            await connection.execute(text(function))
            await connection.execute(text(on_insert + "EXECUTE FUNCTION die()"))
        else:
            await connection.execute(text("DROP TRIGGER die ON proof_requests"))
        await connection.commit()


async def test_a_range_is_halved_in_one_write_or_not_at_all(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """S02: the write dies between its rows: the range is as it was, no hole is left, and the next look halves it."""
    devnet = await start_devnet(faults=FaultPlan.culprit(1010))
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    await asyncio.sleep(0.3)
    await _dies_at_the_second_half(proposer, dies=True)
    await due_now(proposer)
    await looked(proposer)
    whole, neighbour = await every_request(proposer)
    assert (whole.status, neighbour.status) == (Status.PROVING, Status.COMPLETE)
    await _dies_at_the_second_half(proposer, dies=False)
    await due_now(proposer)
    await looked(proposer)
    halved, _, *halves = await every_request(proposer)
    assert (halved.status, halved.failure) == (Status.FAILED, Failure.UNEXECUTABLE)
    assert [r.range for r in halves] == [BlockRange(1000, 1025), BlockRange(1025, 1050)]
