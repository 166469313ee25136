"""Stage 2, ProcessProvingRequests: look at every prover id that is due, all at once."""

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from blocks.prover import UnknownProof
from flows.context import Proposer
from proposer.errors import BadReply, EndpointDown, ProposerError, RateLimited, RequestRefused
from proposer.polling import Ended, Proven, judge, next_look, plausible
from proposer.requests import Failure, ProofRequest, Status
from proposer.retry import successors

log = logging.getLogger("proposer.proving")

CONCURRENCY = 50
"""Looks of one round under way at the same time."""
PATIENCE_SECONDS = 2.0
"""How long a round is waited for: a look that hangs goes on by itself and holds up nothing else."""


async def look(proposer: Proposer) -> list[str]:
    """Look at every request that is due and not looked at already; return what changed so far.

    One that fails to answer delays no other. Raises `EndpointDown` only where not one look was answered.
    """
    due = [r for r in await proposer.ledger.due_for_a_look() if r.id not in proposer.looking]
    if not due:
        return []
    said: list[str] = []
    proposer.looking |= {r.id for r in due}
    # a context of its own: it may outlive the cycle, whose Prefect client dies with it
    looks = asyncio.get_running_loop().create_task(_round(proposer, due, said), context=contextvars.Context())
    proposer.rounds.add(looks)
    looks.add_done_callback(proposer.rounds.discard)
    await asyncio.wait({looks}, timeout=PATIENCE_SECONDS)
    if looks.done():
        looks.result()
        return said
    told = len(said)
    looks.add_done_callback(lambda _: _tell_late(looks, said[told:]))
    return said[:told]


def _tell_late(looks: "asyncio.Task[None]", said: Sequence[str]) -> None:
    for sentence in said:
        log.info("%s", sentence)
    if not looks.cancelled() and (error := looks.exception()) is not None:
        log.warning("a look failed: %s", error)


async def _round(proposer: Proposer, due: Sequence[ProofRequest], said: list[str]) -> None:
    try:
        await _look(proposer, due, said)
    finally:
        proposer.looking -= {r.id for r in due}


async def _look(proposer: Proposer, due: Sequence[ProofRequest], said: list[str]) -> None:
    usual = {kind: await proposer.ledger.usual(kind) for kind in {r.kind for r in due}}
    slots = asyncio.Semaphore(CONCURRENCY)

    now = await proposer.ledger.now()
    again = {r.id: next_look(r, usual[r.kind], proposer.settings.look_interval, now) for r in due}

    async def one(request: ProofRequest) -> None:
        async with slots:
            sentence = await _look_at(proposer, request, now)
        proposer.looking.discard(request.id)
        if sentence is not None:
            said.append(sentence)
            proposer.changed.set()

    async with proposer.write() as writer:  # written first: a look that fails is due again at its time all the same
        await writer.look_again(again)
    results = await asyncio.gather(*(one(r) for r in due), return_exceptions=True)
    errors = [r for r in results if isinstance(r, BaseException)]
    unexpected = [e for e in errors if not isinstance(e, ProposerError)]
    if unexpected:
        raise unexpected[0]
    if len(errors) == len(due) and isinstance(errors[0], EndpointDown) and not await _answers_else(proposer, due, now):
        raise errors[0]
    failed = [(r, e) for r, e in zip(due, results, strict=True) if isinstance(e, ProposerError)]
    said += await _give_up_unanswered(proposer, failed, now)


async def _look_at(proposer: Proposer, request: ProofRequest, now: datetime) -> str | None:
    assert request.prover_id is not None  # only rows with an id are due
    try:
        status = plausible(request, await proposer.server.status(request.prover_id))
    except UnknownProof as error:
        return await _unknown_to_server(proposer, request, error, now)
    except (RequestRefused, BadReply) as error:
        # the server is there and says nothing of use about this id: that ends at the deadline too
        if not _is_overdue(proposer, request, now):
            raise
        return await give_up(proposer, request, Failure.PROOF_TIMEOUT, f"no answer about the proof: {error}", now)
    proposer.unknown_since.pop(request.id, None)
    match judge(request, status, proposer.settings.max_proof_time, now):
        case Proven(proof):
            return await take(proposer, request, proof)
        case Ended(failure, text):
            return await give_up(proposer, request, failure, text, now)
        case None:
            return None


def _is_overdue(proposer: Proposer, request: ProofRequest, now: datetime) -> bool:
    return now - request.since > timedelta(seconds=proposer.settings.max_proof_time)


async def _answers_else(proposer: Proposer, due: Sequence[ProofRequest], now: datetime) -> bool:
    """Whether the server is there although no look was answered; asked only where one of them is overdue."""
    if not any(_is_overdue(proposer, request, now) for request in due):
        return False
    try:
        await proposer.server.validate_config(proposer.oracle.address)
    except ProposerError:
        return False
    return True


async def _give_up_unanswered(
    proposer: Proposer, failed: Sequence[tuple[ProofRequest, ProposerError]], now: datetime
) -> list[str]:
    """End overdue requests whose looks go unanswered while the server answers something else."""
    ended: list[str] = []
    for request, error in failed:
        log.warning("%s: %s", request, error)
        if (
            isinstance(error, EndpointDown)
            and not isinstance(error, RateLimited)
            and _is_overdue(proposer, request, now)
        ):
            text = f"no answer about the proof: {error}"
            if done := await give_up(proposer, request, Failure.PROOF_TIMEOUT, text, now):
                ended.append(done)
    return ended


async def take(proposer: Proposer, request: ProofRequest, proof: bytes) -> str | None:
    """Store a proof that the server delivered, however late."""
    late = "" if request.status is Status.PROVING else f", late (the request was {request.status.value})"
    async with proposer.write() as writer:
        done = await writer.complete(request, proof, f"proven: {len(proof)} bytes{late}")
    return f"proven: {request}{late}" if done else None


async def give_up(proposer: Proposer, request: ProofRequest, failure: Failure, text: str, now: datetime) -> str | None:
    """End an attempt and insert what carries on; a closed row just stops being looked at.

    A request given up on the clock, or unknown to the server, may still be delivered: it is looked at until its blocks
    are settled.
    """
    ended = failure not in {Failure.PROOF_TIMEOUT, Failure.LOST_BY_SERVER}
    if request.status is not Status.PROVING:
        if ended:
            async with proposer.write() as writer:
                await writer.look_again({request.id: None})
        return None
    follow = successors(request, failure, proposer.settings.retry_policy, now)
    async with proposer.write() as writer:
        ids = await writer.fail(request, failure, text, follow, poll=not ended)
    return f"{failure.value}: {request}, carried on by {ids or 'nothing'}"


async def _unknown_to_server(
    proposer: Proposer, request: ProofRequest, error: UnknownProof, now: datetime
) -> str | None:
    """An id the server does not know is looked at for a grace period before it counts as lost."""
    since = proposer.unknown_since.setdefault(request.id, now)
    if now - since <= timedelta(seconds=max(4 * proposer.settings.look_interval, 60.0)):
        return None
    del proposer.unknown_since[request.id]
    return await give_up(proposer, request, Failure.LOST_BY_SERVER, str(error), now)
