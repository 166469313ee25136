"""The schema: migrations build what the tables say, and the database itself refuses what must never be true."""

from typing import Any

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError

from blocks.ledger import Ledger
from blocks.ledger.tables import l1_transactions, marks, metadata, proof_requests
from proposer.errors import LedgerMoved
from proposer.requests import OPEN, Status

SHAPE = {
    "columns": """
        SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default,
               is_identity, identity_generation, numeric_precision, numeric_scale
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'""",
}


async def _shape(ledger: Ledger, what: str) -> set[tuple[Any, ...]]:
    async with ledger.connect() as connection:
        return {tuple(row) for row in await connection.execute(text(SHAPE[what]))}


@pytest.mark.parametrize("what", SHAPE)
async def test_migrations_build_what_the_tables_say(ledger: Ledger, empty_database_url: str, what: str) -> None:
    """The two databases have the same columns, constraints and indexes."""
    other = Ledger(empty_database_url)
    async with other.connect() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.commit()
    migrated, declared = await _shape(ledger, what), await _shape(other, what)
    await other.close()
    assert migrated == declared
    assert migrated


async def test_migrating_twice_changes_nothing(ledger: Ledger) -> None:
    """A second start on the same database is harmless."""
    before = await _shape(ledger, "columns")
    await ledger.migrate()
    assert await _shape(ledger, "columns") == before


def row(**changes: Any) -> dict[str, Any]:
    """A legal row of `proof_requests`."""
    values = {
        "kind": "RANGE",
        "start_block": 0,
        "end_block": 300,
        "status": "UNREQ",
        "attempt": 1,
        "range_vkey": b"r",
        "agg_vkey": b"a",
        "config_hash": b"c",
    }
    return values | changes


async def _insert(ledger: Ledger, *rows: dict[str, Any]) -> None:
    async with ledger.connect() as connection, connection.begin():
        for values in rows:
            await connection.execute(insert(proof_requests).values(values))


REFUSED = {
    "a kind that is none": (row(kind="BLOCK"), "ck_proof_requests_kind"),
    "a status that is none": (row(status="DONE"), "ck_proof_requests_status"),
    "a failure that is none": (row(failure="BadLuck"), "ck_proof_requests_failure"),
    "an empty range": (row(start_block=300), "ck_proof_requests_blocks"),
    "a range backwards": (row(start_block=301), "ck_proof_requests_blocks"),
    "a negative block": (row(start_block=-1), "ck_proof_requests_blocks"),
    "attempt 0": (row(attempt=0), "ck_proof_requests_attempt"),
    "PROVING without an id": (row(status="PROVING"), "ck_proof_requests_proving_has_id"),
    "COMPLETE without a digest": (row(status="COMPLETE", proof_length=3), "ck_proof_requests_complete_has_proof"),
    "COMPLETE without a length": (row(status="COMPLETE", proof_digest=b"d"), "ck_proof_requests_complete_has_proof"),
    "RELAYED without a digest": (row(status="RELAYED"), "ck_proof_requests_complete_has_proof"),
    "FAILED without a class": (row(status="FAILED"), "ck_proof_requests_failed_has_failure"),
    "a checkpoint without a hash": (row(checkpoint_number=5), "ck_proof_requests_checkpoint"),
    "a checkpoint hash alone": (row(checkpoint_hash=b"h"), "ck_proof_requests_checkpoint"),
    "an unknown parent": (row(parent_id=99), "fk_proof_requests_parent_id"),
    "no commitments": (row(range_vkey=None), "range_vkey"),
}


@pytest.mark.parametrize(("refused", "constraint"), REFUSED.values(), ids=REFUSED)
async def test_the_database_refuses(ledger: Ledger, refused: dict[str, Any], constraint: str) -> None:
    with pytest.raises((IntegrityError, LedgerMoved), match=constraint):
        await _insert(ledger, refused)


@pytest.mark.parametrize("status", sorted(OPEN))
async def test_open_ranges_never_overlap(ledger: Ledger, status: Status) -> None:
    """Not even by one block, in any open status; neighbours and closed rows are fine."""
    await _insert(ledger, row(status=status.value, prover_request_id="0x1"), row(start_block=300, end_block=600))
    await _insert(ledger, row(status="CANCELLED"), row(status="COMPLETE", proof_digest=b"d", proof_length=1))
    with pytest.raises(LedgerMoved, match="open_ranges_do_not_overlap"):
        await _insert(ledger, row(start_block=299, end_block=300))


