"""What others leave for the leader: operators' orders, and answers that came to a process that leads no more.

The only writes without an epoch: they append, and change nothing that a decision is made on.
"""

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from blocks.ledger.database import Database
from blocks.ledger.rows import order_from
from blocks.ledger.tables import late_answers, operator_orders
from proposer.orders import Order, OrderKind


class Inbox(Database):
    """Orders and late answers, written by anyone and read by the leader."""

    async def give_order(self, kind: OrderKind, request_id: int | None, who: str, why: str) -> int:
        """Write down what an operator orders; return its number. The leader, whoever that is, carries it out."""
        values = {"kind": kind.value, "request_id": request_id, "who": who, "why": why.replace("\0", "")}
        async with self.connect() as connection, connection.begin():
            given = insert(operator_orders).values(values).returning(operator_orders.c.id)
            return (await connection.execute(given)).scalar_one()

    async def order(self, order_id: int) -> Order:
        """Return one order."""
        async with self.connect() as connection:
            row = (await connection.execute(select(operator_orders).where(operator_orders.c.id == order_id))).one()
        return order_from(row)

    async def orders_to_do(self) -> list[Order]:
        """Return the orders that wait, oldest first."""
        waiting = select(operator_orders).where(operator_orders.c.done_at.is_(None)).order_by(operator_orders.c.id)
        async with self.connect() as connection:
            return [order_from(row) for row in await connection.execute(waiting)]

    async def paused(self) -> Order | None:
        """Return the pause that is in force."""
        o = operator_orders.c
        either = o.kind.in_([OrderKind.PAUSE.value, OrderKind.RESUME.value])
        newest = select(operator_orders).where(either, o.done_at.is_not(None)).order_by(o.id.desc()).limit(1)
        async with self.connect() as connection:
            row = (await connection.execute(newest)).one_or_none()
        order = order_from(row) if row is not None else None
        return order if order is not None and order.kind is OrderKind.PAUSE else None

    async def leave_answer(self, request_id: int, prover_id: str) -> None:
        """Leave the prover id of a request for the leader to take in: it is paid for, and asked for by us alone."""
        values = {"request_id": request_id, "prover_request_id": prover_id}
        async with self.connect() as connection, connection.begin():
            await connection.execute(upsert(late_answers).values(values).on_conflict_do_nothing())

    async def answers_left(self) -> list[tuple[int, str]]:
        """Return requests and the prover ids that were left for them, oldest first."""
        a = late_answers.c
        async with self.connect() as connection:
            rows = await connection.execute(select(a.request_id, a.prover_request_id).order_by(a.at, a.request_id))
            return [(row.request_id, row.prover_request_id) for row in rows]
