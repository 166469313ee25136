"""Watch a run's ledger on a connection of its own, past the proxy and its faults."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg


@dataclass(frozen=True)
class Leader:
    """Who leads, by the ledger."""

    pid: int
    epoch: int
    holds: bool


@dataclass(frozen=True)
class Mark:
    """How far the ledger's histories have come; it grows with every transition and every transaction."""

    events: int
    transactions: int


class Watch:
    """Read what the run's director decides on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]]

    async def __aenter__(self) -> Self:
        """Connect."""
        options = "-c statement_timeout=10s"
        self._connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True, options=options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._connection.close()

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query."""
        async with self._lock:
            return await (await self._connection.execute(query.encode(), values)).fetchall()

    async def leader(self) -> Leader | None:
        """Return who leads, or led last; None before the first."""
        found = await self.rows("SELECT owner, epoch, expires_at >= clock_timestamp() FROM leadership")
        return Leader(int(found[0][0].rpartition(":")[2]), found[0][1], found[0][2]) if found else None

    async def mark(self) -> Mark:
        """Return how far the histories have come."""
        ((events, transactions),) = await self.rows(
            "SELECT (SELECT coalesce(max(id), 0) FROM request_events), (SELECT count(*) FROM l1_signed)"
        )
        return Mark(events, transactions)

    async def acted(self, epoch: int) -> bool:
        """Say whether a leader of this epoch has changed a request."""
        return bool(await self.rows("SELECT 1 FROM request_events WHERE epoch >= %s LIMIT 1", epoch))

    async def parked(self) -> list[int]:
        """Return the requests that wait for a person."""
        return [row[0] for row in await self.rows("SELECT id FROM proof_requests WHERE status = 'PARKED' ORDER BY id")]

    async def taken_up_by_hand(self) -> int:
        """Return how often a person took a parked request up."""
        ((count,),) = await self.rows(
            "SELECT count(*) FROM request_events WHERE from_status = 'PARKED' AND why LIKE 'taken up by hand%%'"
        )
        return int(count)

    async def unfinished(self) -> list[str]:
        """Name every request that is still open and every transaction that is not settled."""
        requests = await self.rows(
            "SELECT 'request ' || id || ' ' || kind || ' ' || start_block || '-' || end_block || ' is ' || status"
            " FROM proof_requests WHERE status IN ('UNREQ', 'WITNESSGEN', 'PROVING', 'PARKED') ORDER BY id"
        )
        transactions = await self.rows(
            "SELECT purpose || ' transaction with nonce ' || nonce || ' is ' || status"
            " FROM l1_transactions WHERE status IN ('PENDING', 'MINED') ORDER BY id"
        )
        return [row[0] for row in requests + transactions]
