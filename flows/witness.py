"""Hold one request to the prover server: an answer takes minutes, and a task here costs nothing meanwhile.

The intent is in the ledger before the request is sent, the prover's id in the same transaction as PROVING.
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator

from blocks.prover import Accepted, MockProven
from flows.context import CURRENT, Proposer
from flows.members import compare_members
from proposer.errors import (
    BadReply,
    EndpointDown,
    LedgerMoved,
    NotLeader,
    OutcomeUnknown,
    ProposerError,
    RateLimited,
    RequestRefused,
)
from proposer.requests import Failure, Kind, ProofRequest, Status
from proposer.retry import pause_while_down, successors
from proposer.units import L1Ref

log = logging.getLogger("proposer.witness")

WRITE_AGAIN_SECONDS, WRITE_AGAIN_AT_MOST_SECONDS = 1.0, 5.0


def hold(proposer: Proposer, request: ProofRequest) -> None:
    """Start the task that sends a claimed request and waits for its answer.

    It runs in a context of its own: Prefect's client in the cycle's context dies with the cycle.
    """
    context = contextvars.Context()
    context.run(CURRENT.set, proposer)
    task = asyncio.get_running_loop().create_task(
        _hold(proposer, request), name=f"request {request.id}", context=context
    )
    proposer.witnesses[request.id] = task


async def _hold(proposer: Proposer, request: ProofRequest) -> None:
    try:
        await _request(proposer, request)
    except NotLeader as error:
        log.warning("%s: %s; what becomes of it is left to the new leader", request, error)
    except ProposerError as error:
        # the ledger is away: the row stays in witness generation and counts as unknown after its time
        log.warning("%s: what became of it could not be written down: %s", request, error)
    finally:
        proposer.witnesses.pop(request.id, None)
        proposer.changed.set()


async def _request(proposer: Proposer, request: ProofRequest) -> None:
    try:
        answer = await _ask(proposer, request)
    except (EndpointDown, LedgerMoved, NotLeader) as error:
        await _postpone(proposer, request, error)
    except TimeoutError:
        text = f"no answer within {proposer.settings.witness_gen_timeout:.0f} s: it may have been paid"
        await _fail(proposer, request, Failure.WITNESS_TIMEOUT, text)
    except (OutcomeUnknown, BadReply) as error:
        # the row stays in witness generation: stage 3 asks again once the server's own limit has passed
        await _note(proposer, request, f"outcome unknown: {error}")
    except RequestRefused as error:
        await _fail(proposer, request, _class_of(request, error), str(error))
    except ProposerError as error:
        await _fail(proposer, request, Failure.WITNESS_FAILED, str(error))
    else:
        await _accept(proposer, request, answer)


async def _ask(proposer: Proposer, request: ProofRequest) -> Accepted | MockProven:
    timeout = proposer.settings.witness_gen_timeout
    if request.kind is Kind.RANGE:
        proposer.must_lead()
        async with asyncio.timeout(timeout):
            return await proposer.server.request_range(request.range, timeout)
    if request.checkpoint is None:
        raise RequestRefused("the aggregation has no checkpoint", 0)
    if request.unknown_outcomes:
        await compare_members(proposer, request)
        if (await proposer.ledger.request(request.id)).status is not Status.WITNESSGEN:
            raise LedgerMoved("it was closed while its range proofs were compared with the server's")
    lengths = await proposer.ledger.proof_lengths(request.members)
    proposer.must_lead()
    async with asyncio.timeout(timeout):
        proofs = _proofs(proposer, request)
        return await proposer.server.request_aggregation(lengths, proofs, request.checkpoint.hash, timeout)


async def _proofs(proposer: Proposer, aggregation: ProofRequest) -> AsyncIterator[bytes]:
    """Read the members' proofs one at a time: there are up to 64, of a megabyte each."""
    for member in aggregation.members:
        yield await proposer.ledger.proof(member)


