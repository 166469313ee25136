"""The ledger in figures: what is read once and what anew, and that it is the same as counting everything."""

from typing import Any

import pytest
from sqlalchemy import text

from blocks.ledger import Ledger, running, totals
from blocks.ledger.figures import Figures, FiguresReader, Held
from proposer.fees import Fees
from proposer.intents import Move
from proposer.l1_transactions import Action, Purpose, Receipt, TxStatus
from proposer.ranges import BlockRange
from proposer.requests import Commitments, Failure, Kind, NewRequest, Status
from proposer.units import L1Block, Wei

OURS = Commitments(b"r" * 32, b"a" * 32, b"c" * 32)


@pytest.fixture
def reader(ledger: Ledger) -> FiguresReader:
    """A reader that has read nothing yet."""
    return FiguresReader(ledger)


async def execute(ledger: Ledger, *statements: str) -> None:
    """Change the ledger behind the writer's back."""
    async with ledger.connect() as connection, connection.begin():
        for statement in statements:
            await connection.execute(text(statement))


async def older(ledger: Ledger, hours: int) -> None:
    """Let everything have happened so long ago."""
    await execute(
        ledger,
        f"UPDATE request_events SET at = at - interval '{hours} hours'",
        f"UPDATE proof_requests SET since = since - interval '{hours} hours'",
    )


async def request(ledger: Ledger, epoch: int, start: int, *, kind: Kind = Kind.RANGE, **changes: Any) -> int:
    """Plan a request of 100 blocks."""
    new = NewRequest(
        **({"kind": kind, "range": BlockRange(start, start + 100), "attempt": 1, "commitments": OURS} | changes)
    )
    async with ledger.write(epoch) as writer:
        return await writer.insert(new)


async def prove(ledger: Ledger, epoch: int, start: int, end: Status = Status.RELAYED) -> int:
    """Take a range along its life to this status."""
    number = await request(ledger, epoch, start)
    async with ledger.write(epoch) as writer:
        await writer.claim(number, None)
        await writer.proving(number, f"{start:064x}")
    asked = await ledger.request(number)
    async with ledger.write(epoch) as writer:
        if end is Status.FAILED:
            await writer.fail(asked, Failure.UNFULFILLABLE, "no bids", [], poll=False)
        elif end is not Status.PROVING:
            await writer.complete(asked, b"proof", "proven")
        if end is Status.RELAYED:
            await writer.move(Move(number, Status.COMPLETE, Status.RELAYED, "settled"))
    await execute(ledger, f"UPDATE proof_requests SET next_poll_at = NULL WHERE id = {number}")
    return number


async def transaction(ledger: Ledger, epoch: int, nonce: int, status: TxStatus) -> int:
    """Journal a proposal, mined for 30,000 gas where it is mined."""
    action = Action(Purpose.PROPOSE, "0xoracle", b"data", 50_000)
    hash_ = b"hash%d" % nonce
    async with ledger.write(epoch) as writer:
        number = await writer.journal(
            request=None,
            sender="0xme",
            nonce=nonce,
            signed=(hash_, b"raw", Fees(Wei(1), Wei(10**9))),
            action=action,
        )
        mined = Receipt(hash_, L1Block(1), b"b" * 32, status is TxStatus.CONFIRMED, 30_000)
        await writer.record(number, status, None if status is TxStatus.PENDING else mined)
    return number


def _sums(figures: Figures) -> dict[tuple[str, ...], float]:
    assert figures.totals is not None
    return {key: value for key, value in figures.totals.sums.items() if key[0] != "seconds" and value}


async def test_a_new_ledger_has_nothing_in_it(reader: FiguresReader) -> None:
    figures = await reader.read()
    assert (figures.live, figures.proven, figures.orders, figures.unsettled, figures.paused) == ({}, [], 0, 0, False)
    assert (figures.leadership.owner, figures.leadership.epoch) == (None, 0)
    assert figures.totals is not None
    assert figures.totals.sums == {}


async def test_live_requests_are_counted_with_the_oldest_age(reader: FiguresReader, ledger: Ledger, epoch: int) -> None:
    for start in (0, 100):
        await request(ledger, epoch, start)
    await prove(ledger, epoch, 200, Status.COMPLETE)
    await prove(ledger, epoch, 300)
    await execute(ledger, "UPDATE proof_requests SET since = now() - interval '1 hour' WHERE start_block = 100")
    figures = await reader.read()
    assert set(figures.live) == {(Kind.RANGE, Status.UNREQ), (Kind.RANGE, Status.COMPLETE)}
    waiting = figures.live[Kind.RANGE, Status.UNREQ]
    assert waiting == Held(2, pytest.approx(3600, abs=5))
    assert figures.proven == [BlockRange(200, 300)]
    assert (figures.leadership.owner, figures.leadership.epoch) == ("test", epoch)


