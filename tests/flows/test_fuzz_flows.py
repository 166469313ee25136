"""Mutated answers of the prover server, as rows of the ledger: only legal transitions, and none out of nonsense."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import Accepted, MockProven, SuccinctServer, UnknownProof
from flows import witness
from flows.context import Proposer
from proposer.errors import BadReply, EndpointDown, OutcomeUnknown, ProposerError, RateLimited, RequestRefused
from proposer.polling import LEAST_RANGE_PROOF_BYTES, Execution, Fulfillment, ProofStatus
from proposer.ranges import BlockRange
from proposer.requests import TRANSITIONS, Commitments, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.settings import ProposerSettings
from tests.blocks import mutations
from tests.blocks.loopback import Say, Server
from tests.flows.conftest import looked

ROWS = 60
BLOCKS = 50
ADDRESS = "0x" + "11" * 20
HEADER = {"number": "0x64", "hash": "0x" + "33" * 32, "timestamp": "0x3e8"}
STATUSES: tuple[dict[str, Any], ...] = (
    {"fulfillment_status": 3, "execution_status": 2, "proof": [1, 0, 255] * 40},
    {"fulfillment_status": 2, "execution_status": 2, "proof": []},
    {"fulfillment_status": 4, "execution_status": 2, "proof": []},
    {"fulfillment_status": 4, "execution_status": 3, "proof": []},
    {"fulfillment_status": 3, "execution_status": 2, "proof": []},
)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A scripted prover server."""
    async with Server() as made:
        yield made


@pytest_asyncio.fixture
async def l1() -> AsyncIterator[Server]:
    """An L1 that has a head and nothing else."""
    async with Server() as made:
        made.rpc(lambda method, _: "0x1" if method == "eth_chainId" else HEADER)
        yield made


@pytest_asyncio.fixture
async def proposer(
    ledger: Ledger, epoch: int, server: Server, l1: Server, request: pytest.FixtureRequest
) -> AsyncIterator[Proposer]:
    """The leading proposer beside a scripted server, which gives mock proofs where the test's parameter says so."""
    mock = getattr(request, "param", False)
    made = Proposer(
        name="proposer",
        settings=ProposerSettings(witness_gen_timeout=10, mock=mock),
        ledger=ledger,
        ledger_id="tests",
        l1=L1Chain(urls=SecretStr(l1.plain)),
        oracle=L2OutputOracle(address=ADDRESS),
        node=OpNode(urls=SecretStr(l1.plain)),
        server=SuccinctServer(url=SecretStr(server.url), mock=mock, timeout_seconds=10, max_reply_mib=1),
        signer=None,
        epoch=epoch,
        still_leads=lambda: True,
    )
    yield made
    await made.server.aclose()
    await made.l1.aclose()


def identity(number: int) -> str:
    """The prover's id of the n-th row."""
    return f"{number:064x}"


async def claimed(proposer: Proposer) -> list[ProofRequest]:
    """Ranges whose requests are about to be sent."""
    async with proposer.write() as writer:
        ids = [
            await writer.insert(
                NewRequest(
                    kind=Kind.RANGE,
                    range=BlockRange(n * BLOCKS, (n + 1) * BLOCKS),
                    attempt=1,
                    commitments=Commitments(b"r" * 32, b"a" * 32, b"c" * 32),
                )
            )
            for n in range(ROWS)
        ]
        for request_id in ids:
            await writer.claim(request_id, None)
    return list(await proposer.ledger.requests(ids))


async def proving_rows(proposer: Proposer) -> list[ProofRequest]:
    """Ranges whose ids are to be looked at now."""
    requests = await claimed(proposer)
    async with proposer.write() as writer:
        for n, request in enumerate(requests):
            await writer.proving(request.id, identity(n))
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET next_poll_at = now()"))
        await connection.commit()
    return list(await proposer.ledger.requests([r.id for r in requests]))


