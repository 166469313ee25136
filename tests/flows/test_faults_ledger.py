"""What a cycle costs with a long history behind it, and whose clock counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from blocks.ledger import Ledger
from blocks.ledger.tables import proof_requests, proofs
from infra.devnet import Devnet
from proposer.requests import Kind, Status
from tests.flows.conftest import MakeProposer, answered, cycle, every_request, until

HISTORY = 10_000


@contextmanager
def _rows_read(ledger: Ledger) -> Iterator[list[tuple[str, int]]]:
    """Note every statement, and how many rows it returned or changed."""
    seen: list[tuple[str, int]] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        del connection, rest
        seen.append((statement, cursor.rowcount))

    event.listen(ledger.engine.sync_engine, "after_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(ledger.engine.sync_engine, "after_cursor_execute", note)


async def _settle_before(ledger: Ledger, rows: int) -> None:
    """Give the ledger a history of settled ranges below block 1000, one proof of 1 MB among them."""
    settled = [
        {
            "kind": Kind.RANGE.value,
            "start_block": i % 999,
            "end_block": i % 999 + 1,
            "status": Status.RELAYED.value,
            "attempt": 1,
            "range_vkey": b"r",
            "agg_vkey": b"a",
            "config_hash": b"c",
            "prover_request_id": f"{i:064x}",
            "proof_digest": b"d",
            "proof_length": 1,
        }
        for i in range(rows)
    ]
    async with ledger.connect() as connection:
        first = (
            await connection.execute(insert(proof_requests).values(settled[0]).returning(proof_requests.c.id))
        ).one()
        await connection.execute(insert(proof_requests), settled[1:])
        await connection.execute(insert(proofs).values(request_id=first.id, proof=b"\x01" * 2**20))
        await connection.commit()


async def test_a_cycle_reads_no_more_rows_with_10000_settled_ones_behind_it(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """F31, S24: an idle cycle has the same statements and rows as before, and reads no proof."""
    proposer = await make_proposer(devnet)

    async def settled() -> bool:
        await cycle(proposer)
        return {r.status for r in await every_request(proposer)} == {Status.RELAYED}

    await until(proposer, settled, seconds=60)
    await cycle(proposer)
    with _rows_read(proposer.ledger) as before:
        assert (await cycle(proposer)).did == []
    await _settle_before(proposer.ledger, HISTORY)
    with _rows_read(proposer.ledger) as after:
        assert (await cycle(proposer)).did == []
    assert [(s, n) for s, n in after if "proofs.proof" in s and s.startswith("SELECT")] == []
    assert after == before


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/New_York", "Europe/Berlin"])
async def test_times_are_utc_whatever_the_database_is_set_to(
    devnet: Devnet, make_proposer: MakeProposer, zone: str
) -> None:
    """F28: two times of one zone are subtracted by the wall clock, which a DST change puts forward: ours are in UTC."""
    proposer = await make_proposer(devnet)
    async with proposer.ledger.connect() as connection:
        name = (await connection.execute(text("SELECT current_database()"))).scalar_one()
        await connection.execute(text(f"ALTER DATABASE {name} SET timezone TO '{zone}'"))
        await connection.commit()
    await proposer.ledger.close()
    await cycle(proposer)
    await answered(proposer)
    assert (await proposer.ledger.now()).utcoffset() == timedelta(0)
    assert {r.since.utcoffset() for r in await every_request(proposer)} == {timedelta(0)}
