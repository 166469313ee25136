"""What an operator orders is carried out by the leader within one look, and kept with who and why."""

import pytest
from sqlalchemy.exc import IntegrityError

from flows.orders import obey
from infra.devnet import Devnet
from proposer.orders import OrderKind
from proposer.reasons import Code
from proposer.requests import Failure, Kind, Status
from tests.flows.conftest import MakeProposer, cycle, every_request, until


async def test_a_cancelled_request_is_parked_and_retried_by_order(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Who and why are in the request's history; a second cancel says that there is nothing to cancel."""
    proposer = await make_proposer(devnet, max_witness_gen=1)
    await cycle(proposer)
    (waiting,) = [r for r in await every_request(proposer) if r.status is Status.UNREQ]
    number = await proposer.ledger.give_order(OrderKind.CANCEL, waiting.id, "alice", "the server is upgraded")
    assert await obey(proposer) == [f"cancel {waiting.id} ordered by alice: done"]
    parked = await proposer.ledger.request(waiting.id)
    assert (parked.status, parked.failure) == (Status.PARKED, Failure.CANCELLED_BY_OPERATOR)
    assert "alice: the server is upgraded" in (await proposer.ledger.events(waiting.id))[-1].why
    assert (await proposer.ledger.order(number)).outcome == "done"
    assert await obey(proposer) == [], "once"
    again = await proposer.ledger.give_order(OrderKind.CANCEL, waiting.id, "bob", "twice")
    await obey(proposer)
    assert (await proposer.ledger.order(again)).outcome == "nothing to cancel: it is PARKED"
    await proposer.ledger.give_order(OrderKind.RETRY, waiting.id, "bob", "upgraded")
    await obey(proposer)
    assert (await proposer.ledger.request(waiting.id)).status is Status.UNREQ


async def test_an_order_about_a_request_that_does_not_exist_is_answered(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The next orders are carried out all the same."""
    proposer = await make_proposer(devnet)
    missing = await proposer.ledger.give_order(OrderKind.RETRY, 404, "alice", "typing error")
    pause = await proposer.ledger.give_order(OrderKind.PAUSE, None, "alice", "lunch")
    assert len(await obey(proposer)) == 2
    assert "no proof request 404" in ((await proposer.ledger.order(missing)).outcome or "")
    assert (await proposer.ledger.order(pause)).done_at is not None


async def test_a_pause_stops_requests_and_transactions_until_it_is_ended(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """In force as soon as it is carried out; the reason says who and why, and how to go on."""
    proposer = await make_proposer(devnet)
    await proposer.ledger.give_order(OrderKind.PAUSE, None, "alice", "the contract is upgraded")
    assert await proposer.ledger.paused() is None, "not before the leader has seen it"
    await obey(proposer)
    report = await cycle(proposer)
    assert report.did == []
    (reason,) = [r for r in report.reasons if r.code is Code.PAUSED]
    assert "alice: the contract is upgraded" in reason.sentence
    assert devnet.prover.log.of("post") == []
    await proposer.ledger.give_order(OrderKind.RESUME, None, "bob", "done")
    await obey(proposer)
    assert await proposer.ledger.paused() is None
    assert [s for s in (await cycle(proposer)).did if s.startswith("requested")]


async def test_an_order_without_what_it_is_about_is_refused(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    for kind, request in ((OrderKind.RETRY, None), (OrderKind.PAUSE, 1)):
        with pytest.raises(IntegrityError, match="ck_operator_orders_about"):
            await proposer.ledger.give_order(kind, request, "alice", "why")


async def test_a_proof_that_is_there_is_given_up_by_order(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Its blocks are asked for anew; one whose proposal is on its way is not given up."""
    proposer = await make_proposer(devnet)

    async def aggregated() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer))

    await until(proposer, aggregated)
    (ready,) = [r for r in await every_request(proposer) if r.kind is Kind.AGG]
    await proposer.ledger.give_order(OrderKind.CANCEL, ready.id, "alice", "the root is wrong")
    await obey(proposer)
    given_up = await proposer.ledger.request(ready.id)
    assert (given_up.status, given_up.failure) == (Status.CANCELLED, Failure.CANCELLED_BY_OPERATOR)

    async def proposed() -> bool:
        return any(t.may_propose for t in await proposer.ledger.transactions(unsettled=True))

    await until(proposer, proposed)
    (next_one,) = [r for r in await every_request(proposer) if r.kind is Kind.AGG and r.id != ready.id]
    assert (next_one.range, next_one.status) == (ready.range, Status.COMPLETE)
    late = await proposer.ledger.give_order(OrderKind.CANCEL, next_one.id, "alice", "too late")
    await obey(proposer)
    assert (await proposer.ledger.order(late)).outcome == "nothing to cancel: it is COMPLETE"