def mutated(good: object, name: str) -> Say:
    """An answer with a fixed mutation, or as it is; none that pauses the endpoint: that would be every row's answer."""
    dice = Random(name)
    if dice.random() < 0.2:
        return Say(mutations.dumped(good))
    while (said := mutations.answer(good, dice)).status == 429:
        pass
    return said


async def said_of(call: Any) -> object:
    """What the block makes of an answer: a value or its error."""
    try:
        return await call
    except ProposerError as error:
        return error


async def check_history(proposer: Proposer, request: ProofRequest) -> list[str]:
    """Every event follows from the one before, by the table; return what they say."""
    events = await proposer.ledger.events(request.id)
    status: Status | None = None
    for event in events:
        assert event.frm is status
        assert event.frm is event.to or event.frm is None or event.to in TRANSITIONS[event.frm]
        status = event.to
    assert status is request.status
    return [event.why for event in events]


async def followers(proposer: Proposer, request: ProofRequest) -> list[ProofRequest]:
    """The rows that carry on after a failed one."""
    async with proposer.ledger.connect() as connection:
        ids = await connection.execute(
            text("SELECT id FROM proof_requests WHERE parent_id = :id ORDER BY id"), {"id": request.id}
        )
        return list(await proposer.ledger.requests(ids.scalars().all()))


def end_of(said: object) -> tuple[Status, Failure | None]:
    """What a look must lead to, from the documented words alone."""
    match said:
        case ProofStatus(Fulfillment.FULFILLED, _, proof) if proof:
            return (Status.COMPLETE if len(proof) >= LEAST_RANGE_PROOF_BYTES else Status.PROVING), None
        case ProofStatus(Fulfillment.FULFILLED, _, _):
            return Status.FAILED, Failure.BAD_PROOF
        case ProofStatus(Fulfillment.UNFULFILLABLE, Execution.UNEXECUTABLE, _):
            return Status.FAILED, Failure.UNEXECUTABLE
        case ProofStatus(Fulfillment.UNFULFILLABLE, _, _):
            return Status.FAILED, Failure.UNFULFILLABLE
        case _:
            return Status.PROVING, None


@pytest.mark.parametrize("seed", [1, 2])
async def test_mutated_answers_to_looks(proposer: Proposer, server: Server, seed: int) -> None:
    """A usable answer has its one effect; an unusable one leaves the row PROVING, to be looked at again."""
    requests = await proving_rows(proposer)
    answers = {f"/status/{identity(n)}": mutated(STATUSES[n % len(STATUSES)], f"look {seed} {n}") for n in range(ROWS)}
    server.answer = lambda method, path, _: answers["/status/" + path.split("/status/")[1].split("?")[0]]
    said = await asyncio.gather(*(said_of(proposer.server.status(identity(n))) for n in range(ROWS)))
    assert sum(isinstance(s, ProposerError) for s in said) > ROWS / 5, "some answers cannot be used"
    assert sum(isinstance(s, ProofStatus) for s in said) > ROWS / 10, "some can"

    async with asyncio.timeout(60):
        await looked(proposer)

    for request, answer in zip(requests, said, strict=True):
        now = await proposer.ledger.request(request.id)
        assert (now.status, now.failure) == end_of(answer), f"{answer!r}"
        assert now.prover_id == request.prover_id, "a paid id stays in its row"
        await check_history(proposer, now)
        if now.status is Status.COMPLETE:
            assert isinstance(answer, ProofStatus)
            assert await proposer.ledger.proof(now.id) == answer.proof
        elif now.status is Status.PROVING:
            assert now.next_poll_at is not None
            assert not isinstance(answer, UnknownProof) or now.id in proposer.unknown_since
        else:
            after = await followers(proposer, now)
            assert sum(r.range.blocks for r in after) == BLOCKS, "the blocks are carried on, all and once"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("proposer", [False, True], ids=["real", "mock"], indirect=True)
