"""What has ever become of requests and transactions: counts, durations and spend."""

import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.running import Running, Sums
from proposer.l1_transactions import UNSETTLED
from proposer.requests import OPEN

BOUNDS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
"""Upper bounds of the buckets of durations, in seconds; the last bucket is without one."""
CATCH_UP_SECONDS = 1.5
"""How long one reading may add up what is behind it."""

_OPEN = ", ".join(f"'{status.value}'" for status in sorted(OPEN))
_UNSETTLED = ", ".join(f"'{status.value}'" for status in sorted(UNSETTLED))

# An event gets its id before it is committed: one that is older than any transaction may live is followed by no
# smaller id. OFFSET 0 keeps the planner from walking the primary key past every settled row to find the least id.
_IDS = text(f"""
    SELECT
        coalesce((SELECT id FROM request_events WHERE at < now() - interval '60 seconds' ORDER BY at DESC LIMIT 1), 0)
            AS events_settled,
        coalesce((SELECT max(id) FROM request_events), 0) AS events_last,
        coalesce(least(
            (SELECT min(id) FROM (SELECT id FROM proof_requests WHERE status IN ({_OPEN}) OFFSET 0) AS open),
            (SELECT min(id) FROM (SELECT id FROM proof_requests WHERE status = 'COMPLETE' OFFSET 0) AS proven),
            (SELECT min(id) FROM (SELECT id FROM proof_requests WHERE next_poll_at IS NOT NULL OFFSET 0) AS late),
            (SELECT min(request_id) FROM (
                SELECT request_id FROM request_events WHERE at > now() - interval '60 seconds' OFFSET 0
            ) AS lately)
        ) - 1, (SELECT max(id) FROM proof_requests), 0) AS requests_settled,
        coalesce((SELECT max(id) FROM proof_requests), 0) AS requests_last,
        coalesce(
            (SELECT min(id) FROM (SELECT id FROM l1_transactions WHERE status IN ({_UNSETTLED}) OFFSET 0) AS open) - 1,
            (SELECT max(id) FROM l1_transactions), 0
        ) AS transactions_settled,
        coalesce((SELECT max(id) FROM l1_transactions), 0) AS transactions_last
""")  # noqa: S608 - the names of our own enums

_TRANSITIONS = text("""
    SELECT r.kind, coalesce(e.from_status, '') AS frm, e.to_status AS to, coalesce(e.failure, '') AS failure,
        count(*) AS many, extract(epoch FROM max(e.at)) AS at
    FROM request_events e JOIN proof_requests r ON r.id = e.request_id
    WHERE e.id > :after AND e.id <= :upto AND e.from_status IS DISTINCT FROM e.to_status
    GROUP BY 1, 2, 3, 4
""")

# witness and proving begin where the request took the status that it leaves, settlement where it was planned
_DURATIONS = text("""
    SELECT phase, kind, width_bucket(seconds, CAST(:bounds AS float8[])) AS bucket, count(*) AS many,
        sum(seconds) AS seconds
    FROM (
        SELECT r.kind, greatest(0, extract(epoch FROM e.at - begun.at))::float8 AS seconds,
            CASE WHEN e.to_status = 'RELAYED' THEN 'settlement'
                WHEN e.from_status = 'WITNESSGEN' THEN 'witness' ELSE 'proving' END AS phase
        FROM request_events e JOIN proof_requests r ON r.id = e.request_id
        CROSS JOIN LATERAL (
            SELECT b.at FROM request_events b
            WHERE b.request_id = e.request_id AND b.id < e.id
                AND (e.to_status = 'RELAYED'
                    OR (b.to_status = e.from_status AND b.from_status IS DISTINCT FROM b.to_status))
            ORDER BY CASE WHEN e.to_status = 'RELAYED' THEN b.id ELSE -b.id END LIMIT 1
        ) AS begun
        WHERE e.id > :after AND e.id <= :upto AND (e.from_status, e.to_status) IN (
            ('WITNESSGEN', 'PROVING'), ('WITNESSGEN', 'COMPLETE'), ('PROVING', 'COMPLETE'), ('COMPLETE', 'RELAYED'))
    ) AS took
    GROUP BY 1, 2, 3
""")

