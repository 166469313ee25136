"""A proposer without its process, for what is measured in parts: it leads for as long as it is open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text

from blocks.ledger import Ledger, LedgerIdentity, leadership
from flows.context import Proposer
from infra.devnet import Devnet
from proposer.settings import ProposerSettings
from tests.deployments.helpers import blocks_of


@asynccontextmanager
async def proposer_of(
    devnet: Devnet, url: str, *, server_url: str | None = None, **settings: Any
) -> AsyncIterator[Proposer]:
    """Open a ledger and the blocks of a devnet, and take the leadership for a day."""
    ledger = Ledger(url)
    try:
        await ledger.migrate()
        await ledger.claim_identity(LedgerIdentity(31337, devnet.config.l2_chain_id, devnet.oracle_address.lower()))
        async with ledger.connect() as connection:
            epoch = await leadership.take(connection, "bench")
            assert epoch is not None, "somebody else leads"
            await connection.execute(text("UPDATE leadership SET expires_at = now() + interval '1 day'"))
            await connection.commit()
        changes = {"OP_SUCCINCT_SERVER_URL": server_url} if server_url else {}
        async with blocks_of(devnet, seconds=30, **changes) as blocks:
            proposer = Proposer(
                name="proposer",
                settings=ProposerSettings(**settings),
                ledger=ledger,
                ledger_id=await ledger.ledger_id(),
                **vars(blocks),
                epoch=epoch,
                still_leads=lambda: True,
            )
            yield proposer
            for task in (*proposer.witnesses.values(), *proposer.rounds):
                task.cancel()
    finally:
        await ledger.close()
