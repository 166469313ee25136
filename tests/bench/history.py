"""An idle cycle on ledgers with much and with little behind it, and how PostgreSQL finds what a cycle asks for."""

import asyncio
import contextvars
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import psycopg
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from flows.context import CURRENT, Proposer
from flows.cycle import call, propose_cycle, run_stages
from flows.stages import observe, proving
from flows.transactions import tend
from proposer.requests import Kind
from tests.acceptance.helpers import Ledger
from tests.bench.figures import Figure, Outcome, below, median, p95, plain
from tests.bench.parts import proposer_of
from tests.bench.world import World

HEAD = 3_000_000
"""The contract's head: all of the history lies below it."""
BIG = ("proof_requests", "request_events", "proofs", "aggregation_members", "l1_transactions", "l1_signed")
"""Tables that grow with every settlement."""
GROWTH, SHORT_GROWTH = 1.2, 1.6
"""Of an idle cycle's time with the settled rows behind it: of the least times in the short form, beside other tests."""
WARM_UP = 2


async def history(world: World, outcome: Outcome, sizes: Sequence[int], rounds: int) -> None:
    """Time idle cycles on ledgers of these sizes in turn, so that whatever else runs here meets them alike."""
    async with AsyncExitStack() as stack:
        config = {"starting_block": HEAD, "l2_blocks_per_second": 0.0}
        devnet = await stack.enter_async_context(world.devnet(l1_block_time_s=1.0, **config))
        proposers: dict[int, Proposer] = {}
        ledgers: dict[int, Ledger] = {}
        for size in sizes:
            ledger = ledgers[size] = world.ledger()
            proposers[size] = await stack.enter_async_context(proposer_of(devnet, ledger.url))
            await asyncio.to_thread(fill, ledger.url, size)
        away = {PREFECT_API_URL: world.prefect.api_url, PREFECT_HOME: str(world.folder / "client")}
        stack.enter_context(temporary_settings(away))
        took: dict[int, list[float]] = {size: [] for size in sizes}
        for round_ in range(WARM_UP + rounds):
            for size, proposer in proposers.items():
                seconds = await _cycle(proposer)
                if round_ >= WARM_UP:
                    took[size].append(seconds)
        largest = sizes[-1]
        scans, many = await _plans(proposers[largest])
    of = min if outcome.short else median
    growth = of(took[largest]) / of(took[sizes[1]])
    for size in sizes:
        what = f"idle cycle with Prefect, {size:,} settled rows: median of {rounds}; 95 %: {p95(took[size]):.2f} s"
        name, value = f"cycle_s_{_name(size)}", median(took[size])
        outcome.figures.append(plain(name, value, "s", what) if outcome.short else below(name, value, 1.5, "s", what))
    outcome.figures += [
        below(
            "cycle_growth",
            growth,
            SHORT_GROWTH if outcome.short else GROWTH,
            "",
            f"{largest:,} settled rows to {sizes[1]:,}" + (", the least of each" if outcome.short else ""),
        ),
        Figure(
            name="sequential_scans",
            value=float(len(scans)),
            unit="",
            what=f"of big tables, by EXPLAIN of the {many} queries of a cycle and a look at {largest:,} settled rows"
            + (f": {'; '.join(scans)}" if scans else ""),
            target="0",
            held=not scans and many > 0,
        ),
    ]


async def _cycle(proposer: Proposer) -> float:
    """Run one cycle as the process does: the flow, recorded by Prefect. Return the seconds it took."""
    context = contextvars.copy_context()
    context.run(CURRENT.set, proposer)
    began = time.perf_counter()
    await asyncio.get_running_loop().create_task(_flow(), context=context)
    return time.perf_counter() - began


async def _flow() -> None:
    await propose_cycle()


async def _plans(proposer: Proposer) -> tuple[list[str], int]:
    """Explain every query of a cycle and of what happens between cycles; return what reads a big table whole."""
    asked: dict[str, Any] = {}
    with _heard(proposer, asked):
        await run_stages(proposer, call, observe.plainly)
        await tend(proposer)
        await proving.look(proposer)
        await proposer.ledger.usual(Kind.RANGE)
        await proposer.ledger.usual(Kind.AGG)
        await proposer.ledger.to_mirror(50)
        await proposer.ledger.open_runs()
        await proposer.ledger.orders_to_do()
    scans: list[str] = []
    async with proposer.ledger.connect() as connection:
        for statement, parameters in asked.items():
            whole = await _whole(connection, statement, parameters)
            scans += [f"{table} by {' '.join(statement.split())[:120]}" for table in whole]
    return scans, len(asked)


