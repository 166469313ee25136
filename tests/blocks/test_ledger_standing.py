"""What alerts read of the ledger."""

from datetime import timedelta

from sqlalchemy import text

from blocks.ledger import Ledger
from blocks.ledger.standing import ORDERS, standing
from proposer.intents import Move, Plan
from proposer.orders import OrderKind
from proposer.ranges import BlockRange
from proposer.requests import Commitments, Failure, Kind, NewRequest, Status

OURS = Commitments(b"r" * 32, b"a" * 32, b"c" * 32)
HOUR = timedelta(hours=1)


async def test_parked_requests_the_due_output_and_orders_carried_out_lately(ledger: Ledger, epoch: int) -> None:
    """Not the request that waits, the other mark, the order that waits, nor the one of long ago."""
    empty = await standing(ledger, HOUR)
    assert (empty.parked, empty.required, empty.orders) == ([], None, [])
    new = (NewRequest(kind=Kind.RANGE, range=BlockRange(s, s + 10), attempt=1, commitments=OURS) for s in (0, 10))
    async with ledger.write(epoch) as writer:
        await writer.apply(Plan(inserts=tuple(new)))
        await writer.mark("finalized", 900, rising=True)
        await writer.mark("required", 800, rising=False)
    first = (await ledger.view(0)).requests[0]
    orders = [await ledger.give_order(OrderKind.PAUSE, None, "alice", f"number {n}") for n in range(3)]
    async with ledger.write(epoch) as writer:
        await writer.move(Move(first.id, Status.UNREQ, Status.PARKED, "gave up", Failure.UNFULFILLABLE))
        for order in orders[:2]:
            await writer.order_done(order, "in force")
    async with ledger.connect() as connection, connection.begin():
        long_ago = text("UPDATE operator_orders SET done_at = now() - interval '2 hours' WHERE id = :id")
        await connection.execute(long_ago, {"id": orders[0]})
    seen = await standing(ledger, HOUR)
    assert [(r.id, r.failure_text) for r in seen.parked] == [(first.id, "gave up")]
    assert seen.required is not None
    assert seen.required.number == 800
    assert [(o.id, o.why, o.outcome) for o in seen.orders] == [(orders[1], "number 1", "in force")]


async def test_of_many_orders_the_newest_are_told_oldest_first(ledger: Ledger, epoch: int) -> None:
    given = [await ledger.give_order(OrderKind.RESUME, None, "alice", "again") for _ in range(ORDERS + 5)]
    async with ledger.write(epoch) as writer:
        for order in given:
            await writer.order_done(order, "in force")
    assert [order.id for order in (await standing(ledger, HOUR)).orders] == given[5:]
