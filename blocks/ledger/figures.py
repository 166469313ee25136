"""The ledger in figures, for metrics: one snapshot, in queries that cost the same with a million settled rows."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.database import Database
from blocks.ledger.tables import l1_transactions, leadership, operator_orders, proof_requests
from blocks.ledger.totals import Totals, TotalsReader
from proposer.l1_transactions import UNSETTLED
from proposer.orders import OrderKind
from proposer.ranges import BlockRange
from proposer.requests import OPEN, Kind, Status

LIVE = OPEN | {Status.COMPLETE}
"""Statuses of requests that something is still to become of."""

_r = proof_requests.c


@dataclass(frozen=True, slots=True)
class Held:
    """How many requests there are of one kind and status, and the seconds since the oldest took it."""

    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads: None where nobody does; and the highest epoch there ever was."""

    owner: str | None
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the ledger says at `now` by the database's clock."""

    now: datetime
    live: Mapping[tuple[Kind, Status], Held]
    proven: Sequence[BlockRange]
    """Ranges whose proofs wait for settlement."""
    leadership: Leadership
    paused: bool
    orders: int
    """Orders of operators that wait for the leader."""
    unsettled: int
    """L1 transactions that are not under enough blocks."""
    totals: Totals | None
    """None while a long history is being added up for the first time."""


class FiguresReader:
    """Reads a ledger's figures; what cannot change any more is read once."""

    def __init__(self, ledger: Database) -> None:
        self._ledger = ledger
        self._totals = TotalsReader()
        self._lock = asyncio.Lock()

    async def read(self) -> Figures:
        """Read everything in one transaction. Raises `EndpointDown`."""
        async with self._lock, self._ledger.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                return Figures(
                    now=(await connection.execute(select(func.now()))).scalar_one(),
                    live=await _live(connection),
                    proven=await _proven(connection),
                    leadership=await _leadership(connection),
                    paused=await _paused(connection),
                    orders=await _waiting_orders(connection),
                    unsettled=await _unsettled(connection),
                    totals=await self._totals.read(connection),
                )


async def _live(connection: AsyncConnection) -> dict[tuple[Kind, Status], Held]:
    age = func.extract("epoch", func.now() - func.min(_r.since))
    found: dict[tuple[Kind, Status], Held] = {}
    # two statements: each has an index of its own
    for where in (_r.status.in_([s.value for s in OPEN]), _r.status == Status.COMPLETE.value):
        counted = select(_r.kind, _r.status, func.count(), age).where(where).group_by(_r.kind, _r.status)
        for kind, status, count, seconds in await connection.execute(counted):
            found[Kind(kind), Status(status)] = Held(count, max(0.0, float(seconds)))
    return found


async def _proven(connection: AsyncConnection) -> list[BlockRange]:
    complete = (_r.status == Status.COMPLETE.value, _r.kind == Kind.RANGE.value)
    rows = await connection.execute(select(_r.start_block, _r.end_block).where(*complete))
    return [BlockRange(row.start_block, row.end_block) for row in rows]


async def _leadership(connection: AsyncConnection) -> Leadership:
    held = (leadership.c.expires_at >= func.clock_timestamp()).label("held")
    row = (await connection.execute(select(leadership.c.owner, leadership.c.epoch, held))).one_or_none()
    return Leadership(None, 0) if row is None else Leadership(row.owner if row.held else None, row.epoch)


async def _paused(connection: AsyncConnection) -> bool:
    o = operator_orders.c
    either = o.kind.in_([OrderKind.PAUSE.value, OrderKind.RESUME.value])
    newest = select(o.kind).where(either, o.done_at.is_not(None)).order_by(o.id.desc()).limit(1)
    return (await connection.execute(newest)).scalar_one_or_none() == OrderKind.PAUSE.value


async def _waiting_orders(connection: AsyncConnection) -> int:
    waiting = select(func.count()).select_from(operator_orders).where(operator_orders.c.done_at.is_(None))
    return (await connection.execute(waiting)).scalar_one()


async def _unsettled(connection: AsyncConnection) -> int:
    unsettled = l1_transactions.c.status.in_([s.value for s in UNSETTLED])
    return (await connection.execute(select(func.count()).select_from(l1_transactions).where(unsettled))).scalar_one()
