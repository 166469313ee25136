"""The proxy before PostgreSQL: ordinary traffic passes, commits are known, and a client may die around one."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from blocks.ledger import Ledger, leadership
from infra.devnet import PostgresProxy
from infra.devnet.postgres_wire import statements
from tests.infra.places import eventually, names, record

pytestmark = pytest.mark.asyncio
COMMIT = [f"postgres.commit.{place}" for place in ("before", "done", "answered")]


@pytest_asyncio.fixture
async def proxy(empty_database_url: str) -> AsyncIterator[PostgresProxy]:
    """A proxy before the test's PostgreSQL, which has a table `t` with a unique number."""
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (n int UNIQUE DEFERRABLE, data bytea)")
    async with PostgresProxy.before(empty_database_url) as opened:
        yield opened


@pytest.fixture
def through(proxy: PostgresProxy, empty_database_url: str) -> str:
    """The URL of the database through the proxy."""
    return proxy.url(str(conninfo_to_dict(empty_database_url)["dbname"]), application="test")


@pytest_asyncio.fixture
async def engine(through: str) -> AsyncIterator[AsyncEngine]:
    """An engine as the ledger makes its own."""
    url = through.replace("postgresql://", "postgresql+psycopg://")
    made = create_async_engine(
        url, pool_size=50, connect_args={"prepare_threshold": None, "options": "-c timezone=UTC", "connect_timeout": 60}
    )
    yield made
    await made.dispose()


async def rows(url: str) -> list[int]:
    """Return what is really there, past the proxy."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return [row[0] for row in await (await connection.execute("SELECT n FROM t ORDER BY n")).fetchall()]


@pytest.mark.parametrize(
    ("sql", "does", "wrote"),
    [
        ("BEGIN", "begin", set()),
        ("start transaction isolation level repeatable read", "begin", set()),
        ("COMMIT", "commit", set()),
        ("END", "commit", set()),
        ("ROLLBACK", "rollback", set()),
        ("ROLLBACK TO SAVEPOINT a", "other", set()),
        ("COMMIT PREPARED 'a'", "other", set()),
        ("INSERT INTO t(n) VALUES ($1) ON CONFLICT (n) DO UPDATE SET n = 1 RETURNING n", "other", {"t"}),
        ('UPDATE ONLY "public"."T" AS x SET n = 1', "other", {"t"}),
        ("WITH a AS (\n  DELETE  FROM t RETURNING n)\nINSERT INTO u SELECT n FROM a", "other", {"t", "u"}),
        ("SELECT n FROM t FOR UPDATE", "other", set()),
        ("SELECT n FROM t FOR NO KEY UPDATE OF t", "other", set()),
        ("SELECT 'insert into t', $$update t$$ -- delete from t\n", "other", set()),
        ("CREATE TABLE a (b int REFERENCES t ON UPDATE CASCADE)", "other", set()),
        ("CREATE TRIGGER a BEFORE INSERT OR UPDATE ON t EXECUTE FUNCTION f()", "other", set()),
    ],
)
async def test_a_statement_is_known_by_what_it_does(sql: str, does: str, wrote: set[str]) -> None:
    """Tables are those written, not those locked, quoted or spoken of."""
    assert statements(sql) == [(does, frozenset(wrote))]


async def test_a_written_transaction_reaches_the_three_places_and_a_read_none(
    proxy: PostgresProxy, engine: AsyncEngine
) -> None:
    """The facts are the tables and the connection's name."""
    seen = record(proxy.traps)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t (n) VALUES (:n)"), {"n": 1})
        await connection.execute(text("UPDATE t SET n = 2"))
    await eventually(3, seen)
    async with engine.begin() as connection:
        assert (await connection.execute(text("SELECT n FROM t FOR UPDATE"))).scalar_one() == 2
    assert names(seen) == COMMIT
    assert all((facts["wrote"], facts["application"]) == ({"t"}, "test") for facts in seen)


