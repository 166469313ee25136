"""One leader: the process that plans, asks and sends holds one row, by the database's clock.

Every takeover raises the epoch; every write is fenced by it. A holder that was stopped and wakes up can neither decide
nor send; it may leave the id it was given (`blocks.ledger.inbox`). (An advisory lock neither fences a
stopped holder nor survives a connection pooler.)
"""

from datetime import timedelta

from sqlalchemy import func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.tables import leadership
from proposer.errors import NotLeader
from proposer.situation import Leader

TTL_SECONDS = 8
"""After so long without a renewal a standby takes over: it works within 15 s on a busy machine too."""
RENEW_SECONDS = 2

_l = leadership.c
_TTL = literal(timedelta(seconds=TTL_SECONDS))


async def take(connection: AsyncConnection, owner: str) -> int | None:
    """Take the leadership if it is free or expired: return the new epoch, or None while another holds it.

    It waits for the writes that the last holder has begun.
    """
    now = func.clock_timestamp()
    await connection.execute(select(_l.id).where(_l.expires_at < now).with_for_update())
    statement = (
        insert(leadership)
        .values(id=1, owner=owner, epoch=1, taken_at=now, expires_at=now + _TTL)
        .on_conflict_do_update(
            index_elements=[_l.id],
            set_={"owner": owner, "epoch": _l.epoch + 1, "taken_at": now, "expires_at": now + _TTL},
            where=_l.expires_at < now,
        )
        .returning(_l.epoch)
    )
    epoch = (await connection.execute(statement)).scalar_one_or_none()
    await connection.commit()
    return epoch


async def renew(connection: AsyncConnection, epoch: int) -> bool:
    """Extend the claim; False when it has expired or another process has taken over."""
    now = func.clock_timestamp()
    done = await connection.execute(
        update(leadership).where(_l.epoch == epoch, _l.expires_at >= now).values(expires_at=now + _TTL)
    )
    await connection.commit()
    return done.rowcount == 1


async def release(connection: AsyncConnection, epoch: int) -> None:
    """Let go at a clean stop, so that the standby takes over at once."""
    await connection.execute(
        update(leadership).where(_l.epoch == epoch).values(expires_at=func.clock_timestamp() - timedelta(seconds=1))
    )
    await connection.commit()


async def holder(connection: AsyncConnection) -> str | None:
    """Return who holds the leadership now."""
    statement = select(_l.owner).where(_l.expires_at >= func.clock_timestamp())
    return (await connection.execute(statement)).scalar_one_or_none()


async def leader(connection: AsyncConnection) -> Leader | None:
    """Return who holds the leadership, or held it last; None where nobody ever has."""
    row = (
        await connection.execute(select(leadership, (_l.expires_at >= func.clock_timestamp()).label("leads")))
    ).first()
    return Leader(row.owner, row.epoch, row.taken_at, row.expires_at, row.leads) if row is not None else None


async def fence(connection: AsyncConnection, epoch: int) -> None:
    """Hold the row for this transaction: a takeover waits for it, and a stale epoch raises `NotLeader`.

    A renewal does not wait: a write that takes long costs nobody the leadership.
    """
    statement = (
        select(_l.owner)
        .where(_l.epoch == epoch, _l.expires_at >= func.clock_timestamp())
        .with_for_update(read=True, key_share=True)
    )
    if (await connection.execute(statement)).one_or_none() is None:
        raise NotLeader("another proposer process holds the leadership of this ledger; this one stands by")
