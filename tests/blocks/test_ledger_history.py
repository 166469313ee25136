"""The newest history: who moved last, bounded, and with the same plan however much is behind it."""

from typing import Any

from sqlalchemy import event, text

from blocks.ledger import Ledger
from blocks.ledger.history import history, last_event
from proposer.intents import Move
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status
from tests.blocks.test_ledger_figures import execute, older, prove, request


async def test_a_new_ledger_has_no_history(ledger: Ledger) -> None:
    found = await history(ledger, 6, 30)
    assert (found.lives, found.settled, found.left_out, await last_event(ledger)) == ([], [], 0, 0)


async def test_lives_are_told_with_their_steps_and_without_notes(ledger: Ledger, epoch: int) -> None:
    """What was only planned is left out; so is what stood still for longer than is looked back."""
    await prove(ledger, epoch, 0)
    await older(ledger, 7)
    failed = await prove(ledger, epoch, 100, Status.FAILED)
    async with ledger.write(epoch) as writer:
        await writer.note(failed, "a note is no step")
        await writer.mirrored(failed, "run-of-it", 0)
    await request(ledger, epoch, 200)
    found = await history(ledger, 6, 30)
    (life,) = found.lives
    assert (life.id, life.kind, life.range, life.run) == (failed, Kind.RANGE, BlockRange(100, 200), "run-of-it")
    assert [s.status for s in life.steps] == [Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.FAILED]
    assert (life.steps[-1].failure, life.steps[-1].why) == (Failure.UNFULFILLABLE, "no bids")
    assert (found.now - found.since).total_seconds() == 6 * 3600
    assert found.settled == []


async def test_outputs_are_the_aggregations_that_were_settled(ledger: Ledger, epoch: int) -> None:
    await prove(ledger, epoch, 0)
    number = await request(ledger, epoch, 0, kind=Kind.AGG)
    async with ledger.write(epoch) as writer:
        await writer.claim(number, None)
        await writer.proving(number, "ab")
    asked = await ledger.request(number)
    async with ledger.write(epoch) as writer:
        await writer.complete(asked, b"proof", "proven")
        await writer.move(Move(number, Status.COMPLETE, Status.RELAYED, "settled"))
    assert [block for _, block in (await history(ledger, 6, 30)).settled] == [100]


async def test_the_newest_are_told_and_the_others_counted(ledger: Ledger, epoch: int) -> None:
    numbers = [await prove(ledger, epoch, 100 * i, Status.PROVING) for i in range(4)]
    found = await history(ledger, 6, 3)
    assert [life.id for life in found.lives] == numbers[1:]
    assert found.left_out == 1


async def test_it_reads_by_index_only(ledger: Ledger, epoch: int) -> None:
    """Settled rows behind it cost nothing: no plan walks a table."""
    numbers = [await prove(ledger, epoch, 100 * i) for i in range(2)]
    copies = "INSERT INTO request_events (request_id, from_status, to_status, why, at, epoch) "
    await execute(
        ledger,
        f"{copies} SELECT {numbers[0]}, 'COMPLETE', 'RELAYED', '', now() - n * interval '1 minute', 1 "
        "FROM generate_series(1, 20000) AS n",
        "INSERT INTO proof_requests (kind, start_block, end_block, status, attempt, range_vkey, agg_vkey, config_hash, "
        "proof_digest, proof_length, last_event, mirrored_event) SELECT 'RANGE', n, n + 1, 'RELAYED', 1, 'r', 'a', 'c',"
        " 'd', 1, 1, 1 FROM generate_series(1000, 20000) AS n",
        "ANALYZE",
    )
    asked: list[tuple[str, Any]] = []
    event.listen(ledger.engine.sync_engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    assert [life.id for life in (await history(ledger, 6, 30)).lives] == numbers
    await last_event(ledger)
    selects = [(statement, values) for statement, values in asked if "request_events" in statement]
    assert len(selects) == 4
    async with ledger.connect() as connection:
        await connection.execute(text("SELECT 1"))
        for statement, values in selects:
            plan = "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", values))
            assert "Seq Scan on" not in plan, f"{statement}\n{plan}"