async def test_statements_outside_of_a_transaction_commit_by_themselves(proxy: PostgresProxy, through: str) -> None:
    """Simple and extended queries, named statements, a transaction in one string, and a pipeline."""
    seen = record(proxy.traps, COMMIT[1])
    async with await psycopg.AsyncConnection.connect(through, autocommit=True) as connection:
        await connection.execute("INSERT INTO t (n) VALUES (1)")
        await connection.execute("INSERT INTO t (n) VALUES (%s)", (2,))
        for n in (3, 4):
            await connection.execute("INSERT INTO t (n) VALUES (%s)", (n,), prepare=True)
        await connection.execute("BEGIN; INSERT INTO t (n) VALUES (5); COMMIT")
        assert len(seen) == 5
        async with connection.pipeline(), connection.transaction():
            for n in (6, 7):
                await connection.execute("INSERT INTO t (n) VALUES (%s)", (n,))
        assert [row[0] for row in await (await connection.execute("SELECT n FROM t")).fetchall()] == list(range(1, 8))
    assert len(seen) == 6


async def test_errors_and_rollbacks_reach_no_commit(
    proxy: PostgresProxy, engine: AsyncEngine, through: str, empty_database_url: str
) -> None:
    """A failed statement, a rollback, a commit of a failed transaction, a string that cannot be parsed; none commits.

    A commit that fails is seen before, and never done.
    """
    insert = text("INSERT INTO t (n) VALUES (1)")
    async with engine.begin() as connection:
        await connection.execute(insert)
    seen = record(proxy.traps)
    with pytest.raises(IntegrityError):
        async with engine.begin() as connection:
            await connection.execute(insert)
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO t (n) VALUES (2)"))
        await connection.rollback()
        with pytest.raises(IntegrityError):
            await connection.execute(insert)
        await connection.exec_driver_sql("COMMIT")
    async with await psycopg.AsyncConnection.connect(through, autocommit=True) as plain:
        with pytest.raises(psycopg.errors.SyntaxError):
            await plain.execute("BEGIN; UPDATE t SET n = 3; NONSENSE")
        await plain.execute("SELECT 1")
    assert seen == []
    async with engine.connect() as connection:
        await connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        await connection.execute(insert)
        with pytest.raises(IntegrityError):
            await connection.commit()
    assert names(seen) == COMMIT[:1]
    assert await rows(empty_database_url) == [1]


