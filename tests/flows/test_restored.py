"""A ledger is lost and restored from a backup: the proposer goes on, and pays for nothing that it knows of."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio
from sqlalchemy import text

from blocks.ledger import Ledger
from flows.context import Proposer
from flows.transactions import tend
from infra.backup.ledger import dump
from infra.devnet import Devnet
from proposer.l1_transactions import Purpose, TxStatus
from proposer.reasons import Code
from proposer.requests import OPEN, Kind, Status
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, looked, until, with_status
from tests.infra.backups import resume, take_over

TakeOver = Callable[[Devnet], Awaitable[Proposer]]


@pytest_asyncio.fixture
async def backup(database_url: str, tmp_path: Path) -> Callable[[], str]:
    """A function that backs the ledger up while its proposer is at work."""
    return lambda: dump(database_url, tmp_path / "ledger.dump")


@pytest_asyncio.fixture
async def from_backup(make_proposer: MakeProposer, empty_database_url: str, tmp_path: Path) -> AsyncIterator[TakeOver]:
    """A function that restores the backup and makes its proposer, which is paused."""
    async with AsyncExitStack() as stack:

        async def make(devnet: Devnet) -> Proposer:
            successor = await take_over(tmp_path / "ledger.dump", empty_database_url, await make_proposer(devnet))
            stack.push_async_callback(successor.ledger.close)
            return successor

        yield make


def _posts(devnet: Devnet) -> list[tuple[str, int, int]]:
    return [(event["kind"], event["start"], event["end"]) for event in devnet.prover.log.of("post")]


def _settled(devnet: Devnet, block: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await devnet.latest_block_number() >= block

    return look


async def _look_around(proposer: Proposer, cycles: int = 3) -> None:
    for _ in range(cycles):
        await cycle(proposer)
        await answered(proposer)
        await due_now(proposer)
        await looked(proposer)


async def test_what_was_in_flight_is_polled_and_nothing_is_asked_twice(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str]
) -> None:
    """Restored at once: paused, it takes the proofs in by their ids; resumed, it aggregates and settles."""
    lost = await make_proposer(devnet)
    await cycle(lost)
    await answered(lost)
    ids = {r.id: r.prover_id for r in await with_status(lost, Status.PROVING)}
    said = backup()
    assert "2 requests" in said
    restored = await from_backup(devnet)
    report = await cycle(restored)
    assert Code.PAUSED in {reason.code for reason in report.reasons}
    await _look_around(restored)
    assert {r.id: r.prover_id for r in await with_status(restored, Status.COMPLETE)} == ids
    assert _posts(devnet) == [("range", 1000, 1050), ("range", 1050, 1100)]
    await resume(restored)
    await until(restored, _settled(devnet, 1100), seconds=60)
    assert sorted(_posts(devnet)) == [("aggregation", 1000, 1100), ("range", 1000, 1050), ("range", 1050, 1100)]


async def test_a_restored_ledger_is_another_one_to_prefect(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str], ledger: Ledger
) -> None:
    """Numbers of requests made since the backup are given again; they must not be shown in the lost ones' runs."""
    lost = await make_proposer(devnet)
    await _identified(ledger)
    await cycle(lost)
    backup()
    restored = await from_backup(devnet)
    assert await restored.ledger.identity() == await ledger.identity()
    assert await restored.ledger.ledger_id() != await ledger.ledger_id()


async def _identified(ledger: Ledger) -> None:
    async with ledger.connect() as connection:
        await connection.execute(
            text("INSERT INTO identity (id, l1_chain_id, l2_chain_id, contract) VALUES (1, 1, 2, '0x')")
        )
        await connection.commit()


async def test_hours_later_what_the_chain_has_settled_is_taken_from_the_chain(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str]
) -> None:
    """The backup knows neither the outputs nor the nonces since: none is asked for or sent again, and it goes on."""
    lost = await make_proposer(devnet)
    await cycle(lost)
    await answered(lost)
    backup()
    await until(lost, _settled(devnet, 1100), seconds=60)
    devnet.l2.advance_to(1200)
    await until(lost, _settled(devnet, 1200), seconds=60)
    await cycle(lost)
    before, nonce = _posts(devnet), await lost.l1.nonce(devnet.proposer_address)
    restored = await from_backup(devnet)
    await _look_around(restored)
    assert [r for r in await every_request(restored) if r.status in OPEN] == []
    assert _posts(devnet) == before
    await resume(restored)
    await _look_around(restored)
    assert _posts(devnet) == before
    assert await restored.ledger.transactions(unsettled=False) == []
    devnet.l2.advance_to(1300)
    await until(restored, _settled(devnet, 1300), seconds=60)
    assert sorted(_posts(devnet)[len(before) :]) == [
        ("aggregation", 1200, 1300),
        ("range", 1200, 1250),
        ("range", 1250, 1300),
    ]
    journal = await restored.ledger.transactions(unsettled=False)
    assert [(t.action.purpose, t.nonce) for t in journal] == [
        (Purpose.CHECKPOINT, nonce),
        (Purpose.PROPOSE, nonce + 1),
    ]


