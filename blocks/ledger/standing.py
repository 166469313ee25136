"""What alerts need of the ledger: parked requests, since when an output is due, and the orders that were obeyed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from blocks.ledger.database import Database
from blocks.ledger.rows import order_from, request_from, select_requests
from blocks.ledger.tables import marks, operator_orders, proof_requests
from proposer.orders import Order
from proposer.requests import ProofRequest, Status
from proposer.snapshot import Mark

ORDERS = 20
"""The newest orders that are told at once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One look at the ledger."""

    now: datetime
    """By the database's clock."""
    parked: Sequence[ProofRequest]
    required: Mark | None
    """The next required L2 block when it was last due, and since when."""
    orders: Sequence[Order]
    """Carried out lately, oldest first."""


async def standing(ledger: Database, lately: timedelta) -> Standing:
    """Read the parked requests, the mark of the output that is due, and the orders carried out within `lately`."""
    o = operator_orders.c
    done = select(operator_orders).where(o.done_at > func.now() - lately).order_by(o.id.desc()).limit(ORDERS)
    parked = select_requests().where(proof_requests.c.status == Status.PARKED.value).order_by(proof_requests.c.id)
    async with ledger.connect() as connection:
        now = (await connection.execute(select(func.now()))).scalar_one()
        requests = [request_from(row) for row in await connection.execute(parked)]
        due = (await connection.execute(select(marks).where(marks.c.name == "required"))).one_or_none()
        orders = [order_from(row) for row in await connection.execute(done)]
    return Standing(now, requests, Mark(due.number, due.at) if due is not None else None, orders[::-1])