@contextmanager
def _heard(proposer: Proposer, asked: dict[str, Any]) -> Iterator[None]:
    engine = proposer.ledger.engine.sync_engine

    def heard(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            asked.setdefault(statement, parameters[0] if many else parameters)

    event.listen(engine, "before_cursor_execute", heard)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", heard)


async def _whole(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    """Return the big tables that a statement reads from end to end."""
    answer = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    (plan,) = answer.scalar_one()
    found: list[str] = []
    nodes = [plan["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            found.append(node["Relation Name"])
    return found


def _name(size: int) -> str:
    for unit, letter in ((1_000_000, "m"), (1000, "k")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def fill(url: str, rows: int) -> None:
    """Write a history of so many settled requests: of ten, nine are ranges and the tenth aggregates them.

    Proofs are deleted by then. Without triggers: foreign keys hold by construction.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in _HISTORY:
            connection.execute(statement.encode(), {"rows": rows, "head": HEAD - 10})
        for table in BIG:
            connection.execute(f"VACUUM ANALYZE {table}".encode())


_HISTORY = (
    """
    INSERT INTO proof_requests (kind, start_block, end_block, status, attempt, since, created_at, requested_at,
        prover_request_id, claimed_epoch, range_vkey, agg_vkey, config_hash, l1_head, l1_head_hash, checkpoint_number,
        checkpoint_hash, output_root, proof_digest, proof_length, flow_run_id, last_event, mirrored_event)
    SELECT CASE WHEN i %% 10 = 0 THEN 'AGG' ELSE 'RANGE' END,
           CASE WHEN i %% 10 = 0 THEN i - 10 ELSE i - 1 END + %(head)s - %(rows)s, i + %(head)s - %(rows)s,
           'RELAYED', 1, at, at - interval '2 hours', at - interval '1 hour',
           encode(sha256(i::text::bytea), 'hex'), 1, word, word, word, i, word,
           CASE WHEN i %% 10 = 0 THEN i END, CASE WHEN i %% 10 = 0 THEN word END, CASE WHEN i %% 10 = 0 THEN word END,
           word, 1250000, gen_random_uuid()::text, i * 2, i * 2
      FROM generate_series(1, %(rows)s) AS i,
           LATERAL (SELECT now() - (%(rows)s - i) * interval '10 seconds' AS at, sha256('\\x00'::bytea) AS word) AS made
    """,
    """
    INSERT INTO request_events (request_id, from_status, to_status, why, at, epoch)
    SELECT id, 'PROVING', 'COMPLETE', 'proven: 1250000 bytes', since - interval '10 minutes', 1 FROM proof_requests
     UNION ALL
    SELECT id, 'COMPLETE', 'RELAYED', 'settled: the contract head is at ' || end_block, since, 1 FROM proof_requests
     ORDER BY 1
    """,
    """
    INSERT INTO aggregation_members (aggregation_id, position, range_id)
    SELECT a.id, p - 1, a.id - 10 + p FROM proof_requests a, generate_series(1, 9) AS p WHERE a.kind = 'AGG'
    """,
    """
    INSERT INTO l1_transactions (purpose, request_id, sender, nonce, status, created_at, mined_hash, block_number,
        block_hash, gas_used)
    SELECT purpose, a.id, '0x70997970C51812dc3A010C7d01b50e0d17dc79C8', a.id * 2 + step, 'CONFIRMED', a.since,
           sha256((purpose || a.id)::bytea), 1, sha256(a.id::text::bytea), 100000
      FROM proof_requests a, (VALUES ('checkpoint', 0), ('propose', 1)) AS each (purpose, step) WHERE a.kind = 'AGG'
    """,
    """
    INSERT INTO l1_signed (hash, transaction_id, raw, tip, fee_cap, at, purpose, subject, recipient, calldata,
        calldata_digest, gas)
    SELECT t.mined_hash, t.id, t.mined_hash, 1, 1, t.created_at, t.purpose,
           CASE t.purpose WHEN 'checkpoint' THEN 1 END, t.sender, t.mined_hash, t.mined_hash, 100000
      FROM l1_transactions t
    """,
)