async def test_a_nonce_mined_in_a_form_that_the_backup_does_not_know_blocks_nothing(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str]
) -> None:
    """Pending in the backup, signed again with a higher fee and mined since: displaced, and the next output settles."""
    lost = await make_proposer(devnet, resubmission_timeout=0.1)
    await until(lost, _proposed(lost, devnet))
    backup()
    await _raised_and_mined(lost, devnet)
    assert await devnet.latest_block_number() == 1100
    restored = await from_backup(devnet)
    (pending,) = await restored.ledger.transactions(unsettled=True)
    assert pending.status is TxStatus.PENDING
    await devnet.anvil.mine(3)
    await _look_around(restored)
    assert [t.status for t in await restored.ledger.transactions(unsettled=False)][-1] is TxStatus.DISPLACED
    assert {r.status for r in await every_request(restored)} == {Status.RELAYED}
    await resume(restored)
    await devnet.anvil.set_block_time(1)
    devnet.l2.advance_to(1200)
    await until(restored, _settled(devnet, 1200), seconds=60)
    assert len([e for e in _posts(devnet) if e[0] == "aggregation"]) == 2


def _proposed(proposer: Proposer, devnet: Devnet) -> Callable[[], Awaitable[bool]]:
    """Go on until the aggregation is proven, then send its proposal into a chain that stands still."""

    async def look() -> bool:
        if not any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer)):
            return False
        await devnet.anvil.set_block_time(3600)
        await cycle(proposer)
        return any(t.may_propose for t in await proposer.ledger.transactions(unsettled=True))

    return look


async def _raised_and_mined(proposer: Proposer, devnet: Devnet) -> None:
    (before,) = await proposer.ledger.transactions(unsettled=True)
    raised = before
    for _ in range(50):
        await tend(proposer)
        (raised,) = await proposer.ledger.transactions(unsettled=True)
        if len(raised.signed) > len(before.signed):
            break
    assert raised.newest.hash != before.newest.hash
    await devnet.anvil.mine(1)


async def test_a_proposal_that_waits_in_the_mempool_unknown_to_the_backup_is_not_doubled(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str]
) -> None:
    """Sent after the backup and not mined: one proposal of it is mined, at most on the same nonce, and it goes on."""
    lost = await make_proposer(devnet)

    async def aggregated() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(lost))

    await until(lost, aggregated)
    await tend(lost)
    backup()
    await devnet.anvil.set_block_time(3600)
    await cycle(lost)
    (waiting,) = [t for t in await lost.ledger.transactions(unsettled=True) if t.may_propose]
    restored = await from_backup(devnet)
    await resume(restored)
    await _look_around(restored)
    assert await restored.l1.nonce(devnet.proposer_address) == waiting.nonce
    await devnet.anvil.mine(3)
    assert await devnet.latest_block_number() == 1100
    assert await restored.l1.nonce(devnet.proposer_address) == waiting.nonce + 1
    await devnet.anvil.set_block_time(1)
    await _look_around(restored)
    devnet.l2.advance_to(1200)
    await until(restored, _settled(devnet, 1200), seconds=60)
    assert await restored.l1.nonce(devnet.proposer_address) == waiting.nonce + 3


async def test_a_paid_proof_that_the_backup_does_not_know_can_be_given_to_it(
    devnet: Devnet, make_proposer: MakeProposer, from_backup: TakeOver, backup: Callable[[], str]
) -> None:
    """Asked for after the backup: the statement of docs/operations.md takes up its id, and it is not paid again."""
    lost = await make_proposer(devnet, max_witness_gen=1, max_proof_requests=1)
    await cycle(lost)
    await answered(lost)
    backup()
    await until(lost, _asked_for_both(devnet))
    await answered(lost)
    ids = {r.range.start: r.prover_id for r in await every_request(lost) if r.kind is Kind.RANGE}
    restored = await from_backup(devnet)
    (queued,) = await with_status(restored, Status.UNREQ)
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    (statement,) = [s for s in document.split("```sql\n")[1:] if "prover_request_id" in s]
    filled = statement.split("```")[0].replace("ID_OF_THE_PROOF", str(ids[1050])).replace("REQUEST", str(queued.id))
    async with restored.ledger.connect() as connection:
        await connection.execute(text(filled))
        await connection.commit()
    await resume(restored)
    await until(restored, _settled(devnet, 1100), seconds=60)
    assert sorted(_posts(devnet)) == [("aggregation", 1000, 1100), ("range", 1000, 1050), ("range", 1050, 1100)]


def _asked_for_both(devnet: Devnet) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(_posts(devnet)) == 2

    return look