async def test_mutated_answers_to_requests(proposer: Proposer, server: Server, seed: int) -> None:
    """An id is kept, a refusal is tried again, what was not asked waits, and what may be paid stays as it is."""
    requests = await claimed(proposer)

    def good(n: int) -> dict[str, Any]:
        return STATUSES[n % 2 * 4] | {"execution_status": 0} if proposer.settings.mock else {"proof_id": [n, *[7] * 31]}

    answers = {n * BLOCKS: mutated(good(n), f"post {seed} {n}") for n in range(ROWS)}
    server.answer = lambda method, path, body: answers[json.loads(body)["start"]]
    said = await asyncio.gather(*(said_of(proposer.server.request_range(r.range, 10)) for r in requests))
    assert {BadReply, OutcomeUnknown, RequestRefused} <= {type(s) for s in said}

    for request in requests:
        witness.hold(proposer, request)
    async with asyncio.timeout(60):
        await asyncio.gather(*proposer.witnesses.values())

    for request, answer in zip(requests, said, strict=True):
        now = await proposer.ledger.request(request.id)
        notes = await check_history(proposer, now)
        after = await followers(proposer, now)
        match answer:
            case Accepted(prover_id):
                assert (now.status, now.prover_id, now.l1_head) == (Status.PROVING, prover_id, 100)
            case MockProven(b""):
                assert (now.status, now.failure) == (Status.FAILED, Failure.BAD_PROOF)
            case MockProven(proof):
                assert now.status is Status.COMPLETE
                assert await proposer.ledger.proof(now.id) == proof
            case EndpointDown():
                assert (now.status, now.attempt) == (Status.UNREQ, 1)
                assert now.next_attempt_at is not None
            case OutcomeUnknown() if now.status is Status.FAILED:  # the task's own clock was first to end it
                assert "did not answer" in str(answer)
                assert now.failure is Failure.WITNESS_TIMEOUT
                assert [r.unknown_outcomes for r in after] == [1]
            case OutcomeUnknown() | BadReply():
                assert now.status is Status.WITNESSGEN, f"{answer!r}: it may have been paid"
                assert notes[-1].startswith("outcome unknown: "), notes
                assert after == []
            case RequestRefused():
                assert (now.status, now.failure) == (Status.FAILED, Failure.WITNESS_FAILED)
                assert [(r.range, r.attempt, r.unknown_outcomes) for r in after] == [(now.range, 2, 0)]
            case _:
                pytest.fail(f"{answer!r} is no answer")


async def test_a_limit_pauses_every_row(proposer: Proposer, server: Server) -> None:
    """One 429 to a burst of requests: nothing was asked for any row, no attempt is charged, and the server rests."""
    requests = await claimed(proposer)
    server.answer = lambda *_: Say("slow down", status=429, headers={"Retry-After": "120"})
    with suppress(RateLimited):
        await proposer.server.request_range(requests[0].range, 10)
    for request in requests:
        witness.hold(proposer, request)
    async with asyncio.timeout(60):
        await asyncio.gather(*proposer.witnesses.values())
    assert len(server.seen) == 1
    now = await proposer.ledger.now()
    for row in await proposer.ledger.requests([r.id for r in requests]):
        assert (row.status, row.attempt) == (Status.UNREQ, 1)
        assert row.next_attempt_at is not None
        assert (row.next_attempt_at - now).total_seconds() > 100


async def test_a_limited_look_is_no_last_look(proposer: Proposer, server: Server) -> None:
    """Overdue rows whose look never left because of another row's 429 are not given up: nobody was asked about them."""
    requests = await proving_rows(proposer)
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE proof_requests SET since = now() - interval '1 day'"))
        await connection.commit()
    answers = iter([Say(STATUSES[0])])
    slow_down = Say("slow down", status=429, headers={"Retry-After": "60"})
    server.answer = lambda *_: next(answers, slow_down)
    await looked(proposer)
    ended = [await proposer.ledger.request(r.id) for r in requests]
    assert {r.status for r in ended} == {Status.COMPLETE, Status.PROVING}
    assert sum(r.status is Status.COMPLETE for r in ended) == 1
