"""The ledger's newest history, for a person to look at: it costs the same with a million settled rows."""

from collections import defaultdict
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.database import Database
from blocks.ledger.tables import proof_requests, request_events
from proposer.history import History, Life, Step
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status
from proposer.simulation.fit import Ended

EVENTS = 5_000
"""Newest entries of the history that are looked through for requests; the index on their time gives them."""
STEPS = 30
"""Newest steps of one request that are read: one that is taken up again and again has no end of them."""
OUTPUTS = 50

_r, _e = proof_requests.c, request_events.c

# what was only planned has no story yet
_LATELY = text("""
    SELECT request_id, max(id) AS newest
    FROM (
        SELECT id, request_id, from_status, to_status FROM request_events
        WHERE at > :since ORDER BY at DESC LIMIT :events
    ) AS lately
    WHERE to_status <> 'UNREQ' AND from_status IS DISTINCT FROM to_status
    GROUP BY request_id ORDER BY newest DESC
""")

_STEPS = text("""
    SELECT e.* FROM unnest(CAST(:ids AS bigint[])) AS wanted(id) CROSS JOIN LATERAL (
        SELECT id, request_id, to_status, failure, why, at FROM request_events
        WHERE request_id = wanted.id AND from_status IS DISTINCT FROM to_status ORDER BY id DESC LIMIT :steps
    ) AS e ORDER BY e.id
""")

_SETTLED = text("""
    SELECT e.at, r.end_block FROM (
        SELECT request_id, at, from_status, to_status FROM request_events
        WHERE at > :since ORDER BY at DESC LIMIT :events
    ) AS e JOIN proof_requests r ON r.id = e.request_id
    WHERE r.kind = 'AGG' AND e.from_status = 'COMPLETE' AND e.to_status = 'RELAYED'
    ORDER BY e.at DESC LIMIT :outputs
""")


async def last_event(ledger: Database) -> int:
    """Return the number of the newest entry of the history; 0 where there is none."""
    async with ledger.connect() as connection:
        return (await connection.execute(select(func.coalesce(func.max(_e.id), 0)))).scalar_one()


async def history(ledger: Database, hours: float, lives: int) -> History:
    """Read what became of requests in the last hours: at most so many lives, those that moved last."""
    async with ledger.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        async with connection.begin():
            now = (await connection.execute(select(func.now()))).scalar_one()
            since = now - timedelta(hours=hours)
            lately = await connection.execute(_LATELY, {"since": since, "events": EVENTS})
            moved = [row.request_id for row in lately]
            return History(
                now=now,
                since=since,
                lives=await _lives(connection, moved[:lives]),
                settled=await _settled(connection, since),
                left_out=max(0, len(moved) - lives),
            )


async def _lives(connection: AsyncConnection, ids: list[int]) -> list[Life]:
    steps: defaultdict[int, list[Step]] = defaultdict(list)
    for row in await connection.execute(_STEPS, {"ids": ids, "steps": STEPS}):
        failure = Failure(row.failure) if row.failure else None
        steps[row.request_id].append(Step(row.at, Status(row.to_status), failure, row.why))
    columns = select(_r.id, _r.kind, _r.start_block, _r.end_block, _r.attempt, _r.flow_run_id)
    rows = await connection.execute(columns.where(_r.id.in_(ids)).order_by(_r.id))
    return [
        Life(
            id=row.id,
            kind=Kind(row.kind),
            range=BlockRange(row.start_block, row.end_block),
            attempt=row.attempt,
            steps=steps[row.id],
            run=row.flow_run_id,
        )
        for row in rows
    ]


async def _settled(connection: AsyncConnection, since: datetime) -> list[tuple[datetime, int]]:
    bounds = {"since": since, "events": EVENTS, "outputs": OUTPUTS}
    return [(row.at, row.end_block) for row in (await connection.execute(_SETTLED, bounds)).all()[::-1]]


# both looks at one request's history go along the index on its number
_ENDED = text("""
    SELECT r.kind, r.start_block, r.end_block, c.failure, c.to_status,
        extract(epoch FROM p.at - w.at) AS witness, extract(epoch FROM c.at - p.at) AS proving
    FROM (
        SELECT id, request_id, to_status, failure, at FROM request_events
        WHERE from_status = 'PROVING' AND to_status IN ('COMPLETE', 'FAILED') ORDER BY id DESC LIMIT :limit
    ) AS c
    JOIN proof_requests r ON r.id = c.request_id
    CROSS JOIN LATERAL (
        SELECT id, at FROM request_events WHERE request_id = c.request_id AND id < c.id
        AND from_status = 'WITNESSGEN' AND to_status = 'PROVING' ORDER BY id DESC LIMIT 1
    ) AS p
    CROSS JOIN LATERAL (
        SELECT at FROM request_events WHERE request_id = c.request_id AND id < p.id
        AND from_status = 'UNREQ' AND to_status = 'WITNESSGEN' ORDER BY id DESC LIMIT 1
    ) AS w
    ORDER BY c.id DESC
""")


async def ended(ledger: Database, limit: int) -> list[Ended]:
    """Return how long the newest requests took that the network has ended, and how they ended, the last first."""
    async with ledger.connect() as connection:
        rows = (await connection.execute(_ENDED, {"limit": limit})).all()
    return [
        Ended(
            kind=Kind(row.kind),
            range=BlockRange(row.start_block, row.end_block),
            failure=Failure(row.failure) if row.to_status == Status.FAILED.value and row.failure else None,
            witness=float(row.witness),
            proving=float(row.proving),
        )
        for row in rows
    ]
