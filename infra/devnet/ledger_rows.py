"""Read the two tables of the proposer's ledger the checker looks at, over a plain PostgreSQL connection."""

from dataclasses import dataclass

import psycopg


@dataclass(frozen=True)
class RequestRow:
    """One row of ``proof_requests``; the proof id as hex without 0x, or None."""

    id: str
    kind: str
    start: int
    end: int
    status: str
    prover_request_id: str | None

    @property
    def is_open(self) -> bool:
        """Say whether the row occupies its blocks."""
        return self.status in {"UNREQ", "WITNESSGEN", "PROVING", "PARKED"}


@dataclass(frozen=True)
class Ledger:
    """The rows of one ledger."""

    requests: list[RequestRow]
    transactions: list[tuple[int, str, str]]  # nonce, status, purpose

    @property
    def proof_ids(self) -> set[str]:
        """The proof ids the proposer has written down."""
        return {row.prover_request_id for row in self.requests if row.prover_request_id}

    @property
    def nonces(self) -> set[int]:
        """The nonces the proposer has journaled."""
        return {nonce for nonce, _, _ in self.transactions}


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
        cursor = await connection.execute(
            "SELECT id, kind, start_block, end_block, status, prover_request_id FROM proof_requests ORDER BY id"
        )
        requests = [
            RequestRow(str(row[0]), str(row[1]).upper(), int(row[2]), int(row[3]), str(row[4]).upper(), _hex(row[5]))
            for row in await cursor.fetchall()
        ]
        cursor = await connection.execute("SELECT nonce, status, purpose FROM l1_transactions ORDER BY nonce")
        transactions = [(int(row[0]), str(row[1]), str(row[2])) for row in await cursor.fetchall()]
    return Ledger(requests, transactions)