_REQUESTS = text("""
    SELECT kind,
        count(*) FILTER (WHERE prover_request_id IS NOT NULL) AS paid,
        count(*) FILTER (WHERE prover_request_id IS NOT NULL AND status IN ('FAILED', 'CANCELLED')) AS wasted,
        count(*) FILTER (WHERE attempt > 1 OR parent_id IS NOT NULL) AS again
    FROM proof_requests WHERE id > :after AND id <= :upto GROUP BY kind
""")

# by its hash, one at a time: the planner takes a slice of a long history for most of it, and reads all that was signed
_TRANSACTIONS = text("""
    SELECT coalesce(s.purpose, t.purpose) AS purpose, t.status, count(*) AS many,
        coalesce(sum(t.gas_used), 0) AS gas, coalesce(sum(t.gas_used * s.fee_cap), 0) AS most
    FROM l1_transactions t
    LEFT JOIN LATERAL (SELECT purpose, fee_cap FROM l1_signed WHERE hash = t.mined_hash OFFSET 0) s ON true
    WHERE t.id > :after AND t.id <= :upto GROUP BY 1, 2
""")


@dataclass(frozen=True, slots=True)
class Durations:
    """How long a phase took: requests per bucket of `BOUNDS` (one more than these), and all their seconds."""

    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums since the ledger began."""

    sums: Sums
    last: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """When a request of a kind last took a status, in unix seconds."""

    def closed(self, kind: str, status: str) -> int:
        """Count the requests that have a status now, by what came in and what went out."""
        moves = [(key, many) for key, many in self.sums.items() if key[0] == "move" and key[1] == kind]
        return sum(m for key, m in moves if key[3] == status) - sum(m for key, m in moves if key[2] == status)

    def failures(self, *failures: str, kind: str | None = None) -> int:
        """Count the attempts that ended FAILED for one of these causes."""
        return sum(
            many
            for key, many in self.sums.items()
            if key[0] == "move" and key[3] == "FAILED" and key[4] in failures and kind in {None, key[1]}
        )

    def durations(self, phase: str, kind: str) -> Durations:
        """Return how long a phase took: `witness`, `proving`, or `settlement` (from planned to settled)."""
        buckets = tuple(self.sums["took", phase, kind, str(bucket)] for bucket in range(len(BOUNDS) + 1))
        return Durations(buckets, self.sums["seconds", phase, kind])


class TotalsReader:
    """Adds up a ledger's totals, from one reading to the next."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._events, self._requests = Running(self._of_events), Running(_of_requests)
        self._transactions = Running(_of_transactions)

    async def read(self, connection: AsyncConnection) -> Totals | None:
        """Add up; None while the first reading of a long history has not caught up yet."""
        until = time.monotonic() + CATCH_UP_SECONDS

        def go_on() -> bool:
            return time.monotonic() < until

        ids = (await connection.execute(_IDS)).one()
        parts = (
            await self._events.read(connection, ids.events_settled, ids.events_last, go_on),
            await self._requests.read(connection, ids.requests_settled, ids.requests_last, go_on),
            await self._transactions.read(connection, ids.transactions_settled, ids.transactions_last, go_on),
        )
        sums: Sums = Counter()
        for part in parts:
            if part is None:
                return None
            sums.update(part)
        return Totals(sums, dict(self._last))

    async def _of_events(self, connection: AsyncConnection, after: int, upto: int) -> Sums:
        window = {"after": after, "upto": upto}
        sums: Sums = Counter()
        for row in await connection.execute(_TRANSITIONS, window):
            sums["move", row.kind, row.frm, row.to, row.failure] += row.many
            key = (row.kind, row.to)
            self._last[key] = max(self._last.get(key, 0.0), float(row.at))
        for row in await connection.execute(_DURATIONS, window | {"bounds": list(BOUNDS)}):
            sums["took", row.phase, row.kind, str(row.bucket)] += row.many
            sums["seconds", row.phase, row.kind] += row.seconds
        return sums


async def _of_requests(connection: AsyncConnection, after: int, upto: int) -> Sums:
    rows = await connection.execute(_REQUESTS, {"after": after, "upto": upto})
    return Counter({(name, row.kind): getattr(row, name) for row in rows for name in ("paid", "wasted", "again")})


async def _of_transactions(connection: AsyncConnection, after: int, upto: int) -> Sums:
    sums: Sums = Counter()
    for row in await connection.execute(_TRANSACTIONS, {"after": after, "upto": upto}):
        sums["transactions", row.purpose, row.status] += row.many
        sums["gas", row.purpose] += int(row.gas)
        sums["most", row.purpose] += int(row.most)
    return sums
