"""Restore a backup for a test: into a fresh database, with a proposer that goes on from it."""

from pathlib import Path

from sqlalchemy import text

from blocks.ledger import Ledger, leadership
from flows.context import Proposer
from flows.orders import obey
from infra.backup.ledger import restore
from proposer.orders import OrderKind


async def take_over(file: Path, url: str, successor: Proposer) -> Proposer:
    """Restore `file` into the database of `url` and make `successor` its leader; it is still paused."""
    restore(url, file)
    ledger = Ledger(url)
    async with ledger.connect() as connection:
        epoch = await leadership.take(connection, "successor")
        await connection.execute(text("UPDATE leadership SET expires_at = now() + interval '1 hour'"))
        await connection.commit()
    assert epoch is not None, "the restored ledger is led by nobody"
    successor.ledger, successor.epoch = ledger, epoch
    return successor


async def resume(proposer: Proposer) -> None:
    """Give the order that ends the pause, and have it carried out."""
    await proposer.ledger.give_order(OrderKind.RESUME, None, "operator@host", "what was lost is known")
    await obey(proposer)