async def test_closed_requests_failures_and_spend(reader: FiguresReader, ledger: Ledger, epoch: int) -> None:
    """A proof that comes late is none that was wasted."""
    failed = await prove(ledger, epoch, 0, Status.FAILED)
    await prove(ledger, epoch, 0)
    await request(ledger, epoch, 100, attempt=2, parent=failed)
    found = (await reader.read()).totals
    assert found is not None
    assert [found.closed("RANGE", status) for status in ("FAILED", "RELAYED", "CANCELLED")] == [1, 1, 0]
    assert (found.failures(Failure.UNFULFILLABLE), found.failures(Failure.UNFULFILLABLE, kind="AGG")) == (1, 0)
    assert [found.sums[what, "RANGE"] for what in ("paid", "wasted", "again")] == [2, 1, 1]

    async with ledger.write(epoch) as writer:
        await writer.complete(await ledger.request(failed), b"late", "it arrived")
    found = (await reader.read()).totals
    assert found is not None
    assert (found.closed("RANGE", "FAILED"), found.sums["wasted", "RANGE"]) == (0, 0)


async def test_durations_are_told_by_phase(reader: FiguresReader, ledger: Ledger, epoch: int) -> None:
    """From the event that began the phase, whatever was noted in between."""
    number = await prove(ledger, epoch, 0)
    ages = {"UNREQ": 1000, "WITNESSGEN": 900, "PROVING": 400, "COMPLETE": 100, "RELAYED": 0}
    await execute(  # in one transaction, which has one now()
        ledger,
        *(
            f"UPDATE request_events SET at = now() - interval '{seconds} seconds' WHERE to_status = '{status}'"
            for status, seconds in ages.items()
        ),
    )
    async with ledger.write(epoch) as writer:
        await writer.note(number, "looked at")
    found = (await reader.read()).totals
    assert found is not None
    expected = {"witness": 500, "proving": 300, "settlement": 1000}
    for phase, seconds in expected.items():
        took = found.durations(phase, "RANGE")
        assert took.seconds == pytest.approx(seconds, abs=1)
        at = sum(bound <= took.seconds for bound in totals.BOUNDS)
        assert took.buckets == tuple(int(bucket == at) for bucket in range(len(totals.BOUNDS) + 1))


async def test_gas_is_told_by_what_was_mined(reader: FiguresReader, ledger: Ledger, epoch: int) -> None:
    for nonce, status in enumerate((TxStatus.CONFIRMED, TxStatus.REVERTED, TxStatus.PENDING)):
        await transaction(ledger, epoch, nonce, status)
    figures = await reader.read()
    assert figures.unsettled == 1
    assert _sums(figures) == {
        ("transactions", "propose", "CONFIRMED"): 1,
        ("transactions", "propose", "REVERTED"): 1,
        ("transactions", "propose", "PENDING"): 1,
        ("gas", "propose"): 60_000,
        ("most", "propose"): 60_000 * 10**9,
    }


async def test_what_is_added_up_bit_by_bit_is_what_there_is(
    ledger: Ledger, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small chunks, over several readings with more happening in between, as in one reading of everything."""
    monkeypatch.setattr(running, "CHUNK", 3)
    reader = FiguresReader(ledger)
    for start in range(0, 600, 100):
        await prove(ledger, epoch, start)
        await transaction(ledger, epoch, start, TxStatus.CONFIRMED)
        await older(ledger, 2)
        await reader.read()
    await prove(ledger, epoch, 600, Status.PROVING)
    await prove(ledger, epoch, 700, Status.FAILED)
    assert _sums(await reader.read()) == _sums(await FiguresReader(ledger).read())
    assert _sums(await reader.read())["paid", "RANGE"] == 8


async def test_settled_rows_are_not_read_again(
    reader: FiguresReader, ledger: Ledger, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading costs the same however many there are: they could be gone and the sums would be the same."""
    for start in range(0, 300, 100):
        await prove(ledger, epoch, start)
        await transaction(ledger, epoch, start, TxStatus.CONFIRMED)
    await older(ledger, 2)
    before = _sums(await reader.read())
    await execute(
        ledger,
        "UPDATE proof_requests SET prover_request_id = NULL",
        "UPDATE request_events SET to_status = 'PARKED' WHERE to_status = 'RELAYED'",
        "UPDATE l1_transactions SET gas_used = 0",
    )
    assert _sums(await reader.read()) == before


async def test_a_long_history_is_not_told_before_it_is_added_up(
    reader: FiguresReader, ledger: Ledger, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a count would look like a counter that fell and rose again."""
    await prove(ledger, epoch, 0)
    await older(ledger, 2)
    monkeypatch.setattr(totals, "CATCH_UP_SECONDS", -1)
    assert (await reader.read()).totals is None
    monkeypatch.setattr(totals, "CATCH_UP_SECONDS", 1.5)
    assert _sums(await reader.read())["paid", "RANGE"] == 1


async def test_a_reorg_below_what_was_added_up_is_seen(reader: FiguresReader, ledger: Ledger, epoch: int) -> None:
    first = await transaction(ledger, epoch, 0, TxStatus.CONFIRMED)
    await transaction(ledger, epoch, 1, TxStatus.CONFIRMED)
    assert _sums(await reader.read())["gas", "propose"] == 60_000
    async with ledger.write(epoch) as writer:
        await writer.record(first, TxStatus.PENDING, None)
    sums = _sums(await reader.read())
    assert sums["gas", "propose"] == 30_000
    assert sums["transactions", "propose", "PENDING"] == 1
