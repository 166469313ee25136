"""What a scrape reads: the ledger, the chain, the node, Prefect and this process, each failing alone."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import httpx

from blocks.ledger.database import LedgerIdentity
from blocks.ledger.figures import Figures, FiguresReader
from blocks.op_node import SyncStatus
from deployments.claim import Claim
from flows.context import Proposer
from flows.record import Record
from proposer.errors import ProposerError
from proposer.settings import ProposerSettings
from proposer.snapshot import OracleView
from proposer.units import Wei

READ_SECONDS = 4.0
"""How long one part may take: a scrape is answered within 5 s whatever hangs."""
PREFECT_SECONDS = 2.0
PAUSE_SECONDS = 0.2
"""Between two readings that add up a long history; the ledger has other work, too."""
_SERVER_ERROR = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """The proposer's account as transactions see it, and what they cost now."""

    nonce: int
    pending_nonce: int
    tip: Wei
    base_fee: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at everything; None is what could not be read."""

    name: str
    identity: LedgerIdentity
    settings: ProposerSettings
    leading: bool
    record: Record
    figures: Figures | None
    oracle: OracleView | None
    account: Account | None
    block_seconds: int | None
    node: SyncStatus | None
    prefect: bool
    read_at: Mapping[str, float]
    """When each endpoint last answered, in unix seconds."""


class Sources:
    """Where one process's metrics come from."""

    def __init__(self, proposer: Proposer, claim: Claim, identity: LedgerIdentity, prefect_api_url: str) -> None:
        self.proposer = proposer
        self.claim = claim
        self._identity = identity
        self._figures = FiguresReader(proposer.ledger)
        self._prefect_url = prefect_api_url.rstrip("/") + "/health"
        self._prefect: httpx.AsyncClient | None = None
        self._block_seconds: int | None = None
        self._read_at: dict[str, float] = {}

    async def aclose(self) -> None:
        """Close the connection to Prefect's server."""
        if self._prefect is not None:
            await self._prefect.aclose()

    async def catch_up(self) -> None:
        """Add up a long history before it is asked for: a counter that begins with NaN has no rate for as long."""
        while True:
            figures = await self._try("ledger", self._figures.read())
            if figures is not None and figures.totals is not None:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> Seen:
        """Read everything at once. Nothing is raised for what is away."""
        proposer = self.proposer
        figures, oracle, account, block_seconds, node, prefect = await asyncio.gather(
            self._try("ledger", self._figures.read()),
            self._try("l1", self._oracle()),
            self._try(None, self._account()),
            self._try(None, self._block_time()),
            self._try("node", proposer.node.sync_status()),
            self._prefect_answers(),
        )
        return Seen(
            name=proposer.name,
            identity=self._identity,
            settings=proposer.settings,
            leading=self.claim.holds(),
            record=proposer.record,
            figures=figures,
            oracle=oracle,
            account=account,
            block_seconds=block_seconds,
            node=node,
            prefect=prefect,
            read_at=dict(self._read_at),
        )

    async def _try(self, endpoint: str | None, read: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                found = await read
        except (ProposerError, TimeoutError):
            return None
        if endpoint is not None:
            self._read_at[endpoint] = time.time()
        return found

    async def _oracle(self) -> OracleView:
        signer = self.proposer.signer
        at = await self.proposer.l1.head()
        return await self.proposer.oracle.view(self.proposer.l1, at, signer.address if signer else None)

    async def _account(self) -> Account | None:
        signer, l1 = self.proposer.signer, self.proposer.l1
        if signer is None:
            return None
        nonce, pending = await l1.nonce(signer.address), await l1.nonce(signer.address, "pending")
        return Account(nonce, pending, *await l1.fee_suggestion())

    async def _block_time(self) -> int:
        """Read the seconds between two L2 blocks, once: they are fixed at deployment."""
        if self._block_seconds is None:
            self._block_seconds = await self.proposer.oracle.l2_block_time(self.proposer.l1)
        return self._block_seconds

    async def _prefect_answers(self) -> bool:
        if self._prefect is None:
            self._prefect = httpx.AsyncClient(timeout=PREFECT_SECONDS, trust_env=False)
        try:
            answer = await self._prefect.get(self._prefect_url)
        except httpx.HTTPError:
            return False
        if answer.status_code >= _SERVER_ERROR:
            return False
        self._read_at["prefect"] = time.time()
        return True