WRITER = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("INSERT INTO t (n) VALUES (%s)", (1,))
"""


@pytest.mark.parametrize(("place", "kept"), [(COMMIT[0], []), (COMMIT[1], [1])])
async def test_a_process_killed_around_its_commit(
    proxy: PostgresProxy, through: str, empty_database_url: str, place: str, kept: list[int]
) -> None:
    """Killed before, PostgreSQL has not committed and never will; killed when it is done, it has."""
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, through))

    async def kill(_: Mapping[str, Any]) -> None:
        process = await starting
        process.kill()
        await process.wait()

    trap = proxy.traps.arm(place, kill)
    assert await asyncio.wait_for((await starting).wait(), 120) == -9
    await asyncio.sleep(0.3)
    assert trap.sprung
    assert await rows(empty_database_url) == kept
    assert proxy.traps.counts[COMMIT[2]] == 0


@pytest.mark.parametrize(("place", "kept"), [(COMMIT[0], []), (COMMIT[1], [1])])
async def test_an_outage_around_a_commit(
    proxy: PostgresProxy, engine: AsyncEngine, empty_database_url: str, place: str, kept: list[int]
) -> None:
    """The client is told the same both times: the connection is gone."""

    async def cut(_: Mapping[str, Any]) -> None:
        await proxy.close()

    proxy.traps.arm(place, cut)
    with pytest.raises(OperationalError):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t (n) VALUES (1)"))
    await asyncio.sleep(0.2)
    assert await rows(empty_database_url) == kept


async def test_while_a_commit_is_held_nobody_sees_its_rows_or_its_client_the_answer(
    proxy: PostgresProxy, engine: AsyncEngine, empty_database_url: str
) -> None:
    """Before: no row. Done: the row, and the client still waits. Answered: the client goes on."""
    seen: list[tuple[str, list[int], bool]] = []

    async def look(facts: Mapping[str, Any]) -> None:
        seen.append((facts["place"], await rows(empty_database_url), writing.done()))

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t (n) VALUES (1)"))

    for place in COMMIT[:2]:
        proxy.traps.arm(place, look)
    writing = asyncio.create_task(write())
    await asyncio.wait_for(writing, 60)
    assert seen == [(COMMIT[0], [], False), (COMMIT[1], [1], False)]


async def test_an_outage_cuts_and_refuses_until_it_is_over(proxy: PostgresProxy, through: str) -> None:
    """Connections are cut, new ones refused, and the same URL works again."""
    async with await psycopg.AsyncConnection.connect(through) as connection:
        await proxy.close()
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await psycopg.AsyncConnection.connect(through)
    await proxy.open()
    async with await psycopg.AsyncConnection.connect(through) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_while_frozen_connections_stay_and_nothing_passes(proxy: PostgresProxy, through: str) -> None:
    """A query waits, a new connection waits, and both go on after the thaw."""
    async with await psycopg.AsyncConnection.connect(through) as connection:
        proxy.freeze()
        query = asyncio.create_task(connection.execute("SELECT 1"))
        another = asyncio.create_task(psycopg.AsyncConnection.connect(through))
        assert (await asyncio.wait({query, another}, timeout=0.4))[0] == set()
        proxy.thaw()
        assert await (await asyncio.wait_for(query, 60)).fetchone() == (1,)
        await (await asyncio.wait_for(another, 60)).close()


async def test_a_cancelled_query_is_cancelled_in_the_server(through: str, empty_database_url: str) -> None:
    """The cancel request finds its way, and the connection can be used again."""
    async with await psycopg.AsyncConnection.connect(through, autocommit=True) as connection:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.execute("SELECT pg_sleep(30)"), 0.3)
        assert time.monotonic() - began < 5
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    async with await psycopg.AsyncConnection.connect(empty_database_url) as direct:
        assert await (await direct.execute(sleeping)).fetchone() == (0,)


async def test_fifty_connections_at_once_and_five_megabytes(
    proxy: PostgresProxy, engine: AsyncEngine, empty_database_url: str
) -> None:
    """Every transaction is seen once, and large values arrive whole in both directions."""
    together = asyncio.Barrier(50)

    async def write(n: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t (n) VALUES (:n)"), {"n": n})
            await together.wait()

    await asyncio.wait_for(asyncio.gather(*(write(n) for n in range(50))), 60)
    assert await rows(empty_database_url) == list(range(50))
    assert proxy.traps.counts == dict.fromkeys(COMMIT, 50)
    data = bytes(range(256)) * 20_480
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE t SET data = :data WHERE n = 1"), {"data": data})
    async with engine.connect() as connection:
        read = (await connection.execute(text("SELECT data FROM t WHERE n = 1"))).scalar_one()
    assert bytes(read) == data


async def test_the_ledger_works_through_it(database_url: str) -> None:
    """A leadership taken, kept and released are three commits of one table; looking at it is none."""
    async with PostgresProxy.before(database_url) as proxy:
        ledger = Ledger(proxy.url(str(conninfo_to_dict(database_url)["dbname"]), application="first"))
        seen = record(proxy.traps, COMMIT[1])
        async with ledger.connect() as connection:
            epoch = await leadership.take(connection, "first")
            assert epoch is not None
            assert await leadership.renew(connection, epoch)
            assert await leadership.holder(connection) == "first"
            await leadership.release(connection, epoch)
        await ledger.close()
    assert [set(facts["wrote"]) for facts in seen] == [{"leadership"}] * 3
