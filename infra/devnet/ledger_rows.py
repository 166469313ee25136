"""Read the tables of the proposer's ledger the checker looks at, over a plain PostgreSQL connection."""

from dataclasses import dataclass, field

import psycopg

BY_HAND = "taken up by hand"
"""How the history says that a person asked for a request."""


@dataclass(frozen=True)
class RequestRow:
    """One row of ``proof_requests``; the proof id as hex without 0x, or None."""

    id: str
    kind: str
    start: int
    end: int
    status: str
    prover_request_id: str | None
    failure: str | None = None
    # Whether the proof id is still looked at.
    looked_at: bool = False
    # How many requests for these blocks before this one were cut off before their answer.
    unknown_outcomes: int = 0
    # The request that this one carries on.
    parent: str | None = None
    # SHA-256 of the stored proof, as hex.
    digest: str | None = None

    @property
    def is_open(self) -> bool:
        """Say whether the row occupies its blocks."""
        return self.status in {"UNREQ", "WITNESSGEN", "PROVING", "PARKED"}

    @property
    def is_proven(self) -> bool:
        """Say whether the row has a proof."""
        return self.status in {"COMPLETE", "RELAYED"}


@dataclass(frozen=True)
class EventRow:
    """One row of ``request_events``, the history of the requests."""

    request: str
    frm: str | None
    to: str
    failure: str | None
    why: str


@dataclass(frozen=True)
class TransactionRow:
    """One row of ``l1_transactions`` with every hash signed for it, as hex without 0x."""

    id: str
    nonce: int
    status: str
    hashes: frozenset[str] = frozenset()

    @property
    def is_displaced(self) -> bool:
        """Say whether its nonce went to a transaction of somebody else."""
        return self.status == "DISPLACED"


@dataclass(frozen=True)
class Ledger:
    """The rows of one ledger, each table oldest first."""

    requests: list[RequestRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    transactions: list[TransactionRow] = field(default_factory=list)

    @property
    def proof_ids(self) -> set[str]:
        """The proof ids the proposer has written down."""
        return {row.prover_request_id for row in self.requests if row.prover_request_id}

    @property
    def hashes(self) -> set[str]:
        """The hashes the proposer has journaled."""
        return {tx_hash for row in self.transactions for tx_hash in row.hashes}

    def history(self, request: str) -> list[EventRow]:
        """Return what became of one request."""
        return [event for event in self.events if event.request == request]


def _hex(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value).removeprefix("0x").lower()


async def read_ledger(url: str) -> Ledger:
    """Read a ledger; ``url`` may carry SQLAlchemy's ``+psycopg``."""
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    connection = await psycopg.AsyncConnection.connect(plain, connect_timeout=10, options="-c statement_timeout=10s")
    async with connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)  # one moment for all tables
        cursor = await connection.execute(
            "SELECT id, kind, start_block, end_block, status, prover_request_id, failure, next_poll_at IS NOT NULL,"
            " unknown_outcomes, parent_id::text,"
            " encode(proof_digest, 'hex') FROM proof_requests ORDER BY id"
        )
        requests = [
            RequestRow(str(i), str(kind).upper(), start, end, str(status).upper(), _hex(proof), *rest)
            for i, kind, start, end, status, proof, *rest in await cursor.fetchall()
        ]
        cursor = await connection.execute(
            "SELECT request_id, from_status, to_status, failure, why FROM request_events ORDER BY id"
        )
        events = [EventRow(str(request), *rest) for request, *rest in await cursor.fetchall()]
        cursor = await connection.execute(
            "SELECT id, nonce, status, ARRAY(SELECT hash FROM l1_signed WHERE transaction_id = t.id)"
            " FROM l1_transactions t ORDER BY id"
        )
        transactions = [
            TransactionRow(str(i), int(nonce), str(status), frozenset(bytes(each).hex() for each in hashes))
            for i, nonce, status, hashes in await cursor.fetchall()
        ]
    return Ledger(requests, events, transactions)
