"""One leader: every write is fenced by the epoch, by the database's clock."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, text, update

from blocks.ledger import Ledger, leadership
from blocks.ledger.tables import leadership as table
from proposer.errors import EndpointDown, NotLeader
from tests.conftest import Lead


async def _expire(ledger: Ledger, seconds: float = -1) -> None:
    async with ledger.connect() as connection, connection.begin():
        await connection.execute(update(table).values(expires_at=func.clock_timestamp() + timedelta(seconds=seconds)))


async def _take(ledger: Ledger, owner: str) -> int | None:
    async with ledger.connect() as connection:
        return await leadership.take(connection, owner)


async def _finalized(ledger: Ledger) -> int | None:
    mark = (await ledger.view(0)).finalized
    return mark.number if mark else None


async def test_the_first_takes_it_and_the_second_stands_by(ledger: Ledger) -> None:
    """A held leadership is not given away."""
    assert await _take(ledger, "one") == 1
    assert await _take(ledger, "two") is None
    async with ledger.connect() as connection:
        assert await leadership.holder(connection) == "one"


async def test_the_standby_takes_over_when_the_claim_expires(ledger: Ledger) -> None:
    """With a higher epoch, and the old holder can neither renew nor write."""
    assert await _take(ledger, "one") == 1
    await _expire(ledger)
    assert await _take(ledger, "two") == 2
    async with ledger.connect() as connection:
        assert not await leadership.renew(connection, 1)
        assert await leadership.renew(connection, 2)
    with pytest.raises(NotLeader, match="stands by"):
        async with ledger.write(1) as writer:
            await writer.mark("finalized", 5, rising=True)
    assert await _finalized(ledger) is None


async def test_an_expired_claim_writes_nothing_even_if_nobody_took_over(ledger: Ledger, epoch: int) -> None:
    await _expire(ledger)
    with pytest.raises(NotLeader):
        async with ledger.write(epoch) as writer:
            await writer.mark("finalized", 5, rising=True)
    async with ledger.connect() as connection:
        assert not await leadership.renew(connection, epoch)
        assert await leadership.holder(connection) is None
    assert await _finalized(ledger) is None


async def test_a_renewed_claim_lasts_its_full_time(ledger: Ledger, epoch: int) -> None:
    await _expire(ledger, 5)
    async with ledger.connect() as connection:
        assert await leadership.renew(connection, epoch)
        left = text("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM leadership")
        assert (await connection.execute(left)).scalar_one() > leadership.TTL_SECONDS - 2 > 5


async def test_a_released_leadership_is_free_at_once(ledger: Ledger, epoch: int) -> None:
    async with ledger.connect() as connection:
        await leadership.release(connection, epoch)
    assert await _take(ledger, "two") == epoch + 1


async def test_a_stale_release_does_not_touch_the_new_holder(ledger: Ledger, epoch: int) -> None:
    await _expire(ledger)
    assert await _take(ledger, "two") == epoch + 1
    async with ledger.connect() as connection:
        await leadership.release(connection, epoch)
        assert await leadership.holder(connection) == "two"


async def test_of_many_at_once_one_becomes_leader(ledger: Ledger) -> None:
    """First take and takeover alike."""
    first = await asyncio.gather(*(_take(ledger, f"p{i}") for i in range(5)))
    assert sorted(e for e in first if e is not None) == [1]
    await _expire(ledger)
    second = await asyncio.gather(*(_take(ledger, f"p{i}") for i in range(5)))
    assert sorted(e for e in second if e is not None) == [2]


async def test_a_takeover_waits_for_an_open_write(ledger: Ledger, lead: Lead) -> None:
    """What the old holder began under a valid claim is there before the new one reads."""
    epoch = await lead(ledger)
    await _expire(ledger, 2)
    async with ledger.write(epoch) as writer:
        await writer.mark("finalized", 5, rising=True)
        await asyncio.sleep(2.2)
        takeover = asyncio.create_task(_take(ledger, "two"))
        await asyncio.sleep(0.2)
        assert not takeover.done()
    assert await takeover == epoch + 1
    assert await _finalized(ledger) == 5


async def test_a_renewal_does_not_wait_for_a_write(ledger: Ledger, epoch: int) -> None:
    """One that takes longer than the claim lasts costs nobody the leadership."""
    async with ledger.write(epoch) as writer:
        await writer.mark("finalized", 5, rising=True)
        async with asyncio.timeout(4), ledger.connect() as other:
            assert await leadership.renew(other, epoch)
            assert await leadership.take(other, "two") is None


async def test_writes_of_the_same_leader_do_not_wait_for_one_another(ledger: Ledger, epoch: int) -> None:
    """The fence is a shared lock."""
    async with ledger.write(epoch) as one:
        await one.mark("finalized", 5, rising=True)
        async with asyncio.timeout(2), ledger.write(epoch) as other:
            await other.mark("required", 6, rising=False)


async def test_a_session_left_idle_in_a_write_is_ended(ledger: Ledger, epoch: int) -> None:
    """A process stopped in the middle of a write holds up its successor for 5 s at most, and wrote nothing."""

    async def stop_in_the_middle() -> None:
        async with ledger.write(epoch) as writer:
            await writer.mark("finalized", 5, rising=True)
            await asyncio.sleep(5.6)
            await writer.mark("finalized", 6, rising=True)

    with pytest.raises(EndpointDown):
        await stop_in_the_middle()
    assert await _finalized(ledger) is None
