"""The ledger's database for every room: one embedded PostgreSQL, and a fresh migrated database per test."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from blocks.ledger import Ledger, leadership
from tests.postgres import Postgres

_numbers = count(1)

# how long an example takes says nothing of the proposer, only of who else uses the machine
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


async def _migrate(url: str) -> None:
    ledger = Ledger(url)
    await ledger.migrate()
    await ledger.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """An embedded PostgreSQL, stopped and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory, Postgres(Path(directory) / "pg") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """Name of a database with the newest schema, to clone from."""
    asyncio.run(_migrate(postgres.create("migrated")))
    return "migrated"


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database without a schema, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
def database_url(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """A fresh ledger database, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    yield postgres.create(name, migrated_template)
    postgres.drop(name)


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """An open ledger that belongs to nobody yet."""
    opened = Ledger(database_url)
    yield opened
    await opened.close()


Lead = Callable[..., Awaitable[int]]


@pytest.fixture
def lead() -> Lead:
    """A function that takes a ledger's leadership for `owner` and returns the epoch."""

    async def take(ledger: Ledger, owner: str = "test") -> int:
        async with ledger.connect() as connection:
            epoch = await leadership.take(connection, owner)
        assert epoch is not None, "another holder leads"
        return epoch

    return take


@pytest_asyncio.fixture
async def epoch(ledger: Ledger, lead: Lead) -> int:
    """The epoch of this test's leadership of `ledger`: for longer than any test, since nobody renews it."""
    epoch = await lead(ledger)
    async with ledger.connect() as connection:
        await connection.execute(text("UPDATE leadership SET expires_at = now() + interval '1 hour'"))
        await connection.commit()
    return epoch
