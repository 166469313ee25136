"""Carry out what an operator ordered through the command line, within one look of the leading process."""

from collections.abc import Collection

from flows.context import Proposer
from proposer.errors import UnknownRequest
from proposer.intents import Move
from proposer.orders import Order, OrderKind
from proposer.requests import OPEN, Failure, ProofRequest, Status


async def obey(proposer: Proposer) -> list[str]:
    """Carry out every order that waits; return what was done. The event of each is in the same ledger transaction."""
    return [await _carry_out(proposer, order) for order in await proposer.ledger.orders_to_do()]


async def _carry_out(proposer: Proposer, order: Order) -> str:
    match order.kind:
        case OrderKind.PAUSE | OrderKind.RESUME:
            outcome = "in force"
            async with proposer.write() as writer:
                await writer.order_done(order.id, outcome)
        case OrderKind.RETRY | OrderKind.CANCEL:
            outcome = await _about_a_request(proposer, order)
    return f"{order.kind.value}{f' {order.request}' if order.request else ''} ordered by {order.who}: {outcome}"


async def _about_a_request(proposer: Proposer, order: Order) -> str:
    assert order.request is not None  # the ledger refuses such an order without one
    try:
        request = await proposer.ledger.request(order.request)
    except UnknownRequest as error:
        async with proposer.write() as writer:
            await writer.order_done(order.id, str(error))
        return str(error)
    why = f"{order.kind.value} ordered by {order.who}: {order.why}"
    unsettled = await proposer.ledger.transactions(unsettled=True)
    async with proposer.write() as writer:
        if order.kind is OrderKind.RETRY:
            done = await writer.take_up(request.id, why, proposer.settings.witness_gen_timeout)
        else:
            to = _cancelled_to(request, {tx.request for tx in unsettled})
            done = to is not None and await writer.move(
                Move(request.id, request.status, to, why, Failure.CANCELLED_BY_OPERATOR)
            )
        outcome = "done" if done else f"nothing to {order.kind.value}: it is {request.status.value}"
        await writer.order_done(order.id, outcome)
    return outcome


def _cancelled_to(request: ProofRequest, proposed: Collection[int | None]) -> Status | None:
    """Return what cancelling makes of a request; None where there is nothing to cancel.

    What is open is parked. A proof that is there is given up, and its blocks are asked for anew, unless its proposal is
    on its way.
    """
    if request.status in OPEN - {Status.PARKED}:
        return Status.PARKED
    return Status.CANCELLED if request.status is Status.COMPLETE and request.id not in proposed else None