async def test_a_closed_range_may_not_be_reopened_over_an_open_one(ledger: Ledger) -> None:
    """The exclusion holds for updates too."""
    await _insert(ledger, row(status="CANCELLED"), row())
    with pytest.raises(LedgerMoved, match="open_ranges_do_not_overlap"):
        async with ledger.connect() as connection, connection.begin():
            await connection.execute(update(proof_requests).values(status="UNREQ"))


async def test_one_open_aggregation_per_start(ledger: Ledger) -> None:
    """Aggregations overlap ranges and one another, but two open ones never begin at the same block."""
    await _insert(ledger, row(), row(kind="AGG"), row(kind="AGG", start_block=100))
    await _insert(ledger, row(kind="AGG", status="CANCELLED"))
    with pytest.raises(LedgerMoved, match="one_open_aggregation_per_start"):
        await _insert(ledger, row(kind="AGG", end_block=600))


def _tx(**changes: Any) -> dict[str, Any]:
    values = {
        "purpose": "propose",
        "sender": "0x1",
        "nonce": 1,
        "status": "PENDING",
    }
    return values | changes


REFUSED_TRANSACTIONS = {
    "a purpose that is none": (_tx(purpose="gift"), "ck_l1_transactions_purpose"),
    "a status that is none": (_tx(status="LOST"), "ck_l1_transactions_status"),
    "MINED in no block": (_tx(status="MINED"), "ck_l1_transactions_mined_in_block"),
    "CONFIRMED in no block": (_tx(status="CONFIRMED"), "ck_l1_transactions_mined_in_block"),
    "MINED in no form": (_tx(status="MINED", block_hash=b"b"), "ck_l1_transactions_mined_in_block"),
    "PENDING in a block": (_tx(block_hash=b"b", mined_hash=b"h"), "ck_l1_transactions_mined_in_block"),
    "the same nonce twice": (_tx(nonce=7), "one_live_transaction_per_nonce"),
}


@pytest.mark.parametrize(("refused", "constraint"), REFUSED_TRANSACTIONS.values(), ids=REFUSED_TRANSACTIONS)
async def test_the_journal_refuses(ledger: Ledger, refused: dict[str, Any], constraint: str) -> None:
    async with ledger.connect() as connection, connection.begin():
        await connection.execute(insert(l1_transactions).values(_tx(nonce=7)))
        await connection.execute(insert(l1_transactions).values(_tx(nonce=8, status="DISPLACED")))
        await connection.execute(insert(l1_transactions).values(_tx(nonce=8)))  # a displaced one frees its nonce
    with pytest.raises((IntegrityError, LedgerMoved), match=constraint):
        async with ledger.connect() as connection, connection.begin():
            await connection.execute(insert(l1_transactions).values(refused))


@pytest.mark.parametrize("table", ["identity", "leadership"])
async def test_there_is_one_identity_and_one_leadership(ledger: Ledger, table: str) -> None:
    """A second row is refused."""
    values = {"identity": "(2, 1, 10, '0x')", "leadership": "(2, 'me', 1, now(), now())"}[table]
    with pytest.raises(IntegrityError, match=f"ck_{table}_single"):
        async with ledger.connect() as connection, connection.begin():
            await connection.execute(text(f"INSERT INTO {table} VALUES {values}"))


async def test_a_write_that_fails_leaves_nothing(ledger: Ledger, epoch: int) -> None:
    """One transaction: what was written before the error is gone with it."""

    async def mark_and_stumble() -> None:
        async with ledger.write(epoch) as writer:
            await writer.mark("finalized", 5, rising=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await mark_and_stumble()
    async with ledger.connect() as connection:
        assert (await connection.execute(marks.select())).all() == []


async def test_a_ledger_of_the_first_revision_is_brought_up_to_date(ledger: Ledger) -> None:
    """Its rows stay, and it is no other than a new one."""
    new = {what: await _shape(ledger, what) for what in SHAPE}
    await _insert(ledger, row())
    async with ledger.connect() as connection:
        await connection.execute(text("DROP TABLE late_answers"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        await connection.commit()
    await ledger.migrate()
    assert {what: await _shape(ledger, what) for what in SHAPE} == new
    assert [request.range.end for request in (await ledger.view(0)).requests] == [300]
    assert await ledger.answers_left() == []
