"""The claim of one process to lead: held, renewed, taken over, and never by two at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from blocks.ledger import Ledger, leadership
from deployments.claim import Claim
from proposer.errors import NotLeader
from tests.deployments.helpers import execute
from tests.postgres import Postgres


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew every 0.3 s."""
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.3)


@asynccontextmanager
async def _running(*jobs: Awaitable[object]) -> AsyncIterator[list[asyncio.Future[object]]]:
    """Run jobs beside the test; those that still run at its end are cancelled."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _leading(ledger: Ledger) -> Claim:
    claim = Claim(ledger)
    await asyncio.wait_for(claim.take(), 60)
    return claim


async def _write(ledger: Ledger, claim: Claim, number: int) -> None:
    async with ledger.write(claim.epoch) as writer:
        await writer.mark("finalized", number, rising=True)


async def _written(ledger: Ledger) -> int | None:
    mark = (await ledger.view(0)).finalized
    return mark.number if mark else None


async def test_one_leads_and_the_other_takes_over_at_its_release(ledger: Ledger) -> None:
    """Within a second or two, with a higher epoch; the first can write no more."""
    first = await _leading(ledger)
    second = Claim(ledger)
    async with _running(second.take()) as (standby,):
        await asyncio.sleep(1.1)
        assert first.holds()
        assert not standby.done()
        assert not second.holds()
        released = time.monotonic()
        await first.release()
        await asyncio.wait_for(standby, 60)
        assert time.monotonic() - released < 6, "it waited for the lease to run out"
    assert second.holds()
    assert not first.holds()
    assert second.epoch > first.epoch
    with pytest.raises(NotLeader):
        await _write(ledger, first, 1)
    await _write(ledger, second, 2)
    assert await _written(ledger) == 2


async def test_a_holder_that_renews_no_more_is_replaced_within_15_seconds(ledger: Ledger) -> None:
    """It knows so by its own clock before anybody can take over: at no moment do two hold the claim."""
    asked = time.monotonic()
    first = await _leading(ledger)
    held = time.monotonic()
    second = Claim(ledger)
    async with _running(second.take()) as (standby,):
        while not standby.done():
            assert not (first.holds() and second.holds())
            await asyncio.sleep(0.01)
        over = time.monotonic()
        assert over - asked > leadership.TTL_SECONDS - 0.5
        assert over - held < 15
    assert second.holds()
    assert not first.holds()
    with pytest.raises(NotLeader):
        await _write(ledger, first, 1)


async def test_a_claim_that_is_kept_is_renewed(ledger: Ledger, database_url: str, quick: None) -> None:
    """The row's time is extended although it had almost run out."""
    claim = await _leading(ledger)
    execute(database_url, "UPDATE leadership SET expires_at = clock_timestamp() + interval '3 seconds'")
    async with _running(claim.keep()) as (keeping,):
        await asyncio.sleep(3.5)
        assert not keeping.done()
        assert claim.holds()
        await _write(ledger, claim, 1)
    async with ledger.connect() as connection:
        assert await leadership.holder(connection) == claim.owner


async def test_a_claim_that_another_took_ends_with_not_leader(ledger: Ledger, database_url: str, quick: None) -> None:
    """At the next renewal; the claim then says of itself that it holds no more."""
    claim = await _leading(ledger)
    execute(database_url, "UPDATE leadership SET owner = 'thief', epoch = epoch + 1")
    with pytest.raises(NotLeader):
        await _write(ledger, claim, 1)
    with pytest.raises(NotLeader, match="took the leadership over"):
        await asyncio.wait_for(claim.keep(), 20)
    assert not claim.holds()


async def test_a_release_without_the_database_is_no_error(postgres: Postgres) -> None:
    """The process stops all the same; the row runs out by itself."""
    ledger = Ledger(postgres.database("no_such_database"))
    claim = Claim(ledger)
    await claim.release()
    assert not claim.holds()
    await ledger.close()


async def test_a_standby_waits_for_a_database_that_is_away(postgres: Postgres) -> None:
    """It does not end: the database comes back."""
    ledger = Ledger(postgres.database("no_such_database"))
    async with _running(Claim(ledger).take()) as (standby,):
        await asyncio.sleep(1.2)
        assert not standby.done()
    await ledger.close()