async def _accept(proposer: Proposer, request: ProofRequest, answer: Accepted | MockProven) -> None:
    """Write the answer down at once; only then ask L1 for its head, which binds nothing later into the proof."""
    if isinstance(answer, MockProven) and request.kind is Kind.RANGE and not answer.proof:
        await _fail(proposer, request, Failure.BAD_PROOF, "the mock server delivers an empty range proof")
        return
    if isinstance(answer, Accepted):
        log.info("%s: the prover's id is %s", request, answer.prover_id)
    if not await _write_down(proposer, request, answer):
        return
    head = await _l1_head(proposer)
    if head is not None:
        async with proposer.write() as writer:
            await writer.l1_head(request.id, head)


async def _write_down(proposer: Proposer, request: ProofRequest, answer: Accepted | MockProven) -> bool:
    """Store what was paid for, however long the ledger is away; whether it is written, or left for another leader."""
    pause, said = WRITE_AGAIN_SECONDS, ""
    while True:
        try:
            return await _written(proposer, request, answer)
        except EndpointDown as error:
            if str(error) != said:
                said = str(error)
                log.warning("%s: its answer is not written down yet: %s", request, said)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, WRITE_AGAIN_AT_MOST_SECONDS)


async def _written(proposer: Proposer, request: ProofRequest, answer: Accepted | MockProven) -> bool:
    if isinstance(answer, MockProven):
        async with proposer.write() as writer:  # where another leads it is worth nothing: whoever that is asks again
            await writer.complete(request, answer.proof, f"proven by the mock server: {len(answer.proof)} bytes")
        return True
    try:
        async with proposer.write() as writer:
            await writer.proving(request.id, answer.prover_id)
    except NotLeader as error:
        await proposer.ledger.leave_answer(request.id, answer.prover_id)
        log.warning("%s: %s; its prover id is left for the one that leads", request, error)
        return False
    return True


async def take_answers(proposer: Proposer) -> list[str]:
    """Take in the prover ids that processes which lead no more have left; return what changed."""
    said: list[str] = []
    for request_id, prover_id in await proposer.ledger.answers_left():
        async with proposer.write() as writer:
            proving = await writer.take_answer(request_id, prover_id)
        became = "it is being proven" if proving else "its history says what becomes of it"
        said.append(f"request {request_id} was answered to a process that leads no more, as {prover_id}: {became}")
    return said


async def _l1_head(proposer: Proposer) -> L1Ref | None:
    """Return the L1 head, or None while L1 is away: the next successful look at it fills it in."""
    try:
        async with asyncio.timeout(10):
            return await proposer.l1.head()
    except (ProposerError, TimeoutError):
        return None


def _class_of(request: ProofRequest, error: RequestRefused) -> Failure:
    if request.kind is Kind.AGG and "simulation failed" in str(error).lower():
        return Failure.REFUSED_IN_SIMULATION
    return Failure.WITNESS_FAILED


async def _fail(proposer: Proposer, request: ProofRequest, failure: Failure, text: str) -> None:
    now = await proposer.ledger.now()
    follow = successors(request, failure, proposer.settings.retry_policy, now)
    async with proposer.write() as writer:
        await writer.fail(request, failure, text, follow, poll=False)


async def _postpone(proposer: Proposer, request: ProofRequest, error: EndpointDown | LedgerMoved | NotLeader) -> None:
    """Nothing was asked: the request waits, and no attempt is charged."""
    asked_for = error.retry_after_seconds if isinstance(error, RateLimited) else 0.0
    until = await proposer.ledger.now() + pause_while_down(request.id, asked_for)
    async with proposer.write() as writer:
        await writer.postpone(request, until, f"nothing was asked, no attempt is charged: {error}")


async def _note(proposer: Proposer, request: ProofRequest, text: str) -> None:
    async with proposer.write() as writer:
        await writer.note(request.id, text)
